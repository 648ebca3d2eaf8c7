// SPDX-License-Identifier: MPL-2.0
//! What the card and its driver are: what every other answer has to be read with.

use std::time::Instant;

use super::super::answer::{Answers, time};
use super::super::card::Card;
use crate::driver::cuda::sys::CUdevice_attribute as Attribute;
use crate::driver::cuda::version;
use crate::error::Result;

pub(super) fn answer(answers: &Answers) -> Result<()> {
    let devices = Card::count()?;
    let begun = Instant::now();
    let card = Card::open()?;
    let opened = begun.elapsed().as_nanos() as f64;
    answers.say("card", format!("{}, the first of {devices} that the driver shows", card.name()?))?;
    let kernel_module = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let kernel_module = kernel_module
        .split_whitespace()
        .find(|word| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.'));
    let kernel_module = kernel_module.map(|version| format!(", {version}")).unwrap_or_default();
    answers.say("driver", format!("for CUDA {}{kernel_module}", version(card.driver_version()?)))?;
    let capability = card.capability()?;
    // A driver need not know every attribute: what it does not say is left open.
    let get = |attribute| card.attribute(attribute).ok();
    let said = |attribute, divisor: u32| get(attribute).map_or("?".into(), |value| (value / divisor).to_string());
    answers.say(
        "shape",
        format!(
            "compute capability {}.{}; {} multiprocessors, each with up to {} threads, {} blocks, {} registers and {} KiB \
             of shared memory (a block: {} KiB)",
            capability / 10,
            capability % 10,
            card.multiprocessors()?,
            said(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 1),
            said(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, 1),
            said(Attribute::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 1),
            said(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 1 << 10),
            said(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 1 << 10),
        ),
    )?;
    let (total, free) = card.memory()?;
    answers.say(
        "memory",
        format!(
            "{} MiB, {} MiB free; {} bit at {} MHz; L2 cache {} KiB",
            total >> 20,
            free >> 20,
            said(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 1),
            said(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 1000),
            said(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 1 << 10),
        ),
    )?;
    let able = [
        ("concurrent kernels", Attribute::CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS),
        ("cooperative launch", Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH),
        ("preemption", Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED),
        ("unified addressing", Attribute::CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING),
        ("memory pools", Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED),
        ("multicast", Attribute::CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED),
        ("time limit on kernels", Attribute::CU_DEVICE_ATTRIBUTE_KERNEL_EXEC_TIMEOUT),
    ];
    let able = able.map(|(name, attribute)| {
        let is_able = get(attribute).map_or("?", |value| if value == 0 { "no" } else { "yes" });
        format!("{name}: {is_able}")
    });
    answers.say("abilities", able.join(", "))?;
    let modes = ["several processes", "one process", "none", "one process"];
    let mode = get(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_MODE).and_then(|mode| modes.get(mode as usize));
    let mps = std::env::var("CUDA_MPS_PIPE_DIRECTORY").unwrap_or_else(|_| "/tmp/nvidia-mps".into());
    let mps = if std::path::Path::new(&mps).exists() { "there" } else { "not there" };
    answers.say(
        "sharing",
        format!("the card admits {}; the pipes of its multi-process service are {mps}", mode.unwrap_or(&"?")),
    )?;
    let variables: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .filter(|variable| variable.starts_with("CUDA_") || variable.starts_with("NVIDIA_"))
        .collect();
    answers.say("environment", variables.join(" "))?;
    answers.say("time to open a context", time(opened))
}
