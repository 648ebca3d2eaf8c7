// SPDX-License-Identifier: MPL-2.0
// What no library can beat on this machine: two pinned threads that meet, add each other's floats by hand, and meet again.
// Timed as mpi_sweep.c times an MPI; of the ways to store (through the cache, past it) the faster counts.
//
// usage: gcc -O3 -march=native floor.c -o floor -pthread && ./floor BYTES..      (0 bytes: a barrier)
// prints: all_reduce,in_place,bytes,median_us,min_us
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#ifdef __AVX__
#include <immintrin.h>
#endif

enum { RANKS = 2, SETS = 4, MOST_CALLS = 2000, INLINE = 32, TURNS = 4 };

// What a thread shows the other at a meeting: which one it has come to, and a small payload in the same line. Meetings take
// turns on the desks: were there one, a thread would come to the next meeting while the other still reads this one's line,
// and take it away.
static struct {
    _Alignas(128) atomic_uint came;
    float payload[INLINE / sizeof(float)];
} desks[TURNS][RANKS];

enum way { CACHED, STREAMED };

static struct {
    size_t bytes;
    int in_place, calls, warm_up, sets;
    enum way way;
    float *inputs[SETS][RANKS], *outputs[SETS][RANKS];
} job;

static double times[RANKS][MOST_CALLS];

static void meet(int rank, unsigned time) {
    atomic_store_explicit(&desks[time % TURNS][rank].came, time, memory_order_release);
    while (atomic_load_explicit(&desks[time % TURNS][1 - rank].came, memory_order_acquire) != time) {
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec * 1e-3;
}

static void pin(int rank) {
    cpu_set_t allowed, own;
    sched_getaffinity(0, sizeof allowed, &allowed);
    int left = rank % CPU_COUNT(&allowed), core = 0;
    while (!CPU_ISSET(core, &allowed) || left-- > 0) core++;
    CPU_ZERO(&own);
    CPU_SET(core, &own);
    sched_setaffinity(0, sizeof own, &own);
}

static void add(const float *a, const float *b, float *restrict x, float *restrict y, size_t len) {
    for (size_t i = 0; i < len; i++) x[i] = y[i] = a[i] + b[i];
}

static void add_in_place(float *restrict a, float *restrict b, size_t len) {
    for (size_t i = 0; i < len; i++) a[i] = b[i] = a[i] + b[i];
}

// Buffers begin on pages, and halves of the sizes that get here are multiples of a vector.
static void add_streaming(const float *a, const float *b, float *x, float *y, size_t len) {
#ifdef __AVX512F__
    for (size_t i = 0; i < len; i += 16) {
        __m512 sum = _mm512_add_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i));
        _mm512_stream_ps(x + i, sum);
        _mm512_stream_ps(y + i, sum);
    }
    _mm_sfence();
#elif defined __AVX__
    for (size_t i = 0; i < len; i += 8) {
        __m256 sum = _mm256_add_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i));
        _mm256_stream_ps(x + i, sum);
        _mm256_stream_ps(y + i, sum);
    }
    _mm_sfence();
#else
    add(a, b, x, y, len);
#endif
}

static void *run(void *which) {
    int rank = (int)(intptr_t)which;
    unsigned time = 0;
    pin(rank);
    for (int i = -job.warm_up; i < job.calls; i++) {
        int set = (i + job.warm_up) % job.sets;
        size_t half = job.bytes / sizeof(float) / RANKS, first = half * (size_t)rank;
        float *a = job.inputs[set][0] + first, *b = job.inputs[set][1] + first;
        float *x = job.outputs[set][0] + first, *y = job.outputs[set][1] + first;
        meet(rank, ++time);
        double start = now();
        if (job.bytes <= INLINE) {
            size_t len = job.bytes / sizeof(float);
            ++time;
            for (size_t e = 0; e < len; e++) desks[time % TURNS][rank].payload[e] = job.inputs[set][rank][e];
            meet(rank, time);
            const float *a = desks[time % TURNS][0].payload, *b = desks[time % TURNS][1].payload;
            for (size_t e = 0; e < len; e++) job.outputs[set][rank][e] = a[e] + b[e];
        } else {
            meet(rank, ++time);
            if (job.in_place) add_in_place(x, y, half);
            else if (job.way == CACHED) add(a, b, x, y, half);
            else add_streaming(a, b, x, y, half);
            meet(rank, ++time);
        }
        double end = now();
        if (i >= 0) times[rank][i] = end - start;
    }
    return NULL;
}

static int by_value(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

// Runs the job once on both threads; leaves the slower one's times, sorted, in times[0].
static void run_both(void) {
    pthread_t threads[RANKS];
    for (int turn = 0; turn < TURNS; turn++)
        for (int r = 0; r < RANKS; r++) atomic_store(&desks[turn][r].came, 0);
    for (int r = 0; r < RANKS; r++)
        if (pthread_create(&threads[r], NULL, run, (void *)(intptr_t)r)) exit(1);
    for (int r = 0; r < RANKS; r++) pthread_join(threads[r], NULL);
    for (int i = 0; i < job.calls; i++)
        if (times[1][i] > times[0][i]) times[0][i] = times[1][i];
    qsort(times[0], (size_t)job.calls, sizeof **times, by_value);
}

static float *buffer(size_t bytes, float value) {
    float *elements = aligned_alloc(4096, (bytes + 4096) & ~(size_t)4095);
    if (!elements) exit(1);
    for (size_t i = 0; i < bytes / sizeof *elements; i++) elements[i] = value;
    return elements;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        size_t bytes = job.bytes = strtoull(argv[i], NULL, 10);
        job.calls = bytes <= 64 << 10 ? MOST_CALLS : bytes <= 4 << 20 ? 200 : 30;
        job.warm_up = job.calls / 10 + 3;
        job.sets = bytes >= 64 << 10 ? SETS : 1;
        for (int set = 0; set < job.sets; set++)
            for (int r = 0; r < RANKS; r++) {
                job.inputs[set][r] = buffer(bytes, 1.0f + (float)r);
                job.outputs[set][r] = buffer(bytes, 0.0f);
            }
        for (job.in_place = 0; job.in_place < (bytes ? 2 : 1); job.in_place++) {
            double median = 0, least = 0;
            int streamable = !job.in_place && bytes > INLINE && bytes % (RANKS * 64) == 0;
            for (job.way = CACHED; job.way <= (streamable ? STREAMED : CACHED); job.way++) {
                run_both();
                if (median == 0 || times[0][job.calls / 2] < median) {
                    median = times[0][job.calls / 2];
                    least = times[0][0];
                }
            }
            printf("%s,%d,%zu,%.3f,%.3f\n", bytes ? "all_reduce" : "barrier", job.in_place, bytes, median, least);
        }
        for (int set = 0; set < job.sets; set++)
            for (int r = 0; r < RANKS; r++) {
                free(job.inputs[set][r]);
                free(job.outputs[set][r]);
            }
    }
}
