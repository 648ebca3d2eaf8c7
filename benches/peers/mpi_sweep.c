// SPDX-License-Identifier: MPL-2.0
// One collective of any MPI, timed as `annulus bench --unchecked` times Annulus: a barrier before each call, outside the
// clock; a tenth as many calls and three to warm up; four sets of buffers in turn from 64 KiB on; the slowest rank's
// time of each call, and of these the median and the least. Sizes are of the whole buffer, as nccl-tests counts.
//
// usage: mpirun -n N mpi_sweep COLLECTIVE BYTES..
// prints: collective,in_place,bytes,median_us,min_us
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SETS = 4, MOST_CALLS = 2000 };

static const char *collectives[] = {"all_reduce", "reduce_scatter", "all_gather", "broadcast", "barrier",
                                    "reduce",     "gather",         "scatter",    "all_to_all"};

static void call(int collective, int in_place, float *input, float *output, int count, int ranks, int rank) {
    MPI_Comm world = MPI_COMM_WORLD;
    int part = count / ranks;
    switch (collective) {
    case 0: MPI_Allreduce(in_place ? MPI_IN_PLACE : input, output, count, MPI_FLOAT, MPI_SUM, world); break;
    case 1: MPI_Reduce_scatter_block(in_place ? MPI_IN_PLACE : input, output, part, MPI_FLOAT, MPI_SUM, world); break;
    case 2: MPI_Allgather(in_place ? MPI_IN_PLACE : input, part, MPI_FLOAT, output, part, MPI_FLOAT, world); break;
    // MPI's broadcast has one buffer.
    case 3: MPI_Bcast(in_place || rank == 0 ? input : output, count, MPI_FLOAT, 0, world); break;
    case 4: MPI_Barrier(world); break;
    case 5: MPI_Reduce(in_place && rank == 0 ? MPI_IN_PLACE : in_place ? output : input, output, count, MPI_FLOAT, MPI_SUM, 0, world); break;
    case 6: MPI_Gather(in_place && rank == 0 ? MPI_IN_PLACE : in_place ? output : input, part, MPI_FLOAT, output, part, MPI_FLOAT, 0, world); break;
    case 7: MPI_Scatter(in_place ? output : input, part, MPI_FLOAT, in_place && rank == 0 ? MPI_IN_PLACE : (void *)output, part, MPI_FLOAT, 0, world); break;
    case 8: MPI_Alltoall(in_place ? MPI_IN_PLACE : input, part, MPI_FLOAT, output, part, MPI_FLOAT, world); break;
    }
}

static int by_value(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static float *buffer(size_t bytes, float value) {
    float *elements = NULL;
    if (posix_memalign((void **)&elements, 4096, bytes + 4096)) MPI_Abort(MPI_COMM_WORLD, 1);
    for (size_t i = 0; i < bytes / sizeof *elements; i++) elements[i] = value;
    return elements;
}

static void measure(int collective, int in_place, size_t bytes, int ranks, int rank) {
    static double times[MOST_CALLS], slowest[MOST_CALLS];
    int calls = bytes <= 64 << 10 ? MOST_CALLS : bytes <= 4 << 20 ? 200 : 30, warm_up = calls / 10 + 3;
    int sets = bytes >= 64 << 10 ? SETS : 1, count = (int)(bytes / sizeof(float));
    float *inputs[SETS], *outputs[SETS];
    for (int set = 0; set < sets; set++) {
        inputs[set] = buffer(bytes, 1.0f + (float)rank);
        outputs[set] = buffer(bytes, 0.0f);
    }
    for (int i = -warm_up; i < calls; i++) {
        int set = (i + warm_up) % sets;
        MPI_Barrier(MPI_COMM_WORLD);
        double start = MPI_Wtime();
        call(collective, in_place, inputs[set], outputs[set], count, ranks, rank);
        double end = MPI_Wtime();
        if (i >= 0) times[i] = end - start;
    }
    MPI_Reduce(times, slowest, calls, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (rank == 0) {
        qsort(slowest, (size_t)calls, sizeof *slowest, by_value);
        printf("%s,%d,%zu,%.3f,%.3f\n", collectives[collective], in_place, bytes, slowest[calls / 2] * 1e6, slowest[0] * 1e6);
        fflush(stdout);
    }
    for (int set = 0; set < sets; set++) {
        free(inputs[set]);
        free(outputs[set]);
    }
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, ranks, collective = 0, known = sizeof collectives / sizeof *collectives;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    while (argc > 1 && collective < known && strcmp(argv[1], collectives[collective])) collective++;
    if (argc < 3 || collective == known) {
        if (rank == 0) fprintf(stderr, "usage: mpi_sweep COLLECTIVE BYTES..\n");
        MPI_Finalize();
        return 2;
    }
    for (int i = 2; i < argc; i++)
        for (int in_place = 0; in_place < (strcmp(argv[1], "barrier") ? 2 : 1); in_place++)
            measure(collective, in_place, strtoull(argv[i], NULL, 10), ranks, rank);
    MPI_Finalize();
}
