// SPDX-License-Identifier: MPL-2.0
//! Ranks that leave: who waits for a call of theirs knows at once, and what they have enqueued before is done.

use std::sync::Mutex;
use std::time::Duration;

use annulus::driver::Stream;
use annulus::error::Cause;
use annulus::{DeviceCommunicator, Error, ReduceOp, run};

use super::{absent, block, everywhere, failure, on, threads};

fn assert_left(error: &Error, call: u32) {
    assert!(matches!(error, Error::RankLost { rank: 2, cause: Cause::Left, .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("waited for it to enter call {call}, ")), "{error}");
}

#[test]
fn a_rank_that_has_left_is_missed_at_once() {
    if absent() {
        return;
    }
    everywhere(3, "leaving::a_rank_that_has_left_is_missed_at_once", |comm| {
        for algorithm in [None, Some("ring"), Some("schedule:ring")] {
            let (gpus, stream) = on(&comm);
            gpus.set_algorithm(algorithm).unwrap();
            let buffer = gpus.allocate::<f32>(3000).unwrap();
            let call = |gpus: &DeviceCommunicator| gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream);
            call(&gpus).unwrap();
            // The last call before is done by all, whoever leaves first.
            if comm.rank() == 2 {
                drop(gpus);
                stream.synchronize().unwrap();
                comm.barrier().unwrap();
                continue;
            }
            stream.synchronize().unwrap();
            // The deadline is far away.
            let error = failure(call(&gpus), &stream);
            assert_left(&error, 1);
            assert_eq!(gpus.barrier(&stream), Err(error));
            comm.barrier().unwrap();
        }
    });
}

/// Rank 2 drops its communicator with a call that has not begun; the others, which are in it, wait on.
#[test]
fn what_a_rank_has_enqueued_before_it_leaves_is_done() {
    if absent() {
        return;
    }
    threads(3, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.device().allocate::<i32>(100).unwrap();
        comm.barrier().unwrap();
        stream.fill(&buffer, 1).unwrap();
        let open = (comm.rank() == 2).then(|| block(&stream));
        gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
        let gpus = (comm.rank() != 2).then_some(gpus);
        comm.barrier().unwrap();
        // Longer than it takes to look for ranks that have left.
        std::thread::sleep(Duration::from_millis(150));
        drop(open);
        assert_eq!(stream.read(&buffer).unwrap(), [3; 100]);
        comm.barrier().unwrap(); // all have read, before anyone's failure is everybody's
        // And then it has left.
        if let Some(gpus) = gpus {
            assert_left(&failure(gpus.barrier(&stream), &stream), 1);
        }
        comm.barrier().unwrap();
    });
}

#[test]
fn a_graph_keeps_its_rank_there() {
    if absent() {
        return;
    }
    threads(3, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.allocate::<u8>(10).unwrap();
        let step = |stream: &Stream| gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, stream);
        let graph = stream.capture(step).unwrap();
        comm.barrier().unwrap();
        let gpus = (comm.rank() != 2).then_some(gpus);
        stream.fill(&buffer, 1).unwrap();
        if comm.rank() == 2 {
            std::thread::sleep(Duration::from_millis(150));
        }
        graph.launch(&stream).unwrap();
        assert_eq!(stream.read(&buffer).unwrap(), [3; 10]);
        comm.barrier().unwrap(); // as above
        drop(graph);
        if let Some(gpus) = gpus {
            assert_left(&failure(gpus.barrier(&stream), &stream), 1);
        }
        comm.barrier().unwrap();
    });
}

#[test]
fn a_panic_with_calls_in_flight_is_everybodys() {
    if absent() {
        return;
    }
    let (errors, gate) = (Mutex::new(Vec::new()), Mutex::new(None));
    let failure = run(3, |comm| {
        let (gpus, stream) = on(&comm);
        if comm.rank() == 2 {
            *gate.lock().unwrap() = Some(block(&stream));
        }
        gpus.barrier(&stream)?;
        comm.barrier()?;
        assert_ne!(comm.rank(), 2, "a mistake of the program's");
        let error = stream.synchronize().unwrap_err();
        errors.lock().unwrap().push(error);
        Ok(())
    });
    drop(gate);
    let failure = failure.unwrap_err();
    assert_eq!(failure.rank, 2, "{failure}");
    let errors = errors.into_inner().unwrap();
    let panicked = Error::Aborted("rank 2 panicked with calls in flight".into());
    assert_eq!(errors, [panicked.clone(), panicked]);
}
