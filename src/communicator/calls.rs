// SPDX-License-Identifier: MPL-2.0
//! A rank's calls in flight, and how each gets from its entry to its end.
//!
//! Call k uses channel k mod 8. A small call whose peers are there is over *at once* (`at_once`). Every other's life:
//! *begin* posts the entry record; *poll* sees the others' records, *enters* (`entry`: compares descriptors, chooses the
//! program), and executes it piece by piece; *end* stamps it and gives the channel free. Who keeps it from going on is
//! looked for from time to time (`missing`). Whatever goes wrong for all ranks goes through *fail*, which ends every call
//! in flight.

pub(crate) mod at_once;
mod entry;
mod missing;

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::addresses::{Addresses, Run};
use super::completion::Parked;
use super::descriptor::{self, Descriptor};
use super::execute::{Awaited, Cursor, Execution, Lists, Went};
use super::failure::Reporter;
use super::history::History;
use super::operator::Combine;
use super::owed::Owed;
use super::plan::{Chosen, Plans};
use crate::error::{Error, Result};
use crate::record::{Clock, Stamps};
use crate::reduce::Stores;
use crate::schedule::{Layout, Verified};
use crate::transport::groups::{Gathered, Grouped};
use crate::transport::page::{CARRIED, CHANNELS, DESCRIPTOR};
use crate::transport::peers::Peers;
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
    program: Chosen,
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
    /// What this rank's entry record says.
    said: Gathered,
    /// Ranks below this have entered; in a world of groups, as [`Grouped::look`] counts.
    seen: usize,
    /// How often it was found blocked since something was last owed.
    looks: u32,
    /// Whom to wake for what this rank has posted or signalled.
    owed: Owed,
    running: Option<Running>,
    parked: Option<Parked>,
}

