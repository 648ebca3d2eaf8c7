// SPDX-License-Identifier: MPL-2.0
//! Where each parameter lies, in one buffer for all: so that a step of the optimizer is one launch, and a bucket of
//! gradients one range.
//!
//! The backward pass yields gradients from the last layer to the first, so the last layer comes first, and of each layer
//! the bias. Each parameter begins at a multiple of [`ALIGNMENT`] elements; what lies between is zero, as its gradients
//! are, and stays zero.
//!
//! ```text
//! layers of 64 x 12 and 12 x 10   bias 1 [10] .. weight 1 [10 x 12] bias 0 [12] .. weight 0 [12 x 64]
//! begin at                        0              16                 136            152
//! ```

use std::ops::Range;

use crate::error::{Error, Result};

/// Elements: 16 bytes of the smallest type, which is what a thread reads at once.
const ALIGNMENT: usize = 8;

/// A linear layer: how wide it is, and where its parameters are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// How many inputs it has.
    pub inputs: usize,
    /// How many outputs.
    pub outputs: usize,
    /// Where its bias is, `[outputs]`.
    pub bias: Range<usize>,
    /// Where its weight is, `[outputs, inputs]`.
    pub weight: Range<usize>,
}

impl Layer {
    /// Where both are, with the space before the next layer's.
    pub fn all(&self) -> Range<usize> {
        self.bias.start..self.weight.end.next_multiple_of(ALIGNMENT)
    }
}

/// The parameters of a perceptron.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The layers, the input's first.
    layers: Vec<Layer>,
}

impl Layout {
    /// Of a perceptron of these widths, as [`Mlp::new`](crate::nn::Mlp::new) takes them.
    ///
    /// # Errors
    ///
    /// If there are less than two widths, one is zero, or the parameters are too many to be counted.
    pub fn new(widths: &[usize]) -> Result<Self> {
        if widths.len() < 2 || widths.contains(&0) {
            return Err(Error::invalid(format!(
                "a perceptron needs the widths of input and output at least, none of them zero; these are {widths:?}"
            )));
        }
        let mut end = 0_usize;
        let mut place = |elements: Option<usize>| {
            let begin = end;
            // A buffer of f32 has at most isize::MAX bytes.
            let until = begin.checked_add(elements?).filter(|until| *until <= isize::MAX as usize / 8)?;
            end = until.next_multiple_of(ALIGNMENT);
            Some(begin..until)
        };
        let layers = widths.windows(2).rev().map(|pair| {
            let (inputs, outputs) = (pair[0], pair[1]);
            Some(Layer { inputs, outputs, bias: place(Some(outputs))?, weight: place(inputs.checked_mul(outputs))? })
        });
        let layers: Option<Vec<Layer>> = layers.collect();
        let mut layers = layers
            .ok_or_else(|| Error::invalid(format!("a perceptron of widths {widths:?} does not fit into memory")))?;
        layers.reverse();
        Ok(Layout { layers })
    }

    /// The layers, the input's first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// How many elements all parameters and the spaces between them take.
    pub fn elements(&self) -> usize {
        self.layers.first().map_or(0, |first| first.all().end)
    }

    /// Where each parameter is, in the order of registration: of each layer, the input's first, weight and bias.
    fn places(&self) -> impl Iterator<Item = Range<usize>> {
        self.layers.iter().flat_map(|layer| [layer.weight.clone(), layer.bias.clone()])
    }

    /// These parameters, in the order of registration, as one buffer.
    ///
    /// # Errors
    ///
    /// If they are not as many, or not as long, as the layers'.
    pub fn pack(&self, parameters: &[Vec<f32>]) -> Result<Vec<f32>> {
        let fit = self.places().map(|place| place.len()).eq(parameters.iter().map(Vec::len));
        if !fit {
            let lengths: Vec<usize> = parameters.iter().map(Vec::len).collect();
            return Err(Error::invalid(format!(
                "parameters of lengths {lengths:?} are not those of this perceptron: {:?}",
                self.places().map(|place| place.len()).collect::<Vec<_>>()
            )));
        }
        let mut all = vec![0.0; self.elements()];
        for (place, parameter) in self.places().zip(parameters) {
            all[place].copy_from_slice(parameter);
        }
        Ok(all)
    }

    /// The parameters, in the order of registration, out of one buffer.
    ///
    /// # Errors
    ///
    /// If that has another length.
    pub fn unpack(&self, all: &[f32]) -> Result<Vec<Vec<f32>>> {
        if all.len() != self.elements() {
            let (have, need) = (all.len(), self.elements());
            return Err(Error::invalid(format!("{have} elements are no parameters of this perceptron: it has {need}")));
        }
        Ok(self.places().map(|place| all[place].to_vec()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_layer_comes_first_and_everything_is_aligned() {
        let layout = Layout::new(&[64, 12, 10]).unwrap();
        let places: Vec<Range<usize>> = layout.places().collect();
        assert_eq!(places, [152..920, 136..148, 16..136, 0..10]);
        assert_eq!((layout.elements(), layout.layers()[1].all()), (920, 0..136));
        let parameters: Vec<Vec<f32>> = places.iter().map(|place| vec![place.start as f32; place.len()]).collect();
        let packed = layout.pack(&parameters).unwrap();
        assert_eq!((packed[9], packed[10], packed[15], packed[16]), (0.0, 0.0, 0.0, 16.0));
        assert_eq!(layout.unpack(&packed).unwrap(), parameters);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for widths in [&[][..], &[3], &[3, 0, 2], &[usize::MAX, 2], &[1 << 40, 1 << 40]] {
            assert!(Layout::new(widths).is_err(), "{widths:?}");
        }
        let layout = Layout::new(&[2, 1]).unwrap();
        assert!(layout.pack(&[vec![0.0; 2]]).is_err() && layout.pack(&[vec![0.0; 1], vec![0.0; 2]]).is_err());
        assert!(layout.unpack(&[0.0; 3]).is_err());
    }
}
