// SPDX-License-Identifier: MPL-2.0
//! The speeds that one GPU must reach, each against a ceiling that is measured in the same run: a table in Markdown.
//!
//! Ranks are threads that share the device. Calls are captured, several in a graph; a device barrier comes before each
//! replay, and all ranks have enqueued theirs before any goes on: so what is timed, by events, is calls, and neither
//! who comes late nor what it takes a host to enqueue. A time is the median over replays of the slowest rank's. Of the
//! shortest calls it is told, from the calls' records, how much of it is waiting, other work, and launching.
//! `benches/gpu.sh` runs this with all else that is asked of a card; `--test` is a quick pass over everything, with
//! lengths that say nothing of any speed.
#![allow(unsafe_code)] // the fold is launched

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use annulus::driver::{Device, DeviceBuffer, Shape, Stream, Use};
use annulus::kernel::{self, Kernel};
use annulus::schedule::Collective;
use annulus::{Communicator, DataType, DeviceCommunicator, Element, ReduceOp, Result, bf16, run};

/// How much is measured.
struct Scale {
    /// Bytes that no cache holds.
    large: usize,
    /// Worlds in which bandwidth is measured, and worlds in which latency is.
    wide: &'static [usize],
    deep: &'static [usize],
    /// Calls in a graph of short ones, and how often a graph is replayed.
    calls: usize,
    replays: usize,
    /// How long the card works before its ceiling is measured.
    warming: Duration,
}

const SECOND: Duration = Duration::from_secs(1);
const FULL: Scale =
    Scale { large: 256 << 20, wide: &[2, 4], deep: &[2, 4, 8], calls: 100, replays: 15, warming: SECOND };
const QUICK: Scale =
    Scale { large: 256 << 10, wide: &[2], deep: &[2, 8], calls: 3, replays: 2, warming: Duration::ZERO };

/// The longest message of the latency rows, and the lengths.
const SHORT: [usize; 4] = [8, 64, 1 << 10, 4 << 10];

/// All-reduces that fold in the order of the ranks, among which `auto` chooses.
const RANK_ORDER: [&str; 3] = ["low_latency", "one_shot", "two_shot"];

fn main() {
    let quick = std::env::args().any(|argument| argument == "--test");
    let scale = if quick { QUICK } else { FULL };
    let device = match Device::auto(0) {
        Ok(device) => device,
        Err(why) => {
            println!("nothing is measured: {why}");
            // A quick pass is made on any machine.
            std::process::exit(if quick { 0 } else { 2 });
        }
    };
    let has = device.capabilities();
    println!("{}, {}, {} multiprocessors\n", device, has.name, has.multiprocessors);
    println!("| what | measured | must reach | does it |\n|---|---|---|---|");
    if !everything(&device, &scale) {
        std::process::exit(1);
    }
}

/// Whether nothing failed; what does leaves the others theirs.
fn everything(device: &Device, scale: &Scale) -> bool {
    let mut is_well = true;
    let mut note = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            println!("| the rest of {what} | {error} | | NO |");
            is_well = false;
        }
    };
    let mut copying = f64::NAN;
    note("copies", ceiling(device, scale).map(|found| copying = found));
    note("folds", folds(device, scale, copying));
    for &n in scale.wide {
        note("bandwidths", bandwidths(device, scale, n, copying));
    }
    for &n in scale.deep {
        note("latencies", latencies(device, scale, n));
    }
    for &n in scale.wide {
        note("choices", choices(device, scale, n));
    }
    // The ceiling of all that is above, once more: whether the card was as fast throughout.
    note("copies", ceiling(device, scale).map(drop));
    is_well
}

/// One row; `well` where something must be reached.
fn row(what: &str, measured: &str, must: &str, well: Option<bool>) {
    println!("| {what} | {measured} | {must} | {} |", well.map_or("", |well| if well { "yes" } else { "NO" }));
}

/// Gigabytes a second, read and written, of what moves so many bytes each time.
fn rate(stream: &Stream, scale: &Scale, moved: usize, step: &dyn Fn() -> Result<()>) -> Result<f64> {
    step()?;
    let mut times = Vec::new();
    for _ in 0..scale.replays {
        times.push(between(stream, || (0..4).try_for_each(|_| step()))?.as_nanos() as f64);
    }
    Ok((4 * moved) as f64 / median(times))
}

