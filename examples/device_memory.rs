// SPDX-License-Identifier: MPL-2.0
//! Two ranks that reduce device memory in place, also from a captured graph; on GPUs if there are any, else on a device
//! that is simulated on the CPU. `cargo run --release --example device_memory`

use annulus::driver::Device;
use annulus::{RankFailure, ReduceOp, run};

fn main() -> Result<(), RankFailure> {
    let lines = run(2, |comm| {
        let device = Device::auto(comm.rank()).or_else(|_| Device::simulated(0))?;
        let gpus = comm.on(&device)?;
        let stream = device.stream()?;
        // Memory that peers map: nothing is copied to be sent.
        let gradients = gpus.allocate::<f32>(1 << 20)?;
        stream.fill(&gradients, comm.rank() as f32)?;
        gpus.all_reduce_in_place(&gradients, ReduceOp::Avg, &stream)?; // enqueued; returns at once
        let mean = stream.read(&gradients.part(..4)?)?;

        let step = stream.capture(|stream| gpus.all_reduce_in_place(&gradients, ReduceOp::Sum, stream))?;
        comm.barrier()?; // all have their graph before any waits in one
        for _ in 0..10 {
            step.launch(&stream)?;
        }
        let doubled = stream.read(&gradients.part(..4)?)?;
        assert_eq!((mean, doubled), (vec![0.5; 4], vec![512.0; 4]));
        let call = gpus.last_call().map(|call| format!("{} by {}", call.collective, call.algorithm));
        gpus.close()?;
        Ok(format!("{device}: {}", call.unwrap_or_default()))
    })?;
    for (rank, line) in lines.iter().enumerate() {
        println!("rank {rank} on {line}");
    }
    Ok(())
}
