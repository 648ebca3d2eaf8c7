// SPDX-License-Identifier: MPL-2.0
//! The UCI handwritten digits: 1,797 images of 8 x 8 pixels, embedded. `digits/README.md` has source and licence.

use std::io::Read;

use flate2::read::GzDecoder;

use super::{Dataset, Order, Split};
use crate::error::{Error, Result};
use crate::tensor::Random;

/// A line a sample: 64 pixels from 0 to 16 and the digit, separated by commas.
const FILE: &[u8] = include_bytes!("digits/digits.csv.gz");
const PIXELS: usize = 64;
/// Half of the darkest pixel's value.
const GREY: f32 = 8.0;

/// The digits, a fifth of them held out: 1,438 to learn from and 359 to test. Pixels are scaled to -1..1.
///
/// The split takes the last fifth of the order. The file is grouped by writers, and those of its tail are not those of
/// its head; in file order the test is therefore a harder one, on unknown hands.
///
/// # Errors
///
/// `System` if what is embedded cannot be unpacked, which does not happen.
pub fn load(order: Order) -> Result<Split> {
    let mut text = String::new();
    let broken = |what: String| Error::system("reading the embedded digits", what);
    GzDecoder::new(FILE).read_to_string(&mut text).map_err(|error| broken(error.to_string()))?;
    let mut samples = text.lines().map(parse).collect::<Option<Vec<_>>>().ok_or_else(|| broken("a bad line".into()))?;
    if let Order::Shuffled(seed) = order {
        Random::new(&[seed, 1]).shuffle(&mut samples);
    }
    let held_out = samples.len() / 5;
    let test = samples.split_off(samples.len() - held_out);
    Ok(Split { train: dataset(&samples)?, test: dataset(&test)? })
}

type Sample = ([u8; PIXELS], u8);

fn parse(line: &str) -> Option<Sample> {
    let numbers = line.split(',').map(|number| number.trim().parse().ok()).collect::<Option<Vec<u8>>>()?;
    let (label, pixels) = numbers.split_last()?;
    Some((pixels.try_into().ok()?, *label))
}

fn dataset(samples: &[Sample]) -> Result<Dataset> {
    let features = samples.iter().flat_map(|(pixels, _)| pixels.iter().map(|&pixel| f32::from(pixel) / GREY - 1.0));
    let labels = samples.iter().map(|(_, label)| u32::from(*label));
    Dataset::new(features.collect(), PIXELS, labels.collect(), 10)
}
