// SPDX-License-Identifier: MPL-2.0
//! What a rank calls, as ranks compare it: the words of a descriptor, whose hash kernels exchange.
//!
//! Each launch carries them, so they are the call's also where a graph replays it, and leaves them in the rank's pad
//! for hosts to read. Those of a call that has failed stay there (`kernels/pad.h`).

use std::mem::offset_of;

use bytemuck::AnyBitPattern;

use super::super::descriptor::{Descriptor, hash};
use super::join::Members;
use super::schedule;
use crate::kernel::{Called, Pad, RANKS, WORDS};
use crate::transport::page::DESCRIPTOR;

/// The words of a call: those of the host's descriptor that calls on devices use, and how it is done: 0, or 1 and the
/// place of the kernel that was asked for, or what `schedule` has to say.
pub(super) fn words(descriptor: &Descriptor, how: u64) -> [u64; WORDS] {
    let own = descriptor.words();
    let mut words = [0; WORDS];
    words[..WORDS - 1].copy_from_slice(&own[..WORDS - 1]);
    words[WORDS - 1] = how;
    words
}

/// The call as a user would write it.
pub(super) fn sentence(words: &[u64; WORDS]) -> String {
    let mut own = [0; DESCRIPTOR];
    own[..WORDS - 1].copy_from_slice(&words[..WORDS - 1]);
    Descriptor::sentence(&own) + &schedule::said(words[WORDS - 1])
}

impl Members {
    /// The call that a rank is in, or that has failed on it; `None` where it has made none, or is just about to say.
    pub fn called(&self, rank: usize) -> Option<Called> {
        let called: Called = self.pad(rank, offset_of!(Pad, called))?;
        (hash(called.word) == called.hash).then_some(called)
    }

    /// How many threads of a rank's kernels wait for each rank, and have for a while, or did when their call failed.
    pub fn awaited(&self, rank: usize) -> [u32; RANKS] {
        self.pad(rank, offset_of!(Pad, awaited)).unwrap_or_default()
    }

    /// What is in a rank's pad from that byte on.
    pub fn pad<T: AnyBitPattern>(&self, rank: usize, first: usize) -> Option<T> {
        let words = self.arenas[rank].part(first..first + size_of::<T>()).ok()?;
        let stream = match words.is_hosted() || words.device() == self.device {
            true => self.stream.clone(),
            // Of a thread with another device.
            false => words.device().urgent_stream().ok()?,
        };
        Some(bytemuck::pod_read_unaligned(&stream.read(&words).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::Algorithm;
    use super::*;
    use crate::element::{DataType, ReduceOp};
    use crate::schedule::Collective;

    #[test]
    fn words_say_all_that_a_call_on_a_device_is() {
        let descriptor = Descriptor {
            collective: Collective::AllReduce,
            data_type: DataType::F16,
            op: Some(ReduceOp::PreMulSum(0.5.into())),
            operator: None,
            count: 17,
            root: 0,
            in_place: true,
            algorithm: 0,
            program: 0,
            is_varying: false,
        };
        let expected = "all_reduce_in_place(f16, 17, PreMulSum(";
        assert!(sentence(&words(&descriptor, 0)).starts_with(expected));
        let ring = sentence(&words(&descriptor, Algorithm::Ring as u64 + 1));
        assert!(ring.starts_with(expected) && ring.ends_with(" by algorithm ring"), "{ring}");
        let broadcast = Descriptor { collective: Collective::Broadcast, op: None, root: 3, ..descriptor };
        assert_eq!(sentence(&words(&broadcast, 0)), "broadcast_in_place(f16, 17, root 3)");
    }
}
