// SPDX-License-Identifier: MPL-2.0
//! What a call on devices would run, and why, without making it.

use std::fmt;

use super::super::descriptor::Descriptor;
use super::super::explain::Question;
use super::DeviceCommunicator;
use super::operations::{Operation, operations};
use super::plan::Plan;
use super::schedule::Path;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::kernel::{ALWAYS_STAGED, Kernel, Shape};
use crate::schedule::cost::Moved;
use crate::schedule::{Access, Buffer, Collective, Place};

/// How a call on devices would be done: [`DeviceCommunicator::explain`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceExplanation {
    /// The algorithm, by the name by which [`last_call`](DeviceCommunicator::last_call) has it.
    pub algorithm: String,
    /// The kernel; `None` of a schedule, which is done by several.
    pub kernel: Option<Kernel>,
    /// The shape of the longest launch; of a kernel, the same on all ranks.
    pub shape: Shape,
    /// How many launches there are: of a schedule, its entry, its folds, and those that signal and wait.
    pub launches: usize,
    /// How many copies of the driver.
    pub copies: usize,
    /// Whether this rank's data passes through memory of the communicator's own.
    pub staged: bool,
    /// Why this kernel, and so many launches; of a schedule, what this rank moves.
    pub reason: String,
    /// Why it is staged or not.
    pub path: &'static str,
}

impl fmt::Display for DeviceExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeviceExplanation { algorithm, kernel, shape, launches, copies, reason, path, .. } = self;
        let (blocks, threads) = (shape.blocks, shape.threads);
        let count = |number: usize, one: &str, more: &str| format!("{number} {}", if number == 1 { one } else { more });
        let launches = count(*launches, "launch", "launches");
        match kernel {
            Some(kernel) => {
                writeln!(f, "{algorithm} (kernel {kernel}): {reason}")?;
                write!(f, "{launches} of up to {blocks} blocks of {threads} threads on each rank; {path}")
            }
            None => {
                let copies = count(*copies, "copy", "copies");
                writeln!(f, "{algorithm} (schedule): {reason}")?;
                write!(f, "{launches} of up to {blocks} blocks of {threads} threads and {copies} on this rank; {path}")
            }
        }
    }
}

/// Where buffers of ranks whose devices do not reach each other go.
const HOSTED: &str = "staged through memory of the host: some ranks' devices do not reach each other's memory";

impl DeviceCommunicator {
    /// How a call would be done: by which kernel or schedule, in which shape, in how many launches, staged or not, and
    /// why. Of the question, `allocated` says whether this rank's buffers are of [`allocate`](Self::allocate) or
    /// [registered](Self::register). Of a broadcast, rank 0 is the root. Local.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the algorithm that was set cannot do it, or the operation does not apply to the type;
    /// `Unsupported` of collectives that devices do not have.
    pub fn explain(&self, question: &Question) -> Result<DeviceExplanation> {
        let Question { collective, data_type, op, count, in_place, allocated } = *question;
        op.map_or(Ok(()), |op| op.check(data_type))?;
        if !Self::COLLECTIVES.contains(&collective) {
            return Err(Error::unsupported(format!("there is no {collective} on devices so far")));
        }
        if let Some(Path::Schedule(number)) = self.path.get() {
            return self.explain_schedule(question, number);
        }
        let plan = self.plan(collective, data_type, count)?;
        let (staged, path) = match plan.kernel {
            Kernel::Barrier => (false, "nothing is moved"),
            Kernel::LowLatency(_) => (true, "what is sent goes as packets with flags in them, wherever buffers are"),
            Kernel::Ring(_) => (true, "what is sent goes through slots of the next rank, wherever buffers are"),
            Kernel::ReduceScatter(_) if plan.is_cut => (true, "parts are packed where peers see them"),
            Kernel::OneShot(_) | Kernel::AllToAll if in_place => {
                (true, "staged: in place, peers would read what is overwritten")
            }
            Kernel::OneShot(_) if plan.longest <= ALWAYS_STAGED => {
                (true, "staged: so short a message is copied sooner than ranks wait for one another once more")
            }
            _ if self.members.hosted => (true, HOSTED),
            _ if allocated => (false, "zero-copy: peers see the buffers where they lie"),
            _ => {
                (true, "staged: the kernel copies plain buffers; DeviceCommunicator::allocate or register avoids that")
            }
        };
        let Plan { algorithm, kernel, launches, .. } = plan;
        let shape = self.members.room.shape(kernel, plan.work_of(plan.longest));
        let (algorithm, kernel, reason) = (algorithm.to_owned(), Some(kernel), plan.reason);
        Ok(DeviceExplanation { algorithm, kernel, shape, launches, copies: 0, staged, reason, path })
    }

