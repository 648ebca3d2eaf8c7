// SPDX-License-Identifier: MPL-2.0
//! Devices, streams, events, buffers, kernels and graphs, on the simulated device, and on CUDA over the stand-in for its
//! driver.
//!
//! What needs several devices, or a process of its own, is run in one (`ranks`).

#![cfg(all(any(feature = "sim", feature = "cuda"), target_os = "linux"))]
#![allow(unsafe_code)] // kernels are launched

#[path = "driver/arguments.rs"]
mod arguments;
mod compiler;
#[path = "driver/devices.rs"]
mod devices;
#[path = "driver/graphs.rs"]
mod graphs;
#[path = "driver/kernels.rs"]
mod kernels;
#[path = "driver/processes.rs"]
mod processes;
mod ranks;
mod simulated;
#[path = "standin/mod.rs"]
mod standin;

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use annulus::driver::{Device, DeviceBuffer, Stream};
use annulus::{DataType, Element, Error, bf16, f16};

use simulated::{absent, block, called, count, is_on_cards, is_simulated, lacks, open, upload, variables};

/// Device 0, if there is one.
fn device() -> Option<Device> {
    (!absent()).then(|| open(0).unwrap())
}

/// A stream that does nothing until the sender is used or dropped.
fn blocked(device: &Device) -> (Stream, Sender<()>) {
    let stream = device.stream().unwrap();
    (stream.clone(), block(&stream))
}

/// Waits for what must come, and fails where it does not.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} never came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Distinct values of any type.
fn values<T: Element>(count: usize, seed: usize) -> Vec<T> {
    let bytes: Vec<u8> = (0..count * size_of::<T>()).map(|i| ((i * 7 + seed * 13 + i / 251) % 113) as u8).collect();
    bytemuck::pod_collect_to_vec(&bytes)
}

/// The sentence of an error that is the caller's fault.
fn invalid<T: std::fmt::Debug>(result: annulus::Result<T>) -> String {
    match result {
        Err(Error::InvalidArgument(sentence)) => sentence.to_string(),
        other => panic!("expected InvalidArgument, got {other:?}"),
    }
}

#[cfg(feature = "cuda")]
#[test]
fn all_of_it_on_cuda_over_the_stand_in() {
    simulated::on_the_stand_in("cuda", &[]);
}

#[cfg(feature = "hip")]
#[test]
fn all_of_it_on_hip_over_the_stand_in() {
    simulated::on_the_stand_in("hip", &[]);
}

fn round_trip<T: Element>(device: &Device) {
    let stream = device.stream().unwrap();
    for count in [0, 1, 2, 3, 7, 8, 255, 1000] {
        let buffer = device.allocate::<T>(count).unwrap();
        assert_eq!(stream.read(&buffer).unwrap(), vec![T::zeroed(); count], "new memory is zero");
        let sent = values::<T>(count, 1);
        stream.write(&buffer, &sent).unwrap();
        assert_eq!(stream.read(&buffer).unwrap(), sent);
        let other = device.allocate_mappable::<T>(count).unwrap();
        stream.copy(&buffer, &other).unwrap();
        stream.fill(&buffer, values::<T>(5, 3)[4]).unwrap();
        assert_eq!(stream.read(&other).unwrap(), sent);
        assert_eq!(stream.read(&buffer).unwrap(), vec![values::<T>(5, 3)[4]; count]);
    }
    let whole = upload(device, &stream, &values::<T>(10, 2));
    let part = whole.part(3..8).unwrap();
    assert_eq!(part.address() - whole.address(), 3 * size_of::<T>() as u64);
    stream.copy(&whole.part(..2).unwrap(), &part.part(1..=2).unwrap()).unwrap();
    let mut expected = values::<T>(10, 2);
    expected.copy_within(0..2, 4);
    assert_eq!(stream.read(&whole).unwrap(), expected);
    assert_eq!(stream.read(&part).unwrap(), expected[3..8]);
    assert_eq!(T::DATA_TYPE.size(), size_of::<T>());
}

