// SPDX-License-Identifier: MPL-2.0
//
// Switching, and the pool of stacks, which never shrinks: its size is the most GPU threads that waited at one time.
#include "fiber.h"

#include <mutex>
#include <new>

#include <sys/mman.h>
#include <unistd.h>

namespace host {

#if HOST_UCONTEXT

UNSEEN static void exchange(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

UNSEEN static void aim(Fiber& fiber, void (*entry)()) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = fiber.stack_size;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
}

#else

// Pushes what a call preserves, leaves the stack pointer in *save, goes on with the stack at `load`.
extern "C" __attribute__((visibility("hidden"))) void annulus_host_switch(void** save, void* load);

UNSEEN static void exchange(Fiber& from, Fiber& to) { annulus_host_switch(&from.stack_pointer, to.stack_pointer); }

#if defined(__x86_64__)

asm(R"(
    .text
    .p2align 4
    .hidden annulus_host_switch
    .globl annulus_host_switch
    .type annulus_host_switch, @function
annulus_host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size annulus_host_switch, .-annulus_host_switch
)");

// Six registers, the address that `ret` takes, and a return address of zero, with which unwinders stop. At entry the
// stack pointer is 8 below a multiple of 16, as after a call.
UNSEEN static void aim(Fiber& fiber, void (*entry)()) {
    void** top = reinterpret_cast<void**>(fiber.stack + fiber.stack_size);
    top[-1] = nullptr;
    top[-2] = reinterpret_cast<void*>(entry);
    for (int saved = -8; saved < -2; ++saved) top[saved] = nullptr;
    fiber.stack_pointer = top - 8;
}

#else

asm(R"(
    .text
    .p2align 4
    .hidden annulus_host_switch
    .globl annulus_host_switch
    .type annulus_host_switch, %function
annulus_host_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size annulus_host_switch, .-annulus_host_switch
)");

// Twenty registers, of which x30 is where `ret` goes.
UNSEEN static void aim(Fiber& fiber, void (*entry)()) {
    void** saved = reinterpret_cast<void**>(fiber.stack + fiber.stack_size - 160);
    for (int i = 0; i < 20; ++i) saved[i] = nullptr;
    saved[11] = reinterpret_cast<void*>(entry);
    fiber.stack_pointer = saved;
}

#endif
#endif

UNSEEN void prepare(Fiber& fiber, void (*entry)()) {
#if HOST_ASAN
    __asan_unpoison_memory_region(fiber.stack, fiber.stack_size);
    fiber.fake_stack = nullptr;
#endif
    aim(fiber, entry);
}

UNSEEN void entered([[maybe_unused]] Fiber& before) {
#if HOST_ASAN
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (before.stack == nullptr) {
        before.stack = static_cast<char*>(const_cast<void*>(bottom));
        before.stack_size = size;
    }
#endif
}

UNSEEN void switch_fiber(Fiber& from, Fiber& to) {
#if HOST_TSAN
    __tsan_switch_to_fiber(to.tsan, 1);
#endif
#if HOST_ASAN
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_size);
#endif
    exchange(from, to);
#if HOST_ASAN
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// Instrumented code has larger frames.
#if HOST_TSAN || HOST_ASAN
constexpr size_t STACK = 256 * 1024;
#else
constexpr size_t STACK = 64 * 1024;
#endif

// The fiber itself, in the highest bytes of its stack's mapping; a multiple of 64, which keeps the stack's top aligned.
constexpr size_t HEAD = (sizeof(Fiber) + 63) / 64 * 64;

// Trivially destructible, since threads may still run blocks while the process ends.
static std::mutex pool_lock;
static Fiber* pool = nullptr;

Fiber* take_fiber() {
    {
        const std::lock_guard<std::mutex> lock(pool_lock);
        if (Fiber* fiber = pool) {
            pool = fiber->next;
            return fiber;
        }
    }
    const size_t guard = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void* mapping = mmap(nullptr, guard + STACK, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) return nullptr;
    if (mprotect(mapping, guard, PROT_NONE) != 0) {
        munmap(mapping, guard + STACK);
        return nullptr;
    }
    char* stack = static_cast<char*>(mapping) + guard;
    Fiber* fiber = new (stack + STACK - HEAD) Fiber();
    fiber->stack = stack;
    fiber->stack_size = STACK - HEAD;
    return fiber;
}

void give_back(Fiber* list) {
    if (list == nullptr) return;
    Fiber* last = list;
    while (last->next != nullptr) last = last->next;
    const std::lock_guard<std::mutex> lock(pool_lock);
    last->next = pool;
    pool = list;
}

} // namespace host
