// SPDX-License-Identifier: MPL-2.0
//! Ranks that die, leave, stop, disagree or give up: what the others get, and that nothing is left behind.
//!
//! Deadlines are 60 s where nothing else is said, so a death that were noticed only by the deadline would be a `Timeout`
//! and fail its test. How long it took is printed (`cargo test --test faults -- --nocapture`), never asserted.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)] // memory is mapped that nobody may read

mod butterfly;
mod ranks;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use annulus::communicator::Question;
use annulus::error::Cause;
use annulus::schedule::{Access, Collective, Layout, Program, Resources, Schedule, verify};
use annulus::transport::rendezvous::{Environment, SocketRendezvous};
use annulus::{Communicator, DataType, Error, ReduceOp, Result, Shared, run};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::process::{Pid, Signal, getpid, kill_process};
use rustix::time::{ClockId, clock_gettime};

use butterfly::Butterfly;
use ranks::{Ended, everywhere, processes, start};

/// Elements of 16 MiB.
const LARGE: usize = (16 << 20) / 4;

/// Nanoseconds on a clock that all processes read alike.
fn now() -> i128 {
    let time = clock_gettime(ClockId::Monotonic);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// Kills this process, as nothing inside it could prevent.
fn die() -> ! {
    println!("died {}", now());
    std::io::stdout().flush().unwrap();
    kill_process(getpid(), Signal::KILL).unwrap();
    unreachable!("it was killed")
}

/// The state of a process in the kernel's letters: T stopped, Z ended but not yet waited for; X if it is gone.
fn state(process: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('X')
}

fn wait_for_state(process: u32, states: &[char]) {
    while !states.contains(&state(process)) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signal(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(process as i32).unwrap(), signal).unwrap();
}

/// The process of every rank.
fn all_processes(comm: &Communicator) -> Vec<u32> {
    let mut all = vec![0; comm.world_size()];
    comm.all_gather(&[std::process::id()], &mut all).unwrap();
    all
}

/// Memory of one kind or the other.
enum Memory {
    Plain(Vec<f32>),
    Allocated(Shared<f32>),
}

impl Memory {
    fn new(comm: &Communicator, allocated: bool, len: usize) -> Memory {
        match allocated {
            false => Memory::Plain(vec![1.0; len]),
            true => {
                let mut shared = comm.allocate(len).unwrap();
                shared.fill(1.0);
                Memory::Allocated(shared)
            }
        }
    }

    fn slice(&mut self) -> &mut [f32] {
        match self {
            Memory::Plain(elements) => elements,
            Memory::Allocated(elements) => elements,
        }
    }

    /// Starts an all-reduce in place, of which nothing is kept but the wait.
    fn start(self, comm: &Communicator) -> Result<Box<dyn FnOnce() -> Result<()>>> {
        Ok(match self {
            Memory::Plain(elements) => {
                let pending = comm.start_all_reduce_in_place(elements, ReduceOp::Max)?;
                Box::new(move || pending.wait().map(drop))
            }
            Memory::Allocated(elements) => {
                let pending = comm.start_all_reduce_in_place(elements, ReduceOp::Max)?;
                Box::new(move || pending.wait().map(drop))
            }
        })
    }
}

/// The error is rank 1's loss, and it is what all later calls return.
#[track_caller]
fn check_lost(comm: &Communicator, error: &Error, expected: Cause) {
    println!("noticed {}", now());
    match error {
        Error::RankLost { rank: 1, cause, .. } => assert_eq!(*cause, expected, "{error}"),
        _ => panic!("{error:?}"),
    }
    check_later_calls(comm, error);
}

#[track_caller]
fn check_later_calls(comm: &Communicator, error: &Error) {
    assert_eq!(comm.barrier().as_ref(), Err(error));
    assert_eq!(comm.all_reduce_in_place(&mut [1_u8; 3], ReduceOp::Sum).as_ref(), Err(error));
    assert_eq!(comm.broadcast_in_place(&mut vec![1.0_f64; 100_000], 0).as_ref(), Err(error));
    assert_eq!(comm.start_all_reduce_in_place(vec![1_u8; 3], ReduceOp::Sum).map(drop).as_ref(), Err(error));
    assert_eq!(comm.duplicate().map(drop).as_ref(), Err(error));
}

/// Prints how long after the death each survivor noticed it.
fn print_milliseconds(what: &str, ended: &[Ended]) {
    let stamp = |rank: &Ended, key: &'static str| rank.said(key).next().map(|text| text.parse::<i128>().unwrap());
    let Some(died) = ended.iter().find_map(|rank| stamp(rank, "died ")) else { return };
    let noticed = ended.iter().filter_map(|rank| Some((rank.rank, stamp(rank, "noticed ")? - died)));
    let words: Vec<String> =
        noticed.map(|(rank, time)| format!("rank {rank} after {:.3} ms", time as f64 / 1e6)).collect();
    println!("{what}: noticed by {}", words.join(", "));
}

/// Rank 1 was killed; the others ended well.
fn check_ends(ended: &[Ended]) {
    for rank in ended {
        let expected = if rank.rank == 1 { rank.status.signal() == Some(9) } else { rank.status.success() };
        assert!(expected, "rank {}: {}\n{}", rank.rank, rank.status, rank.output);
    }
}

/// What ranks' buffers are, and what is set in their environments: plain memory is read by peers where the system lets
/// them, and passes through shared slots where it does not.
const MEMORIES: [(&str, &[(&str, &str)]); 3] =
    [("allocated", &[]), ("plain", &[]), ("plain, unread", &[("ANNULUS_PULL", "0")])];

#[test]
fn a_killed_rank_is_named_by_every_survivor() {
    let phases = ["before entry", "after entry", "before exit", "in transfer 0", "in transfer 3", "in transfer 11"];
    for phase in phases {
        for (memory, set) in MEMORIES {
            let name = format!("a_killed_rank_is_named_by_every_survivor {phase}, {memory}");
            let ended = start(&[0, 1, 2], 3, &name, set, || killed(phase, memory == "allocated"));
            print_milliseconds(&format!("killed {phase}, {memory}"), &ended);
            check_ends(&ended);
        }
    }
}

fn killed(phase: &'static str, allocated: bool) {
    let comm = Communicator::from_env().unwrap();
    let victim = comm.rank() == 1;
    let all = all_processes(&comm);
    for len in [100, LARGE] {
        let mut memory = Memory::new(&comm, allocated, len);
        comm.all_reduce_in_place(memory.slice(), ReduceOp::Max).unwrap();
    }
    let mut memory = Memory::new(&comm, allocated, LARGE);
    let error = match phase.split_once(" transfer ") {
        Some((_, milliseconds)) => {
            if victim {
                let milliseconds = milliseconds.parse().unwrap();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(milliseconds));
                    die()
                });
            }
            loop {
                if let Err(error) = comm.all_reduce_in_place(memory.slice(), ReduceOp::Max) {
                    break error;
                }
            }
        }
        None if victim => {
            match phase {
                "before entry" => (),
                "after entry" => drop(memory.start(&comm).unwrap()),
                _ => comm.all_reduce_in_place(memory.slice(), ReduceOp::Max).unwrap(),
            }
            die()
        }
        None => {
            if phase == "before exit" {
                comm.all_reduce_in_place(memory.slice(), ReduceOp::Max).unwrap();
            }
            // Rank 0 waits in the call, rank 2 comes to it when the death is past.
            if comm.rank() == 2 {
                wait_for_state(all[1], &['Z', 'X']);
            }
            let first = memory.start(&comm);
            let second = Memory::new(&comm, allocated, 1000).start(&comm);
            // A call of which rank 1 did its part before it died may succeed; one that it did not enter cannot.
            second.and_then(|wait| wait()).and_then(|()| first?()).unwrap_err()
        }
    };
    check_lost(&comm, &error, Cause::Died);
}

