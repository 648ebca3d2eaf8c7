// SPDX-License-Identifier: MPL-2.0
//! Kernels executed on the host: the program in `tests/kernels/`, which includes `kernels/*.cu`, linked with
//! `kernels/host/`, as it is and under the sanitizers.

mod compiler;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FLAGS: [&str; 8] =
    ["-std=c++17", "-ffp-contract=off", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-Wno-unknown-pragmas", "-pthread"];

/// The test program, built with these flags beside the usual ones.
fn program(compiler: &str, flags: &[&str]) -> PathBuf {
    program_of(compiler, compiler::files(&["tests/kernels"], &["cpp"]), flags)
}

/// The same with the cases of one file alone.
fn program_with(compiler: &str, file: &str, flags: &[&str]) -> PathBuf {
    let files = [file, "main.cpp"].map(|file| compiler::root().join("tests/kernels").join(file));
    program_of(compiler, files.to_vec(), flags)
}

fn program_of(compiler: &str, files: Vec<PathBuf>, flags: &[&str]) -> PathBuf {
    let all = compiler::files(&["kernels", "kernels/host", "tests/kernels"], &["cu", "cpp", "h"]);
    let sources = [files, compiler::files(&["kernels/host"], &["cpp"])].concat();
    let arguments = [flags, &FLAGS].concat();
    let names = sources.iter().map(|source| source.to_str().expect("a path of ours"));
    let key: Vec<&str> = arguments.iter().copied().chain(names).collect();
    compiler::once("kernels", &key, &all, |folder| {
        let objects = compiler::objects(compiler, &sources, |_| &arguments, folder);
        compiler::compile(compiler, &arguments, &objects, &folder.join("kernels"))
    })
    .join("kernels")
}

fn run(program: &Path, cases: &[&str]) -> (Output, String) {
    let output = Command::new(program).args(cases).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output, said)
}

#[test]
fn kernels_execute_on_the_host() {
    let Some(compiler) = compiler::compiler() else { return };
    let program = program(&compiler, &["-O2"]);
    let (output, said) = run(&program, &[]);
    println!("{said}");
    assert!(output.status.success(), "{said}");
    // A kernel that lacks a barrier gives a wrong result here, always: its threads run one after the other.
    let (output, said) = run(&program, &["planted_race"]);
    assert!(!output.status.success(), "the planted race was not noticed:\n{said}");
}

/// Products are compiled twice, and the processor chooses: here one that has no instruction for a step of a product.
#[test]
fn products_have_the_same_bits_on_every_processor() {
    let Some(compiler) = compiler::compiler() else { return };
    let program = program_with(&compiler, "trainer.cpp", &["-O2", "-D__builtin_cpu_supports(what)=0"]);
    let (output, said) = run(&program, &["products_are_chains"]);
    assert!(output.status.success(), "{said}");
}

/// So are conversions of f16: here by the instructions of a processor with AVX alone, and by none.
#[test]
fn halves_have_the_same_bits_on_every_processor() {
    let Some(compiler) = compiler::compiler() else { return };
    for (which, supported) in [("avx", "(what[2]=='x'&&what[3]==0)"), ("none", "0")] {
        let flags = ["-O2", &format!("-D__builtin_cpu_supports(what)={supported}")];
        let program = program_with(&compiler, "halves.cpp", &flags);
        let (output, said) = run(&program, &["halves_one_by_one_and_together"]);
        assert!(output.status.success(), "{which}: {said}");
    }
}

#[test]
fn thread_sanitizer_sees_gpu_threads_as_threads() {
    let Some(compiler) = compiler::compiler() else { return };
    let flags = ["-fsanitize=thread", "-O1", "-g"];
    if !compiler::accepts(&compiler, &flags) {
        return;
    }
    let program = program(&compiler, &flags);
    let (output, said) = run(&program, &[]);
    assert!(output.status.success() && !said.contains("ThreadSanitizer"), "{said}");
    let (output, said) = run(&program, &["planted_race"]);
    assert!(!output.status.success() && said.contains("data race"), "the planted race was not reported:\n{said}");
}

#[test]
fn address_sanitizer_knows_the_stacks_of_fibers() {
    let Some(compiler) = compiler::compiler() else { return };
    // Not optimised: with it, compiling takes three times as long.
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O0", "-g"];
    if !compiler::accepts(&compiler, &flags) {
        return;
    }
    let program = program(&compiler, &flags);
    let (output, said) = run(&program, &[]);
    assert!(output.status.success() && !said.contains("Sanitizer"), "{said}");
    let (output, said) = run(&program, &["planted_overflow"]);
    assert!(!output.status.success() && said.contains("heap-buffer-overflow"), "not reported:\n{said}");
}

