// SPDX-License-Identifier: MPL-2.0
//! AMD's devices, as HIP shows them to this process, and what Linux adds.

use super::sysfs::Files;
use super::{Link, Listed, Machine, Way};
use crate::driver::Platform;
use crate::driver::gpu::{self, Fault, Ordinal};
use crate::driver::hip::{Hip, version};

pub(super) fn look(machine: &mut Machine) {
    let hip = match Hip::get() {
        Ok(hip) => hip,
        Err(absent) => return machine.missing.push(absent.to_string()),
    };
    machine.hip = machine.told(hip.version(), || "HIP's version".into()).map(version);
    if let Err(fault) = list(machine, hip) {
        machine.missing.push(format!("HIP does not describe its devices: {fault}"));
    }
}

fn list(machine: &mut Machine, hip: &'static Hip) -> Result<(), Fault> {
    let files = Files::new("/");
    let all = (0..gpu::count(hip)?).map(|index| Ordinal::new(hip, index)).collect::<Result<Vec<_>, _>>()?;
    let mut devices = Vec::new();
    for (index, ordinal) in all.iter().enumerate() {
        let free = machine.told(ordinal.free_memory(), || format!("free memory of HIP device {index}"));
        let bus = machine.told(ordinal.bus(), || format!("where HIP device {index} is"));
        devices.push(Listed { free, ..describe(index, *ordinal, bus, &files)? });
    }
    // All or none: each device has its row of links.
    let buses: Vec<String> = devices.iter().map(|listed| listed.bus.clone().unwrap_or_default()).collect();
    for listed in devices.iter().filter(|listed| listed.architecture.is_none() || listed.power.is_none()) {
        machine.missing.push(format!(
            "Linux does not say all of HIP device {} (hwmon of its place on the PCI bus, and /sys/class/kfd): what is left \
             out of its architecture, clock, temperature, power, processes and links is not known",
            listed.index
        ));
    }
    let before = machine.devices.len();
    machine.devices.append(&mut devices);
    machine.add_links(before, |from, to| match from == to {
        true => Link { way: Way::Itself, direct: true },
        false => Link { way: files.way(&buses[from], &buses[to]), direct: all[from].reaches(all[to]).unwrap_or(false) },
    });
    Ok(())
}

fn describe(index: usize, ordinal: Ordinal, bus: Option<String>, files: &Files) -> Result<Listed, Fault> {
    let place = bus.as_deref().unwrap_or_default();
    Ok(Listed {
        platform: Platform::Hip,
        index,
        name: ordinal.name()?,
        memory: ordinal.memory()?,
        free: None,
        multiprocessors: ordinal.multiprocessors()?,
        capability: None,
        architecture: files.architecture(place),
        clock: files.clock(place),
        temperature: files.temperature(place),
        power: files.power(place),
        processes: files.processes(place),
        bus,
    })
}