/// Without leaving, whatever its exit status says.
#[test]
fn a_rank_that_exits_has_died() {
    let ended = start(&[0, 1, 2], 3, "a_rank_that_exits_has_died", &[], || {
        let comm = Communicator::from_env().unwrap();
        comm.barrier().unwrap();
        if comm.rank() == 1 {
            println!("died {}", now());
            std::process::exit(0);
        }
        check_lost(&comm, &comm.barrier().unwrap_err(), Cause::Died);
    });
    print_milliseconds("exited", &ended);
    assert!(ended.iter().all(|rank| rank.status.success()), "{ended:#?}");
}

#[test]
fn a_rank_that_leaves_is_named_as_such() {
    everywhere(3, "a_rank_that_leaves_is_named_as_such", |comm| {
        let mut memory = comm.allocate::<f32>(100_000).unwrap();
        comm.all_reduce_in_place(&mut memory, ReduceOp::Sum).unwrap();
        if comm.rank() == 1 {
            return; // the communicator is dropped
        }
        let error = comm.all_reduce_in_place(&mut memory, ReduceOp::Sum).unwrap_err();
        check_lost(&comm, &error, Cause::Left);
        assert!(error.to_string().contains("rank 1 left"), "{error}");
    });
}

#[test]
fn a_rank_that_panics_has_died_among_processes() {
    let ended = start(&[0, 1, 2], 3, "a_rank_that_panics_has_died_among_processes", &[], || {
        let comm = Communicator::from_env().unwrap();
        comm.barrier().unwrap();
        if comm.rank() == 1 {
            let _comm = comm;
            println!("died {}", now());
            panic!("on purpose");
        }
        check_lost(&comm, &comm.barrier().unwrap_err(), Cause::Died);
    });
    print_milliseconds("panicked", &ended);
    for rank in &ended {
        assert_eq!(rank.status.success(), rank.rank != 1, "{ended:#?}");
    }
}

