// SPDX-License-Identifier: MPL-2.0
//! The bits of every device collective by every built-in schedule that it has, against `reference` in the schedule's fold
//! order at tolerance 0, and what is around the output left as it was.

use annulus::reference::inputs::SplitMix64;
use annulus::schedule::{self, Access};
use annulus::{Communicator, Element, ReduceOp, bf16, f16, run};

use super::calls::{Case, HEAP, KINDS, Rank};
use super::{absent, is_on_cards, lacks, on, ranks, threads, types};

const LENGTHS: [usize; 7] = [0, 1, 7, 33, 257, 600, 2049];

/// Bytes of shared memory: what all of a message goes through at once, and what takes dozens of segments.
const MEMORY: [usize; 2] = [1 << 20, 6 << 10];

/// Draws the cases, alike on all ranks.
struct Draw {
    generator: SplitMix64,
    number: u64,
}

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.generator.between(0, bound as u64 - 1) as usize
    }
}

/// Every collective, of one type, by every schedule, which has so much memory: of operations one that is drawn, or all.
fn check_type<T: Element>(rank: &Rank<'_>, memory: usize, draw: &mut Draw) {
    let gpus = rank.gpus;
    let (n, device) = (gpus.world_size(), gpus.device());
    // What is this rank's alone comes first: `register` and `allocate` meet the others.
    let (plain, registered) = (device.allocate(HEAP).unwrap(), device.allocate_mappable::<T>(HEAP + 3).unwrap());
    gpus.register(&registered).unwrap();
    let heaps = [gpus.allocate(HEAP).unwrap(), registered.part(3..).unwrap(), plain];
    for (collective, kind) in KINDS.into_iter().enumerate() {
        for name in schedule::names(kind) {
            let ops: Vec<ReduceOp> = types::operations(T::DATA_TYPE).collect();
            let all = match (ranks::full(), kind.folds()) {
                (true, true) => ops.len(),
                (true, false) => 6,
                (false, _) => 1,
            };
            for turn in 0..all {
                let op = if all == ops.len() { ops[turn] } else { ops[draw.below(ops.len())] };
                // What takes no segments has to fit.
                let most = if name == "one_shot" && memory < MEMORY[0] { 3 } else { LENGTHS.len() };
                let case = Case {
                    collective,
                    op,
                    in_place: draw.below(2) == 1,
                    length: LENGTHS[draw.below(most)],
                    offsets: [draw.below(5), draw.below(3)],
                    root: if kind.has_root() { draw.below(n) } else { 0 },
                };
                let order = schedule::named(kind, name, Access::Staged, None).unwrap().fold_order();
                gpus.set_algorithm(Some(&format!("schedule:{name}"))).unwrap();
                draw.number += 1;
                let heap = &heaps[draw.below(heaps.len())];
                rank.check(heap, &order, case, draw.number);
            }
        }
    }
    gpus.deregister(&registered).unwrap();
    gpus.deregister(&heaps[0]).unwrap();
}

fn everything(comm: &Communicator) {
    let (gpus, stream) = on(comm);
    let rank = Rank { gpus: &gpus, stream: &stream };
    let seed = comm.world_size() as u64;
    let of_turns = MEMORY.into_iter().enumerate();
    // Short of everything, larger worlds have one of the two.
    for (turn, bytes) in of_turns.filter(|(turn, _)| ranks::full() || seed < 4 || turn % 2 == seed as usize % 2) {
        gpus.set_schedule_memory(bytes).unwrap();
        let mut draw = Draw { generator: SplitMix64::new(seed + 100 * turn as u64), number: seed };
        // Processes take turns on a card, which takes its time.
        if is_on_cards() && comm.transport_kind() != "threads" {
            check_type::<f32>(&rank, bytes, &mut draw);
            check_type::<bf16>(&rank, bytes, &mut draw);
            check_type::<i64>(&rank, bytes, &mut draw);
        } else {
            for_every_type!(check_type(&rank, bytes, &mut draw));
        }
    }
    gpus.set_algorithm(Some("schedule:dissemination")).unwrap();
    gpus.barrier(&stream).unwrap();
    stream.synchronize().unwrap();
}

#[test]
fn threads_get_the_bits_of_the_reference() {
    if absent() {
        return;
    }
    for n in 1..=8 {
        threads(n, |comm| everything(&comm));
    }
}

#[test]
fn processes_get_the_bits_of_the_reference() {
    if absent() {
        return;
    }
    for n in if ranks::full() { vec![1, 2, 3, 4, 5, 6, 7, 8] } else { vec![2, 5] } {
        ranks::processes(n, "bits::processes_get_the_bits_of_the_reference", |comm| everything(&comm));
        println!("{n} processes: as the reference");
    }
}

#[test]
fn ranks_on_several_devices_get_the_bits_of_the_reference() {
    if absent() {
        return;
    }
    // The last ones through memory of the host.
    for (devices, n, pairs) in [("4", 4, ""), ("3", 5, ""), ("2", 2, "0-1"), ("3", 4, "0-2")] {
        if lacks(devices, pairs) {
            continue;
        }
        let name = format!("bits::ranks_on_several_devices_get_the_bits_of_the_reference {devices}{pairs}");
        let variables = [("ANNULUS_SIM_DEVICES", devices), ("ANNULUS_SIM_UNREACHABLE", pairs)];
        let of_threads = || {
            run(n, |comm| {
                everything(&comm);
                Ok(())
            })
            .unwrap();
        };
        let mut ended = ranks::start(&[0], 1, &name, &variables, of_threads);
        if !pairs.is_empty() {
            let all: Vec<usize> = (0..n).collect();
            ended.extend(ranks::start(&all, n, &name, &variables, || everything(&Communicator::from_env().unwrap())));
        }
        for rank in ended {
            assert!(rank.status.success(), "{}", rank.output);
        }
    }
}