#[test]
fn bytes_come_back_as_they_went() {
    let Some(device) = device() else { return };
    macro_rules! each { ($($type:ty),*) => { $(round_trip::<$type>(&device);)* } }
    each!(f64, f32, f16, bf16, i8, u8, i16, u16, i32, u32, i64, u64);
    assert_eq!(DataType::ALL.len(), 12);
}

#[test]
fn what_cannot_be_is_said() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let buffer = device.allocate::<f32>(10).unwrap();
    assert!(invalid(stream.write(&buffer, &[1.0; 9])).contains("9 elements to 10"));
    assert!(invalid(stream.copy(&buffer, &device.allocate(11).unwrap())).contains("10 elements to 11"));
    let (a, b) = (buffer.part(..5).unwrap(), buffer.part(4..9).unwrap());
    assert!(invalid(stream.copy(&a, &b)).contains("overlap"));
    assert!(invalid(buffer.part(4..11)).contains("10 elements"));
    #[expect(clippy::reversed_empty_ranges)]
    let reversed = buffer.part(4..3);
    assert!(reversed.is_err() && buffer.part(..=usize::MAX).is_err());
    assert!(invalid(device.allocate::<f64>(usize::MAX / 4)).contains(&called(0)));
    match device.allocate::<u8>(1 << 50) {
        Err(Error::System(why)) => {
            assert!(why.contains(&format!("{}, allocating 1125899906842624", called(0))), "{why}")
        }
        other => panic!("{other:?}"),
    }
    assert!(invalid(buffer.export()).contains("allocate_mappable"));
    let (earlier, event) = (device.event().unwrap(), device.event().unwrap());
    assert!(invalid(event.since(&earlier)).contains("recorded"));
    assert!(invalid(device.kernel("fold_nothing")).contains(&format!("{} has no kernel fold_nothing", called(0))));
    assert!(device.kernel("zero\0byte").is_err());
    let beyond = count();
    assert!(invalid(open(beyond)).contains(&format!("no {}", called(beyond))));
}

#[test]
fn devices_say_what_they_are() {
    let Some(device) = device() else { return };
    assert_eq!(device.to_string(), called(0));
    assert_eq!(device, open(0).unwrap());
    let has = device.capabilities();
    assert!(has.index == 0 && has.multiprocessors > 0 && has.threads_per_block == 1024 && has.memory > 0);
}

#[test]
fn a_stream_keeps_its_order() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let buffer = device.allocate::<u32>(3).unwrap();
    let called = Arc::new(Mutex::new(Vec::new()));
    for step in 0..500 {
        stream.fill(&buffer, step).unwrap();
        let called = called.clone();
        stream.call(move || called.lock().unwrap().push(step)).unwrap();
    }
    assert_eq!(stream.read(&buffer).unwrap(), [499; 3]);
    assert_eq!(*called.lock().unwrap(), (0..500).collect::<Vec<_>>());
}

#[test]
fn enqueuing_does_not_wait() {
    let Some(device) = device() else { return };
    let (stream, open) = blocked(&device);
    let buffer = device.allocate::<f32>(100).unwrap();
    let event = device.event().unwrap();
    // As much as any driver takes behind a stream that is blocked.
    for step in 0..20 {
        stream.fill(&buffer, step as f32).unwrap();
        stream.write(&buffer, &[step as f32; 100]).unwrap();
    }
    stream.record(&event).unwrap();
    assert!(!event.has_passed().unwrap());
    open.send(()).unwrap();
    event.synchronize().unwrap();
    assert!(event.has_passed().unwrap());
    assert_eq!(stream.read(&buffer).unwrap(), [19.0; 100]);
}

