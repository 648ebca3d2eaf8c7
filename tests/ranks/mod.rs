// SPDX-License-Identifier: MPL-2.0
//! Worlds for tests: one body, run on ranks that are threads or on ranks that are processes.
//!
//! A process is this test binary again, with the test that calls as its only test: it comes to the same call, finds in
//! its environment that it is a rank of that very world, runs the body and exits. Worlds are told apart by a name whose
//! first word is the test's, and by their size.
#![allow(dead_code)] // each test file uses a part

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use annulus::{Communicator, run};
use rustix::process::{Pid, Signal};

/// The environment variable in which a process finds the world whose rank it is.
const WORLD: &str = "ANNULUS_TEST_WORLD";

/// How long ranks wait for one another, where a test does not say otherwise: a minute, or `ANNULUS_TIMEOUT` seconds.
fn patience() -> Duration {
    Duration::from_secs(std::env::var("ANNULUS_TIMEOUT").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(60))
}

/// When a world of processes is killed for taking too long: after 150 seconds, or `ANNULUS_TEST_LONGEST`.
fn longest() -> Duration {
    let asked = std::env::var("ANNULUS_TEST_LONGEST").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(asked.unwrap_or(150))
}

/// Whether everything is to be tested, however long it takes: `ANNULUS_TEST=full`.
pub fn full() -> bool {
    std::env::var("ANNULUS_TEST").is_ok_and(|size| size == "full")
}

/// Whether this process is a rank that a test started.
fn is_rank() -> bool {
    std::env::var_os(WORLD).is_some()
}

/// Runs `body` on `ranks` threads, and returns what it returned.
pub fn threads<T: Send>(ranks: usize, body: impl Fn(Communicator) -> T + Sync) -> Vec<T> {
    if is_rank() {
        return Vec::new();
    }
    let results = run(ranks, |comm| {
        comm.set_timeout(patience());
        Ok(body(comm))
    });
    results.unwrap_or_else(|failure| panic!("{failure}"))
}

/// Runs `body` on `ranks` processes, none of which may fail. `name` begins with the name of the calling test.
pub fn processes(ranks: usize, name: &str, body: impl FnOnce(Communicator)) {
    processes_that_say(ranks, name, body);
}

/// The same, and returns what they said; nothing in a process that is a rank of another world.
pub fn processes_that_say(ranks: usize, name: &str, body: impl FnOnce(Communicator)) -> Vec<Ended> {
    let all: Vec<usize> = (0..ranks).collect();
    let ended = start(&all, ranks, name, &[], || body(Communicator::from_env().unwrap()));
    for rank in &ended {
        assert!(rank.status.success(), "rank {} of {ranks}: {}\n{}", rank.rank, rank.status, rank.output);
    }
    ended
}

/// Runs `body` on `ranks` processes and on as many threads.
pub fn everywhere(ranks: usize, name: &str, body: impl Fn(Communicator) + Sync) {
    processes(ranks, name, &body);
    threads(ranks, &body);
}

/// How a process ended, and what it wrote to its standard output and error.
#[derive(Debug)]
pub struct Ended {
    pub rank: usize,
    pub process: u32,
    pub status: ExitStatus,
    pub output: String,
}

impl Ended {
    /// What follows `key` on lines that begin with it.
    pub fn said<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.output.lines().filter_map(move |line| line.strip_prefix(key)).map(str::trim)
    }
}

/// Starts these ranks of a world of `world` processes, with these variables beside those that make it a rank (`{rank}` in
/// a value is the rank's number), and returns how each ended; nothing in a process that is a rank of another world. `body` has yet to join the world.
///
/// Afterwards no process of the world is left, and no file that it made.
pub fn start(ranks: &[usize], world: usize, name: &str, variables: &[(&str, &str)], body: impl FnOnce()) -> Vec<Ended> {
    let identity = format!("{name} {world}");
    if let Ok(own) = std::env::var(WORLD) {
        if own == identity {
            // A test that is killed takes its ranks along.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
            // What the test harness has written is on a line of its own.
            println!();
            body();
            std::process::exit(0);
        }
        return Vec::new();
    }
    static WORLDS: AtomicU32 = AtomicU32::new(0);
    let job = format!("{identity} {} {}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
    let mut started: Vec<Started> = Vec::new();
    for rank in ranks {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([name.split(' ').next().unwrap(), "--exact", "--nocapture", "--test-threads=1"])
            .env(WORLD, &identity)
            .envs([("RANK", rank.to_string()), ("LOCAL_RANK", rank.to_string())])
            .envs([("WORLD_SIZE", world.to_string()), ("LOCAL_WORLD_SIZE", world.to_string())])
            .envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500"), ("ANNULUS_JOB", &job)])
            .env("ANNULUS_TIMEOUT", patience().as_secs().to_string())
            .envs(variables.iter().map(|(name, value)| (name, value.replace("{rank}", &rank.to_string()))))
            .process_group(started.first().map_or(0, |first| first.child.id() as i32));
        started.push(Started::new(*rank, command));
    }
    let group = Pid::from_child(&started[0].child);
    let deadline = Instant::now() + if full() { 60 * longest() } else { longest() };
    while !started.iter_mut().all(Started::has_ended) {
        if Instant::now() > deadline {
            started.iter_mut().for_each(|rank| rank.child.kill().unwrap());
            let outputs: Vec<Ended> = started.into_iter().map(Started::end).collect();
            panic!("the world {identity} did not end: {outputs:#?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let ended: Vec<Ended> = started.into_iter().map(Started::end).collect();
    assert!(rustix::process::test_kill_process_group(group).is_err(), "a process of the world {identity} is left");
    // Other tests have files of their own in the second place, so there only those with a rank's number are ours.
    let numbers: Vec<String> = ended.iter().map(|rank: &Ended| rank.process.to_string()).collect();
    for (place, ours) in [("/dev/shm", &[String::new()][..]), ("/tmp", &numbers)] {
        let names = std::fs::read_dir(place).into_iter().flatten().flatten();
        let mut names = names.map(|file| file.file_name().to_string_lossy().into_owned());
        let left = names.find(|name| name.contains("annulus") && ours.iter().any(|number| name.contains(number)));
        assert_eq!(left, None, "the world {identity} left a file in {place}");
    }
    ended
}

/// A rank at work.
struct Started {
    rank: usize,
    child: Child,
    output: JoinHandle<String>,
}

impl Started {
    fn new(rank: usize, mut command: Command) -> Self {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let child = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
        let output = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Started { rank, child, output }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn end(mut self) -> Ended {
        let status = self.child.wait().unwrap();
        Ended { rank: self.rank, process: self.child.id(), status, output: self.output.join().unwrap() }
    }
}
