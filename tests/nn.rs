// SPDX-License-Identifier: MPL-2.0
//! Layers, predictions, and their files.
#![cfg(feature = "train")]

use std::fs;
use std::path::PathBuf;

use annulus::nn::{Mlp, Module, checkpoint, correct};
use annulus::tensor::Tensor;

/// A directory of one test, removed with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("annulus-nn-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn values(model: &Mlp) -> Vec<Vec<f32>> {
    model.parameters().iter().map(|parameter| parameter.to_vec().unwrap()).collect()
}

#[test]
fn first_parameters() {
    let model = Mlp::new(&[400, 50, 10], 7).unwrap();
    let named = model.named_parameters();
    let shown: Vec<_> = named.iter().map(|(name, tensor)| (name.as_str(), tensor.shape().to_vec())).collect();
    let expected = [
        ("layers.0.weight", vec![50, 400]),
        ("layers.0.bias", vec![50]),
        ("layers.1.weight", vec![10, 50]),
        ("layers.1.bias", vec![10]),
    ];
    assert_eq!(shown, expected);
    assert!(named.iter().all(|(_, parameter)| parameter.requires_grad() && parameter.is_leaf()));

    // Uniform between -1/20 and 1/20: mean near zero, variance near a third of the bound's square.
    let weights = named[0].1.to_vec().unwrap();
    let (count, bound) = (weights.len() as f64, 1.0 / 20.0);
    assert!(weights.iter().all(|weight| f64::from(weight.abs()) <= bound));
    let mean = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / count;
    let variance = weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>() / count;
    assert!(mean.abs() < 0.02 * bound && (variance / (bound * bound / 3.0) - 1.0).abs() < 0.03, "{mean} {variance}");

    assert_eq!(values(&model), values(&Mlp::new(&[400, 50, 10], 7).unwrap()));
    assert_ne!(values(&model), values(&Mlp::new(&[400, 50, 10], 8).unwrap()));
}

#[test]
fn wrong_widths_are_sentences() {
    for (widths, expected) in [
        (&[10usize][..], "1 given"),
        (&[10, 0, 3], "10 and 0"),
        (&[usize::MAX, 2], "does not fit into memory"),
        (&[1 << 60, 1], "does not fit into memory"),
    ] {
        let said = Mlp::new(widths, 0).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn predictions() {
    let logits = Tensor::new(vec![1., 3., 3., 0., -1., -2., f32::NAN, 1., 2.], &[3, 3]).unwrap();
    assert_eq!(correct(&logits, &[1, 0, 2]).unwrap(), 2);
    assert_eq!(correct(&logits, &[2, 1, 0]).unwrap(), 0);
    assert!(correct(&logits, &[1]).unwrap_err().to_string().contains("1 labels"));
    assert_eq!(correct(&Tensor::new(vec![], &[0, 3]).unwrap(), &[]).unwrap(), 0);
}

#[test]
fn checkpoints_round_trip() {
    let directory = Directory::new("round-trip");
    let path = directory.0.join("model.safetensors");
    let (model, other) = (Mlp::new(&[6, 5, 4], 1).unwrap(), Mlp::new(&[6, 5, 4], 2).unwrap());
    fs::write(&path, "something else").unwrap();
    checkpoint::save(&path, &model.named_parameters()).unwrap();
    assert_ne!(values(&model), values(&other));
    checkpoint::load(&path, &other.named_parameters()).unwrap();
    assert_eq!(values(&model), values(&other));
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "a partial file is left");
}

#[test]
fn wrong_checkpoints_are_sentences_and_change_nothing() {
    let directory = Directory::new("wrong");
    let path = directory.0.join("model.safetensors");
    let model = Mlp::new(&[6, 5, 4], 1).unwrap();
    let before = values(&model);
    let load = || checkpoint::load(&path, &model.named_parameters()).unwrap_err().to_string();

    assert!(load().contains("reading the checkpoint"));
    for (widths, expected) in [
        (&[6usize, 5, 3][..], "layers.1.weight in"),
        (&[6, 5, 3], "is F32 [3, 5]; the model's is F32 [4, 5]"),
        (&[6, 4], "lacks layers.1.weight; the model has layers.0.weight, layers.0.bias, layers.1.weight"),
        (&[6, 5, 4, 2], "too many; the model has layers.0.weight"),
    ] {
        checkpoint::save(&path, &Mlp::new(widths, 3).unwrap().named_parameters()).unwrap();
        let said = load();
        assert!(said.contains(expected), "{said}");
    }
    checkpoint::save(&path, &model.named_parameters()).unwrap();
    let whole = fs::read(&path).unwrap();
    for end in [0, 7, 30, whole.len() - 1] {
        fs::write(&path, &whole[..end]).unwrap();
        assert!(load().contains("not a whole safetensors file"));
    }
    let mut lying = whole.clone();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, lying).unwrap();
    assert!(load().contains("not a whole safetensors file"));
    assert_eq!(values(&model), before);

    let nowhere = directory.0.join("absent/model.safetensors");
    let said = checkpoint::save(&nowhere, &model.named_parameters()).unwrap_err().to_string();
    assert!(said.contains("writing the checkpoint") && said.contains("absent"), "{said}");
    let twice = [model.named_parameters(), model.named_parameters()].concat();
    assert!(checkpoint::save(&path, &twice).unwrap_err().to_string().contains("two parameters are named"));
}

/// What is at the destination survives a failed write.
#[test]
fn a_failed_save_leaves_what_was_there() {
    let directory = Directory::new("failed");
    let path = directory.0.join("model.safetensors");
    fs::create_dir(&path).unwrap();
    let model = Mlp::new(&[2, 2], 0).unwrap();
    assert!(checkpoint::save(&path, &model.named_parameters()).is_err());
    assert!(path.is_dir());
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "a partial file is left");
}