#[test]
fn events_order_streams_and_keep_the_time() {
    let Some(device) = device() else { return };
    let (first, open) = blocked(&device);
    let second = device.stream().unwrap();
    let (event, after) = (device.event().unwrap(), device.event().unwrap());
    let said = Arc::new(Mutex::new(Vec::new()));
    let say = |stream: &Stream, word: &'static str| {
        let said = said.clone();
        stream.call(move || said.lock().unwrap().push(word)).unwrap();
    };
    say(&first, "first");
    first.record(&event).unwrap();
    second.wait(&event).unwrap();
    // No function of the host: a driver may call those of all streams one after the other, and one is held below.
    second.fill(&device.allocate::<u8>(1).unwrap(), 1).unwrap();
    second.record(&after).unwrap();
    // What is recorded later is not waited for by what waited before.
    let held = block(&first);
    first.record(&event).unwrap();
    open.send(()).unwrap();
    after.synchronize().unwrap();
    assert_eq!(*said.lock().unwrap(), ["first"]);
    assert!(!event.has_passed().unwrap() && event.since(&after).is_err());
    drop(held);
    event.synchronize().unwrap();
    let between = event.since(&after).unwrap();
    assert!(between > Duration::ZERO && after.since(&event).unwrap() == Duration::ZERO);
}

#[test]
fn uses_on_two_streams_are_in_order() {
    let Some(device) = device() else { return };
    let (first, open) = blocked(&device);
    let second = device.stream().unwrap();
    let passes = |buffer: &DeviceBuffer<i32>, writes: bool| {
        let event = device.event().unwrap();
        let stream = device.stream().unwrap();
        let other = device.allocate(buffer.len()).unwrap();
        if writes { stream.copy(&other, buffer) } else { stream.copy(buffer, &other) }.unwrap();
        stream.record(&event).unwrap();
        event
    };
    let (source, target) = (device.allocate(10).unwrap(), device.allocate::<i32>(10).unwrap());
    second.fill(&source, 5).unwrap();
    first.copy(&source, &target).unwrap();
    // Two may read at the same time, and disjoint parts are independent.
    passes(&source, false).synchronize().unwrap();
    let disjoint = device.allocate::<i32>(10).unwrap();
    first.fill(&disjoint.part(..5).unwrap(), 1).unwrap();
    passes(&disjoint.part(5..).unwrap(), true).synchronize().unwrap();
    // These wait for the first stream.
    let waiting = [passes(&source, true), passes(&target, false), passes(&disjoint, false)];
    second.copy(&target, &disjoint).unwrap();
    second.fill(&target, 7).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert!(waiting.iter().all(|event| !event.has_passed().unwrap()));
    open.send(()).unwrap();
    waiting.iter().for_each(|event| event.synchronize().unwrap());
    assert_eq!(second.read(&disjoint).unwrap(), [5; 10]);
    assert_eq!(first.read(&target).unwrap(), [7; 10]);
}

#[test]
fn threads_may_share_everything() {
    let Some(device) = device() else { return };
    let total = device.allocate::<u64>(64).unwrap();
    // Each of the copies reads all that an earlier one wrote, or none of it.
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let (device, total) = (&device, &total);
            threads.spawn(move || {
                let stream = device.stream().unwrap();
                let own = device.allocate::<u64>(64).unwrap();
                for turn in 0..100 {
                    stream.fill(&own, thread * 1000 + turn).unwrap();
                    stream.copy(&own, total).unwrap();
                    let read = stream.read(total).unwrap();
                    assert!(read.iter().all(|value| *value == read[0]), "{read:?}");
                }
            });
        }
    });
}

#[test]
fn memory_stays_until_its_stream_has_passed() {
    let Some(device) = device() else { return };
    let (stream, open) = blocked(&device);
    let result = device.allocate::<i64>(5000).unwrap();
    {
        let source = upload(&device, &stream, &values::<i64>(5000, 4));
        stream.copy(&source, &result).unwrap();
    }
    // What has been given up is not used again before.
    let others: Vec<_> = (0..20).map(|_| device.allocate::<i64>(5000).unwrap()).collect();
    let second = device.stream().unwrap();
    others.iter().for_each(|other| second.fill(other, -1).unwrap());
    second.synchronize().unwrap();
    // Neither does it matter that the stream's last handle goes.
    drop(stream);
    let reader = std::thread::spawn({
        let result = result.clone();
        move || device.stream().unwrap().read(&result).unwrap()
    });
    open.send(()).unwrap();
    assert_eq!(reader.join().unwrap(), values::<i64>(5000, 4));
}

