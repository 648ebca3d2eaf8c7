// SPDX-License-Identifier: MPL-2.0
//! The rules of ARCHITECTURE.md that a compiler does not check: which room may import which, where `unsafe` is, how long
//! files get, and under which licence they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Every room, in order, with what it may import. `room` allows all of it, `room::item` that part alone. A room imports
/// only rooms above it, and not even all of those.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("element", &["error"]),
    ("file", &["error"]),
    ("sync", &[]),
    ("reference", &["error", "element"]),
    ("schedule", &["error", "element"]),
    // The names of the collectives are the schedules': a record says which one was called.
    ("record", &["element", "schedule::Collective"]),
    ("reduce", &["error", "element"]),
    ("transport", &["error", "sync"]),
    ("kernel", &["error", "element"]),
    ("driver", &["error", "element"]),
    ("communicator", &["error", "element", "sync", "schedule", "record", "reduce", "transport", "kernel", "driver"]),
    ("tensor", &["error", "element"]),
    ("nn", &["error", "element", "file", "tensor"]),
    ("optim", &["error", "element", "tensor", "nn"]),
    // The sampler deals batches to ranks as collectives deal elements.
    ("data", &["error", "element", "tensor", "schedule::partition"]),
    ("perceptron", &["error", "element", "kernel", "driver", "nn", "optim"]),
    (
        "ddp",
        &[
            "error",
            "element",
            "driver",
            "perceptron",
            "reference",
            "schedule::partition",
            "schedule::Collective", // of the records that its times are made of
            "record",
            "communicator",
            "tensor",
            "nn",
            "optim",
            "data",
        ],
    ),
    ("launch", &["error", "element", "transport"]),
    ("bench", ABOVE_COMMANDS),
    ("doctor", &["error", "element", "kernel", "driver"]),
    ("train", ABOVE_COMMANDS),
];

/// What the commands' code may import: everything but each other, and the kernels.
const ABOVE_COMMANDS: &[&str] = &[
    "error",
    "element",
    "file",
    "reference",
    "schedule",
    "record",
    "reduce",
    "transport",
    "driver",
    "communicator",
    "tensor",
    "nn",
    "optim",
    "data",
    "perceptron",
    "ddp",
    "launch",
];

/// Files that may import less than their room.
const STRICTER: &[(&str, &[&str])] = &[
    // The oracle of training is worth something only as long as it shares nothing with what it is compared with.
    ("src/ddp/one_rank.rs", &["error", "element", "reference", "tensor", "nn", "optim", "data", "ddp::Recipe"]),
    // So is that of training on devices, which shares the model and its kernels, as the other shares the autograd.
    (
        "src/ddp/device/one_rank.rs",
        &["error", "element", "driver", "data", "perceptron", "ddp::Recipe", "ddp::Fault", "ddp::one_rank"],
    ),
    ("src/ddp/recipe.rs", &["error", "element", "tensor", "nn", "optim", "data", "perceptron::Precision"]),
];

/// The files of the library and of the command that contain `unsafe`. The compiler denies it in every other; this list
/// makes a new one show in review.
const UNSAFE: &[&str] = &[
    "src/bin/annulus/main.rs",
    "src/communicator/addresses.rs",
    "src/communicator/device/copies.rs",
    "src/communicator/device/launch.rs",
    "src/communicator/device/messages.rs",
    "src/communicator/device/relay.rs",
    "src/communicator/execute.rs",
    "src/communicator/memory.rs",
    "src/doctor/gpu/card/code.rs",
    "src/doctor/gpu/card/graphs.rs",
    "src/doctor/gpu/card/memory.rs",
    "src/doctor/gpu/card/mod.rs",
    "src/doctor/gpu/card/streams.rs",
    "src/doctor/gpu/kernels.rs",
    "src/driver/allocation.rs",
    "src/driver/backend.rs",
    "src/driver/copies.rs",
    "src/driver/cuda/blas.rs",
    "src/driver/cuda/borrowed.rs",
    "src/driver/cuda/library.rs",
    "src/driver/cuda/management.rs",
    "src/driver/cuda/table.rs",
    "src/driver/event.rs",
    "src/driver/gpu/calls.rs",
    "src/driver/gpu/code.rs",
    "src/driver/gpu/context.rs",
    "src/driver/gpu/first_use.rs",
    "src/driver/gpu/graph.rs",
    "src/driver/gpu/hosted.rs",
    "src/driver/gpu/idle.rs",
    "src/driver/gpu/ipc.rs",
    "src/driver/gpu/memory.rs",
    "src/driver/gpu/mod.rs",
    "src/driver/gpu/peers.rs",
    "src/driver/gpu/pinned.rs",
    "src/driver/gpu/pool.rs",
    "src/driver/gpu/stream.rs",
    "src/driver/graph.rs",
    "src/driver/hip/sys.rs",
    "src/driver/hip/table.rs",
    "src/driver/host/execution.rs",
    "src/driver/host/mod.rs",
    "src/driver/host/stream.rs",
    "src/driver/host/strict/fault.rs",
    "src/driver/host/strict/mod.rs",
    "src/driver/ipc.rs",
    "src/driver/kernel.rs",
    "src/driver/mapping.rs",
    "src/driver/mark.rs",
    "src/driver/products.rs",
    "src/driver/stream.rs",
    "src/driver/words.rs",
    "src/launch/rank.rs",
    "src/perceptron/kernels/mod.rs",
    "src/record/clock.rs",
    "src/reduce/arithmetic.rs",
    "src/reduce/environment.rs",
    "src/reduce/kernel.rs",
    "src/reduce/mod.rs",
    "src/reduce/vectors.rs",
    "src/reduce/x86.rs",
    "src/sync.rs",
    "src/tensor/product.rs",
    "src/transport/memory.rs",
    "src/transport/page.rs",
    "src/transport/pair.rs",
    "src/transport/peers.rs",
    "src/transport/shm/isolation.rs",
    "src/transport/shm/private.rs",
    "src/transport/shm/processes.rs",
    "src/transport/shm/segment.rs",
];

