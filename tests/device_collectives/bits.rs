// SPDX-License-Identifier: MPL-2.0
//! The bits of every call, against `reference` at tolerance 0, and what is around the output left as it was.

use annulus::communicator::Question;
use annulus::reference::check::compare;
use annulus::reference::inputs;
use annulus::schedule::Collective;
use annulus::{Communicator, DataType, DeviceCommunicator, Element, FoldOrder, ReduceOp, bf16, f16, run};

use super::calls::{Case, HEAP, KINDS, Rank};
use super::{absent, is_on_cards, is_simulated, lacks, on, ranks, threads, types, variables};

/// Lengths around what a line and a block take, and beyond what one low-latency message and one slice take.
const LENGTHS: [usize; 7] = [0, 1, 7, 33, 257, 600, 2049];

/// Every call of one element type: by every path, in place and out of place, in memory of every kind, at lengths
/// that take turns. Short of everything, all of these take turns; and but on cards, calls too: a third of them in a world,
/// and all of them in three worlds whose numbers of ranks leave different rests.
fn check_type<T: Element>(rank: &Rank<'_>, number: &mut u64) {
    let gpus = rank.gpus;
    let device = gpus.device();
    let every = if ranks::full() || is_on_cards() { 1 } else { 3 };
    // What is this rank's alone comes first: `register` and `allocate` meet the others.
    let (plain, registered) = (device.allocate(HEAP).unwrap(), device.allocate_mappable::<T>(HEAP + 3).unwrap());
    gpus.register(&registered).unwrap();
    let heaps = [gpus.allocate(HEAP).unwrap(), registered.part(3..).unwrap(), plain];
    for (collective, kind) in KINDS.into_iter().enumerate() {
        let folds = kind.folds();
        let paths = if collective == 0 { &PATHS[..] } else { &PATHS[..1] };
        let ops: Vec<ReduceOp> = types::operations(T::DATA_TYPE).take(if folds { 99 } else { 3 }).collect();
        for op in ops {
            for way in ways(paths.len(), *number) {
                *number += 1;
                if !number.is_multiple_of(every) {
                    continue;
                }
                let turn = (*number / every) as usize;
                // Steps that have no divisor in common with the numbers of choices.
                let length = LENGTHS[turn * 3 % LENGTHS.len()];
                let case = Case {
                    collective,
                    op,
                    in_place: way.in_place,
                    length,
                    offsets: [turn % 5, turn / 2 % 3],
                    root: if kind.has_root() { turn % gpus.world_size() } else { 0 },
                };
                let path = paths[way.path].filter(|name| *name != "low_latency" || length * size_of::<T>() <= 4096);
                gpus.set_algorithm(path).unwrap();
                // Of the last kind, ranks differ in where their buffers are.
                let heap = &heaps[if way.memory < 3 { way.memory } else { gpus.rank() % 3 }];
                let order = if path == Some("ring") { &FoldOrder::Ring } else { &FoldOrder::Rank };
                rank.check(heap, order, case, *number);
            }
        }
    }
    gpus.deregister(&registered).unwrap();
    gpus.deregister(&heaps[0]).unwrap();
}

/// How an all-reduce goes.
const PATHS: [Option<&str>; 5] = [None, Some("low_latency"), Some("one_shot"), Some("two_shot"), Some("ring")];

/// How a call is made, but for its length.
#[derive(Clone, Copy)]
struct Way {
    path: usize,
    in_place: bool,
    memory: usize,
}

/// All ways, three times each, so that each is made at several lengths; or the one whose turn it is.
fn ways(paths: usize, number: u64) -> Vec<Way> {
    const MEMORIES: usize = 4;
    let all = 2 * MEMORIES * paths;
    let way = |index: usize| Way { path: index % paths, in_place: index / paths % 2 == 1, memory: index / paths / 2 };
    match ranks::full() {
        true => (0..3 * all).map(|index| way(index % all)).collect(),
        false => vec![way((number * 7) as usize % all)],
    }
}

/// Every collective, of every type and operation. Short of everything, ways of buffers take turns ([`check_type`]).
pub fn everything(comm: &Communicator) {
    let (gpus, stream) = on(comm);
    let rank = Rank { gpus: &gpus, stream: &stream };
    let mut number = comm.world_size() as u64;
    for_every_type!(check_type(&rank, &mut number));
}

/// Whether there is to be less of it: the stand-in takes its time.
fn is_brief() -> bool {
    !is_simulated() && !is_on_cards() && !ranks::full()
}

