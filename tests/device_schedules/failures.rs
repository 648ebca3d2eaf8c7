// SPDX-License-Identifier: MPL-2.0
//! Failures of calls that go by schedules: named at the deadline, ended by an abort, told apart when ranks differ.

use std::time::Duration;

use annulus::driver::Stream;
use annulus::schedule::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule, verify};
use annulus::{Communicator, DeviceCommunicator, Error, ReduceOp};
use rustix::process::{Signal, getpid, kill_process};

use super::{absent, everywhere, on, ranks, threads, upload};

#[test]
fn a_rank_that_never_comes_is_named_at_the_deadline() {
    if absent() {
        return;
    }
    everywhere(3, "failures::a_rank_that_never_comes_is_named_at_the_deadline", |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = upload(gpus.device(), &stream, &[1.0_f32; 5]);
        comm.barrier().unwrap();
        gpus.set_algorithm(Some("schedule:recursive_doubling")).unwrap();
        gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
        stream.synchronize().unwrap();
        gpus.set_timeout(Duration::from_millis(200));
        if comm.rank() != 2 {
            gpus.all_reduce_in_place(&buffer, ReduceOp::Max, &stream).unwrap();
            let error = stream.synchronize().unwrap_err();
            assert!(matches!(&error, Error::Timeout { missing, .. } if missing == &[2]), "{error:?}");
            assert_eq!(
                error.to_string(),
                "call 1, all_reduce_in_place(f32, 5, Max) by algorithm recursive_doubling as a schedule, with no buffer \
                 that peers see: rank 2 did not enter within 200ms; see what keeps it"
            );
        }
        comm.barrier().unwrap();
        let later = gpus.all_reduce_in_place(&buffer, ReduceOp::Max, &stream).unwrap_err();
        assert!(matches!(&later, Error::Timeout { missing, .. } if missing == &[2]), "{later:?}");
    });
}

/// Two ranks wait for each other, many times.
struct BackAndForth;

const TURNS: usize = 20_000;

impl Schedule for BackAndForth {
    fn name(&self) -> &str {
        "back_and_forth"
    }

    fn collective(&self) -> Collective {
        Collective::Barrier
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn resources(&self, _: &Layout) -> Resources {
        Resources { flags: 1, advance: TURNS as u64, ..Resources::default() }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let mut body = Program::new();
        body.signal(0, layout.others(rank), 1, 1);
        layout.others(rank).for_each(|other| body.wait(other, 0, 1, 1));
        let mut program = Program::new();
        program.repeat(TURNS, body);
        program
    }
}

/// A broadcast from rank to rank, before which rank 0 has much to do: many copies and not long ones, since a card makes
/// a long one in no time.
struct Slow;

const COPIES: usize = 40_000;

impl Schedule for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn collective(&self) -> Collective {
        Collective::Broadcast
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn resources(&self, layout: &Layout) -> Resources {
        Resources { scratch: layout.largest(), flags: 1, advance: 1, ..Resources::default() }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let (len, mut program) = (layout.largest(), Program::new());
        let scratch = |rank| Place::new(rank, Buffer::Scratch, 0);
        if rank == 0 {
            let mut body = Program::new();
            body.copy(Place::new(0, Buffer::Input, 0), [scratch(0)], len);
            program.repeat(COPIES, body);
        } else {
            program.wait(rank - 1, 0, 1, 0);
            program.copy(scratch(rank - 1), [scratch(rank)], len);
        }
        program.signal(0, (rank + 1..layout.world()).take(1), 1, 0);
        program.copy(scratch(rank), [Place::new(rank, Buffer::Output, 0)], len);
        program
    }
}

/// Rank 2 waits for rank 1, which waits for rank 0.
#[test]
fn the_rank_that_keeps_the_others_waiting_is_named() {
    if absent() {
        return;
    }
    everywhere(3, "failures::the_rank_that_keeps_the_others_waiting_is_named", |comm| {
        const LENGTH: usize = 1 << 16;
        let verified = verify(&Slow, &Layout::uniform(3, LENGTH)).unwrap();
        let given = if comm.rank() == 0 { LENGTH } else { 0 };
        // On a busy machine a rank may not even enter in time: then again.
        for _ in 0..20 {
            let (gpus, stream) = on(&comm);
            let [send, recv] = [given, LENGTH].map(|length| gpus.device().allocate::<u8>(length).unwrap());
            // Rank 1 would wait for long.
            gpus.set_timeout(Duration::from_millis(if comm.rank() == 2 { 50 } else { 60_000 }));
            // Rank 0 comes last, to ranks that wait. A driver takes so many commands, and then whoever enqueues one more
            // waits, of whichever rank: so what is enqueued in numbers must be on its way already.
            if comm.rank() == 0 {
                comm.barrier().unwrap();
            }
            let called = gpus.execute(&verified, &send, &recv, None, &stream);
            if comm.rank() != 0 {
                comm.barrier().unwrap();
            }
            let ended = called.and(stream.synchronize());
            comm.barrier().unwrap();
            let error = gpus.barrier(&stream).unwrap_err();
            if error.to_string().contains("did not enter") {
                continue;
            }
            // Rank 0 itself waits for nobody, and hears of it when it enqueues something.
            let is_told = ended == Err(error.clone());
            assert!(is_told || comm.rank() == 0 && ended.is_ok(), "{ended:?}");
            assert!(matches!(&error, Error::Timeout { missing, .. } if missing == &[0]), "{error:?}");
            assert!(error.to_string().contains("rank 0 kept others waiting and did not go on within 50ms"), "{error}");
            return;
        }
        panic!("ranks never entered in time");
    });
}

/// Both ranks are in step; what they make next is a call that takes a while.
fn back_and_forth(comm: &Communicator) -> (DeviceCommunicator, Stream, impl Fn(&DeviceCommunicator, &Stream)) {
    let (gpus, stream) = on(comm);
    let verified = verify(&BackAndForth, &Layout::uniform(2, 0)).unwrap();
    let nothing = gpus.device().allocate::<u8>(0).unwrap();
    gpus.barrier(&stream).unwrap();
    stream.synchronize().unwrap();
    comm.barrier().unwrap();
    (gpus, stream, move |gpus, stream| gpus.execute(&verified, &nothing, &nothing, None, stream).unwrap())
}

#[test]
fn an_abort_ends_waits_for_flags() {
    if absent() {
        return;
    }
    everywhere(2, "failures::an_abort_ends_waits_for_flags", |comm| {
        let (gpus, stream, call) = back_and_forth(&comm);
        let aborter = (comm.rank() == 1).then(|| {
            let handle = gpus.abort_handle();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(10));
                handle.abort("the user said so");
            })
        });
        call(&gpus, &stream);
        if let Some(aborter) = aborter {
            aborter.join().unwrap();
        }
        comm.barrier().unwrap();
        let aborted = Error::Aborted("rank 1 aborted: the user said so".into());
        assert_eq!(stream.synchronize(), Err(aborted.clone()));
        assert_eq!(gpus.barrier(&stream), Err(aborted));
    });
}

