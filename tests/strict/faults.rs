// SPDX-License-Identifier: MPL-2.0
//! Mistakes, and what is said of them: in kernels of `faults.cu`, and in the library's with a mistake planted.

use std::path::PathBuf;
use std::sync::Once;

use annulus::Result;
use annulus::driver::{Device, DeviceBuffer, Shape, Use, strict};

use super::{SEEDS, collectives, compiler, launch, ranks, read, simulated, trainer, upload};

const SOURCE: &str = include_str!("faults.cu");

const THREADS: u32 = 128;

/// Adds the kernels of `faults.cu`; whether there are strict devices.
pub fn add_faults() -> bool {
    static ADDED: Once = Once::new();
    if simulated::absent() {
        return false;
    }
    ADDED.call_once(|| strict::add_kernels(compiler::root().join("tests/strict/faults.cu")).unwrap());
    true
}

/// The line that ends with a comment, as sentences name it.
fn line(comment: &str) -> String {
    let end = format!("// LINE {comment}");
    let number = SOURCE.lines().position(|line| line.ends_with(&end)).unwrap() + 1;
    format!("tests/strict/faults.cu:{number}")
}

/// What a kernel makes of words, one a thread.
fn words(device: &Device, kernel: &str, faulty: bool) -> Result<Vec<u32>> {
    let from = upload(device, &(0..THREADS).map(|word| word * word).collect::<Vec<u32>>())?;
    let to: DeviceBuffer<u32> = device.allocate(THREADS as usize)?;
    let shape = Shape::new(1, THREADS).shared(4 * THREADS);
    let uses = [Use::reads(&from), Use::writes(&to)];
    launch(device, kernel, shape, &[from.address(), to.address(), u64::from(faulty)], &uses)?;
    read(device, &to)
}

/// Each kernel, and what is said of its mistake.
fn mistakes() -> Vec<(&'static str, Vec<String>)> {
    let said = |words: &[&str], lines: &[&str]| {
        words.iter().map(|word| word.to_string()).chain(lines.iter().map(|comment| line(comment))).collect()
    };
    vec![
        ("dropped_barrier", said(&["shared memory", "with no barrier between"], &["read", "written"])),
        (
            "past_the_end_read",
            said(&["thread 127 of block 0 reads 4 bytes", "at byte 512 of memory of 512"], &["past read"]),
        ),
        ("past_the_end_written", said(&["thread 127 of block 0 writes 1 bytes", "at byte 512 of"], &["past written"])),
        ("before_the_beginning", said(&["thread 0 of block 0 reads 4 bytes"], &["before"])),
        ("argument_written", said(&["writes 8 bytes", "the kernel's argument"], &["argument"])),
        ("not_aligned", said(&["reads 8 bytes", "not aligned"], &["not aligned"])),
        ("warp_of_64", said(&["shared memory", "with no barrier between"], &["warp"])),
        ("lane_of_64", said(&["asks for lane"], &["lane"])),
        ("missed_barrier", said(&["ended without the barrier", "waits"], &["missed"])),
        ("two_barriers", said(&["came to the barrier", "waits at another"], &["odd", "even"])),
        ("warp_and_block", said(&["warp", "waits at another"], &[])),
        (
            "past_dynamic",
            said(&["thread 127 of block 0 writes 4 bytes", "at byte 512 of memory of 512"], &["past dynamic"]),
        ),
        ("unwritten", said(&["seed 1 differs from that of seed 0", "that no thread had written"], &["unwritten"])),
        ("unwritten_dynamic", said(&["differs", "thread 5 of", "that no thread had written"], &["unwritten dynamic"])),
    ]
}

#[test]
fn mistakes_are_said_with_kernel_thread_and_line() {
    if !add_faults() {
        return;
    }
    for (mistake, said) in mistakes() {
        let kernel = format!("fault_{mistake}");
        let right = strict::agree(SEEDS, |device| words(device, &kernel, false));
        assert!(right.is_ok(), "{mistake} is reported where it is not: {right:?}");
        let fault = strict::agree(SEEDS, |device| words(device, &kernel, true));
        let fault = fault.expect_err(&kernel).to_string();
        for part in [kernel].iter().chain(&said) {
            assert!(fault.contains(part), "of {mistake}, {part:?} is not said: {fault}");
        }
    }
}