/// Every file gets shorter than this, the reference's own much shorter.
const LONGEST: usize = 800;
const LONGEST_REFERENCE: usize = 300;

/// Path and contents of every Rust file below a directory, in order.
fn files(directory: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    files
}

/// The module of a file of the library: `src/schedule/verify/mod.rs` is `schedule`, `verify`.
fn module(path: &str) -> Vec<&str> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').filter(|part| *part != "lib").collect()
}

/// Words, `::`, and single other characters, without comments.
fn tokens(source: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    for line in source.lines() {
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with("//") {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => rest.chars().next().map_or(1, char::len_utf8),
                length => length,
            };
            tokens.push(&rest[..length]);
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Reads the rest of a path, or a group of paths, from `tokens[*at]` on; each complete path goes to `paths`.
fn read_paths(tokens: &[&str], at: &mut usize, prefix: &[String], paths: &mut Vec<Vec<String>>) {
    match tokens.get(*at) {
        Some(&"{") => {
            *at += 1;
            while tokens.get(*at).is_some_and(|token| *token != "}") {
                if tokens[*at] == "," {
                    *at += 1;
                } else {
                    let before = *at;
                    read_paths(tokens, at, prefix, paths);
                    *at = (*at).max(before + 1);
                }
            }
            *at += 1;
        }
        Some(word) if word.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
            let path = [prefix, &[word.to_string()]].concat();
            *at += 1;
            if tokens.get(*at) == Some(&"::") {
                *at += 1;
                read_paths(tokens, at, &path, paths);
            } else {
                paths.push(path);
                if tokens.get(*at) == Some(&"as") {
                    *at += 2;
                }
            }
        }
        // `*`, or a path that ends in generic arguments.
        _ => {
            paths.push(prefix.to_vec());
            *at += usize::from(tokens.get(*at) == Some(&"*"));
        }
    }
}

/// What a file of the library names in this crate by `crate::` or `super::`, as paths from the crate's root.
fn imports(path: &str, source: &str) -> BTreeSet<Vec<String>> {
    let (module, tokens) = (module(path), tokens(source));
    let mut named = Vec::new();
    for start in 0..tokens.len() {
        let continues = start > 0 && tokens[start - 1] == "::";
        if continues || tokens.get(start + 1) != Some(&"::") || !["crate", "super"].contains(&tokens[start]) {
            continue;
        }
        let mut at = start + 2;
        let mut outwards = usize::from(tokens[start] == "super");
        while tokens.get(at) == Some(&"super") {
            (outwards, at) = (outwards + 1, at + 2);
        }
        let inside = if tokens[start] == "crate" { 0 } else { module.len().saturating_sub(outwards) };
        let prefix: Vec<String> = module[..inside].iter().map(|part| part.to_string()).collect();
        read_paths(&tokens, &mut at, &prefix, &mut named);
    }
    named.into_iter().collect()
}

/// Names that the crate's root re-exports, with their rooms: `crate::Error` is of `error`.
fn reexports(root: &str) -> BTreeMap<String, String> {
    let tokens = tokens(root);
    let mut paths = Vec::new();
    for start in 1..tokens.len() {
        if tokens[start - 1..=start] == ["pub", "use"] {
            read_paths(&tokens, &mut (start + 1), &[], &mut paths);
        }
    }
    paths.into_iter().filter_map(|path| Some((path.last()?.clone(), path.first()?.clone()))).collect()
}

/// The imports of a file that `allowed` does not cover, as sentences. `own` is what it may always name.
fn trespasses(
    path: &str,
    source: &str,
    own: Option<&str>,
    allowed: &[&str],
    reexports: &BTreeMap<String, String>,
) -> Vec<String> {
    let rooms: BTreeSet<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    let covered = |target: &[String]| {
        own == Some(target[0].as_str())
            || allowed.iter().any(|allowed| {
                let allowed: Vec<&str> = allowed.split("::").collect();
                target.len() >= allowed.len() && allowed.iter().zip(target).all(|(allowed, part)| allowed == part)
            })
    };
    imports(path, source)
        .into_iter()
        .filter_map(|mut target| {
            // A name of the root counts as its room's; one of another crate counts as nobody's.
            if let Some(room) = target.first().and_then(|first| reexports.get(first)) {
                target.insert(0, room.clone());
            }
            rooms.contains(target.first()?.as_str()).then_some(target)
        })
        .filter(|target| !covered(target))
        .map(|target| format!("{path} imports {}", target.join("::")))
        .collect()
}

/// The part of a file before its tests.
fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]\nmod ").next().unwrap_or(source)
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let sources = files("src");
    let reexports = reexports(&sources["src/lib.rs"]);
    let rooms: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (path, source) in sources.iter().filter(|(path, _)| *path != "src/lib.rs" && !path.starts_with("src/bin/")) {
        let room = module(path)[0];
        match rooms.get(room) {
            Some(allowed) => wrong.extend(trespasses(path, source, Some(room), allowed, &reexports)),
            None => wrong.push(format!("{path} is in no room of the table")),
        }
    }
    for (path, allowed) in STRICTER {
        match sources.get(*path) {
            Some(source) => wrong.extend(trespasses(path, without_tests(source), None, allowed, &reexports)),
            None => wrong.push(format!("{path} has a rule and does not exist")),
        }
    }
    assert!(wrong.is_empty(), "the table of rooms does not allow this:\n{}", wrong.join("\n"));
}

