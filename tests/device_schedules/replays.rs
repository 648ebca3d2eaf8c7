// SPDX-License-Identifier: MPL-2.0
//! Graphs of calls that go by schedules, between other calls; and calls on several streams.

use annulus::driver::{DeviceBuffer, Stream};
use annulus::schedule::{Layout, Verified, verify};
use annulus::{DeviceCommunicator, ReduceOp, Result};

use super::butterfly::Butterfly;
use super::{absent, block, on, threads};

/// A step of several calls: by kernels, by schedules, and by one's own.
fn step(gpus: &DeviceCommunicator, own: &Verified, buffers: &[DeviceBuffer<f32>; 2], stream: &Stream) -> Result<()> {
    gpus.set_algorithm(Some("schedule:ring"))?;
    gpus.all_reduce(&buffers[0], &buffers[1], ReduceOp::Sum, stream)?;
    gpus.set_algorithm(None)?;
    gpus.all_reduce_in_place(&buffers[1], ReduceOp::Max, stream)?;
    gpus.execute_in_place(own, &buffers[1], Some(ReduceOp::Avg), stream)?;
    gpus.set_algorithm(Some("schedule:direct"))?;
    gpus.broadcast_in_place(&buffers[1], 1, stream)?;
    gpus.set_algorithm(None)
}

#[test]
fn a_graph_is_launched_a_thousand_times() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let own = verify(&Butterfly, &Layout::uniform(2, 200).in_place(true)).unwrap();
        let buffers = [gpus.device().allocate::<f32>(200).unwrap(), gpus.allocate(200).unwrap()];
        let graph = stream.capture(|stream| step(&gpus, &own, &buffers, stream)).unwrap();
        let other = gpus.device().stream().unwrap();
        for turn in 0..1000_u32 {
            let on = if turn % 7 == 0 { &other } else { &stream };
            on.fill(&buffers[0], (turn + comm.rank() as u32) as f32).unwrap();
            match turn % 10 {
                // As it is, between launches of the graph; once with other shared memory than the graph has.
                3 => step(&gpus, &own, &buffers, on).unwrap(),
                5 => {
                    if turn == 505 {
                        gpus.set_schedule_memory(4096).unwrap();
                    }
                    gpus.all_gather_in_place(&buffers[1], on).unwrap();
                    graph.launch(on).unwrap();
                }
                _ => graph.launch(on).unwrap(),
            }
            if turn % 20 == 13 || turn == 5 || turn == 999 {
                assert_eq!(stream.read(&buffers[1]).unwrap(), [(2 * turn + 1) as f32; 200], "turn {turn}");
            }
        }
        comm.barrier().unwrap();
        drop(gpus);
        graph.launch(&stream).unwrap();
        assert_eq!(stream.read(&buffers[1]).unwrap(), [1999.0; 200]);
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
        gpus.set_algorithm(Some("schedule:ring")).unwrap();
        let buffers: Vec<DeviceBuffer<u32>> = vec![gpus.device().allocate(700).unwrap(), gpus.allocate(700).unwrap()];
        for turn in 0..50_u32 {
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
