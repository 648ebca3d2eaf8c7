// SPDX-License-Identifier: MPL-2.0
//! One rank learns the digits; twice the same way.
#![cfg(feature = "train")]

use annulus::Result;
use annulus::data::{Order, Sampler, Split, digits};
use annulus::nn::{Mlp, Module, correct};
use annulus::optim::{AdamW, Optimizer, Sgd};
use annulus::tensor::{Tensor, no_grad};

fn train(split: &Split, epochs: u64, optimizer: impl FnOnce(Vec<Tensor>) -> Box<dyn Optimizer>) -> Result<(f64, Mlp)> {
    let model = Mlp::new(&[64, 64, 64, 10], 0)?;
    let mut optimizer = optimizer(model.parameters());
    let sampler = Sampler::new(split.train.len(), 1, 64, Order::Shuffled(0))?;
    for number in 0..epochs {
        let epoch = sampler.epoch(number);
        for step in 0..epoch.steps() {
            let batch = split.train.batch(epoch.share(step, 0))?;
            let loss = model.forward(&batch.inputs)?.cross_entropy(&batch.labels, epoch.denominator(step))?;
            optimizer.zero_grad()?;
            loss.backward()?;
            optimizer.step()?;
        }
    }
    let test = split.test.batch(&(0..split.test.len()).collect::<Vec<_>>())?;
    let right = no_grad(|| correct(&model.forward(&test.inputs)?, &test.labels))?;
    Ok((right as f64 / split.test.len() as f64, model))
}

#[test]
fn digits_are_learnt() {
    let split = digits::load(Order::Shuffled(0)).unwrap();
    let (accuracy, _) = train(&split, 30, |parameters| Box::new(Sgd::new(parameters, 0.1, 0.9).unwrap())).unwrap();
    assert!(accuracy >= 0.97, "SGD: {accuracy}");
    let (accuracy, _) = train(&split, 30, |parameters| Box::new(AdamW::new(parameters, 0.01).unwrap())).unwrap();
    assert!(accuracy >= 0.97, "AdamW: {accuracy}");
}

#[test]
fn the_same_run_gives_the_same_bits() {
    let split = digits::load(Order::Shuffled(3)).unwrap();
    let run = || {
        let (_, model) = train(&split, 2, |parameters| Box::new(Sgd::new(parameters, 0.1, 0.9).unwrap())).unwrap();
        let bits = |tensor: &Tensor| tensor.values().unwrap().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        model.parameters().iter().map(bits).collect::<Vec<_>>()
    };
    // On another thread, too.
    let elsewhere = std::thread::scope(|scope| scope.spawn(run).join().unwrap());
    assert_eq!(run(), elsewhere);
}
