// SPDX-License-Identifier: MPL-2.0
//! What is known of calls that have been done: waiting and moving apart, what ran, and what was said of it before.

use std::time::Duration;

use annulus::communicator::Question;
use annulus::kernel::Kernel;
use annulus::schedule::Collective;
use annulus::{DataType, DeviceCommunicator, ReduceOp};

use super::{absent, block, everywhere, on, threads};

#[test]
fn waiting_for_a_late_rank_is_told_apart_from_moving_data() {
    if absent() {
        return;
    }
    everywhere(3, "records::waiting_for_a_late_rank_is_told_apart_from_moving_data", |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.allocate::<f32>(1000).unwrap();
        assert_eq!(gpus.last_call(), None, "tests of the communicator's own are not calls");
        // On a busy machine another rank may be later, or stand still between its entry and telling the others: then
        // again.
        for _ in 0..50 {
            let open = (comm.rank() == 1).then(|| block(&stream));
            gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
            comm.barrier().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            drop(open);
            stream.synchronize().unwrap();
            let record = gpus.last_call().unwrap();
            let mut all = [0; 6];
            comm.all_gather(&[record.arrived, record.last_rank as u64], &mut all).unwrap();
            let [arrived, last] = [0, 1].map(|which| [all[which], all[2 + which], all[4 + which]]);
            assert!(record.arrived <= record.last_arrived && record.last_arrived <= record.done, "{record:?}");
            if arrived[1] <= arrived[0].max(arrived[2]) + 1_000_000 || last != [1; 3] {
                continue;
            }
            let least = Duration::from_nanos(arrived[1] - arrived[comm.rank()]);
            assert!(record.wait >= least, "{record:?}, {arrived:?}");
            assert_eq!(record.wait.is_zero(), comm.rank() == 1, "{record:?}");
            assert!(!record.transfer.is_zero(), "{record:?}");
            return;
        }
        panic!("rank 1 was never the last by a millisecond, or never said to be");
    });
}

#[test]
fn records_say_what_ran() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.device().allocate::<u16>(3000).unwrap();
        comm.barrier().unwrap();
        let open = block(&stream);
        gpus.all_reduce_in_place(&buffer.part(..10).unwrap(), ReduceOp::Max, &stream).unwrap();
        assert_eq!(gpus.last_call(), None, "it has not been done");
        drop(open);
        gpus.set_algorithm(Some("ring")).unwrap();
        gpus.all_reduce(&buffer.part(..10).unwrap(), &buffer.part(10..20).unwrap(), ReduceOp::Sum, &stream).unwrap();
        gpus.broadcast_in_place(&buffer, 1, &stream).unwrap();
        gpus.barrier(&stream).unwrap();
        stream.synchronize().unwrap();
        let calls = gpus.calls();
        let said: Vec<_> =
            calls.iter().map(|call| (call.call, call.collective, &*call.algorithm, call.bytes, call.op)).collect();
        let expected = [
            (0, Collective::AllReduce, "low_latency", 20, Some(ReduceOp::Max)),
            (1, Collective::AllReduce, "ring", 20, Some(ReduceOp::Sum)),
            (2, Collective::Broadcast, "broadcast", 6000, None),
            (3, Collective::Barrier, "barrier", 0, None),
        ];
        assert_eq!(said, expected);
        assert!(calls.iter().all(|call| call.path == "kernel" && call.last_rank < 2), "{calls:?}");
        assert_eq!(gpus.record(2).as_ref(), Some(&calls[2]));
        assert_eq!(gpus.record(4), None);
        // More than are remembered, and at a time not more than drivers take of a rank whose peer is late.
        for _ in 0..15 {
            (0..20).for_each(|_| gpus.barrier(&stream).unwrap());
            stream.synchronize().unwrap();
        }
        let numbers: Vec<u64> = gpus.calls().iter().map(|call| call.call).collect();
        assert!(numbers.iter().copied().eq(48..304), "{numbers:?}");
    });
}

#[test]
fn a_replayed_call_has_the_record_of_its_last_replay() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.allocate::<f32>(2000).unwrap();
        let graph = stream.capture(|stream| gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, stream)).unwrap();
        assert_eq!(gpus.last_call(), None, "it has been captured, and not done");
        comm.barrier().unwrap();
        gpus.barrier(&stream).unwrap();
        let mut done = 0;
        for replay in 1..=3 {
            graph.launch(&stream).unwrap();
            stream.synchronize().unwrap();
            let record = gpus.last_call().unwrap();
            assert_eq!((record.call, record.collective), (replay, Collective::AllReduce));
            assert!(record.done > done);
            done = record.done;
        }
        assert_eq!(gpus.calls().len(), 2);
    });
}

/// A question about f32.
fn question(collective: Collective, count: usize, in_place: bool, allocated: bool) -> Question {
    let op = collective.folds().then_some(ReduceOp::Sum);
    Question { collective, data_type: DataType::F32, op, count, in_place, allocated }
}

