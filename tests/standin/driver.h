// SPDX-License-Identifier: MPL-2.0
//
// A stand-in for the CUDA driver: the same functions under the same names, served on the host. It is test code:
// whatever calls a driver can be executed with it where there is no GPU, and nothing it shows is a result of a GPU.
//
// One lock guards all state; work runs without it. Handles are addresses of the objects below, looked up before use.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "../../kernels/host/device.h"
#include "../ptx/ptx.h"

using Result = int;
using Address = unsigned long long; // CUdeviceptr

enum : Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    MAP_FAILED_ERROR = 205,
    ALREADY_MAPPED = 208,
    NO_BINARY_FOR_GPU = 209,
    INVALID_PTX = 218,
    UNSUPPORTED_PTX_VERSION = 222,
    PEER_ACCESS_UNSUPPORTED = 217,
    OPERATING_SYSTEM = 304,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    PEER_ACCESS_ALREADY_ENABLED = 704,
    ALREADY_REGISTERED = 712,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719,
    COOPERATIVE_LAUNCH_TOO_LARGE = 720,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_MERGE = 902,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
};

using Work = std::function<void()>;

struct Context;
struct Stream;

// What was captured: pieces of work, each after some earlier ones. A lane is a stream of the capture; the pieces of one
// lane run in their order, lanes run at the same time.
struct Graph {
    struct Node {
        Work work;
        std::vector<size_t> after;
        size_t lane;
    };
    std::vector<Node> nodes;
    size_t lanes = 0;
};

// A capture in progress. It ends with cuStreamEndCapture alone, also when it is invalid.
struct Capture {
    Graph graph;
    Stream* origin;
    int mode; // 0 global, 1 thread-local, 2 relaxed
    std::thread::id thread;
    bool invalid = false;
    std::vector<Stream*> streams; // by lane
};

// A queue of work, done in order by a thread of its own. Positions count the pieces of work submitted to it.
struct Stream {
    struct Piece {
        std::vector<std::pair<std::shared_ptr<Stream>, uint64_t>> after; // positions that must have been done before
        Work work;
        size_t commands = 1;
    };
    Context* context = nullptr;
    bool blocking = true; // synchronises with the default stream
    bool urgent = false;  // of a higher priority than others
    bool closed = false;  // its thread ends when its queue is empty
    std::deque<Piece> queue;
    std::condition_variable wake; // something is in the queue, or it is closed
    uint64_t submitted = 0, done = 0;
    std::shared_ptr<Capture> capture;
    std::vector<size_t> frontier; // the captured nodes that the next one comes after
    size_t lane = 0;
};

struct Event {
    Context* context = nullptr;
    bool timed = true;
    uint64_t recorded = 0, reached = 0; // how often
    uint64_t time_ns = 0;               // when it was last reached
    std::weak_ptr<Capture> capture;     // where it was last recorded in, if in one
    bool captured = false;
    std::vector<size_t> frontier;
};

struct Module {
    Context* context;
    std::string image; // empty: one of HIP's, whose kernels are those that the stand-in was built with
    std::set<std::string> names; // of the image's kernels
};

struct Function {
    Module* module;
    std::string name;
    int max_dynamic_shared;
    std::shared_ptr<const ptx::Entry> entry; // of the module's text, read when it is first launched
    const host::Kernel* kernel;              // where there is no text
};

struct GraphExec {
    std::shared_ptr<const Graph> graph;
    std::mutex one_at_a_time;
};

// Memory that is free in a pool is used as far as the device is concerned.
struct Pool {
    Context* context;
    uint64_t threshold = 0; // so much stays in it when it is free
    size_t spare = 0;       // bytes that are free
};

enum class Kind { DEVICE, POOL, PINNED, REGISTERED, IMPORTED };

struct Allocation {
    Allocation(Kind what, size_t size, Context* of) : kind(what), bytes(size), context(of) {}
    Kind kind;
    size_t bytes;
    Context* context;
    int fd = -1;         // DEVICE: the memfd behind it
    Pool* pool = nullptr; // POOL: which; null is the default pool, which keeps nothing
    unsigned opened = 0; // IMPORTED: how often
    std::string handle;  // IMPORTED: what it was opened with
};

