// SPDX-License-Identifier: MPL-2.0
//! Graphs of calls that go by schedules, between other calls; and calls on several streams.

use annulus::ReduceOp;
use annulus::driver::{DeviceBuffer, Stream};
use annulus::schedule::{Layout, verify};

use super::absent;
use super::butterfly::Butterfly;
use super::replays::{self, LENGTH};

#[test]
fn a_graph_is_launched_a_thousand_times() {
    if absent() {
        return;
    }
    let own = verify(&Butterfly, &Layout::uniform(2, LENGTH).in_place(true)).unwrap();
    // By kernels, by schedules, and by one's own.
    let step = |gpus: &annulus::DeviceCommunicator, buffers: &[DeviceBuffer<f32>; 2], stream: &Stream| {
        gpus.set_algorithm(Some("schedule:ring"))?;
        gpus.all_reduce(&buffers[0], &buffers[1], ReduceOp::Sum, stream)?;
        gpus.set_algorithm(None)?;
        gpus.all_reduce_in_place(&buffers[1], ReduceOp::Max, stream)?;
        gpus.execute_in_place(&own, &buffers[1], Some(ReduceOp::Avg), stream)?;
        gpus.set_algorithm(Some("schedule:direct"))?;
        gpus.broadcast_in_place(&buffers[1], 1, stream)?;
        gpus.all_to_all_in_place(&buffers[1], stream)?;
        gpus.reduce_in_place(&buffers[1], ReduceOp::Max, 1, stream)?;
        gpus.set_algorithm(None)
    };
    // Afterwards there is other shared memory than the graph has.
    replays::a_thousand_times(step, |gpus| gpus.set_schedule_memory(4096).unwrap());
}

#[test]
fn calls_on_two_streams_are_in_order() {
    if absent() {
        return;
    }
    replays::on_two_streams(|gpus, buffer, stream| {
        gpus.set_algorithm(Some("schedule:ring"))?;
        gpus.all_reduce_in_place(buffer, ReduceOp::Sum, stream)
    });
}
