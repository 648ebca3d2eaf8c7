// SPDX-License-Identifier: MPL-2.0
//! Samples and their labels.

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Samples of equal width, each with the class that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    features: Vec<f32>,
    width: usize,
    labels: Vec<u32>,
    classes: usize,
}

/// What is learnt from, and what it is tested on.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// The samples to learn from.
    pub train: Dataset,
    /// The samples held out.
    pub test: Dataset,
}

/// Some samples, ready for a model.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[samples, width]`.
    pub inputs: Tensor,
    /// One a sample.
    pub labels: Vec<u32>,
}

impl Dataset {
    /// A data set of `labels.len()` samples, whose features lie one sample after the other.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there are not `width` features for each label, or a label is not below `classes`.
    pub fn new(features: Vec<f32>, width: usize, labels: Vec<u32>, classes: usize) -> Result<Self> {
        if labels.len().checked_mul(width) != Some(features.len()) {
            let (have, samples) = (features.len(), labels.len());
            return Err(Error::invalid(format!(
                "{samples} samples of {width} features cannot be made of {have} values"
            )));
        }
        if let Some((sample, label)) = labels.iter().enumerate().find(|(_, label)| **label as usize >= classes) {
            return Err(Error::invalid(format!(
                "the label of sample {sample} is {label}; there are {classes} classes"
            )));
        }
        Ok(Dataset { features, width, labels, classes })
    }

    /// How many samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Features of a sample.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many classes there are; labels are below.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The features, one sample after the other.
    pub fn features(&self) -> &[f32] {
        &self.features
    }

    /// The labels.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// These samples, in this order; there may be none.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if one does not exist.
    pub fn batch(&self, samples: &[usize]) -> Result<Batch> {
        if let Some(sample) = samples.iter().find(|sample| **sample >= self.len()) {
            let len = self.len();
            return Err(Error::invalid(format!(
                "sample {sample} does not exist; the data set has {len}, counted from 0"
            )));
        }
        let mut features = Vec::with_capacity(samples.len() * self.width);
        for sample in samples {
            features.extend_from_slice(&self.features[sample * self.width..][..self.width]);
        }
        let inputs = Tensor::new(features, &[samples.len(), self.width])?;
        Ok(Batch { inputs, labels: samples.iter().map(|sample| self.labels[*sample]).collect() })
    }
}
