// SPDX-License-Identifier: MPL-2.0
//! The proof: any number of ranks equals one; and planted faults make it fail.

use annulus::ddp::Fault;
use annulus::optim::Rule;
use annulus::train::{self, Choice, Config, Report};

use super::simulated::absent;
use super::threads;

fn report(config: &Config) -> Report {
    let prepared = config.prepare().unwrap();
    threads(config.ranks, |comm| train::run(comm, config, &prepared, &|_| ())).swap_remove(0)
}

fn small(ranks: usize) -> Config {
    let device = Choice::Devices("sim");
    Config { device, ranks, hidden: vec![12], batch: 8, steps: Some(3), ..Config::default() }
}

#[test]
fn several_ranks_equal_one() {
    if absent() {
        return;
    }
    let rules = [Rule::Sgd { rate: 0.1, momentum: 0.9 }, Rule::AdamW { rate: 0.01 }];
    for (ranks, rule) in [(1, rules[0]), (2, rules[1]), (3, rules[0]), (4, rules[1])] {
        let report = report(&Config { rule, ..small(ranks) });
        assert!(report.is_verified(), "{ranks} ranks, {rule:?}: {:?}", report.differences);
        assert_eq!((report.device, report.step_losses.len()), ("sim", 3));
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
