// SPDX-License-Identifier: MPL-2.0
//! NVIDIA's devices, as their driver shows them to this process, and what the management library adds.

use super::{Link, Listed, Machine, Process, Way};
use crate::driver::Platform;
use crate::driver::cuda::{Driver, Managed, Management, version};
use crate::driver::gpu::{self, Fault, Ordinal};

/// A device, as the driver knows it, and as the management library does.
type Known = (Ordinal, Option<Managed>);

pub(super) fn look(machine: &mut Machine) {
    let driver = match Driver::get() {
        Ok(driver) => driver,
        Err(absent) => return machine.missing.push(absent.to_string()),
    };
    machine.cuda = machine.told(driver.version(), || "the driver's version of CUDA".into()).map(version);
    let management = match Management::get() {
        Ok(management) => Some(management),
        Err(why) => {
            machine.missing.push(format!("{why}: clock, temperature, power and processes are not known"));
            None
        }
    };
    machine.driver = management.and_then(Management::driver_version);
    if let Err(fault) = list(machine, driver, management) {
        machine.missing.push(format!("the NVIDIA driver does not describe its devices: {fault}"));
    }
}

fn list(machine: &mut Machine, driver: &'static Driver, management: Option<&'static Management>) -> Result<(), Fault> {
    let (mut all, mut devices): (Vec<Known>, Vec<Listed>) = Default::default();
    for index in 0..gpu::count(driver)? {
        let ordinal = Ordinal::new(driver, index)?;
        let bus = machine.told(ordinal.bus(), || {
            format!("where CUDA device {index} is, and so its clock, temperature, power, processes and links,")
        });
        let managed = management.zip(bus.as_deref()).and_then(|(management, bus)| management.device(bus));
        let free = managed.and_then(|device| device.free_memory());
        let free =
            free.or_else(|| machine.told(ordinal.free_memory(), || format!("free memory of CUDA device {index}")));
        devices.push(Listed { bus, free, ..describe(index, ordinal, managed)? });
        all.push((ordinal, managed));
    }
    // All or none: each device has its row of links.
    let before = machine.devices.len();
    machine.devices.append(&mut devices);
    machine.add_links(before, |from, to| link(&all[from], &all[to]));
    Ok(())
}

fn describe(index: usize, ordinal: Ordinal, managed: Option<Managed>) -> Result<Listed, Fault> {
    let capability = ordinal.capability()?;
    let process = |(id, memory)| {
        let name = std::fs::read_to_string(format!("/proc/{id}/comm")).ok().map(|name| name.trim_end().to_owned());
        Process { id, name, memory }
    };
    Ok(Listed {
        platform: Platform::Cuda,
        index,
        name: ordinal.name()?,
        bus: None,
        memory: ordinal.memory()?,
        free: None,
        multiprocessors: ordinal.multiprocessors()?,
        capability: Some((capability / 10, capability % 10)),
        architecture: None,
        clock: managed.and_then(|device| device.clock()),
        temperature: managed.and_then(|device| device.temperature()),
        power: managed.and_then(|device| device.power()).map(|milliwatts| f64::from(milliwatts) / 1e3),
        processes: managed.and_then(|device| device.processes()).map(|all| all.into_iter().map(process).collect()),
    })
}

fn link((from, managed): &Known, (to, other): &Known) -> Link {
    if from.device == to.device {
        return Link { way: Way::Itself, direct: true };
    }
    let way = managed.zip(*other).and_then(|(managed, other)| match managed.is_linked(&other) {
        Some(true) => Some(Way::NvLink),
        _ => Some(match managed.common_ancestor(&other)? {
            0 => Way::Board,
            10 => Way::Switch,
            20 => Way::Switches,
            30 => Way::HostBridge,
            40 => Way::Node,
            50 => Way::System,
            _ => return None,
        }),
    });
    Link { way: way.unwrap_or(Way::Unknown), direct: from.reaches(*to).unwrap_or(false) }
}