// What every device addresses.
inline bool is_of_host(const Allocation& allocation) {
    return allocation.kind == Kind::PINNED || allocation.kind == Kind::REGISTERED;
}

// A device's primary context.
struct Context {
    explicit Context(int ordinal);
    const int device;
    unsigned retained = 0;
    Result fault = SUCCESS; // of a kernel that went wrong: every later call returns it
    size_t used = 0;        // bytes
    size_t outstanding = 0; // commands that have not been done
    host::Device compute;
    std::set<const Context*> peers; // whose memory its kernels may address
    std::shared_ptr<Stream> legacy; // the default stream
};

struct State {
    std::mutex lock;
    std::condition_variable progress; // a stream has done something, an event was reached
    bool initialized = false;
    std::vector<std::unique_ptr<Context>> contexts; // by device
    std::map<void*, std::shared_ptr<Stream>> streams;
    std::map<void*, std::shared_ptr<Event>> events;
    std::map<void*, std::shared_ptr<Graph>> graphs;
    std::map<void*, std::shared_ptr<GraphExec>> execs;
    std::map<void*, std::unique_ptr<Module>> modules;
    std::map<void*, std::unique_ptr<Function>> functions;
    std::map<Address, Allocation> memory; // by first address
    std::map<void*, std::unique_ptr<Pool>> pools; // of devices: they outlive contexts
    std::vector<std::shared_ptr<Capture>> captures;
    std::pair<std::shared_ptr<Stream>, uint64_t> last; // for STANDIN_ORDER
};

// Never destroyed: threads of streams use it while the process ends.
State& state();
extern thread_local Context* current;

using Lock = std::unique_lock<std::mutex>;

// switches.cpp
int devices();                         // STANDIN_DEVICES, CUDA_VISIBLE_DEVICES
int card(int device);                  // which of the machine's cards a device is
bool reach_each_other(int a, int b);   // STANDIN_UNREACHABLE, by cards
size_t total_memory();                 // STANDIN_MEMORY, of a device, in bytes
int version();                         // STANDIN_VERSION
uint32_t multiprocessors();            // STANDIN_MULTIPROCESSORS, of a device
int in_order();                        // STANDIN_ORDER
size_t queue_length();                 // STANDIN_QUEUE
Result planted(const char* function);  // STANDIN_FAIL, STANDIN_HANG

// stream.cpp
std::shared_ptr<Stream> new_stream(Context& context, bool blocking);
// Null where the handle is none of the context's; null and 1 are the default stream.
std::shared_ptr<Stream> find_stream(Context& context, void* handle);
// Puts work at the stream's end, or into its capture. Waits while the context's queue is full; the lock is held.
Result enqueue(const std::shared_ptr<Stream>& stream, Work work, bool kernel = false, size_t commands = 1);
void wait_for(Stream& stream, uint64_t position, Lock& lock);
void drain(Context& context, Lock& lock);
uint64_t now_ns();

// graph.cpp
// What a call that must not be made while somebody captures gets, and does to the capture.
Result refuse_in_capture();
void invalidate(Capture& capture);
Result capture_work(Stream& stream, Work work);
void run_graph(const Graph& graph);

// peers.cpp
// Whether every address in an argument is of memory that kernels of the context may address.
bool may_address(const Context& context, const void* argument, size_t bytes);
// All memory that they may, in order.
std::vector<ptx::Range> addressed(const Context& context);

// memory.cpp
// The allocation that holds all of these bytes, or the end.
std::map<Address, Allocation>::iterator find_memory(Address first, size_t bytes);
void release_memory(std::map<Address, Allocation>::iterator found);

#define DRIVER extern "C" __attribute__((visibility("default"))) Result

// What calls begin with. Each returns by itself if it cannot go on.
#define ENTER                                                                                                          \
    if (const Result result = planted(__func__); result != SUCCESS) return result;                                     \
    Lock lock(state().lock)
#define ENTER_INITIALIZED                                                                                              \
    ENTER;                                                                                                             \
    if (!state().initialized) return NOT_INITIALIZED
#define ENTER_CONTEXT                                                                                                  \
    ENTER_INITIALIZED;                                                                                                 \
    if (current == nullptr || current->retained == 0) return INVALID_CONTEXT;                                          \
    [[maybe_unused]] Context& context = *current;                                                                      \
    if (context.fault != SUCCESS) return context.fault
