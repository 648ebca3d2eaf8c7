#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# What one NVIDIA GPU must be asked before Annulus may say that it runs on it.
#
#   benches/gpu.sh build [MNIST]           builds target/gpu: programs, tests, data and this script. MNIST is a folder
#                                          with its four files; without it, `train` is put through the digits.
#   target/gpu/gpu.sh run [FILE]           does everything and writes one Markdown file [gpu.md]. Needs the driver's
#                                          libraries and a shell: no compiler, no toolkit, no Rust, no network.
#
# `run` is expected to take below eight minutes, and takes below ten whatever the card does: each part has a time limit
# and is killed at it, and what comes after goes on; one that not even that ends is left behind. No limit goes beyond
# what is left of all the time there is, and a part is expected to take less than half of its own. What says most comes
# first, and what processes do, which take turns on a card and so take longest, late. Its status is the number of parts
# that failed. compute-sanitizer and a python with PyTorch are used where there are any. ANNULUS_GPU_PARTS=names runs some
# parts alone.
#
# Over the stand-in for the driver (tests/standin) everything runs too, slowly, and with ten times the time:
# ANNULUS_GPU_STANDIN=FOLDER, where its libraries are. Then the file says so in each headline, and nothing in it is a
# result of a GPU.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
programs=(driver device_collectives device_messages device_schedules train_device)

