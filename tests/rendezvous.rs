// SPDX-License-Identifier: MPL-2.0
//! Ranks that are real processes meet, exchange descriptors, fail and are killed. Each is this test binary again,
//! started with `rank_process` as its only test; what it has to say, it writes to standard error.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use annulus::Error;
use annulus::transport::rendezvous::{Rendezvous, SocketRendezvous};
use annulus::transport::shm::descriptors;
use annulus::transport::shm::liveness::{Liveness, Pulse};
use annulus::transport::shm::segment::{Segment, page_size};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Longer than any of these tests takes.
fn late() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// What a rank process does; not a test of its own.
#[test]
fn rank_process() {
    let Ok(role) = std::env::var("ANNULUS_TEST_ROLE") else { return };
    let said = match role.as_str() {
        "share" => share(),
        "meet briefly" => SocketRendezvous::from_env(Instant::now() + Duration::from_secs(2)).map(|_| "met".into()),
        "meet" => SocketRendezvous::from_env(late()).map(|_| "met".into()),
        "meet twice" => SocketRendezvous::from_env(late()).and_then(|mut rendezvous| {
            eprintln!("said met");
            rendezvous.all_gather(&[], late()).map(|_| "met again".into())
        }),
        "meet and stop" => SocketRendezvous::from_env(late()).map(|_rendezvous| {
            eprintln!("said met");
            std::thread::sleep(Duration::from_secs(60));
            "woke".into()
        }),
        "few files" => few_files(),
        "small files" => {
            limit(Resource::Fsize, 1 << 20);
            Segment::create("annulus-test", 2 << 20).map(|_| "made".into())
        }
        "small address space" => {
            limit(Resource::As, 64 << 30);
            Segment::create("annulus-test", 128 << 30).map(|_| "made".into())
        }
        other => panic!("{other}"),
    };
    eprintln!("said {}", said.unwrap_or_else(|error: Error| format!("error {error:?}")));
}

fn limit(resource: Resource, current: u64) {
    setrlimit(resource, Rlimit { current: Some(current), ..getrlimit(resource) }).unwrap();
}

/// Meets, shares a segment with everyone, writes to everyone's and says what everyone wrote to its own.
fn share() -> annulus::Result<String> {
    let mut rendezvous = SocketRendezvous::from_env(late())?;
    let (rank, world) = (rendezvous.rank(), rendezvous.world_size());
    let own = Segment::create("annulus-test", page_size())?;
    own.commit(0..own.len())?;
    let pulse = Pulse::of_this_process()?;
    let all = descriptors::exchange(&mut rendezvous, &[own.as_fd(), pulse.as_fd()], late())?;
    let mut pulses = Vec::new();
    let mut segments = Vec::new();
    for mut of_rank in all {
        pulses.extend(of_rank.pop());
        segments.extend(of_rank.pop().map(|file| Segment::open(file, page_size()).unwrap()));
    }
    for segment in &segments {
        // SAFETY: Each rank writes one byte of its own, and nobody reads before the all-gather below.
        unsafe { segment.base().as_ptr().add(rank).write_volatile(b'a' + rank as u8) }
    }
    // Nobody ends before the all-gather below, so nobody is dead yet.
    let liveness = Liveness::new(pulses);
    let dead: Vec<usize> = (0..world).filter(|&rank| liveness.dead(rank)).collect();
    rendezvous.all_gather(&[], late())?;
    // SAFETY: All writes were made before the all-gather, and nobody writes any more.
    let bytes = unsafe { std::slice::from_raw_parts(own.base().as_ptr(), world) }.to_vec();
    Ok(format!("{} dead {dead:?}", String::from_utf8_lossy(&bytes)))
}

fn few_files() -> annulus::Result<String> {
    let mut rendezvous = SocketRendezvous::from_env(late())?;
    let null = std::fs::File::open("/dev/null").unwrap();
    if rendezvous.rank() == 1 {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        limit(Resource::Nofile, open + 20);
    }
    let many = vec![null.as_fd(); 10];
    descriptors::exchange(&mut rendezvous, &many, late()).map(|_| "exchanged".into())
}

/// A started rank. It is killed when it goes out of scope, so that a failed test leaves nothing behind.
struct Rank {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Rank {
    fn start(job: &str, role: &str, rank: usize, world: usize) -> Rank {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["rank_process", "--exact", "--nocapture"])
            .env("ANNULUS_TEST_ROLE", role)
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", world.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", "29500")
            .env("ANNULUS_JOB", format!("{job} {}", std::process::id()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Rank { child, stderr }
    }

    /// The next thing it says.
    fn said(&mut self) -> String {
        let mut other = String::new();
        loop {
            let mut line = String::new();
            if self.stderr.read_line(&mut line).unwrap() == 0 {
                panic!("it ended without a word: {other}");
            }
            match line.strip_prefix("said ") {
                Some(said) => return said.trim_end().to_owned(),
                None => other += &line,
            }
        }
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What each rank of a whole world says.
fn world(job: &str, role: &str, size: usize) -> Vec<String> {
    let mut ranks: Vec<Rank> = (0..size).map(|rank| Rank::start(job, role, rank, size)).collect();
    ranks.iter_mut().map(Rank::said).collect()
}

#[test]
fn processes_share_memory() {
    for size in [1, 2, 5] {
        for said in world("share", "share", size) {
            assert_eq!(said, format!("{} dead []", &"abcde"[..size]));
        }
    }
}

#[test]
fn a_missing_process_is_named() {
    let mut ranks = [0, 1, 3].map(|rank| Rank::start("missing", "meet briefly", rank, 4));
    for rank in &mut ranks {
        let said = rank.said();
        assert!(said.starts_with("error Timeout { missing: [2]"), "{said}");
        assert!(said.contains("MASTER_PORT=29500"), "{said}");
    }
}

#[test]
fn two_processes_with_one_rank_both_learn_of_it() {
    let mut ranks = [0, 1, 1].map(|rank| Rank::start("twice", "meet", rank, 3));
    for rank in &mut ranks {
        let said = rank.said();
        assert!(said.starts_with("error Mismatch") && said.contains("both started as rank 1 of 3"), "{said}");
    }
}

#[test]
fn a_killed_process_is_named() {
    let mut ranks = [
        Rank::start("killed", "meet twice", 0, 3),
        Rank::start("killed", "meet and stop", 1, 3),
        Rank::start("killed", "meet twice", 2, 3),
    ];
    for rank in &mut ranks {
        assert_eq!(rank.said(), "met");
    }
    ranks[1].child.kill().unwrap();
    for rank in [0, 2] {
        let said = ranks[rank].said();
        assert!(said.starts_with("error RankLost { rank: 1, cause: Died"), "{said}");
    }
}

#[test]
fn a_job_that_is_started_again_finds_its_name_free() {
    for _ in 0..3 {
        assert_eq!(world("again", "meet", 2), ["met", "met"]);
    }
}

#[test]
fn a_limit_on_open_files_is_a_sentence_on_every_rank() {
    for said in world("files", "few files", 3) {
        assert!(said.starts_with("error System") && said.contains("ulimit -n"), "{said}");
    }
}

#[test]
fn limits_on_files_and_address_space_are_sentences() {
    for (role, named) in [("small files", "ulimit -f"), ("small address space", "ulimit -v")] {
        let said = Rank::start(role, role, 0, 1).said();
        assert!(said.starts_with("error System") && said.contains(named), "{said}");
    }
}