/// Copies within the device, once a second of them has brought its clocks up: the fastest of three times.
fn ceiling(device: &Device, scale: &Scale) -> Result<f64> {
    let (bytes, stream) = (scale.large, device.stream()?);
    let (from, to) = (device.allocate::<u8>(bytes)?, device.allocate::<u8>(bytes)?);
    scramble(&from, 0, &stream)?;
    let begun = Instant::now();
    while begun.elapsed() < scale.warming {
        (0..16).try_for_each(|_| stream.copy(&from, &to))?;
        stream.synchronize()?;
    }
    let rates = (0..3).map(|_| rate(&stream, scale, 2 * bytes, &|| stream.copy(&from, &to)));
    let rates = rates.collect::<Result<Vec<f64>>>()?;
    let copying = rates.iter().copied().fold(0.0, f64::max);
    let each: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
    let measured = format!("{}, the most of {}", speed(copying), each.join(", "));
    row(&format!("copy of {} within the device", size(bytes)), &measured, "", None);
    Ok(copying)
}

/// Folds, against copies.
fn folds(device: &Device, scale: &Scale, copying: f64) -> Result<()> {
    let (bytes, stream) = (scale.large, device.stream()?);
    let buffers = (0..9).map(|_| device.allocate::<u8>(bytes)).collect::<Result<Vec<_>>>()?;
    let (to, from) = buffers.split_last().ok_or_else(|| annulus::Error::invalid("no buffers"))?;
    from.iter().enumerate().try_for_each(|(place, buffer)| scramble(buffer, place, &stream))?;
    for data_type in [DataType::F32, DataType::Bf16] {
        let name = Kernel::Fold(data_type);
        let loaded = device.kernel(&name.to_string())?;
        let shape = kernel::Shape::of(name, bytes as u64, loaded.resident_blocks(256, 0)?);
        for sources in [2, 8] {
            let addresses: Vec<u64> = from[..sources].iter().map(DeviceBuffer::address).collect();
            let elements = bytes / data_type.size();
            let argument = kernel::Fold::new(ReduceOp::Sum, data_type, elements, &addresses, &[to.address()], sources);
            let uses: Vec<Use> = from[..sources].iter().map(Use::reads).chain([Use::writes(to)]).collect();
            let folding = rate(&stream, scale, (sources + 1) * bytes, &|| {
                let shape = Shape::new(shape.blocks, shape.threads);
                // SAFETY: the argument is the kernel's, and its addresses are of buffers of that many elements that are
                // used so.
                unsafe { stream.launch(&loaded, shape, bytemuck::bytes_of(&argument), &uses) }
            })?;
            let what = format!("{name} of {sources} x {}, {} blocks", size(bytes), shape.blocks);
            let part = folding / copying;
            let measured = format!("{}, {part:.2} x the copy", speed(folding));
            row(&what, &measured, "0.9 x the copy", Some(part >= 0.9));
        }
    }
    Ok(())
}

/// Long all-reduces against the bytes that they must move.
fn bandwidths(device: &Device, scale: &Scale, n: usize, copying: f64) -> Result<()> {
    let all = of_ranks(n, device, |rank| {
        let of_f32 = ["two_shot", "ring"].map(|path| rank.all_reduce::<f32>(scale, Some(path), scale.large));
        let [two_shot, ring] = of_f32;
        Ok([two_shot?, ring?, rank.all_reduce::<bf16>(scale, Some("two_shot"), scale.large)?])
    })?;
    let [two_shot, ring, of_bf16] = all;
    let length = scale.large;
    // As the kernels' files count them, of all ranks.
    for (path, time, moved) in [("two_shot", two_shot, 2 * n * length), ("ring", ring, (6 * n - 4) * length)] {
        let (bound, part) = (moved as f64 / copying, moved as f64 / copying / time);
        let what = format!("all_reduce by {path}, f32, {n} ranks, {}", size(length));
        let measured = format!("{}; bound {}; {part:.2} x the bound", period(time), period(bound));
        row(&what, &measured, "0.8 x the bound", Some(part >= 0.8));
    }
    let ratio = of_bf16 / two_shot;
    let what = format!("bf16 against f32, two_shot, {n} ranks, {}", size(length));
    row(&what, &format!("{ratio:.2} x the time"), "within 10 %", Some((0.9..=1.1).contains(&ratio)));
    Ok(())
}

