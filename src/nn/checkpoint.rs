// SPDX-License-Identifier: MPL-2.0
//! Named parameters in safetensors files, which PyTorch reads and writes.
//!
//! A file appears whole or not at all. Reading checks every name, type and shape before the first parameter changes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};
use crate::file;
use crate::tensor::Tensor;

/// Writes the parameters to `path`, replacing what is there.
///
/// # Errors
///
/// If a name occurs twice, a parameter cannot be read at this moment, or the file cannot be written. What was at `path`
/// is then as it was.
pub fn save(path: impl AsRef<Path>, parameters: &[(String, Tensor)]) -> Result<()> {
    let path = path.as_ref();
    let mut seen = BTreeSet::new();
    if let Some((name, _)) = parameters.iter().find(|(name, _)| !seen.insert(name)) {
        return Err(Error::invalid(format!("two parameters are named {name}: a checkpoint needs names that differ")));
    }
    let bytes = parameters.iter().map(|(_, tensor)| little_endian(tensor)).collect::<Result<Vec<_>>>()?;
    let views = parameters.iter().zip(&bytes).map(|((name, tensor), bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape().to_vec(), bytes);
        view.map(|view| (name, view)).map_err(|error| Error::invalid(format!("parameter {name}: {error}")))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    let file = safetensors::serialize(views, None)
        .map_err(|error| Error::invalid(format!("the checkpoint {}: {error}", path.display())))?;
    file::write_whole("checkpoint", path, &file)
}

/// Fills the parameters from `path`.
///
/// # Errors
///
/// If the file cannot be read or is no safetensors file, or has not exactly these names, each of type F32 and of the
/// parameter's shape. No parameter has changed then.
pub fn load(path: impl AsRef<Path>, parameters: &[(String, Tensor)]) -> Result<()> {
    let path = path.as_ref();
    let shown = path.display();
    let file = fs::read(path).map_err(|error| Error::system(format!("reading the checkpoint {shown}"), error))?;
    let file = SafeTensors::deserialize(&file)
        .map_err(|error| Error::invalid(format!("{shown} is not a whole safetensors file: {error}")))?;
    let right: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    let names = file.names();
    if let Some(name) = right.iter().find(|name| !names.contains(name)) {
        return Err(Error::invalid(format!("{shown} lacks {name}; the model has {}", right.join(", "))));
    }
    if let Some(name) = names.iter().find(|name| !right.contains(name)) {
        return Err(Error::invalid(format!("{shown} has {name} too many; the model has {}", right.join(", "))));
    }
    let mut views = Vec::with_capacity(parameters.len());
    for (name, parameter) in parameters {
        let view = file.tensor(name).map_err(|error| Error::invalid(format!("{name} in {shown}: {error}")))?;
        let (dtype, shape, right) = (view.dtype(), view.shape(), parameter.shape());
        if dtype != Dtype::F32 || shape != right {
            let sentence = format!("{name} in {shown} is {dtype:?} {shape:?}; the model's is F32 {right:?}");
            return Err(Error::invalid(sentence));
        }
        // Before anything changes: can each be borrowed?
        drop(parameter.values_mut()?);
        views.push(view);
    }
    for ((_, parameter), view) in parameters.iter().zip(views) {
        let (bytes, _) = view.data().as_chunks::<4>();
        parameter.values_mut()?.iter_mut().zip(bytes).for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes));
    }
    Ok(())
}

fn little_endian(tensor: &Tensor) -> Result<Vec<u8>> {
    Ok(tensor.values()?.iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// Whether [`save`] could write to `path`, as far as can be seen before there is something to write: tries to make a
/// file beside it, and removes that again.
///
/// # Errors
///
/// A sentence naming `path` if it names no file, or something that is none, or no file can be made beside it.
pub fn check_writable(path: impl AsRef<Path>) -> Result<()> {
    file::check_writable("checkpoint", path.as_ref())
}
