// SPDX-License-Identifier: MPL-2.0
//! Training in bf16 and f16: the same proofs, and overflows, of which all ranks think the same.

use annulus::ddp::device::Settings;
use annulus::ddp::{DeviceDdp, Fault};
use annulus::optim::Rule;
use annulus::perceptron::{Layout, LossScale, Number, Perceptron, Precision, Samples};
use annulus::train::Config;
use annulus::{Error, bf16, f16};

use super::simulated::{absent, open};
use super::{report, small, threads};

const F16: Precision = Precision::F16(LossScale { start: 65536.0, interval: 2000 });

const RULES: [Rule; 2] = [Rule::Sgd { rate: 0.1, momentum: 0.9 }, Rule::AdamW { rate: 0.01 }];

#[test]
fn several_ranks_equal_one_in_sixteen_bits() {
    if absent() {
        return;
    }
    for (ranks, precision, rule) in
        [(1, Precision::Bf16, RULES[0]), (2, F16, RULES[1]), (3, Precision::Bf16, RULES[1]), (4, F16, RULES[0])]
    {
        let report = report(&Config { rule, precision, ..small(ranks) });
        assert!(report.is_verified(), "{ranks} ranks, {precision}, {rule:?}: {:?}", report.differences);
        assert_eq!(report.scaling.is_some(), precision == F16);
    }
}

/// Five steps an epoch, of which the last has fewer rows; one of them overflows, and the scale is doubled in between.
#[test]
fn replayed_steps_equal_eager_steps_in_sixteen_bits() {
    if absent() {
        return;
    }
    let doubling = Precision::F16(LossScale { start: 1024.0, interval: 3 });
    let fault = Some(Fault::Overflow { rank: 1, step: 4 });
    for (precision, fault, rule) in [(Precision::Bf16, None, RULES[1]), (doubling, fault, RULES[0])] {
        let [replayed, eager] = [true, false].map(|replay| {
            let config =
                Config { rule, precision, fault, replay, batch: 150, steps: Some(9), bucket_bytes: 0, ..small(2) };
            let report = report(&config);
            assert!(report.is_verified(), "{precision}, replay {replay}: {:?}", report.differences);
            let losses: Vec<u32> = report.step_losses.iter().map(|loss| loss.to_bits()).collect();
            (losses, report.parameters_checksum, report.scaling.map(|scaling| (scaling.scale, scaling.skipped)))
        });
        assert_eq!(replayed, eager);
        // 3 steps, doubled; 1 step; the overflow, halved; 3 steps, doubled; 1 step.
        assert!(replayed.2.is_none_or(|scaling| scaling == (2048.0, 1)), "{:?}", replayed.2);
    }
}

/// What a rank has, step by step: its weights' bits, and the scale and the skipped steps.
type History = Vec<(Vec<u32>, f32, u32)>;

fn history<T: Number>(ranks: usize, rule: Rule, fault: Fault, steps: usize) -> Vec<History> {
    let start = vec![vec![0.25_f32; 6], vec![0.5; 2]];
    let loss_scale = Some(LossScale { start: 1024.0, interval: 100 });
    let settings = Settings { widths: &[3, 2], rows: 1, steps, rule, loss_scale, bucket_bytes: 0, replay: true };
    threads(ranks, |comm| {
        let mut ddp = DeviceDdp::<T>::new(&comm, &open(0)?, &settings, &start)?;
        ddp.plant(fault);
        let after_step = |step: usize| {
            let inputs = [1.0, comm.rank() as f32, step as f32].map(T::rounded);
            ddp.step(&inputs, &[step as u32 % 2], 1.0)?;
            let scaling = ddp.scaling()?.unwrap();
            assert_eq!(scaling.overflow, 0, "the step has ended");
            let weights = ddp.parameters()?.concat().into_iter().map(f32::to_bits).collect();
            Ok((weights, scaling.scale, scaling.skipped))
        };
        (0..steps).map(after_step).collect()
    })
}

