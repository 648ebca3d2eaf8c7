// SPDX-License-Identifier: MPL-2.0
//! Several devices, which the environment makes: each test in a process of its own.

use annulus::Error;
use annulus::driver::Device;

use super::{absent, blocked, called, count, invalid, lacks, open, ranks, values};

/// Runs `body` in a process of its own with these variables; `name` is the calling test's.
pub fn alone(name: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    for ended in ranks::start(&[0], 1, name, &super::variables(variables), body) {
        assert!(ended.status.success(), "{}\n{}", ended.status, ended.output);
    }
}

fn copies(first: &Device, second: &Device) {
    let (stream, far) = (first.stream().unwrap(), second.stream().unwrap());
    for mappable in [false, true] {
        let allocate = |device: &Device| {
            if mappable { device.allocate_mappable::<u16>(1001) } else { device.allocate(1001) }.unwrap()
        };
        let (here, there, back) = (allocate(first), allocate(second), allocate(first));
        let sent = values::<u16>(1001, 6);
        stream.write(&here, &sent).unwrap();
        // On the stream of either end, and in order with what the other stream does.
        stream.copy(&here, &there).unwrap();
        far.fill(&there.part(..2).unwrap(), 7).unwrap();
        far.copy(&there, &back).unwrap();
        assert_eq!(stream.read(&back).unwrap()[2..], sent[2..]);
        assert_eq!(stream.read(&back).unwrap()[..2], [7, 7]);
        let (other, _) = (first.stream().unwrap(), ());
        assert!(invalid(other.read(&there)).contains(&format!("cannot use a buffer of {}", called(1))));
        assert!(invalid(other.copy(&there, &there.clone())).contains("overlap"));
        let elsewhere = allocate(second);
        assert!(invalid(other.copy(&there, &elsewhere)).contains(&format!("cannot use a buffer of {}", called(1))));
    }
}

#[test]
fn copies_between_devices_are_direct() {
    if absent() || lacks("2", "") {
        return;
    }
    alone("devices::copies_between_devices_are_direct", &[("ANNULUS_SIM_DEVICES", "2")], || {
        let [first, second] = [0, 1].map(|index| open(index).unwrap());
        assert_eq!(count(), 2);
        assert!(first != second && first.reaches(&second).unwrap());
        first.enable_peer(&second).unwrap();
        first.enable_peer(&second).unwrap();
        copies(&first, &second);
        // Captured too.
        let (from, to) = (second.allocate::<u8>(3).unwrap(), first.allocate::<u8>(3).unwrap());
        let stream = first.stream().unwrap();
        let graph = stream.capture(|stream| stream.copy(&from, &to)).unwrap();
        second.stream().unwrap().fill(&from, 9).unwrap();
        graph.launch(&stream).unwrap();
        assert_eq!(stream.read(&to).unwrap(), [9; 3]);
        let event = second.event().unwrap();
        assert!(invalid(stream.record(&event)).contains("make one of that device"));
        let far = second.stream().unwrap();
        far.record(&event).unwrap();
        stream.wait(&event).unwrap();
        assert!(invalid(graph.launch(&far)).contains("use a stream of that device"));
    });
}

#[test]
fn copies_between_devices_out_of_reach_go_through_the_host() {
    if absent() || lacks("2", "0-1") {
        return;
    }
    let variables = [("ANNULUS_SIM_DEVICES", "2"), ("ANNULUS_SIM_UNREACHABLE", "1-0")];
    alone("devices::copies_between_devices_out_of_reach_go_through_the_host", &variables, || {
        let [first, second] = [0, 1].map(|index| open(index).unwrap());
        assert!(!first.reaches(&second).unwrap() && !second.reaches(&first).unwrap());
        assert!(first.reaches(&first).unwrap());
        assert!(matches!(first.enable_peer(&second), Err(Error::Unsupported(_))));
        copies(&first, &second);
        // They return at once too, and wait for what is before them on the stream of the buffer.
        let (stream, open) = blocked(&second);
        let (from, to) = (second.allocate::<i32>(10).unwrap(), first.allocate::<i32>(10).unwrap());
        stream.fill(&from, 4).unwrap();
        let near = first.stream().unwrap();
        near.copy(&from, &to).unwrap();
        let event = first.event().unwrap();
        near.record(&event).unwrap();
        assert!(!event.has_passed().unwrap());
        open.send(()).unwrap();
        assert_eq!(near.read(&to).unwrap(), [4; 10]);
        let refused = near.capture(|stream| stream.copy(&from, &to));
        assert!(invalid(refused).contains("do not reach each other"));
    });
}

#[test]
fn the_environment_is_believed_or_refused() {
    // A build without simulated devices has nothing to choose from.
    if absent() || Device::simulated_count().is_err() {
        return;
    }
    let name = "devices::the_environment_is_believed_or_refused";
    let variables = [("ANNULUS_SIM_DEVICES", "3"), ("ANNULUS_DEVICE", "sim")];
    alone(&format!("{name} good"), &variables, || {
        let taken = [0, 1, 2, 3, 7].map(|rank| Device::auto(rank).unwrap().to_string());
        assert_eq!(taken, [0, 1, 2, 0, 1].map(|index| format!("simulated device {index}")));
    });
    alone(&format!("{name} none"), &[], || match Device::auto(0) {
        Err(Error::Unsupported(why)) => assert!(why.contains("ANNULUS_DEVICE=sim"), "{why}"),
        // There is one, or what stands in for it.
        Ok(device) => assert_eq!(device.to_string(), "CUDA device 0"),
        other => panic!("{other:?}"),
    });
    alone(&format!("{name} cuda"), &[("ANNULUS_DEVICE", "cuda")], || match Device::auto(5) {
        Err(Error::Unsupported(why)) => assert!(why.contains("NVIDIA") || why.contains("CUDA"), "{why}"),
        other => assert!(other.unwrap().to_string().starts_with("CUDA device ")),
    });
    for (number, variables) in
        [("ANNULUS_SIM_DEVICES", "none"), ("ANNULUS_SIM_UNREACHABLE", "0-5"), ("ANNULUS_DEVICE", "abacus")]
            .into_iter()
            .enumerate()
    {
        let all = [variables, ("ANNULUS_SIM_DEVICES", if number == 0 { "none" } else { "2" })];
        alone(&format!("{name} bad {number}"), &all, || {
            let refused = if number == 2 { Device::auto(0) } else { Device::simulated(0) };
            assert!(invalid(refused).contains(variables.0));
        });
    }
}