#[test]
fn threads_get_the_bits_of_the_reference() {
    if absent() {
        return;
    }
    let worlds = match (is_on_cards(), is_brief()) {
        (true, _) => vec![1, 2, 4, 5, 8],
        (false, true) => vec![1, 2, 8],
        (false, false) => (1..=8).collect(),
    };
    for n in worlds {
        threads(n, |comm| everything(&comm));
        println!("{n} threads: as the reference");
    }
}

#[test]
fn processes_get_the_bits_of_the_reference() {
    if absent() {
        return;
    }
    let few = match (is_on_cards(), is_brief()) {
        (true, _) => vec![1, 2, 4, 8],
        (false, true) => vec![3],
        (false, false) => vec![3, 4, 8],
    };
    for n in if ranks::full() { vec![1, 2, 3, 4, 5, 6, 7, 8] } else { few } {
        ranks::processes(n, "bits::processes_get_the_bits_of_the_reference", |comm| everything(&comm));
        println!("{n} processes: as the reference");
    }
}

#[test]
fn ranks_on_several_devices_get_the_bits_of_the_reference() {
    if absent() {
        return;
    }
    let all = [("4", 4), ("3", 5), ("2", 2), ("2", 3), ("8", 8), ("4", 8)];
    let all = all.into_iter().filter(|(devices, _)| !lacks(devices, ""));
    let few = if is_brief() { 1 } else { 2 };
    for (devices, n) in all.take(if ranks::full() { 6 } else { few }) {
        let name = format!("bits::ranks_on_several_devices_get_the_bits_of_the_reference {devices} {n}");
        let variables = variables(&[("ANNULUS_SIM_DEVICES", devices)]);
        let of_threads = || {
            run(n, |comm| {
                everything(&comm);
                Ok(())
            })
            .unwrap();
        };
        let of_processes = || everything(&Communicator::from_env().unwrap());
        let all: Vec<usize> = (0..n).collect();
        let mut ended = ranks::start(&[0], 1, &name, &variables, of_threads);
        ended.extend(ranks::start(&all, n, &name, &variables, of_processes));
        for rank in ended {
            assert!(rank.status.success(), "{}", rank.output);
        }
    }
}

/// Each kernel at the shape of its launches on a card, of two blocks and more of 256 threads: as the reference has it,
/// and as the host's calls have it.
#[test]
fn several_blocks_get_the_bits_of_the_reference_and_of_the_host() {
    if absent() {
        return;
    }
    for n in if ranks::full() { vec![1, 2, 3, 8] } else { vec![3] } {
        threads(n, |comm| {
            let (gpus, stream) = on(&comm);
            let rank = Rank { gpus: &gpus, stream: &stream };
            several_blocks::<f32>(&rank, &comm);
            several_blocks::<bf16>(&rank, &comm);
        });
    }
}

fn several_blocks<T: Element>(rank: &Rank<'_>, comm: &Communicator) {
    let Rank { gpus, stream } = *rank;
    let (n, size, data_type) = (gpus.world_size(), size_of::<T>(), T::DATA_TYPE);
    // So that a rank's part has more than 8 lines for each thread of one block.
    let part = (8 * 256 * 16 + 48) / size + 1;
    let heap = gpus.allocate::<T>(2 * n * part + 64).unwrap();
    let calls: [(usize, Option<&str>); 12] = [
        (0, Some("one_shot")),
        (0, Some("two_shot")),
        (0, Some("ring")),
        (0, None),
        (1, None),
        (2, None),
        (3, None),
        (4, None),
        (5, None),
        (6, None),
        (7, None),
        // Its longest message has one line for each thread of one block: there is no larger launch.
        (0, Some("low_latency")),
    ];
    for (number, (collective, path)) in calls.into_iter().enumerate() {
        let asked = KINDS[collective];
        gpus.set_algorithm(path).unwrap();
        let length = match (path, collective) {
            (Some("low_latency"), _) => DeviceCommunicator::LOW_LATENCY / size,
            _ if asked.has_parts() => part,
            _ => n * part,
        };
        let op = if number % 2 == 0 { ReduceOp::Sum } else { ReduceOp::Avg };
        for in_place in [false, true] {
            let question =
                Question { collective: asked, data_type, op: Some(op), count: length, in_place, allocated: true };
            let shape = gpus.explain(&question).unwrap().shape;
            let least = if path == Some("low_latency") || n == 8 { 1 } else { 2 };
            // What fills its share of a card has more threads.
            let has_threads = shape.threads == 256 || (shape.threads == 512 && !is_simulated());
            assert!(has_threads && shape.blocks >= least, "{asked} by {path:?}: {shape:?}");
            let order = if path == Some("ring") { &FoldOrder::Ring } else { &FoldOrder::Rank };
            let case = Case { collective, op, in_place, length, offsets: [0, 1], root: n - 1 };
            rank.check(&heap, order, case, number as u64);
        }
    }
    // The host's call, by the same order, has the same bits.
    let inputs = inputs::cancelling::<T>(5, 5, &vec![n * part; n]);
    for path in ["one_shot", "two_shot", "ring"] {
        let (send, recv) = (heap.part(..n * part).unwrap(), heap.part(n * part..2 * n * part).unwrap());
        gpus.set_algorithm(Some(path)).unwrap();
        comm.set_algorithm((path == "ring").then_some(path)).unwrap();
        stream.write(&send, &inputs[comm.rank()]).unwrap();
        gpus.all_reduce(&send, &recv, ReduceOp::Sum, stream).unwrap();
        let mut of_host = vec![T::zeroed(); n * part];
        comm.all_reduce(&inputs[comm.rank()], &mut of_host, ReduceOp::Sum).unwrap();
        compare(&stream.read(&recv).unwrap(), &of_host, comm.rank()).unwrap();
    }
    comm.set_algorithm(None).unwrap();
    gpus.set_algorithm(None).unwrap();
}