#[test]
fn the_table_itself_points_upwards() {
    for (index, (room, allowed)) in ROOMS.iter().enumerate() {
        for target in *allowed {
            let target = target.split("::").next().unwrap_or(target);
            assert!(
                ROOMS[..index].iter().any(|(above, _)| *above == target),
                "{room} may import {target}, not above it"
            );
        }
    }
}

/// The test's own negative controls: each of these ways to import is seen.
#[test]
fn a_planted_trespass_is_found() {
    let reexports = reexports("pub use communicator::{Communicator, run};\npub use half::{bf16, f16};");
    let found = |source: &str| trespasses("src/schedule/ring.rs", source, Some("schedule"), &["error"], &reexports);
    for (source, target) in [
        ("use crate::transport::page::Page;", "transport::page::Page"),
        ("use crate::{error::Error, transport::{page::Page as P, *}};", "transport"),
        ("use super::super::reduce;", "reduce"),
        ("use super::super::{\n    reduce,\n};", "reduce"),
        ("fn f() -> crate::communicator::Pending<()> {}", "communicator::Pending"),
        ("use crate::run;", "communicator::run"),
    ] {
        let found = found(source);
        let expected = format!("src/schedule/ring.rs imports {target}");
        assert!(found.contains(&expected), "{source}: found {found:?}");
    }
    for source in [
        "use crate::error::{Error, Result};",
        "use super::{Access, partition};",
        "mod tests { use super::*; }",
        "//! See [`crate::transport`].",
        "use crate::bf16;",
        "pub(crate) fn f() {}",
    ] {
        assert!(found(source).is_empty(), "{source}: found {:?}", found(source));
    }
}

#[test]
fn unsafe_is_where_the_list_says() {
    let sources = files("src");
    assert!(sources["src/lib.rs"].contains("#![deny(unsafe_code)]"));
    let found: Vec<&str> = sources
        .iter()
        .filter(|(_, source)| source.contains("allow(unsafe_code)"))
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(found, UNSAFE, "the files that contain `unsafe`, found and listed in tests/architecture.rs");
}

#[test]
fn files_stay_small_and_say_their_licence() {
    let mut wrong = Vec::new();
    for directory in ["src", "tests", "benches", "examples"] {
        for (path, source) in files(directory) {
            if source.lines().next() != Some("// SPDX-License-Identifier: MPL-2.0") {
                wrong.push(format!("{path} does not begin with the licence's SPDX line"));
            }
            let longest = if path == "src/reference/mod.rs" { LONGEST_REFERENCE } else { LONGEST };
            if directory == "src" && source.lines().count() >= longest {
                wrong.push(format!("{path} has {} lines; it must stay below {longest}", source.lines().count()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
