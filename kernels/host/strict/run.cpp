// SPDX-License-Identifier: MPL-2.0
//
// The scheduler of a strict launch, and the dialect's words.
#include "run.h"

#include <algorithm>
#include <cstring>

#include "../block.h"

namespace host::strict {

static __thread Run* current;

// Switches between looks at whether there is room for another block.
constexpr uint32_t SLICE = 4096;

const Runtime& Run::runtime() {
    static const Runtime table = {Run::sync_block, Run::sync_warp, Run::from_lane, Run::pause, Run::access};
    return table;
}

Run::Run(const Module& module, const Launch& launch, uint64_t seed, uint64_t filler)
    : module_(module), launch_(launch), filler_(filler), random_(seed), pace_(1u << random_.below(11)) {
    until_ = 1 + random_.below(2 * pace_);
    order_.resize(launch.blocks);
    for (uint32_t i = 0; i < launch.blocks; ++i) {
        const uint32_t other = random_.below(i + 1);
        order_[i] = order_[other];
        order_[other] = i;
    }
    find_declared();
}

Run::~Run() {
    for (const std::unique_ptr<Resident>& block : residents_)
        for (Thread& thread : block->threads)
            if (thread.fiber != nullptr) {
                thread.fiber->next = idle_;
                idle_ = thread.fiber;
            }
    host::give_back(idle_);
}

void Run::begin_block(uint32_t multiprocessor) {
    auto block = std::make_unique<Resident>();
    block->index = order_.back();
    order_.pop_back();
    block->multiprocessor = multiprocessor;
    block->threads.resize(launch_.threads);
    block->ready.reserve(launch_.threads);
    block->lanes.resize(launch_.threads);
    block->warps.resize((launch_.threads + WARP - 1) / WARP);
    block->all.members = launch_.threads;
    for (uint32_t i = 0; i < launch_.threads; ++i) {
        block->threads[i].block = block.get();
        block->threads[i].index = i;
        block->ready.push_back(&block->threads[i]);
        ++block->warps[i / WARP].members;
    }
    block->dynamic_bytes = std::make_unique<char[]>(launch_.shared + 16);
    block->dynamic = block->dynamic_bytes.get() + (16 - reinterpret_cast<uintptr_t>(block->dynamic_bytes.get()) % 16) % 16;
    const bool kept = block->dynamic_shared.resize(launch_.shared) && block->declared_shared.resize(declared_.bytes);
    residents_.push_back(std::move(block));
    if (!kept) fail(fault_of(Wrong::NO_STACKS));
}

bool Run::go_on(uint32_t& multiprocessor) {
    current = this;
    bool ended = false;
    for (uint32_t switches = 0; !failed() && !ended && (switches < SLICE || order_.empty()); ++switches) {
        Thread* const next = choose();
        if (next == nullptr) {
            fail(waiting_in_vain());
            break;
        }
        run(*next);
        running_ = nullptr;
        if (!next->ended || next->block->all.ended != launch_.threads) continue;
        multiprocessor = next->block->multiprocessor;
        if (home_ == next->block) home_ = nullptr;
        const auto gone = std::find_if(residents_.begin(), residents_.end(),
                                       [&](const auto& block) { return block.get() == next->block; });
        residents_.erase(gone);
        ended = true;
    }
    current = nullptr;
    return ended;
}

// Nobody can go on: some threads of a block wait for their warp, and others for the block.
Fault Run::waiting_in_vain() const {
    Fault fault = fault_of(Wrong::APART_WARP);
    for (const std::unique_ptr<Resident>& block : residents_)
        for (const Meeting& warp : block->warps) {
            if (warp.waiting.empty()) continue;
            const Thread &first = *warp.waiting.front(), &other = *block->all.waiting.front();
            fault.block = block->index;
            fault.thread = first.index;
            fault.place = first.at;
            fault.other = other.index;
            fault.other_place = other.at;
            return fault;
        }
    return fault;
}

// Mostly another thread of the block that runs: to change the block, its shared memory must be moved.
Run::Thread* Run::choose() {
    Resident* block = home_;
    if (block == nullptr || block->ready.empty() || random_.below(8) == 0) {
        const size_t count = residents_.size(), first = random_.below(static_cast<uint32_t>(count));
        for (size_t i = 0; i < count; ++i) {
            block = residents_[(first + i) % count].get();
            if (!block->ready.empty()) break;
        }
        if (block->ready.empty()) return nullptr;
    }
    std::vector<Thread*>& ready = block->ready;
    std::swap(ready[random_.below(static_cast<uint32_t>(ready.size()))], ready.back());
    Thread* const thread = ready.back();
    ready.pop_back();
    return thread;
}

void Run::run(Thread& thread) {
    running_ = &thread;
    move_in(thread.block);
    *here_ = {thread.block->index, launch_.blocks, thread.index, launch_.threads, thread.block->dynamic};
    if (thread.fiber == nullptr) {
        thread.fiber = idle_ != nullptr ? idle_ : take_fiber();
        if (thread.fiber == nullptr) return fail(fault_of(Wrong::NO_STACKS));
        if (thread.fiber == idle_) idle_ = idle_->next;
        prepare(*thread.fiber, entry);
    }
    switch_fiber(own_, *thread.fiber);
    if (!thread.ended) return;
    thread.fiber->next = idle_;
    idle_ = thread.fiber;
    thread.fiber = nullptr;
}

// The life of a fiber.
void Run::entry() {
    Run& run = *current;
    entered(run.own_);
    run.launch_.kernel->run(run.launch_.args);
    run.end(*run.running_);
    run.leave();
}

// Back to go_on(). Returns when the running thread is chosen again.
void Run::leave() {
    Fiber* const self = running_->fiber;
    switch_fiber(*self, own_);
}

// Lets other threads go on, of this launch.
void Run::let_others() {
    running_->block->ready.push_back(running_);
    leave();
}

// Puts a block's SHARED memory where its threads find it.
void Run::move_in(Resident* block) {
    if (home_ == block) return;
    char* const memory = reinterpret_cast<char*>(declared_.begin);
    if (home_ != nullptr && home_->declared_shared.begin() < home_->declared_shared.end()) {
        const Shared& shared = home_->declared_shared;
        home_->declared_bytes.assign(memory + shared.begin(), memory + shared.end());
    }
    home_ = block;
    if (!block->declared_bytes.empty())
        std::memcpy(memory + block->declared_shared.begin(), block->declared_bytes.data(), block->declared_bytes.size());
}

void Run::open(Meeting& meeting) {
    ++meeting.opened;
    for (Thread* thread : meeting.waiting) thread->block->ready.push_back(thread);
    meeting.waiting.clear();
}

void Run::meet(Meeting& meeting, Place place, bool of_warp) {
    running_->at = place;
    pauses_ = 0;
    Fault fault = fault_of(of_warp ? Wrong::ENDED_WARP : Wrong::ENDED);
    fault.place = place;
    if (meeting.ended != 0) {
        fault.other = fault.thread;
        fault.thread = meeting.last_ended;
        return fail(fault);
    }
    if (!meeting.waiting.empty()) {
        const Thread& first = *meeting.waiting.front();
        if (first.at.line != place.line || std::strcmp(first.at.file, place.file) != 0) {
            fault.wrong = of_warp ? Wrong::APART_WARP : Wrong::APART;
            fault.other = first.index;
            fault.other_place = first.at;
            return fail(fault);
        }
    }
    meeting.waiting.push_back(running_);
    if (meeting.waiting.size() == meeting.members) open(meeting);
    leave();
}

void Run::end(Thread& thread) {
    thread.ended = true;
    pauses_ = 0;
    Resident& block = *thread.block;
    for (Meeting* meeting : {&block.warps[thread.index / WARP], &block.all}) {
        ++meeting->ended;
        meeting->last_ended = thread.index;
        if (meeting->waiting.empty()) continue;
        Fault fault = fault_of(meeting == &block.all ? Wrong::ENDED : Wrong::ENDED_WARP);
        fault.other = meeting->waiting.front()->index;
        fault.place = meeting->waiting.front()->at;
        fail(fault);
    }
}

Fault Run::fault_of(Wrong wrong) const {
    Fault fault;
    fault.wrong = wrong;
    if (running_ != nullptr) {
        fault.block = running_->block->index;
        fault.thread = running_->index;
    }
    return fault;
}

// Keeps the first fault. On a fiber, it does not return.
void Run::fail(const Fault& fault) {
    if (!failed()) fault_ = fault;
    if (running_ != nullptr && running_->fiber != nullptr) leave();
}

void Run::sync_block(Place place) { current->meet(current->running_->block->all, place, false); }

void Run::sync_warp(Place place) {
    const Thread& thread = *current->running_;
    current->meet(thread.block->warps[thread.index / WARP], place, true);
}

uint64_t Run::from_lane(uint64_t value, uint32_t lane, Place place) {
    const Thread& thread = *current->running_;
    Resident& block = *thread.block;
    const uint32_t first = thread.index / WARP * WARP;
    if (lane >= block.warps[thread.index / WARP].members) {
        Fault fault = current->fault_of(Wrong::NO_LANE);
        fault.asked = lane;
        fault.place = place;
        current->fail(fault);
    }
    block.lanes[thread.index] = value;
    sync_warp(place);
    const uint64_t got = block.lanes[first + lane];
    sync_warp(place);
    return got;
}

void Run::pause() {
    Run& run = *current;
    size_t ready = 1;
    for (const std::unique_ptr<Resident>& block : run.residents_) ready += block->ready.size();
    // All others have most likely had their turns, and pause too.
    if (++run.pauses_ >= 2 * ready) {
        run.pauses_ = 0;
        let_others_run();
    }
    run.let_others();
}

void Run::access(const void* memory, size_t bytes, uint32_t how, const void* from) {
    Run* const run = current;
    // While a module's objects are made, nothing runs.
    if (run == nullptr || bytes == 0) return;
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
    const Fiber& fiber = *run->running_->fiber;
    if (Range{reinterpret_cast<uintptr_t>(fiber.stack), fiber.stack_size}.holds(address, bytes)) return;
    if (Range{reinterpret_cast<uintptr_t>(run->here_), sizeof(Here)}.holds(address, bytes)) return;
    run->check({address, bytes, how, from});
    if (--run->until_ == 0) {
        run->until_ = 1 + run->random_.below(2 * run->pace_);
        run->let_others();
    }
}

} // namespace host::strict
