// SPDX-License-Identifier: MPL-2.0
//! A long run of everything at once, drawn from a seed that every rank knows: collectives of all kinds and lengths,
//! blocking and started, messages, batches, splits, handles in flight and dropped, each result against what it must be.
//! At its end memory, descriptors and threads are what they were after its first part.
//!
//! `ANNULUS_TEST_SEED` replays a run that failed; `ANNULUS_TEST=full` makes it ten times as long.
#![cfg(target_os = "linux")]

mod ranks;

use annulus::communicator::Pending;
use annulus::reference::inputs::SplitMix64;
use annulus::{Communicator, ReduceOp, Shared};
use ranks::{full, processes, threads};

/// What rank `rank` contributes to call `call` at place `place`; wraps, so that sums are exact.
fn value(call: u64, rank: usize, place: usize) -> u64 {
    SplitMix64::new(call << 32 ^ (rank as u64) << 24 ^ place as u64).bits()
}

fn contribution(call: u64, rank: usize, len: usize) -> Vec<u64> {
    (0..len).map(|place| value(call, rank, place)).collect()
}

/// The sum over these ranks.
fn sum(call: u64, ranks: impl Iterator<Item = usize> + Clone, places: std::ops::Range<usize>) -> Vec<u64> {
    let of = |place: usize| ranks.clone().fold(0_u64, |sum, rank| sum.wrapping_add(value(call, rank, place)));
    places.map(of).collect()
}

/// A call in flight, and what its output must be.
struct InFlight {
    pending: Pending<Vec<u64>>,
    expected: Vec<u64>,
    what: String,
}

/// One rank's walk through the run. What is drawn is the same on all ranks.
struct Walk<'a> {
    comm: &'a Communicator,
    drawn: SplitMix64,
    call: u64,
    in_flight: Vec<InFlight>,
    shared: Shared<u64>,
}

impl Walk<'_> {
    fn draw(&mut self, below: u64) -> usize {
        self.drawn.between(0, below - 1) as usize
    }

    fn len(&mut self) -> usize {
        let longest = [1, 8, 70, 1_100, 9_000][self.draw(5)];
        self.draw(longest + 1)
    }

    /// Makes a drawn call on `comm`, whose rank r is the world's rank `members[r]`.
    fn step(&mut self, comm: &Communicator, members: &[usize]) {
        self.call += 1;
        let (call, len, kind, root) = (self.call, self.len(), self.draw(15), self.draw(members.len() as u64));
        let (rank, world, own) = (comm.rank(), comm.world_size(), members[comm.rank()]);
        let (is_root, everyone) = (rank == root, members.iter().copied());
        let what = format!("call {call}, kind {kind}, {len} elements, root {root} of {members:?}");
        let one = || contribution(call, own, len);
        let all = || contribution(call, own, world * len);
        let gathered = || members.iter().flat_map(|rank| contribution(call, *rank, len)).collect::<Vec<u64>>();
        let mine = rank * len..(rank + 1) * len;
        let check = |got: &[u64], expected: &[u64]| assert!(got == expected, "{what}: rank {rank}");
        match kind {
            0 => {
                let mut recv = vec![0; len];
                comm.all_reduce(&one(), &mut recv, ReduceOp::Sum).unwrap();
                check(&recv, &sum(call, everyone, 0..len));
            }
            1 => {
                self.shared[..len].copy_from_slice(&one());
                comm.all_reduce_in_place(&mut self.shared[..len], ReduceOp::Sum).unwrap();
                check(&self.shared[..len], &sum(call, everyone, 0..len));
            }
            2 => {
                let mut recv = vec![0; len];
                comm.reduce_scatter(&all(), &mut recv, ReduceOp::Sum).unwrap();
                check(&recv, &sum(call, everyone, mine));
            }
            3 => {
                let mut recv = vec![0; world * len];
                comm.all_gather(&one(), &mut recv).unwrap();
                check(&recv, &gathered());
            }
            4 => {
                let mut buffer = if is_root { one() } else { vec![0; len] };
                comm.broadcast_in_place(&mut buffer, root).unwrap();
                check(&buffer, &contribution(call, members[root], len));
            }
            5 => {
                let mut recv = vec![0; len];
                comm.reduce(&one(), is_root.then_some(&mut recv[..]), ReduceOp::Sum, root).unwrap();
                check(&recv, &if is_root { sum(call, everyone, 0..len) } else { vec![0; len] });
            }
            6 => {
                let mut recv = vec![0; len];
                comm.scatter(is_root.then_some(&all()[..]), &mut recv, root).unwrap();
                check(&recv, &contribution(call, members[root], world * len)[mine]);
            }
            7 => {
                let mut recv = vec![0; world * len];
                comm.gather(&one(), is_root.then_some(&mut recv[..]), root).unwrap();
                check(&recv, &if is_root { gathered() } else { vec![0; world * len] });
            }
            8 => {
                let mut recv = vec![0; world * len];
                comm.all_to_all(&all(), &mut recv).unwrap();
                let parts =
                    members.iter().flat_map(|from| contribution(call, *from, world * len)[mine.clone()].to_vec());
                check(&recv, &parts.collect::<Vec<u64>>());
            }
            9 => {
                let mut buffer = one();
                comm.scan_in_place(&mut buffer, ReduceOp::Sum).unwrap();
                check(&buffer, &sum(call, members[..=rank].iter().copied(), 0..len));
            }
            10 => {
                let counts: Vec<usize> = (0..world).map(|rank| (len + 7 * rank) % 50 * (rank % 3)).collect();
                let mut recv = vec![0; counts.iter().sum()];
                comm.all_gather_v(&contribution(call, own, counts[rank]), &mut recv, &counts).unwrap();
                let expected = members.iter().zip(&counts).flat_map(|(rank, count)| contribution(call, *rank, *count));
                check(&recv, &expected.collect::<Vec<u64>>());
            }
            11 => {
                let (next, previous) = ((rank + 1) % world, (rank + world - 1) % world);
                let (sent, mut got, mut back) = (one(), vec![0; len], vec![0; len]);
                comm.batch(|batch| {
                    batch.send(&sent, next);
                    batch.send(&sent, previous);
                    batch.recv(&mut got, previous);
                    batch.recv(&mut back, next);
                })
                .unwrap();
                check(&got, &contribution(call, members[previous], len));
                check(&back, &contribution(call, members[next], len));
            }
            12 => {
                let pending = comm.start_all_reduce_in_place(one(), ReduceOp::Sum).unwrap();
                self.in_flight.push(InFlight { pending, expected: sum(call, everyone, 0..len), what });
            }
            13 => {
                let pending = comm.start_broadcast_in_place(if is_root { one() } else { vec![0; len] }, root).unwrap();
                let expected = contribution(call, members[root], len);
                self.in_flight.push(InFlight { pending, expected, what });
            }
            _ => {
                // Nobody waits for it.
                drop(comm.start_all_gather(one(), vec![0; world * len]).unwrap());
            }
        }
        // Some are awaited, in a drawn order; never more than there may be.
        while self.in_flight.len() > 5 || !self.in_flight.is_empty() && self.draw(4) == 0 {
            let place = self.draw(self.in_flight.len() as u64);
            self.finish(place);
        }
    }

    fn finish(&mut self, place: usize) {
        let InFlight { pending, expected, what } = self.in_flight.swap_remove(place);
        assert!(pending.wait().unwrap() == expected, "{what}: rank {}", self.comm.rank());
    }

    fn finish_all(&mut self) {
        while !self.in_flight.is_empty() {
            self.finish(0);
        }
    }
}

