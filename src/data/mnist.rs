// SPDX-License-Identifier: MPL-2.0
//! MNIST, and whatever comes in the same four files: images and labels, to learn from and to test on.

use std::path::Path;

use super::idx::{self, Idx};
use super::{Dataset, Split};
use crate::error::{Error, Result};

const CLASSES: usize = 10;

/// Reads the four files of their standard names, each plain or with `.gz`, from `directory`.
///
/// Pixels are standardised: the mean of all training pixels is subtracted, and the difference divided by their standard
/// deviation, in the test set too.
///
/// # Errors
///
/// A sentence naming the file if the directory or a file is missing, or a file is not IDX, truncated or too long; if
/// images and labels differ in number, or training and test images in size; if a label is above 9, or there are no
/// images.
pub fn load(directory: impl AsRef<Path>) -> Result<Split> {
    let directory = directory.as_ref();
    if !directory.is_dir() {
        let needs = "a directory with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
                     t10k-labels-idx1-ubyte, plain or .gz";
        return Err(Error::invalid(format!("{} is not {needs}", directory.display())));
    }
    let train = Part::read(directory, "train-images-idx3-ubyte", "train-labels-idx1-ubyte")?;
    let test = Part::read(directory, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")?;
    if train.images.shape[1..] != test.images.shape[1..] {
        let (ours, theirs) = (&test.images.shape[1..], &train.images.shape[1..]);
        let (test, train) = (test.images.path.display(), train.images.path.display());
        return Err(Error::invalid(format!("{test} has images of {ours:?} pixels; {train} has {theirs:?}")));
    }
    let (mean, deviation) = moments(&train.images.bytes);
    Ok(Split { train: train.dataset(mean, deviation)?, test: test.dataset(mean, deviation)? })
}

/// Images and their labels, as many.
struct Part {
    images: Idx<3>,
    labels: Idx<1>,
}

impl Part {
    fn read(directory: &Path, images: &str, labels: &str) -> Result<Self> {
        let (images, labels) = (idx::read::<3>(directory, images)?, idx::read::<1>(directory, labels)?);
        let (many, path) = (images.shape[0], images.path.display());
        if many != labels.shape[0] {
            let (labels, there) = (labels.shape[0], labels.path.display());
            return Err(Error::invalid(format!("{path} has {many} images, but {there} has {labels} labels")));
        }
        if images.bytes.is_empty() {
            return Err(Error::invalid(format!("{path} has {:?} pixels: there must be some", images.shape)));
        }
        if let Some((at, label)) = labels.bytes.iter().enumerate().find(|(_, label)| **label as usize >= CLASSES) {
            let path = labels.path.display();
            return Err(Error::invalid(format!("{path}: label {at} is {label}; labels are from 0 to {}", CLASSES - 1)));
        }
        Ok(Part { images, labels })
    }

    fn dataset(&self, mean: f64, deviation: f64) -> Result<Dataset> {
        // Each of the 256 pixel values is standardised once.
        let table: Vec<f32> = (0..256).map(|pixel| ((f64::from(pixel) - mean) / deviation) as f32).collect();
        let features = self.images.bytes.iter().map(|&pixel| table[usize::from(pixel)]).collect();
        let labels = self.labels.bytes.iter().map(|&label| u32::from(label)).collect();
        Dataset::new(features, self.images.shape[1] * self.images.shape[2], labels, CLASSES)
    }
}

/// Mean and standard deviation, from exact sums; the deviation of equal pixels counts as one.
fn moments(pixels: &[u8]) -> (f64, f64) {
    let (sum, squares) = pixels.iter().fold((0u64, 0u64), |(sum, squares), &pixel| {
        let pixel = u64::from(pixel);
        (sum + pixel, squares + pixel * pixel)
    });
    let many = pixels.len() as f64;
    let mean = sum as f64 / many;
    let variance = squares as f64 / many - mean * mean;
    (mean, if variance > 0.0 { variance.sqrt() } else { 1.0 })
}
