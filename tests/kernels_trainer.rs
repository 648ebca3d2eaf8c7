// SPDX-License-Identifier: MPL-2.0
//! The trainer's kernels on the simulated device, and on CUDA over the stand-in for its driver: each against its
//! documented arithmetic at tolerance 0, and against an f64 reference within a bound that is derived where it is used;
//! for every type, for shapes and alignments that hurt, with the same bits for every launch shape. Where the CPU
//! trainer has the same formula in the same order, the bits are its bits.

#![cfg(all(feature = "sim", target_os = "linux", feature = "train"))]
#![allow(unsafe_code)] // kernels are launched

#[path = "kernels_trainer/activate.rs"]
mod activate;
#[path = "kernels_trainer/column_sum.rs"]
mod column_sum;
mod compiler;
#[path = "kernels_trainer/cross_entropy.rs"]
mod cross_entropy;
#[path = "kernels_trainer/layout.rs"]
mod layout;
#[path = "kernels_trainer/loss_scale.rs"]
mod loss_scale;
#[path = "kernels_trainer/pick.rs"]
mod pick;
#[path = "kernels_trainer/product.rs"]
mod product;
mod simulated;
#[path = "standin/mod.rs"]
mod standin;
#[path = "kernels_trainer/updates.rs"]
mod updates;

use annulus::driver::{Device, DeviceBuffer, Shape, Stream, Use};
use annulus::kernel::Kernel;
use annulus::{Element, bf16, f16};

/// A type that the trainer computes with.
trait Float: Element {
    /// The most by which rounding to it changes a number of ordinary size, as a part of that number.
    const UNIT: f64;
    /// The most by which rounding to it changes a number below those: half the distance of its smallest numbers.
    const LEAST: f64;

    fn rounded(value: f32) -> Self;
    fn wide(self) -> f32;
}

impl Float for f32 {
    const UNIT: f64 = 1.0 / (1_u64 << 24) as f64;
    const LEAST: f64 = 7.006492321624085e-46; // 2^-150

    fn rounded(value: f32) -> Self {
        if value.is_nan() { f32::from_bits(0x7fc0_0000) } else { value }
    }

    fn wide(self) -> f32 {
        self
    }
}

impl Float for f16 {
    const UNIT: f64 = 1.0 / (1 << 11) as f64;
    const LEAST: f64 = 1.0 / (1 << 25) as f64;

    fn rounded(value: f32) -> Self {
        if value.is_nan() { f16::from_bits(0x7e00) } else { f16::from_f32_const(value) }
    }

    fn wide(self) -> f32 {
        self.to_f32_const()
    }
}

impl Float for bf16 {
    const UNIT: f64 = 1.0 / (1 << 8) as f64;
    const LEAST: f64 = 4.591774807899561e-41; // 2^-134

    fn rounded(value: f32) -> Self {
        if value.is_nan() { bf16::from_bits(0x7fc0) } else { bf16::from_f32_const(value) }
    }

    fn wide(self) -> f32 {
        self.to_f32_const()
    }
}

/// The greatest distance of a number of type T from what it was rounded from, or from what that should have been.
fn error_of<T: Float>(exact: f64, before: f64) -> f64 {
    before + T::UNIT * (exact.abs() + before) + T::LEAST
}

/// Draws numbers by a seed.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        // Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Between -1 and 1.
    fn float<T: Float>(&mut self) -> T {
        T::rounded((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0)
    }

    fn floats<T: Float>(&mut self, count: usize) -> Vec<T> {
        (0..count).map(|_| self.float()).collect()
    }
}

/// Bits, so that zeros have signs and NaN equals itself.
fn bits<T: Float>(values: &[T]) -> Vec<u32> {
    values.iter().map(|value| value.wide().to_bits()).collect()
}

/// Device 0 and a stream of it.
#[cfg(feature = "cuda")]
#[test]
fn all_of_it_on_cuda_over_the_stand_in() {
    simulated::on_the_stand_in("cuda", &[]);
}

#[cfg(feature = "hip")]
#[test]
fn all_of_it_on_hip_over_the_stand_in() {
    simulated::on_the_stand_in("hip", &[]);
}

struct Sim {
    device: Device,
    stream: Stream,
}

impl Sim {
    /// None where the library was built without simulated devices.
    fn new() -> Option<Sim> {
        if simulated::absent() {
            return None;
        }
        let device = simulated::open(0).unwrap();
        Some(Sim { stream: device.stream().unwrap(), device })
    }

    /// A buffer with these values, `offset` elements from where lines of 16 bytes begin.
    fn upload<T: Element>(&self, values: &[T], offset: usize) -> DeviceBuffer<T> {
        let buffer = self.device.allocate(values.len() + offset).unwrap().part(offset..).unwrap();
        self.stream.write(&buffer, values).unwrap();
        buffer
    }

    fn read<T: Element>(&self, buffer: &DeviceBuffer<T>) -> Vec<T> {
        self.stream.read(buffer).unwrap()
    }

    fn run<A: bytemuck::Pod>(&self, kernel: Kernel, (blocks, threads): (u32, u32), arguments: &A, uses: &[Use]) {
        let kernel = self.device.kernel(&kernel.to_string()).unwrap();
        // SAFETY: callers give the kernel's own arguments, whose addresses are of the buffers in `uses`, which are as
        // long as the arguments say, and are used so.
        unsafe { self.stream.launch(&kernel, Shape::new(blocks, threads), bytemuck::bytes_of(arguments), uses) }
            .unwrap();
    }
}

/// Launch shapes: one thread, less than a block's work, what is usual, and more than there is to do.
const SHAPES: [(u32, u32); 4] = [(1, 1), (3, 24), (1, 64), (5, 256)];

/// What the library itself would choose, where so many blocks have room.
fn chosen(shape: annulus::kernel::Shape) -> (u32, u32) {
    (shape.blocks, shape.threads)
}
