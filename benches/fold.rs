// SPDX-License-Identifier: MPL-2.0
//! The CPU fold: bytes a second, of all sources together, for the types that training sends and some that it does not.
//!
//! `latency` is one call on eight bytes, as the executor makes it.

use std::hint::black_box;

use annulus::reduce::{self, Destination, Fold, Kind, Source, Stores};
use annulus::{DataType, Element, ReduceOp, bf16, f16};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn throughput<T: Element>(c: &mut Criterion, name: &str, op: ReduceOp) {
    let mut group = c.benchmark_group(format!("{op} {name}"));
    for sources in [2, 8] {
        for bytes in [4 << 10, 64 << 10, 1 << 20] {
            let len = bytes / size_of::<T>();
            let inputs = vec![vec![T::zeroed(); len]; sources];
            let inputs: Vec<&[T]> = inputs.iter().map(Vec::as_slice).collect();
            let mut output = vec![T::zeroed(); len];
            group.throughput(Throughput::Bytes((sources * bytes) as u64));
            group.bench_function(format!("{sources} sources of {} KiB", bytes >> 10), |b| {
                b.iter(|| reduce::fold(op, black_box(&inputs), black_box(&mut output)));
            });
        }
    }
}

fn types(c: &mut Criterion) {
    throughput::<f32>(c, "f32", ReduceOp::Sum);
    throughput::<f16>(c, "f16", ReduceOp::Sum);
    throughput::<bf16>(c, "bf16", ReduceOp::Sum);
    throughput::<i8>(c, "i8", ReduceOp::Sum);
    throughput::<f64>(c, "f64", ReduceOp::Sum);
    throughput::<f32>(c, "f32", ReduceOp::Avg);
    throughput::<f32>(c, "f32", ReduceOp::Min);
}

fn latency(c: &mut Criterion) {
    let (a, b, mut sum) = ([1.0f32, 2.0], [3.0f32, 4.0], [0.0f32; 2]);
    let from = [a.as_ptr(), b.as_ptr()].map(|data| Source { data: data.cast(), kind: Kind::Element });
    let to = [Destination { data: sum.as_mut_ptr().cast(), kind: Kind::Element }];
    let fold = Fold::new(DataType::F32, ReduceOp::Sum, 2).expect("sums of floats");
    c.bench_function("latency of 2 x f32", |b| {
        b.iter(|| {
            // SAFETY: all three hold two elements.
            unsafe { fold.run(black_box(&from), &to, 2, Stores::Cached) }
        });
    });
    c.bench_function("latency of choosing", |b| {
        b.iter(|| Fold::new(black_box(DataType::F32), black_box(ReduceOp::Sum), 2));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(500));
    targets = types, latency
}
criterion_main!(benches);
