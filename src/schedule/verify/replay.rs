// SPDX-License-Identifier: MPL-2.0
//! Runs all ranks' programs, call after call, against symbolic memory.
//!
//! Ranks take turns; each goes on until it must wait or its program has ended. Only when no rank can take another step
//! do those that have ended return to their users: nothing in the proof depends on the order (see
//! [`clocks`](super::clocks)), and so a step that comes too late is seen where it stands, and not as a missing result.
//!
//! A user fills its buffers before a call, and checks and takes them back after it. Both are writes of everything, so
//! whatever else may touch a buffer then is a race.

use super::arena::{Arena, Found, Run, Use};
use super::clocks::Clocks;
use super::cursor::Cursor;
use super::declared::Declared;
use super::fault::{Fault, Moment, Site};
use super::results::{self, Expected};
use super::value::{Expression, Expressions, State};
use crate::schedule::{Buffer, Entry, Place, Step};

/// Proves that these schedules, called one after the other by the same ranks, do what they declare. Returns the longest
/// chain of signals and waits in the first call.
pub(super) fn replay(sequence: &[&Declared]) -> Result<u32, Fault> {
    let world = sequence.first().map_or(1, |declared| declared.layout.world());
    if let Some(other) = sequence.iter().find(|declared| declared.layout.world() != world) {
        let sentence = format!("calls of {world} and of {} ranks cannot follow each other", other.layout.world());
        return Err(Fault::Declaration(sentence));
    }
    Replay::new(sequence, world).run()
}

/// Where a rank is in its call.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Before the call.
    Outside,
    /// At its entry.
    Entering,
    /// In its program.
    Running(Cursor),
}

#[derive(Debug, Clone, Copy)]
struct Rank {
    call: usize,
    phase: Phase,
}

/// One call of the sequence.
#[derive(Clone, Copy)]
struct Call<'a> {
    declared: &'a Declared,
    /// What its flags' values count from.
    base: i64,
}

struct Replay<'a> {
    world: usize,
    calls: Vec<Call<'a>>,
    /// What each chunk's fold should be, call by call.
    folds: Vec<Vec<Expression>>,
    ranks: Vec<Rank>,
    clocks: Clocks,
    arena: Arena,
    expressions: Expressions,
}