#[test]
fn a_rank_that_panics_has_died_among_threads() {
    for in_flight in [false, true] {
        let survivors = Mutex::new(BTreeSet::new());
        let failure = annulus::run(3, |comm| {
            comm.barrier()?;
            if comm.rank() == 1 {
                let _pending = match in_flight {
                    true => Some(comm.start_all_reduce_in_place(vec![1.0_f32; 10_000], ReduceOp::Sum)?),
                    false => None,
                };
                std::panic::resume_unwind(Box::new("on purpose")); // without a message on standard error
            }
            let error = match in_flight {
                // This one may succeed, if it was quicker than the panic.
                true => comm.all_reduce_in_place(&mut [1.0_f32; 10_000], ReduceOp::Sum).and_then(|()| comm.barrier()),
                false => comm.barrier(),
            };
            let error = error.unwrap_err();
            match &error {
                // What it had started, it ends for all.
                Error::Aborted(sentence) if in_flight => assert!(sentence.contains("rank 1 panicked"), "{sentence}"),
                Error::RankLost { rank: 1, cause: Cause::Died, .. } => (),
                _ => panic!("{error:?}"),
            }
            check_later_calls(&comm, &error);
            survivors.lock().unwrap().insert(comm.rank());
            Err::<(), Error>(error)
        });
        let failure = failure.unwrap_err();
        assert_eq!((failure.rank, failure.error.to_string().as_str()), (1, "panicked: on purpose"));
        assert_eq!(survivors.into_inner().unwrap(), BTreeSet::from([0, 2]));
    }
}

/// Two survivors that are of one mind without a communicator.
struct Accord(UnixStream);

impl Accord {
    fn new(comm: &Communicator) -> Accord {
        let address = SocketAddr::from_abstract_name(std::env::var("ANNULUS_JOB").unwrap()).unwrap();
        let listener = (comm.rank() == 0).then(|| UnixListener::bind_addr(&address).unwrap());
        comm.barrier().unwrap();
        Accord(match listener {
            Some(listener) => listener.accept().unwrap().0,
            None => UnixStream::connect_addr(&address).unwrap(),
        })
    }

    /// Returns when both have come.
    fn meet(&mut self) {
        self.0.write_all(&[1]).unwrap();
        self.0.read_exact(&mut [0]).unwrap();
    }
}

/// Rank 1 is stopped in the middle of its work. The others name it at the deadline and use their buffers again; then it
/// wakes, and may finish what it was at. Their buffers stay as they are.
#[test]
fn a_stopped_rank_is_named_and_writes_to_nobody_when_it_wakes() {
    for milliseconds in [0, 2, 5, 9] {
        for (memory, set) in MEMORIES {
            let name = format!("a_stopped_rank_is_named_and_writes_to_nobody_when_it_wakes {milliseconds}, {memory}");
            let set = [&[("ANNULUS_TIMEOUT", "1")], set].concat();
            let all_reduce: InPlace = |comm, buffer| comm.all_reduce_in_place(buffer, ReduceOp::Max);
            let ended = start(&[0, 1, 2], 3, &name, &set, || stopped(milliseconds, memory == "allocated", all_reduce));
            assert!(ended.iter().all(|rank| rank.status.success()), "{ended:#?}");
        }
    }
}

/// Here the input is a part of the output.
#[test]
fn a_stopped_rank_writes_to_no_part_of_a_buffer_when_it_wakes() {
    for milliseconds in [2, 5] {
        let name = format!("a_stopped_rank_writes_to_no_part_of_a_buffer_when_it_wakes {milliseconds}");
        let all_gather: InPlace = |comm, buffer| comm.all_gather_in_place(buffer);
        let ended = start(&[0, 1, 2], 3, &name, &[("ANNULUS_TIMEOUT", "1")], || {
            stopped(milliseconds, true, all_gather);
        });
        assert!(ended.iter().all(|rank| rank.status.success()), "{ended:#?}");
    }
}

/// A call on one buffer.
type InPlace = fn(&Communicator, &mut [f32]) -> Result<()>;