/// Bytes of the longest all-reduce that is one launch: a power of two, higher where cards have more memory.
pub fn most(gpus: &DeviceCommunicator) -> usize {
    let launches = |bytes: usize| {
        let (collective, data_type, op) = (Collective::AllReduce, DataType::U8, Some(ReduceOp::Sum));
        let question = Question { collective, data_type, op, count: bytes, in_place: true, allocated: true };
        gpus.explain(&question).unwrap().launches
    };
    (20..40).map(|power| 1 << power).find(|bytes| launches(bytes + 1) > 1).unwrap()
}

/// What is longer than one launch moves, in memory that peers see and in other memory.
#[test]
fn long_messages_are_cut() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let (rank, length) = (comm.rank(), (most(&gpus) + (1 << 20)) / 8 + 3);
        let heaps = [gpus.allocate::<u64>(3 * length).unwrap(), gpus.device().allocate(3 * length).unwrap()];
        // Reading so much pins memory of the host, which stays pinned.
        stream.read(&heaps[1].part(..length).unwrap()).unwrap();
        comm.barrier().unwrap();
        let value = |rank: usize, part: usize| (10 * rank + part) as u64 + 1;
        for heap in &heaps {
            let part = |index: usize| heap.part(index * length..(index + 1) * length).unwrap();
            let fill = || (0..3).for_each(|index| stream.fill(&part(index), value(rank, index)).unwrap());
            let is = |index: usize, value: u64| {
                let got = stream.read(&part(index)).unwrap();
                assert!(got == vec![value; length], "part {index} of rank {rank} is not {value}");
            };
            let both = heap.part(..2 * length).unwrap();
            fill();
            gpus.all_reduce(&part(0), &part(1), ReduceOp::Sum, &stream).unwrap();
            is(1, value(0, 0) + value(1, 0));
            fill();
            gpus.reduce_scatter(&both, &part(2), ReduceOp::Sum, &stream).unwrap();
            is(2, value(0, rank) + value(1, rank));
            gpus.reduce_scatter_in_place(&both, ReduceOp::Sum, &stream).unwrap();
            is(rank, value(0, rank) + value(1, rank));
            is(1 - rank, value(rank, 1 - rank));
            fill();
            gpus.all_gather(&part(2), &both, &stream).unwrap();
            is(0, value(0, 2));
            is(1, value(1, 2));
            fill();
            gpus.all_gather_in_place(&both, &stream).unwrap();
            is(0, value(0, 0));
            is(1, value(1, 1));
            fill();
            gpus.broadcast_in_place(&part(0), 1, &stream).unwrap();
            is(0, value(1, 0));
            fill();
            gpus.reduce(&part(0), (rank == 1).then_some(&part(2)), ReduceOp::Sum, 1, &stream).unwrap();
            is(2, if rank == 1 { value(0, 0) + value(1, 0) } else { value(rank, 2) });
            fill();
            gpus.scatter((rank == 1).then_some(&both), &part(2), 1, &stream).unwrap();
            is(2, value(1, rank));
            gpus.gather(&part(2), (rank == 0).then_some(&both), 0, &stream).unwrap();
            is(1, value(1, 1));
            is(0, value(1, 0));
            fill();
            gpus.all_to_all_in_place(&both, &stream).unwrap();
            is(0, value(0, rank));
            is(1, value(1, rank));
        }
    });
}
