// SPDX-License-Identifier: MPL-2.0
//! The kernels of collectives, of every type: what ranks get on strict devices is what they get on others.

use annulus::driver::{Device, DeviceBuffer, Stream};
use annulus::reference::inputs;
use annulus::{Communicator, DeviceCommunicator, Element, ReduceOp, bf16, f16, run};

use super::{SEEDS, simulated};

/// Elements of a message: whole lines and a part of one, for every rank.
const LENGTH: usize = 37;

/// All kernels of all-reduce, and the schedules whose folds are of elements and of partials.
const PATHS: [&str; 6] = ["low_latency", "one_shot", "two_shot", "ring", "schedule:staged", "schedule:ring"];

/// A rank, and what its calls have given.
struct Rank<'a> {
    gpus: &'a DeviceCommunicator,
    stream: &'a Stream,
    got: Vec<u8>,
}

impl Rank<'_> {
    fn keep<T: Element>(&mut self, buffer: &DeviceBuffer<T>) -> annulus::Result<()> {
        self.got.extend_from_slice(bytemuck::cast_slice(&self.stream.read(buffer)?));
        Ok(())
    }
}

/// Every call of one type.
fn calls<T: Element>(rank: &mut Rank<'_>) -> annulus::Result<()> {
    let (gpus, stream, n) = (rank.gpus, rank.stream, rank.gpus.world_size());
    let device = gpus.device();
    let given = inputs::special::<T>(3, 5, &vec![n * LENGTH; n]).swap_remove(gpus.rank());
    let from = device.allocate::<T>(n * LENGTH)?;
    stream.write(&from, &given)?;
    let one = from.part(1..LENGTH)?;
    for path in PATHS {
        gpus.set_algorithm(Some(path))?;
        let to = device.allocate::<T>(LENGTH - 1)?;
        gpus.all_reduce(&one, &to, ReduceOp::Avg, stream)?;
        rank.keep(&to)?;
    }
    gpus.set_algorithm(None)?;
    let (slice, whole) = (device.allocate::<T>(LENGTH)?, device.allocate::<T>(n * LENGTH)?);
    gpus.reduce_scatter(&from, &slice, ReduceOp::Sum, stream)?;
    rank.keep(&slice)?;
    gpus.all_gather(&slice, &whole, stream)?;
    rank.keep(&whole)?;
    let is_root = gpus.rank() == 1;
    gpus.broadcast(is_root.then_some(&from), &whole, 1, stream)?;
    rank.keep(&whole)?;
    gpus.reduce(&from, is_root.then_some(&whole), ReduceOp::Max, 1, stream)?;
    rank.keep(&whole)?;
    gpus.scatter(is_root.then_some(&from), &slice, 1, stream)?;
    rank.keep(&slice)?;
    gpus.gather(&slice, is_root.then_some(&whole), 1, stream)?;
    rank.keep(&whole)?;
    gpus.all_to_all(&from, &whole, stream)?;
    gpus.all_to_all_in_place(&whole, stream)?;
    rank.keep(&whole)?;
    gpus.barrier(stream)?;
    let (next, before) = ((gpus.rank() + 1) % n, (gpus.rank() + n - 1) % n);
    gpus.send_recv(&one, next, &slice.part(..LENGTH - 1)?, before, stream)?;
    rank.keep(&slice)?;
    // The same the other way round, by copies.
    gpus.set_algorithm(Some("schedule:ring"))?;
    let received = whole.part(..LENGTH - 1)?;
    if gpus.rank() % 2 == 0 {
        gpus.send(&one, before, stream)?;
        gpus.recv(&received, next, stream)?;
    } else {
        gpus.recv(&received, next, stream)?;
        gpus.send(&one, before, stream)?;
    }
    rank.keep(&whole)
}

macro_rules! all_types {
    ($rank:expr; $($type:ty)*) => { $(calls::<$type>($rank)?;)* };
}

/// What a rank gets of all calls, byte by byte.
fn all_calls(comm: &Communicator, device: &Device) -> annulus::Result<Vec<u8>> {
    let (gpus, stream) = (comm.on(device)?, device.stream()?);
    let mut rank = Rank { gpus: &gpus, stream: &stream, got: Vec::new() };
    all_types!(&mut rank; f64 f32 f16 bf16 i8 u8 i16 u16 i32 u32 i64 u64);
    Ok(rank.got)
}

/// Whether ranks get in every schedule what they get on other devices, or a sentence about the first that is otherwise.
pub fn everything_agrees() -> Result<(), String> {
    agree(2, all_calls)
}

/// The same of calls round a ring, of more ranks than it has slots: so many that nobody else keeps a rank from writing to
/// a slot that the next one has not read.
pub fn rings_agree() -> Result<(), String> {
    agree(6, |comm, device| {
        let (gpus, stream) = (comm.on(device)?, device.stream()?);
        gpus.set_algorithm(Some("ring"))?;
        let (given, to) = (inputs::random::<f32>(3, 5, &[LENGTH; 6]), device.allocate::<f32>(LENGTH)?);
        let from = super::upload(device, &given[gpus.rank()])?;
        let mut rank = Rank { gpus: &gpus, stream: &stream, got: Vec::new() };
        for _ in 0..10 {
            gpus.all_reduce(&from, &to, ReduceOp::Sum, &stream)?;
            rank.keep(&to)?;
        }
        Ok(rank.got)
    })
}

/// The same of messages that are longer than their slots: each way, of two blocks, the second of which is a message's
/// alone; and one by copies.
pub fn messages_agree() -> Result<(), String> {
    const BYTES: usize = 40_000;
    // More pieces than there are slots of 256 KiB.
    const LONG: usize = (5 << 18) + 7;
    agree(2, |comm, device| {
        let (gpus, stream) = (comm.on(device)?, device.stream()?);
        let given = inputs::random::<u8>(3, 5, &[2 * BYTES; 2]);
        let (from, to) = (super::upload(device, &given[gpus.rank()])?, device.allocate::<u8>(2 * BYTES)?);
        let peer = 1 - gpus.rank();
        gpus.batch(&stream, |batch| {
            for part in [0..BYTES, BYTES..BYTES + 100] {
                batch.send(&from.part(part.clone()).expect("it is as long"), peer);
                batch.recv(&to.part(part).expect("it is as long"), peer);
            }
        })?;
        let mut rank = Rank { gpus: &gpus, stream: &stream, got: Vec::new() };
        rank.keep(&to)?;
        gpus.set_algorithm(Some("schedule:ring"))?;
        let long = super::upload(device, &inputs::random::<u8>(5, 3, &[LONG; 2])[gpus.rank()])?;
        match gpus.rank() {
            0 => gpus.send(&long, 1, &stream)?,
            _ => gpus.recv(&long, 0, &stream)?,
        }
        rank.keep(&long)?;
        Ok(rank.got)
    })
}

fn agree(n: usize, calls: impl Fn(&Communicator, &Device) -> annulus::Result<Vec<u8>> + Sync) -> Result<(), String> {
    let quick = run(n, |comm| calls(&comm, &Device::simulated(0)?)).map_err(|failure| failure.to_string())?;
    for seed in SEEDS {
        let strict = run(n, |comm| calls(&comm, &Device::simulated_strict(0, seed)?));
        if strict.map_err(|failure| failure.to_string())? != quick {
            return Err(format!("the results of seed {seed} are not those of other simulated devices"));
        }
    }
    Ok(())
}

#[test]
fn collectives_give_the_same_bits_in_every_schedule() {
    if !simulated::absent() {
        everything_agrees().unwrap();
        rings_agree().unwrap();
        messages_agree().unwrap();
    }
}
