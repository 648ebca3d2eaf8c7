// SPDX-License-Identifier: MPL-2.0
//! One rank as a process; start several with a launcher:
//! `cargo build --release --example processes && cargo run --release -- launch -n 4 -- target/release/examples/processes`
//!
//! Without one it is a world of its own.

use annulus::{Communicator, ReduceOp, Result, run};

fn main() -> Result<()> {
    if std::env::var_os("RANK").is_none() {
        println!("RANK is not set: a world of one; see the first lines of this file");
        return Ok(run(1, |comm| rank_main(&comm)).map(drop)?);
    }
    rank_main(&Communicator::from_env()?)
}

fn rank_main(comm: &Communicator) -> Result<()> {
    // Memory that peers map: collectives on it copy nothing but what they must.
    let mut shared = comm.allocate::<f32>(1 << 20)?;
    shared.fill(comm.rank() as f32);
    comm.all_reduce_in_place(&mut shared, ReduceOp::Sum)?;
    println!("rank {} of {}: the sum of all ranks is {}", comm.rank(), comm.world_size(), shared[0]);
    Ok(())
}
