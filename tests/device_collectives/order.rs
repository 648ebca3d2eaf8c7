// SPDX-License-Identifier: MPL-2.0
//! When calls are done: after they are enqueued, one after the other, and again each time a graph is launched.

use std::time::Duration;

use annulus::driver::{DeviceBuffer, Stream};
use annulus::{DeviceCommunicator, ReduceOp};

use super::replays::LENGTH;
use super::{absent, block, on, replays, threads, upload};

#[test]
fn a_call_returns_before_its_stream_comes_to_it() {
    if absent() {
        return;
    }
    threads(3, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.allocate::<f32>(100).unwrap();
        let other = gpus.device().allocate::<f32>(300).unwrap();
        comm.barrier().unwrap();
        // Every rank's stream is blocked, so no call can proceed before all have been enqueued.
        let open = block(&stream);
        stream.fill(&buffer, comm.rank() as f32).unwrap();
        gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
        gpus.all_gather(&buffer, &other, &stream).unwrap();
        gpus.barrier(&stream).unwrap();
        comm.barrier().unwrap();
        drop(open);
        // A buffer that is dropped stays until the calls have been done.
        drop(buffer);
        assert_eq!(stream.read(&other).unwrap(), [3.0; 300]);
    });
}

#[test]
fn calls_on_two_streams_are_in_order() {
    if absent() {
        return;
    }
    replays::on_two_streams(|gpus, buffer, stream| gpus.all_reduce_in_place(buffer, ReduceOp::Sum, stream));
}

/// Drivers' queues end, and threads share them: one rank's calls must not fill what another's calls would need.
#[test]
fn a_rank_that_runs_ahead_keeps_nobody_out() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = upload(gpus.device(), &stream, &[1.5_f32; 100]);
        comm.barrier().unwrap();
        if comm.rank() == 1 {
            // By then the other has gone as far as it may.
            std::thread::sleep(Duration::from_millis(100));
        }
        let event = gpus.device().event().unwrap();
        for _ in 0..600 {
            gpus.all_reduce_in_place(&buffer, ReduceOp::Avg, &stream).unwrap();
            // They take room too.
            (0..4).for_each(|_| stream.record(&event).unwrap());
            (0..4).for_each(|_| stream.wait(&event).unwrap());
        }
        assert_eq!(stream.read(&buffer).unwrap(), [1.5; 100]);
    });
}

/// The same by graphs: what is in one fills queues too. One that is longer than all that may be enqueued can be launched.
#[test]
fn a_rank_that_launches_ahead_keeps_nobody_out() {
    if absent() {
        return;
    }
    for (calls, launches) in [(60, 25), (300, 3)] {
        threads(2, |comm| {
            let (gpus, stream) = on(&comm);
            let buffer = upload(gpus.device(), &stream, &[1.5_f32; 10]);
            let step = |stream: &Stream| gpus.all_reduce_in_place(&buffer, ReduceOp::Avg, stream);
            let graph = stream.capture(|stream| (0..calls).try_for_each(|_| step(stream))).unwrap();
            comm.barrier().unwrap();
            if comm.rank() == 1 {
                std::thread::sleep(Duration::from_millis(100));
            }
            (0..launches).for_each(|_| graph.launch(&stream).unwrap());
            assert_eq!(stream.read(&buffer).unwrap(), [1.5; 10]);
        });
    }
}

#[test]
fn a_graph_is_launched_a_thousand_times() {
    if absent() {
        return;
    }
    let step = |gpus: &DeviceCommunicator, buffers: &[DeviceBuffer<f32>; 2], stream: &Stream| {
        gpus.all_reduce(&buffers[0], &buffers[1], ReduceOp::Sum, stream)?;
        gpus.barrier(stream)?;
        gpus.all_reduce_in_place(&buffers[1], ReduceOp::Max, stream)?;
        // All parts are the same, so that they may be moved about.
        gpus.all_to_all_in_place(&buffers[1], stream)?;
        gpus.reduce_in_place(&buffers[1].part(5..)?, ReduceOp::Avg, 1, stream)?;
        let (part, whole) = (buffers[1].part(..LENGTH / 2)?, &buffers[1]);
        gpus.scatter_in_place(if gpus.rank() == 0 { whole } else { &part }, 0, stream)?;
        gpus.gather_in_place(if gpus.rank() == 1 { whole } else { &part }, 1, stream)?;
        gpus.broadcast_in_place(&buffers[1].part(..10)?, 1, stream)
    };
    replays::a_thousand_times(step, |_| ());
}