fn stopped(milliseconds: u64, allocated: bool, call: InPlace) {
    const PATTERN: u32 = 0x0bad_cafe;
    let comm = Communicator::from_env().unwrap();
    let stopped = all_processes(&comm)[1];
    let mut accord = (comm.rank() != 1).then(|| Accord::new(&comm));
    if accord.is_none() {
        comm.barrier().unwrap();
    }
    let mut memory = Memory::new(&comm, allocated, LARGE / 6 * 3);
    comm.barrier().unwrap();
    let stopper = (comm.rank() == 0).then(|| {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(milliseconds));
            signal(stopped, Signal::STOP);
        })
    });
    let error = loop {
        if let Err(error) = call(&comm, memory.slice()) {
            break error;
        }
    };
    assert!(matches!(&error, Error::Timeout { missing, .. } if missing == &[1]), "{error:?}");
    check_later_calls(&comm, &error);
    let Some(accord) = &mut accord else { return };
    memory.slice().fill(f32::from_bits(PATTERN));
    accord.meet();
    if let Some(stopper) = stopper {
        stopper.join().unwrap();
        wait_for_state(stopped, &['T']);
        signal(stopped, Signal::CONT);
        wait_for_state(stopped, &['Z', 'X']);
    }
    accord.meet();
    let touched = memory.slice().iter().position(|element| element.to_bits() != PATTERN);
    assert_eq!(touched, None, "rank {}'s buffer was written to after its call had failed", comm.rank());
}

/// Whether each page of a buffer is of memory that peers map.
fn shared_pages(buffer: &[f32]) -> Vec<bool> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let segments: Vec<(usize, usize)> = maps
        .lines()
        .filter(|line| line.contains("memfd:annulus"))
        .filter_map(|line| line.split(' ').next()?.split_once('-'))
        .map(|(start, end)| [start, end].map(|address| usize::from_str_radix(address, 16).unwrap()).into())
        .collect();
    let is_shared = |page: &[f32]| {
        let address = page.as_ptr() as usize;
        segments.iter().any(|(start, end)| (*start..*end).contains(&address))
    };
    buffer.chunks(Shared::<f32>::PAGE).map(is_shared).collect()
}

/// Among processes peers cannot reach any page of it, whichever part of it is the input.
#[test]
fn a_failed_call_takes_its_whole_buffer_from_its_peers() {
    processes(3, "a_failed_call_takes_its_whole_buffer_from_its_peers", |comm| {
        let calls: [InPlace; 3] = [
            |comm, buffer| comm.all_reduce_in_place(buffer, ReduceOp::Max),
            |comm, buffer| comm.all_gather_in_place(buffer),
            |comm, buffer| comm.gather_in_place(buffer, 0),
        ];
        for call in calls {
            let duplicate = comm.duplicate().unwrap();
            duplicate.set_timeout(Duration::from_millis(200));
            let mut buffer = comm.allocate::<f32>(9 * Shared::<f32>::PAGE).unwrap();
            assert_eq!(shared_pages(&buffer), [true; 9]);
            if comm.rank() == 0 {
                call(&duplicate, &mut buffer).unwrap_err();
                assert_eq!(shared_pages(&buffer), [false; 9]);
            }
            comm.barrier().unwrap();
        }
    });
}

/// Of more ranks than cores, each waits for others that wait for the stopped one: the stopped one is named.
#[test]
fn a_stopped_rank_is_named_by_whoever_times_out() {
    for algorithm in ["direct", "staged", "ring"] {
        let name = format!("a_stopped_rank_is_named_by_whoever_times_out {algorithm}");
        let ended = start(&[0, 1, 2, 3, 4], 5, &name, &[("ANNULUS_TIMEOUT", "1")], || {
            let comm = Communicator::from_env().unwrap();
            comm.set_algorithm(Some(algorithm)).unwrap();
            let stopped = all_processes(&comm)[2];
            let mut memory = Memory::new(&comm, true, LARGE / 4);
            comm.barrier().unwrap();
            if comm.rank() == 4 {
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(6));
                    signal(stopped, Signal::STOP);
                });
            }
            let error = loop {
                if let Err(error) = comm.all_reduce_in_place(memory.slice(), ReduceOp::Max) {
                    break error;
                }
            };
            if comm.rank() == 4 {
                signal(stopped, Signal::CONT);
            }
            assert!(matches!(&error, Error::Timeout { missing, .. } if missing == &[2]), "{error:?}");
        });
        assert!(ended.iter().all(|rank| rank.status.success()), "{ended:#?}");
    }
}

#[test]
fn a_rank_that_does_not_call_is_named_at_the_deadline() {
    everywhere(3, "a_rank_that_does_not_call_is_named_at_the_deadline", |comm| {
        let duplicate = comm.duplicate().unwrap();
        duplicate.set_timeout(Duration::from_millis(300));
        if comm.rank() != 2 {
            let error = duplicate.all_reduce_in_place(&mut [1.0_f32; 5], ReduceOp::Sum).unwrap_err();
            assert!(matches!(&error, Error::Timeout { missing, .. } if missing == &[2]), "{error:?}");
            for named in ["call 0, all_reduce_in_place(f32, 5, Sum)", "waited 0.300 s for rank 2 to enter"] {
                assert!(error.to_string().contains(named), "{error}");
            }
            check_later_calls(&duplicate, &error);
        }
        comm.barrier().unwrap();
        // It gets the same, if late.
        let error = duplicate.barrier().unwrap_err();
        assert!(matches!(&error, Error::Timeout { missing, .. } if missing == &[2]), "{error:?}");
    });
}

