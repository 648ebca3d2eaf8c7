// SPDX-License-Identifier: MPL-2.0
//! Graphs: captured once, launched often.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use annulus::Error;
use annulus::driver::{Shape, Use};

use super::{arguments, blocked, device, invalid, upload};

#[test]
fn a_graph_works_on_what_is_there_when_it_is_launched() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let input = device.allocate::<f32>(37).unwrap();
    let (epoch, kept) = (device.allocate::<u32>(1).unwrap(), device.allocate::<u32>(1).unwrap());
    let output = device.allocate::<f32>(37).unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let step = |stream: &annulus::driver::Stream| {
        // Buffers of its own, which nobody else holds when the capture has ended.
        let one = upload(&device, stream, &[1.0_f32; 37]);
        let argument = arguments::fold(&[input.address(), one.address()], output.address(), 37);
        let fold = device.kernel("fold_f32")?;
        let uses = [Use::reads(&input), Use::reads(&one), Use::writes(&output)];
        // SAFETY: the argument is the kernel's, and its addresses are of buffers of 37 elements that are used so.
        unsafe { stream.launch(&fold, Shape::new(2, 64), &argument, &uses) }?;
        let argument = arguments::advance(epoch.address(), kept.address(), 1);
        let uses = [Use::writes(&epoch), Use::writes(&kept)];
        // SAFETY: the argument is the kernel's, and its addresses are of these buffers.
        unsafe { stream.launch(&device.kernel("probe_advance")?, Shape::new(1, 32), &argument, &uses) }?;
        let calls = calls.clone();
        stream.call(move || _ = calls.fetch_add(1, Ordering::Relaxed))
    };
    let graph = stream.capture(step).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 0, "a capture does nothing");
    let other = device.stream().unwrap();
    let mut turns = 0;
    for turn in 0..1000 {
        // On either stream, and now and then enqueued as it is.
        let on = if turn % 3 == 0 { &other } else { &stream };
        on.fill(&input, turn as f32).unwrap();
        graph.launch(on).unwrap();
        turns += 1;
        if turn % 100 == 50 {
            step(&other).unwrap();
            turns += 1;
        }
        if turn % 10 == 0 {
            assert_eq!(stream.read(&output).unwrap(), [turn as f32 + 1.0; 37]);
        }
    }
    drop(graph);
    assert_eq!(stream.read(&output).unwrap(), [1000.0; 37]);
    assert_eq!(other.read(&epoch).unwrap(), [turns]);
    assert_eq!(stream.read(&kept).unwrap(), [turns]);
    other.synchronize().unwrap();
    stream.synchronize().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), turns);
}

#[test]
fn launches_of_one_graph_follow_one_another() {
    let Some(device) = device() else { return };
    let (first, open) = blocked(&device);
    let calls = Arc::new(AtomicU32::new(0));
    let capturing = device.stream().unwrap();
    let graph = capturing.capture(|stream| {
        let calls = calls.clone();
        stream.call(move || _ = calls.fetch_add(1, Ordering::Relaxed))
    });
    let graph = graph.unwrap();
    graph.launch(&first).unwrap();
    let second = device.stream().unwrap();
    graph.launch(&second).unwrap();
    // It keeps what its launches need.
    drop((graph, capturing));
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    open.send(()).unwrap();
    second.synchronize().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[test]
fn a_capture_refuses_what_waits() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let (event, buffer) = (device.event().unwrap(), device.allocate::<f32>(3).unwrap());
    let empty = stream.capture(|_| Ok(())).unwrap();
    let graph = stream.capture(|stream| {
        for (refused, what) in [
            (stream.synchronize(), "synchronize"),
            (stream.read(&buffer).map(drop), "read"),
            (stream.record(&event), "record"),
            (stream.wait(&event), "wait"),
            (stream.capture(|_| Ok(())).map(drop), "begin"),
            (empty.launch(stream), "launch"),
        ] {
            let why = invalid(refused);
            assert!(why.contains(what) && why.contains("captures a graph"), "{why}");
        }
        stream.write(&buffer, &[1.0, 2.0, 3.0])
    });
    assert_eq!(stream.read(&buffer).unwrap(), [0.0; 3]);
    graph.unwrap().launch(&stream).unwrap();
    empty.launch(&stream).unwrap();
    assert_eq!(stream.read(&buffer).unwrap(), [1.0, 2.0, 3.0]);
}

#[test]
fn a_capture_that_fails_leaves_the_stream_as_it_was() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let buffer = device.allocate::<f32>(3).unwrap();
    let failed = stream.capture(|stream| {
        stream.fill(&buffer, 1.0)?;
        Err(Error::invalid("planted"))
    });
    assert_eq!(invalid(failed), "planted");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        stream.capture(|stream| {
            stream.fill(&buffer, 2.0).unwrap();
            panic!("planted")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(stream.read(&buffer).unwrap(), [0.0; 3]);
    stream.fill(&buffer, 3.0).unwrap();
    assert_eq!(stream.read(&buffer).unwrap(), [3.0; 3]);
}
