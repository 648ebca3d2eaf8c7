// SPDX-License-Identifier: MPL-2.0
//! Tensors: derivatives against central differences in f64 and by hand, hooks, storage that others own.
#![cfg(feature = "train")]

use std::cell::RefCell;
use std::rc::Rc;

use annulus::nn::{Mlp, Module};
use annulus::tensor::{Lent, Memory, Random, Storage, Tensor, no_grad};
use annulus::{Error, Result};

fn leaf(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::new(values.to_vec(), shape).unwrap().trainable()
}

fn grad(tensor: &Tensor) -> Vec<f32> {
    tensor.grad().unwrap().read().unwrap().to_vec()
}

fn sentence<T>(result: Result<T>) -> String {
    match result {
        Err(Error::InvalidArgument(sentence)) => sentence.to_string(),
        Err(other) => panic!("another kind of error: {other:?}"),
        Ok(_) => panic!("no error"),
    }
}

/// Compares the gradients of `computed` with central differences of `exact`, the same function in f64.
fn check(shapes: &[&[usize]], computed: impl Fn(&[Tensor]) -> Result<Tensor>, exact: impl Fn(&[Vec<f64>]) -> f64) {
    let mut random = Random::new(&[shapes.len() as u64]);
    let mut draw = |shape: &&[usize]| -> Vec<f32> {
        (0..shape.iter().product::<usize>()).map(|_| random.uniform(-1.0, 1.0)).collect()
    };
    let values: Vec<Vec<f32>> = shapes.iter().map(&mut draw).collect();
    let leaves: Vec<Tensor> = values.iter().zip(shapes).map(|(values, shape)| leaf(values, shape)).collect();
    let wide: Vec<Vec<f64>> = values.iter().map(|values| values.iter().map(|&v| f64::from(v)).collect()).collect();

    let result = computed(&leaves).unwrap();
    let expected = exact(&wide);
    assert!((f64::from(result.item().unwrap()) - expected).abs() <= 1e-5 * (1.0 + expected.abs()));
    result.backward().unwrap();

    let step = 1e-5;
    for (input, leaf) in leaves.iter().enumerate() {
        for (at, got) in grad(leaf).into_iter().enumerate() {
            let moved = |by: f64| {
                let mut wide = wide.clone();
                wide[input][at] += by;
                exact(&wide)
            };
            let expected = (moved(step) - moved(-step)) / (2.0 * step);
            let error = (f64::from(got) - expected).abs();
            assert!(error <= 2e-5 * (1.0 + expected.abs()), "input {input} at {at}: {got}, not {expected}");
        }
    }
}

/// x [m, k] times w [n, k] transposed, plus b [n], in f64.
fn linear(x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
    let k = w.len() / b.len();
    let row = |x: &[f64]| -> Vec<f64> {
        w.chunks(k).zip(b).map(|(w, b)| b + x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>()).collect()
    };
    x.chunks(k).flat_map(row).collect()
}

fn cross_entropy(logits: &[f64], classes: usize, labels: &[u32], denominator: f64) -> f64 {
    let row = |(row, label): (&[f64], &u32)| row.iter().map(|v| v.exp()).sum::<f64>().ln() - row[*label as usize];
    logits.chunks(classes).zip(labels).map(row).sum::<f64>() / denominator
}

#[test]
fn elementwise_derivatives() {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    check(
        &[&[2, 3], &[2, 3]],
        |t| t[0].add(&t[1])?.mul(&t[1])?.sum(),
        |x| x[0].iter().zip(&x[1]).map(|(a, b)| (a + b) * b).sum(),
    );
    check(&[&[5], &[5]], |t| t[0].sub(&t[1])?.mul(&t[0])?.mean(), |x| (dot(&x[0], &x[0]) - dot(&x[0], &x[1])) / 5.0);
    check(&[&[4]], |t| t[0].mul(&t[0])?.scale(-2.5)?.sum(), |x| -2.5 * dot(&x[0], &x[0]));
    check(&[&[3, 4], &[2, 6]], |t| t[0].reshape(&[2, 6])?.mul(&t[1])?.sum(), |x| dot(&x[0], &x[1]));
    check(
        &[&[9], &[9]],
        |t| t[0].relu()?.mul(&t[1])?.sum(),
        |x| x[0].iter().zip(&x[1]).map(|(a, b)| a.max(0.0) * b).sum(),
    );
}