/// Whichever rank overflows, all skip that step, and no other.
#[test]
fn a_forced_overflow_makes_all_ranks_skip_the_step_together() {
    if absent() {
        return;
    }
    for (overflowing, rule) in [(0, RULES[0]), (2, RULES[1])] {
        let fault = Fault::Overflow { rank: overflowing, step: 2 };
        for ranks in [history::<f16>(3, rule, fault, 4), history::<bf16>(3, rule, fault, 4)] {
            assert!(ranks.iter().all(|rank| *rank == ranks[0]), "rank {overflowing} overflows: {ranks:?}");
            let [first, second, skipped, last] = &ranks[0][..] else { panic!("{ranks:?}") };
            assert_eq!((skipped.1, skipped.2), (512.0, 1));
            assert_eq!((last.1, last.2), (512.0, 1));
            assert_eq!(skipped.0, second.0, "a skipped step changes no weight");
            assert!(first.0 != second.0 && skipped.0 != last.0, "the others do");
        }
    }
}

/// A scale that is too large at first: the gradients themselves overflow, and it comes down.
#[test]
fn a_scale_that_is_too_large_comes_down() {
    if absent() {
        return;
    }
    let precision = Precision::F16(LossScale { start: 16_777_216.0, interval: 2000 });
    let report = report(&Config { precision, steps: Some(12), ..small(2) });
    assert!(report.is_verified(), "{:?}", report.differences);
    let scaling = report.scaling.unwrap();
    assert!((1..12).contains(&scaling.skipped), "{scaling:?}");
    assert_eq!(scaling.scale, 16_777_216.0 / f32::from(1_u16 << scaling.skipped));
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |config: Config| match config.prepare() {
        Err(Error::InvalidArgument(why)) => why.to_string(),
        other => panic!("{other:?}"),
    };
    let on_cpu = refused(Config { precision: Precision::Bf16, ..Config::default() });
    assert!(on_cpu.contains("the CPU trains in f32 alone") && on_cpu.contains("--device cuda"), "{on_cpu}");
    if absent() {
        return;
    }
    let fault = Some(Fault::Overflow { rank: 0, step: 0 });
    assert!(refused(Config { precision: Precision::Bf16, fault, ..small(1) }).contains("not in bf16"));
    let precision = Precision::F16(LossScale { start: 3.0, interval: 1 });
    assert!(refused(Config { precision, ..small(1) }).contains("a power of two"));
}

#[test]
fn samples_that_there_are_not_make_no_batch() {
    if absent() {
        return;
    }
    let _room = super::room();
    let stream = open(0).unwrap().stream().unwrap();
    let (device, layout) = (stream.device(), Layout::new(&[3, 2]).unwrap());
    let gradients = device.allocate(layout.elements()).unwrap();
    let model = Perceptron::<f32>::new(layout, 2, gradients, None, &stream).unwrap();
    let samples =
        |inputs: usize, labels: usize| Samples::new(model.memory(), &vec![1.0; inputs], &vec![0; labels], &stream);
    let refused = |result: annulus::Result<()>, said: &str| {
        let Err(Error::InvalidArgument(why)) = result else { panic!("{result:?}") };
        assert!(why.contains(said), "{why}");
    };
    refused(samples(10, 3).map(drop), "3 labels and 10 inputs are no samples of one width");
    refused(samples(1, 0).map(drop), "0 labels and 1 inputs");
    let four = samples(12, 4).unwrap();
    refused(model.pick(&four, 0..1, &stream), "of the 0 places of the order");
    refused(four.arrange(&[0, 4], &stream), "sample 4 does not exist; there are 4");
    refused(four.arrange(&[0; 5], &stream), "an order of 5 samples is longer than the 4");
    four.arrange(&[3, 0, 3], &stream).unwrap();
    model.pick(&four, 1..3, &stream).unwrap();
    model.pick(&four, 3..3, &stream).unwrap();
    refused(model.pick(&four, 0..3, &stream), "at most 2 rows");
    refused(model.pick(&four, 2..4, &stream), "of the 3 places of the order");
    refused(
        model.pick(&samples(8, 4).unwrap(), 0..0, &stream),
        "samples of 2 inputs are no batch of a model that has 3",
    );
}
