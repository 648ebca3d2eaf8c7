// SPDX-License-Identifier: MPL-2.0
//! Collectives with a count for each rank, against the reference, bit for bit.
#![cfg(target_os = "linux")]

mod ranks;

use annulus::reference::check::{Request, compare};
use annulus::reference::inputs;
use annulus::{Communicator, Error, FoldOrder, ReduceOp, bf16};
use ranks::{everywhere, threads};

/// Counts of ranks, unequal, with some that have nothing; below and above what rides in the entry record.
fn all_counts(world: usize) -> Vec<Vec<usize>> {
    let pattern = |counts: &[usize]| (0..world).map(|rank| counts[rank % counts.len()]).collect();
    vec![
        pattern(&[0]),
        pattern(&[3, 0, 1]),
        pattern(&[0, 700, 5]),
        pattern(&[1, 2, 3, 4]),
        pattern(&[2_000, 0, 0, 17]),
        pattern(&[9_001, 8_999, 1]),
    ]
}

/// Where rank `rank`'s part begins, and where it ends.
fn part(counts: &[usize], rank: usize) -> std::ops::Range<usize> {
    let start: usize = counts[..rank].iter().sum();
    start..start + counts[rank]
}

/// A buffer of that length: plain, or allocated.
macro_rules! buffer {
    ($comm:expr, $is_shared:expr, $contents:expr, $buffer:ident) => {
        let contents: Vec<bf16> = $contents;
        let mut shared = $comm.allocate::<bf16>(contents.len()).unwrap();
        let mut plain = contents.clone();
        shared.copy_from_slice(&contents);
        #[allow(unused_mut)]
        let mut $buffer: &mut [bf16] = if $is_shared { &mut shared } else { &mut plain };
    };
}

const NAN: bf16 = bf16::NAN;

fn gathers_and_scatters(comm: &Communicator, counts: &[usize], is_shared: bool, number: u64) {
    let (rank, world) = (comm.rank(), comm.world_size());
    let (total, root) = (counts.iter().sum::<usize>(), number as usize % world);
    let (own, is_root) = (part(counts, rank), rank == root);
    let inputs = inputs::random::<bf16>(11, number, counts);
    buffer!(comm, is_shared, inputs[rank].clone(), send);

    let expected = Request::AllGather.outputs(&inputs).unwrap();
    buffer!(comm, is_shared, vec![NAN; total], recv);
    comm.all_gather_v(send, recv, counts).unwrap();
    compare(recv, &expected[rank], rank).unwrap();
    recv.fill(NAN);
    recv[own.clone()].copy_from_slice(send);
    comm.all_gather_v_in_place(recv, counts).unwrap();
    compare(recv, &expected[rank], rank).unwrap();

    recv.fill(NAN);
    comm.gather_v(send, is_root.then_some(&mut *recv), counts, root).unwrap();
    if is_root {
        compare(recv, &expected[root], rank).unwrap();
        recv.fill(NAN);
        recv[own.clone()].copy_from_slice(send);
        comm.gather_v_in_place(recv, counts, root).unwrap();
        compare(recv, &expected[root], rank).unwrap();
    } else {
        comm.gather_v_in_place(send, counts, root).unwrap();
        compare(send, &inputs[rank], rank).unwrap();
    }

    // What was gathered is dealt out again.
    buffer!(comm, is_shared, expected[root].clone(), all);
    send.fill(NAN);
    comm.scatter_v(is_root.then_some(&*all), send, counts, root).unwrap();
    compare(send, &inputs[rank], rank).unwrap();
    if is_root {
        comm.scatter_v_in_place(all, counts, root).unwrap();
        compare(all, &expected[root], rank).unwrap();
    } else {
        send.fill(NAN);
        comm.scatter_v_in_place(send, counts, root).unwrap();
        compare(send, &inputs[rank], rank).unwrap();
    }
}

fn reduce_scatters(comm: &Communicator, counts: &[usize], is_shared: bool, number: u64) {
    let rank = comm.rank();
    let inputs = inputs::cancelling::<bf16>(12, number, &vec![counts.iter().sum(); comm.world_size()]);
    let request = Request::ReduceScatter { order: &FoldOrder::Rank, op: ReduceOp::Avg, counts };
    let expected = request.outputs(&inputs).unwrap();
    buffer!(comm, is_shared, inputs[rank].clone(), send);
    buffer!(comm, is_shared, vec![NAN; counts[rank]], recv);
    comm.reduce_scatter_v(send, recv, counts, ReduceOp::Avg).unwrap();
    compare(recv, &expected[rank], rank).unwrap();
    comm.reduce_scatter_v_in_place(send, counts, ReduceOp::Avg).unwrap();
    let own = part(counts, rank);
    compare(&send[own.clone()], &expected[rank], rank).unwrap();
    let elsewhere = |place: &usize| !own.contains(place);
    assert!((0..send.len()).filter(elsewhere).all(|place| send[place].to_bits() == inputs[rank][place].to_bits()));
}

