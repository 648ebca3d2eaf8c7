// SPDX-License-Identifier: MPL-2.0
//! A rank's calls in flight, and how each gets from its entry to its end.
//!
//! Call k uses channel k mod 8. Its life: *begin* posts the entry record; *poll* sees the others' records, *enters*
//! (compares descriptors, chooses the program), and executes it piece by piece; *end* stamps it and gives the channel
//! free. Whatever goes wrong for all ranks goes through *fail*, which ends every call in flight.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::addresses::{Addresses, Run};
use super::completion::Parked;
use super::descriptor::{self, Descriptor};
use super::execute::{Awaited, Cursor, Execution, Lists, Went, wake_peers};
use super::failure::Reporter;
use super::history::{History, Recorded};
use super::loaded::Loaded;
use super::operator::Combine;
use super::plan::Plans;
use crate::error::{Error, Result};
use crate::record::{Clock, Stamps};
use crate::reduce::Stores;
use crate::schedule::{Access, Layout, Verified};
use crate::transport::page::{CARRIED, CHANNELS};
use crate::transport::waiting::{LONGEST_SLEEP, Next, Patience};
use crate::transport::{Arrival, Transport, is_private};

/// What a rank calls, as the typed face hands it on.
pub(crate) struct Call<'a> {
    /// Which of the engine's lanes it is numbered in.
    pub lane: usize,
    pub descriptor: Descriptor,
    /// Where ranks' counts differ; where they do not, the descriptor says everything.
    pub layout: Option<Layout>,
    pub verified: Option<&'a Verified>,
    /// The function of an operation of one's own.
    pub operator: Option<Combine>,
    pub input: Run,
    pub output: Run,
}

/// The program of a call that all ranks have entered, and where it stands.
struct Running {
    loaded: Arc<Loaded>,
    cursor: Cursor,
    stores: Stores,
}

/// A call in flight.
struct Operation {
    call: u64,
    plan: usize,
    operator: Option<Combine>,
    input: Run,
    output: Run,
    stamps: Stamps,
    /// Ranks below this have entered.
    seen: usize,
    /// How often it was found blocked since something was last owed.
    looks: u32,
    /// Whether peers are still to be woken for what this rank has posted or signalled: see [`Calls::pay`].
    owed: bool,
    running: Option<Running>,
    parked: Option<Parked>,
}

/// One of the eight.
#[derive(Default)]
struct ChannelState {
    /// How many calls have used this channel.
    epoch: u64,
    /// What the values of the current call's flags are relative to.
    base: u64,
    operation: Option<Operation>,
    addresses: Addresses,
    /// The result of a blocking call that others moved on.
    finished: Option<(u64, Result<()>)>,
}

/// All calls of a rank; under the engine's lock.
pub(crate) struct Calls {
    transport: Arc<dyn Transport>,
    reporter: Arc<Reporter>,
    clock: Clock,
    timeout: Duration,
    next_call: u64,
    in_flight: usize,
    failed: Option<Error>,
    channels: Vec<ChannelState>,
    plans: Plans,
    lists: Lists,
    pub history: History,
}

/// What a call still lacks.
pub(crate) enum Poll {
    Done(Result<()>),
    Moved,
    Blocked(Awaited),
}

impl Calls {
    pub fn new(transport: Arc<dyn Transport>, reporter: Arc<Reporter>, timeout: Duration) -> Self {
        let world = transport.world();
        let channels = (0..CHANNELS).map(|_| ChannelState { addresses: Addresses::of(world), ..Default::default() });
        Calls {
            transport,
            reporter,
            clock: Clock::new(),
            timeout,
            next_call: 0,
            in_flight: 0,
            failed: None,
            channels: channels.collect(),
            plans: Plans::default(),
            lists: Lists::default(),
            history: History::default(),
        }
    }

    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// The channel of the next call.
    pub fn next_channel(&self) -> usize {
        (self.next_call % CHANNELS as u64) as usize
    }