/// Mistakes that are planted in the shipped kernels by a macro, and the case that must notice each.
const PLANTED: [(&str, &str); 18] = [
    ("PLANTED_NO_BARRIER", "calls_of_one_kind"), // a block signals before all of its threads are done
    ("PLANTED_SINGLE_SLOT", "a_rank_runs_ahead"), // one entry a rank instead of two
    ("PLANTED_RESET", "a_rank_cleans_late"),     // packets are reset while they arrive
    ("PLANTED_NOT_TAKEN", "a_rank_folds_late"),  // a slot is written before it was read
    ("PLANTED_OWN_FIRST", "rank_order"),         // each rank begins with its own value
    ("PLANTED_ZERO_START", "rank_order"),        // folds begin with zero
    ("PLANTED_NATIVE_NAN", "canonical_nan"),     // a NaN is stored with the bits that the processor gives it
    ("PLANTED_IN_PLACE", "a_rank_folds_late"),   // one-shot in place without staging
    ("PLANTED_IN_PLACE", "a_rank_moves_late"),   // all-to-all in place without staging
    ("PLANTED_NOT_FINISHED", "a_rank_moves_late"), // an input is given back while it is read
    ("PLANTED_NOT_TAKEN", "a_message_is_taken_late"), // both, of messages
    ("PLANTED_NOT_FINISHED", "a_message_is_taken_late"),
    ("PLANTED_NOT_TAKEN", "a_relayed_message_is_taken_late"), // and of those that are copied
    ("PLANTED_NOT_FINISHED", "a_relayed_message_is_taken_late"),
    ("PLANTED_SIGNED_COMPARE", "counts_wrap"), // counters are compared, and not their difference
    ("PLANTED_LAGGING", "counters_fall_behind"), // counters are not raised by calls that have no use for them
    ("PLANTED_BLOCK_PARITY", "grids_change"),  // staging halves by the count of a block
    ("PLANTED_STALE_FLAGS", "programs_in_a_row"), // flags that begin anew in each call
];

/// Of those in matrix products.
const PLANTED_IN_PRODUCTS: [&str; 2] = [
    "PLANTED_EARLY_LOAD",    // a tile is loaded while others still read the one before
    "PLANTED_EARLY_PRODUCT", // a tile is read before others have loaded their parts of it
];

/// The cases of a file, with one mistake planted. What is the same for all is compiled once.
fn planted(compiler: &str, file: &str, mistake: &str, flags: &[&str]) -> PathBuf {
    let all = compiler::files(&["kernels", "kernels/host", "tests/kernels"], &["cu", "cpp", "h"]);
    let arguments: Vec<&str> = ["-std=c++17", "-ffp-contract=off", "-pthread"].iter().chain(flags).copied().collect();
    let mut sources = compiler::files(&["kernels/host"], &["cpp"]);
    sources.push(compiler::root().join("tests/kernels/main.cpp"));
    let common = compiler::once("planted-common", &arguments, &all, |folder| {
        let together: Vec<&str> = arguments.iter().copied().chain(["-r", "-nostdlib"]).collect();
        compiler::compile(compiler, &together, &sources, &folder.join("common.o"));
    });
    let mistake = format!("-D{mistake}");
    let arguments: Vec<&str> = arguments.into_iter().chain(["-DPLANTED", &mistake]).collect();
    let sources = [compiler::root().join("tests/kernels").join(file), common.join("common.o")];
    compiler::once("planted", &[&arguments[..], &[file]].concat(), &all, |folder| {
        compiler::compile(compiler, &arguments, &sources, &folder.join("kernels"))
    })
    .join("kernels")
}

#[test]
fn planted_mistakes_are_noticed() {
    let Some(compiler) = compiler::compiler() else { return };
    for (mistake, case) in PLANTED {
        let (output, said) = run(&planted(&compiler, "collectives.cpp", mistake, &["-O0"]), &[case]);
        assert!(output.status.code() == Some(1), "{case} did not notice {mistake}:\n{said}");
    }
    for mistake in PLANTED_IN_PRODUCTS {
        let program = planted(&compiler, "trainer.cpp", mistake, &["-O0"]);
        let (output, said) = run(&program, &["products_are_chains"]);
        assert!(output.status.code() == Some(1), "products_are_chains did not notice {mistake}:\n{said}");
    }
}

/// On this processor a store is a release store anyway; ThreadSanitizer knows what was asked for.
#[test]
fn thread_sanitizer_notices_a_missing_release() {
    let Some(compiler) = compiler::compiler() else { return };
    let flags = ["-fsanitize=thread", "-O1", "-g"];
    if compiler::accepts(&compiler, &flags) {
        let program = planted(&compiler, "collectives.cpp", "PLANTED_RELAXED", &flags);
        for case in ["calls_of_one_kind", "messages_in_rings"] {
            let (output, said) = run(&program, &[case]);
            assert!(!output.status.success() && said.contains("data race"), "{case} did not report it:\n{said}");
        }
    }
}
