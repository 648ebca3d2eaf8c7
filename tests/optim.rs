// SPDX-License-Identifier: MPL-2.0
//! Optimizers against their formulas, written out here in f64.
#![cfg(feature = "train")]

use std::rc::Rc;

use annulus::optim::{AdamW, Optimizer, Sgd};
use annulus::tensor::{Lent, Memory, Storage, Tensor};

const GRADIENTS: [[f32; 2]; 3] = [[0.5, -1.0], [0.25, 2.0], [-1.0, 0.0]];

fn parameter() -> Tensor {
    let parameter = Tensor::new(vec![1.0, -2.0], &[2]).unwrap().trainable();
    parameter.set_grad_storage(Storage::new(vec![0.0; 2])).unwrap();
    parameter
}

/// The values after each of three steps along the gradients.
fn path(parameter: &Tensor, mut optimizer: impl Optimizer) -> Vec<Vec<f32>> {
    let step = |gradient: &[f32; 2]| {
        optimizer.zero_grad().unwrap();
        parameter.grad().unwrap().write().unwrap().copy_from_slice(gradient);
        optimizer.step().unwrap();
        parameter.to_vec().unwrap()
    };
    GRADIENTS.iter().map(step).collect()
}

fn assert_close(got: &[Vec<f32>], expected: &[[f64; 2]]) {
    for (step, (got, expected)) in got.iter().zip(expected).enumerate() {
        let close = got.iter().zip(expected).all(|(got, expected)| (f64::from(*got) - expected).abs() < 1e-6);
        assert!(close, "step {step}: {got:?}, not {expected:?}");
    }
}

#[test]
fn sgd() {
    let plain = parameter();
    let got = path(&plain, Sgd::new(vec![plain.clone()], 0.1, 0.0).unwrap());
    assert_close(&got, &[[0.95, -1.9], [0.925, -2.1], [1.025, -2.1]]);
    // Velocities: (0.5, -1), (0.7, 1.1), (-0.37, 0.99).
    let heavy = parameter();
    let got = path(&heavy, Sgd::new(vec![heavy.clone()], 0.1, 0.9).unwrap());
    assert_close(&got, &[[0.95, -1.9], [0.88, -2.01], [0.917, -2.109]]);
}

#[test]
fn adamw() {
    let (rate, beta1, beta2, epsilon, decay) = (0.1f64, 0.8f64, 0.9f64, 1e-3f64, 0.05f64);
    let mut expected = Vec::new();
    let (mut values, mut m, mut v) = ([1.0f64, -2.0], [0.0f64; 2], [0.0f64; 2]);
    for (t, gradient) in GRADIENTS.iter().enumerate() {
        for i in 0..2 {
            let g = f64::from(gradient[i]);
            values[i] -= rate * decay * values[i];
            m[i] = beta1 * m[i] + (1.0 - beta1) * g;
            v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
            let (m, v) = (m[i] / (1.0 - beta1.powi(t as i32 + 1)), v[i] / (1.0 - beta2.powi(t as i32 + 1)));
            values[i] -= rate * m / (v.sqrt() + epsilon);
        }
        expected.push(values);
    }
    let tensor = parameter();
    let got = path(&tensor, AdamW::with(vec![tensor.clone()], 0.1, (0.8, 0.9), 1e-3, 0.05).unwrap());
    assert_close(&got, &expected);
    // The first step with the usual settings moves by the rate against the sign, after a decay of a thousandth.
    let tensor = parameter();
    let got = path(&tensor, AdamW::new(vec![tensor.clone()], 0.1).unwrap());
    assert_close(&got[..1], &[[0.999 - 0.1, -1.998 + 0.1]]);
}

#[test]
fn a_step_is_whole_or_not_at_all() {
    let (first, second, still) = (parameter(), parameter(), Tensor::new(vec![3.0], &[1]).unwrap().trainable());
    let bucket = Rc::new(Lent::new("gradient bucket 1", vec![1.0f32, 1.0]));
    second.set_grad_storage(Storage::view(bucket.clone() as Rc<dyn Memory>, 0..2).unwrap()).unwrap();
    first.grad().unwrap().write().unwrap().fill(1.0);
    let parameters = vec![first.clone(), second.clone(), still.clone()];
    let mut optimizer = Sgd::new(parameters, 0.5, 0.0).unwrap();

    let away = bucket.take().unwrap();
    let error = optimizer.step().unwrap_err().to_string();
    assert!(error.contains("gradient bucket 1 is away"), "{error}");
    assert_eq!(first.to_vec().unwrap(), [1.0, -2.0]);
    bucket.give_back(away).unwrap();
    optimizer.step().unwrap();
    assert_eq!(first.to_vec().unwrap(), [0.5, -2.5]);
    assert_eq!(second.to_vec().unwrap(), [0.5, -2.5]);
    assert_eq!(still.to_vec().unwrap(), [3.0], "a parameter without a gradient moved");
}

#[test]
fn wrong_settings_are_sentences() {
    let error = |result: annulus::Result<()>| result.unwrap_err().to_string();
    assert_eq!(
        error(Sgd::new(vec![], -1.0, 0.0).map(drop)),
        "the learning rate is -1: it must be a number, zero or more"
    );
    assert!(error(Sgd::new(vec![], f32::NAN, 0.0).map(drop)).contains("the learning rate is NaN"));
    assert!(error(Sgd::new(vec![], 0.1, 1.0).map(drop)).contains("the momentum is 1"));
    assert!(error(AdamW::with(vec![], 0.1, (0.9, 1.5), 1e-8, 0.0).map(drop)).contains("beta2 is 1.5"));
}
