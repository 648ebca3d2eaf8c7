// SPDX-License-Identifier: MPL-2.0
//! When calls are done: after they are enqueued, one after the other, and again each time a graph is launched.

use annulus::driver::DeviceBuffer;
use annulus::{Element, ReduceOp};

use super::{absent, block, on, threads};

#[test]
fn a_call_returns_before_its_stream_comes_to_it() {
    if absent() {
        return;
    }
    threads(3, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.allocate::<f32>(100).unwrap();
        let other = gpus.device().allocate::<f32>(300).unwrap();
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
    threads(3, |comm| {
        let (gpus, first) = on(&comm);
        let second = gpus.device().stream().unwrap();
        let buffers: Vec<DeviceBuffer<u32>> = (0..2).map(|_| gpus.device().allocate(700).unwrap()).collect();
        for turn in 0..50_u32 {
            // The streams are blocked in turns, each before the other's call: only the order of the calls helps.
            let (one, other) = if turn % 2 == 0 { (&first, &second) } else { (&second, &first) };
            one.fill(&buffers[0], turn).unwrap();
            let open = block(one);
            gpus.all_reduce_in_place(&buffers[0], ReduceOp::Sum, one).unwrap();
            other.fill(&buffers[1], turn + 1).unwrap();
            gpus.all_reduce_in_place(&buffers[1], ReduceOp::Sum, other).unwrap();
            drop(open);
            assert_eq!(other.read(&buffers[1]).unwrap(), [3 * (turn + 1); 700]);
            assert_eq!(other.read(&buffers[0]).unwrap(), [3 * turn; 700]);
        }
    });
}

/// A step of several calls, on what is in the buffers.
fn step<T: Element>(
    gpus: &annulus::DeviceCommunicator,
    buffers: &[DeviceBuffer<T>; 2],
    stream: &annulus::driver::Stream,
) -> annulus::Result<()> {
    gpus.all_reduce(&buffers[0], &buffers[1], ReduceOp::Sum, stream)?;
    gpus.barrier(stream)?;
    gpus.all_reduce_in_place(&buffers[1], ReduceOp::Max, stream)?;
    gpus.broadcast_in_place(&buffers[1].part(..10)?, 1, stream)
}

#[test]
fn a_graph_is_launched_a_thousand_times() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let buffers = [gpus.device().allocate::<f32>(200).unwrap(), gpus.allocate(200).unwrap()];
        let graph = stream.capture(|stream| step(&gpus, &buffers, stream)).unwrap();
        let other = gpus.device().stream().unwrap();
        for turn in 0..1000_u32 {
            let on = if turn % 7 == 0 { &other } else { &stream };
            on.fill(&buffers[0], (turn + comm.rank() as u32) as f32).unwrap();
            match turn % 10 {
                // As it is, between launches of the graph.
                3 => step(&gpus, &buffers, on).unwrap(),
                5 => {
                    gpus.all_gather_in_place(&buffers[1], on).unwrap();
                    graph.launch(on).unwrap();
                }
                _ => graph.launch(on).unwrap(),
            }
            if turn % 20 == 13 || turn == 5 || turn == 999 {
                assert_eq!(stream.read(&buffers[1]).unwrap(), [(2 * turn + 1) as f32; 200], "turn {turn}");
            }
        }
        // A graph outlives its communicator.
        comm.barrier().unwrap();
        drop(gpus);
        graph.launch(&stream).unwrap();
        assert_eq!(stream.read(&buffers[1]).unwrap(), [1999.0; 200]);
    });
}
