// SPDX-License-Identifier: MPL-2.0
//! `annulus devices`: which devices there are.

use std::ops::ControlFlow;
use std::time::Duration;

use annulus::doctor::devices::{Listed, Machine, Way};
use annulus::driver::Platform;
use annulus::{Error, Result};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::output;

/// List the devices of this machine
///
/// Each with its memory, compute capability or architecture, clock, temperature, power and processes, and how they reach each other; what
/// was looked for and is not there; simulated devices as what they are. A figure that nobody gives is left out. The status
/// is 0 where there is any device, and 2 where there is none.
#[derive(clap::Args)]
pub struct Args {
    /// Print one object (with --watch one a line, each time)
    #[arg(long)]
    json: bool,
    /// Look again every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u64).range(1..=86400))]
    watch: Option<u64>,
}

pub fn run(args: &Args) -> Result<u8> {
    loop {
        let machine = Machine::look();
        let text = match args.json {
            true => format!("{}\n", object(&machine)),
            false => page(&machine),
        };
        if machine.devices.is_empty() && args.watch.is_none() && !args.json {
            return Err(Error::unsupported(format!("there is no device: {}", machine.missing.join("; "))));
        }
        let listening = output::print(&text)?;
        match args.watch {
            Some(seconds) if listening == ControlFlow::Continue(()) => {
                std::thread::sleep(Duration::from_secs(seconds));
            }
            _ => return Ok(if machine.devices.is_empty() { 2 } else { 0 }),
        }
    }
}

fn object(machine: &Machine) -> Value {
    let device = |listed: &Listed| {
        let processes = listed.processes.as_ref().map(|all| {
            let one = |process: &annulus::doctor::devices::Process| {
                json!({ "id": process.id, "name": process.name, "memory": process.memory })
            };
            all.iter().map(one).collect::<Vec<_>>()
        });
        json!({
            "platform": listed.platform.to_string(),
            "index": listed.index,
            "name": listed.name,
            "bus": listed.bus,
            "memory": listed.memory,
            "free": listed.free,
            "multiprocessors": listed.multiprocessors,
            "capability": listed.capability.map(|(major, minor)| format!("{major}.{minor}")),
            "architecture": listed.architecture,
            "clock_mhz": listed.clock,
            "temperature_c": listed.temperature,
            "power_w": listed.power,
            "processes": processes,
        })
    };
    let links = machine.links.iter().map(|row| row.iter().map(ToString::to_string).collect::<Vec<_>>());
    json!({
        "driver": machine.driver,
        "cuda": machine.cuda,
        "hip": machine.hip,
        "devices": machine.devices.iter().map(device).collect::<Vec<_>>(),
        "links": links.collect::<Vec<_>>(),
        "missing": machine.missing,
    })
}

/// The tables, which are also Markdown, and what there is to say beside them.
fn page(machine: &Machine) -> String {
    let mut page = String::new();
    let versions = [("NVIDIA driver", &machine.driver), ("CUDA", &machine.cuda), ("HIP", &machine.hip)];
    let known = versions.iter().filter_map(|(what, version)| Some(format!("{what} {}", version.as_ref()?)));
    let known: Vec<String> = known.collect();
    if !known.is_empty() {
        page += &format!("{}\n\n", known.join(", "));
    }
    if !machine.devices.is_empty() {
        page += &format!("{}\n", devices(machine));
    }
    if machine.devices.len() > 1 {
        page += &format!("\n{}\n{}", links(machine), legend(machine));
    }
    let processes = machine.devices.iter().any(|listed| listed.processes.as_ref().is_some_and(|all| !all.is_empty()));
    if processes {
        page += &format!("\n{}\n", users(machine));
    }
    if !machine.missing.is_empty() {
        page += &format!("\n{}\n", machine.missing.join("\n"));
    }
    page
}

fn empty(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}

fn called(listed: &Listed) -> String {
    format!("{} {}", listed.platform, listed.index)
}

fn size(bytes: u64) -> String {
    match bytes >> 30 {
        0 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

fn devices(machine: &Machine) -> Table {
    let header = ["device", "name", "free", "memory", "multiprocessors", "capability", "clock", "temperature", "power"];
    let mut table = empty(&header);
    for listed in &machine.devices {
        // Of a number that nobody gives, nothing.
        let or_nothing = |text: Option<String>| text.unwrap_or_default();
        let name = match listed.platform {
            Platform::Simulated => format!("{}, no GPU", listed.name),
            _ => listed.name.clone(),
        };
        table.add_row([
            called(listed),
            name,
            or_nothing(listed.free.map(size)),
            size(listed.memory),
            listed.multiprocessors.to_string(),
            or_nothing(
                listed
                    .capability
                    .map_or(listed.architecture.clone(), |(major, minor)| Some(format!("{major}.{minor}"))),
            ),
            or_nothing(listed.clock.map(|clock| format!("{clock} MHz"))),
            or_nothing(listed.temperature.map(|degrees| format!("{degrees} C"))),
            or_nothing(listed.power.map(|watts| format!("{watts:.0} W"))),
        ]);
    }
    table
}

fn links(machine: &Machine) -> Table {
    let names: Vec<String> = machine.devices.iter().map(called).collect();
    let header: Vec<&str> = ["from, to"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let mut table = empty(&header);
    for (name, row) in names.iter().zip(&machine.links) {
        table.add_row([name.clone()].into_iter().chain(row.iter().map(ToString::to_string)));
    }
    table
}

/// What the words of the matrix mean that are in it.
fn legend(machine: &Machine) -> String {
    let is_there = |way: Way| machine.links.iter().flatten().any(|link| link.way == way);
    let known = Way::WORDS.iter().filter(|(way, ..)| is_there(*way));
    known.map(|(_, word, words)| format!("{word}: {words}\n")).collect()
}

fn users(machine: &Machine) -> Table {
    let mut table = empty(&["device", "process", "name", "memory"]);
    for listed in &machine.devices {
        for process in listed.processes.iter().flatten() {
            let memory = process.memory.map(size).unwrap_or_default();
            table.add_row([called(listed), process.id.to_string(), process.name.clone().unwrap_or_default(), memory]);
        }
    }
    table
}