/// A call whose entry record is posted.
struct Posted {
    call: u64,
    channel: usize,
    plan: usize,
    said: Gathered,
    owed: Owed,
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
    transport: Peers,
    /// How its ranks enter, where they are many.
    grouped: Option<Grouped>,
    reporter: Arc<Reporter>,
    clock: Clock,
    timeout: Duration,
    next_call: u64,
    /// The plan of the last call.
    last: usize,
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
        let (rank, world) = (transport.rank(), transport.world());
        let channels = (0..CHANNELS).map(|_| ChannelState { addresses: Addresses::of(world), ..Default::default() });
        Calls {
            transport: Peers::of(transport),
            grouped: Grouped::of(rank, world),
            reporter,
            clock: Clock::new(),
            timeout,
            next_call: 0,
            last: 0,
            in_flight: 0,
            failed: None,
            channels: channels.collect(),
            plans: Plans::default(),
            lists: Lists::default(),
            history: History::default(),
        }
    }

    pub fn transport(&self) -> &Arc<dyn Transport> {
        self.transport.transport()
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
        let Some(posted) = self.post(call)? else { return Ok(None) };
        Ok(Some(self.keep(call, posted, parked)))
    }

    /// Posts the entry record of a call on the next channel; `None` if that channel is still in use.
    fn post(&mut self, call: &Call<'_>) -> Result<Option<Posted>> {
        self.check()?;
        let channel = self.next_channel();
        if self.channels[channel].operation.is_some() {
            return Ok(None);
        }
        let idle = self.in_flight == 0;
        let plan = match call.verified {
            Some(verified) => self.plans.find_verified(&call.descriptor, verified, &*self.transport, idle),
            None => self.plans.find(&call.descriptor, call.layout.as_ref(), &*self.transport, idle),
        };
        let plan = match plan {
            // The others may be waiting for this rank already, and learn why it does not come.
            Err(error @ Error::System(_)) => {
                let remedy = "free memory, or use another schedule";
                let error = self.refused(self.next_call, &call.descriptor.words(), &error, remedy);
                return Err(self.fail(error));
            }
            plan => plan.map_err(|error| call.descriptor.refused(self.transport.rank(), error))?,
        };
        let (transport, rank) = (&self.transport, self.transport.rank());
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
        let mut carried = 0;
        if let Some(inline) = known.inline.as_ref().filter(|_| carries()) {
            carried = inline.carried();
            record.expect(carried);
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
                owed: &mut Owed::Nobody,
            };
            execution.before_entry();
        }
        arrival.stamp = if cfg!(annulus_bare) { 0 } else { self.clock.now() };
        record.post(state.epoch, &arrival, &known.words);
        let said = entry::said(known, rank, &arrival);
        let posted = Posted { call: self.next_call, channel, plan, said, owed: Owed::for_entering(self.grouped) };
        self.plans.note_next(std::mem::replace(&mut self.last, plan), carried);
        self.next_call += 1;
        self.in_flight += 1;
        Ok(Some(posted))
    }

    /// Gives a call that has entered its place among those in flight. Returns its channel.
    fn keep(&mut self, call: &Call<'_>, posted: Posted, parked: Option<&mut Option<Parked>>) -> usize {
        let Posted { call: number, channel, plan, said, owed } = posted;
        let parked = parked.and_then(Option::take);
        // Its caller goes on to something else.
        let is_left = parked.is_some();
        self.channels[channel].operation = Some(Operation {
            call: number,
            plan,
            operator: call.operator.clone(),
            input: call.input,
            output: call.output,
            stamps: Stamps { arrived: said.stamp, ..Stamps::default() },
            said,
            seen: 0,
            looks: 0,
            owed,
            running: None,
            parked,
        });
        if is_left {
            self.pay(channel);
        }
        channel
    }

    /// Moves one call on.
    pub fn poll(&mut self, channel: usize) -> Poll {
        let state = &mut self.channels[channel];
        let Some(operation) = state.operation.as_mut() else {
            // It ended while something else was looked at: its result has been put down.
            return Poll::Done(state.finished.take().map_or(Ok(()), |(_, result)| result));
        };
        let transport = &self.transport;
        if operation.running.is_none() {
            if let Some(grouped) = self.grouped {
                if let Err(not_yet) = self.look_at_groups(grouped, channel) {
                    return not_yet;
                }
            } else {
                while operation.seen < transport.world() {
                    let record = transport.channel(operation.seen, channel).record(state.epoch);
                    if !record.has_entered(state.epoch) {
                        let awaited = Awaited::Entry(operation.seen);
                        return self.blocked(channel, awaited);
                    }
                    operation.seen += 1;
                }
            }
            if let Err(ended) = self.enter(channel) {
                return ended;
            }
        }
        let state = &mut self.channels[channel];
        let Some(Operation { call, plan, operator, owed, running: Some(running), .. }) = &mut state.operation else {
            return Poll::Moved;
        };
        let plan = self.plans.get(*plan);
        let Some(loaded) = plan.chosen(running.program) else { return Poll::Moved };
        let mut execution = Execution {
            transport: &self.transport,
            loaded,
            addresses: &state.addresses,
            lists: &mut self.lists,
            fold: plan.fold,
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
                let sentence = Descriptor::sentence(&plan.words);
                let (rank, message) = (self.transport.rank(), self.lists.panic.take().unwrap_or_default());
                let error = format!("call {call}, {sentence}: the operator panicked on rank {rank}: {message}");
                Poll::Done(Err(self.fail(Error::Aborted(error.into()))))
            }
            Went::Refused => {
                let error = self.lists.refused.take();
                let error = error.unwrap_or_else(|| Error::system("moving data", "the system refused"));
                let (call, words) = (*call, plan.words);
                let error = self.refused(call, &words, &error, "set ANNULUS_PULL=0 on all ranks");
                Poll::Done(Err(self.fail(error)))
            }
            Went::Poisoned => Poll::Done(Err(self.fail(Error::Aborted("the communicator failed".into())))),
        }
    }

    /// A call as a user would write it.
    fn sentence(&self, words: &[u64; DESCRIPTOR]) -> String {
        match self.transport.is_pair() {
            true => descriptor::message(words, self.transport.title(0), self.transport.title(1)),
            false => Descriptor::sentence(words),
        }
    }

    /// What all ranks get where the system has refused this one something.
    #[cold]
    fn refused(&self, call: u64, words: &[u64; DESCRIPTOR], error: &Error, remedy: &str) -> Error {
        let (sentence, rank) = (self.sentence(words), self.transport.title(self.transport.rank()));
        Error::System(format!("call {call}, {sentence}: on rank {rank}, {error}; {remedy}").into())
    }

    /// A wait that has not come true, unless the communicator has failed meanwhile.
    fn blocked(&mut self, channel: usize, awaited: Awaited) -> Poll {
        let owes = |operation: &&mut Operation| operation.owed != Owed::Nobody;
        if let Some(operation) = self.channels[channel].operation.as_mut().filter(owes) {
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

    /// Wakes the peers to which that is still owed.
    fn pay(&mut self, channel: usize) {
        let Some(operation) = self.channels[channel].operation.as_mut() else { return };
        operation.looks = 0;
        operation.owed.pay(&self.transport);
    }

    /// Gives the channel free and the outcome to whoever waits for it.
    fn end(&mut self, channel: usize, result: Result<()>) {
        let done = if cfg!(annulus_bare) { 0 } else { self.clock.now() };
        let state = &mut self.channels[channel];
        let Some(operation) = &mut state.operation else { return };
        self.in_flight -= 1;
        operation.stamps.done = done;
        operation.owed.pay(&self.transport);
        let (call, plan, stamps) = (operation.call, operation.plan, operation.stamps);
        let program = operation.running.as_ref().map(|running| running.program);
        match operation.parked.take() {
            Some(Parked { completion, buffers }) => completion.put(result.map(|()| buffers)),
            None => state.finished = Some((call, result)),
        }
        state.operation = None;
        if let Some(program) = program {
            self.remember(call, channel, plan, program, stamps);
        }
    }

    /// What remains of a call that ran, and is over: the flags' new base, and its record. Looks ahead to the next.
    fn remember(&mut self, call: u64, channel: usize, plan: usize, program: Chosen, stamps: Stamps) {
        let plan = self.plans.get(plan);
        if let Some(loaded) = plan.chosen(program) {
            self.channels[channel].base += loaded.resources.advance;
            self.history.push(call, plan.bytes, stamps, loaded);
        }
        let (next, carried) = (self.next_channel(), plan.followed_by);
        self.transport.channel(self.transport.rank(), next).record(self.channels[next].epoch + 1).expect(carried);
    }

    /// Poisons the communicator (unless it is) and ends every call in flight with the failure that all ranks return.
    /// When this returns, no peer can write to the buffers of those calls any more.
    pub fn fail(&mut self, error: Error) -> Error {
        if let Some(first) = &self.failed {
            return first.clone();
        }
        let first = self.reporter.report(error);
        self.failed = Some(first.clone());
        // Inputs are only read, and whoever reads one that its user has back finds the poison set when it has read.
        let outputs = self.channels.iter().filter_map(|state| Some(state.operation.as_ref()?.output));
        let outputs = outputs.filter_map(|run| Some((NonNull::new(run.data)?, run.bytes)));
        self.transport.isolate(&outputs.filter(|(_, bytes)| *bytes > 0).collect::<Vec<_>>());
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
                // The last look may have published or signalled something.
                self.pay(channel);
                let (transport, epoch) = (&self.transport, self.channels[channel].epoch);
                let ready =
                    || awaited.is_there(&**transport, channel, epoch) || transport.root().poisoned_by().is_some();
                transport.page(transport.rank()).sleep(&transport.bed(), LONGEST_SLEEP, ready);
            }
        }
    }

    /// What the calls in flight wait for, for a caller that will sleep: nothing is owed any more. `None` if one of them need
    /// not wait.
    pub fn awaited(&mut self) -> Option<Vec<(usize, u64, Awaited)>> {
        let mut all = Vec::with_capacity(self.in_flight);
        for channel in 0..self.channels.len() {
            if self.channels[channel].operation.is_some() {
                let Poll::Blocked(awaited) = self.poll(channel) else { return None };
                self.pay(channel);
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
}

/// How often a call may be found blocked before its peers are woken.
const PATIENT_LOOKS: u32 = 16;
