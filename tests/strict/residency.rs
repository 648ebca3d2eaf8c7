// SPDX-License-Identifier: MPL-2.0
//! The room of a strict device: that of a card of so many multiprocessors.

use annulus::driver::{Device, Shape, Use};

use super::faults::add_faults;
use super::{launch, ranks, read, simulated};

/// Blocks of a shape that there are at a time.
fn together(device: &Device, shape: Shape, expected: u32) -> u32 {
    let counts = device.allocate::<u32>(2).unwrap();
    let argument = [counts.address(), u64::from(expected)];
    launch(device, "room", shape, &argument, &[Use::writes(&counts)]).unwrap();
    read(device, &counts).unwrap()[1]
}

#[test]
fn as_many_blocks_are_resident_as_have_room() {
    if !add_faults() {
        return;
    }
    let device = Device::simulated_strict(0, 1).unwrap();
    let room = device.kernel("room").unwrap();
    let has = device.capabilities();
    // By threads (a multiprocessor has 2048), by shared memory, of which each block has all, and by blocks (32).
    for (threads, shared, each) in [(1024, 0, 2), (32, has.shared_per_block, 1), (32, 0, 32), (33, 0, 32)] {
        let expected = each * has.multiprocessors;
        assert_eq!(room.resident_blocks(threads, shared), Ok(expected), "{threads} threads, {shared} bytes");
        // More blocks than have room wait for those that are there to end.
        let shape = Shape::new(expected + 3, threads).shared(shared);
        assert_eq!(together(&device, shape, expected), expected, "{threads} threads, {shared} bytes");
        let wants_all = launch(&device, "room", shape.together(), &[0, 0], &[]).unwrap_err().to_string();
        assert!(wants_all.contains(&format!("room for {expected}")), "{wants_all}");
    }
}

#[test]
fn the_environment_makes_simulated_devices_strict() {
    if simulated::absent() {
        return;
    }
    let name = "residency::the_environment_makes_simulated_devices_strict";
    let variables = [("ANNULUS_SIM", "strict"), ("ANNULUS_SIM_SEED", "7"), ("ANNULUS_SIM_DEVICES", "2")];
    let ended = ranks::start(&[0], 1, name, &variables, || {
        assert_eq!(Device::simulated(1).unwrap().capabilities().name, "CPU, strict, seed 7");
        assert_eq!(Device::simulated_strict(1, 7).unwrap(), Device::simulated_strict(1, 7).unwrap());
        let none = Device::simulated_strict(2, 7).unwrap_err().to_string();
        assert!(none.contains("there is no simulated device 2"), "{none}");
    });
    for process in ended {
        assert!(process.status.success(), "{}", process.output);
    }
}
