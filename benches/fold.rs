// SPDX-License-Identifier: MPL-2.0
//! The CPU fold: bytes a second, of all sources together, for the types that training sends and some that it does not.
//!
//! `latency` is one call on eight bytes, as the executor makes it. `simulated device` is the kernel that folds device memory,
//! executed on the host in its usual launch shape, beside memcpy on one thread: of both, bytes read and written.
#![allow(unsafe_code)]

use std::hint::black_box;

use annulus::driver::{Device, DeviceBuffer, Shape, Use};
use annulus::kernel::{self, Kernel};
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

fn simulated(c: &mut Criterion) {
    const BYTES: usize = 64 << 20;
    let Ok(device) = Device::simulated(0) else { return };
    let stream = device.stream().expect("a stream");
    let mut group = c.benchmark_group("simulated device");
    let buffers: Vec<_> = (0..9).map(|_| device.allocate::<u8>(BYTES).expect("memory")).collect();
    let (to, from) = buffers.split_last().expect("nine buffers");
    for buffer in &buffers {
        stream.write(buffer, &vec![0x3c; BYTES]).expect("a write");
    }
    let (source, mut destination) = (vec![0x3c_u8; BYTES], vec![0_u8; BYTES]);
    group.throughput(Throughput::Bytes(2 * BYTES as u64));
    group.bench_function("memcpy", |b| b.iter(|| black_box(&mut destination).copy_from_slice(black_box(&source))));
    for data_type in [DataType::F32, DataType::Bf16, DataType::F16] {
        let name = Kernel::Fold(data_type);
        let kernel = device.kernel(&name.to_string()).expect("the kernel");
        let room = kernel.resident_blocks(256, 0).expect("its room");
        let shape = kernel::Shape::of(name, BYTES as u64, room);
        for sources in [2, 8] {
            let addresses: Vec<u64> = from[..sources].iter().map(DeviceBuffer::address).collect();
            let elements = BYTES / data_type.size();
            let argument = kernel::Fold::new(ReduceOp::Sum, data_type, elements, &addresses, &[to.address()], sources);
            let uses: Vec<_> = from[..sources].iter().map(Use::reads).chain([Use::writes(to)]).collect();
            group.throughput(Throughput::Bytes(((sources + 1) * BYTES) as u64));
            group.bench_function(format!("{name} of {sources} sources, {} blocks", shape.blocks), |b| {
                b.iter(|| {
                    let shape = Shape::new(shape.blocks, shape.threads);
                    // SAFETY: the argument is the kernel's, and its addresses are of buffers of that many elements that
                    // are used so.
                    unsafe { stream.launch(&kernel, shape, bytemuck::bytes_of(&argument), &uses) }.expect("a launch");
                    stream.synchronize().expect("its end");
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(500));
    targets = types, latency, simulated
}
criterion_main!(benches);
