// SPDX-License-Identifier: MPL-2.0
//
// The scheduler of a block's GPU threads. One thread of the operating system runs all of it, so nothing here is atomic.
//
// A fiber that cannot go on leaves to, in this order: a GPU thread that has not begun, on an idle fiber; a fiber that
// is ready; the thread's own stack, when all have ended. A fiber that pauses goes behind the others that are ready.
#include "block.h"

#include <cstdlib>
#include <ctime>

#include <sched.h>

namespace host {

__thread Here here;
static __thread Block* current;

UNSEEN static uint64_t now_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

// Lets other threads of the operating system run. Where a yield takes long, threads that never wait hold the processors,
// and the next few times are short sleeps instead: a thread that wakes is preferred to them, one that yields is not.
UNSEEN void let_others_run() {
    static __thread uint32_t crowded;
    if (crowded != 0) {
        --crowded;
        const timespec shortest = {0, 1};
        nanosleep(&shortest, nullptr);
        return;
    }
    const uint64_t before = now_ns();
    sched_yield();
    if (now_ns() - before > 500000) crowded = 64;
}

UNSEEN void Block::Row::push(Fiber* fiber) {
    fiber->next = nullptr;
    (first == nullptr ? first : last->next) = fiber;
    last = fiber;
}

UNSEEN Fiber* Block::Row::pop() {
    Fiber* fiber = first;
    if (fiber != nullptr) first = fiber->next;
    return fiber;
}

// Takes fibers from the pool until there are so many, or no more are to be had.
UNSEEN void Block::grow(uint32_t fibers) {
    while (fibers_ < fibers) {
        Fiber* fiber = take_fiber();
        if (fiber == nullptr) return;
        ++fibers_;
        idle_.push(fiber);
    }
}

UNSEEN Fiber* Block::idle_fiber() {
    if (idle_.first == nullptr) grow(fibers_ + 1);
    return idle_.pop();
}

UNSEEN void Block::entry() {
    Block& block = *current;
    entered(block.own_);
    block.live();
}

// The life of a fiber: threads that have not begun, one after the other, then whatever is ready.
UNSEEN void Block::live() {
    do {
        running_->thread = begun_++;
        here.thread = running_->thread;
        kernel_->run(args_);
        ++ended_;
        Warp& warp = warps_[running_->thread / WARP];
        if (--warp.left == warp.arrived) open_warp(warp);
        stuck_since_ = 0;
        if (arrived_ != 0 && arrived_ == threads_ - ended_) open_barrier();
    } while (begun_ < threads_ && !OWN_STACKS);
    idle_.push(running_);
    leave();
}

// Goes on with something else. Returns when the running fiber, which is in some row, is taken out of it again.
UNSEEN void Block::leave() {
    Fiber* self = running_;
    Fiber* to = nullptr;
    if (begun_ < threads_ && (to = idle_fiber()) != nullptr) {
        prepare(*to, entry);
#if HOST_TSAN
        to->tsan = tsan_[begun_];
#endif
    } else if ((to = ready_.pop()) == nullptr) {
        to = &own_;
        if (ended_ != threads_ && outcome_.ended < Ended::STUCK) {
            // All that have begun wait for one another, some for their warps and some for the block.
            outcome_.ended = begun_ == threads_ ? Ended::STUCK : Ended::NO_STACKS;
            outcome_.absent = threads_ - arrived_;
        }
    }
    // Itself, where it is the only one that is ready.
    if (to == self) return;
    running_ = to;
    here.thread = to->thread;
    switch_fiber(*self, *to);
}

UNSEEN void Block::make_ready(Row& row) {
    if (ready_.first == nullptr) ready_ = row;
    else if (row.first != nullptr) {
        ready_.last->next = row.first;
        ready_.last = row.last;
    }
    row = Row();
}

UNSEEN void Block::open_warp(Warp& warp) {
#if HOST_TSAN
    ++warp.generation;
#endif
    make_ready(warp.waiting);
    warp.arrived = 0;
}

UNSEEN void Block::open_barrier() {
    if (ended_ != 0 && outcome_.ended == Ended::WELL) {
        outcome_.ended = Ended::MISSED;
        outcome_.absent = ended_;
    }
#if HOST_TSAN
    ++generation_;
#endif
    make_ready(barrier_);
    arrived_ = 0;
    pauses_ = 0;
    stuck_since_ = 0;
}

UNSEEN void Block::give_up(Ended ended, uint32_t absent) {
    outcome_.ended = ended;
    outcome_.absent = absent;
    Fiber* self = running_;
    idle_.push(self);
    running_ = &own_;
    switch_fiber(*self, own_);
}

UNSEEN void sync_block(Place) {
    Block& block = *current;
#if HOST_TSAN
    void* word = &block.barrier_words_[block.generation_ % 2];
    __tsan_release(word);
#endif
    if (++block.arrived_ == block.threads_ - block.ended_) {
        // The last goes on at once.
        block.open_barrier();
    } else {
        block.barrier_.push(block.running_);
        block.leave();
    }
#if HOST_TSAN
    __tsan_acquire(word);
#endif
}

UNSEEN void sync_warp(Place) {
    Block& block = *current;
    Block::Warp& warp = block.warps_[here.thread / WARP];
#if HOST_TSAN
    void* word = &warp.words[warp.generation % 2];
    __tsan_release(word);
#endif
    if (++warp.arrived == warp.left) {
        block.open_warp(warp);
    } else {
        warp.waiting.push(block.running_);
        block.leave();
    }
#if HOST_TSAN
    __tsan_acquire(word);
#endif
}

// A lane has what it had last: that of a thread that has ended is of no use.
UNSEEN uint64_t from_lane(uint64_t value, uint32_t lane, Place place) {
    std::vector<uint64_t>& lanes = current->lanes_;
    const uint32_t first = here.thread / WARP * WARP, asked = first + lane % WARP;
    lanes[here.thread] = value;
    sync_warp(place);
    const uint64_t got = asked < lanes.size() ? lanes[asked] : value;
    sync_warp(place);
    return got;
}

UNSEEN void pause() {
    Block& block = *current;
    // Once round the block, the other threads of the operating system have their turn.
    if (++block.pauses_ >= block.threads_ - block.ended_ - block.arrived_) {
        block.pauses_ = 0;
        if (block.patience_ != 0 && block.arrived_ != 0) {
            const uint64_t now = now_ns();
            if (block.stuck_since_ == 0) block.stuck_since_ = now;
            if (now - block.stuck_since_ > block.patience_)
                block.give_up(Ended::STUCK, block.threads_ - block.arrived_);
        }
        let_others_run();
    }
    block.ready_.push(block.running_);
    block.leave();
}

#if HOST_TSAN
// Here and not when a thread begins, so that no thread is ordered after what others of its block have done by then.
UNSEEN void Block::begin_tsan() {
    own_.tsan = __tsan_get_current_fiber();
    generation_ = 0;
    tsan_ = static_cast<void**>(std::malloc(threads_ * sizeof(void*)));
    if (tsan_ == nullptr) std::abort();
    for (uint32_t thread = 0; thread < threads_; ++thread) tsan_[thread] = __tsan_create_fiber(0);
}

// What follows the block comes after all that its threads did, also those that were given up.
UNSEEN void Block::end_tsan() {
    for (uint32_t thread = 0; thread < threads_; ++thread) {
        __tsan_switch_to_fiber(tsan_[thread], 1);
        __tsan_release(&end_word_);
    }
    __tsan_switch_to_fiber(own_.tsan, 1);
    __tsan_acquire(&end_word_);
    for (uint32_t thread = 0; thread < threads_; ++thread) __tsan_destroy_fiber(tsan_[thread]);
    std::free(tsan_);
}
#endif

UNSEEN Outcome Block::run(const Kernel& kernel, const void* args, uint32_t index, uint32_t blocks, uint32_t threads,
                          uint32_t shared, uint64_t patience_ns) {
    // Keeping more stacks than a block can use would keep them from others.
    if (fibers_ > threads) release();
    kernel_ = &kernel;
    args_ = args;
    threads_ = threads;
    begun_ = ended_ = arrived_ = pauses_ = 0;
    patience_ = patience_ns;
    stuck_since_ = 0;
    outcome_ = Outcome{Ended::WELL, index, 0};
    warps_.assign((threads + WARP - 1) / WARP, Warp());
    for (uint32_t thread = 0; thread < threads; ++thread) ++warps_[thread / WARP].left;
    lanes_.resize(threads);
    dynamic_.resize((shared + sizeof(Packet) - 1) / sizeof(Packet));
    if (OWN_STACKS) {
        grow(threads);
        if (fibers_ < threads) {
            outcome_.ended = Ended::NO_STACKS;
            return outcome_;
        }
    }
#if HOST_TSAN
    begin_tsan();
#endif
    here = Here{index, blocks, 0, threads, reinterpret_cast<char*>(dynamic_.data())};
    current = this;
    running_ = &own_;
    leave();
#if HOST_TSAN
    end_tsan();
#endif
    // The fibers of a block that was given up are idle too, whatever they waited for.
    while (Fiber* fiber = ready_.pop()) idle_.push(fiber);
    while (Fiber* fiber = barrier_.pop()) idle_.push(fiber);
    for (Warp& warp : warps_)
        while (Fiber* fiber = warp.waiting.pop()) idle_.push(fiber);
    return outcome_;
}

UNSEEN void Block::release() {
    give_back(idle_.first);
    idle_ = Row();
    fibers_ = 0;
}

} // namespace host