impl<'a> Replay<'a> {
    fn new(sequence: &[&'a Declared], world: usize) -> Self {
        let mut expressions = Expressions::default();
        let mut base = 0;
        let mut calls = Vec::new();
        let mut folds = Vec::new();
        for (call, &declared) in sequence.iter().enumerate() {
            calls.push(Call { declared, base });
            base += declared.resources.advance as i64;
            folds.push(results::folds(declared, call, &mut expressions));
        }
        let ranks = vec![Rank { call: 0, phase: Phase::Outside }; world];
        let clocks = Clocks::new(world, calls.len());
        Replay { world, calls, folds, ranks, clocks, arena: Arena::new(sequence, world), expressions }
    }

    fn run(mut self) -> Result<u32, Fault> {
        let mut rounds = 0;
        loop {
            let mut progress = false;
            for rank in 0..self.world {
                while self.go_on(rank)? {
                    progress = true;
                }
            }
            if progress {
                continue;
            }
            let ended: Vec<usize> = (0..self.world).filter(|&rank| self.has_ended(rank)).collect();
            for &rank in &ended {
                if self.ranks[rank].call == 0 {
                    rounds = rounds.max(self.clocks.round(rank));
                }
                self.end(rank)?;
            }
            if self.ranks.iter().all(|rank| rank.call == self.calls.len()) {
                return Ok(rounds);
            }
            if ended.is_empty() {
                return Err(self.deadlock());
            }
        }
    }

    fn has_ended(&self, rank: usize) -> bool {
        let Rank { call, phase } = self.ranks[rank];
        matches!(phase, Phase::Running(at) if at.step(&self.calls[call].declared.programs[rank]).is_none())
    }

    /// Takes the rank's next step; false if it must wait, or its program has ended.
    fn go_on(&mut self, rank: usize) -> Result<bool, Fault> {
        let Rank { call: number, phase } = self.ranks[rank];
        let Some(&call) = self.calls.get(number) else { return Ok(false) };
        let program = &call.declared.programs[rank];
        let next = match phase {
            Phase::Outside => {
                self.begin(rank)?;
                match call.declared.entry {
                    Entry::Carries => Phase::Running(Cursor::new(program)),
                    Entry::Barrier => {
                        self.clocks.arrive(rank, number);
                        Phase::Entering
                    }
                }
            }
            Phase::Entering if self.clocks.pass(rank, number) => Phase::Running(Cursor::new(program)),
            Phase::Entering => return Ok(false),
            Phase::Running(mut at) => {
                let Some((step, moment, turn)) = at.step(program) else { return Ok(false) };
                if !self.execute(Site { rank, call: number, moment }, call, step, turn)? {
                    return Ok(false);
                }
                at.advance(program);
                Phase::Running(at)
            }
        };
        self.ranks[rank].phase = next;
        Ok(true)
    }

    /// The user fills the input and makes the call.
    fn begin(&mut self, rank: usize) -> Result<(), Fault> {
        let call = self.ranks[rank].call;
        let declared = self.calls[call].declared;
        let site = Site { rank, call, moment: Moment::Begin };
        let output = self.arena.user(declared, call, rank, Buffer::Output);
        self.arena.scribble(&self.clocks, site, &output)?;
        let input = self.arena.user(declared, call, rank, Buffer::Input);
        let range = 0..declared.layout.input_len(declared.collective, rank);
        let expression = self.expressions.leaf(call, rank);
        let contribution = Run { range, expression, state: State::Contribution, element: 0 };
        self.arena.write(&self.clocks, site, &input, &[contribution])
    }

    /// The user checks the buffers and takes them back.
    fn end(&mut self, rank: usize) -> Result<(), Fault> {
        let call = self.ranks[rank].call;
        let declared = self.calls[call].declared;
        let site = Site { rank, call, moment: Moment::End };
        for expected in results::expected(declared, rank, call, &self.folds[call], &mut self.expressions) {
            self.check(site, &expected)?;
        }
        for buffer in [Buffer::Output, Buffer::Input] {
            let place = self.arena.user(declared, call, rank, buffer);
            self.arena.scribble(&self.clocks, site, &place)?;
        }
        self.ranks[rank] = Rank { call: call + 1, phase: Phase::Outside };
        Ok(())
    }

    fn check(&mut self, site: Site, expected: &Expected) -> Result<(), Fault> {
        let Site { rank, call, .. } = site;
        let whole = self.arena.user(self.calls[call].declared, call, rank, expected.buffer);
        let place = whole.part(&expected.elements);
        for piece in self.arena.inspect(&self.clocks, site, &place)? {
            let elements = place.elements(&(piece.begin..piece.end));
            let element = expected.element + (elements.start - expected.elements.start) as isize;
            let is_right = piece.value.is_some_and(|value| {
                (value.expression, value.state, value.element(piece.begin))
                    == (expected.expression, expected.state, element)
            });
            if !is_right {
                let text = |state, expression, element| self.expressions.value(state, expression, element, call);
                let found = match (piece.value, piece.writer) {
                    (Some(value), Some(writer)) => {
                        let value = text(value.state, value.expression, value.element(piece.begin));
                        format!("{writer} has left {value}")
                    }
                    _ => "nobody has written them".into(),
                };
                let buffer = if expected.buffer == Buffer::Input { "input" } else { "output" };
                let expected = text(expected.state, expected.expression, element);
                return Err(Fault::Wrong { rank, call, buffer, elements, expected, found });
            }
        }
        Ok(())
    }

    /// Takes a step; false if it must wait.
    fn execute(&mut self, site: Site, call: Call<'a>, step: &Step, turn: usize) -> Result<bool, Fault> {
        let value_in_turn = |value: i64, stride: i64| {
            let value = i64::try_from(turn).ok().and_then(|turn| stride.checked_mul(turn)?.checked_add(value));
            value.map_or_else(|| rule(site, "names a flag value beyond 64 bits".into()), Ok)
        };
        match step {
            Step::Copy { from, to, len } => self.copy(site, call.declared, turn, *from, to, *len)?,
            Step::Fold { from, to, len } => self.fold(site, call.declared, turn, from, to, *len)?,
            Step::Signal { flag, to, value, stride } => {
                self.signal(site, call, *flag, to, value_in_turn(*value, *stride)?)?;
            }
            Step::Wait { rank, flag, value, stride } => {
                return self.wait(site, call, *rank, *flag, value_in_turn(*value, *stride)?);
            }
            Step::Repeat { .. } => return rule(site, "is a Repeat within a Repeat; they do not nest".into()),
        }
        Ok(true)
    }

    fn signal(&mut self, site: Site, call: Call, flag: u32, to: &[usize], value: i64) -> Result<(), Fault> {
        let Call { declared, base } = call;
        check_flag(site, declared, flag)?;
        if let Some(rank) = to.iter().find(|&&rank| rank >= self.world) {
            return rule(site, format!("signals to rank {rank}; the ranks are 0 to {}", self.world - 1));
        }
        let advance = declared.resources.advance as i64;
        if !(1..=advance).contains(&value) {
            let allowed = format!("values go from 1 to the declared advance, {advance}");
            return rule(site, format!("raises flag {flag} to {value}; {allowed}"));
        }
        if let Some(has) = self.clocks.value(site.rank, flag).filter(|&has| base + value <= has) {
            return rule(site, format!("raises flag {flag} to {value}, but the flag has {} already", has - base));
        }
        self.clocks.signal(site, flag, to, base + value);
        Ok(())
    }

    fn wait(&mut self, site: Site, call: Call, writer: usize, flag: u32, value: i64) -> Result<bool, Fault> {
        let Call { declared, base } = call;
        check_flag(site, declared, flag)?;
        if writer >= self.world {
            return rule(site, format!("waits for rank {writer}; the ranks are 0 to {}", self.world - 1));
        }
        let advance = declared.resources.advance as i64;
        if value > advance {
            return rule(site, format!("waits for value {value}, but flags advance by {advance} in a call"));
        }
        if value < 1 {
            return Ok(true);
        }
        self.clocks.wait(site, writer, flag, base + value)
    }

    fn copy(
        &mut self,
        site: Site,
        declared: &Declared,
        turn: usize,
        from: Place,
        to: &[Place],
        len: usize,
    ) -> Result<(), Fault> {
        let source = self.arena.find(declared, site, turn, from, len, Use::Read)?;
        let targets = self.targets(site, declared, turn, to, len)?;
        if let Some(partial) = targets.iter().chain([&source]).find(|place| place.holds_accumulators()) {
            return rule(site, format!("copies {}; accumulators are folded, never copied", partial.name()));
        }
        if let Some(target) = targets.iter().find(|target| target.overlaps(&source)) {
            return rule(site, format!("copies part of {} onto itself, as {}", source.name(), target.name()));
        }
        let runs = self.arena.read(&self.clocks, site, &source)?;
        targets.iter().try_for_each(|target| self.arena.write(&self.clocks, site, target, &runs))
    }

    fn fold(
        &mut self,
        site: Site,
        declared: &Declared,
        turn: usize,
        from: &[Place],
        to: &[Place],
        len: usize,
    ) -> Result<(), Fault> {
        if from.is_empty() {
            return rule(site, "folds nothing; a fold has at least one source".into());
        }
        let find = |&place: &Place| self.arena.find(declared, site, turn, place, len, Use::Read);
        let sources = from.iter().map(find).collect::<Result<Vec<Found>, Fault>>()?;
        let targets = self.targets(site, declared, turn, to, len)?;
        for target in &targets {
            if let Some(source) = sources.iter().find(|source| source.overlaps(target) && !source.is_exactly(target)) {
                let (target, source) = (target.name(), source.name());
                return rule(site, format!("stores to {target} over part of its source, {source}"));
            }
        }
        let mut columns = Vec::with_capacity(sources.len());
        for source in &sources {
            let runs = self.arena.read(&self.clocks, site, source)?;
            if let Some(run) = runs.iter().find(|run| run.state == State::Finished) {
                let value = self.expressions.value(run.state, run.expression, run.element, site.call);
                return rule(site, format!("folds {value} in {}, which is finished", source.name()));
            }
            columns.push(runs);
        }
        let mut runs = fold_columns(&mut self.expressions, site, &sources, &columns, len)?;
        for target in &targets {
            let state = if target.holds_accumulators() { State::Partial } else { State::Finished };
            runs.iter_mut().for_each(|run| run.state = state);
            self.arena.write(&self.clocks, site, target, &runs)?;
        }
        Ok(())
    }

    /// The destinations of a step, which must not overlap.
    fn targets(
        &self,
        site: Site,
        declared: &Declared,
        turn: usize,
        to: &[Place],
        len: usize,
    ) -> Result<Vec<Found>, Fault> {
        let mut targets: Vec<Found> = Vec::with_capacity(to.len());
        for &place in to {
            let target = self.arena.find(declared, site, turn, place, len, Use::Write)?;
            if let Some(other) = targets.iter().find(|other| other.overlaps(&target)) {
                return rule(
                    site,
                    format!("stores twice to the same elements, {} and {}", other.name(), target.name()),
                );
            }
            targets.push(target);
        }
        Ok(targets)
    }

    fn deadlock(&self) -> Fault {
        let waiting = |rank: usize| {
            let Rank { call, phase } = self.ranks[rank];
            let program = &self.calls.get(call)?.declared.programs[rank];
            let Phase::Running(at) = phase else { return Some(format!("rank {rank} is at the entry of call {call}")) };
            let (step, moment, turn) = at.step(program)?;
            let site = Site { rank, call, moment };
            match step {
                Step::Wait { rank: writer, flag, value, stride } => {
                    let value = value + stride * turn as i64;
                    let has = self.clocks.value(*writer, *flag).map_or(0, |has| has - self.calls[call].base).max(0);
                    Some(format!("{site} waits for flag {flag} of rank {writer} to reach {value}, and it has {has}"))
                }
                _ => Some(site.to_string()),
            }
        };
        Fault::Deadlock { waiting: (0..self.world).filter_map(waiting).collect() }
    }
}

fn rule<T>(site: Site, rule: String) -> Result<T, Fault> {
    Err(Fault::Rule { site, rule })
}

fn check_flag(site: Site, declared: &Declared, flag: u32) -> Result<(), Fault> {
    match declared.resources.flags {
        flags if flag < flags => Ok(()),
        flags => rule(site, format!("names flag {flag}, but only flags below {flags} are declared")),
    }
}

/// Folds what the sources hold, run by run. All sources must hold the same elements of the message.
fn fold_columns(
    expressions: &mut Expressions,
    site: Site,
    sources: &[Found],
    columns: &[Vec<Run>],
    len: usize,
) -> Result<Vec<Run>, Fault> {
    let mut folded = Vec::new();
    let mut at = vec![0; columns.len()];
    let mut operands = Vec::with_capacity(columns.len());
    let mut begin = 0;
    while begin < len {
        let mut range = begin..len;
        let mut element = 0;
        operands.clear();
        for (index, column) in columns.iter().enumerate() {
            if column[at[index]].range.end == begin {
                at[index] += 1;
            }
            let run = &column[at[index]];
            let own = run.element + (begin - run.range.start) as isize;
            if index == 0 {
                element = own;
            } else if own != element {
                let (first, other) = (sources[0].name(), sources[index].name());
                return rule(site, format!("folds element {element} ({first}) with element {own} ({other})"));
            }
            range.end = range.end.min(run.range.end);
            operands.push(run.expression);
        }
        begin = range.end;
        let expression = expressions.fold(&operands);
        folded.push(Run { range, expression, state: State::Partial, element });
    }
    Ok(folded)
}