/// Short all-reduces.
fn latencies(device: &Device, scale: &Scale, n: usize) -> Result<()> {
    let most = [(2, 5e3), (4, 7e3), (8, 9e3)].into_iter().find(|(ranks, _)| *ranks == n).map(|(_, most)| most);
    for path in ["one_shot", "low_latency"] {
        let times = of_ranks(n, device, |rank| {
            let mut times = [0.0; 2 * SHORT.len() + 3];
            for (place, bytes) in SHORT.into_iter().enumerate() {
                times[2 * place] = rank.all_reduce::<f32>(scale, Some(path), bytes)?;
                if place == 0 {
                    times[2 * SHORT.len()..][..2].copy_from_slice(&rank.waited_and_moved());
                    let few = Scale { calls: scale.calls.div_ceil(5), ..*scale };
                    let (calls, less) = (scale.calls as f64, few.calls as f64);
                    let of_few = rank.all_reduce::<f32>(&few, Some(path), bytes)?;
                    times[2 * SHORT.len() + 2] = (times[0] * calls - of_few * less) / (calls - less);
                }
                times[2 * place + 1] = rank.all_reduce::<bf16>(scale, Some(path), bytes)?;
            }
            Ok(times)
        })?;
        let (times, parts) = times.split_at(2 * SHORT.len());
        let longest = times.iter().copied().fold(0.0, f64::max);
        let each: Vec<String> =
            times.chunks(2).zip(SHORT).map(|(times, bytes)| format!("{} {}", size(bytes), period(times[0]))).collect();
        let must = most.map_or(String::new(), |most| format!("at most {}", period(most)));
        let what = format!("all_reduce by {path}, {n} ranks, a graph of {} calls", scale.calls);
        row(&what, &each.join(", "), &must, most.map(|most| longest <= most));
        let [waited, moved, another] = [parts[0], parts[1], parts[2]];
        let measured = format!(
            "in the kernel {}, of which waiting {}; from one to the next {}; each call more in a graph {}",
            period(waited + moved),
            period(waited),
            period(times[0] - waited - moved),
            period(another)
        );
        row(&format!("of {} by {path}, {n} ranks, on rank 0", size(SHORT[0])), &measured, "", None);
        let ratio = times.chunks(2).map(|times| times[1] / times[0]).fold(0.0, f64::max);
        row(
            &format!("bf16 against f32, {path}, {n} ranks"),
            &format!("{ratio:.2} x the time at the most"),
            "within 10 %",
            Some(ratio <= 1.1),
        );
    }
    Ok(())
}

/// What `auto` takes, against the best that it could have taken.
fn choices(device: &Device, scale: &Scale, n: usize) -> Result<()> {
    let mut bytes = 8;
    while bytes <= scale.large / 4 {
        let times = of_ranks(n, device, |rank| {
            let mut times = [f64::INFINITY; 1 + RANK_ORDER.len()];
            // Twice, and the better time of each: whoever comes first has a card that may have been idle.
            for place in (0..times.len()).cycle().take(2 * times.len()) {
                let path = place.checked_sub(1).map(|place| RANK_ORDER[place]);
                let fits = path != Some("low_latency") || bytes <= DeviceCommunicator::LOW_LATENCY;
                // One-shot reads everything on every rank: of long messages there is no need to know how slow that is.
                if fits && (path != Some("one_shot") || bytes <= 16 << 20) {
                    times[place] = times[place].min(rank.all_reduce::<f32>(scale, path, bytes)?);
                }
            }
            Ok(times)
        })?;
        let (best, path) = times[1..]
            .iter()
            .zip(RANK_ORDER)
            .min_by(|a, b| a.0.total_cmp(b.0))
            .map_or((0.0, ""), |(time, path)| (*time, path));
        let measured = format!("{}; {path} {}", period(times[0]), period(best));
        row(&format!("auto, {n} ranks, {}", size(bytes)), &measured, "1.1 x the best", Some(times[0] <= 1.1 * best));
        bytes *= 4;
    }
    Ok(())
}

/// A rank on the device.
struct Rank<'a> {
    comm: &'a Communicator,
    gpus: DeviceCommunicator,
    stream: Stream,
}

/// What all ranks have measured alike.
fn of_ranks<const N: usize>(
    n: usize,
    device: &Device,
    measure: impl Fn(&Rank) -> Result<[f64; N]> + Sync,
) -> Result<[f64; N]> {
    let all = run(n, |comm| {
        let rank = Rank { gpus: comm.on(device)?, stream: device.stream()?, comm: &comm };
        let measured = measure(&rank);
        rank.stream.synchronize()?;
        comm.barrier()?;
        measured
    });
    Ok(all.map_err(annulus::Error::from)?[0])
}