#[test]
fn a_panic_on_a_stream_is_its_fault_for_ever() {
    let Some(device) = device() else { return };
    let (stream, open) = blocked(&device);
    let (event, buffer) = (device.event().unwrap(), device.allocate::<f32>(1).unwrap());
    stream.call(|| panic!("planted {}", 1)).unwrap();
    stream.call(|| panic!("planted 2")).unwrap();
    stream.record(&event).unwrap();
    let waiting = device.stream().unwrap();
    waiting.wait(&event).unwrap();
    open.send(()).unwrap();
    let fault = Error::Aborted("a function that a stream called panicked: planted 1".into());
    assert_eq!(event.synchronize(), Err(fault.clone()));
    assert_eq!(stream.synchronize(), Err(fault.clone()));
    assert_eq!(stream.read(&buffer), Err(fault.clone()));
    assert_eq!(waiting.synchronize(), Err(fault.clone()));
    assert_eq!(stream.synchronize(), Err(fault.clone()));
    assert_eq!(stream.fault_words().first(), Some(fault));
    // Another stream's is not.
    device.stream().unwrap().synchronize().unwrap();
}

#[test]
fn a_fault_goes_with_what_the_stream_has_written() {
    let Some(device) = device() else { return };
    let fault = |stream: &Stream| stream.synchronize().unwrap_err().to_string();
    for early in [false, true] {
        let (stream, open) = blocked(&device);
        let (buffer, other) = (device.allocate::<f32>(10).unwrap(), device.allocate::<f32>(10).unwrap());
        stream.call(|| panic!("planted")).unwrap();
        stream.fill(&buffer.part(3..6).unwrap(), 1.0).unwrap();
        let mut open = Some(open);
        if early {
            drop(open.take());
            assert!(fault(&stream).contains("planted"));
        }
        drop(stream);
        let [reads, elsewhere, overwrites, after] = [0; 4].map(|_| device.stream().unwrap());
        reads.copy(&buffer, &other).unwrap();
        elsewhere.copy(&buffer.part(..3).unwrap(), &buffer.part(6..9).unwrap()).unwrap();
        drop(open);
        assert!(fault(&reads).contains("planted"));
        elsewhere.synchronize().unwrap();
        // From stream to stream.
        assert!(after.read(&other).unwrap_err().to_string().contains("planted"));
        // What is overwritten is right again.
        overwrites.fill(&buffer, 2.0).unwrap();
        assert_eq!(device.stream().unwrap().read(&buffer).unwrap(), [2.0; 10]);
    }
}

#[test]
fn nothing_is_left_of_what_was_dropped() {
    if absent() {
        return;
    }
    let entries = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    devices::alone("nothing_is_left_of_what_was_dropped", &[], || {
        let device = open(0).unwrap();
        let mut left = None;
        for round in 0..110 {
            {
                let (stream, open) = blocked(&device);
                let buffer = device.allocate_mappable::<f32>(10_000).unwrap();
                stream.fill(&buffer, 1.0).unwrap();
                let graph = stream.capture(|stream| stream.fill(&buffer, round as f32)).unwrap();
                graph.launch(&stream).unwrap();
                let event = device.event().unwrap();
                stream.record(&event).unwrap();
                drop(open);
                // Every other round leaves its work to be done by itself.
                if round % 2 == 0 {
                    stream.synchronize().unwrap();
                }
            }
            // Threads end, and memory goes with whatever the device is asked for next.
            eventually("the end of what was dropped", || {
                device.allocate::<u8>(1).unwrap();
                let now = (entries("task"), entries("fd"));
                round < 10 || left.is_none_or(|left| now <= left)
            });
            if round == 10 {
                std::thread::sleep(Duration::from_millis(100));
                device.allocate::<u8>(1).unwrap();
                left = Some((entries("task"), entries("fd")));
            }
        }
    });
}