build() {
    cd "$here/.." || exit 2
    local mnist=${1:-} to=target/gpu/all artifact
    rm -rf target/gpu && mkdir -p $to || exit 2
    # Without simulated devices: a test that asked for one would say so, and no C++ is linked. The command is built
    # along with the tests.
    local features=(--no-default-features --features cli,cuda --profile "${ANNULUS_GPU_PROFILE:-release}")
    local wanted=(--bench gpu)
    for artifact in "${programs[@]}"; do wanted+=(--test "$artifact"); done
    local list
    list=$(cargo test --no-run "${features[@]}" "${wanted[@]}" --message-format=json) || exit 2
    for artifact in "${programs[@]}" gpu annulus; do
        local path
        path=$(grep -o "\"name\":\"$artifact\".*\"executable\":\"[^\"]*\"" <<<"$list" | grep -o '"executable":"[^"]*"' |
            tail -1 | cut -d'"' -f4)
        [ -n "$path" ] || { echo "cargo does not say where $artifact is" >&2; exit 2; }
        strip -o "$to/$artifact" "$path" || exit 2
    done
    cp benches/peers/mnist_torch.py $to/
    cp benches/gpu.sh target/gpu/
    if [ -n "$mnist" ]; then
        mkdir $to/mnist && cp "$mnist"/*-ubyte* $to/mnist/ && chmod -R u+w $to/mnist || exit 2
    fi
    { git rev-parse HEAD; git diff --quiet HEAD -- || echo "with changes"; } >$to/commit
    # Everything that is linked: the C library and its kin, and nothing else.
    local linked
    linked=$(for artifact in "${programs[@]}" gpu annulus; do ldd "$to/$artifact"; done | awk '{ print $1 }' | sort -u |
        grep -vE '^(linux-vdso\.so\.1|/lib64/ld-linux-x86-64\.so\.2|lib(c|m|gcc_s)\.so\.[0-9]+)$')
    [ -z "$linked" ] || { echo "these libraries would be needed there: $linked" >&2; exit 2; }
    # Each program has the kernels' code in it, as text.
    tar -C $to -czf target/gpu/all.tar.gz . && rm -r $to || exit 2
    du -sh target/gpu
    [ "$(du -sm target/gpu | cut -f1)" -lt 48 ] || { echo "target/gpu is too large to be carried" >&2; exit 2; }
}

out=
failed=0
begun=$SECONDS
standin=${ANNULUS_GPU_STANDIN:-}
slower=$([ -n "$standin" ] && echo 10 || echo 1)
all=$((570 * slower)) # seconds

say() { printf '%s\n' "$@" >>"$out"; }

# part NAME SECONDS TITLE COMMAND..: one part of the file. Its output is kept, the end of it if it is long.
part() {
    local name=$1 seconds=$(($2 * slower)) title=$3 started=$SECONDS log status left=$((all - (SECONDS - begun)))
    shift 3
    [[ -z ${ANNULUS_GPU_PARTS:-} || " $ANNULUS_GPU_PARTS " == *" $name "* ]] || return 0
    say "" "## $title" ""
    if [ "$left" -lt 5 ]; then
        say "Not begun: the time for everything was up."
        failed=$((failed + 1))
        return 0
    fi
    [ "$left" -lt "$seconds" ] && seconds=$left
    log=$(mktemp)
    timeout --kill-after=3 "$seconds" "$@" >"$log" 2>&1 </dev/null &
    # A process that the driver holds does not end when it is killed, and then `timeout` does not either.
    local waiting=$! ends=$((SECONDS + seconds + 8))
    while kill -0 $waiting 2>/dev/null && [ $SECONDS -lt $ends ]; do sleep 0.1; done
    if kill -0 $waiting 2>/dev/null; then
        status=137
        disown $waiting
    else
        wait $waiting
        status=$?
    fi
    # What a killed part has left behind.
    local left_behind
    left_behind=$(children_of_this)
    [ -z "$left_behind" ] || kill -KILL $left_behind 2>/dev/null
    local verdict="well"
    case $status in
    0) ;;
    77) verdict="not done here" ;;
    124 | 137) verdict="NOT ENDED within $seconds s, and killed" ;;
    *) verdict="FAILED, status $status" ;;
    esac
    [[ $status == 0 || $status == 77 ]] || failed=$((failed + 1))
    printf '%-24s %4d s  %s\n' "$name" $((SECONDS - started)) "$verdict" >&2
    say "$verdict, in $((SECONDS - started)) s." ""
    if [ "$(grep -c '^|' "$log")" -gt 2 ]; then
        cat "$log" >>"$out"
    else
        say '```'
        [ "$(wc -l <"$log")" -gt 300 ] && say ".. the last 300 lines:"
        tail -300 "$log" | cut -c1-400 >>"$out"
        say '```'
    fi
    rm -f "$log"
}

# Processes that carry this run's mark in their environment and are not this shell.
children_of_this() {
    local process
    for process in /proc/[0-9]*; do
        [ "${process#/proc/}" != $$ ] && grep -qsz "^ANNULUS_GPU_RUN=$ANNULUS_GPU_RUN\$" "$process/environ" &&
            echo "${process#/proc/}"
    done 2>/dev/null
}

# Tests of a program, on the card: those of these names, or all. What they say is said at once, and not at the end, which
# may not come.
tested() {
    local program=$1
    shift
    "$here/$program" --test-threads=1 --nocapture --skip over_the_stand_in "$@"
}

# tests NAME SECONDS TITLE PROGRAM [TEST..]: a part that is tests.
tests() {
    local part=("${@:1:3}")
    shift 3
    part "${part[@]}" bash -c 'tested "$@"' _ "$@"
}

sanitized() {
    local tool toolkit=/usr/local/cuda
    for tool in compute-sanitizer $toolkit/bin/compute-sanitizer $toolkit/compute-sanitizer/compute-sanitizer; do
        command -v "$tool" >/dev/null && break
        tool=
    done
    [ -n "$tool" ] || { echo "there is no compute-sanitizer on this machine: nothing was looked at"; return 77; }
    echo "racecheck sees shared memory alone, which says nothing of what ranks share: memcheck it is"
    # Deadlines grow, since everything is slow under it.
    ANNULUS_TIMEOUT=25 "$tool" --tool memcheck --target-processes all --error-exitcode 9 --leak-check no \
        "$here/device_collectives" --test-threads=1 --nocapture \
        bits::several_blocks_get_the_bits_of_the_reference_and_of_the_host order::a_call_returns_before
}

training() {
    local report status
    report=$("$here/annulus" train --device cuda --json --data "$data" "$@")
    status=$?
    local fields='test_accuracy|equal_to_one_rank|matrix_products|samples_per_second|seconds'
    grep -oE "\"($fields)\":(\"[^\"]*\"|[^,}]*)" <<<"$report"
    return $status
}

# The same model and batch as a rank's of the trainer's: samples a second of steps, by PyTorch as it is.
peer() {
    local python
    for python in "${ANNULUS_GPU_PYTHON:-python3}" python3 python; do
        "$python" -c 'import importlib.util as of; raise SystemExit(of.find_spec("torch") is None)' 2>/dev/null && break
        python=
    done
    [ -n "$python" ] || { echo "there is no python with PyTorch on this machine: only ours is known"; return 77; }
    "$python" "$here/mnist_torch.py"
}

# Whether the loader finds a library of that name. All of the list is read: who is not listened to ends badly.
has_library() {
    ldconfig -p 2>/dev/null | grep "$1" >/dev/null
}

# Where PyTorch keeps its cuBLAS, if the loader does not find one by itself.
find_blas() {
    has_library 'libcublas\.so\.1[23]' && return
    local place
    place=$(timeout 20 "${ANNULUS_GPU_PYTHON:-python3}" - 2>/dev/null <<'PYTHON'
import glob, sys
for folder in sys.path:
    for found in sorted(glob.glob(folder + "/nvidia/*/lib/libcublas.so.1[23]"), reverse=True):
        print(found.rsplit("/", 1)[0])
        raise SystemExit
PYTHON
    )
    [ -z "$place" ] || export LD_LIBRARY_PATH="$place${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
}

