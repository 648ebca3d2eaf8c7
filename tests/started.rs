// SPDX-License-Identifier: MPL-2.0
//! The started form of every collective, owned and borrowed, in and out of place: what it yields is what the blocking
//! form yields, whichever is awaited first.
#![cfg(target_os = "linux")]

mod ranks;

use annulus::{Communicator, Operator, ReduceOp, run};
use ranks::everywhere;

const SUM: ReduceOp = ReduceOp::Sum;

/// What this rank contributes, and nobody else.
fn own(comm: &Communicator, len: usize) -> Vec<u64> {
    (0..len).map(|i| (comm.rank() as u64 + 1) * 1_000_000 + i as u64).collect()
}

/// What the blocking form yields.
fn blocking<const N: usize>(len: usize, call: impl FnOnce(&mut [u64]) -> annulus::Result<()>) -> Vec<u64> {
    let mut recv = vec![0; N * len];
    call(&mut recv).unwrap();
    recv
}

#[test]
fn owned() {
    const WORLD: usize = 3;
    everywhere(WORLD, "owned", |comm| {
        for len in [1, 4_000] {
            let (one, all) = (own(&comm, len), own(&comm, WORLD * len));
            let root = 1;
            let is_root = comm.rank() == root;
            let zeros = |parts: usize| vec![0_u64; parts * len];

            let expected = [
                blocking::<1>(len, |recv| comm.all_reduce(&one, recv, SUM)),
                blocking::<1>(len, |recv| comm.reduce_scatter(&all, recv, SUM)),
                blocking::<1>(len, |recv| comm.scan(&one, recv, SUM)),
                blocking::<1>(len, |recv| comm.exclusive_scan(&one, recv, SUM)),
                blocking::<WORLD>(len, |recv| comm.all_gather(&one, recv)),
                blocking::<WORLD>(len, |recv| comm.all_to_all(&all, recv)),
            ];
            let started = [
                comm.start_all_reduce(one.clone(), zeros(1), SUM).unwrap(),
                comm.start_reduce_scatter(all.clone(), zeros(1), SUM).unwrap(),
                comm.start_scan(one.clone(), zeros(1), SUM).unwrap(),
                comm.start_exclusive_scan(one.clone(), zeros(1), SUM).unwrap(),
                comm.start_all_gather(one.clone(), zeros(WORLD)).unwrap(),
                comm.start_all_to_all(all.clone(), zeros(WORLD)).unwrap(),
            ];
            comm.start_barrier().unwrap().wait().unwrap();
            for (started, expected) in started.into_iter().zip(&expected).rev() {
                assert_eq!(started.wait().unwrap().1, *expected);
            }

            let sum = comm.start_reduce(one.clone(), is_root.then(|| zeros(1)), SUM, root).unwrap();
            let gathered = comm.start_gather(one.clone(), is_root.then(|| zeros(WORLD)), root).unwrap();
            let everywhere = comm.start_broadcast(is_root.then(|| one.clone()), zeros(1), root).unwrap();
            let dealt = comm.start_scatter(is_root.then(|| expected[4].clone()), zeros(1), root).unwrap();
            assert_eq!(dealt.wait().unwrap().1, one);
            assert_eq!(everywhere.wait().unwrap().1, expected[4][root * len..(root + 1) * len]);
            assert_eq!(gathered.wait().unwrap().1, is_root.then(|| expected[4].clone()));
            assert_eq!(sum.wait().unwrap().1, is_root.then(|| expected[0].clone()));

            let mut parts = zeros(WORLD);
            let place = comm.rank() * len..(comm.rank() + 1) * len;
            parts[place.clone()].copy_from_slice(&one);
            let whole = if is_root { expected[4].clone() } else { zeros(1) };
            let started = [
                comm.start_all_reduce_in_place(one.clone(), SUM).unwrap(),
                comm.start_reduce_scatter_in_place(all.clone(), SUM).unwrap(),
                comm.start_scan_in_place(one.clone(), SUM).unwrap(),
                comm.start_all_gather_in_place(parts.clone()).unwrap(),
                comm.start_all_to_all_in_place(all.clone()).unwrap(),
                comm.start_broadcast_in_place(one.clone(), root).unwrap(),
                comm.start_gather_in_place(if is_root { parts } else { one.clone() }, root).unwrap(),
                comm.start_scatter_in_place(whole, root).unwrap(),
                // The ninth waits for the first.
                comm.start_reduce_in_place(one.clone(), SUM, root).unwrap(),
                comm.start_exclusive_scan_in_place(one.clone(), SUM).unwrap(),
            ];
            let got = started.map(|started| started.wait().unwrap());
            assert_eq!(got[0], expected[0]);
            assert_eq!(got[1][place.clone()], expected[1]);
            assert_eq!(got[2], expected[2]);
            assert_eq!(got[3], expected[4]);
            assert_eq!(got[4], expected[5]);
            assert_eq!(got[5], expected[4][root * len..(root + 1) * len]);
            assert_eq!(got[6], if is_root { expected[4].clone() } else { one.clone() });
            assert_eq!(got[7][if is_root { place } else { 0..len }], one);
            assert_eq!(got[8], if is_root { expected[0].clone() } else { one.clone() });
            assert_eq!(got[9], if comm.rank() == 0 { one.clone() } else { expected[3].clone() });
        }
    });
}

