// SPDX-License-Identifier: MPL-2.0
//! Dynamic loss scaling: its settings, and its state in device memory. `kernels/loss_scale.cu` says how it goes.
//!
//! Among ranks nothing more is to be agreed on: overflows are looked for in gradients that were reduced, which have the
//! same bits on all ranks, so all skip a step or none does. An infinite gradient of one rank is infinite, or no number,
//! in every sum and average.

use super::{DeviceTensor, Memory, TensorClass};
use crate::driver::Stream;
use crate::error::{Error, Result};
use crate::kernel::training::Scaling;

/// How a loss is scaled: multiplied before the backward pass, so that small gradients are not lost in f16. Where a
/// gradient has become infinite, the step is skipped and the scale halved; after a while without that it is doubled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossScale {
    /// The scale of the first step: a power of two, from 1 to 2^24. Scales stay within these.
    pub start: f32,
    /// Steps without an overflow after which it is doubled, at least 1.
    pub interval: u32,
}

impl Default for LossScale {
    /// 2^16, doubled after 2000 steps.
    fn default() -> Self {
        LossScale { start: 65536.0, interval: 2000 }
    }
}

impl LossScale {
    /// Whether the settings are in their ranges.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if not.
    pub fn check(self) -> Result<()> {
        let LossScale { start, interval } = self;
        // A power of two has no digits but the first.
        let is_power = start.to_bits().trailing_zeros() >= f32::MANTISSA_DIGITS - 1;
        if !(is_power && (1.0..=16_777_216.0).contains(&start)) {
            return Err(Error::invalid(format!(
                "{start} is no loss scale to begin with: it is a power of two, from 1 to 2^24 = 16777216"
            )));
        }
        match interval {
            0 => Err(Error::invalid("a loss scale is doubled after 1 step or more without an overflow, not after 0")),
            _ => Ok(()),
        }
    }
}

/// The state of a loss scale in device memory.
pub(super) struct Scaled {
    /// A [`Scaling`].
    pub words: DeviceTensor<u32>,
    pub interval: u32,
}

impl Scaled {
    /// Before the first step.
    pub fn new(settings: LossScale, memory: &Memory, stream: &Stream) -> Result<Self> {
        settings.check()?;
        let words = memory.lasting(TensorClass::Optimizer, Scaling::WORDS, stream)?;
        stream.write(&words, bytemuck::cast_slice(&[Scaling::new(settings.start)]))?;
        Ok(Scaled { words, interval: settings.interval })
    }

    /// What has become of it, once everything enqueued before has been done.
    pub fn read(&self, stream: &Stream) -> Result<Scaling> {
        let mut state = Scaling::new(0.0);
        bytemuck::bytes_of_mut(&mut state).copy_from_slice(bytemuck::cast_slice(&stream.read(&self.words)?));
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_powers_of_two_within_their_range() {
        let check = |start, interval| LossScale { start, interval }.check();
        for start in [1.0, 2.0, 65536.0, 16_777_216.0] {
            assert_eq!(check(start, 1), Ok(()), "{start}");
        }
        for start in [0.0, 0.5, 3.0, 1.5, -2.0, 33_554_432.0, f32::INFINITY, f32::NAN] {
            assert!(check(start, 1).is_err(), "{start}");
        }
        assert!(check(1.0, 0).is_err());
    }
}
