// SPDX-License-Identifier: MPL-2.0
//! When calls are done: a graph of several calls, launched a thousand times with changing input, mixed with calls that
//! are made as they are; and calls on two streams.

use annulus::driver::{DeviceBuffer, Stream};
use annulus::{DeviceCommunicator, Result};

use crate::simulated::block;
use crate::worlds::{on, threads};

/// Elements of each buffer.
pub const LENGTH: usize = 200;

/// A step makes, of both ranks' first buffers, their sum in both ranks' second ones. It is captured, launched, and made
/// as it is; `meanwhile` is called between, once.
pub fn a_thousand_times(
    step: impl Fn(&DeviceCommunicator, &[DeviceBuffer<f32>; 2], &Stream) -> Result<()> + Sync,
    meanwhile: impl Fn(&DeviceCommunicator) + Sync,
) {
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let buffers = [gpus.device().allocate::<f32>(LENGTH).unwrap(), gpus.allocate(LENGTH).unwrap()];
        let graph = stream.capture(|stream| step(&gpus, &buffers, stream)).unwrap();
        let other = gpus.device().stream().unwrap();
        comm.barrier().unwrap();
        for turn in 0..1000_u32 {
            let on = if turn % 7 == 0 { &other } else { &stream };
            on.fill(&buffers[0], (turn + comm.rank() as u32) as f32).unwrap();
            match turn % 10 {
                // As it is, between launches of the graph.
                3 => step(&gpus, &buffers, on).unwrap(),
                5 => {
                    if turn == 505 {
                        meanwhile(&gpus);
                    }
                    gpus.all_gather_in_place(&buffers[1], on).unwrap();
                    graph.launch(on).unwrap();
                }
                _ => graph.launch(on).unwrap(),
            }
            if turn % 20 == 13 || turn == 5 || turn == 999 {
                assert_eq!(stream.read(&buffers[1]).unwrap(), [(2 * turn + 1) as f32; LENGTH], "turn {turn}");
            }
        }
        // A graph outlives its communicator.
        comm.barrier().unwrap();
        drop(gpus);
        graph.launch(&stream).unwrap();
        assert_eq!(stream.read(&buffers[1]).unwrap(), [1999.0; LENGTH]);
    });
}

/// Calls that `enqueue` puts on two streams, on a buffer of each kind of memory, are done in their order.
pub fn on_two_streams(enqueue: impl Fn(&DeviceCommunicator, &DeviceBuffer<u32>, &Stream) -> Result<()> + Sync) {
    threads(3, |comm| {
        let (gpus, first) = on(&comm);
        let second = gpus.device().stream().unwrap();
        let buffers: [DeviceBuffer<u32>; 2] = [gpus.device().allocate(700).unwrap(), gpus.allocate(700).unwrap()];
        comm.barrier().unwrap();
        for turn in 0..50_u32 {
            // The streams are blocked in turns, each before the other's call: only the order of the calls helps.
            let (one, other) = if turn % 2 == 0 { (&first, &second) } else { (&second, &first) };
            one.fill(&buffers[0], turn).unwrap();
            let open = block(one);
            enqueue(&gpus, &buffers[0], one).unwrap();
            other.fill(&buffers[1], turn + 1).unwrap();
            enqueue(&gpus, &buffers[1], other).unwrap();
            drop(open);
            assert_eq!(other.read(&buffers[1]).unwrap(), [3 * (turn + 1); 700]);
            assert_eq!(other.read(&buffers[0]).unwrap(), [3 * turn; 700]);
        }
    });
}
