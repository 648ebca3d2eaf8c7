// SPDX-License-Identifier: MPL-2.0
//
// Events: points that streams pass, and wait for. An event that was never recorded counts as passed.
#include "driver.h"

#include <algorithm>

static std::shared_ptr<Event> find_event(void* handle) {
    const auto found = state().events.find(handle);
    return found == state().events.end() ? nullptr : found->second;
}

DRIVER cuEventCreate(void** handle, unsigned flags) {
    ENTER_CONTEXT;
    // An event for other processes must not keep time; those are not offered here.
    if (handle == nullptr || flags > 7) return INVALID_VALUE;
    if ((flags & 4) != 0) return (flags & 2) != 0 ? NOT_SUPPORTED : INVALID_VALUE;
    const auto event = std::make_shared<Event>();
    event->context = &context;
    event->timed = (flags & 2) == 0;
    state().events[event.get()] = event;
    *handle = event.get();
    return SUCCESS;
}

DRIVER cuEventDestroy_v2(void* handle) {
    ENTER_CONTEXT;
    return state().events.erase(handle) == 1 ? SUCCESS : INVALID_HANDLE;
}

DRIVER cuEventRecord(void* handle, void* stream_handle) {
    ENTER_CONTEXT;
    const auto event = find_event(handle);
    const auto stream = find_stream(context, stream_handle);
    if (event == nullptr || stream == nullptr || event->context != &context) return INVALID_HANDLE;
    if (stream->capture != nullptr) {
        if (stream->capture->invalid) return CAPTURE_INVALIDATED;
        event->captured = true;
        event->capture = stream->capture;
        event->frontier = stream->frontier;
        return SUCCESS;
    }
    const uint64_t turn = event->recorded + 1;
    const Result result = enqueue(stream, [event, turn] {
        const uint64_t now = now_ns();
        const Lock reach(state().lock);
        if (event->reached >= turn) return;
        event->reached = turn;
        event->time_ns = now;
        state().progress.notify_all();
    });
    if (result != SUCCESS) return result;
    event->recorded = turn;
    event->captured = false;
    return SUCCESS;
}

DRIVER cuEventQuery(void* handle) {
    ENTER_CONTEXT;
    const auto event = find_event(handle);
    if (event == nullptr) return INVALID_HANDLE;
    if (event->captured) return CAPTURED_EVENT;
    return event->reached >= event->recorded ? SUCCESS : NOT_READY;
}

DRIVER cuEventSynchronize(void* handle) {
    ENTER_CONTEXT;
    const auto event = find_event(handle);
    if (event == nullptr) return INVALID_HANDLE;
    if (event->captured) return CAPTURED_EVENT;
    const uint64_t turn = event->recorded;
    state().progress.wait(lock, [&] { return event->reached >= turn; });
    return context.fault;
}

DRIVER cuEventElapsedTime(float* milliseconds, void* from, void* to) {
    ENTER_CONTEXT;
    if (milliseconds == nullptr) return INVALID_VALUE;
    const auto start = find_event(from), end = find_event(to);
    if (start == nullptr || end == nullptr || !start->timed || !end->timed) return INVALID_HANDLE;
    if (start->captured || end->captured || start->recorded == 0 || end->recorded == 0) return INVALID_HANDLE;
    if (start->reached < start->recorded || end->reached < end->recorded) return NOT_READY;
    *milliseconds = static_cast<float>(static_cast<double>(static_cast<int64_t>(end->time_ns - start->time_ns)) * 1e-6);
    return SUCCESS;
}

// Joins the stream to the event's capture.
static Result wait_in_capture(const std::shared_ptr<Stream>& stream, const Event& event,
                              const std::shared_ptr<Capture>& capture) {
    if (capture->invalid) return CAPTURE_INVALIDATED;
    if (stream == stream->context->legacy) {
        invalidate(*capture);
        return CAPTURE_IMPLICIT;
    }
    if (stream->capture == nullptr) {
        stream->capture = capture;
        stream->frontier.clear();
        stream->lane = capture->streams.size();
        capture->streams.push_back(stream.get());
    } else if (stream->capture != capture) {
        invalidate(*capture);
        invalidate(*stream->capture);
        return CAPTURE_MERGE;
    }
    for (const size_t node : event.frontier)
        if (std::find(stream->frontier.begin(), stream->frontier.end(), node) == stream->frontier.end())
            stream->frontier.push_back(node);
    return SUCCESS;
}

DRIVER cuStreamWaitEvent(void* stream_handle, void* handle, unsigned flags) {
    ENTER_CONTEXT;
    const auto event = find_event(handle);
    const auto stream = find_stream(context, stream_handle);
    if (event == nullptr || stream == nullptr) return INVALID_HANDLE;
    if (flags > 1) return INVALID_VALUE;
    if (event->captured) {
        const auto capture = event->capture.lock();
        return capture == nullptr ? CAPTURED_EVENT : wait_in_capture(stream, *event, capture);
    }
    if (event->recorded == 0) return SUCCESS;
    if (stream->capture != nullptr) {
        if (stream->capture->invalid) return CAPTURE_INVALIDATED;
        invalidate(*stream->capture);
        return CAPTURE_ISOLATION;
    }
    const uint64_t turn = event->recorded;
    return enqueue(stream, [event, turn] {
        Lock wait(state().lock);
        state().progress.wait(wait, [&] { return event->reached >= turn; });
    });
}
