// SPDX-License-Identifier: MPL-2.0
//
// Streams: queues of work with a thread each, and what is waited for and written in them.
//
// The default stream is the legacy one: its work comes after all that blocking streams had been given before, and
// theirs after its. Positions in queues say so, taken when work is submitted.
#include "driver.h"

#include <algorithm>
#include <ctime>

#include <sched.h>
#include <unistd.h>

uint64_t now_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

void wait_for(Stream& stream, uint64_t position, Lock& lock) {
    state().progress.wait(lock, [&] { return stream.done >= position; });
}

// A stream's thread.
static void serve(const std::shared_ptr<Stream>& stream) {
    Lock lock(state().lock);
    for (;;) {
        stream->wake.wait(lock, [&] { return !stream->queue.empty() || stream->closed; });
        if (stream->queue.empty()) return;
        Stream::Piece piece = std::move(stream->queue.front());
        const size_t commands = piece.commands;
        stream->queue.pop_front();
        for (const auto& [other, position] : piece.after) wait_for(*other, position, lock);
        lock.unlock();
        piece.work();
        piece = {};
        lock.lock();
        ++stream->done;
        stream->context->outstanding -= commands;
        state().progress.notify_all();
    }
}

std::shared_ptr<Stream> new_stream(Context& context, bool blocking) {
    auto stream = std::make_shared<Stream>();
    stream->context = &context;
    stream->blocking = blocking;
    std::thread([stream] { serve(stream); }).detach();
    return stream;
}

std::shared_ptr<Stream> find_stream(Context& context, void* handle) {
    if (handle == nullptr || handle == reinterpret_cast<void*>(1)) return context.legacy;
    const auto found = state().streams.find(handle);
    if (found == state().streams.end() || found->second->context != &context) return nullptr;
    return found->second;
}

// The streams of a context that synchronise with its default stream.
static std::vector<std::shared_ptr<Stream>> blocking_streams(const Context& context) {
    std::vector<std::shared_ptr<Stream>> found;
    for (const auto& entry : state().streams)
        if (entry.second->context == &context && entry.second->blocking) found.push_back(entry.second);
    return found;
}

Result enqueue(const std::shared_ptr<Stream>& stream, Work work, bool kernel, size_t commands) {
    if (stream->capture != nullptr) return capture_work(*stream, std::move(work));
    Context& context = *stream->context;
    {
        // The lock is the caller's, who has it back.
        Lock lock(state().lock, std::adopt_lock);
        state().progress.wait(lock, [&] { return context.outstanding < queue_length(); });
        lock.release();
    }
    Stream::Piece piece;
    if (stream == context.legacy) {
        for (const auto& other : blocking_streams(context)) {
            if (other->capture != nullptr) {
                invalidate(*other->capture);
                return CAPTURE_IMPLICIT;
            }
            piece.after.emplace_back(other, other->submitted);
        }
    } else if (stream->blocking) {
        piece.after.emplace_back(context.legacy, context.legacy->submitted);
    }
    ++stream->submitted;
    context.outstanding += commands;
    piece.commands = commands;
    if ((kernel && in_order() == 1) || (!stream->urgent && in_order() == 2)) {
        auto& last = state().last;
        if (last.first != nullptr && last.first != stream) piece.after.push_back(last);
        last = {stream, stream->submitted};
    }
    piece.work = std::move(work);
    stream->queue.push_back(std::move(piece));
    stream->wake.notify_one();
    return SUCCESS;
}

void drain(Context& context, Lock& lock) {
    std::vector<std::shared_ptr<Stream>> all{context.legacy};
    for (const auto& entry : state().streams)
        if (entry.second->context == &context) all.push_back(entry.second);
    for (const auto& stream : all) wait_for(*stream, stream->submitted, lock);
}

