// SPDX-License-Identifier: MPL-2.0
//! How long the exchange of gradients took, by events on both streams.
//!
//! An all-reduce runs from when its gradients were there until it was done; what of it lies after the last gradient was
//! computed, the next step has to wait for. The rest was overlapped. The device does not say when the last rank arrived,
//! so waiting for others and moving data are one number here.

use std::time::Duration;

use super::Times;
use crate::driver::{Event, Stream};
use crate::error::Result;

/// The exchanges of some steps.
#[derive(Default)]
pub(super) struct Exchanges {
    steps: Vec<Step>,
    /// Of the step that is being enqueued.
    calls: Vec<Call>,
    /// What settled steps have come to.
    exposed: Duration,
    overlapped: Duration,
}

/// The events of a step.
struct Step {
    /// All gradients have been computed.
    computed: Event,
    calls: Vec<Call>,
}

/// The events around an all-reduce.
struct Call {
    begin: Event,
    end: Event,
}

impl Exchanges {
    /// The next all-reduce begins, on `exchange`, when `compute` has come here.
    pub fn begins(&mut self, compute: &Stream, exchange: &Stream) -> Result<()> {
        let device = exchange.device();
        let (ready, begin, end) = (device.event()?, device.event()?, device.event()?);
        compute.record(&ready)?;
        exchange.wait(&ready)?;
        exchange.record(&begin)?;
        self.calls.push(Call { begin, end });
        Ok(())
    }

    /// It ends here.
    pub fn ends(&mut self, exchange: &Stream) -> Result<()> {
        self.calls.last().map_or(Ok(()), |call| exchange.record(&call.end))
    }

    /// All gradients of the step have been computed when `compute` has come here.
    pub fn computed(&mut self, compute: &Stream) -> Result<()> {
        let computed = compute.device().event()?;
        compute.record(&computed)?;
        self.steps.push(Step { computed, calls: std::mem::take(&mut self.calls) });
        Ok(())
    }

    /// Settles all steps, which have been done.
    pub fn settle(&mut self) -> Result<()> {
        for Step { computed, calls } in self.steps.drain(..) {
            let Some(last) = calls.last() else { continue };
            let exposed = last.end.since(&computed)?;
            let mut all = Duration::ZERO;
            for call in &calls {
                all += call.end.since(&call.begin)?;
            }
            self.exposed += exposed;
            self.overlapped += all.saturating_sub(exposed);
        }
        Ok(())
    }

    /// The accounts of steps that took `wall`.
    pub fn times(&self, wall: Duration) -> Times {
        let transfer = self.exposed.min(wall);
        let compute = wall - transfer;
        Times { compute, wait: Duration::ZERO, transfer, overlapped: self.overlapped.min(compute) }
    }
}
