// SPDX-License-Identifier: MPL-2.0
//! Who has seen what: vector clocks over signals, waits and entries.
//!
//! Every rank counts its own time, which passes with each of its signals, and keeps for each other rank the latest time
//! that it knows to be over there. An access of rank w at time t happens before what rank r does now if r's clock shows
//! at least t for w. A signal carries its rank's clock; a wait that passes takes the larger of both clocks, rank by rank.
//!
//! # One run tells of all runs
//!
//! The simulation takes one order of steps among many. It is enough, because happens-before is the same in every one:
//!
//! 1. A program has no branches, so each rank makes the same signals in the same order in every run. A flag has one
//!    writer and only grows; hence its sequence of values, and the clock that goes with each, are the same in every run,
//!    if what each of its writer's waits has taken is (which is claim 3, for earlier steps).
//! 2. A wait for a value v passes, in whichever run, only when the flag shows the first value that is at least v or a
//!    later one. Later ones come after the first in their writer's own order and so bring at least its clock. Hence every
//!    run brings at least the clock of the first signal with a value of at least v; a run in which the waiter looks just
//!    after that signal brings no more; and this clock is what [`Clocks::wait`] takes.
//! 3. By induction over the steps, every rank's clock at every step is thus the same in every run.
//!
//! Flags never fall, so a wait that could pass can still pass later: taking some other rank's step first disables
//! nothing. All orders therefore execute the same set of steps, and if one gets stuck, each does.

use std::collections::BTreeMap;

use super::fault::{Fault, Site};
use super::memory::Event;

/// What one rank has seen.
#[derive(Debug, Clone)]
struct View {
    times: Box<[u32]>,
    /// The longest chain of signals and waits so far.
    round: u32,
}

impl View {
    /// Sees what `other` has seen, `rounds` later than it.
    fn take(&mut self, other: &View, rounds: u32) {
        for (mine, theirs) in self.times.iter_mut().zip(&other.times) {
            *mine = (*mine).max(*theirs);
        }
        self.round = self.round.max(other.round + rounds);
    }
}

/// A value that a flag took.
struct Raised {
    value: i64,
    site: Site,
    to: Box<[usize]>,
    view: View,
}

/// The entry of one call.
struct Gate {
    arrived: usize,
    view: View,
}

/// The clocks of all ranks, the history of their flags, and the calls' entries.
pub(super) struct Clocks {
    ranks: Vec<View>,
    /// Of each rank, each flag that it has raised.
    flags: Vec<BTreeMap<u32, Vec<Raised>>>,
    gates: Vec<Gate>,
}

impl Clocks {
    pub(super) fn new(world: usize, calls: usize) -> Self {
        let blank = View { times: vec![0; world].into(), round: 0 };
        let mut ranks = vec![blank.clone(); world];
        for (rank, view) in ranks.iter_mut().enumerate() {
            view.times[rank] = 1;
        }
        let gates = (0..calls).map(|_| Gate { arrived: 0, view: blank.clone() }).collect();
        Clocks { ranks, flags: (0..world).map(|_| BTreeMap::new()).collect(), gates }
    }

    /// What `rank` has seen of each rank.
    pub(super) fn times(&self, rank: usize) -> &[u32] {
        &self.ranks[rank].times
    }

    /// An access at `site`, now.
    pub(super) fn event(&self, site: Site) -> Event {
        Event { site, time: self.ranks[site.rank].times[site.rank] }
    }

    /// The longest chain of signals and waits that has led to where `rank` is.
    pub(super) fn round(&self, rank: usize) -> u32 {
        self.ranks[rank].round
    }

    /// The value the rank's flag has now, if it was ever raised.
    pub(super) fn value(&self, rank: usize, flag: u32) -> Option<i64> {
        self.flags[rank].get(&flag).and_then(|history| history.last()).map(|raised| raised.value)
    }

    /// Raises a flag of the site's rank to `value`, which is more than it has.
    pub(super) fn signal(&mut self, site: Site, flag: u32, to: &[usize], value: i64) {
        let view = self.ranks[site.rank].clone();
        self.ranks[site.rank].times[site.rank] += 1;
        self.flags[site.rank].entry(flag).or_default().push(Raised { value, site, to: to.into(), view });
    }

    /// Waits at `site` until the flag has at least `value`; false if it has not yet.
    pub(super) fn wait(&mut self, site: Site, writer: usize, flag: u32, value: i64) -> Result<bool, Fault> {
        let Some(history) = self.flags[writer].get(&flag) else { return Ok(false) };
        let first = history.partition_point(|raised| raised.value < value);
        let Some(raised) = history.get(first) else { return Ok(false) };
        if !raised.to.contains(&site.rank) {
            let rule = format!("waits for flag {flag} of rank {writer}, but {} does not signal to it", raised.site);
            return Err(Fault::Rule { site, rule });
        }
        self.ranks[site.rank].take(&raised.view, 1);
        Ok(true)
    }

    /// `rank` reaches the entry of `call`.
    pub(super) fn arrive(&mut self, rank: usize, call: usize) {
        let gate = &mut self.gates[call];
        gate.view.take(&self.ranks[rank], 0);
        gate.arrived += 1;
        self.ranks[rank].times[rank] += 1;
    }

    /// `rank` passes the entry of `call`; false if some rank has not reached it yet.
    pub(super) fn pass(&mut self, rank: usize, call: usize) -> bool {
        let gate = &self.gates[call];
        if gate.arrived < self.ranks.len() {
            return false;
        }
        self.ranks[rank].take(&gate.view, 1);
        true
    }
}