#[test]
fn borrowed() {
    run(2, |comm| {
        let (one, all) = (own(&comm, 500), own(&comm, 1_000));
        let is_root = comm.rank() == 0;
        let (mut sum, mut part, mut root_sum, mut gathered) =
            (vec![0; 500], vec![0; 500], vec![0; 500], vec![0; 1_000]);
        let (mut sent, mut dealt, mut swapped, mut prefix) = (vec![0; 500], vec![0; 500], vec![0; 1_000], one.clone());
        comm.scope(|scope| {
            let first = scope.start_all_reduce(&one, &mut sum, SUM)?;
            let _ = scope.start_reduce_scatter(&all, &mut part, SUM)?;
            let _ = scope.start_reduce(&one, is_root.then_some(&mut root_sum[..]), SUM, 0)?;
            let _ = scope.start_gather(&one, is_root.then_some(&mut gathered[..]), 0)?;
            let _ = scope.start_broadcast(is_root.then_some(&one[..]), &mut sent, 0)?;
            let _ = scope.start_scatter(is_root.then_some(&all[..]), &mut dealt, 0)?;
            let _ = scope.start_all_to_all(&all, &mut swapped)?;
            let _ = scope.start_scan_in_place(&mut prefix, SUM)?;
            first.wait()?;
            Ok(())
        })?;
        let (zero, rank) = (1_000_000_u64, comm.rank() as u64);
        assert_eq!((sum[3], part[3]), (3 * zero + 6, 3 * zero + 2 * (500 * rank + 3)));
        assert_eq!((root_sum[3], gathered[503]), if is_root { (sum[3], 2 * zero + 3) } else { (0, 0) });
        assert_eq!((sent[3], dealt[3]), (zero + 3, zero + 500 * rank + 3));
        assert_eq!((swapped[3], swapped[503]), (zero + 500 * rank + 3, 2 * zero + 500 * rank + 3));
        assert_eq!(prefix[3], if is_root { zero + 3 } else { 3 * zero + 6 });
        Ok(())
    })
    .unwrap();
}

/// Counts of three ranks, and what lies before and behind each rank's.
const COUNTS: [usize; 3] = [3, 0, 2_000];

#[test]
fn with_a_count_for_each_rank_in_place() {
    everywhere(3, "with_a_count_for_each_rank_in_place", |comm| {
        let (rank, root, total) = (comm.rank(), 2, COUNTS.iter().sum());
        let before: usize = COUNTS[..rank].iter().sum();
        let (place, is_root) = (before..before + COUNTS[rank], rank == root);
        let whole = own(&comm, total);
        let mine = whole[place.clone()].to_vec();
        let mut gathered = vec![0; total];
        comm.all_gather_v(&mine, &mut gathered, &COUNTS).unwrap();
        let mut part = vec![0; COUNTS[rank]];
        comm.reduce_scatter_v(&whole, &mut part, &COUNTS, SUM).unwrap();

        let all = comm.start_all_gather_v_in_place(whole.clone(), &COUNTS).unwrap();
        let sums = comm.start_reduce_scatter_v_in_place(whole.clone(), &COUNTS, SUM).unwrap();
        let at_root = comm.start_gather_v_in_place(if is_root { whole.clone() } else { mine.clone() }, &COUNTS, root);
        let dealt = if is_root { gathered.clone() } else { vec![0; COUNTS[rank]] };
        let dealt = comm.start_scatter_v_in_place(dealt, &COUNTS, root).unwrap().wait().unwrap();
        assert_eq!(dealt[if is_root { place.clone() } else { 0..COUNTS[rank] }], mine);
        assert_eq!(at_root.unwrap().wait().unwrap(), if is_root { gathered.clone() } else { mine.clone() });
        assert_eq!(sums.wait().unwrap()[place.clone()], part);
        assert_eq!(all.wait().unwrap(), gathered);

        let (mut all, mut sums) = (whole.clone(), whole.clone());
        comm.scope(|scope| {
            let _ = scope.start_all_gather_v_in_place(&mut all, &COUNTS)?;
            scope.start_reduce_scatter_v_in_place(&mut sums, &COUNTS, SUM)?.wait().map(drop)
        })
        .unwrap();
        assert_eq!((all, &sums[place]), (gathered, &part[..]));
    });
}