#[test]
fn a_rank_that_dies_in_a_call_is_named() {
    if absent() {
        return;
    }
    let ended = ranks::start(&[0, 1], 2, "failures::a_rank_that_dies_in_a_call_is_named", &[], || {
        let comm = Communicator::from_env().unwrap();
        let (gpus, stream, call) = back_and_forth(&comm);
        gpus.set_timeout(Duration::from_millis(300));
        if comm.rank() == 0 {
            std::thread::spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                kill_process(getpid(), Signal::KILL).unwrap();
            });
        }
        call(&gpus, &stream);
        let error = stream.synchronize().unwrap_err();
        println!("ended {error}");
        // Where it takes long to come so far, the rank has died before it entered.
        let is_named = matches!(&error, Error::Timeout { missing, .. } if missing == &[0]);
        assert!(is_named || matches!(error, Error::RankLost { rank: 0, .. }), "{error:?}");
        assert_eq!(gpus.barrier(&stream), Err(error));
    });
    for rank in ended {
        assert_eq!(rank.status.success(), rank.rank == 1, "rank {}: {}", rank.rank, rank.output);
        println!("{:?}", rank.said("ended").collect::<Vec<_>>());
    }
}

#[test]
fn ranks_whose_buffers_are_elsewhere_are_told() {
    if absent() {
        return;
    }
    threads(3, |comm| {
        let (gpus, stream) = on(&comm);
        let shared = gpus.allocate::<f32>(64).unwrap();
        let other = gpus.device().allocate::<f32>(64).unwrap();
        comm.barrier().unwrap();
        // A schedule that does not look at peers' buffers takes them wherever they are.
        gpus.set_algorithm(Some("schedule:staged")).unwrap();
        let buffer = if comm.rank() == 1 { &other } else { &shared };
        stream.fill(buffer, 2.0).unwrap();
        gpus.all_reduce_in_place(buffer, ReduceOp::Sum, &stream).unwrap();
        assert_eq!(stream.read(buffer).unwrap(), [6.0; 64]);
        gpus.set_algorithm(Some("schedule:direct")).unwrap();
        gpus.all_reduce_in_place(buffer, ReduceOp::Sum, &stream).unwrap();
        let error = stream.synchronize().unwrap_err();
        assert!(matches!(error, Error::Mismatch(_)), "{error:?}");
        let sentence = error.to_string();
        let parts = ["call 1: ranks 0, 2 call", "rank 1 calls", "with no buffer that peers see", "peers see at place"];
        assert!(parts.iter().all(|part| sentence.contains(part)), "{sentence}");
    });
    // A kernel and a schedule of one name.
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.device().allocate::<f32>(4).unwrap();
        comm.barrier().unwrap();
        gpus.set_algorithm(Some(if comm.rank() == 0 { "ring" } else { "schedule:ring" })).unwrap();
        gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
        assert_eq!(
            stream.synchronize().unwrap_err().to_string(),
            "call 0: rank 0 calls all_reduce_in_place(f32, 4, Sum) by algorithm ring; rank 1 calls \
             all_reduce_in_place(f32, 4, Sum) by algorithm ring as a schedule, with no buffer that peers see; all ranks \
             must make the same call"
        );
    });
}