/// A barrier that asks for more memory than there is.
struct Greedy;

impl Schedule for Greedy {
    fn name(&self) -> &str {
        "greedy"
    }

    fn collective(&self) -> Collective {
        Collective::Barrier
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn resources(&self, _: &Layout) -> Resources {
        Resources { scratch: 1 << 60, ..Resources::default() }
    }

    fn program(&self, _: usize, _: &Layout) -> Program {
        Program::new()
    }
}

/// What one rank cannot get ends the call of those that wait for it.
#[test]
fn memory_that_a_rank_cannot_get_for_a_call_is_everybodys_failure() {
    everywhere(2, "memory_that_a_rank_cannot_get_for_a_call_is_everybodys_failure", |comm| {
        let duplicate = comm.duplicate().unwrap();
        let greedy = verify(&Greedy, &Layout::uniform(2, 0)).unwrap();
        let error = match comm.rank() {
            0 => duplicate.barrier().unwrap_err(),
            _ => duplicate.execute::<u8>(&greedy, &[], &mut [], None).unwrap_err(),
        };
        assert!(matches!(&error, Error::System(_)), "{error:?}");
        for named in ["call 0, barrier(): on rank 1, allocating", "free memory, or use another schedule"] {
            assert!(error.to_string().contains(named), "{error}");
        }
        check_later_calls(&duplicate, &error);
        comm.barrier().unwrap();
    });
}

/// A peer that may not read what it was to read says who it is, in which call, and what helps.
#[test]
fn memory_that_a_rank_may_not_read_is_everybodys_failure() {
    processes(2, "memory_that_a_rank_may_not_read_is_everybodys_failure", |comm| {
        let (collective, count) = (Collective::Broadcast, 64 << 10);
        let (data_type, op, in_place, allocated) = (DataType::U8, None, true, false);
        let question = Question { collective, data_type, op, count, in_place, allocated };
        if comm.explain(&question).unwrap().algorithm != "pull" {
            return; // the system lets no peer read anything
        }
        let error = if comm.rank() == 0 {
            // SAFETY: a new mapping at no address in particular.
            let memory = unsafe { mmap_anonymous(null_mut(), count, ProtFlags::empty(), MapFlags::PRIVATE) }.unwrap();
            // SAFETY: it is there as long as the process. Nothing in this process looks at the elements: those of a message
            // that is pulled are its receiver's to read, by the system, which refuses what is mapped without access.
            let elements = unsafe { std::slice::from_raw_parts(memory.cast::<u8>(), count) };
            comm.send(elements, 1).unwrap_err()
        } else {
            comm.recv(&mut vec![0_u8; count], 0).unwrap_err()
        };
        assert!(matches!(&error, Error::System(_)), "{error:?}");
        for named in ["call 0, a message of 65536 u8 from rank 0 to rank 1: on rank 1", "set ANNULUS_PULL=0"] {
            assert!(error.to_string().contains(named), "{error}");
        }
    });
}

#[test]
fn an_abort_wakes_everyone() {
    everywhere(3, "an_abort_wakes_everyone", |comm| {
        for aborter in 0..3 {
            let duplicate = comm.duplicate().unwrap();
            let handle = duplicate.abort_handle();
            let started = duplicate.start_all_reduce_in_place(vec![1.0_f32; 10], ReduceOp::Sum).unwrap();
            started.wait().unwrap();
            let aborting = (comm.rank() == aborter).then(|| {
                let other = handle.clone();
                std::thread::spawn(move || {
                    // The ranks sleep by then.
                    std::thread::sleep(Duration::from_millis(30));
                    other.abort("the tests have seen enough");
                })
            });
            // One rank stays away, so that the others wait, the aborting one too.
            if comm.rank() == (aborter + 1) % 3 {
                comm.barrier().unwrap();
            }
            let error = duplicate.barrier().unwrap_err();
            if comm.rank() != (aborter + 1) % 3 {
                comm.barrier().unwrap();
            }
            aborting.into_iter().for_each(|thread| thread.join().unwrap());
            let sentence = format!("rank {aborter} aborted: the tests have seen enough");
            assert_eq!(error, Error::Aborted(sentence.into()));
            handle.abort("for another reason");
            check_later_calls(&duplicate, &error);
            comm.barrier().unwrap();
        }
    });
}

/// An input that no call writes to stays as it is, and within peers' reach.
#[test]
fn a_failed_call_leaves_its_input_alone() {
    processes(2, "a_failed_call_leaves_its_input_alone", |comm| {
        let duplicate = comm.duplicate().unwrap();
        duplicate.set_timeout(Duration::from_millis(200));
        let len = 9 * Shared::<f32>::PAGE;
        let [mut send, mut recv] = [(); 2].map(|()| comm.allocate::<f32>(len).unwrap());
        send.fill(1.0);
        if comm.rank() == 0 {
            duplicate.all_reduce(&send, &mut recv, ReduceOp::Sum).unwrap_err();
            assert_eq!((shared_pages(&send), shared_pages(&recv)), (vec![true; 9], vec![false; 9]));
            recv = comm.allocate::<f32>(len).unwrap();
        }
        comm.all_reduce(&send, &mut recv, ReduceOp::Sum).unwrap();
        assert!(recv.iter().all(|sum| *sum == 2.0));
        assert_eq!(comm.last_call().unwrap().algorithm, "direct");
    });
}

/// What its ranks shared may be somebody else's by then.
#[test]
fn an_abort_after_the_end_touches_nothing() {
    everywhere(2, "an_abort_after_the_end_touches_nothing", |comm| {
        let ended = || {
            let duplicate = comm.duplicate().unwrap();
            let (handle, bytes) = (duplicate.abort_handle(), duplicate.footprint());
            drop(duplicate);
            // When all have left, what is made next is where this one was.
            comm.barrier().unwrap();
            (handle, bytes)
        };
        let (handle, bytes) = ended();
        let memory = comm.allocate::<u8>(bytes).unwrap();
        comm.barrier().unwrap();
        handle.abort("too late");
        comm.barrier().unwrap();
        assert_eq!(memory.iter().position(|byte| *byte != 0), None, "its handle wrote to memory that was given back");
        drop(memory);
        let (handle, _) = ended();
        let duplicate = comm.duplicate().unwrap();
        handle.abort("too late");
        comm.barrier().unwrap();
        duplicate.barrier().unwrap();
    });
}

type Made = fn(&Communicator) -> Result<()>;

/// What differs; the call of most ranks and that of the odd one, in words and as code.
const DIFFERENCES: [(&str, [&str; 2], [Made; 2]); 10] = [
    (
        "collective",
        ["all_reduce_in_place(f32, 5, Sum)", "broadcast_in_place(f32, 5, root 0)"],
        [
            |comm| comm.all_reduce_in_place(&mut [1.0_f32; 5], ReduceOp::Sum),
            |comm| comm.broadcast_in_place(&mut [1.0_f32; 5], 0),
        ],
    ),
    (
        "barrier",
        ["barrier()", "all_gather(u8, 1)"],
        [|comm| comm.barrier(), |comm| comm.all_gather(&[0_u8], &mut [0; 3])],
    ),
    (
        "type",
        ["all_reduce_in_place(f32, 5, Sum)", "all_reduce_in_place(i32, 5, Sum)"],
        [
            |comm| comm.all_reduce_in_place(&mut [1.0_f32; 5], ReduceOp::Sum),
            |comm| comm.all_reduce_in_place(&mut [1_i32; 5], ReduceOp::Sum),
        ],
    ),
    (
        "count",
        ["all_reduce_in_place(f32, 5, Sum)", "all_reduce_in_place(f32, 6, Sum)"],
        [
            |comm| comm.all_reduce_in_place(&mut [1.0_f32; 5], ReduceOp::Sum),
            |comm| comm.all_reduce_in_place(&mut [1.0_f32; 6], ReduceOp::Sum),
        ],
    ),
    // One of them rides in the entry record, the other does not.
    (
        "size",
        ["reduce_scatter(f16, 1000, Min)", "reduce_scatter(f16, 10, Min)"],
        [
            |comm| comm.reduce_scatter(&[annulus::f16::ONE; 3000], &mut [annulus::f16::ONE; 1000], ReduceOp::Min),
            |comm| comm.reduce_scatter(&[annulus::f16::ONE; 30], &mut [annulus::f16::ONE; 10], ReduceOp::Min),
        ],
    ),
    (
        "op",
        ["all_reduce_in_place(u64, 900, Sum)", "all_reduce_in_place(u64, 900, Max)"],
        [
            |comm| comm.all_reduce_in_place(&mut [1_u64; 900], ReduceOp::Sum),
            |comm| comm.all_reduce_in_place(&mut [1_u64; 900], ReduceOp::Max),
        ],
    ),
    (
        "factor",
        ["all_reduce_in_place(f32, 5, PreMulSum(0.5))", "all_reduce_in_place(f32, 5, PreMulSum(-2.0))"],
        [
            |comm| comm.all_reduce_in_place(&mut [1.0_f32; 5], ReduceOp::PreMulSum(0.5.into())),
            |comm| comm.all_reduce_in_place(&mut [1.0_f32; 5], ReduceOp::PreMulSum((-2.0).into())),
        ],
    ),
    (
        "root",
        ["broadcast_in_place(f32, 900, root 0)", "broadcast_in_place(f32, 900, root 2)"],
        [
            |comm| comm.broadcast_in_place(&mut [1.0_f32; 900], 0),
            |comm| comm.broadcast_in_place(&mut [1.0_f32; 900], 2),
        ],
    ),
    (
        "in place",
        ["all_reduce(f32, 5, Sum)", "all_reduce_in_place(f32, 5, Sum)"],
        [
            |comm| comm.all_reduce(&[1.0_f32; 5], &mut [0.0; 5], ReduceOp::Sum),
            |comm| comm.all_reduce_in_place(&mut [1.0_f32; 5], ReduceOp::Sum),
        ],
    ),
    (
        "algorithm",
        ["all_gather(i64, 500) by algorithm ring", "all_gather(i64, 500) by algorithm direct"],
        [
            |comm| {
                comm.set_algorithm(Some("ring"))?;
                comm.all_gather(&[1_i64; 500], &mut [1; 1500])
            },
            |comm| {
                comm.set_algorithm(Some("direct"))?;
                comm.all_gather(&[1_i64; 500], &mut [1; 1500])
            },
        ],
    ),
];

#[test]
fn each_field_of_a_mismatch_is_named() {
    everywhere(3, "each_field_of_a_mismatch_is_named", |comm| {
        for (number, (field, [usual, odd], made)) in DIFFERENCES.into_iter().enumerate() {
            let odd_one = number % 3;
            let duplicate = comm.duplicate().unwrap();
            duplicate.barrier().unwrap();
            let error = made[usize::from(comm.rank() == odd_one)](&duplicate).unwrap_err();
            let (first, second) = [(1, 2), (0, 2), (0, 1)][odd_one];
            let (usual, odd) = (format!("ranks {first}, {second} call {usual}"), format!("rank {odd_one} calls {odd}"));
            let parts = if odd_one == 0 { [odd, usual] } else { [usual, odd] };
            let sentence = format!("call 1: {}; {}; all ranks must make the same call", parts[0], parts[1]);
            assert_eq!(error, Error::Mismatch(sentence.into()), "{field}");
            check_later_calls(&duplicate, &error);
        }
    });
}

/// What this process has open and mapped: descriptors, mappings, and mappings of segments.
fn belongings() -> (usize, usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let segments = maps.lines().filter(|line| line.contains("annulus") && line.contains("memfd")).count();
    (std::fs::read_dir("/proc/self/fd").unwrap().count(), maps.lines().count(), segments)
}

/// A communicator of processes that are there for longer: each has a meeting of its own.
fn join_again(number: usize) -> Communicator {
    let mut environment = Environment::read().unwrap();
    environment.job = environment.job.map(|job| format!("{job}, world {number}"));
    let deadline = Instant::now() + Duration::from_secs(60);
    Communicator::meet(&mut SocketRendezvous::meet(environment, deadline).unwrap()).unwrap()
}

#[test]
fn communicators_leave_nothing_behind() {
    processes(2, "communicators_leave_nothing_behind", |comm| {
        let (mut number, before) = (0, belongings());
        for how in ["ended", "aborted", "left"] {
            let mut first = None;
            for turn in 0..20 {
                number += 1;
                let own = join_again(number);
                let duplicate = own.duplicate().unwrap();
                let mut buffer = own.allocate::<f32>(100_000).unwrap();
                drop(own.start_all_reduce_in_place(vec![1.0_f32; 1000], ReduceOp::Sum).unwrap());
                duplicate.all_reduce_in_place(&mut buffer, ReduceOp::Sum).unwrap();
                match how {
                    "aborted" => {
                        own.abort("enough");
                        own.all_reduce_in_place(&mut buffer, ReduceOp::Sum).unwrap_err();
                    }
                    "left" if own.rank() == 0 => {
                        own.all_reduce_in_place(&mut buffer, ReduceOp::Sum).unwrap_err();
                    }
                    _ => (),
                }
                drop((own, duplicate, buffer));
                let now = belongings();
                assert_eq!((now.0, now.2), (before.0, before.2), "{how} {turn}: descriptors and mapped segments");
                // The first turns may grow the heap and make stacks that are used again.
                match turn {
                    10 => first = Some(now.1),
                    11.. => assert!(now.1 <= first.unwrap() + 2, "{how} {turn}: {} mappings, {first:?} before", now.1),
                    _ => (),
                }
            }
        }
        comm.barrier().unwrap();
    });
}

/// Bytes of the memory of this process's own and its peers' segments.
fn committed() -> u64 {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| entry.path());
    let segments = descriptors.filter(|path| {
        std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:annulus"))
    });
    segments.map(|path| std::fs::metadata(path).unwrap().blocks() * 512).sum()
}

