// SPDX-License-Identifier: MPL-2.0
//! `annulus doctor --gpu`, tried on the stand-in driver: every question is asked to its end, answers what it should
//! there, and whatever fails in a driver is an answer or a sentence, and never a hang. No GPU is involved.
#![cfg(all(feature = "cli", feature = "cuda", target_os = "linux"))]

mod compiler;
#[path = "standin/mod.rs"]
mod standin;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The command, with a driver library from this folder and these variables.
fn doctor(library: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_annulus"))
        .args(["doctor", "--gpu"])
        .args(arguments)
        .env("LD_LIBRARY_PATH", library)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The answers of one question.
struct Answers(Vec<Value>);

impl Answers {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        Answers(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    fn to(&self, question: &str) -> Vec<&Value> {
        self.0.iter().filter(|answer| answer["question"] == question).collect()
    }

    /// The answer to what was asked in words that begin so.
    fn find(&self, question: &str, asked: &str) -> &str {
        let found = self.to(question).into_iter().find(|answer| answer["asked"].as_str().unwrap().starts_with(asked));
        found.unwrap_or_else(|| panic!("{question} has no answer to {asked}: {:#?}", self.to(question)))["answer"]
            .as_str()
            .unwrap()
    }
}

const QUESTIONS: [&str; 18] = [
    "card",
    "ptx",
    "ending",
    "resident",
    "one-launch",
    "streams",
    "streams-32",
    "priorities",
    "flags",
    "stream-operations",
    "graphs",
    "fold",
    "ipc",
    "lazy-loading",
    "eager-loading",
    "launch-queue",
    "launch-queue-4x",
    "processes",
];

#[test]
fn every_question_is_asked_to_its_end() {
    let Some(library) = standin::library() else { return };
    // The fold is measured with a share of the memory, of which there is little here: then it takes a while, and not more.
    let (fold, others): (Vec<_>, Vec<_>) = QUESTIONS.iter().partition(|question| **question == "fold");
    let ask = |questions: Vec<&str>, memory: &str| {
        let only = questions.iter().flat_map(|question| ["--only", question]);
        let arguments: Vec<&str> = ["--json"].into_iter().chain(only).collect();
        let output = doctor(&library, &[("STANDIN_MEMORY", memory)], &arguments);
        assert!(output.status.success(), "{}\n{}", stderr(&output), String::from_utf8_lossy(&output.stdout));
        Answers::of(&output).0
    };
    let answers = Answers([ask(others, "128"), ask(fold, "4")].concat());
    for question in QUESTIONS {
        assert!(!answers.to(question).is_empty(), "{question} has no answer");
    }
    assert!(answers.find("card", "card").contains("stand-in"));
    for (question, asked, expected) in [
        ("ending", "a waiting kernel with a deadline", "ends by the deadline"),
        ("ending", "a waiting kernel, aborted", "ends by the abort word"),
        ("ending", "a fold in the same context", "right"),
        ("graphs", "an epoch in device memory", "counts every one"),
        ("fold", "fold of 8 sources, bf16", "the result is right"),
        ("fold", "fold of 2 sources, f32", "the result is right"),
        ("ipc", "a plain allocation", "as it was written: yes"),
        ("ipc", "what lies", "names the beginning of the allocation"),
        ("ipc", "memory from the pool", "is refused"),
        ("ipc", "opening it in the process that exported it", "is refused"),
        ("one-launch", "a cooperative launch", "is refused"),
        ("stream-operations", "graph capture of events", "replayed ten times"),
        ("lazy-loading", "allocating device memory", "the kernel still running"),
        ("launch-queue", "launches, each with an event", "511 return at once"),
        ("launch-queue", "a second thread's launch", "waits too"),
        // Of 11 commands each, behind a kernel.
        ("launch-queue", "the same of graphs of 10 empty kernels", "93 return at once; the next launch waits"),
        ("launch-queue-4x", "length of launch queues", "4x"),
        ("launch-queue-4x", "launches, each with an event", "2047 return at once"),
        ("processes", "a flag in exported memory", "a round trip"),
        ("streams", "16 kernels on 16 streams", "run together"),
        (
            "priorities",
            "a fill on a stream of the highest priority, while kernels wait on 64",
            "the kernels still waiting",
        ),
    ] {
        let answer = answers.find(question, asked);
        assert!(answer.contains(expected), "{question}, {asked}: {answer}");
    }
    // The stand-in behaves as cards are believed to, except that it gives two processes no turns.
    let unlike: Vec<&Value> = answers.0.iter().filter(|answer| answer["holds"] == false).collect();
    let known = |answer: &Value| ["processes", "flags"].contains(&answer["question"].as_str().unwrap());
    assert!(unlike.iter().all(|answer| known(answer)), "{unlike:#?}");
}

#[test]
fn much_memory_is_asked_for_while_a_kernel_runs() {
    let Some(library) = standin::library() else { return };
    let output = doctor(&library, &[("STANDIN_MEMORY", "1024")], &["--only", "lazy-loading", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let answers = Answers::of(&output);
    for asked in [
        "allocating 256 MiB of device memory",
        "allocating 256 MiB from the memory pool",
        "freeing 256 MiB to the memory pool",
        "allocating 64 MiB of pinned memory",
    ] {
        let answer = answers.find("lazy-loading", asked);
        assert!(answer.contains("returns after"), "{asked}: {answer}");
    }
}

#[test]
fn the_table_is_one_table() {
    let Some(library) = standin::library() else { return };
    let output = doctor(&library, &[], &["--only", "card,ptx"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.iter().all(|line| line.starts_with('|') && line.ends_with('|')), "{text}");
    assert!(lines[0].contains("question") && lines[0].contains("as recalled?"), "{text}");
    assert!(lines[2..].iter().all(|line| line.starts_with("| card") || line.starts_with("| ptx")), "{text}");
}

/// A card whose ordinary streams share one queue.
#[test]
fn a_stream_that_waits_for_others_is_found_out() {
    let Some(library) = standin::library() else { return };
    let output = doctor(&library, &[("STANDIN_ORDER", "2")], &["--only", "priorities", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let answers = Answers::of(&output);
    let waits = answers.find("priorities", "a fill on an ordinary stream, while kernels wait on 1 ");
    assert!(waits.contains("WAITS FOR A KERNEL"), "{waits}");
    let goes_on = answers.find("priorities", "a fill on a stream of the highest priority, while kernels wait on 1 ");
    assert!(goes_on.contains("the kernels still waiting"), "{goes_on}");
}

/// A card whose streams share one queue: kernels that wait for one another are late, and that is the answer.
#[test]
fn streams_that_take_turns_are_found_out() {
    let Some(library) = standin::library() else { return };
    let output = doctor(&library, &[("STANDIN_ORDER", "1")], &["--only", "streams,one-launch", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let answers = Answers::of(&output);
    for kernels in [2, 16] {
        let answer = answers.find("streams", &format!("{kernels} kernels"));
        assert!(answer.contains("do NOT run together"), "{answer}");
    }
    let settled = answers.to("streams").into_iter().find(|answer| answer["asked"] == "2 kernels on 2 streams").unwrap();
    assert_eq!(settled["holds"], false);
    // One launch is in nobody's way.
    assert!(answers.find("one-launch", "16 ranks").contains("all met"));
}

#[test]
fn a_call_that_fails_is_an_answer() {
    let Some(library) = standin::library() else { return };
    let variables = [("STANDIN_FAIL", "cuStreamWaitValue32_v2=801,cuGraphLaunch=999")];
    let output = doctor(&library, &variables, &["--only", "stream-operations,graphs,card", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("not answered to their end: graphs"), "{}", stderr(&output));
    let answers = Answers::of(&output);
    let refused = answers.find("stream-operations", "waiting for a value that is there");
    assert!(refused.contains("refused: cuStreamWaitValue32_v2 answers") && refused.contains("(801)"), "{refused}");
    assert!(answers.find("stream-operations", "writing a value").contains("host's time"));
    let short = answers.find("graphs", "launches, eager and from graphs");
    assert!(short.contains("not answered to the end: cuGraphLaunch answers"), "{short}");
    // What had been answered before stays answered.
    assert!(answers.find("graphs", "an empty kernel, launched eagerly").contains("host's time"));
}

#[test]
fn a_call_that_hangs_ends_at_its_deadline_and_hangs_nothing_else() {
    let Some(library) = standin::library() else { return };
    let begun = Instant::now();
    let variables = [("STANDIN_HANG", "cuGraphLaunch")];
    let output = doctor(&library, &variables, &["--only", "graphs,card", "--deadline", "2", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(begun.elapsed() < Duration::from_secs(60));
    let answers = Answers::of(&output);
    let short = answers.find("graphs", "launches, eager and from graphs");
    assert!(short.contains("no more answers within 2 s: its process was killed"), "{short}");
    assert!(answers.find("card", "card").contains("stand-in"));
}

#[test]
fn what_there_is_no_time_for_is_not_asked_and_says_so() {
    let Some(library) = standin::library() else { return };
    let variables = [("STANDIN_HANG", "cuCtxSetCurrent")];
    let output = doctor(&library, &variables, &["--only", "card,ptx,fold", "--within", "2", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let answers = Answers::of(&output);
    assert!(answers.find("card", "what the card").contains("no more answers within 2 s"));
    for (question, asked) in [("ptx", "which embedded code"), ("fold", "the fold against")] {
        let answer = answers.find(question, asked);
        assert!(answer.contains("not asked: the time for all questions is up"), "{answer}");
    }
}

#[test]
fn without_a_card_it_says_what_it_looked_for() {
    let Some(library) = standin::library() else { return };
    for (variables, sentence) in [
        ([("STANDIN_DEVICES", "0")], "the NVIDIA driver shows no device"),
        ([("STANDIN_VERSION", "11080")], "the driver is for CUDA 11.8; Annulus needs one for CUDA 12.0 or later"),
        ([("STANDIN_FAIL", "cuInit=999")], "the NVIDIA driver does not start: cuInit answers"),
    ] {
        let output = doctor(&library, &variables, &[]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(sentence), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    let Some(library) = standin::library_without("cuIpcGetMemHandle") else { return };
    let output = doctor(&library, &[], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("the driver library has no function cuIpcGetMemHandle"), "{}", stderr(&output));
}

/// A library of the driver's name that is none.
#[test]
fn without_a_driver_it_says_what_it_looked_for() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-driver");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["libcuda.so.1", "libcuda.so"] {
        std::fs::write(folder.join(name), "not a library").unwrap();
    }
    let output = doctor(&folder, &[], &[]);
    assert_eq!(output.status.code(), Some(2));
    let sentence = stderr(&output);
    assert!(sentence.contains("there is no NVIDIA driver on this machine"), "{sentence}");
    assert!(sentence.contains("looked for libcuda.so.1 and libcuda.so"), "{sentence}");
}

#[test]
fn what_is_not_a_question_is_refused() {
    let output = doctor(Path::new("/nowhere"), &[], &["--only", "weather"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("there is no question weather; there are card, ptx, "), "{}", stderr(&output));
}
