// SPDX-License-Identifier: MPL-2.0
//
// What ThreadSanitizer and AddressSanitizer must be told about fibers; nothing in other builds.
//
// ThreadSanitizer: each GPU thread is a thread of its own to it, made when its block begins, so that it is ordered
// after what came before the launch and after nothing else. Switching orders nothing; a barrier and a block's end do.
// The functions of block.cpp touch their block's lists from all these threads and are not instrumented (UNSEEN). It
// holds 8128 threads at the most, so a device that runs under it must have room for fewer.
//
// AddressSanitizer: it must know which stack is current.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_THREAD__)
#define HOST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HOST_TSAN 1
#endif
#endif

#if defined(__SANITIZE_ADDRESS__)
#define HOST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HOST_ASAN 1
#endif
#endif

#if HOST_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* word);
void __tsan_release(void* word);
}
#define UNSEEN __attribute__((no_sanitize("thread")))
#else
#define UNSEEN
#endif

#if HOST_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* saved, const void** bottom_before, size_t* size_before);
void __asan_unpoison_memory_region(const volatile void* start, size_t size);
}
#endif

namespace host {

// Whether each GPU thread of a block needs a stack of its own, because it is known by its stack.
#if HOST_TSAN
constexpr bool OWN_STACKS = true;
#else
constexpr bool OWN_STACKS = false;
#endif

} // namespace host