/// Bytes of memory in which this process's pages are.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn allocating_and_freeing_takes_no_memory() {
    processes(2, "allocating_and_freeing_takes_no_memory", |comm| {
        comm.barrier().unwrap();
        let segments = committed();
        assert!(segments > 0);
        comm.barrier().unwrap();
        let mut after_some = 0;
        for turn in 0..150 {
            let mut first = comm.allocate::<f32>(1 << 18).unwrap();
            assert!(first.iter().all(|element| element.to_bits() == 0), "new memory is zero");
            let (mut a, b) = comm.allocate::<u64>(50_000 + turn).unwrap().split_at(1024).unwrap();
            first.fill(1.0);
            a.fill(7);
            comm.all_reduce_in_place(&mut first, ReduceOp::Sum).unwrap();
            let b = comm.start_all_reduce_in_place(b, ReduceOp::Sum).unwrap().wait().unwrap();
            match turn % 2 {
                0 => drop((a, first, b)),
                _ => drop((b, a, first)),
            }
            // Both have freed theirs.
            comm.barrier().unwrap();
            assert_eq!(committed(), segments, "in turn {turn}");
            comm.barrier().unwrap();
            if turn == 20 {
                after_some = resident();
            }
        }
        assert!(resident() < after_some + (2 << 20), "{} bytes, {after_some} before", resident());
    });
}