# The card's clocks, as they are now.
state() {
    [ -n "$standin" ] && return
    say "" '```'
    timeout 20 nvidia-smi --query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu --format=csv >>"$out" 2>&1
    say '```'
}

# Reads the large libraries that will be loaded.
read_ahead() {
    local folder
    # No part's, so that none ends it.
    unset ANNULUS_GPU_RUN
    for folder in ${LD_LIBRARY_PATH//:/ } /usr/local/cuda/lib64 /usr/lib/x86_64-linux-gnu; do
        cat "$folder"/libcublas*.so.* 2>/dev/null
    done
    timeout 60 "${ANNULUS_GPU_PYTHON:-python3}" -c 'import torch' 2>/dev/null
}

run() {
    out=$(realpath -m "${1:-gpu.md}")
    : >"$out" || exit 2
    if [ -e "$here/all.tar.gz" ]; then
        local unpacked
        unpacked=$(mktemp -d) && tar -C "$unpacked" -xzf "$here/all.tar.gz" || exit 2
        # A place for temporary files may be none for programs.
        if ! "$unpacked/annulus" --version >/dev/null; then
            unpacked=$here/all
            mkdir -p "$unpacked" && tar -C "$unpacked" -xzf "$here/all.tar.gz" || exit 2
        fi
        here=$unpacked
    fi
    local of="on a GPU"
    # Files that a machine may not have are looked for where its makers put them.
    local folder
    for folder in /usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib/wsl/lib; do
        [ -z "$standin" ] && [ -e "$folder/libcuda.so.1" ] && ! has_library 'libcuda\.so\.1' &&
            export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    done
    [ -n "$standin" ] || find_blas
    export ANNULUS_TEST_DEVICE=cuda ANNULUS_TEST_COMMAND="$here/annulus" ANNULUS_GPU_RUN=$$.$RANDOM RUST_BACKTRACE=0
    # As many streams go on at a time as there may be, and as much is enqueued; ranks that are threads wait for one
    # another.
    export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-32}
    export CUDA_SCALE_LAUNCH_QUEUES=${CUDA_SCALE_LAUNCH_QUEUES:-4x}
    # Ranks that miss one another say so before their part is killed, and a world of processes is.
    export ANNULUS_TIMEOUT=$((15 * slower)) ANNULUS_TEST_LONGEST=$((40 * slower))
    # Threads do not wait for each other's turns, so they say it sooner, and the tests behind have the time.
    local soon=$((6 * slower))
    # A card that no process uses is made ready anew for the next one, for seconds, unless a daemon keeps it so. A part is
    # many processes, so the first card is kept in use for all of them.
    local card
    for card in /dev/nvidia[0-9]*; do
        [ -z "$standin" ] && { exec 9<"$card"; } 2>/dev/null && break
    done
    # What the driver compiles, it compiles once.
    export CUDA_CACHE_PATH=${CUDA_CACHE_PATH:-$(mktemp -d)} CUDA_CACHE_MAXSIZE=1073741824
    if [ -n "$standin" ]; then
        export LD_LIBRARY_PATH=$standin ANNULUS_TEST_DEVICE="stand-in cuda" STANDIN_MEMORY=16384
        export STANDIN_MULTIPROCESSORS=8 ANNULUS_GPU_QUICK=1
        of="over the STAND-IN for the CUDA driver: NO GPU, and no speed of one"
    fi
    local quick=() data=digits doctor=("$here/annulus" doctor --gpu --deadline 10 --within 80)
    # The fold is measured in a share of the memory.
    [ -z "$standin" ] || doctor=(env STANDIN_MEMORY=16 "$here/annulus" doctor --gpu --deadline 60)
    [ -n "${ANNULUS_GPU_QUICK:-}" ] && quick=(--test)
    [ -d "$here/mnist" ] && data=$here/mnist
    say "# Everything, $of" ""
    say "$(date -u +%Y-%m-%d), commit $(cat "$here/commit" 2>/dev/null), $(nproc) cores, $(uname -sr)" ""
    say '```'
    timeout 20 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv \
        >>"$out" 2>&1 ||
        say "nvidia-smi does not answer"
    say '```'

    # The first that reads a library's file waits for the disk; this is in time for those who need it.
    [ -n "$standin" ] || read_ahead >/dev/null 2>&1 &
    part devices 15 "Devices" "$here/annulus" devices
    # It has the driver compile all kernels, for a quarter of a minute or so; the others find them in its cache.
    part first 180 "The first calls, by two ranks" "$here/annulus" bench all_reduce --device cuda --ranks 2 \
        --end 64K --factor 8 --iterations 20
    say "What the driver has compiled: $(du -sh "$CUDA_CACHE_PATH" 2>/dev/null | cut -f1)."
    export here data
    export -f tested
    ANNULUS_TIMEOUT=$soon tests threads 40 "Bits of every call: 1 to 8 ranks as threads" device_collectives \
        bits::threads
    ANNULUS_TIMEOUT=$soon tests replays 20 "A thousand replays, mixed with calls" device_collectives order::
    state
    ANNULUS_TIMEOUT=$soon part speeds 90 "Speeds" "$here/gpu" "${quick[@]}"
    state
    # The order of the samples and what is read of losses are in these times, as a user has them.
    local rates=(--hidden 512,512 --batch 512 --epochs 10)
    [ -n "${ANNULUS_GPU_QUICK:-}" ] && rates=(--hidden 16 --batch 32 --epochs 1)
    export -f training
    part train-1 30 "Training, one rank" bash -c 'training "$@"' _ --ranks 1 "${rates[@]}"
    part train-1-eager 30 "Training, one rank, each step enqueued anew" bash -c 'training "$@"' _ --ranks 1 --eager \
        "${rates[@]}"
    part train-1-own 30 "Training, one rank, by our own products" env ANNULUS_PRODUCTS=own bash -c 'training "$@"' _ \
        --ranks 1 "${rates[@]}"
    export -f peer
    part torch 75 "The same training by PyTorch" bash -c peer
    tests driver 45 "Streams, memory, events, graphs, memory of other processes" driver --skip nothing_is_left
    # It asks with the driver's own number and length of queues too, and without the cache. Its table comes at its end.
    part doctor 90 "What the card is believed to do" env -u CUDA_DEVICE_MAX_CONNECTIONS -u CUDA_SCALE_LAUNCH_QUEUES \
        "${doctor[@]}"
    ANNULUS_TIMEOUT=$soon tests failures 45 "Failures, deadlines, deaths" device_collectives failures:: leaving:: \
        records::
    # Tests come in the order of their names: without those of processes, the others have the time.
    ANNULUS_TIMEOUT=$soon tests messages 40 "Messages: bits, order, failures" device_messages --skip bits::processes
    ANNULUS_TIMEOUT=$soon tests schedules 60 "Schedules on device memory" device_schedules --skip bits::processes
    part train-2 30 "Training, two ranks on the card" bash -c 'training "$@"' _ --ranks 2 "${rates[@]}"
    part train-2-processes 30 "Training, two processes on the card, few steps" bash -c 'training "$@"' _ --ranks 2 \
        --processes "${rates[@]}" --steps 20
    # Processes take turns on a card. The largest world comes last.
    tests processes 80 "Bits of every call: 1, 2, 4 and 8 ranks as processes" device_collectives bits::processes
    ANNULUS_TIMEOUT=$soon tests long 40 "Bits of long messages, and of launches of several blocks" device_collectives \
        bits::several_blocks bits::long_messages
    ANNULUS_PRODUCTS=own tests trainer 50 "The trainer's tests, by our own products" train_device
    ANNULUS_TIMEOUT=$soon tests trainer-library 25 "Ranks equal one, by the library's products" train_device proof::
    tests processes-messages 20 "Messages: 3 ranks as processes" device_messages bits::processes
    tests processes-schedules 30 "Schedules: 2 and 5 ranks as processes" device_schedules bits::processes
    tests left 20 "Nothing is left of what was dropped" driver nothing_is_left
    export -f sanitized
    part memcheck 35 "memcheck" bash -c sanitized
    say "" "$failed parts failed; $((SECONDS - begun)) s in all."
    echo "$failed parts failed, in $((SECONDS - begun)) s: $out" >&2
    return $failed
}

case ${1:-} in
build | run) "$@" ;;
*) sed -n '3,/^set/p' "$0" | grep '^#' | cut -c3- >&2; exit 2 ;;
esac
