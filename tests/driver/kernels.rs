// SPDX-License-Identifier: MPL-2.0
//! Kernels through the driver: the library's own, by name.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use annulus::driver::{Device, Shape, Use};
use annulus::{Error, bf16};

use super::{absent, arguments, called, device, devices, eventually, invalid, lacks, open, upload};

const LONG: u64 = 60_000_000_000;
const SHORT: u64 = 30_000_000;

/// Kernels that wait for one another have the device to themselves: another test's launch between two of theirs could
/// take the room that the second needs.
fn room() -> MutexGuard<'static, ()> {
    static ROOM: Mutex<()> = Mutex::new(());
    ROOM.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn folds_are_those_of_the_kernel() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for (elements, sources, blocks) in [(1, 2, 1), (1003, 3, 2), (4096, 4, 5), (257, 8, 1)] {
        let value = |source: usize, i: usize| (i % 97) as f32 * 0.5 - source as f32;
        let data = |source| (0..elements).map(|i| value(source, i)).collect::<Vec<_>>();
        let sums: Vec<f32> = (0..elements).map(|i| (0..sources).map(|s| value(s, i)).sum()).collect();

        let from: Vec<_> = (0..sources).map(|source| upload(&device, &stream, &data(source))).collect();
        let to = device.allocate::<f32>(elements).unwrap();
        let addresses: Vec<u64> = from.iter().map(|buffer| buffer.address()).collect();
        let argument = arguments::fold(&addresses, to.address(), elements);
        let uses: Vec<_> = from.iter().map(Use::reads).chain([Use::writes(&to)]).collect();
        let kernel = device.kernel("fold_f32").unwrap();
        // SAFETY: the argument is the kernel's, and its addresses are of buffers of that many elements that are used
        // so.
        unsafe { stream.launch(&kernel, Shape::new(blocks, 64), &argument, &uses) }.unwrap();
        drop((from, uses));
        assert_eq!(stream.read(&to).unwrap(), sums);

        let narrow = |values: Vec<f32>| values.into_iter().map(bf16::from_f32).collect::<Vec<_>>();
        let from: Vec<_> = (0..sources).map(|source| upload(&device, &stream, &narrow(data(source)))).collect();
        let to = device.allocate::<bf16>(elements).unwrap();
        let addresses: Vec<u64> = from.iter().map(|buffer| buffer.address()).collect();
        let argument = arguments::fold(&addresses, to.address(), elements);
        let uses: Vec<_> = from.iter().map(Use::reads).chain([Use::writes(&to)]).collect();
        let kernel = device.kernel("fold_bf16").unwrap();
        // SAFETY: as above.
        unsafe { stream.launch(&kernel, Shape::new(blocks, 64), &argument, &uses) }.unwrap();
        assert_eq!(stream.read(&to).unwrap(), narrow(sums));
    }
}

/// Blocks that meet, in one launch: how many ended well, and how many late.
fn meet(device: &Device, shape: Shape, blocks: u32, patience: u64) -> [u32; 2] {
    let stream = device.stream().unwrap();
    let words = device.words(5).unwrap();
    let address = words.address();
    let argument = arguments::meet(address, address + 4, address + 16, patience, blocks);
    let kernel = device.kernel("probe_meet").unwrap();
    // SAFETY: the argument is the kernel's, and its addresses are of the words.
    unsafe { stream.launch(&kernel, shape, &argument, &[Use::words(&words)]) }.unwrap();
    stream.synchronize().unwrap();
    [1, 3].map(|word| words.get()[word].load(Ordering::Relaxed))
}

