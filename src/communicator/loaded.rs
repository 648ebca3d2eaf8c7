// SPDX-License-Identifier: MPL-2.0
//! A rank's program made ready to run: bounds checked once, memory laid out in bytes.
//!
//! Everything that depends on the layout and the element type alone is settled here, so that a call only patches
//! pointers and the base of its flags. What is checked here, the executor relies on.

use super::operator::Signature;
use crate::element::{DataType, ReduceOp};
use crate::error::{Error, Result};
use crate::schedule::{Access, Buffer, Collective, Entry, Layout, Place, Program, Resources, Step};
use crate::transport::page::{FLAGS, INLINE};

/// A program and where its shared memory lies in a region (in the payload of entry records, if it carries the entry).
pub(crate) struct Loaded {
    pub name: String,
    /// What it does, of which elements, and with which operation.
    pub collective: Collective,
    pub data_type: DataType,
    pub op: Option<ReduceOp>,
    pub operator: Option<Signature>,
    pub access: Access,
    /// Copies into the rank's own payload, before the entry. Empty unless the program carries the entry.
    pub before: Vec<Step>,
    /// What comes after the entry.
    pub steps: Vec<Step>,
    pub carries: bool,
    pub resources: Resources,
    /// Bytes of one element, and of one accumulator.
    pub element: usize,
    pub accumulator: usize,
    /// Bytes from one slot to the next, and where the first is; likewise partials. Scratch lies at 0.
    pub slot_bytes: usize,
    pub slots_at: usize,
    pub partial_bytes: usize,
    pub partials_at: usize,
    /// Bytes of the region in all.
    pub region: usize,
}

/// Shared memory of different use starts on lines of its own.
const LINE: usize = 128;

/// What a program is loaded for.
pub(crate) struct Target<'a> {
    pub rank: usize,
    pub collective: Collective,
    pub layout: &'a Layout,
    pub data_type: DataType,
    pub op: Option<ReduceOp>,
    pub operator: Option<Signature>,
}

impl Loaded {
    /// Checks and lays out. `region` is how many bytes of shared scratch there are.
    pub fn new(
        name: &str,
        (access, entry): (Access, Entry),
        resources: Resources,
        program: Program,
        target: &Target,
        region: usize,
    ) -> Result<Self> {
        let element = target.data_type.size();
        let accumulator = target.op.map_or(element, |op| target.data_type.accumulator(op).size());
        let too_large = || Error::invalid(format!("the schedule {name} asks for more shared memory than there is"));
        let padded = |count: usize, bytes: usize| {
            count.checked_mul(bytes).and_then(|n| n.checked_next_multiple_of(LINE)).ok_or_else(too_large)
        };
        let depth = resources.depth;
        let scratch_bytes = padded(resources.scratch, element)?;
        let (slot_bytes, partial_bytes) = (padded(resources.slot, element)?, padded(resources.partial, accumulator)?);
        let slots = slot_bytes.checked_mul(depth).ok_or_else(too_large)?;
        let partials = partial_bytes.checked_mul(depth).ok_or_else(too_large)?;
        let total = scratch_bytes.checked_add(slots).and_then(|n| n.checked_add(partials)).ok_or_else(too_large)?;
        let carries = entry == Entry::Carries;
        if carries && resources.slot * element > INLINE {
            return Err(Error::invalid(format!(
                "the schedule {name} carries {} bytes a rank in the entry, which holds {INLINE}; use another algorithm",
                resources.slot * element
            )));
        }
        if !carries && total > region {
            return Err(Error::invalid(format!(
                "the schedule {name} needs {total} bytes of shared memory a rank, and there are {region}"
            )));
        }
        if resources.flags as usize > FLAGS {
            return Err(Error::invalid(format!(
                "the schedule {name} uses {} flags a rank; there are {FLAGS}",
                resources.flags
            )));
        }
        let mut loaded = Loaded {
            name: name.to_owned(),
            collective: target.collective,
            data_type: target.data_type,
            op: target.op,
            operator: target.operator,
            access,
            before: Vec::new(),
            steps: program.steps,
            carries,
            resources,
            element,
            accumulator,
            slot_bytes,
            slots_at: scratch_bytes,
            partial_bytes,
            partials_at: scratch_bytes + slots,
            region: total,
        };
        loaded.check(target)?;
        #[cfg(annulus_corrupt)]
        corrupt(&mut loaded.steps, target.rank);
        if carries {
            loaded.split_entry();
        }
        Ok(loaded)
    }

