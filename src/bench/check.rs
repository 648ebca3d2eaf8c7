// SPDX-License-Identifier: MPL-2.0
//! What is wrong with a sweep, before any rank begins with it.

use std::borrow::Borrow;

use super::on_device::absent;
use super::{Modes, Sweep};
use crate::communicator::DeviceCommunicator;
use crate::element::ReduceOp;
use crate::error::{Error, Result};
use crate::schedule::{self, Layout, select};
use crate::transport::page::INLINE;

impl Sweep {
    /// What is wrong with it for this many ranks, if anything is. [`Sweep::run`] asks this first; whoever starts ranks
    /// for a sweep may ask before.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, one sentence.
    pub fn check(&self, ranks: usize) -> Result<()> {
        let Sweep { subject, end, .. } = *self;
        self.check_algorithm(&subject.collective().map_or_else(Vec::new, schedule::names))?;
        if subject.is_scan() && self.op == ReduceOp::Avg {
            return Err(Error::invalid(format!("{subject} has no average: ask for another operation")));
        }
        self.check_sizes()?;
        let carried = self.input_bytes(ranks);
        let limit = subject.collective().map_or(0, |collective| select::carried(collective, ranks, INLINE));
        if self.algorithm.as_deref() == Some("one_shot") && carried > limit {
            return Err(Error::invalid(format!(
                "the algorithm one_shot carries at most {limit} bytes a rank, and at the end, {end} bytes, there are \
                 {carried}: end earlier"
            )));
        }
        self.check_memory(ranks)
    }

    /// What is wrong with it for this many ranks on devices, if anything is; [`Sweep::run_on`] asks this first.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, one sentence.
    pub fn check_on_devices(&self, ranks: usize) -> Result<()> {
        let Sweep { subject, end, .. } = *self;
        if let Some(collective) = subject.collective().filter(|own| !DeviceCommunicator::COLLECTIVES.contains(own)) {
            return Err(absent(collective));
        }
        self.check_algorithm(&subject.collective().map_or_else(Vec::new, DeviceCommunicator::algorithms))?;
        self.check_sizes()?;
        let most = DeviceCommunicator::LOW_LATENCY;
        if self.algorithm.as_deref() == Some("low_latency") && end > most {
            return Err(Error::invalid(format!(
                "the algorithm low_latency takes at most {most} bytes, and the end is {end} bytes: end earlier"
            )));
        }
        let carried = self.input_bytes(ranks);
        let most = DeviceCommunicator::SCHEDULE_MEMORY / 2;
        let limit = subject.collective().map_or(0, |collective| select::carried(collective, ranks, most));
        if self.algorithm.as_deref() == Some("schedule:one_shot") && carried > limit {
            return Err(Error::invalid(format!(
                "the algorithm schedule:one_shot carries at most {limit} bytes a rank, and at the end, {end} bytes, \
                 there are {carried}: end earlier"
            )));
        }
        self.check_memory(ranks)
    }

    /// Bytes that rank 0 passes at the end.
    fn input_bytes(&self, ranks: usize) -> usize {
        let layout = Layout::uniform(ranks, self.count(self.end, ranks));
        self.subject.input_len(&layout, 0) * self.data_type.size()
    }

