// SPDX-License-Identifier: MPL-2.0
//! Everything that a program does with devices, for tests that make each function of a library fail.

use std::collections::BTreeSet;

use annulus::driver::{Device, DeviceBuffer, IpcHandle, Shape, Stream, Use};
use annulus::{Communicator, Result};

/// Everything that a program does with devices, as far as it gets, and `more` with one and a mappable buffer of it; what
/// went wrong.
pub fn everything(
    open: fn(usize) -> Result<Device>,
    more: impl Fn(&Device, &DeviceBuffer<u32>) -> Result<()>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut note = |result: Result<()>| wrong.extend(result.err().map(|error| error.to_string()));
    let devices = [0, 1].map(open);
    let [first, second] = match devices {
        [Ok(first), Ok(second)] => [first, second],
        [first, second] => {
            note(first.map(drop));
            note(second.map(drop));
            return wrong;
        }
    };
    note(first.reaches(&second).map(drop));
    note(first.enable_peer(&second));
    note(first.words(4).map(drop));
    note(first.words(1 << 20).map(drop));
    let buffers = first.allocate::<u32>(100).and_then(|local| {
        let mappable = first.allocate_mappable::<u32>(100)?;
        Ok((local, mappable, second.allocate_mappable::<u32>(100)?))
    });
    let streams = first.stream().and_then(|stream| Ok((stream, second.stream()?)));
    let events = first.event().and_then(|event| Ok((event, first.event()?)));
    match (buffers, streams, events) {
        (Ok(buffers), Ok(streams), Ok(events)) => {
            let (local, mappable, far) = &buffers;
            let (stream, other) = &streams;
            note(stream.record(&events.0));
            note(stream.write(local, &[1; 100]));
            note(stream.copy(local, mappable));
            note(stream.copy(local, far));
            note(other.copy(far, local));
            note(stream.fill(local, 2));
            note(stream.fill(&local.as_bytes(), 2));
            for widths in [
                first.allocate::<u16>(3).and_then(|two| stream.fill(&two, 1)),
                first.allocate::<u64>(3).and_then(|eight| stream.fill(&eight, 1)),
            ] {
                note(widths);
            }
            note(launch(&first, stream, local, Shape::new(1, 32)));
            note(launch(&first, stream, local, Shape::new(1, 32).together()));
            note(stream.call(|| {}));
            note(stream.capture(|stream| stream.fill(local, 3)).and_then(|graph| graph.launch(stream)));
            note(stream.record(&events.1));
            note(other.wait(&events.1));
            note(events.1.synchronize());
            note(events.1.has_passed().map(drop));
            note(events.1.since(&events.0).map(drop));
            note(mappable.export().map(drop));
            note(more(&first, mappable));
            note(stream.read(local).map(drop));
            note(other.synchronize());
        }
        (buffers, streams, events) => {
            note(buffers.map(drop));
            note(streams.map(drop));
            note(events.map(drop));
        }
    }
    note(first.allocate::<u8>(1).map(drop));
    wrong
}

fn launch(device: &Device, stream: &Stream, words: &DeviceBuffer<u32>, shape: Shape) -> Result<()> {
    let mut argument = [0; 24];
    argument[..8].copy_from_slice(&words.address().to_ne_bytes());
    argument[8..16].copy_from_slice(&(words.address() + 4).to_ne_bytes());
    argument[16] = 1;
    // SAFETY: the argument is the kernel's: an epoch, where it is kept, and how long that is.
    unsafe { stream.launch(&device.kernel("probe_advance")?, shape, &argument, &[Use::writes(words)]) }
}

/// Checks that the functions of a library's table, the file `source`, are those of the lists, each in one of them.
/// `optional` is one that is not in the table, since it may be missing.
pub fn none_is_forgotten(source: &str, prefix: &str, optional: &str, lists: &[&[&str]]) {
    let names = source.lines().filter_map(|line| line.strip_prefix("    fn ")?.split_once('(')).map(|(name, _)| name);
    let called: BTreeSet<&str> = names.filter(|name| name.starts_with(prefix)).chain([optional]).collect();
    let listed = lists.concat();
    assert!(called.len() > 50);
    assert_eq!(called, listed.iter().copied().collect());
    assert_eq!(called.len(), listed.len(), "one is in two lists");
}

/// A rank of a world of processes. What `OF_RANK_1` says, if anything does, fails on that rank alone.
pub fn joined() -> Communicator {
    if let (Ok(fails), "1") = (std::env::var("OF_RANK_1"), &*std::env::var("RANK").unwrap()) {
        // SAFETY: this process has no other thread that reads the environment yet.
        unsafe { std::env::set_var("STANDIN_FAIL", fails) };
    }
    Communicator::from_env().unwrap()
}

/// Of a rank of two: rank 1 maps memory of rank 0's and gives it up, and is none the worse where it cannot be unmapped.
pub fn maps_and_unmaps(open: fn(usize) -> Result<Device>) {
    let (comm, device) = (joined(), open(0).unwrap());
    let own = device.allocate_mappable::<u32>(10).unwrap();
    let mut name = own.export().unwrap().to_bytes();
    comm.broadcast_in_place(&mut name, 0).unwrap();
    if comm.rank() == 1 {
        drop(device.import::<u32>(&IpcHandle::from_bytes(&name)).unwrap());
        device.close_imports();
        let stream = device.stream().unwrap();
        stream.fill(&own, 3).unwrap();
        assert_eq!(stream.read(&own).unwrap(), [3; 10]);
    }
    comm.barrier().unwrap();
}
