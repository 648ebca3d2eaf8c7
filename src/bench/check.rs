// SPDX-License-Identifier: MPL-2.0
//! What is wrong with a sweep, before any rank begins with it.

use std::borrow::Borrow;

use super::on_device::absent;
use super::{Modes, Sweep};
use crate::communicator::DeviceCommunicator;
use crate::element::ReduceOp;
use crate::error::{Error, Result};
use crate::schedule::{self, Collective, Layout, select};
use crate::transport::page::INLINE;

impl Sweep {
    /// What is wrong with it for this many ranks, if anything is. [`Sweep::run`] asks this first; whoever starts ranks
    /// for a sweep may ask before.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, one sentence.
    pub fn check(&self, ranks: usize) -> Result<()> {
        let Sweep { collective, end, .. } = *self;
        self.check_algorithm(&schedule::names(collective))?;
        if collective.is_scan() && self.op == ReduceOp::Avg {
            return Err(Error::invalid(format!("{collective} has no average: ask for another operation")));
        }
        self.check_sizes()?;
        let layout = Layout::uniform(ranks, self.count(end, ranks));
        let carried = layout.input_len(collective, 0) * self.data_type.size();
        let limit = select::carried(collective, ranks, INLINE);
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
        let Sweep { collective, end, .. } = *self;
        if !DeviceCommunicator::COLLECTIVES.contains(&collective) {
            return Err(absent(collective));
        }
        self.check_algorithm(&DeviceCommunicator::algorithms(collective))?;
        self.check_sizes()?;
        let most = DeviceCommunicator::LOW_LATENCY;
        if self.algorithm.as_deref() == Some("low_latency") && end > most {
            return Err(Error::invalid(format!(
                "the algorithm low_latency takes at most {most} bytes, and the end is {end} bytes: end earlier"
            )));
        }
        let layout = Layout::uniform(ranks, self.count(end, ranks));
        let carried = layout.input_len(collective, 0) * self.data_type.size();
        let limit = select::carried(collective, ranks, DeviceCommunicator::SCHEDULE_MEMORY / 2);
        if self.algorithm.as_deref() == Some("schedule:one_shot") && carried > limit {
            return Err(Error::invalid(format!(
                "the algorithm schedule:one_shot carries at most {limit} bytes a rank, and at the end, {end} bytes, \
                 there are {carried}: end earlier"
            )));
        }
        self.check_memory(ranks)
    }

    fn check_algorithm(&self, names: &[impl Borrow<str>]) -> Result<()> {
        let collective = self.collective;
        if let Some(name) = self.algorithm.as_deref().filter(|name| !names.iter().any(|own| own.borrow() == *name)) {
            let those = if names.is_empty() { "auto alone".into() } else { format!("auto, {}", names.join(", ")) };
            return Err(Error::invalid(format!("there is no algorithm {name} for {collective}; there is {those}")));
        }
        if collective.folds() {
            self.op.check(self.data_type)?;
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<()> {
        let Sweep { collective, begin, end, factor, .. } = *self;
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
        if collective == Collective::Barrier && self.modes == Modes::InPlace {
            return Err(Error::invalid("a barrier has no buffer and so no form in place: ask for none"));
        }
        Ok(())
    }

    fn check_memory(&self, ranks: usize) -> Result<()> {
        let Sweep { collective, end, .. } = *self;
        let needed = end.saturating_mul(2 * self.sets()).saturating_mul(ranks);
        match total_memory().filter(|_| collective != Collective::Barrier) {
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
    use super::*;

    #[test]
    fn what_cannot_be_measured_is_a_sentence() {
        type Change = fn(&mut Sweep);
        let wrong: [(Change, &str); 9] = [
            (|sweep| sweep.begin = 0, "begin at 0 bytes"),
            (|sweep| sweep.end = 4, "begin at 8 bytes and end at 4"),
            (|sweep| sweep.factor = 1, "factor of 1"),
            (|sweep| sweep.iterations = Some(0), "0 iterations"),
            (|sweep| sweep.algorithm = Some("bruck".into()), "auto, one_shot, direct, staged, ring"),
            (|sweep| sweep.algorithm = Some("one_shot".into()), "at most 8192 bytes a rank"),
            (|sweep| sweep.op = ReduceOp::BitXor, "bxor does not apply to f32"),
            (|sweep| sweep.end = 1 << 60, "this machine has"),
            (|sweep| (sweep.collective, sweep.modes) = (Collective::Barrier, Modes::InPlace), "no form in place"),
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
            (|sweep| sweep.collective = Collective::Scan, "devices have no scan; they have all_reduce"),
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
