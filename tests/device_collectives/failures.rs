// SPDX-License-Identifier: MPL-2.0
//! Failures: each is found while the call runs, names ranks and the call, and is everybody's.

use std::time::Duration;

use annulus::error::Cause;
use annulus::{Communicator, Error, ReduceOp, Result};
use rustix::process::{Signal, getpid, kill_process};

use super::{absent, block, everywhere, failure, on, ranks, threads, upload};

fn invalid(result: Result<()>) -> String {
    match result {
        Err(Error::InvalidArgument(why)) => why.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rank_that_never_comes_is_named_at_the_deadline() {
    if absent() {
        return;
    }
    everywhere(3, "failures::a_rank_that_never_comes_is_named_at_the_deadline", |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = upload(gpus.device(), &stream, &[1.0_f32; 5]);
        comm.barrier().unwrap();
        gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
        stream.synchronize().unwrap();
        gpus.set_timeout(Duration::from_millis(200));
        if comm.rank() != 2 {
            gpus.all_reduce_in_place(&buffer, ReduceOp::Max, &stream).unwrap();
            // What is enqueued behind it ends too.
            gpus.barrier(&stream).unwrap_or_default();
            let error = stream.synchronize().unwrap_err();
            assert!(matches!(&error, Error::Timeout { missing, .. } if missing == &[2]), "{error:?}");
            let sentence = error.to_string();
            assert_eq!(
                sentence,
                "call 1, all_reduce_in_place(f32, 5, Max): rank 2 did not enter within 200ms; see what keeps it"
            );
            assert_eq!(stream.read(&buffer), Err(error), "the failure stays");
        }
        comm.barrier().unwrap();
        // The late rank learns of it, and so do later calls on all.
        let later = gpus.barrier(&stream).unwrap_err();
        assert!(matches!(&later, Error::Timeout { missing, .. } if missing == &[2]), "{later:?}");
        assert_eq!(gpus.register(&buffer).unwrap_err(), later);
    });
}

#[test]
fn ranks_that_call_different_things_are_told_which() {
    if absent() {
        return;
    }
    everywhere(4, "failures::ranks_that_call_different_things_are_told_which", |comm| {
        let (gpus, stream) = on(&comm);
        let length = if comm.rank() == 2 { 1023 } else { 1024 };
        let buffer = gpus.device().allocate::<i16>(length).unwrap();
        comm.barrier().unwrap();
        gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
        let error = stream.synchronize().unwrap_err();
        assert!(matches!(error, Error::Mismatch(_)), "{error:?}");
        assert_eq!(
            error.to_string(),
            "call 0: ranks 0, 1, 3 call all_reduce_in_place(i16, 1024, Sum); rank 2 calls \
             all_reduce_in_place(i16, 1023, Sum); all ranks must make the same call"
        );
    });
    threads(3, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.device().allocate::<f32>(6).unwrap();
        comm.barrier().unwrap();
        gpus.all_to_all_in_place(&buffer, &stream).unwrap();
        // Who takes itself for the root passes three parts, the other one.
        let given = if comm.rank() == 0 { buffer.part(..2).unwrap() } else { buffer };
        gpus.scatter_in_place(&given, if comm.rank() == 1 { 1 } else { 2 }, &stream).unwrap();
        let error = stream.synchronize().unwrap_err();
        assert!(matches!(error, Error::Mismatch(_)), "{error:?}");
        let sentence = error.to_string();
        assert!(sentence.contains("call 1: "), "{sentence}");
        for part in ["scatter_in_place(f32, 2, root 2)", "rank 1 calls scatter_in_place(f32, 2, root 1)"] {
            assert!(sentence.contains(part), "{sentence}");
        }
    });
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        const CALLS: usize = 12;
        let buffer = gpus.device().allocate::<f32>(4).unwrap();
        let many = gpus.device().allocate::<u8>(CALLS).unwrap();
        comm.barrier().unwrap();
        // All is enqueued before anything is done: different calls, the one that differs, and others behind it. Not more
        // than drivers take behind a stream that is blocked.
        let open = block(&stream);
        for length in 0..CALLS {
            gpus.broadcast_in_place(&many.part(..length).unwrap(), 0, &stream).unwrap();
        }
        gpus.set_algorithm((comm.rank() == 1).then_some("ring")).unwrap();
        gpus.all_reduce_in_place(&buffer, ReduceOp::Avg, &stream).unwrap();
        gpus.set_algorithm(None).unwrap();
        for length in 0..CALLS {
            gpus.broadcast_in_place(&many.part(..length).unwrap(), 1, &stream).unwrap();
        }
        comm.barrier().unwrap();
        drop(open);
        let sentence = stream.synchronize().unwrap_err().to_string();
        assert_eq!(
            sentence,
            "call 12: rank 0 calls all_reduce_in_place(f32, 4, Avg); rank 1 calls all_reduce_in_place(f32, 4, Avg) by \
             algorithm ring; all ranks must make the same call"
        );
    });
}