/// A schedule of one's own has memory of its own on each rank, as long as its communicator is there.
#[test]
fn schedules_of_ended_communicators_take_no_memory() {
    processes(2, "schedules_of_ended_communicators_take_no_memory", |comm| {
        let verified = verify(&Butterfly, &Layout::uniform(2, 100_000)).unwrap();
        let (send, mut recv) = (vec![1.0_f32; 100_000], vec![0.0; 100_000]);
        let mut before = 0;
        for turn in 0..6 {
            let duplicate = comm.duplicate().unwrap();
            duplicate.execute(&verified, &send, &mut recv, Some(ReduceOp::Sum)).unwrap();
            drop(duplicate);
            comm.barrier().unwrap();
            // Both have left; who allocates gives back what nobody uses any more.
            drop(comm.allocate::<u8>(1).unwrap());
            comm.barrier().unwrap();
            if turn == 0 {
                before = committed();
            }
            assert_eq!(committed(), before, "in turn {turn}");
            comm.barrier().unwrap();
        }
    });
}

/// What `Communicator::from_env` answers where no world comes about.
fn refusals(ranks: &[usize], world: usize, name: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let ended = start(ranks, world, name, variables, || {
        println!("refused {:?}", Communicator::from_env().map(drop).unwrap_err());
    });
    ended.iter().map(|rank| rank.said("refused ").next().unwrap_or(&rank.output).to_owned()).collect()
}