#[test]
fn what_is_explained_is_what_runs() {
    use Collective::{
        AllGather, AllReduce, AllToAll, Barrier, Broadcast, Gather, Reduce, ReduceScatter, Scan, Scatter,
    };
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let explain = |collective, count, in_place, allocated| {
            gpus.explain(&question(collective, count, in_place, allocated)).unwrap()
        };
        let long = super::bits::most(&gpus) / 4 + 1;
        type Expected = (Collective, usize, bool, bool, Kernel, usize, bool, &'static str);
        let f32 = DataType::F32;
        let expected: [Expected; 19] = [
            (AllReduce, 1024, false, true, Kernel::LowLatency(f32), 1, true, "data carries its flags"),
            (AllReduce, 1025, false, true, Kernel::OneShot(f32), 1, false, "reads all inputs"),
            (AllReduce, 1025, true, true, Kernel::OneShot(f32), 1, true, "reads all inputs"),
            (AllReduce, 1 << 17, true, true, Kernel::TwoShot(f32), 1, false, "folds a part for all"),
            (AllReduce, 1 << 17, true, false, Kernel::TwoShot(f32), 1, true, "folds a part for all"),
            (AllReduce, long, true, true, Kernel::TwoShot(f32), 2, false, "longer than the"),
            (ReduceScatter, long / 2, true, true, Kernel::ReduceScatter(f32), 1, false, "the part that it gets"),
            (ReduceScatter, long, true, true, Kernel::ReduceScatter(f32), 3, true, "longer than"),
            (AllGather, 5, true, false, Kernel::AllGather, 1, true, "stores its part to all"),
            (AllGather, long, true, true, Kernel::Broadcast, 4, false, "broadcasts its part in turn; longer"),
            (Broadcast, 5, true, true, Kernel::Broadcast, 1, false, "from the root"),
            (Reduce, 5, true, true, Kernel::Reduce(f32), 1, false, "stores it to the root"),
            (Reduce, long, false, false, Kernel::Reduce(f32), 2, true, "stores it to the root; longer"),
            (Scatter, long / 2, true, true, Kernel::Scatter, 1, false, "its part from the root"),
            (Scatter, long, true, true, Kernel::Scatter, 3, false, "its part from the root; longer"),
            (Gather, 5, false, false, Kernel::Gather, 1, true, "the root reads all"),
            (AllToAll, 5, false, true, Kernel::AllToAll, 1, false, "one part from each"),
            (AllToAll, 5, true, true, Kernel::AllToAll, 1, true, "one part from each"),
            (Barrier, 0, true, true, Kernel::Barrier, 1, false, "entering is all"),
        ];
        for (collective, count, in_place, allocated, kernel, launches, staged, reason) in expected {
            let said = explain(collective, count, in_place, allocated);
            assert_eq!((said.kernel, said.launches, said.staged), (Some(kernel), launches, staged), "{count}: {said}");
            assert!(said.reason.contains(reason), "{said}");
            let text = said.to_string();
            assert!(text.contains(&kernel.to_string()) && text.contains(&format!("{launches} launch")), "{text}");
        }
        // Numbers of launches are those of calls, as errors count them.
        let buffer = gpus.device().allocate::<f32>(2 * long).unwrap();
        comm.barrier().unwrap();
        let mut number = 0;
        let mut ran = |collective, count, enqueue: &dyn Fn(&DeviceCommunicator) -> annulus::Result<()>| {
            let said = explain(collective, count, true, false);
            enqueue(&gpus).unwrap();
            stream.synchronize().unwrap();
            let record = gpus.last_call().unwrap();
            assert_eq!((&record.algorithm, record.call), (&said.algorithm, number), "{said}");
            number += said.launches as u64;
        };
        ran(AllReduce, long, &|gpus| gpus.all_reduce_in_place(&buffer.part(..long)?, ReduceOp::Sum, &stream));
        ran(ReduceScatter, long, &|gpus| gpus.reduce_scatter_in_place(&buffer, ReduceOp::Sum, &stream));
        ran(AllGather, long, &|gpus| gpus.all_gather_in_place(&buffer, &stream));
        ran(Broadcast, long, &|gpus| gpus.broadcast_in_place(&buffer.part(..long)?, 0, &stream));
        ran(Reduce, long, &|gpus| gpus.reduce_in_place(&buffer.part(..long)?, ReduceOp::Sum, 1, &stream));
        ran(AllToAll, long, &|gpus| gpus.all_to_all_in_place(&buffer, &stream));
        ran(Barrier, 0, &|gpus| gpus.barrier(&stream));

        gpus.set_algorithm(Some("one_shot")).unwrap();
        let staged = [1024, 1025].map(|count| explain(AllReduce, count, false, true).staged);
        assert_eq!(staged, [true, false], "short messages are staged wherever they lie");

        gpus.set_algorithm(Some("low_latency")).unwrap();
        let refused = gpus.explain(&question(AllReduce, 1025, true, true)).unwrap_err().to_string();
        assert!(refused.contains("4100 bytes cannot go by low_latency"), "{refused}");
        let refused = gpus.explain(&question(Scan, 1, true, true)).unwrap_err().to_string();
        assert!(refused.contains("no scan on devices"), "{refused}");
    });
}
