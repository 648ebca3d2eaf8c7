# SPDX-License-Identifier: MPL-2.0
"""The table of peers.sh: reads RAW.csv (peers), RAW.jsonl (Annulus) and RAW.versions, writes markdown.

usage: table.py RAW ROUNDS
"""

import datetime
import json
import statistics
import sys

from demands import demands

PEERS = {"openmpi": "Open MPI", "mpich": "MPICH", "impi": "Intel MPI"}
ANNULUS = ["allocated", "plain"]


def library(line):
    """What a line of Annulus is called: its memory, unless something else sets it apart."""
    if line["ranks"] != 2:
        return f"of {line['ranks']}"
    if line["transport"] == "threads":
        return "threads"
    return line["memory"] if line["dtype"] == "f32" else line["dtype"]


def read(raw):
    """Machine, versions, and the times of all rounds by (collective, in place, bytes, library)."""
    machine, times = {}, {}
    with open(raw + ".csv") as lines:
        for line in lines:
            name, collective, in_place, size, median, _ = line.strip().split(",")
            times.setdefault((collective, in_place == "1", int(size), name), []).append(float(median))
    for file, name in [(".jsonl", library), (".bare.jsonl", lambda _: "bare")]:
        with open(raw + file) as lines:
            for line in map(json.loads, lines):
                if "machine" in line:
                    machine = machine or {**line, **line["machine"]}
                    continue
                if line["wrong"]:
                    what = f"{line['collective']} of {line['bytes']} bytes"
                    sys.exit(f"table.py: {what} was wrong: there is nothing to compare")
                key = line["collective"], line["in_place"], line["bytes"], name(line)
                times.setdefault(key, []).append(line["time_us"])
    with open(raw + ".versions") as lines:
        versions = dict(line.strip().split(",") for line in lines)
    return machine, versions, times


def bytes_text(size):
    for unit, name in [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")]:
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return str(size)


def number(value):
    """Three digits, a dash for what was not measured."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def table(collective, in_place, times, peers):
    sizes = sorted({size for name, mode, size, _ in times if (name, mode) == (collective, in_place)})
    if not sizes:
        return
    floor = any((collective, in_place, size, "floor") in times for size in sizes)
    libraries = peers + (["floor"] if floor else []) + ANNULUS
    names = [{**PEERS, "floor": "floor"}.get(name, f"Annulus, {name}") for name in libraries]
    ratios = [f"fastest MPI / {memory}" for memory in ANNULUS]
    mode = "" if collective == "barrier" else ", in place" if in_place else ", out of place"
    print(f"\n## {collective}{mode}\n")
    print("| " + " | ".join(["bytes"] + names + ratios) + " |")
    print("|" + "---:|" * (1 + len(names) + len(ratios)))
    for size in sizes:
        row = [times.get((collective, in_place, size, library)) for library in libraries]
        of_peers = [time for library, time in zip(libraries, row) if library in peers and time]
        cells = [bytes_text(size)] + [number(time) for time in row]
        for memory in ANNULUS:
            own = times.get((collective, in_place, size, memory))
            cells.append(f"**{min(of_peers) / own:.2f}**" if of_peers and own else "-")
        print("| " + " | ".join(cells) + " |")


def main():
    raw, rounds = sys.argv[1:]
    machine, versions, rounds_of = read(raw)
    times = {key: statistics.median(values) for key, values in rounds_of.items()}
    peers = [name for name in PEERS if name in versions]
    missing = [PEERS[name] for name in PEERS if name not in versions]
    installed = ", ".join(f"{PEERS[name]} {versions[name]}" for name in peers) or "no MPI"
    print("# Annulus and MPI on one host\n")
    print(f"{datetime.date.today()}, {machine['processor']}, {machine['cores']} cores, {machine['system']}.")
    print(f"Annulus {machine['annulus']} ({machine['instructions']}); {installed}.")
    if missing:
        print(f"Could not be installed here: {', '.join(missing)}.")
    print(
        "\nMicroseconds: the median over calls of the slower rank's time, and of that the median over "
        f"{rounds} interleaved rounds.\nTwo ranks as pinned processes, f32, sum; a barrier before each call, outside "
        "the clock; four sets of buffers in turn from 64 KiB up.\nBytes are of the whole buffer, as nccl-tests counts. "
        "`allocated` is memory from `comm.allocate`, `plain` any slice.\nThe floor is two threads that do it by hand, "
        "without a library. A ratio above 1: Annulus is faster.\nMade by `benches/peers.sh`."
    )
    print("\n## What is asked\n")
    demands(rounds_of, machine)
    order = ["all_reduce", "reduce_scatter", "all_gather", "broadcast", "reduce", "gather", "scatter", "all_to_all", "barrier"]
    for collective in order:
        for in_place in (False, True):
            table(collective, in_place, times, peers)


main()