    /// Fails if the communicator has.
    fn check(&mut self) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.transport.root().poisoned_by().is_some() {
            return Err(self.fail(Error::Aborted("the communicator failed".into())));
        }
        Ok(())
    }

    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// How many calls are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether a channel's call has not ended.
    pub fn is_busy(&self, channel: usize) -> bool {
        self.channels[channel].operation.is_some()
    }

    /// The result of a blocking call that was moved on with others, once it has ended.
    pub fn finished(&mut self, channel: usize, call: u64) -> Option<Result<()>> {
        let (_, result) = self.channels[channel].finished.take_if(|(number, _)| *number == call)?;
        Some(result)
    }

    /// The number of the next call.
    pub fn upcoming_call(&self) -> u64 {
        self.next_call
    }

    /// Enters a call on the next channel; `None` if that channel is still in use.
    pub fn begin(&mut self, call: &Call<'_>, parked: Option<&mut Option<Parked>>) -> Result<Option<usize>> {
        self.check()?;
        let channel = self.next_channel();
        if self.channels[channel].operation.is_some() {
            return Ok(None);
        }
        let idle = self.in_flight == 0;
        let plan = match call.verified {
            Some(verified) => self.plans.find_verified(&call.descriptor, verified, &*self.transport, idle)?,
            None => self.plans.find(&call.descriptor, call.layout.as_ref(), &*self.transport, idle)?,
        };
        let (transport, rank) = (&*self.transport, self.transport.rank());
        let state = &mut self.channels[channel];
        state.epoch += 1;
        state.finished = None;
        let known = self.plans.get(plan);
        let record = transport.channel(rank, channel).record(state.epoch);
        let mut arrival = Arrival { hash: known.hash, ..Arrival::default() };
        if !known.always_inline {
            arrival.input = transport.name(call.input.data, call.input.bytes);
            arrival.output = transport.name(call.output.data, call.output.bytes);
            arrival.region = known.own.as_ref().map_or(0, |own| own.region);
        }
        let is_private = |run: Run, name: u64| run.bytes > 0 && is_private(name);
        let carries =
            || known.always_inline || is_private(call.input, arrival.input) || is_private(call.output, arrival.output);
        if let Some(inline) = known.inline.as_ref().filter(|_| carries()) {
            arrival.region = CARRIED;
            state.addresses.inputs[rank] = call.input.data;
            state.addresses.regions[rank] = record.payload.0.get().cast();
            let mut execution = Execution {
                transport,
                loaded: inline,
                addresses: &state.addresses,
                lists: &mut self.lists,
                fold: None,
                operator: None,
                channel,
                base: state.base,
                stores: Stores::Cached,
                owed: &mut false,
            };
            execution.before_entry();
        }
        arrival.stamp = if cfg!(annulus_bare) { 0 } else { self.clock.now() };
        record.post(state.epoch, &arrival, &known.words);
        state.operation = Some(Operation {
            call: self.next_call,
            plan,
            operator: call.operator.clone(),
            input: call.input,
            output: call.output,
            stamps: Stamps { arrived: arrival.stamp, ..Stamps::default() },
            seen: 0,
            looks: 0,
            owed: true,
            running: None,
            parked: parked.and_then(Option::take),
        });
        self.next_call += 1;
        self.in_flight += 1;
        if state.operation.as_ref().is_some_and(|operation| operation.parked.is_some()) {
            // Its caller goes on to something else.
            self.pay(channel);
        }
        Ok(Some(channel))
    }

    /// Moves one call on.
    pub fn poll(&mut self, channel: usize) -> Poll {
        let state = &mut self.channels[channel];
        let Some(operation) = state.operation.as_mut() else {
            // It ended while something else was looked at: its result has been put down.
            return Poll::Done(state.finished.take().map_or(Ok(()), |(_, result)| result));
        };
        let transport = &*self.transport;
        if operation.running.is_none() {
            while operation.seen < transport.world() {
                let record = transport.channel(operation.seen, channel).record(state.epoch);
                if !record.has_entered(state.epoch) {
                    let awaited = Awaited::Entry(operation.seen);
                    return self.blocked(channel, awaited);
                }
                operation.seen += 1;
            }
            if let Err(ended) = self.enter(channel) {
                return ended;
            }
        }
        let state = &mut self.channels[channel];
        let Some(Operation { call, plan, operator, owed, running: Some(running), .. }) = &mut state.operation else {
            return Poll::Moved;
        };
        let mut execution = Execution {
            transport: &*self.transport,
            loaded: &running.loaded,
            addresses: &state.addresses,
            lists: &mut self.lists,
            fold: self.plans.get(*plan).fold,
            operator: operator.as_ref(),
            channel,
            base: state.base,
            stores: running.stores,
            owed,
        };
        match execution.go_on(&mut running.cursor) {
            Went::On => Poll::Moved,
            Went::Through => {
                self.end(channel, Ok(()));
                Poll::Done(Ok(()))
            }
            Went::Blocked(awaited) => self.blocked(channel, awaited),
            Went::Panicked => {
                let sentence = Descriptor::sentence(&self.plans.get(*plan).words);
                let (rank, message) = (self.transport.rank(), self.lists.panic.take().unwrap_or_default());
                let error = format!("call {call}, {sentence}: the operator panicked on rank {rank}: {message}");
                Poll::Done(Err(self.fail(Error::Aborted(error.into()))))
            }
            Went::Refused => {
                let error = self.lists.refused.take();
                let error = error.unwrap_or_else(|| Error::system("moving data", "the system refused"));
                Poll::Done(Err(self.fail(error)))
            }
            Went::Poisoned => Poll::Done(Err(self.fail(Error::Aborted("the communicator failed".into())))),
        }
    }

    /// A wait that has not come true, unless the communicator has failed meanwhile.
    fn blocked(&mut self, channel: usize, awaited: Awaited) -> Poll {
        if let Some(operation) = self.channels[channel].operation.as_mut().filter(|operation| operation.owed) {
            operation.looks += 1;
            if operation.looks >= PATIENT_LOOKS {
                self.pay(channel);
            }
        }
        match self.check() {
            Ok(()) => Poll::Blocked(awaited),
            Err(error) => Poll::Done(Err(error)),
        }
    }

    /// Wakes the peers that sleep, if that is still owed to them for what this rank posted or signalled.
    ///
    /// Not at once: the fence that must come first waits until the store has reached the cache, a core-to-core latency
    /// in which this rank could be looking at its peers' words already. A peer that sleeps has posted or signalled
    /// before, so it does not keep this rank from going on; and none is left asleep, since this rank pays after a few
    /// looks in vain, before it moves much data, when the caller turns to something else, and at the call's end.
    fn pay(&mut self, channel: usize) {
        let Some(operation) = self.channels[channel].operation.as_mut() else { return };
        (operation.owed, operation.looks) = (false, 0);
        wake_peers(&*self.transport);
    }

    /// All ranks have entered: compares what they call, and chooses what runs.
    fn enter(&mut self, channel: usize) -> Result<(), Poll> {
        let transport = &*self.transport;
        let (rank, world) = (transport.rank(), transport.world());
        let state = &mut self.channels[channel];
        let Some(operation) = state.operation.as_mut() else { return Err(Poll::Moved) };
        let record = |rank: usize| transport.channel(rank, channel).record(state.epoch);
        let plan = self.plans.get_mut(operation.plan);
        operation.stamps.last_arrived = operation.stamps.arrived;
        operation.stamps.last_rank = rank;
        let mut agreed = true;
        if !cfg!(annulus_bare) {
            for peer in 0..world {
                let arrival = record(peer).arrival();
                agreed &= arrival.hash == plan.hash;
                if arrival.stamp > operation.stamps.last_arrived {
                    (operation.stamps.last_arrived, operation.stamps.last_rank) = (arrival.stamp, peer);
                }
            }
        }
        if !agreed {
            let call = operation.call;
            let descriptors: Vec<_> = (0..world).map(|peer| record(peer).descriptor()).collect();
            let error = self.fail(match self.transport.is_pair() {
                true => descriptor::message_mismatch(call, [transport.title(0), transport.title(1)], &descriptors),
                false => descriptor::mismatch(call, &descriptors),
            });
            return Err(Poll::Done(Err(error)));
        }
        let (buffers, records) = ((operation.input, operation.output), (0..world).map(record));
        let all_carry = || (0..world).all(|peer| record(peer).arrival().region == CARRIED);
        if let Some(inline) = plan.inline.as_ref().filter(|_| plan.always_inline || all_carry()) {
            state.addresses.find_payloads(rank, buffers, records);
            operation.running =
                Some(Running { loaded: inline.clone(), cursor: Cursor::default(), stores: Stores::Cached });
            return Ok(());
        }
        let access = match state.addresses.find(transport, channel, plan, buffers, records) {
            Ok(access) => access,
            Err(error) => return Err(Poll::Done(Err(self.fail(error)))),
        };
        let loaded = match plan.program(access) {
            Ok(loaded) => loaded,
            Err(error) => return Err(Poll::Done(Err(self.fail(error)))),
        };
        if loaded.access < access {
            let does = if loaded.access == Access::Direct { "reads and writes" } else { "reads" };
            let error = Error::unsupported(format!(
                "call {}: the schedule {} {does} peers' buffers, and not all ranks' buffers are allocated by the \
                 communicator; use `Communicator::allocate`",
                operation.call, loaded.name
            ));
            // All ranks come to this, so nobody is left waiting, and the communicator goes on.
            self.end(channel, Err(error.clone()));
            return Err(Poll::Done(Err(error)));
        }
        // Results that exceed what caches keep are stored past them, unless they overwrite what was just read.
        let large = plan.bytes >= STREAMING && !plan.descriptor.in_place && access == Access::Direct;
        let stores = if large { Stores::Streaming } else { Stores::Cached };
        operation.running = Some(Running { loaded, cursor: Cursor::default(), stores });
        Ok(())
    }

    /// Gives the channel free and the outcome to whoever waits for it.
    fn end(&mut self, channel: usize, result: Result<()>) {
        let done = if cfg!(annulus_bare) { 0 } else { self.clock.now() };
        let state = &mut self.channels[channel];
        let Some(operation) = &mut state.operation else { return };
        self.in_flight -= 1;
        operation.stamps.done = done;
        if operation.owed {
            wake_peers(&*self.transport);
        }
        if let Some(Running { loaded, .. }) = operation.running.take() {
            state.base += loaded.resources.advance;
            let plan = self.plans.get(operation.plan);
            let (call, bytes, stamps) = (operation.call, plan.bytes, operation.stamps);
            self.history.push(Recorded { call, bytes, loaded, stamps });
        }
        match operation.parked.take() {
            Some(Parked { completion, buffers }) => completion.put(result.map(|()| buffers)),
            None => state.finished = Some((operation.call, result)),
        }
        state.operation = None;
        let next = self.next_channel();
        self.transport.channel(self.transport.rank(), next).record(self.channels[next].epoch + 1).expect();
    }

    /// Poisons the communicator (unless it is) and ends every call in flight with the failure that all ranks return.
    /// When this returns, no peer can touch the buffers of those calls any more.
    pub fn fail(&mut self, error: Error) -> Error {
        if let Some(first) = &self.failed {
            return first.clone();
        }
        let first = self.reporter.report(error);
        self.failed = Some(first.clone());
        let mut buffers = Vec::new();
        for operation in self.channels.iter().filter_map(|state| state.operation.as_ref()) {
            for run in [operation.input, operation.output] {
                if let Some(data) = std::ptr::NonNull::new(run.data).filter(|_| run.bytes > 0) {
                    buffers.push((data, run.bytes));
                }
            }
        }
        self.transport.isolate(&buffers);
        for channel in 0..self.channels.len() {
            if self.channels[channel].operation.is_some() {
                self.end(channel, Err(first.clone()));
            }
        }
        first
    }

    /// Moves every call on by a piece. True if any moved.
    pub fn poll_all(&mut self) -> bool {
        let mut moved = false;
        for channel in 0..self.channels.len() {
            if self.channels[channel].operation.is_some() {
                moved |= !matches!(self.poll(channel), Poll::Blocked(_));
            }
        }
        moved
    }

    /// Waits a little for the only call in flight, with the lock held.
    pub fn pause(&mut self, patience: &mut Patience, channel: usize, awaited: Awaited) {
        match patience.next() {
            Next::Spin => {}
            Next::Yield => crate::sync::yield_now(),
            Next::Sleep => {
                if self.look_after(channel).is_err() {
                    return;
                }
                let (transport, epoch) = (&*self.transport, self.channels[channel].epoch);
                let ready = || awaited.is_there(transport, channel, epoch) || transport.root().poisoned_by().is_some();
                transport.page(transport.rank()).sleep(&transport.bed(), LONGEST_SLEEP, ready);
            }
        }
    }

    /// What the calls in flight wait for; `None` if one of them need not wait.
    pub fn awaited(&mut self) -> Option<Vec<(usize, u64, Awaited)>> {
        let mut all = Vec::with_capacity(self.in_flight);
        for channel in 0..self.channels.len() {
            if self.channels[channel].operation.is_some() {
                let Poll::Blocked(awaited) = self.poll(channel) else { return None };
                all.push((channel, self.channels[channel].epoch, awaited));
            }
        }
        Some(all)
    }

    pub fn look_after_all(&mut self) {
        for channel in 0..self.channels.len() {
            if self.channels[channel].operation.is_some() && self.look_after(channel).is_err() {
                return;
            }
        }
    }

    /// Whether the ranks that a call waits for are alive, and its deadline ahead; else fails.
    fn look_after(&mut self, channel: usize) -> Result<()> {
        let missing = self.missing(channel);
        let gone = missing.iter().find_map(|rank| Some((*rank, self.transport.gone(*rank)?)));
        let Some(operation) = self.channels[channel].operation.as_ref() else { return Ok(()) };
        let waited = match cfg!(annulus_bare) {
            true => Duration::ZERO, // the bare build takes no stamps, and so has no deadline
            false => Instant::now() - self.instant(operation.stamps.arrived),
        };
        if gone.is_none() && waited < self.timeout {
            return Ok(());
        }
        let plan = self.plans.get(operation.plan);
        let transport = self.transport.clone();
        let title = |rank: usize| transport.title(rank);
        let sentence = match transport.is_pair() {
            true => descriptor::message(&plan.words, title(0), title(1)),
            false => Descriptor::sentence(&plan.words),
        };
        let (call, own) = (operation.call, title(transport.rank()));
        let phase = if operation.running.is_some() { "to do its part" } else { "to enter" };
        // What it did before it went may have arrived since: a death counts only if the awaited thing is still missing.
        let still = self.missing(channel);
        let error = match gone.filter(|(rank, _)| still.contains(rank)) {
            Some((rank, cause)) => Error::RankLost {
                rank: title(rank),
                cause,
                context: format!("rank {own} waited for it {phase} in call {call}, {sentence}").into(),
            },
            None if waited >= self.timeout && !still.is_empty() => {
                let late: Vec<usize> = self.at_fault(channel, &still).into_iter().map(title).collect();
                let (ranks, them) = if late.len() == 1 { ("rank", "it") } else { ("ranks", "them") };
                Error::Timeout {
                    context: format!(
                        "call {call}, {sentence}: rank {own} waited {:.3} s for {ranks} {} {phase}; see what keeps \
                         {them}, or raise ANNULUS_TIMEOUT",
                        self.timeout.as_secs_f64(),
                        descriptor::list(&late),
                    )
                    .into(),
                    missing: late,
                }
            }
            None => return Ok(()),
        };
        Err(self.fail(error))
    }

    /// The ranks without which a call cannot go on.
    fn missing(&mut self, channel: usize) -> Vec<usize> {
        let Poll::Blocked(awaited) = self.poll(channel) else { return Vec::new() };
        let (transport, epoch) = (&*self.transport, self.channels[channel].epoch);
        match awaited {
            Awaited::Flag { rank, flag, value } => {
                transport.channel(transport.rank(), channel).note_awaited(rank, flag, value);
                vec![rank]
            }
            Awaited::End(rank) => vec![rank],
            Awaited::Entry(_) => (0..transport.world())
                .filter(|rank| !Awaited::Entry(*rank).is_there(transport, channel, epoch))
                .collect(),
        }
    }

    /// Who keeps the ranks `missing`, and through them this one: a rank that waits for another is not late itself.
    fn at_fault(&self, channel: usize, missing: &[usize]) -> Vec<usize> {
        let transport = &*self.transport;
        let keeper = |rank: usize| {
            let (next, flag, value) = transport.channel(rank, channel).noted_awaited();
            let waits = next < transport.world() && !transport.channel(next, channel).has_reached_noted(flag, value);
            waits.then_some(next)
        };
        // No verified program has ranks that wait for one another; whatever the pages say, this comes to an end.
        let last = |rank: &usize| {
            let chain = std::iter::successors(Some(*rank), |rank| keeper(*rank));
            chain.take(transport.world()).last().unwrap_or(*rank)
        };
        let mut late: Vec<usize> = missing.iter().map(last).collect();
        late.sort_unstable();
        late.dedup();
        late
    }

    /// When a stamp was taken.
    fn instant(&self, ticks: u64) -> Instant {
        let ago = self.clock.duration(self.clock.now().saturating_sub(ticks));
        Instant::now().checked_sub(ago).unwrap_or_else(Instant::now)
    }
}

/// How often a call may be found blocked before its peers are woken.
const PATIENT_LOOKS: u32 = 16;

/// From how many bytes on results are stored past the caches.
const STREAMING: usize = 4 << 20;