/// The words that block 1 gets of block 0.
fn handed(device: &Device, faulty: bool) -> Result<Vec<u32>> {
    const WORDS: usize = 12;
    let (slot, to) = (device.allocate::<u32>(3)?, device.allocate::<u32>(WORDS)?);
    let argument = [slot.address(), to.address(), WORDS as u64, u64::from(faulty)];
    launch(
        device,
        "fault_missing_consumed_flag",
        Shape::new(2, 32),
        &argument,
        &[Use::writes(&slot), Use::writes(&to)],
    )?;
    read(device, &to)
}

#[test]
fn a_missing_consumed_flag_shows_in_some_schedule() {
    if !add_faults() {
        return;
    }
    let expected: Vec<u32> = (1000..1012).collect();
    assert_eq!(strict::agree(SEEDS, |device| handed(device, false)).unwrap(), expected);
    let fault = strict::agree(SEEDS, |device| handed(device, true)).unwrap_err().to_string();
    assert!(fault.contains("differs from that of seed"), "{fault}");
}

/// A seed makes the same of a launch each time, also where its result depends on the schedule.
#[test]
fn a_seed_is_a_schedule() {
    if !add_faults() {
        return;
    }
    for seed in SEEDS {
        let device = Device::simulated_strict(0, seed).unwrap();
        assert_eq!(handed(&device, true), handed(&device, true), "seed {seed}");
    }
}

#[test]
fn what_does_not_compile_is_said() {
    if !add_faults() {
        return;
    }
    let source = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("strict-{}.cu", std::process::id()));
    std::fs::write(&source, "#include \"dialect.h\"\nnonsense;\n").unwrap();
    let error = strict::add_kernels(&source).unwrap_err().to_string();
    assert!(error.contains("nonsense") && error.contains("cannot be added"), "{error}");
    std::fs::remove_file(&source).unwrap();
    let error = strict::add_kernels("/there/is/none.cu").unwrap_err().to_string();
    assert!(error.contains("/there/is/none.cu"), "{error}");
}

/// Mistakes that are planted in the library's kernels by a macro, the file that has each, and what is said of it.
const PLANTED: [(&str, &str, &str); 5] = [
    // A block signals before all of its threads are done.
    ("PLANTED_NO_BARRIER", "two_shot", "kernels/meet.h"),
    // A slot is written before it was read.
    ("PLANTED_NOT_TAKEN", "ring", "are not those of other simulated devices"),
    ("PLANTED_NOT_TAKEN", "messages", "are not those of other simulated devices"),
    // A tile is loaded while others still read the one before; and read before others have loaded their parts of it.
    ("PLANTED_EARLY_LOAD", "product", "kernels/product.cu"),
    ("PLANTED_EARLY_PRODUCT", "product", "kernels/product.cu"),
];

/// In a process of its own, since a kernel that is added takes the place of the library's.
#[test]
fn mistakes_in_the_librarys_kernels_show() {
    if simulated::absent() {
        return;
    }
    for (mistake, unit, said) in PLANTED {
        let name = format!("faults::mistakes_in_the_librarys_kernels_show {mistake}");
        let ended = ranks::start(&[0], 1, &name, &[], || println!("noticed: {}", planted(mistake, unit)));
        for process in ended {
            assert!(process.said("noticed:").any(|noticed| noticed.contains(said)), "{mistake}:\n{}", process.output);
        }
    }
}

/// What shows of a mistake.
fn planted(mistake: &str, unit: &str) -> String {
    // Of the same name each time, so that it is compiled once.
    let source = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("strict-{mistake}.cu"));
    let written = source.with_extension(std::process::id().to_string());
    std::fs::write(&written, format!("#define PLANTED\n#define {mistake}\n#include \"{unit}.cu\"\n")).unwrap();
    std::fs::rename(&written, &source).unwrap();
    strict::add_kernels(&source).unwrap();
    let agrees = match unit {
        "product" => trainer::everything_agrees(),
        "ring" => collectives::rings_agree(),
        "messages" => collectives::messages_agree(),
        _ => collectives::everything_agrees(),
    };
    agrees.err().unwrap_or_default()
}