impl Rank<'_> {
    /// Nanoseconds of a call on memory that peers address.
    fn all_reduce<T: Element>(&self, scale: &Scale, path: Option<&str>, bytes: usize) -> Result<f64> {
        let Rank { comm, gpus, stream } = self;
        let elements = (bytes / size_of::<T>()).max(1);
        let (from, to) = (gpus.allocate::<T>(elements)?, gpus.allocate::<T>(elements)?);
        scramble(&from.as_bytes(), comm.rank(), stream)?;
        gpus.set_algorithm(path)?;
        let calls = (scale.calls * (1 << 20) / bytes.max(1 << 20)).max(2);
        let graph =
            stream.capture(|stream| (0..calls).try_for_each(|_| gpus.all_reduce(&from, &to, ReduceOp::Sum, stream)))?;
        // To make a graph, a driver may wait for what runs, so nobody goes on before all have theirs.
        comm.barrier()?;
        let mut times = Vec::new();
        for _ in 0..=scale.replays {
            // One rank's stream waits until all have enqueued; at the device's barrier, the others wait for that rank.
            let gate = (comm.rank() == 0).then(|| gate(stream)).transpose()?;
            gpus.barrier(stream)?;
            let (first, last) = (gpus.device().event()?, gpus.device().event()?);
            stream.record(&first)?;
            graph.launch(stream)?;
            comm.barrier()?;
            drop(gate);
            // While the graph runs, since who has enqueued a graph may have to wait before it can enqueue more.
            stream.record(&last)?;
            stream.synchronize()?;
            let mut longest = [last.since(&first)?.as_nanos() as f64 / calls as f64];
            comm.all_reduce_in_place(&mut longest, ReduceOp::Max)?;
            times.push(longest[0]);
        }
        gpus.set_algorithm(None)?;
        drop(graph);
        gpus.deregister(&from)?;
        gpus.deregister(&to)?;
        Ok(median(times.split_off(1)))
    }
}

impl Rank<'_> {
    /// Nanoseconds that the last all-reduces waited for ranks and took otherwise: means, since a device's clock may tick
    /// slower than a call takes.
    fn waited_and_moved(&self) -> [f64; 2] {
        let calls = self.gpus.calls();
        let calls = calls.iter().filter(|call| call.collective == Collective::AllReduce);
        let parts = calls.map(|call| [call.wait, call.transfer].map(|part| part.as_nanos() as f64));
        let (number, sums) = parts
            .fold((0.0, [0.0; 2]), |(number, sums), parts| (number + 1.0, [sums[0] + parts[0], sums[1] + parts[1]]));
        sums.map(|sum| sum / number)
    }
}

/// Has the stream wait until what is returned is dropped.
fn gate(stream: &Stream) -> Result<Sender<()>> {
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    // Nothing is sent: it ends when there is nobody to send.
    stream.call(move || drop(gate.lock().map(|gate| gate.recv())))?;
    Ok(open)
}

/// What the stream takes from one event to another.
fn between(stream: &Stream, enqueue: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let (first, last) = (stream.device().event()?, stream.device().event()?);
    stream.record(&first)?;
    enqueue()?;
    stream.record(&last)?;
    stream.synchronize()?;
    last.since(&first)
}

/// Bytes of no pattern, which as numbers of any type are small.
fn scramble(buffer: &DeviceBuffer<u8>, seed: usize, stream: &Stream) -> Result<()> {
    const PIECE: usize = 8 << 20;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed as u64 + 1) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // No exponent of f32 or bf16 has its highest bit.
        (state & 0x3f7f_3f7f_3f7f_3f7f).to_le_bytes()
    };
    let bytes: Vec<u8> = (0..PIECE.min(buffer.len()).div_ceil(8)).flat_map(|_| next()).collect();
    for begin in (0..buffer.len()).step_by(PIECE) {
        let part = buffer.part(begin..buffer.len().min(begin + PIECE))?;
        stream.write(&part, &bytes[..part.len()])?;
    }
    stream.synchronize()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn speed(gigabytes: f64) -> String {
    format!("{gigabytes:.0} GB/s read and written")
}

fn period(nanoseconds: f64) -> String {
    if nanoseconds < 1e6 { format!("{:.2} us", nanoseconds / 1e3) } else { format!("{:.2} ms", nanoseconds / 1e6) }
}

fn size(bytes: usize) -> String {
    match bytes {
        0..0x400 => format!("{bytes} B"),
        0x400..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