#[test]
fn as_many_blocks_run_together_as_is_said() {
    let Some(device) = device() else { return };
    let _room = room();
    let kernel = device.kernel("probe_meet").unwrap();
    let (threads, shared) = (256, 60_000);
    let resident = kernel.resident_blocks(threads, shared).unwrap();
    assert!(resident > 0 && resident < kernel.resident_blocks(threads, 0).unwrap());
    let shape = |blocks| Shape::new(blocks, threads).shared(shared);
    assert_eq!(meet(&device, shape(resident).together(), resident, LONG), [resident, 0]);
    assert!(meet(&device, shape(resident + 1), resident + 1, SHORT)[1] > 0);

    let stream = device.stream().unwrap();
    let words = device.words(5).unwrap();
    let argument = arguments::meet(words.address(), words.address() + 4, words.address() + 16, SHORT, 1);
    // SAFETY: as above, if it were launched.
    let refused = unsafe { stream.launch(&kernel, shape(resident + 1).together(), &argument, &[Use::words(&words)]) };
    let why = invalid(refused);
    let [asked, room] = [format!("{} blocks of 256 threads and 60000 bytes", resident + 1), format!("for {resident} ")];
    assert!(why.contains("probe_meet") && why.contains(&asked) && why.contains(&room), "{why}");
}

#[test]
fn kernels_on_two_streams_run_together() {
    let Some(device) = device() else { return };
    let _room = room();
    let words = device.words(3).unwrap();
    let out = device.allocate::<u64>(4).unwrap();
    let kernel = device.kernel("probe_ping").unwrap();
    let [a, b, abort] = [0, 4, 8].map(|offset| words.address() + offset);
    let streams = [0, 1].map(|first| {
        let stream = device.stream().unwrap();
        let argument = arguments::ping([[a, b], [b, a]], out.address(), abort, LONG, first, 50);
        // SAFETY: the argument is the kernel's; the sides write different words of `out`, and the words as atomics.
        unsafe { stream.launch(&kernel, Shape::new(1, 32), &argument, &[Use::words(&words), Use::shares(&out)]) }
            .unwrap();
        stream
    });
    streams.iter().for_each(|stream| stream.synchronize().unwrap());
    let out = streams[0].read(&out).unwrap();
    assert!(out[0] == 0 && out[2] == 0, "a side gave up: {out:?}");
}

#[test]
fn a_waiting_kernel_ends_by_its_abort_word() {
    let Some(device) = device() else { return };
    let _room = room();
    let stream = device.stream().unwrap();
    let words = device.words(3).unwrap();
    let out = device.allocate::<u64>(2).unwrap();
    let [counter, abort, begun] = [0, 4, 8].map(|offset| words.address() + offset);
    let argument = arguments::wait(counter, abort, begun, out.address(), LONG, 1);
    let kernel = device.kernel("probe_wait").unwrap();
    let event = device.event().unwrap();
    // SAFETY: the argument is the kernel's, and its addresses are of these words and that buffer.
    unsafe { stream.launch(&kernel, Shape::new(2, 64), &argument, &[Use::words(&words), Use::writes(&out)]) }.unwrap();
    stream.record(&event).unwrap();
    eventually("the kernel's beginning", || words.get()[2].load(Ordering::Acquire) == 1);
    assert!(!event.has_passed().unwrap());
    words.get()[1].store(1, Ordering::Relaxed);
    assert_eq!(stream.read(&out).unwrap()[0], 1);
}

#[test]
fn wrong_launches_are_refused_before_they_begin() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let kernel = device.kernel("probe_advance").unwrap();
    let refused = |shape, argument: &[u8]| {
        // SAFETY: nothing is launched.
        invalid(unsafe { stream.launch(&kernel, shape, argument, &[]) })
    };
    let argument = arguments::advance(0, 0, 1);
    let why = refused(Shape::new(1, 32), &argument[..20]);
    assert!(why.contains(&format!("{} cannot launch probe_advance", called(0))), "{why}");
    assert!(why.contains("of 20 bytes: it takes 24"), "{why}");
    assert!(refused(Shape::new(0, 32), &argument).contains("0 blocks of 32 threads"));
    assert!(refused(Shape::new(1, 0), &argument).contains("1 blocks of 0 threads"));
    assert!(refused(Shape::new(1, 1025), &argument).contains("1025 threads a block: it has 1024"));
    assert!(refused(Shape::new(1, 32).shared(1 << 20), &argument).contains("1048576 bytes of shared memory"));
    stream.synchronize().unwrap();
}

