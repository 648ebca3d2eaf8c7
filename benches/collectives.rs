// SPDX-License-Identifier: MPL-2.0
//! Collectives, and messages, among two ranks as threads: the slowest rank's time, and bytes of the whole buffer a second.
//!
//! `annulus bench` measures more, and as others do; this is for seeing what a change did, and an example of
//! `annulus::bench::Harness`.

use std::time::Duration;

use annulus::bench::Harness;
use annulus::{Communicator, ReduceOp, Result};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};

const RANKS: usize = 2;

/// A rank's buffers, both of the size that is measured.
struct Buffers {
    input: Vec<f32>,
    output: Vec<f32>,
}

/// Times `each` at three sizes: one that rides in the entry, one that stays in cache, one that does not.
fn sizes(c: &mut Criterion, name: &str, each: fn(&Communicator, &mut Buffers) -> Result<()>) {
    let mut group = c.benchmark_group(name);
    for (bytes, label) in [(8, "8 B"), (64 << 10, "64 KiB"), (4 << 20, "4 MiB")] {
        let len = bytes / size_of::<f32>();
        let buffers = move |comm: &Communicator| {
            Ok(Buffers { input: vec![1.0 + comm.rank() as f32; len], output: vec![0.0; len] })
        };
        group.throughput(Throughput::Bytes(bytes as u64));
        measure(&mut group, label, Harness::new(RANKS, buffers).expect("two threads"), each);
    }
}

fn measure<S: 'static>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    label: &str,
    mut ranks: Harness<S>,
    each: fn(&Communicator, &mut S) -> Result<()>,
) {
    group.bench_function(label, |b| {
        b.iter_custom(|iterations| ranks.time(iterations, each).expect("ranks that make the same calls"));
    });
}

fn collectives(c: &mut Criterion) {
    sizes(c, "all_reduce", |comm, Buffers { input, output }| comm.all_reduce(input, output, ReduceOp::Sum));
    // The maximum, which stays what it is however often it is taken.
    sizes(c, "all_reduce_in_place", |comm, buffers| comm.all_reduce_in_place(&mut buffers.output, ReduceOp::Max));
    sizes(c, "reduce_scatter", |comm, Buffers { input, output }| {
        let part = output.len() / RANKS;
        comm.reduce_scatter(input, &mut output[..part], ReduceOp::Sum)
    });
    sizes(c, "all_gather", |comm, Buffers { input, output }| comm.all_gather(&input[..output.len() / RANKS], output));
    sizes(c, "broadcast", |comm, buffers| comm.broadcast_in_place(&mut buffers.output, 0));
    // Both ways at once.
    sizes(c, "send_recv", |comm, Buffers { input, output }| {
        let other = RANKS - 1 - comm.rank();
        comm.send_recv(input, other, output, other)
    });
    let mut group = c.benchmark_group("barrier");
    measure(&mut group, "barrier", Harness::new(RANKS, |_| Ok(())).expect("two threads"), |comm, ()| comm.barrier());
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = collectives
}
criterion_main!(benches);
