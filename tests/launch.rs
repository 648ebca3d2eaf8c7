// SPDX-License-Identifier: MPL-2.0
//! Worlds that a launcher starts and ends. The launcher is this test binary again, with `launcher_process` as its only
//! test, so that it has standard streams and signals of its own; its ranks are shell scripts.
#![cfg(all(feature = "cli", target_os = "linux"))]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use annulus::Error;
use annulus::launch::{Launch, Output};
use rustix::process::{Pid, Signal, kill_process};

/// Launches what `ANNULUS_TEST_SCRIPT` says; not a test of its own.
#[test]
fn launcher_process() {
    let Ok(script) = std::env::var("ANNULUS_TEST_SCRIPT") else { return };
    let ranks = std::env::var("ANNULUS_TEST_RANKS").unwrap().parse().unwrap();
    let mut launch = Launch::new(ranks, "sh", ["-c", &script]);
    if std::env::var("ANNULUS_TEST_VERBATIM").is_ok() {
        launch.output = Output::Verbatim;
    }
    // No test here has ranks that end in time but slowly.
    launch.grace = Duration::from_millis(300);
    println!();
    let status = launch.run().unwrap();
    std::process::exit(status.into());
}

fn launcher(ranks: usize, script: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["launcher_process", "--exact", "--nocapture"])
        .env("ANNULUS_TEST_SCRIPT", script)
        .env("ANNULUS_TEST_RANKS", ranks.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A launcher at work. It is killed when it goes out of scope, and its ranks with it.
struct Launcher {
    child: Child,
    /// Until it is closed.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Launcher {
    fn start(mut command: Command) -> Launcher {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        Launcher { child, stdout }
    }

    /// The next line that a rank prints, as the launcher passes it on.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.stdout.as_mut().unwrap().read_line(&mut line).unwrap(), 0, "the launcher ended");
            if line.starts_with('[') {
                return line.trim_end().to_owned();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self) -> Ended {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let status = self.child.wait().unwrap();
        // The rest is what the test harness prints.
        let mut lines: Vec<String> = stdout.lines().filter(|line| line.starts_with('[')).map(str::to_owned).collect();
        lines.sort();
        Ended { status, lines, stdout, stderr }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    /// What the ranks printed, sorted.
    lines: Vec<String>,
    stdout: String,
    stderr: String,
}

fn launch(ranks: usize, script: &str) -> Ended {
    Launcher::start(launcher(ranks, script)).end()
}

/// Whether a process is there and not merely waiting to be waited for.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn every_rank_is_told_who_it_is_and_prints_behind_its_number() {
    let script = "echo $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR:$MASTER_PORT; echo error >&2";
    let ended = launch(3, script);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let expected = [0, 1, 2].map(|rank| format!("[{rank}] {rank}/3 {rank}/3 127.0.0.1:29500"));
    assert_eq!(ended.lines, expected);
    for rank in 0..3 {
        assert!(ended.stderr.contains(&format!("[{rank}] error\n")), "{ended:?}");
    }
}

/// Some programs block signals and start others without taking that back.
#[test]
fn ends_of_ranks_are_noticed_where_their_signal_is_blocked() {
    let mut command = Command::new("timeout");
    let launcher = launcher(2, "[ $RANK = 0 ] || exit 3; exec sleep 30");
    command
        .args(["--signal=KILL", "20", "env", "--block-signal=CHLD"])
        .arg(launcher.get_program())
        .args(launcher.get_args());
    command.envs(launcher.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = Launcher::start(command).end();
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(ended.stderr.contains("rank 1 exited with status 3; ending the others"), "{ended:?}");
}

#[test]
fn all_ranks_have_one_job_and_each_launch_its_own() {
    let jobs = || {
        let ended = launch(2, "echo $ANNULUS_JOB");
        let jobs: Vec<String> = ended.lines.iter().map(|line| line[4..].to_owned()).collect();
        assert!(jobs.len() == 2 && jobs[0] == jobs[1] && jobs[0].len() == 32, "{ended:?}");
        jobs[0].clone()
    };
    assert_ne!(jobs(), jobs());
}

#[test]
fn the_last_line_needs_no_end_and_input_is_empty() {
    let ended = launch(1, "cat; printf 'a\nb'; printf c");
    assert_eq!(ended.lines, ["[0] a", "[0] bc"]);
    assert!(ended.stdout.ends_with("[0] bc\n"), "{ended:?}");
}

#[test]
fn verbatim_output_is_the_ranks_own() {
    let mut command = launcher(2, "[ $RANK = 0 ] && printf 'one\\rtwo' || true");
    command.env("ANNULUS_TEST_VERBATIM", "1");
    let ended = Launcher::start(command).end();
    assert!(ended.stdout.ends_with("one\rtwo"), "{ended:?}");
}

#[test]
fn what_a_ranks_own_child_leaves_open_is_not_waited_for() {
    let ended = launch(1, "sleep 30 & echo $!");
    assert_eq!(ended.status.code(), Some(0));
    let pid = &ended.lines[0][4..];
    assert!(runs(pid), "what ranks leave behind on purpose is theirs");
    kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn one_that_fails_ends_all_and_gives_its_status() {
    // The others run a child each, which ends with them.
    let ended = launch(3, "[ $RANK = 1 ] && exit 3; echo $$; sleep 30; true");
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(ended.stderr.contains("rank 1 exited with status 3"), "{ended:?}");
    for line in &ended.lines {
        assert!(!runs(&line[4..]), "{line}");
    }
}

#[test]
fn one_that_is_killed_is_named_with_its_signal() {
    let ended = launch(2, "[ $RANK = 0 ] && kill -KILL $$; sleep 30");
    assert_eq!(ended.status.code(), Some(128 + 9), "{ended:?}");
    assert!(ended.stderr.contains("rank 0 was killed by SIGKILL"), "{ended:?}");
}

#[test]
fn one_that_does_not_end_is_killed_after_the_grace() {
    // Rank 0 refuses to end, and rank 1 fails when told to.
    let script = "case $RANK in
        0) trap '' TERM USR1;;
        1) trap 'exit 5' USR1;;
    esac
    echo ready; while :; do sleep 0.02; done";
    let mut launcher = Launcher::start(launcher(2, script));
    for _ in 0..2 {
        assert!(launcher.line().ends_with("ready"));
    }
    launcher.signal(Signal::USR1);
    let ended = launcher.end();
    assert_eq!(ended.status.code(), Some(5), "{ended:?}");
    assert!(ended.stderr.contains("rank 0 did not end within 300ms; killing"), "{ended:?}");
}

#[test]
fn signals_are_passed_on() {
    for (signal, name) in [(Signal::INT, "INT"), (Signal::TERM, "TERM"), (Signal::HUP, "HUP"), (Signal::USR2, "USR2")] {
        // All ranks end well, so that none is ended because of another.
        let script = format!("trap 'echo got {name}; exit 0' {name}; echo ready; while :; do sleep 0.02; done");
        let mut launcher = Launcher::start(launcher(2, &script));
        for _ in 0..2 {
            assert!(launcher.line().ends_with("ready"));
        }
        launcher.signal(signal);
        let ended = launcher.end();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert_eq!(ended.lines, [format!("[0] got {name}"), format!("[1] got {name}")]);
    }
}

#[test]
fn a_signal_that_ends_the_ranks_is_the_status() {
    let mut launcher = Launcher::start(launcher(2, "echo ready; exec sleep 30"));
    for _ in 0..2 {
        assert!(launcher.line().ends_with("ready"));
    }
    launcher.signal(Signal::INT);
    let ended = launcher.end();
    assert_eq!(ended.status.code(), Some(128 + 2), "{ended:?}");
    assert!(ended.stderr.contains("was killed by SIGINT"), "{ended:?}");
}

#[test]
fn ignored_signals_stay_ignored() {
    let launch = launcher(1, "echo ready; exec sleep 30");
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(launch.get_program()).args(launch.get_args());
    command.envs(launch.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut launcher = Launcher::start(command);
    assert_eq!(launcher.line(), "[0] ready");
    launcher.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(100));
    launcher.signal(Signal::TERM);
    let ended = launcher.end();
    assert_eq!(ended.status.code(), Some(128 + 15), "{ended:?}");
}

#[test]
fn ranks_end_with_a_launcher_that_is_killed() {
    let mut launcher = Launcher::start(launcher(2, "echo $$; exec sleep 30"));
    let pids = [launcher.line(), launcher.line()].map(|line| line[4..].to_owned());
    assert!(pids.iter().all(|pid| runs(pid)));
    launcher.signal(Signal::KILL);
    assert_eq!(launcher.child.wait().unwrap().signal(), Some(9));
    let until = Instant::now() + Duration::from_secs(20);
    while pids.iter().any(|pid| runs(pid)) {
        assert!(Instant::now() < until, "ranks outlive their launcher");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn output_that_nobody_reads_any_more_ends_the_ranks() {
    let mut launcher = Launcher::start(launcher(1, "echo $$; while :; do echo more; done"));
    let pid = launcher.line()[4..].to_owned();
    drop(launcher.stdout.take());
    assert_ne!(launcher.child.wait().unwrap().code(), Some(0));
    assert!(!runs(&pid));
}

#[test]
fn what_cannot_be_started_is_a_sentence() {
    for (ranks, program, named) in [
        (0, "sh", "0 ranks"),
        (2, "/no/such/program", "cannot start rank 0, /no/such/program"),
        (2, "/", "cannot start rank 0, /"),
        (2, "a\0b", "cannot start rank 0"),
    ] {
        let error = Launch::new(ranks, program, [""; 0]).run().unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(text) if text.contains(named)), "{error}");
    }
}