#[test]
fn a_dead_process_is_noticed_by_its_death() {
    if absent() {
        return;
    }
    let name = "failures::a_dead_process_is_noticed_by_its_death";
    let ended = ranks::start(&[0, 1, 2], 3, name, &[], || {
        let comm = Communicator::from_env().unwrap();
        let (gpus, stream) = on(&comm);
        gpus.barrier(&stream).unwrap();
        stream.synchronize().unwrap();
        if comm.rank() == 2 {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        // The deadline is far away.
        let error = failure(gpus.barrier(&stream), &stream);
        assert!(matches!(&error, Error::RankLost { rank: 2, cause: Cause::Died, .. }), "{error:?}");
        assert!(error.to_string().contains("to enter call 1"), "{error}");
        assert_eq!(gpus.barrier(&stream), Err(error));
    });
    for rank in ended {
        assert_eq!(rank.status.success(), rank.rank != 2, "rank {}: {}", rank.rank, rank.output);
    }
}

#[test]
fn an_abort_ends_what_runs_on_all_ranks() {
    if absent() {
        return;
    }
    everywhere(3, "failures::an_abort_ends_what_runs_on_all_ranks", |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.device().allocate::<f64>(9000).unwrap();
        comm.barrier().unwrap();
        if comm.rank() == 1 {
            gpus.abort("the user said so");
        } else {
            // It may be too late to enqueue it.
            gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap_or_default();
        }
        let aborted = Error::Aborted("rank 1 aborted: the user said so".into());
        let ended = stream.synchronize();
        assert!(ended.is_ok() || ended == Err(aborted.clone()), "{ended:?}");
        comm.barrier().unwrap();
        assert_eq!(gpus.barrier(&stream), Err(aborted));
        // The host's communicator has not failed.
        comm.barrier().unwrap();
    });
}

#[test]
fn a_blocked_stream_is_not_waited_for_by_others_for_ever() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        gpus.set_timeout(Duration::from_millis(100));
        let open = (comm.rank() == 0).then(|| block(&stream));
        gpus.barrier(&stream).unwrap();
        if comm.rank() == 1 {
            let error = stream.synchronize().unwrap_err();
            assert!(matches!(&error, Error::Timeout { missing, .. } if missing == &[0]), "{error:?}");
        }
        comm.barrier().unwrap();
        drop(open);
        // The rest of the call leaves at once; what became of it on the late rank, it may or may not have seen.
        let late = stream.synchronize();
        assert!(late.is_ok() || matches!(&late, Err(Error::Timeout { missing, .. }) if missing == &[0]), "{late:?}");
    });
}

#[test]
fn what_one_rank_sees_wrong_is_refused_and_uses_no_call() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let (device, rank) = (gpus.device(), comm.rank());
        let buffer = device.allocate::<f32>(7).unwrap();
        comm.barrier().unwrap();
        let six = buffer.part(..6).unwrap();
        if rank == 0 {
            let refused = |result, parts: &[&str]| {
                let why = invalid(result);
                assert!(parts.iter().all(|part| why.contains(part)), "{why}");
            };
            let sum = ReduceOp::Sum;
            refused(gpus.all_reduce(&buffer, &six, sum, &stream), &["all_reduce on rank 0", "7", "6", "equal"]);
            refused(gpus.all_reduce(&six, &buffer.part(1..).unwrap(), sum, &stream), &["overlap", "in place"]);
            refused(gpus.all_reduce(&six, &six, sum, &stream), &["are the same", "in place"]);
            refused(gpus.all_reduce_in_place(&six, ReduceOp::BitAnd, &stream), &["f32"]);
            refused(gpus.reduce_scatter_in_place(&buffer, sum, &stream), &["7 elements", "2 equal parts"]);
            refused(gpus.all_gather(&six, &buffer, &stream), &["recv must hold 2 times as many"]);
            refused(gpus.broadcast_in_place(&buffer, 2, &stream), &["no rank 2", "2 ranks"]);
            refused(gpus.broadcast::<f32>(None, &buffer, 0, &stream), &["the root must pass send"]);
            refused(gpus.broadcast(Some(&six), &buffer, 1, &stream), &["only the root, rank 1, passes send"]);
            refused(gpus.reduce(&six, None, sum, 0, &stream), &["reduce on rank 0", "the root must pass recv"]);
            refused(gpus.reduce(&six, Some(&buffer), sum, 1, &stream), &["only the root, rank 1, passes recv"]);
            refused(gpus.reduce_in_place(&six, ReduceOp::BitOr, 0, &stream), &["f32"]);
            refused(gpus.gather(&six, Some(&buffer), 0, &stream), &["recv must hold 2 times as many"]);
            refused(gpus.gather(&six, None, 3, &stream), &["gather on rank 0", "no rank 3", "2 ranks"]);
            refused(gpus.scatter(Some(&six), &buffer, 0, &stream), &["send must hold 2 times as many"]);
            refused(gpus.scatter(None, &buffer, 0, &stream), &["the root must pass send"]);
            refused(gpus.scatter_in_place(&buffer, 0, &stream), &["7 elements", "2 equal parts"]);
            refused(gpus.all_to_all_in_place(&buffer, &stream), &["7 elements", "2 equal parts"]);
            refused(gpus.all_to_all(&six, &buffer, &stream), &["6", "7", "equal"]);
            refused(gpus.all_to_all(&six, &six, &stream), &["are the same", "in place"]);
            refused(
                gpus.set_algorithm(Some("quick")),
                &["no algorithm quick", "low_latency, one_shot, two_shot, ring"],
            );
        }
        // Of one kind of memory only, and all ranks hear of it: also those whose own is right.
        let right = device.allocate_mappable::<f32>(7).unwrap();
        let registered = invalid(gpus.register(if rank == 0 { &right } else { &buffer }));
        let expected = if rank == 0 { "rank 1 could not" } else { "rank 1 can register what" };
        assert!(registered.contains(expected), "{registered}");
        gpus.broadcast_in_place(&buffer, 0, &stream).unwrap();
        stream.synchronize().unwrap();
    });
}

/// An algorithm that was set for the host's calls is none of what ranks exchange to have a communicator on devices.
#[test]
fn an_algorithm_of_the_host_keeps_nobody_from_devices() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        comm.set_algorithm(Some("tree")).unwrap();
        let (gpus, stream) = on(&comm);
        let buffer = upload(gpus.device(), &stream, &[1.0_f32; 5]);
        gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
        assert_eq!(stream.read(&buffer).unwrap(), [2.0; 5]);
    });
}