#[test]
fn matrix_derivatives() {
    check(
        &[&[3, 4], &[4, 2], &[3, 2]],
        |t| t[0].matmul(&t[1])?.mul(&t[2])?.sum(),
        |x| {
            let product = |i: usize, j: usize| (0..4).map(|k| x[0][i * 4 + k] * x[1][k * 2 + j]).sum::<f64>();
            (0..6).map(|at| product(at / 2, at % 2) * x[2][at]).sum()
        },
    );
    check(
        &[&[3, 4], &[2, 4], &[2], &[3, 2]],
        |t| t[0].linear(&t[1], &t[2])?.mul(&t[3])?.sum(),
        |x| linear(&x[0], &x[1], &x[2]).iter().zip(&x[3]).map(|(a, b)| a * b).sum(),
    );
}

#[test]
fn perceptron_derivatives() {
    let labels = [2, 0, 1, 2, 2];
    check(
        &[&[5, 6], &[7, 6], &[7], &[3, 7], &[3]],
        |t| t[0].linear(&t[1], &t[2])?.relu()?.linear(&t[3], &t[4])?.cross_entropy(&labels, 2.5),
        |x| {
            let hidden: Vec<f64> = linear(&x[0], &x[1], &x[2]).iter().map(|v| v.max(0.0)).collect();
            cross_entropy(&linear(&hidden, &x[3], &x[4]), 3, &labels, 2.5)
        },
    );
}

#[test]
fn by_hand() {
    // y = x W^T + b with x = [1, 2], W = [[3, 4], [5, 6]], b = [7, 8]: [18, 25].
    let (x, w, b) = (leaf(&[1., 2.], &[1, 2]), leaf(&[3., 4., 5., 6.], &[2, 2]), leaf(&[7., 8.], &[2]));
    let y = x.linear(&w, &b).unwrap();
    assert_eq!((y.to_vec().unwrap(), y.shape()), (vec![18., 25.], &[1usize, 2][..]));
    y.mul(&Tensor::new(vec![1., 10.], &[1, 2]).unwrap()).unwrap().sum().unwrap().backward().unwrap();
    assert_eq!(grad(&b), [1., 10.]);
    assert_eq!(grad(&w), [1., 2., 10., 20.]);
    assert_eq!(grad(&x), [53., 64.]);

    // Two equal logits: a loss of ln 2, and half a probability on either side.
    let logits = leaf(&[3., 3.], &[1, 2]);
    let loss = logits.cross_entropy(&[1], 1.0).unwrap();
    assert_eq!(loss.item().unwrap(), std::f32::consts::LN_2);
    loss.backward().unwrap();
    assert_eq!(grad(&logits), [0.5, -0.5]);

    // Logits that would overflow without the shift by the greatest.
    let large = leaf(&[1000., 0.], &[1, 2]).cross_entropy(&[1], 1.0).unwrap();
    assert_eq!(large.item().unwrap(), 1000.0);

    let a = leaf(&[-1., 0., 2., f32::NAN], &[4]);
    let rectified = a.relu().unwrap().to_vec().unwrap();
    assert_eq!(rectified[..3], [0., 0., 2.]);
    assert!(rectified[3].is_nan());
}

#[test]
fn uses_and_calls_accumulate() {
    let a = leaf(&[2., 3.], &[2]);
    let loss = a.mul(&a).unwrap().add(&a).unwrap().sum().unwrap();
    loss.backward().unwrap();
    assert_eq!(grad(&a), [5., 7.]);
    loss.backward().unwrap();
    assert_eq!(grad(&a), [10., 14.]);
    a.zero_grad().unwrap();
    assert_eq!(grad(&a), [0., 0.]);

    let single = leaf(&[4.], &[]);
    single.backward().unwrap();
    assert_eq!(grad(&single), [1.]);
}

