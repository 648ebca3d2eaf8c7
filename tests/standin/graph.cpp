// SPDX-License-Identifier: MPL-2.0
//
// Capture of streams into graphs, and their replay. Events become order between nodes, everything else that is enqueued
// a node each. Allocation is refused in a capture, also the stream-ordered kind, which a real driver can capture.
#include "driver.h"

#include <algorithm>

void invalidate(Capture& capture) { capture.invalid = true; }

// How the thread takes captures: 0 global, 1 of its own, 2 not at all.
static thread_local int thread_mode = 0;

DRIVER cuThreadExchangeStreamCaptureMode(int* mode) {
    ENTER_INITIALIZED;
    if (mode == nullptr || *mode < 0 || *mode > 2) return INVALID_VALUE;
    std::swap(thread_mode, *mode);
    return SUCCESS;
}

Result refuse_in_capture() {
    bool refused = false;
    if (thread_mode == 2) return SUCCESS;
    for (const auto& capture : state().captures) {
        const bool ours = capture->thread == std::this_thread::get_id();
        if (capture->mode == 2 || ((capture->mode == 1 || thread_mode == 1) && !ours)) continue;
        invalidate(*capture);
        refused = true;
    }
    return refused ? CAPTURE_UNSUPPORTED : SUCCESS;
}

Result capture_work(Stream& stream, Work work) {
    Capture& capture = *stream.capture;
    if (capture.invalid) return CAPTURE_INVALIDATED;
    capture.graph.nodes.push_back({std::move(work), stream.frontier, stream.lane});
    stream.frontier = {capture.graph.nodes.size() - 1};
    return SUCCESS;
}

DRIVER cuStreamIsCapturing(void* handle, int* status) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (status == nullptr) return INVALID_VALUE;
    *status = stream->capture == nullptr ? 0 : stream->capture->invalid ? 2 : 1;
    return SUCCESS;
}

DRIVER cuStreamBeginCapture_v2(void* handle, int mode) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (mode < 0 || mode > 2) return INVALID_VALUE;
    if (stream == context.legacy) return CAPTURE_UNSUPPORTED;
    if (stream->capture != nullptr) return ILLEGAL_STATE;
    const auto capture = std::make_shared<Capture>();
    capture->origin = stream.get();
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    capture->streams.push_back(stream.get());
    stream->capture = capture;
    stream->frontier.clear();
    stream->lane = 0;
    state().captures.push_back(capture);
    return SUCCESS;
}

// Whether every stream's last work comes before what the origin would do next.
static bool joined(const Capture& capture) {
    std::vector<bool> before(capture.graph.nodes.size(), false);
    std::vector<size_t> open = capture.origin->frontier;
    while (!open.empty()) {
        const size_t node = open.back();
        open.pop_back();
        if (before[node]) continue;
        before[node] = true;
        const auto& after = capture.graph.nodes[node].after;
        open.insert(open.end(), after.begin(), after.end());
    }
    return std::find(before.begin(), before.end(), false) == before.end();
}

DRIVER cuStreamEndCapture(void* handle, void** graph_handle) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (graph_handle == nullptr) return INVALID_VALUE;
    *graph_handle = nullptr;
    const auto capture = stream->capture;
    if (capture == nullptr) return ILLEGAL_STATE;
    if (capture->origin != stream.get()) {
        invalidate(*capture);
        return CAPTURE_UNMATCHED;
    }
    if (capture->mode != 2 && capture->thread != std::this_thread::get_id()) return CAPTURE_WRONG_THREAD;
    Result result = SUCCESS;
    if (capture->invalid) result = CAPTURE_INVALIDATED;
    else if (!joined(*capture)) result = CAPTURE_UNJOINED;
    for (Stream* member : capture->streams)
        if (member != nullptr) member->capture.reset();
    auto& captures = state().captures;
    captures.erase(std::find(captures.begin(), captures.end(), capture));
    if (result != SUCCESS) return result;
    const auto graph = std::make_shared<Graph>(std::move(capture->graph));
    graph->lanes = capture->streams.size();
    state().graphs[graph.get()] = graph;
    *graph_handle = graph.get();
    return SUCCESS;
}

DRIVER cuGraphGetNodes(void* handle, void** nodes, size_t* count) {
    ENTER_INITIALIZED;
    const auto found = state().graphs.find(handle);
    if (found == state().graphs.end() || count == nullptr) return INVALID_VALUE;
    auto& all = found->second->nodes;
    if (nodes == nullptr) {
        *count = all.size();
        return SUCCESS;
    }
    for (size_t i = 0; i < *count; ++i) nodes[i] = i < all.size() ? &all[i] : nullptr;
    *count = std::min(*count, all.size());
    return SUCCESS;
}

DRIVER cuGraphInstantiateWithFlags(void** handle, void* graph, unsigned long long flags) {
    ENTER_CONTEXT;
    const auto found = state().graphs.find(graph);
    if (handle == nullptr || found == state().graphs.end() || flags > 15) return INVALID_VALUE;
    const auto exec = std::make_shared<GraphExec>();
    exec->graph = found->second;
    state().execs[exec.get()] = exec;
    *handle = exec.get();
    return SUCCESS;
}

// One lane of a replay; `done` says which nodes are.
static void run_lane(const Graph& graph, size_t lane, std::vector<bool>& done, std::mutex& lock,
                     std::condition_variable& changed) {
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
        const Graph::Node& node = graph.nodes[i];
        if (node.lane != lane) continue;
        {
            std::unique_lock<std::mutex> wait(lock);
            changed.wait(wait, [&] {
                return std::all_of(node.after.begin(), node.after.end(), [&](size_t earlier) { return done[earlier]; });
            });
        }
        node.work();
        const std::lock_guard<std::mutex> finish(lock);
        done[i] = true;
        changed.notify_all();
    }
}

void run_graph(const Graph& graph) {
    std::vector<bool> done(graph.nodes.size(), false);
    std::mutex lock;
    std::condition_variable changed;
    std::vector<std::thread> lanes;
    for (size_t lane = 1; lane < graph.lanes; ++lane)
        lanes.emplace_back([&, lane] { run_lane(graph, lane, done, lock, changed); });
    run_lane(graph, 0, done, lock, changed);
    for (std::thread& lane : lanes) lane.join();
}

DRIVER cuGraphLaunch(void* handle, void* stream_handle) {
    ENTER_CONTEXT;
    const auto found = state().execs.find(handle);
    const auto stream = find_stream(context, stream_handle);
    if (found == state().execs.end() || stream == nullptr) return INVALID_HANDLE;
    const auto exec = found->second;
    const Work replay = [exec] {
        const std::lock_guard<std::mutex> lock_exec(exec->one_at_a_time);
        run_graph(*exec->graph);
    };
    return enqueue(stream, replay, true, std::max<size_t>(exec->graph->nodes.size(), 1));
}

// There is nothing to upload.
DRIVER cuGraphUpload(void* handle, void* stream_handle) {
    ENTER_CONTEXT;
    const bool known = state().execs.count(handle) != 0 && find_stream(context, stream_handle) != nullptr;
    return known ? SUCCESS : INVALID_HANDLE;
}

DRIVER cuGraphDestroy(void* handle) {
    ENTER_INITIALIZED;
    return state().graphs.erase(handle) == 1 ? SUCCESS : INVALID_VALUE;
}

DRIVER cuGraphExecDestroy(void* handle) {
    ENTER_INITIALIZED;
    return state().execs.erase(handle) == 1 ? SUCCESS : INVALID_VALUE;
}
