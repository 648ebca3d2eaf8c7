// SPDX-License-Identifier: MPL-2.0
//! The reference of the collectives in which ranks play different parts, and what it refuses.

use annulus::reference::check::{Request, check};
use annulus::reference::{self, inputs};
use annulus::{FoldOrder, ReduceOp, Result, bf16};

const NOTHING: [[i32; 2]; 0] = [];

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, words: &str) {
    let sentence = result.expect_err("it must be refused").to_string();
    assert!(sentence.contains(words), "{sentence}");
}

#[test]
fn one_rank_gives_or_gets() {
    let inputs = [[1, 2], [30, 40], [500, 600]];
    let (order, op) = (&FoldOrder::Rank, ReduceOp::Sum);
    assert_eq!(reference::reduce(order, op, &inputs, 1).unwrap(), [vec![], vec![531, 642], vec![]]);
    assert_eq!(reference::gather(&inputs, 2).unwrap(), [vec![], vec![], vec![1, 2, 30, 40, 500, 600]]);
    assert_eq!(reference::scatter(&inputs, 1, &[0, 1, 1]).unwrap(), [vec![], vec![30], vec![40]]);
    refused(reference::reduce(order, op, &inputs, 3), "the root is rank 3, but there are 3 ranks");
    refused(reference::gather(&inputs, 3), "the root is rank 3, but there are 3 ranks");
    refused(reference::gather(&NOTHING, 0), "there are no inputs");
    refused(reference::scatter(&inputs, 3, &[1, 1, 0]), "the root is rank 3, but there are 3 ranks");
    refused(reference::scatter(&inputs, 0, &[1, 1]), "there are 2 counts for 3 ranks");
    refused(reference::scatter(&inputs, 0, &[1, 1, 1]), "the counts add up to 3 elements; rank 0's input has 2");
}

#[test]
fn all_to_all_transposes() {
    let inputs = [vec![0, 1, 2], vec![10, 11, 12], vec![20, 21, 22]];
    assert_eq!(reference::all_to_all(&inputs, &[[1; 3]; 3]).unwrap(), [[0, 10, 20], [1, 11, 21], [2, 12, 22]]);
    let counts = [[3, 0, 0], [1, 1, 1], [0, 3, 0]];
    let expected = [vec![0, 1, 2, 10], vec![11, 20, 21, 22], vec![12]];
    assert_eq!(reference::all_to_all(&inputs, &counts).unwrap(), expected);
    refused(reference::all_to_all(&inputs, &[[1; 3]; 2]), "there are 2 rows of counts for 3 ranks");
    refused(reference::all_to_all(&inputs, &[[1; 2]; 3]), "there are 2 counts for 3 ranks");
    refused(reference::all_to_all(&inputs, &[[2; 3]; 3]), "the counts add up to 6 elements; rank 0's input has 3");
}

#[test]
fn prefixes_are_rounded_once() {
    // In bf16, 256 + 1 is 256: rounded on the way, the last prefix would be 256 too.
    let inputs = [256.0, 1.0, 1.0].map(|x| [bf16::from_f32(x)]);
    let expected = [256.0, 256.0, 258.0].map(|x| vec![bf16::from_f32(x)]);
    assert_eq!(reference::scan(ReduceOp::Sum, &inputs).unwrap(), expected);
    let expected = [vec![], expected[0].clone(), expected[1].clone()];
    assert_eq!(reference::exclusive_scan(ReduceOp::Sum, &inputs).unwrap(), expected);
    refused(reference::scan(ReduceOp::Avg, &inputs), "a scan has no average");
    refused(reference::exclusive_scan(ReduceOp::Avg, &inputs), "a scan has no average");
    refused(reference::scan(ReduceOp::Sum, &[vec![1], vec![]]), "give all the same length");
    refused(reference::exclusive_scan(ReduceOp::Sum, &NOTHING), "there are no inputs");
}

#[test]
fn requests_give_the_same() {
    let (order, op) = (&FoldOrder::Tree, ReduceOp::Max);
    let inputs = inputs::random::<f32>(3, 1, &[6; 3]);
    let (counts, matrix) = ([1, 2, 3], vec![vec![2; 3]; 3]);
    let requests = [
        (Request::Reduce { order, op, root: 2 }, reference::reduce(order, op, &inputs, 2)),
        (Request::Scatter { root: 1, counts: &counts }, reference::scatter(&inputs, 1, &counts)),
        (Request::Gather { root: 0 }, reference::gather(&inputs, 0)),
        (Request::AllToAll { counts: &matrix }, reference::all_to_all(&inputs, &matrix)),
        (Request::Scan { op }, reference::scan(op, &inputs)),
        (Request::ExclusiveScan { op }, reference::exclusive_scan(op, &inputs)),
    ];
    for (request, outputs) in requests {
        for (rank, output) in outputs.unwrap().iter().enumerate() {
            assert_eq!(check(output, &inputs, &request, rank), Ok(()));
        }
    }
}