#[test]
fn no_grad_and_detach_cut_the_graph() {
    let a = leaf(&[2.], &[1]);
    let silent = no_grad(|| no_grad(|| a.mul(&a)).unwrap().add(&a)).unwrap();
    assert!(!silent.requires_grad() && silent.is_leaf());
    assert!(sentence(silent.backward()).contains("outside no_grad"));

    let square = a.mul(&a).unwrap();
    assert!(square.requires_grad() && !square.is_leaf());
    assert!(!square.detach().requires_grad());
    square.detach().mul(&a).unwrap().sum().unwrap().backward().unwrap();
    assert_eq!(grad(&a), [4.]);
    // The storage is shared.
    a.detach().values_mut().unwrap()[0] = 5.0;
    assert_eq!(a.item().unwrap(), 5.0);
    // Recording is on again after a panic.
    let _ = std::panic::catch_unwind(|| no_grad(|| panic!("on purpose")));
    assert!(a.mul(&a).unwrap().requires_grad());
}

#[test]
fn no_rows_give_zero_gradients() {
    let model = Mlp::new(&[4, 3, 2], 0).unwrap();
    let calls = Rc::new(RefCell::new(0));
    let count = |parameter: &Tensor| {
        let calls = Rc::clone(&calls);
        parameter.on_grad(move || {
            *calls.borrow_mut() += 1;
            Ok(())
        })
    };
    let _hooks: Vec<_> = model.parameters().iter().map(|parameter| count(parameter).unwrap()).collect();
    let none = Tensor::new(vec![], &[0, 4]).unwrap();
    let loss = model.forward(&none).unwrap().cross_entropy(&[], 1.5).unwrap();
    assert_eq!(loss.item().unwrap(), 0.0);
    loss.backward().unwrap();
    assert_eq!(*calls.borrow(), 4);
    for parameter in model.parameters() {
        assert!(grad(&parameter).iter().all(|&value| value.to_bits() == 0));
    }
}

/// Losses of unequal shares, each divided by rows / ranks, average to the mean over all rows; gradients too.
#[test]
fn shares_average_to_the_whole() {
    let values: Vec<f32> = (0..15).map(|i| (i as f32 * 0.7).sin()).collect();
    let labels = [0, 2, 1, 1, 2];
    let whole = leaf(&values, &[5, 3]);
    let loss = whole.cross_entropy(&labels, 5.0).unwrap();
    loss.backward().unwrap();
    let (mut average, mut grads) = (0.0, vec![]);
    for rows in [0..2, 2..4, 4..5] {
        let share = leaf(&values[rows.start * 3..rows.end * 3], &[rows.len(), 3]);
        let loss = share.cross_entropy(&labels[rows], 5.0 / 3.0).unwrap();
        loss.backward().unwrap();
        average += loss.item().unwrap() / 3.0;
        grads.extend(grad(&share).iter().map(|g| g / 3.0));
    }
    assert!((average - loss.item().unwrap()).abs() < 1e-6);
    assert!(grads.iter().zip(grad(&whole)).all(|(a, b)| (a - b).abs() < 1e-7));
}