#[test]
fn by_an_operation_of_ones_own() {
    everywhere(3, "by_an_operation_of_ones_own", |comm| {
        // Neither commutative nor with a fold of its own: the last that is not a multiple of three.
        let last = Operator::ordered("the last but threes", |a: &mut [u64], b: &[u64]| {
            for (a, b) in a.iter_mut().zip(b) {
                *a = if b.is_multiple_of(3) { *a } else { *b };
            }
        });
        let (root, len) = (1, 1_000);
        let (one, is_root) = (own(&comm, len), comm.rank() == root);
        let fold = |len: usize, call: &dyn Fn(&mut [u64]) -> annulus::Result<()>| {
            let mut recv = vec![0; len];
            call(&mut recv).unwrap();
            recv
        };
        let sum = fold(len, &|recv| comm.all_reduce_with(&one, recv, &last));
        let scan = fold(len, &|recv| comm.scan_with(&one, recv, &last));
        let exclusive = fold(len, &|recv| comm.exclusive_scan_with(&one, recv, &last));
        assert_ne!(sum, fold(len, &|recv| comm.all_reduce(&one, recv, SUM)));

        let to_root = comm.start_reduce_with(one.clone(), is_root.then(|| vec![0; len]), &last, root).unwrap();
        let scans = [
            comm.start_scan_with(one.clone(), vec![0; len], &last).unwrap(),
            comm.start_exclusive_scan_with(one.clone(), vec![0; len], &last).unwrap(),
        ];
        let in_place = [
            comm.start_reduce_in_place_with(one.clone(), &last, root).unwrap(),
            comm.start_scan_in_place_with(one.clone(), &last).unwrap(),
            comm.start_exclusive_scan_in_place_with(one.clone(), &last).unwrap(),
        ];
        let [at_root, scanned, before] = in_place.map(|started| started.wait().unwrap());
        assert_eq!(scans.map(|started| started.wait().unwrap().1), [scan.clone(), exclusive.clone()]);
        assert_eq!(to_root.wait().unwrap().1, is_root.then(|| sum.clone()));
        assert_eq!(at_root, if is_root { sum.clone() } else { one.clone() });
        assert_eq!(scanned, scan);
        assert_eq!(before, if comm.rank() == 0 { one.clone() } else { exclusive });

        let mut recv = vec![0; len];
        comm.scope(|scope| scope.start_scan_with(&one, &mut recv, &last)?.wait().map(drop)).unwrap();
        assert_eq!(recv, scan);
    });
}

#[test]
fn borrowed_messages_counts_and_barriers() {
    everywhere(2, "borrowed_messages_counts_and_barriers", |comm| {
        let (rank, peer) = (comm.rank(), 1 - comm.rank());
        let mine = own(&comm, 5_000);
        let (mut theirs, mut parts) = (vec![0; 5_000], vec![0; 3 + rank]);
        // Rank 0 sends two elements to each rank; rank 1 sends one to rank 0, and keeps two.
        let (sends, receives) = ([[2, 2], [1, 2]][rank], [[2, 1], [2, 2]][rank]);
        comm.scope(|scope| {
            let _ = scope.start_recv(&mut theirs, peer)?;
            let sent = scope.start_send(&mine, peer)?;
            let swapped = scope.start_all_to_all_v(&mine[..sends[0] + sends[1]], &sends, &mut parts, &receives)?;
            scope.start_barrier()?.wait()?;
            swapped.wait()?;
            assert_eq!(sent.wait()?.len(), mine.len());
            Ok(())
        })
        .unwrap();
        assert_eq!((theirs[0], theirs[4_999]), ((peer as u64 + 1) * 1_000_000, (peer as u64 + 1) * 1_000_000 + 4_999));
        let of = |rank: u64, range: std::ops::Range<u64>| range.map(move |i| (rank + 1) * 1_000_000 + i);
        let expected: Vec<u64> = match rank {
            0 => of(0, 0..2).chain(of(1, 0..1)).collect(),
            _ => of(0, 2..4).chain(of(1, 1..3)).collect(),
        };
        assert_eq!(parts, expected);
    });
}