    /// How a message of `count` elements of a type would be sent, by itself: as [`explain`](Self::explain), where
    /// `allocated` is of the sender's buffer; where the receiver's is does not matter. Local.
    pub fn explain_message<T: Element>(&self, count: usize, allocated: bool) -> DeviceExplanation {
        let (bytes, hosted) = (count.saturating_mul(size_of::<T>()), self.members.hosted);
        if self.by_schedule() {
            let pieces = self.pieces(bytes);
            return DeviceExplanation {
                algorithm: Kernel::Relay.to_string(),
                kernel: None,
                shape: self.members.room.shape(Kernel::Relay, 0),
                launches: pieces,
                copies: if bytes == 0 { 0 } else { pieces },
                staged: true,
                reason: "an algorithm was asked for that is a schedule; the receiver has one launch more, before all \
                         others"
                    .into(),
                path: if hosted { HOSTED } else { "staged: the receiver could not tell where the sender's buffer is" },
            };
        }
        let staged = !allocated || hosted;
        DeviceExplanation {
            algorithm: Kernel::Messages.to_string(),
            kernel: Some(Kernel::Messages),
            shape: self.message_shape(bytes),
            launches: 1,
            copies: 0,
            staged,
            reason: match staged {
                true => "the sender copies pieces into slots, and the receiver reads them there".into(),
                false => "the receiver reads what is sent where it lies".into(),
            },
            path: match staged {
                true if hosted => HOSTED,
                true => "staged: the sender's buffer is plain; DeviceCommunicator::allocate or register avoids that",
                false => "zero-copy: the receiver sees the sender's buffer where it lies",
            },
        }
    }

    fn explain_schedule(&self, question: &Question, number: u32) -> Result<DeviceExplanation> {
        let Question { collective, data_type, op, count, in_place, allocated } = *question;
        let members = &self.members;
        let holds = members.device.capabilities().memory;
        let bytes = count.checked_mul(data_type.size()).and_then(|bytes| bytes.checked_mul(members.world));
        if bytes.is_none_or(|bytes| bytes as u64 > holds.saturating_mul(members.world as u64)) {
            return Err(Error::invalid(format!(
                "{collective} on rank {}: {count} elements are more than the {holds} bytes of {}",
                members.rank, members.device
            )));
        }
        let descriptor = Descriptor {
            collective,
            data_type,
            op,
            operator: None,
            count,
            root: 0,
            in_place,
            algorithm: number,
            program: 0,
            is_varying: false,
        };
        let layout = self.layout(&descriptor);
        let is_known = in_place || !collective.has_root() || collective == Collective::Broadcast;
        let is_direct = allocated && !members.hosted && count > 0 && is_known;
        let access = if is_direct { Access::Direct } else { Access::Staged };
        let loaded = self.load_built_in(&descriptor, &layout, access)?;
        let mut explained = DeviceExplanation {
            algorithm: loaded.name.clone(),
            kernel: None,
            shape: members.room.shape(Kernel::Flags, 0),
            // The entry, and the launch that ends the call.
            launches: 2,
            copies: 0,
            staged: loaded.access == Access::Staged && collective != Collective::Barrier,
            reason: format!("it was asked for by name; this rank {}", Moved::of(members.rank, &loaded.steps)),
            path: match loaded.access {
                _ if collective == Collective::Barrier => "nothing is moved",
                Access::Staged if members.hosted => HOSTED,
                Access::Staged if allocated && !is_known => {
                    "staged: ranks other than the root cannot tell where its buffer is"
                }
                Access::Staged if allocated => "staged: it is so made, wherever buffers are",
                Access::Staged => {
                    "staged through shared memory; DeviceCommunicator::allocate or register on all ranks may avoid that"
                }
                _ => "zero-copy: peers see the buffers where they lie, at the same place on all ranks",
            },
        };
        let is_shared = |place: &Place| !matches!(place.buffer, Buffer::Input | Buffer::Output);
        operations(&loaded, |operation| {
            match operation {
                Operation::Flags(_) => explained.launches += 1,
                Operation::Fold { len, .. } => {
                    explained.launches += 1;
                    let fold = Kernel::Fold(loaded.data_type);
                    let shape = members.room.shape(fold, len * loaded.element);
                    if shape.blocks >= explained.shape.blocks {
                        explained.shape = shape;
                    }
                }
                Operation::Copy { from, to, .. } => {
                    let hops = |to| if members.hosted && is_shared(from) && is_shared(to) { 2 } else { 1 };
                    explained.copies += to.iter().map(hops).sum::<usize>();
                }
            }
            Ok(())
        })?;
        Ok(explained)
    }
}