/// From the last layer to the first, bias before weight; each gradient final, the later ones untouched yet.
#[test]
fn hooks_run_in_reverse_order_when_gradients_are_final() {
    let model = Mlp::new(&[5, 4, 4, 3], 1).unwrap();
    let input = Tensor::new((0..10).map(|i| (i as f32).cos()).collect(), &[2, 5]).unwrap();
    let run = || model.forward(&input).unwrap().cross_entropy(&[0, 2], 2.0).unwrap().backward();
    run().unwrap();
    let named = model.named_parameters();
    let finals: Vec<Vec<f32>> = named.iter().map(|(_, parameter)| grad(parameter)).collect();
    named.iter().for_each(|(_, parameter)| parameter.zero_grad().unwrap());

    let order = Rc::new(RefCell::new(Vec::new()));
    let hooks: Vec<_> = (0..named.len())
        .map(|index| {
            let (order, all, finals) = (Rc::clone(&order), model.parameters(), finals.clone());
            let hook = move || {
                for (other, parameter) in all.iter().enumerate() {
                    let expected = if other >= index { &finals[other] } else { &vec![0.0; parameter.len()] };
                    // Of one layer, the bias comes first.
                    if other / 2 != index / 2 {
                        assert_eq!(&grad(parameter), expected, "parameter {other} in the hook of {index}");
                    }
                }
                assert_eq!(grad(&all[index]), finals[index]);
                order.borrow_mut().push(index);
                Ok(())
            };
            named[index].1.on_grad(hook).unwrap()
        })
        .collect();
    run().unwrap();
    let names: Vec<&str> = order.borrow().iter().map(|index| named[*index].0.as_str()).collect();
    let expected =
        ["layers.2.bias", "layers.2.weight", "layers.1.bias", "layers.1.weight", "layers.0.bias", "layers.0.weight"];
    assert_eq!(names, expected);

    drop(hooks);
    run().unwrap();
    assert_eq!(order.borrow().len(), 6, "a dropped hook was called");
}

#[test]
fn a_hook_waits_for_the_last_use() {
    let (shared, other) = (leaf(&[2.], &[1]), leaf(&[3.], &[1]));
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (log, own) = (Rc::clone(&seen), shared.clone());
    let hook = move || {
        log.borrow_mut().push(grad(&own)[0]);
        Ok(())
    };
    let _hook = shared.on_grad(hook).unwrap();
    let inner = shared.mul(&other).unwrap().mul(&shared).unwrap();
    inner.add(&shared).unwrap().sum().unwrap().backward().unwrap();
    assert_eq!(*seen.borrow(), [13.0]);
    // A graph that does not use it does not call it.
    other.sum().unwrap().backward().unwrap();
    assert_eq!(seen.borrow().len(), 1);
}

#[test]
fn an_error_of_a_hook_ends_backward() {
    let a = leaf(&[1.], &[1]);
    let _hook = a.on_grad(|| Err(Error::unsupported("the ring is broken"))).unwrap();
    assert_eq!(a.sum().unwrap().backward(), Err(Error::unsupported("the ring is broken")));
    let computed = a.scale(2.0).unwrap();
    assert!(sentence(computed.on_grad(|| Ok(()))).contains("leaf"));

    // A hook that would call itself.
    let b = leaf(&[1.], &[1]);
    let again = b.clone();
    let _hook = b.on_grad(move || again.sum()?.backward()).unwrap();
    assert!(sentence(b.sum().unwrap().backward()).contains("hook"));
}