    /// Separates what comes before the program's own entry (its first signal and the waits after it) from what follows.
    fn split_entry(&mut self) {
        let is_entry = |step: &Step| matches!(step, Step::Signal { .. } | Step::Wait { .. });
        // A rank alone has nobody to signal, and puts nothing into its slot.
        let Some(first) = self.steps.iter().position(is_entry) else { return };
        let mut rest = self.steps.split_off(first);
        self.before =
            std::mem::replace(&mut self.steps, rest.split_off(rest.iter().take_while(|s| is_entry(s)).count()));
    }

    /// Bytes that this rank puts into its entry record.
    pub fn carried(&self) -> usize {
        let copied = |step: &Step| if let Step::Copy { len, .. } = step { len * self.element } else { 0 };
        self.before.iter().map(copied).sum()
    }

    /// Every place of every step, in every turn, lies within its buffer, and names a rank and flag that exist.
    fn check(&self, target: &Target) -> Result<()> {
        for (index, step) in self.steps.iter().enumerate() {
            let sound = match step {
                Step::Repeat { segments, body } => {
                    *segments == 0 || body.iter().all(|step| self.is_sound(step, segments - 1, target))
                }
                step => self.is_sound(step, 0, target),
            };
            if !sound {
                return Err(Error::invalid(format!(
                    "step {index} of rank {}'s program in the schedule {} reaches beyond its buffers",
                    target.rank, self.name
                )));
            }
        }
        Ok(())
    }

    fn is_sound(&self, step: &Step, last: usize, target: &Target) -> bool {
        let world = target.layout.world();
        let reads = |place: &Place, len| self.is_inside(place, len, last, target, Access::Read);
        let writes = |place: &Place, len| self.is_inside(place, len, last, target, Access::Direct);
        match step {
            Step::Copy { from, to, len } => reads(from, *len) && to.iter().all(|to| writes(to, *len)),
            Step::Fold { from, to, len } => {
                !from.is_empty()
                    && (target.op.is_some() || target.operator.is_some())
                    && from.iter().all(|from| reads(from, *len))
                    && to.iter().all(|to| writes(to, *len))
            }
            Step::Signal { flag, .. } => *flag < self.resources.flags,
            Step::Wait { rank, flag, .. } => *rank < world && *flag < self.resources.flags,
            Step::Repeat { .. } => false,
        }
    }

    /// `least` is the access that a peer's own buffer takes.
    fn is_inside(&self, place: &Place, len: usize, last: usize, target: &Target, least: Access) -> bool {
        if place.rank >= target.layout.world() {
            return false;
        }
        let size = match place.buffer {
            Buffer::Input => target.layout.input_len(target.collective, place.rank),
            Buffer::Output => target.layout.output_len(target.collective, place.rank),
            Buffer::Scratch => self.resources.scratch,
            Buffer::Slot(_) if self.resources.depth > 0 => self.resources.slot,
            Buffer::Partial(_) if self.resources.depth > 0 => self.resources.partial,
            Buffer::Slot(_) | Buffer::Partial(_) => return false,
        };
        let private = matches!(place.buffer, Buffer::Input | Buffer::Output);
        let reachable = !private || place.rank == target.rank || self.access <= least;
        let end = place.stride.checked_mul(last).and_then(|n| n.checked_add(place.offset)?.checked_add(len));
        reachable && end.is_some_and(|end| end <= size)
    }
}

/// The negative control: rank 0 runs a program whose last step that moves data does one element too few. A library that
/// took some other way than the program would still get its bits right. Where `ANNULUS_CORRUPT` names a mistake of calls
/// on devices (`device/corrupt.rs`), the host's calls are right.
#[cfg(annulus_corrupt)]
fn corrupt(steps: &mut [Step], rank: usize) {
    fn shorten(step: &mut Step) -> bool {
        match step {
            Step::Copy { len, .. } | Step::Fold { len, .. } if *len > 0 => {
                *len -= 1;
                true
            }
            Step::Repeat { body, .. } => body.iter_mut().rev().any(shorten),
            _ => false,
        }
    }
    if rank == 0 && std::env::var_os("ANNULUS_CORRUPT").is_none() {
        steps.iter_mut().rev().any(shorten);
    }
}