/// Parts of this process that must not grow: threads, descriptors, and kilobytes of memory.
fn footprint() -> [usize; 3] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    [field("Threads:"), std::fs::read_dir("/proc/self/fd").unwrap().count(), field("VmRSS:")]
}

fn run_everything(comm: &Communicator, seed: u64) -> Vec<[usize; 3]> {
    let rounds = if full() { 60 } else { 6 };
    let shared = comm.allocate(9_000).unwrap();
    let mut walk = Walk { comm, drawn: SplitMix64::new(seed), call: 0, in_flight: Vec::new(), shared };
    let world: Vec<usize> = (0..comm.world_size()).collect();
    let mut footprints = Vec::new();
    for _ in 0..rounds {
        for _ in 0..40 {
            walk.step(comm, &world);
        }
        // A part of the ranks each, in an order of their own; every rank walks on by as many steps.
        let (parts, mirrored) = (1 + walk.draw(3), walk.draw(2) == 0);
        let key = |rank: usize| if mirrored { -(rank as i64) } else { 0 };
        let part = comm.split((comm.rank() % parts) as u64, key(comm.rank())).unwrap().unwrap();
        let mut members: Vec<usize> =
            world.iter().copied().filter(|rank| rank % parts == comm.rank() % parts).collect();
        members.sort_by_key(|rank| (key(*rank), *rank));
        // What is drawn depends on the number of members, and parts differ by one rank.
        let mut apart = Walk {
            comm: &part,
            drawn: SplitMix64::new(seed ^ walk.call ^ (comm.rank() % parts) as u64),
            call: walk.call << 8,
            in_flight: Vec::new(),
            shared: comm.allocate(9_000).unwrap(),
        };
        for _ in 0..15 {
            apart.step(&part, &members);
        }
        apart.finish_all();
        drop(apart);
        drop(part);
        walk.finish_all();
        comm.barrier().unwrap();
        footprints.push(footprint());
    }
    footprints
}

fn seed() -> u64 {
    let seed = std::env::var("ANNULUS_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20);
    println!("ANNULUS_TEST_SEED={seed}");
    seed
}

#[test]
fn on_threads() {
    for world in [2, 3, 5] {
        threads(world, |comm| run_everything(&comm, seed() + world as u64));
    }
}

#[test]
fn on_processes() {
    for world in [2, 3, 5] {
        processes(world, "on_processes", |comm| {
            let footprints = run_everything(&comm, seed() + world as u64);
            let (first, last) = (footprints[1], footprints[footprints.len() - 1]);
            assert!(last[0] <= first[0] && last[1] <= first[1], "threads and descriptors: {footprints:?}");
            // Plans of calls never made before are kept, some hundred at most.
            assert!(last[2] <= first[2] + 16 * 1024, "memory: {footprints:?}");
        });
    }
}
