// SPDX-License-Identifier: MPL-2.0
//! Gradients in buckets: the averages, whatever the buckets, and what happens around a backward pass.
#![cfg(feature = "train")]

use std::rc::Rc;

use annulus::ddp::{self, BUCKET_BYTES, Ddp};
use annulus::nn::{Mlp, Module};
use annulus::record::Clock;
use annulus::reference::{self, inputs};
use annulus::tensor::Tensor;
use annulus::{Error, FoldOrder, ReduceOp, Result, run};

const WIDTHS: [usize; 8] = [6, 17, 5, 9, 12, 4, 8, 3];

/// This rank's own batch of four rows.
fn loss(model: &Mlp, rank: usize) -> Result<Tensor> {
    let rows = inputs::random::<f32>(5, rank as u64, &[4 * 6]).remove(0);
    model.forward(&Tensor::new(rows, &[4, 6])?)?.cross_entropy(&[0, 1, 2, 1], 4.0)
}

fn gradients(model: &Mlp) -> Result<Vec<Vec<u32>>> {
    let gradient = |parameter: &Tensor| parameter.grad().unwrap().read().map(|grad| bits(&grad));
    model.parameters().iter().map(gradient).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn gradients_are_the_averages_in_rank_order_whatever_the_buckets() {
    // Each parameter by itself (more buckets than calls in flight), some together, all in one.
    for (bucket_bytes, buckets) in [(0, 14), (300, 4), (BUCKET_BYTES, 1)] {
        for ranks in [1, 2, 3, 5] {
            let own: Vec<Vec<Vec<f32>>> = (0..ranks)
                .map(|rank| {
                    let model = Mlp::new(&WIDTHS, 0).unwrap();
                    loss(&model, rank).unwrap().backward().unwrap();
                    model
                        .parameters()
                        .iter()
                        .map(|parameter| parameter.grad().unwrap().read().unwrap().to_vec())
                        .collect()
                })
                .collect();
            let right: Vec<Vec<u32>> = (0..own[0].len())
                .map(|place| {
                    let parts: Vec<&[f32]> = own.iter().map(|rank| &rank[place][..]).collect();
                    bits(&reference::fold(&FoldOrder::Rank, ReduceOp::Avg, &parts).unwrap())
                })
                .collect();
            let got = run(ranks, |comm| {
                let rank = comm.rank();
                let model = Mlp::new(&WIDTHS, 0)?;
                let mut ddp = Ddp::new(Rc::new(comm), &model.parameters(), bucket_bytes)?;
                assert_eq!(ddp.buckets()?, buckets);
                for _ in 0..3 {
                    model.parameters().iter().try_for_each(Tensor::zero_grad)?;
                    loss(&model, rank)?.backward()?;
                    ddp.finish()?;
                }
                gradients(&model)
            });
            assert_eq!(got.unwrap(), vec![right; ranks], "{ranks} ranks, buckets of {bucket_bytes} bytes");
        }
    }
}

#[test]
fn the_small_default_model_has_several_buckets() {
    let buckets =
        run(1, |comm| Ddp::new(Rc::new(comm), &Mlp::new(&[64, 64, 64, 10], 0)?.parameters(), BUCKET_BYTES)?.buckets());
    assert_eq!(buckets.unwrap(), [2]);
}

#[test]
fn every_rank_begins_with_the_parameters_of_rank_0() {
    let checksums = run(3, |comm| {
        let model = Mlp::new(&WIDTHS, comm.rank() as u64)?;
        let before = ddp::checksum(&ddp::snapshot(&model.named_parameters())?);
        let _ddp = Ddp::new(Rc::new(comm), &model.parameters(), BUCKET_BYTES)?;
        Ok((before, ddp::checksum(&ddp::snapshot(&model.named_parameters())?)))
    });
    let checksums = checksums.unwrap();
    assert_ne!(checksums[0].0, checksums[1].0);
    assert!(checksums.iter().all(|(_, after)| *after == checksums[0].0), "{checksums:x?}");
}

#[test]
fn a_gradient_in_flight_is_an_error_until_finish() {
    run(2, |comm| {
        let rank = comm.rank();
        let model = Mlp::new(&WIDTHS, 0)?;
        let mut ddp = Ddp::new(Rc::new(comm), &model.parameters(), BUCKET_BYTES)?;
        loss(&model, rank)?.backward()?;
        let away = gradients(&model).unwrap_err().to_string();
        assert!(away.starts_with("gradient bucket 0 is away"), "{away}");
        let again = loss(&model, rank)?.backward().unwrap_err().to_string();
        assert!(again.starts_with("gradient bucket 0 is away"), "{again}");
        ddp.finish()?;
        gradients(&model)?;
        Ok(())
    })
    .unwrap();
}

/// On rank 1 the last layer takes no part. The ranks make the same calls all the same.
#[test]
fn a_parameter_that_was_not_used_counts_as_zero() {
    let got = run(2, |comm| {
        let rank = comm.rank();
        let model = Mlp::new(&[6, 3, 3], 0)?;
        let mut ddp = Ddp::new(Rc::new(comm), &model.parameters(), 0)?;
        let rows = Tensor::new(vec![0.5; 6], &[1, 6])?;
        let whole = model.forward(&rows)?;
        let output = if rank == 0 { whole } else { model.layers[0].forward(&rows)? };
        output.cross_entropy(&[1], 1.0)?.backward()?;
        ddp.finish()?;
        gradients(&model)
    })
    .unwrap();
    assert_eq!(got[0], got[1]);
    let model = Mlp::new(&[6, 3, 3], 0).unwrap();
    let rows = Tensor::new(vec![0.5; 6], &[1, 6]).unwrap();
    model.forward(&rows).unwrap().cross_entropy(&[1], 1.0).unwrap().backward().unwrap();
    let half: Vec<f32> = model.layers[1].bias.grad().unwrap().read().unwrap().iter().map(|grad| grad / 2.0).collect();
    assert_eq!(got[0][3], bits(&half));
}

#[test]
fn ranks_with_different_models_are_told() {
    let failure = run(2, |comm| {
        let model = Mlp::new(&[6, 3 + comm.rank()], 0)?;
        Ddp::new(Rc::new(comm), &model.parameters(), BUCKET_BYTES).map(drop)
    })
    .unwrap_err();
    assert!(matches!(failure.error, Error::Mismatch(_)), "{failure}");
}

#[test]
fn a_rank_that_leaves_in_the_backward_pass_is_named() {
    let failure = run(3, |comm| {
        let rank = comm.rank();
        let model = Mlp::new(&WIDTHS, 0)?;
        let mut ddp = Ddp::new(Rc::new(comm), &model.parameters(), 0)?;
        if rank == 2 {
            return Ok(());
        }
        loss(&model, rank)?.backward()?;
        ddp.finish()
    })
    .unwrap_err();
    assert!(matches!(failure.error, Error::RankLost { rank: 2, .. }), "{failure}");
}

#[test]
fn the_accounts_add_up_to_the_wall_time() {
    run(2, |comm| {
        let rank = comm.rank();
        let model = Mlp::new(&WIDTHS, 0)?;
        let mut ddp = Ddp::new(Rc::new(comm), &model.parameters(), 0)?;
        let clock = Clock::new();
        let begin = clock.now();
        for _ in 0..5 {
            loss(&model, rank)?.backward()?;
            ddp.finish()?;
            ddp.blocking(|comm| comm.barrier())?;
        }
        let wall = clock.now() - begin;
        let times = ddp.times(wall)?;
        let (sum, whole) = (times.compute + times.wait + times.transfer, clock.duration(wall));
        assert!(sum.abs_diff(whole).as_nanos() < 100, "{times:?} of {whole:?}");
        assert!(times.overlapped <= times.compute, "{times:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn replicas_that_differ_are_named_with_the_place() {
    let found = run(3, |comm| {
        let mut parameters = vec![("a".to_owned(), vec![1.0, 2.0]), ("b".to_owned(), vec![3.0, 4.0])];
        assert_eq!(ddp::replica_difference(&comm, &parameters)?, None);
        if comm.rank() == 2 {
            parameters[1].1[0] = -3.0;
        }
        Ok(ddp::replica_difference(&comm, &parameters)?.unwrap().to_string())
    });
    assert_eq!(found.unwrap(), vec!["b[0] is 3 (40400000) on rank 0 and -3 (c0400000) on rank 2"; 3]);
}

/// The proof is worth what its two sides do not share.
#[test]
fn the_one_rank_imports_only_what_it_may() {
    let (source, _) = include_str!("../src/ddp/one_rank.rs").split_once("#[cfg(test)]").unwrap();
    let allowed = ["super::Recipe;", "crate::data::", "crate::error::", "crate::nn::", "crate::tensor::"];
    for import in source.lines().filter_map(|line| line.trim().strip_prefix("use ")) {
        assert!(allowed.iter().any(|room| import.starts_with(room)), "{import}");
    }
    assert_eq!(source.matches("crate::").count(), source.matches("\nuse crate::").count(), "a path past the imports");
    let recipe = include_str!("../src/ddp/recipe.rs");
    assert!(["communicator", "Ddp", "super::"].iter().all(|word| !recipe.contains(word)));
}
