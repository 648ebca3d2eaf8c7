// SPDX-License-Identifier: MPL-2.0
//! The proof: any number of ranks equals one; and planted faults make it fail.

use annulus::ddp::device::Settings;
use annulus::ddp::{DeviceDdp, Fault};
use annulus::optim::Rule;
use annulus::train::Config;

use super::simulated::{absent, open};
use super::{kind, report, small, threads};

#[test]
fn several_ranks_equal_one() {
    if absent() {
        return;
    }
    let rules = [Rule::Sgd { rate: 0.1, momentum: 0.9 }, Rule::AdamW { rate: 0.01 }];
    for (ranks, rule) in [(1, rules[0]), (2, rules[1]), (3, rules[0]), (4, rules[1])] {
        let report = report(&Config { rule, ..small(ranks) });
        assert!(report.is_verified(), "{ranks} ranks, {rule:?}: {:?}", report.differences);
        assert_eq!((report.device, report.step_losses.len()), (kind(), 3));
    }
}

/// Batches of 3 x 479 leave one sample for the second step: shares of 1, 0 and 0.
#[test]
fn ranks_without_samples_make_every_step() {
    if absent() {
        return;
    }
    let report = report(&Config { batch: 479, ..small(3) });
    assert!(report.is_verified(), "{:?}", report.differences);
    assert_eq!(report.samples, 2 * 1438 - 1);
}

/// Five steps an epoch, of which the last has 238 samples: two kinds of steps, each captured, and each replayed.
#[test]
fn replayed_steps_equal_eager_steps() {
    if absent() {
        return;
    }
    for rule in [Rule::Sgd { rate: 0.1, momentum: 0.9 }, Rule::AdamW { rate: 0.01 }] {
        let [replayed, eager] = [true, false].map(|replay| {
            let config = Config { rule, replay, batch: 100, steps: Some(12), bucket_bytes: 0, ..small(3) };
            let report = report(&config);
            assert!(report.is_verified(), "{:?}", report.differences);
            let losses: Vec<u32> = report.step_losses.iter().map(|loss| loss.to_bits()).collect();
            (losses, report.parameters_checksum)
        });
        assert_eq!(replayed, eager);
    }
}

/// Steps of more kinds than are kept as graphs: some are captured, the others enqueued.
#[test]
fn steps_of_many_kinds_mix_replays_and_kernels() {
    if absent() {
        return;
    }
    let rule = Rule::AdamW { rate: 0.01 };
    let start = vec![vec![0.25_f32; 6], vec![0.5; 2]];
    let [replayed, eager] = [true, false].map(|replay| {
        let settings =
            Settings { widths: &[3, 2], rows: 1, steps: 20, rule, loss_scale: None, bucket_bytes: 0, replay };
        threads(2, |comm| {
            let mut ddp = DeviceDdp::<f32>::new(&comm, &open(0)?, &settings, &start)?;
            ddp.rehearse(&comm, &[(1, 1.0), (1, 2.0), (1, 1.0)])?;
            assert_eq!(ddp.captured(), if replay { 2 } else { 0 });
            for step in 0..20 {
                let inputs = [1.0, comm.rank() as f32, 0.1 * step as f32];
                ddp.step(&inputs, &[step % 2], 1.0 + (step % 6) as f32)?;
            }
            assert!(ddp.step(&[], &[], 1.0).is_err(), "there is no room for another loss");
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            Ok((bits(ddp.losses()?), bits(ddp.parameters()?.concat()), ddp.captured()))
        })
        .swap_remove(0)
    });
    assert_eq!((replayed.2, eager.2), (4, 0));
    assert_eq!((replayed.0, replayed.1), (eager.0, eager.1));
}

#[test]
fn the_buckets_do_not_matter() {
    if absent() {
        return;
    }
    let checksums = [0, 1 << 20].map(|bucket_bytes| {
        let report = report(&Config { bucket_bytes, hidden: vec![12, 9], ..small(2) });
        assert!(report.is_verified(), "{:?}", report.differences);
        report.parameters_checksum
    });
    assert_eq!(checksums, [checksums[0]; 2]);
}

#[test]
fn each_planted_fault_is_noticed() {
    if absent() {
        return;
    }
    for (fault, steps, replicas_identical, place) in [
        // Bucket 0 has the last layer alone; the first is right after one step.
        (Fault::SkippedBucket, 1, false, "layers.1.weight["),
        (Fault::SwappedRanks, 1, true, "layers.0.weight["),
        (Fault::StaleGradient, 2, true, "layers.0.weight["),
        (Fault::ReciprocalAverage, 1, true, "layers.0.weight["),
    ] {
        let config = Config { steps: Some(steps), bucket_bytes: 0, fault: Some(fault), ..small(3) };
        let report = report(&config);
        assert_eq!((report.replicas_identical, report.equal_to_one_rank), (replicas_identical, false), "{fault:?}");
        let sentence = report.differences.last().unwrap();
        assert!(sentence.starts_with(place) && sentence.ends_with("after one"), "{fault:?}: {sentence}");
    }
}