    fn check_algorithm(&self, names: &[impl Borrow<str>]) -> Result<()> {
        let subject = self.subject;
        if let Some(name) = self.algorithm.as_deref().filter(|name| !names.iter().any(|own| own.borrow() == *name)) {
            let those = if names.is_empty() { "auto alone".into() } else { format!("auto, {}", names.join(", ")) };
            return Err(Error::invalid(format!("there is no algorithm {name} for {subject}; there is {those}")));
        }
        if subject.folds() {
            self.op.check(self.data_type)?;
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<()> {
        let Sweep { subject, begin, end, factor, .. } = *self;
        if begin == 0 || begin > end {
            return Err(Error::invalid(format!(
                "sizes begin at {begin} bytes and end at {end}: begin at 1 or more, and not beyond the end"
            )));
        }
        if factor < 2 {
            return Err(Error::invalid(format!("a factor of {factor} reaches no other size: give 2 or more")));
        }
        if self.iterations == Some(0) {
            return Err(Error::invalid("0 iterations have no median: give 1 or more"));
        }
        if !subject.has_in_place() && self.modes == Modes::InPlace {
            return Err(Error::invalid(format!("{subject} has no form in place: ask for none")));
        }
        Ok(())
    }

    fn check_memory(&self, ranks: usize) -> Result<()> {
        let Sweep { subject, end, .. } = *self;
        let needed = end.saturating_mul(2 * self.sets()).saturating_mul(ranks);
        match total_memory().filter(|_| !subject.is_barrier()) {
            Some(total) if needed > total => Err(Error::invalid(format!(
                "sizes up to {end} bytes on {ranks} ranks need {} MiB of buffers, and this machine has {} MiB: end \
                 earlier",
                needed >> 20,
                total >> 20
            ))),
            _ => Ok(()),
        }
    }
}

/// Bytes of memory that this machine has.
#[cfg(target_os = "linux")]
fn total_memory() -> Option<usize> {
    let info = rustix::system::sysinfo();
    usize::try_from(info.totalram).ok()?.checked_mul(info.mem_unit as usize)
}

/// Not known without a system call of its own.
#[cfg(not(target_os = "linux"))]
fn total_memory() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::super::Subject;
    use super::*;
    use crate::schedule::Collective;

    #[test]
    fn what_cannot_be_measured_is_a_sentence() {
        type Change = fn(&mut Sweep);
        let wrong: [(Change, &str); 10] = [
            (|sweep| sweep.begin = 0, "begin at 0 bytes"),
            (|sweep| sweep.end = 4, "begin at 8 bytes and end at 4"),
            (|sweep| sweep.factor = 1, "factor of 1"),
            (|sweep| sweep.iterations = Some(0), "0 iterations"),
            (|sweep| sweep.algorithm = Some("bruck".into()), "auto, one_shot, direct, staged, ring"),
            (|sweep| sweep.algorithm = Some("one_shot".into()), "at most 8192 bytes a rank"),
            (|sweep| sweep.op = ReduceOp::BitXor, "bxor does not apply to f32"),
            (|sweep| sweep.end = 1 << 60, "this machine has"),
            (|sweep| (sweep.subject, sweep.modes) = (Collective::Barrier.into(), Modes::InPlace), "no form in place"),
            (
                |sweep| (sweep.subject, sweep.modes) = (Subject::SendRecv, Modes::InPlace),
                "send_recv has no form in place",
            ),
        ];
        for (change, named) in wrong {
            let mut sweep = Sweep::new(Collective::AllReduce);
            change(&mut sweep);
            let error = sweep.check(2).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)) && error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn what_devices_do_not_have_is_a_sentence() {
        type Change = fn(&mut Sweep);
        let wrong: [(Change, &str); 6] = [
            (|sweep| sweep.subject = Collective::Scan.into(), "devices have no scan; they have all_reduce"),
            (|sweep| sweep.algorithm = Some("direct".into()), "two_shot, ring, schedule:one_shot, schedule:direct"),
            (|sweep| sweep.algorithm = Some("schedule:bruck".into()), "no algorithm schedule:bruck for all_reduce"),
            (|sweep| sweep.algorithm = Some("schedule:one_shot".into()), "at most 4194304 bytes a rank"),
            (|sweep| sweep.algorithm = Some("low_latency".into()), "at most 4096 bytes"),
            (|sweep| sweep.factor = 0, "factor of 0"),
        ];
        for (change, named) in wrong {
            let mut sweep = Sweep::new(Collective::AllReduce);
            change(&mut sweep);
            let error = sweep.check_on_devices(2).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)) && error.to_string().contains(named), "{error}");
        }
    }
}
