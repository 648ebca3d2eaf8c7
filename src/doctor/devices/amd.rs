// SPDX-License-Identifier: MPL-2.0
//! AMD's devices, as HIP shows them to this process.

use super::{Link, Listed, Machine, Way};
use crate::driver::Platform;
use crate::driver::gpu::{self, Fault, Ordinal};
use crate::driver::hip::{Hip, version};

pub(super) fn look(machine: &mut Machine) {
    let hip = match Hip::get() {
        Ok(hip) => hip,
        Err(absent) => return machine.missing.push(absent.to_string()),
    };
    machine.hip = hip.version().ok().map(version);
    if let Err(fault) = list(machine, hip) {
        machine.missing.push(format!("HIP does not describe its devices: {fault}"));
    }
}

fn list(machine: &mut Machine, hip: &'static Hip) -> Result<(), Fault> {
    let all = (0..gpu::count(hip)?).map(|index| Ordinal::new(hip, index)).collect::<Result<Vec<_>, _>>()?;
    let described = all.iter().enumerate().map(|(index, ordinal)| describe(index, *ordinal));
    let mut devices = described.collect::<Result<Vec<_>, _>>()?;
    // All or none: each device has its row of links.
    let before = machine.devices.len();
    machine.devices.append(&mut devices);
    machine.add_links(before, |from, to| match from == to {
        true => Link { way: Way::Itself, direct: true },
        false => Link { way: Way::Unknown, direct: all[from].reaches(all[to]).unwrap_or(false) },
    });
    Ok(())
}

fn describe(index: usize, ordinal: Ordinal) -> Result<Listed, Fault> {
    let capability = ordinal.capability()?;
    Ok(Listed {
        platform: Platform::Hip,
        index,
        name: ordinal.name()?,
        bus: ordinal.bus().ok(),
        memory: ordinal.memory()?,
        free: ordinal.free_memory().ok(),
        multiprocessors: ordinal.multiprocessors()?,
        capability: Some((capability / 10, capability % 10)),
        clock: None,
        temperature: None,
        power: None,
        processes: None,
    })
}