/// Rank r sends to rank i as many as a function of both says.
fn all_to_alls(comm: &Communicator, is_shared: bool, number: u64, count: impl Fn(usize, usize) -> usize) {
    let (rank, world) = (comm.rank(), comm.world_size());
    let rows: Vec<Vec<usize>> = (0..world).map(|from| (0..world).map(|to| count(from, to)).collect()).collect();
    let receives: Vec<usize> = rows.iter().map(|row| row[rank]).collect();
    let lengths: Vec<usize> = rows.iter().map(|row| row.iter().sum()).collect();
    let inputs = inputs::random::<bf16>(13, number, &lengths);
    let expected = Request::AllToAll { counts: &rows }.outputs(&inputs).unwrap();
    buffer!(comm, is_shared, inputs[rank].clone(), send);
    buffer!(comm, is_shared, vec![NAN; receives.iter().sum()], recv);
    comm.all_to_all_v(send, &rows[rank], recv, &receives).unwrap();
    compare(recv, &expected[rank], rank).unwrap();
    let (send, recv) = (send.to_vec(), vec![NAN; recv.len()]);
    let (_, recv) = comm.start_all_to_all_v(send, &rows[rank], recv, &receives).unwrap().wait().unwrap();
    compare(&recv, &expected[rank], rank).unwrap();
}

#[test]
fn counts_that_differ() {
    for world in 1..=5 {
        everywhere(world, "counts_that_differ", |comm| {
            for (number, counts) in all_counts(world).iter().enumerate() {
                for is_shared in [false, true] {
                    gathers_and_scatters(&comm, counts, is_shared, number as u64);
                    reduce_scatters(&comm, counts, is_shared, number as u64);
                }
            }
            for is_shared in [false, true] {
                all_to_alls(&comm, is_shared, 0, |from, to| (3 * from + 5 * to) % 7);
                all_to_alls(&comm, is_shared, 1, |from, to| if from < to { 0 } else { 1_500 * (from + 1) + to });
                all_to_alls(&comm, is_shared, 2, |_, _| 0);
            }
        });
    }
}

#[test]
fn started() {
    everywhere(3, "started", |comm| {
        let (rank, counts) = (comm.rank(), [4, 0, 9_000]);
        let inputs = inputs::random::<bf16>(14, 0, &counts);
        let expected = Request::AllGather.outputs(&inputs).unwrap();
        let all = comm.start_all_gather_v(inputs[rank].clone(), vec![NAN; 9_004], &counts).unwrap();
        let here = (rank == 2).then(|| vec![NAN; 9_004]);
        let at_root = comm.start_gather_v(inputs[rank].clone(), here, &counts, 2).unwrap();
        let dealt = (rank == 1).then(|| expected[1].clone());
        let part = comm.start_scatter_v(dealt, vec![NAN; counts[rank]], &counts, 1).unwrap();
        let max = comm.start_reduce_scatter_v(expected[rank].clone(), vec![NAN; counts[rank]], &counts, ReduceOp::Max);
        compare(&max.unwrap().wait().unwrap().1, &inputs[rank], rank).unwrap();
        compare(&part.wait().unwrap().1, &inputs[rank], rank).unwrap();
        compare(&all.wait().unwrap().1, &expected[rank], rank).unwrap();
        if let Some(gathered) = at_root.wait().unwrap().1 {
            compare(&gathered, &expected[2], rank).unwrap();
        }
    });
}

#[test]
fn ranks_that_disagree_are_told() {
    threads(2, |comm| {
        let counts = [[1, 2], [2, 1]][comm.rank()];
        let error = comm.all_gather_v(&vec![1_u32; counts[comm.rank()]], &mut [0; 3], &counts).unwrap_err();
        let Error::Mismatch(sentence) = &error else { panic!("{error}") };
        assert!(sentence.contains("rank 0 calls all_gather_v(u32, 3) with the counts"), "{sentence}");
    });
    threads(2, |comm| {
        let (sends, receives) = ([[1, 2], [3, 0]][comm.rank()], [[1, 3], [1, 0]][comm.rank()]);
        let (send, mut recv) = (vec![0_u8; 3], vec![0; receives.iter().sum()]);
        let error = comm.all_to_all_v(&send, &sends, &mut recv, &receives).unwrap_err();
        assert_eq!(
            error.to_string(),
            "all_to_all_v: rank 0 sends 2 elements to rank 1, which expects 1; both must name the same count"
        );
    });
}

#[test]
fn what_one_rank_can_see_wrong_is_said() {
    threads(2, |comm| {
        let refused = |result: annulus::Result<()>, part: &str| match result {
            Err(Error::InvalidArgument(sentence)) if sentence.contains(part) => {}
            other => panic!("{part}: {other:?}"),
        };
        let two = &mut [0_u8; 2][..];
        refused(comm.all_gather_v(&[1_u8], two, &[1]), "there are 1 counts; pass one for each of the 2 ranks");
        refused(comm.all_gather_v(&[1_u8], two, &[2, 2]), "by the counts they must have 2 and 4");
        refused(comm.scatter_v(None, two, &[1, 1], 2), "there is no rank 2");
        refused(comm.gather_v_in_place(two, &[9, 9], comm.rank()), "by the counts it must have 18");
        refused(comm.all_to_all_v(&[1_u8], &[1, 1], two, &[1, 1]), "send has 1 elements; its counts must add up");
        refused(comm.all_to_all_v(&[1_u8], &[1, 0], two, &[usize::MAX, 3]), "recv has 2 elements; its counts");
        refused(comm.all_gather_v(&[1_u8], two, &[usize::MAX, 1]), "by the counts");
        // Before the ranks' counts are exchanged, for which there is such an algorithm.
        comm.set_algorithm(Some("ring")).unwrap();
        refused(comm.all_to_all_v(&[1_u8; 2], &[1, 1], two, &[1, 1]), "there is no algorithm ring for all_to_all");
        comm.barrier().unwrap();
        assert_eq!(comm.last_call().unwrap().call, 0);
        comm.set_algorithm(Some("bruck")).unwrap();
        comm.all_to_all_v(&[1_u8; 2], &[1, 1], two, &[1, 1]).unwrap();
    });
}