DRIVER cuStreamCreate(void** handle, unsigned flags) {
    ENTER_CONTEXT;
    if (handle == nullptr || flags > 1) return INVALID_VALUE;
    const auto stream = new_stream(context, flags == 0);
    state().streams[stream.get()] = stream;
    *handle = stream.get();
    return SUCCESS;
}

// The lower the number, the higher the priority; 0 is the lowest.
DRIVER cuStreamCreateWithPriority(void** handle, unsigned flags, int priority) {
    ENTER_CONTEXT;
    if (handle == nullptr || flags > 1) return INVALID_VALUE;
    const auto stream = new_stream(context, flags == 0);
    stream->urgent = priority < 0;
    state().streams[stream.get()] = stream;
    *handle = stream.get();
    return SUCCESS;
}

// Work that is still queued is done; the handle is gone at once.
DRIVER cuStreamDestroy_v2(void* handle) {
    ENTER_CONTEXT;
    const auto found = state().streams.find(handle);
    if (found == state().streams.end()) return INVALID_HANDLE;
    const auto stream = found->second;
    if (stream->capture != nullptr) {
        const auto capture = stream->capture;
        invalidate(*capture);
        for (Stream*& member : capture->streams)
            if (member == stream.get()) member = nullptr;
        if (capture->origin == stream.get()) {
            for (Stream* member : capture->streams)
                if (member != nullptr) member->capture.reset();
            auto& captures = state().captures;
            captures.erase(std::find(captures.begin(), captures.end(), capture));
        }
        stream->capture.reset();
    }
    stream->closed = true;
    state().streams.erase(found);
    stream->wake.notify_one();
    return SUCCESS;
}

DRIVER cuStreamSynchronize(void* handle) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (stream->capture != nullptr) {
        invalidate(*stream->capture);
        return CAPTURE_UNSUPPORTED;
    }
    wait_for(*stream, stream->submitted, lock);
    return context.fault;
}

// One function of the host at a time in a process, whatever their streams are, as a driver may do it: a program that has
// one wait for another's hangs.
DRIVER cuLaunchHostFunc(void* handle, void (*function)(void*), void* data) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (function == nullptr) return INVALID_VALUE;
    return enqueue(stream, [=] {
        static std::mutex one_at_a_time;
        const std::lock_guard<std::mutex> alone(one_at_a_time);
        function(data);
    });
}

DRIVER cuStreamQuery(void* handle) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (stream->capture != nullptr) {
        invalidate(*stream->capture);
        return CAPTURE_UNSUPPORTED;
    }
    return stream->done == stream->submitted ? SUCCESS : NOT_READY;
}

DRIVER cuStreamWriteValue32_v2(void* handle, Address address, uint32_t value, unsigned flags) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (address % 4 != 0 || flags > 1 || find_memory(address, 4) == state().memory.end()) return INVALID_VALUE;
    uint32_t* word = reinterpret_cast<uint32_t*>(address);
    return enqueue(stream, [=] { __atomic_store_n(word, value, __ATOMIC_RELEASE); });
}

static bool holds(uint32_t found, uint32_t value, unsigned condition) {
    switch (condition) {
        case 0: return static_cast<int32_t>(found - value) >= 0;
        case 1: return found == value;
        case 2: return (found & value) != 0;
        default: return ~(found | value) != 0;
    }
}

DRIVER cuStreamWaitValue32_v2(void* handle, Address address, uint32_t value, unsigned flags) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (address % 4 != 0 || find_memory(address, 4) == state().memory.end()) return INVALID_VALUE;
    if (flags > 3) return flags >> 30 != 0 ? NOT_SUPPORTED : INVALID_VALUE;
    const uint32_t* word = reinterpret_cast<const uint32_t*>(address);
    return enqueue(stream, [=] {
        for (unsigned looks = 0; !holds(__atomic_load_n(word, __ATOMIC_ACQUIRE), value, flags); ++looks) {
            if (looks < 1000) sched_yield();
            else usleep(20);
        }
    });
}
