// SPDX-License-Identifier: MPL-2.0
//! Four ranks as threads of this process. `cargo run --release --example threads`

use annulus::{RankFailure, ReduceOp, run};

fn main() -> Result<(), RankFailure> {
    let means = run(4, |comm| {
        let mut gradients = vec![comm.rank() as f32; 1 << 20];
        comm.all_reduce_in_place(&mut gradients, ReduceOp::Avg)?;
        Ok(gradients[0])
    })?;
    println!("the mean of ranks 0 to 3, as each rank has it: {means:?}");
    Ok(())
}
