// SPDX-License-Identifier: MPL-2.0
//! Calls that proceed while this rank computes, and what each rank waited for. `cargo run --release --example overlap`

use std::time::Duration;

use annulus::{RankFailure, ReduceOp, run};

fn main() -> Result<(), RankFailure> {
    let lines = run(2, |comm| {
        // Rank 1 is late. That is rank 0's waiting, and nobody's moving of data.
        std::thread::sleep(Duration::from_millis(20 * comm.rank() as u64));
        let (first, second) = (vec![1.0_f32; 1 << 20], vec![2.0_f64; 1 << 10]);
        let first = comm.start_all_reduce_in_place(first, ReduceOp::Sum)?;
        let second = comm.start_all_reduce_in_place(second, ReduceOp::Max)?;
        let call = first.call();
        let computed: u64 = (0..10_000_000).sum();
        // In any order; the buffers come back.
        let (second, first) = (second.wait()?, first.wait()?);
        assert_eq!((first[0], second[0], computed), (2.0, 2.0, 49_999_995_000_000));
        let record = comm.record(call).map(|record| (record.wait, record.transfer));
        Ok(record.map_or(String::new(), |(wait, transfer)| format!("waited {wait:?}, moved data for {transfer:?}")))
    })?;
    for (rank, line) in lines.iter().enumerate() {
        println!("rank {rank} {line}");
    }
    Ok(())
}
