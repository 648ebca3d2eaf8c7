// SPDX-License-Identifier: MPL-2.0
//! A kernel of one's own, tried on strict simulated devices: once as it should be, and with three mistakes in it.
//! `cargo run --example strict`

use annulus::driver::{Device, Shape, Use, strict};

/// The argument of the kernel, as `examples/strict/sum.cu` has it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Sum {
    from: u64,
    to: u64,
    count: u64,
    faulty: u32,
    unused: u32,
}

const COUNT: usize = 1000;
const BLOCKS: u32 = 3;

/// The sums of the blocks, by their bits.
fn sums(device: &Device, faulty: u32) -> annulus::Result<Vec<u32>> {
    let stream = device.stream()?;
    let (from, to) = (device.allocate::<f32>(COUNT)?, device.allocate::<f32>(BLOCKS as usize)?);
    let numbers: Vec<f32> = (0..COUNT).map(|number| 1.0 / (1 + number) as f32).collect();
    stream.write(&from, &numbers)?;
    let argument = Sum { from: from.address(), to: to.address(), count: COUNT as u64, faulty, unused: 0 };
    let (kernel, uses) = (device.kernel("example_sum")?, [Use::reads(&from), Use::writes(&to)]);
    // SAFETY: the argument is the kernel's, and its addresses are of the buffers that are named, which are as long as it
    // says. Where it is faulty, the device notices before the kernel does what it must not do.
    unsafe { stream.launch(&kernel, Shape::new(BLOCKS, 128), bytemuck::bytes_of(&argument), &uses) }?;
    Ok(stream.read(&to)?.into_iter().map(f32::to_bits).collect())
}

fn main() -> annulus::Result<()> {
    strict::add_kernels(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/strict/sum.cu"))?;
    let sums_of_blocks = strict::agree(0..20, |device| sums(device, 0))?;
    println!("20 schedules agree: {:?}", sums_of_blocks.iter().map(|bits| f32::from_bits(*bits)).collect::<Vec<_>>());
    for (mistake, faulty) in [("without its barrier", 1), ("one number too many", 2), ("warps of 64 threads", 3)] {
        match strict::agree(0..20, |device| sums(device, faulty)) {
            Ok(_) => println!("{mistake}: not noticed"),
            Err(fault) => println!("{mistake}: {fault}"),
        }
    }
    Ok(())
}
