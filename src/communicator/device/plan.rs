// SPDX-License-Identifier: MPL-2.0
//! How a call would be done: by which kernel, in which shape, in how many launches, and why. All of it follows from the
//! call and from what `on` agreed.

use super::DeviceCommunicator;
use super::call::{Algorithm, pieces};
use crate::element::DataType;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::schedule::Collective;

/// Up to how many bytes each rank reads all of a message: beyond, that each folds a part for all takes less time,
/// though it has one more step. A two-shot all-reduce reads and writes about 2 bytes over links for each byte of the
/// message, a one-shot one n - 1.
const ONE_SHOT: usize = 256 << 10;

/// Bytes that kernels move at once.
const LINE: usize = 16;

/// How a call is done.
pub(super) struct Plan {
    pub algorithm: &'static str,
    pub kernel: Kernel,
    /// Bytes of the message that one launch moves at the most: of reduce-scatter and all-gather, of one rank's part.
    pub most: usize,
    /// Whether the call is longer than that, and of several launches.
    pub is_cut: bool,
    pub launches: usize,
    /// Bytes of the longest launch.
    pub longest: usize,
    /// Among how many ranks the bytes of a launch are shared out; 1 where each works through all of them.
    shared: usize,
    pub reason: String,
}

impl Plan {
    /// Bytes that each rank works through in a launch of so many.
    pub fn work_of(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.shared)
    }
}

impl DeviceCommunicator {
    /// How a call of `count` elements, as the call counts them, is done.
    pub(super) fn plan(&self, collective: Collective, data_type: DataType, count: usize) -> Result<Plan> {
        let (world, half) = (self.members.world, self.members.layout.half as usize);
        let rank = self.members.rank;
        let bytes = count.checked_mul(data_type.size()).filter(|bytes| bytes.checked_mul(world).is_some());
        let bytes = bytes.ok_or_else(|| {
            Error::invalid(format!("{collective} on rank {rank}: {count} elements are more than memory holds"))
        })?;
        let whole = |algorithm, kernel, shared, reason: String| Plan {
            algorithm,
            kernel,
            most: bytes,
            is_cut: false,
            launches: 1,
            longest: bytes,
            shared,
            reason,
        };
        let cut = |plan: Plan, most: usize, times: usize| Plan {
            most,
            is_cut: true,
            launches: pieces(bytes, most).len() * times,
            longest: most.min(bytes),
            reason: format!("{}; longer than the {half} bytes that one launch moves", plan.reason),
            ..plan
        };
        Ok(match collective {
            Collective::AllReduce => {
                let (algorithm, reason) = self.all_reduce_by(bytes)?;
                let shared = if matches!(algorithm, Algorithm::TwoShot | Algorithm::Ring) { world } else { 1 };
                let plan = whole(algorithm.name(), algorithm.kernel(data_type), shared, reason);
                // Of a ring the chunks decide on the bits, and its slots take messages of any length.
                if algorithm == Algorithm::Ring || bytes <= half { plan } else { cut(plan, half, 1) }
            }
            Collective::Reduce => {
                let reason = "each rank folds a part, and stores it to the root".into();
                let plan = whole("reduce", Kernel::Reduce(data_type), world, reason);
                if bytes <= half { plan } else { cut(plan, half, 1) }
            }
            Collective::ReduceScatter => {
                let kernel = Kernel::ReduceScatter(data_type);
                let plan = whole("reduce_scatter", kernel, 1, "each rank folds the part that it gets".into());
                if bytes * world <= half { plan } else { cut(plan, half / world / LINE * LINE, 1) }
            }
            Collective::AllGather if bytes * world <= half => {
                whole("all_gather", Kernel::AllGather, 1, "each rank stores its part to all".into())
            }
            Collective::AllGather => {
                let plan =
                    whole("all_gather", Kernel::Broadcast, world, "each rank broadcasts its part in turn".into());
                cut(plan, half, world)
            }
            Collective::Broadcast => {
                let reason = "each rank reads one part from the root, and stores it to all".into();
                let plan = whole("broadcast", Kernel::Broadcast, world, reason);
                if bytes <= half { plan } else { cut(plan, half, 1) }
            }
            Collective::Scatter | Collective::Gather | Collective::AllToAll => {
                let (kernel, reason) = match collective {
                    Collective::Scatter => (Kernel::Scatter, "each rank reads its part from the root"),
                    Collective::Gather => (Kernel::Gather, "the root reads all parts"),
                    _ => (Kernel::AllToAll, "each rank reads one part from each"),
                };
                let plan = whole(collective.name(), kernel, 1, reason.into());
                // Staged parts begin at lines.
                let most = half / world / LINE * LINE;
                if bytes <= most { plan } else { cut(plan, most, 1) }
            }
            Collective::Barrier => whole("barrier", Kernel::Barrier, 1, "entering is all there is to do".into()),
            other => return Err(Error::unsupported(format!("there is no {other} on devices so far"))),
        })
    }

    /// The algorithm of an all-reduce, and why.
    fn all_reduce_by(&self, bytes: usize) -> Result<(Algorithm, String)> {
        let small = self.members.layout.lines as usize * 8;
        Ok(match self.kernel_asked_for() {
            Some(Algorithm::LowLatency) if bytes > small => {
                return Err(Error::invalid(format!(
                    "all_reduce on rank {}: {bytes} bytes cannot go by low_latency, which takes {small} at the most",
                    self.members.rank
                )));
            }
            Some(named) => (named, "it was asked for by name".into()),
            None if bytes <= small => (Algorithm::LowLatency, format!("up to {small} bytes, data carries its flags")),
            None if bytes <= ONE_SHOT => {
                (Algorithm::OneShot, format!("up to {ONE_SHOT} bytes, each rank reads all inputs: one step"))
            }
            None => (Algorithm::TwoShot, "each rank folds a part for all, so that links carry the least".into()),
        })
    }
}