#[test]
fn threads_are_as_many_ranks_as_processes_may_be() {
    for ranks in [0, 4097, usize::MAX] {
        let failure = run(ranks, |_| Ok(())).unwrap_err();
        assert_eq!(failure.error, Error::invalid(format!("a world has 1 to 4096 ranks; {ranks} were asked for")));
    }
}

#[test]
fn worlds_that_do_not_come_about_are_explained() {
    let name = "worlds_that_do_not_come_about_are_explained";
    let short = [("ANNULUS_TIMEOUT", "1")];
    for refused in refusals(&[0, 1, 1], 3, &format!("{name} twice"), &[]) {
        assert!(refused.starts_with("Mismatch") && refused.contains("both started as rank 1 of 3"), "{refused}");
    }
    for refused in refusals(&[7], 4, &format!("{name} out of range"), &[("LOCAL_RANK", "0")]) {
        assert!(refused.contains("RANK=7 is out of range for WORLD_SIZE=4"), "{refused}");
    }
    for refused in refusals(&[0, 1, 3], 4, &format!("{name} missing"), &short) {
        assert!(refused.starts_with("Timeout { missing: [2]"), "{refused}");
    }
    for refused in refusals(&[0, 0], 2, &format!("{name} two roots"), &short) {
        assert!(refused.starts_with("Mismatch") && refused.contains("both started as rank 0 of 2"), "{refused}");
    }
    for refused in refusals(&[0], 2, &format!("{name} several hosts"), &[("LOCAL_WORLD_SIZE", "1")]) {
        assert!(refused.starts_with("Unsupported") && refused.contains("several hosts"), "{refused}");
    }
    for refused in refusals(&[0], 1, &format!("{name} bad timeout"), &[("ANNULUS_TIMEOUT", "soon")]) {
        assert!(refused.contains("ANNULUS_TIMEOUT is \\\"soon\\\""), "{refused}");
    }
}
