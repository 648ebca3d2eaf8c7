// SPDX-License-Identifier: MPL-2.0
//! What a program costs: elements moved, rounds, and a time by the alpha-beta model.
//!
//! Hockney's model: a round, in which a rank waits for something that another has just done, costs `alpha`; a byte read
//! or written costs `beta`. Two numbers describe a machine. They leave out what does not fit into them, caches above
//! all, so a prediction ranks algorithms and says what dominates; it is no promise.

use std::fmt;
use std::time::Duration;

use super::{Entry, Layout, Place, Schedule, Step};

/// How many elements a rank moves, and how many of them in other ranks' memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Read, counting every source.
    pub read: usize,
    /// Of these, from other ranks' memory.
    pub read_elsewhere: usize,
    /// Written, counting every destination.
    pub written: usize,
    /// Of these, to other ranks' memory.
    pub written_elsewhere: usize,
}

impl Moved {
    /// What `rank` moves in these steps.
    pub fn of(rank: usize, steps: &[Step]) -> Self {
        let mut moved = Moved::default();
        moved.add(rank, steps, 1);
        moved
    }

    fn add(&mut self, rank: usize, steps: &[Step], times: usize) {
        for step in steps {
            let (from, to, len) = match step {
                Step::Copy { from, to, len } => (std::slice::from_ref(from), to, *len),
                Step::Fold { from, to, len } => (&from[..], to, *len),
                Step::Repeat { segments, body } => {
                    self.add(rank, body, *segments);
                    continue;
                }
                Step::Signal { .. } | Step::Wait { .. } => continue,
            };
            let elements = |count: usize| len.saturating_mul(times).saturating_mul(count);
            let elsewhere = |places: &[Place]| elements(places.iter().filter(|place| place.rank != rank).count());
            self.read = self.read.saturating_add(elements(from.len()));
            self.read_elsewhere = self.read_elsewhere.saturating_add(elsewhere(from));
            self.written = self.written.saturating_add(elements(to.len()));
            self.written_elsewhere = self.written_elsewhere.saturating_add(elsewhere(to));
        }
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Moved { read, read_elsewhere, written, written_elsewhere } = self;
        write!(f, "reads {read} elements ({read_elsewhere} of other ranks), ")?;
        write!(f, "writes {written} ({written_elsewhere} of other ranks)")
    }
}

/// Up to how many ranks an entry is one round. Above, ranks enter in groups of so many, and it is two: a group's first rank
/// waits for its group, and all ranks wait for those.
pub const GROUP: usize = 16;

/// A machine in two numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Seconds until a waiting rank sees what another has just signalled.
    pub alpha: f64,
    /// Seconds a byte that a core reads or writes.
    pub beta: f64,
}

impl Machine {
    /// What two cores of one recent server processor do on data that their caches hold: 150 ns, 20 GB/s.
    pub const TYPICAL: Machine = Machine { alpha: 150e-9, beta: 5e-11 };
}

/// What a schedule costs the rank that it costs most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// How often the rank waits for others, the entry included.
    pub rounds: usize,
    /// What it moves.
    pub moved: Moved,
    /// The time on the machine that was given.
    pub time: Duration,
}

/// The cost of a schedule, with elements of `element` bytes.
pub fn cost(schedule: &dyn Schedule, layout: &Layout, element: usize, machine: Machine) -> Cost {
    // A program that carries its entry has the first of these rounds among its waits.
    let entry = usize::from(schedule.entry() == Entry::Barrier) + usize::from(layout.world() > GROUP);
    let ranks = (0..layout.world()).map(|rank| {
        let program = schedule.program(rank, layout);
        let (rounds, moved) = (entry + rounds(&program.steps), Moved::of(rank, &program.steps));
        let bytes = moved.read.saturating_add(moved.written).saturating_mul(element);
        let seconds = rounds as f64 * machine.alpha + bytes as f64 * machine.beta;
        Cost { rounds, moved, time: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX) }
    });
    let nothing = Cost { rounds: 0, moved: Moved::default(), time: Duration::ZERO };
    ranks.fold(nothing, |most, rank| if rank.time > most.time { rank } else { most })
}

/// Runs of waits: those that follow one another come true together.
fn rounds(steps: &[Step]) -> usize {
    let is_wait = |step: &Step| matches!(step, Step::Wait { .. });
    let runs = (0..steps.len()).filter(|i| is_wait(&steps[*i]) && (*i == 0 || !is_wait(&steps[*i - 1]))).count();
    let loops = steps.iter().map(|step| match step {
        Step::Repeat { segments, body } => segments.saturating_mul(rounds(body)),
        _ => 0,
    });
    loops.fold(runs, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::super::{Access, barrier, direct, one_shot, recursive_doubling, recursive_halving, staged, tree};
    use super::*;

    #[test]
    fn rounds_and_elements_are_those_that_the_algorithms_state() {
        let layout = Layout::uniform(4, 4000);
        let direct = cost(&direct::all_reduce(), &layout, 4, Machine::TYPICAL);
        assert_eq!((direct.rounds, direct.moved.read, direct.moved.written), (2, 4000, 4000));
        let one_shot = cost(&one_shot::all_reduce(), &layout, 4, Machine::TYPICAL);
        assert_eq!((one_shot.rounds, one_shot.moved.read), (1, 4000 + 4 * 4000));
        let staged = cost(&staged::all_reduce(400, 3), &layout, 4, Machine::TYPICAL);
        assert!(staged.rounds >= 10 && staged.time > direct.time, "{staged:?}");
        assert_eq!(super::super::Schedule::access(&staged::all_reduce(400, 3)), Access::Staged);

        let costs = |schedule: &dyn Schedule| {
            let Cost { rounds, moved, .. } = cost(schedule, &layout, 4, Machine::TYPICAL);
            (rounds, moved.read, moved.written)
        };
        assert_eq!(costs(&direct::reduce()), (2, 4000, 1000));
        assert_eq!(costs(&direct::scatter()), (2, 4000, 4000));
        assert_eq!(costs(&direct::all_to_all(4000)), (2, 16_000, 16_000));
        // The inputs, and between them the fold so far, which is written and read again.
        assert_eq!(costs(&direct::scan(1000)), (2, 4000 + 3000, 4000 + 3000));
        assert_eq!(costs(&recursive_doubling::all_reduce(4000)), (3, 4000 + 2 * 8000, 3 * 4000));
        assert_eq!(costs(&recursive_halving::reduce_scatter(16_000)).0, 3);
        // The root, in three rounds and the entry, moves what all contribute.
        assert_eq!(costs(&tree::gather(16_000)), (3, 16_000, 16_000));
    }
    #[test]
    fn an_entry_of_many_is_two_rounds() {
        for (world, rounds) in [(1, 1), (GROUP, 1), (GROUP + 1, 2), (40, 2)] {
            let layout = Layout::uniform(world, 1);
            assert_eq!(cost(&barrier::barrier(), &layout, 4, Machine::TYPICAL).rounds, rounds, "{world} ranks");
            if world > 1 {
                assert_eq!(cost(&one_shot::all_reduce(), &layout, 4, Machine::TYPICAL).rounds, rounds, "{world} ranks");
            }
        }
    }
}