/// Launches a kernel that stores 1 to the first of these words, which is how a fault is reported.
fn report(device: &Device, stream: &annulus::driver::Stream, faults: &annulus::driver::FaultWords) {
    let words = device.words(2).unwrap();
    let out = device.allocate::<u64>(2).unwrap();
    faults.words().get()[5].store(0x42, Ordering::Relaxed);
    let [counter, abort] = [words.address(), words.address() + 4];
    let argument = arguments::wait(counter, abort, faults.words().address(), out.address(), LONG, 0);
    let kernel = device.kernel("probe_wait").unwrap();
    let uses = [Use::words(&words), Use::words(faults.words()), Use::writes(&out)];
    // SAFETY: the argument is the kernel's, and its addresses are of these words and that buffer.
    unsafe { stream.launch(&kernel, Shape::new(1, 32), &argument, &uses) }.unwrap();
}

#[test]
fn what_a_kernel_reports_comes_back_where_the_host_waits() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    report(&device, &stream, stream.fault_words());
    match stream.synchronize() {
        Err(Error::System(why)) => {
            assert!(why.contains(&format!("of {} reported a fault", called(0))) && why.contains("42"), "{why}");
        }
        other => panic!("{other:?}"),
    }

    // In words of its owner's, also from a graph that was captured on a stream which is gone.
    let render = |words: &[u32; 16]| Error::Aborted(format!("rank {:#x} is missing", words[5]).into());
    let faults = device.fault_words(render).unwrap();
    let capturing = device.stream().unwrap();
    capturing.watch(&faults);
    let graph = capturing.capture(|stream| {
        report(&device, stream, &faults);
        Ok(())
    });
    let graph = graph.unwrap();
    capturing.synchronize().unwrap();
    drop(capturing);
    let stream = device.stream().unwrap();
    let event = device.event().unwrap();
    graph.launch(&stream).unwrap();
    stream.record(&event).unwrap();
    let fault = Err(Error::Aborted("rank 0x42 is missing".into()));
    assert_eq!(event.synchronize(), fault);
    assert_eq!(stream.read(&device.allocate::<u8>(1).unwrap()).map(drop), fault);
    drop((graph, faults));
    assert_eq!(stream.synchronize(), fault);
}

#[test]
fn kernels_need_memory_that_their_device_reaches() {
    if absent() || lacks("3", "0-2") {
        return;
    }
    let variables = [("ANNULUS_SIM_DEVICES", "3"), ("ANNULUS_SIM_UNREACHABLE", "0-2")];
    devices::alone("kernels::kernels_need_memory_that_their_device_reaches", &variables, || {
        let [first, second, third] = [0, 1, 2].map(|index| open(index).unwrap());
        let (stream, kernel) = (first.stream().unwrap(), first.kernel("probe_advance").unwrap());
        let (local, reached, unreached) =
            (second.allocate(3).unwrap(), second.allocate_mappable(3).unwrap(), third.allocate_mappable(3).unwrap());
        let launch = |buffer: &annulus::driver::DeviceBuffer<u32>| {
            let argument = arguments::advance(buffer.address(), buffer.address() + 4, 2);
            // SAFETY: the argument is the kernel's, and its addresses are of that buffer.
            unsafe { stream.launch(&kernel, Shape::new(1, 32), &argument, &[Use::writes(buffer)]) }
        };
        assert!(invalid(launch(&local)).contains("allocate_mappable"));
        match launch(&unreached) {
            Err(Error::Unsupported(why)) => assert!(why.contains(&format!("{} cannot address", called(0))), "{why}"),
            other => panic!("{other:?}"),
        }
        launch(&reached).unwrap();
        launch(&reached).unwrap();
        // The other device's stream waits for this one's.
        assert_eq!(second.stream().unwrap().read(&reached).unwrap(), [2, 1, 2]);
        let own = second.stream().unwrap();
        // SAFETY: nothing is launched.
        assert!(invalid(unsafe { own.launch(&kernel, Shape::new(1, 1), &[], &[]) }).contains("ask that device"));
    });
}