/// Gradients are views of one bucket, which a hook takes away during the backward pass and whose owner returns it.
#[test]
fn gradients_in_a_bucket() {
    let model = Mlp::new(&[5, 4, 3], 2).unwrap();
    let input = Tensor::new((0..10).map(|i| (i as f32).sin()).collect(), &[2, 5]).unwrap();
    let run = || model.forward(&input).unwrap().cross_entropy(&[1, 2], 2.0).unwrap().backward();
    run().unwrap();
    let plain: Vec<Vec<f32>> = model.parameters().iter().map(grad).collect();

    let parameters = model.parameters();
    let (weight, bias) = (&parameters[2], &parameters[3]);
    let bucket = Rc::new(Lent::new("gradient bucket 0", vec![0.0f32; weight.len() + bias.len()]));
    let memory: Rc<dyn Memory> = bucket.clone();
    weight.set_grad_storage(Storage::view(Rc::clone(&memory), 0..12).unwrap()).unwrap();
    bias.set_grad_storage(Storage::view(memory, 12..15).unwrap()).unwrap();
    parameters[..2].iter().for_each(|parameter| parameter.zero_grad().unwrap());

    let flight = Rc::new(RefCell::new(None));
    let (taken, lender) = (Rc::clone(&flight), Rc::clone(&bucket));
    let hook = move || {
        *taken.borrow_mut() = Some(lender.take()?);
        Ok(())
    };
    let hook = weight.on_grad(hook).unwrap();
    run().unwrap();

    // In flight: every access is an error value that names the bucket.
    let view = weight.grad().unwrap();
    for said in
        [sentence(view.read().map(drop)), sentence(weight.zero_grad()), sentence(run()), sentence(bucket.take())]
    {
        assert!(said.contains("gradient bucket 0 is away"), "{said}");
    }
    let folded = flight.borrow_mut().take().unwrap();
    assert_eq!(folded, [plain[2].clone(), plain[3].clone()].concat());
    bucket.give_back(folded).unwrap();
    assert_eq!(grad(weight), plain[2]);
    assert_eq!(grad(bias), plain[3]);
    assert!(sentence(bucket.give_back(vec![])).contains("not taken"));
    drop(hook);

    // Borrowed elsewhere: an error, not a panic.
    let reading = view.read().unwrap();
    assert!(sentence(weight.zero_grad()).contains("gradient bucket 0 is being read"));
    assert!(sentence(bucket.take()).contains("gradient bucket 0 is being read"));
    drop(reading);

    // Other memory may come back; a view beyond it is an error.
    bucket.take().unwrap();
    bucket.give_back(vec![0.0; 13]).unwrap();
    assert_eq!(weight.grad().unwrap().read().unwrap().len(), 12);
    assert!(sentence(bias.zero_grad()).contains("the memory has 13"));
}

#[test]
fn wrong_shapes_are_sentences() {
    let (a, b) = (leaf(&[1., 2.], &[2]), leaf(&[1., 2.], &[1, 2]));
    for (said, expected) in [
        (sentence(Tensor::new(vec![1.0; 5], &[2, 3])), "shape [2, 3] cannot be made of 5 values"),
        (sentence(Tensor::new(vec![], &[usize::MAX, 2])), "cannot be made of 0 values"),
        (sentence(a.add(&b)), "these have [2] and [1, 2]"),
        (sentence(a.matmul(&b)), "these have [2], [1, 2]"),
        (sentence(b.matmul(&b)), "these have [1, 2], [1, 2]"),
        (sentence(b.linear(&b, &a)), "these have [1, 2], [1, 2], [2]"),
        (sentence(a.reshape(&[3])), "cannot be reshaped to [3]"),
        (sentence(a.item()), "shape [2]"),
        (sentence(a.backward()), "shape [2]"),
        (sentence(Tensor::new(vec![], &[0]).unwrap().mean()), "no elements"),
        (sentence(a.cross_entropy(&[0], 1.0)), "[rows, classes]"),
        (sentence(b.cross_entropy(&[0, 1], 1.0)), "each of 1 rows; there are 2"),
        (sentence(b.cross_entropy(&[2], 1.0)), "row 0 is 2; there are 2 classes"),
        (sentence(b.cross_entropy(&[1], 0.0)), "positive denominator; this is 0"),
        (sentence(a.set_grad_storage(Storage::new(vec![0.0]))), "cannot be 1 values long"),
        (sentence(a.detach().set_grad_storage(Storage::new(vec![0.0; 2]))), "trainable()"),
    ] {
        assert!(said.contains(expected), "{said}");
    }
    let memory: Rc<dyn Memory> = Rc::new(Lent::new("memory", vec![0.0f32; 4]));
    assert!(sentence(Storage::view(memory, 2..5).map(drop)).contains("the memory has 4"));
}

/// The depth of a graph is not limited by the stack, neither in the walk nor when it is dropped.
#[test]
fn deep_graphs() {
    let a = leaf(&[1.], &[1]);
    let mut sum = a.clone();
    for _ in 0..100_000 {
        sum = sum.add(&a).unwrap();
    }
    sum.sum().unwrap().backward().unwrap();
    assert_eq!(grad(&a), [100_001.0]);
}
