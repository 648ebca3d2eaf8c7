# SPDX-License-Identifier: MPL-2.0
"""What Annulus asks of itself, and whether it holds: the first table of peers.sh.

Each row is a ratio: its median over the interleaved rounds, and in brackets the least and the largest round's, at the size
where it is worst. A row holds if the median does.
"""

import statistics

MPI = ["openmpi", "mpich", "impi"]
KI, MI = 1 << 10, 1 << 20


class Rounds:
    """Times by key, a list with one for each round: see `table.read`."""

    def __init__(self, times):
        self.times = times

    def of(self, collective, in_place, size, library):
        return self.times.get((collective, in_place, size, library))

    def fastest(self, collective, in_place, size):
        """The fastest MPI of each round."""
        of_peers = [self.of(collective, in_place, size, peer) for peer in MPI]
        return [min(times) for times in zip(*filter(None, of_peers))] or None

    def sizes(self, collective, least=0, most=1 << 62):
        return sorted({size for name, _, size, _ in self.times if name == collective and least <= size <= most})


def divided(above, below):
    return [a / b for a, b in zip(above, below)] if above and below else None


def worst(candidates, at_least):
    """Of (what, ratios), the one with the worst median."""
    there = [(statistics.median(ratios), what, ratios) for what, ratios in candidates if ratios]
    return (min if at_least else max)(there, key=lambda one: one[0]) if there else None


def row(name, asked, at_least, candidates, unit="x"):
    found = worst(candidates, at_least)
    if not found:
        return f"| {name} | {asked} {unit} | not measured | | |"
    median, what, ratios = found
    holds = median >= asked if at_least else median <= asked
    least = "at least" if at_least else "at most"
    spread = f"{median:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"| {name} | {least} {asked} {unit} | {spread} | {what} | {'yes' if holds else '**no**'} |"


def modes_text(in_place):
    return "in place" if in_place else "out of place"


def text(size):
    return f"{size // MI} MiB" if size >= MI else f"{size // KI} KiB" if size >= KI else f"{size} B"


def demands(times, machine):
    rounds = Rounds(times)
    both = (False, True)
    reduce_sizes = rounds.sizes("all_reduce", 64 * KI, 64 * MI)
    lines = []

    def mpi_over(collective, own, sizes, modes=both):
        return [
            (f"{modes_text(mode)}, {text(size)}",
             divided(rounds.fastest(collective, mode, size), rounds.of(collective, mode, size, own)))
            for mode in modes for size in sizes
        ]

    def over(own, other, sizes, modes=both, collective="all_reduce"):
        return [
            (f"{modes_text(mode)}, {text(size)}",
             divided(rounds.of(collective, mode, size, own), rounds.of(collective, mode, size, other)))
            for mode in modes for size in sizes
        ]

    own_8 = [(modes_text(mode), divided(rounds.of("all_reduce", mode, 8, "allocated"), rounds.fastest("all_reduce", mode, 8)))
             for mode in both]
    lines.append(row("all-reduce, 8 bytes, over the fastest MPI", 0.85, False, own_8))
    for mode in both:
        where = modes_text(mode)
        lines.append(row(f"all-reduce {where}, allocated, 64 KiB to 64 MiB, over the floor", 1.35, False,
                         over("allocated", "floor", reduce_sizes, [mode])))
        lines.append(row(f"fastest MPI over all-reduce {where}, allocated, 64 KiB to 64 MiB", 2.5, True,
                         mpi_over("all_reduce", "allocated", reduce_sizes, [mode])))
    lines.append(row("fastest MPI over all-reduce in place, allocated, 64 to 256 KiB", 4, True,
                     mpi_over("all_reduce", "allocated", rounds.sizes("all_reduce", 64 * KI, 256 * KI), [True])))
    lines.append(row("fastest MPI over all-reduce, plain, from 64 KiB", 1.5, True,
                     mpi_over("all_reduce", "plain", reduce_sizes)))
    lines.append(row("fastest MPI over all-reduce, plain, any size", 1, True,
                     mpi_over("all_reduce", "plain", rounds.sizes("all_reduce"))))
    lines.append(row("all-reduce among threads, plain, over processes, allocated", 1.1, False,
                     over("threads", "allocated", rounds.sizes("all_reduce"))))
    for collective in ["broadcast", "all_gather", "reduce_scatter", "reduce", "gather", "scatter", "all_to_all"]:
        for memory in ["allocated", "plain"]:
            lines.append(row(f"fastest MPI over {collective}, {memory}, from 4 KiB", 1, True,
                             mpi_over(collective, memory, rounds.sizes(collective, 4 * KI))))
        more = []
        for mode in both:
            for size in rounds.sizes(collective, 1, 4 * KI - 1):
                for memory in ["allocated", "plain"]:
                    own, peer = rounds.of(collective, mode, size, memory), rounds.fastest(collective, mode, size)
                    more.append((f"{modes_text(mode)}, {memory}, {text(size)}",
                                 [a - b for a, b in zip(own, peer)] if own and peer else None))
        lines.append(row(f"{collective} less the fastest MPI, below 4 KiB", 0.3, False, more, "us"))
    lines.append(row("barrier of two ranks over the fastest MPI", 1, False, [
        ("", divided(rounds.of("barrier", False, 0, "allocated"), rounds.fastest("barrier", False, 0)))]))
    agreement = [
        (modes_text(mode), [1e3 * (a - b) for a, b in zip(own, bare)] if own and bare else None)
        for mode in both
        for own, bare in [(rounds.of("all_reduce", mode, 8, "allocated"), rounds.of("all_reduce", mode, 8, "bare"))]
    ]
    lines.append(row("agreement check and record together, 8 bytes", 80, False, agreement, "ns"))
    for dtype in ["f16", "bf16"]:
        lines.append(row(f"{dtype} all-reduce, 1 MiB up: bytes a second over f32's", 0.7, True,
                         over("allocated", dtype, rounds.sizes("all_reduce", MI))))
    for collective, size in [("all_reduce", 8), ("barrier", 0)]:
        lines.append(row(f"four ranks, {collective.replace('_', '-')}{', 8 bytes' if size else ''}, over Open MPI's", 1.5, False, [
            ("", divided(rounds.of(collective, False, size, "of 4"), rounds.of(collective, False, size, "openmpi4")))]))
    lines.append(row("eight ranks, all-reduce of 1 MiB: a rank's bytes a second over four ranks'", 0.5, True,
                     over("of 4", "of 8", [MI])))
    print("| what | asked | measured | at | holds |")
    print("|---|---|---|---|---|")
    print("\n".join(lines))
    footprint, creation = machine["footprint_bytes"] / KI, machine["creation_ms"]
    holds = "yes" if footprint < 1024 and creation < 100 else "**no**"
    print(f"| a communicator's cost | milliseconds, below 1 MiB a rank | {creation:.1f} ms, {footprint:.0f} KiB | | {holds} |")
