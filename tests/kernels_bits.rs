// SPDX-License-Identifier: MPL-2.0
//! The bits of every kernel, executed on the host, against `reference` at tolerance 0: every kernel, type and
//! operation, in place and out of place, where buffers lie or staged, worlds of 1 to 8, lengths and alignments that
//! hurt.
//!
//! A second time, the kernels are those of the PTX that is checked in, executed (`ptx`).
//!
//! The calls of a world follow one another on the same arenas, with ever other kernels, grids and lengths.
//! `ANNULUS_TEST=full` takes their product, where only alignments and shapes take turns; otherwise lengths do, too.

#![allow(unsafe_code)]

mod compiler;
#[path = "ptx/mod.rs"]
mod ptx;

use std::ffi::{CString, c_char, c_int};
use std::path::PathBuf;
use std::sync::OnceLock;

use annulus::element::Factor;
use annulus::kernel::{
    Arena, Called, Collective, Convert, Flags, Fold, FoldPartials, Kernel, Mark, Message, Messages, Pad, Place, Relay,
    Report, STATE_BYTES, Said, Sent, Shape, Stamps, WORDS, operation,
};
use annulus::reference::{self, inputs};
use annulus::{DataType, Element, FoldOrder, ReduceOp, bf16, f16};
use bytemuck::Zeroable;

/// The environment variable of a process whose kernels are the PTX.
const FROM_PTX: &str = "ANNULUS_TEST_PTX";
/// Its value where additions are made subtractions.
const BROKEN: &str = "broken";

/// The library that `tests/kernels/library/` makes of the kernels, or the one of `tests/ptx/library/` with all that is
/// checked in; none where there is no C++ compiler.
fn library() -> Option<&'static libloading::Library> {
    static LIBRARY: OnceLock<Option<libloading::Library>> = OnceLock::new();
    LIBRARY
        .get_or_init(|| {
            let from_ptx = std::env::var(FROM_PTX).ok();
            let path = if from_ptx.is_some() { ptx::library() } else { build() }?;
            // SAFETY: the library's initialisers only build its list of kernels. It is never unloaded.
            let library = unsafe { libloading::Library::new(path).expect("the library loads") };
            for path in ptx::checked_in("sm_75").iter().filter(|_| from_ptx.is_some()) {
                let mut text = std::fs::read_to_string(path).unwrap();
                if from_ptx.as_deref() == Some(BROKEN) {
                    text = text.replace("add.rn.f32", "sub.rn.f32");
                }
                ptx::read(&library, &text).unwrap();
            }
            Some(library)
        })
        .as_ref()
}

/// Runs these tests, or all but those that are `skipped`, with the PTX; what they said, as an error where one failed.
fn out_of_the_ptx(tests: &[&str], skipped: &[&str], how: &str) -> Result<(), String> {
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    let again = again.args(tests).args(skipped.iter().flat_map(|test| ["--skip", test]));
    let output = again.args(["--skip", "ptx"]).env(FROM_PTX, how).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn the_ptx_has_the_same_bits() {
    // `driver::cuda::ptx` says how its arguments are laid out. Of the product of collectives, `device_collectives` has a
    // part with the PTX, over the stand-in for the driver.
    let skipped = ["arguments_are_laid_out_alike", "collectives_have_the_bits_of_the_reference"];
    out_of_the_ptx(&[], &skipped[..if full() { 1 } else { 2 }], "as it is").unwrap();
}

#[test]
fn a_mistake_in_the_ptx_is_noticed() {
    if library().is_none() {
        return;
    }
    let said = out_of_the_ptx(&["folds_have_the_bits_of_the_reference"], &[], BROKEN).unwrap_err();
    assert!(said.contains("fold_f32") && said.contains("the reference's is"), "{said}");
}

fn build() -> Option<PathBuf> {
    const FLAGS: [&str; 9] = [
        "-std=c++17",
        "-ffp-contract=off",
        "-fPIC",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unknown-pragmas",
        "-O1",
        "-pthread",
    ];
    let compiler = compiler::compiler()?;
    let all = compiler::files(&["kernels", "kernels/host", "tests/kernels/library"], &["cu", "cpp", "h"]);
    let folder = compiler::once("kernels-library", &FLAGS, &all, |folder| {
        // The largest come first; library.cpp includes what is not listed.
        let units = ["two_shot", "ring", "low_latency", "share", "parts", "barrier"];
        let mut sources: Vec<PathBuf> = units.map(|unit| compiler::root().join(format!("kernels/{unit}.cu"))).to_vec();
        sources.push(compiler::root().join("tests/kernels/library/library.cpp"));
        sources.extend(compiler::files(&["kernels/host"], &["cpp"]));
        let objects = compiler::objects(&compiler, &sources, |_| FLAGS, folder);
        compiler::compile(&compiler, &["-shared", "-Wl,-z,nodelete", "-pthread"], &objects, &folder.join("kernels.so"));
    });
    Some(folder.join("kernels.so"))
}

/// Launches a kernel for each of these arguments, all at once, `times` in a row.
fn launch<A: bytemuck::Pod>(kernel: Kernel, arguments: &[A], shape: Shape, times: u32) {
    type Launch = unsafe extern "C" fn(*const c_char, *const u8, usize, u32, u32, u32, u32) -> c_int;
    let library = library().expect("checked before");
    let name = CString::new(kernel.to_string()).unwrap();
    // SAFETY: the function has this type (library.cpp). The arguments are as long as it is told, are those of the
    // kernel, which it checks by their size, and what they point to outlives the launch and is as long as the kernel
    // takes it to be.
    let ended = unsafe {
        let launch = library.get::<Launch>(b"annulus_launch").unwrap();
        let (ranks, bytes) = (arguments.len() as u32, size_of::<A>());
        launch(name.as_ptr(), arguments.as_ptr().cast(), bytes, ranks, shape.blocks, shape.threads, times)
    };
    assert_eq!(ended, 0, "{kernel}: 1: there is no such kernel; 2: a launch did not end well");
}

fn full() -> bool {
    std::env::var("ANNULUS_TEST").is_ok_and(|size| size == "full")
}

/// Memory whose beginning is aligned as device allocations are.
struct Memory(Vec<u128>);

impl Memory {
    fn new(bytes: usize) -> Self {
        Memory(vec![0; bytes.div_ceil(16)])
    }

    fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    fn bytes(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

const ARENA_SMALL: usize = 4096;
const HALF: usize = 64 << 10;
const HEAP: usize = 256 << 10;
/// Where outputs begin in a heap; inputs begin at its beginning, behind a margin.
const OUT: usize = 128 << 10;
const MARGIN: usize = 64;

/// Ranks with what kernels need.
struct World {
    n: usize,
    arena: Arena,
    arenas: Vec<Memory>,
    heaps: Vec<Memory>,
    states: Vec<Memory>,
    reports: Vec<Report>,
    abort: u32,
    calls: u64,
}

/// How a call is made.
#[derive(Clone, Copy, Debug)]
struct Way {
    in_place: bool,
    staged: bool,
    /// Elements by which rank r's buffers are off 16 bytes, of which each takes its turn.
    offsets: [usize; 2],
    shape: Shape,
}

impl World {
    fn new(n: usize) -> Self {
        let arena = Arena::new(n, ARENA_SMALL, HALF);
        let of = |bytes: usize| (0..n).map(|_| Memory::new(bytes)).collect::<Vec<_>>();
        World {
            n,
            arena,
            arenas: of(arena.bytes as usize),
            heaps: of(HEAP),
            states: of(STATE_BYTES),
            reports: vec![Report::default(); n],
            abort: 0,
            calls: 0,
        }
    }

    /// Makes one call: `inputs[r]` is given, `outputs[r]` elements come back from each rank. For kernels that move
    /// bytes, `elements` are bytes.
    fn call<T: Element>(
        &mut self,
        kernel: Kernel,
        (op, root, elements): (ReduceOp, usize, usize),
        inputs: &[Vec<T>],
        output: usize,
        way: Way,
    ) -> Vec<Vec<T>> {
        self.calls += 1;
        let size = size_of::<T>();
        let begin = |rank: usize| MARGIN + way.offsets[rank % 2] * size;
        // In place, the input of all-gather is one slice of its output, and so at a gather's root; of reduce-scatter and
        // scatter it is the other way round.
        let from = |rank: usize| match kernel {
            Kernel::AllGather if way.in_place => begin(rank) + rank * inputs[0].len() * size,
            Kernel::Gather if way.in_place && rank == root => begin(rank) + rank * inputs[0].len() * size,
            _ => begin(rank),
        };
        let to = |rank: usize| match kernel {
            _ if !way.in_place => OUT + begin(rank),
            Kernel::ReduceScatter(_) => begin(rank) + rank * output * size,
            Kernel::Scatter if rank == root => begin(rank) + rank * output * size,
            _ => begin(rank),
        };
        for rank in 0..self.n {
            let heap = self.heaps[rank].bytes();
            heap.fill(0x5a);
            let bytes = bytemuck::cast_slice::<T, u8>(&inputs[rank]);
            heap[from(rank)..][..bytes.len()].copy_from_slice(bytes);
        }
        let before: Vec<Vec<u8>> = self.heaps.iter_mut().map(|heap| heap.bytes().to_vec()).collect();
        let regions: Vec<u64> = self.arenas.iter().chain(&self.heaps).map(Memory::address).collect();
        let (operation, factor) = operation(op, T::DATA_TYPE);
        let place = |offset: usize| if way.staged { Place::STAGED } else { Place::new(1, offset as u64) }.word();
        let arguments: Vec<Collective> = (0..self.n)
            .map(|rank| Collective {
                hash: 0x0123_4567_89ab_cdef ^ self.calls << 29,
                regions: regions.as_ptr() as u64,
                state: self.states[rank].address(),
                report: &raw mut self.reports[rank] as u64,
                abort: &raw const self.abort as u64,
                patience: 60_000_000_000,
                from: self.heaps[rank].address() + from(rank) as u64,
                to: self.heaps[rank].address() + to(rank) as u64,
                from_place: place(from(rank)),
                to_place: place(to(rank)),
                elements: elements as u64,
                stride: elements as u64,
                factor,
                packets: self.arena.packets,
                lines: self.arena.lines,
                staging: self.arena.staging,
                half: self.arena.half,
                operation,
                root: root as u32,
                rank: rank as u32,
                world: self.n as u32,
                call: [0; WORDS],
                journal: 0,
                number: 0,
            })
            .collect();
        launch(kernel, &arguments, way.shape, 1);
        assert!(self.reports.iter().all(|report| *report == Report::default()), "{kernel} {way:?}: {:?}", self.reports);
        (0..self.n)
            .map(|rank| {
                let gets = rank == root || !matches!(kernel, Kernel::Gather | Kernel::Reduce(_));
                let bytes = if gets { output * size } else { 0 };
                let heap = self.heaps[rank].bytes();
                let got = heap[to(rank)..][..bytes].to_vec();
                // Nothing but the output has changed.
                heap[to(rank)..][..bytes].copy_from_slice(&before[rank][to(rank)..][..bytes]);
                assert!(heap == before[rank], "{kernel} {way:?}: rank {rank} wrote elsewhere");
                bytemuck::pod_collect_to_vec(&got)
            })
            .collect()
    }
}

fn assert_bits<T: Element>(got: &[Vec<T>], expected: &[Vec<T>], what: impl std::fmt::Display) {
    for (rank, (got, expected)) in got.iter().zip(expected).enumerate() {
        if let Err(difference) = reference::check::compare(got, expected, rank) {
            panic!("{what}: {difference}");
        }
    }
}

/// Extraordinary values, and in every second call those whose sums tell the order in which they were made.
fn values_of<T: Element>(call: u64, lengths: &[usize]) -> Vec<Vec<T>> {
    if call.is_multiple_of(2) { inputs::special(1, call, lengths) } else { inputs::cancelling(1, call, lengths) }
}

fn operations(data_type: DataType) -> impl Iterator<Item = ReduceOp> {
    let factor = if data_type.is_float() { Factor::from(-0.3) } else { Factor::from(-3) };
    let all = ReduceOp::ALL.into_iter().chain([ReduceOp::PreMulSum(factor)]);
    all.filter(move |op| op.applies_to(data_type))
}

const LENGTHS: [usize; 14] = [0, 1, 2, 3, 5, 7, 16, 17, 63, 100, 255, 257, 1000, 2050];
const OFFSETS: [[usize; 2]; 4] = [[0, 0], [1, 1], [0, 3], [2, 1]];
const SHAPES: [Shape; 4] = [
    Shape { blocks: 2, threads: 64 },
    Shape { blocks: 3, threads: 32 },
    Shape { blocks: 1, threads: 96 },
    Shape { blocks: 5, threads: 16 },
];

/// Ways to make a call, with lengths: one in place and one out of place that differ from call to call; or of all, with
/// every length, while alignments and shapes take turns.
fn ways(turn: &mut usize) -> Vec<(usize, Way)> {
    let mut ways = Vec::new();
    for in_place in [false, true] {
        let both = [false, true];
        let staged = if full() { &both[..] } else { &both[*turn / 2 % 2..][..1] };
        for &staged in staged {
            let mut add = |length: usize, offsets, shape| {
                ways.push((LENGTHS[length % LENGTHS.len()], Way { in_place, staged, offsets, shape }))
            };
            if full() {
                *turn += 1;
                for length in 0..LENGTHS.len() {
                    add(length, OFFSETS[(length + *turn) % OFFSETS.len()], SHAPES[(length + *turn / 4) % SHAPES.len()]);
                }
            } else {
                *turn += 1;
                // Steps that have no divisor in common with the numbers of choices.
                add(*turn * 5, OFFSETS[*turn * 3 / 2 % OFFSETS.len()], SHAPES[*turn / 3 % SHAPES.len()]);
            }
        }
    }
    ways
}

fn folds_of<T: Element>(world: &mut World, turn: &mut usize) {
    let data_type = T::DATA_TYPE;
    let n = world.n;
    let whole: [fn(DataType) -> Kernel; 4] = [Kernel::OneShot, Kernel::TwoShot, Kernel::Ring, Kernel::LowLatency];
    for op in operations(data_type) {
        for kernel in whole.map(|kernel| kernel(data_type)) {
            let order = if kernel == Kernel::Ring(data_type) { FoldOrder::Ring } else { FoldOrder::Rank };
            for (length, way) in ways(turn) {
                let length = if kernel == Kernel::LowLatency(data_type) {
                    length.min(ARENA_SMALL / size_of::<T>())
                } else {
                    length
                };
                let values = values_of::<T>(world.calls, &vec![length; n]);
                let expected = vec![reference::fold(&order, op, &values).unwrap(); n];
                let got = world.call(kernel, (op, 0, length), &values, length, way);
                assert_bits(&got, &expected, format!("{kernel}, {op:?}, {n} ranks, {length} elements, {way:?}"));
            }
        }
        let kernel = Kernel::Reduce(data_type);
        for (length, way) in ways(turn) {
            let root = *turn % n;
            let values = values_of::<T>(world.calls, &vec![length; n]);
            let expected = reference::reduce(&FoldOrder::Rank, op, &values, root).unwrap();
            let got = world.call(kernel, (op, root, length), &values, length, way);
            assert_bits(&got, &expected, format!("{kernel}, {op:?}, {n} ranks, {length} elements, {way:?}"));
        }
        let kernel = Kernel::ReduceScatter(data_type);
        for (length, way) in ways(turn) {
            let count = length / n + 1;
            let values = values_of::<T>(world.calls, &vec![count * n; n]);
            let folded = reference::fold(&FoldOrder::Rank, op, &values).unwrap();
            let expected: Vec<Vec<T>> = folded.chunks(count).map(<[T]>::to_vec).collect();
            let got = world.call(kernel, (op, 0, count), &values, count, way);
            assert_bits(&got, &expected, format!("{kernel}, {op:?}, {n} ranks, {count} elements each, {way:?}"));
        }
    }
}

fn moves_of<T: Element>(world: &mut World, turn: &mut usize) {
    let n = world.n;
    for (length, way) in ways(turn) {
        let count = length / n + 1;
        let values = values_of::<T>(world.calls, &vec![count; n]);
        let whole: Vec<T> = values.concat();
        let got = world.call(Kernel::AllGather, (ReduceOp::Sum, 0, count * size_of::<T>()), &values, count * n, way);
        assert_bits(&got, &vec![whole; n], format!("all-gather, {n} ranks, {count} elements each, {way:?}"));

        let root = *turn % n;
        let values = values_of::<T>(world.calls, &vec![length; n]);
        let got = world.call(Kernel::Broadcast, (ReduceOp::Sum, root, length * size_of::<T>()), &values, length, way);
        assert_bits(&got, &vec![values[root].clone(); n], format!("broadcast, {n} ranks, {length} elements, {way:?}"));

        let (bytes, what) = (count * size_of::<T>(), format!("{n} ranks, {count} elements each, {way:?}"));
        let lengths: Vec<usize> = (0..n).map(|rank| if rank == root { n * count } else { 0 }).collect();
        let values = values_of::<T>(world.calls, &lengths);
        let got = world.call(Kernel::Scatter, (ReduceOp::Sum, root, bytes), &values, count, way);
        assert_bits(&got, &reference::scatter(&values, root, &vec![count; n]).unwrap(), format!("scatter, {what}"));

        let values = values_of::<T>(world.calls, &vec![count; n]);
        let got = world.call(Kernel::Gather, (ReduceOp::Sum, root, bytes), &values, n * count, way);
        assert_bits(&got, &reference::gather(&values, root).unwrap(), format!("gather, {what}"));

        let values = values_of::<T>(world.calls, &vec![n * count; n]);
        let got = world.call(Kernel::AllToAll, (ReduceOp::Sum, 0, bytes), &values, n * count, way);
        let expected = reference::all_to_all(&values, &vec![vec![count; n]; n]).unwrap();
        assert_bits(&got, &expected, format!("all-to-all, {what}"));
    }
}

fn every_type(world: &mut World, turn: &mut usize, moves: bool) {
    macro_rules! each {
        ($($type:ty),*) => {$(
            if moves { moves_of::<$type>(world, turn) } else { folds_of::<$type>(world, turn) }
        )*};
    }
    each!(f64, f32, f16, bf16, i8, u8, i16, u16, i32, u32, i64, u64);
}

#[test]
fn collectives_have_the_bits_of_the_reference() {
    if library().is_none() {
        return;
    }
    let mut turn = 0;
    for n in 1..=8 {
        let mut world = World::new(n);
        every_type(&mut world, &mut turn, true);
        every_type(&mut world, &mut turn, false);
    }
}

/// What a device with room for 16 blocks would be given for so many bytes, and other shapes.
fn shapes(kernel: Kernel, bytes: usize) -> [Shape; 3] {
    let given = Shape::of(kernel, bytes as u64, 16);
    assert_eq!(given.threads, if kernel == Kernel::Barrier { 32 } else { 256 });
    [given, Shape { blocks: 1, threads: 1 }, Shape { blocks: 7, threads: 128 }]
}

#[test]
fn bits_do_not_depend_on_the_launch_shape() {
    if library().is_none() {
        return;
    }
    let n = 3;
    let mut world = World::new(n);
    let values = |length: usize| inputs::cancelling::<f32>(3, 0, &vec![length; n]);
    let sums = |order, values: &[Vec<f32>]| reference::fold(&order, ReduceOp::Sum, values).unwrap();
    let way = |shape| Way { in_place: false, staged: true, offsets: [0, 0], shape };
    let whole = [
        (Kernel::OneShot(DataType::F32), 12_001, FoldOrder::Rank),
        (Kernel::TwoShot(DataType::F32), 12_001, FoldOrder::Rank),
        (Kernel::Ring(DataType::F32), 12_001, FoldOrder::Ring),
        (Kernel::LowLatency(DataType::F32), 1000, FoldOrder::Rank),
    ];
    for (kernel, length, order) in whole {
        let values = values(length);
        let expected = vec![sums(order, &values); n];
        for shape in shapes(kernel, length * 4) {
            let got = world.call(kernel, (ReduceOp::Sum, 0, length), &values, length, way(shape));
            assert_bits(&got, &expected, format!("{kernel}, {shape:?}"));
        }
    }
    let count = 4001;
    let (slices, whole) = (values(count), values(count * n));
    let folded: Vec<Vec<f32>> = sums(FoldOrder::Rank, &whole).chunks(count).map(<[f32]>::to_vec).collect();
    let kernel = Kernel::ReduceScatter(DataType::F32);
    for shape in shapes(kernel, count * n * 4) {
        let got = world.call(kernel, (ReduceOp::Sum, 0, count), &whole, count, way(shape));
        assert_bits(&got, &folded, format!("{kernel}, {shape:?}"));
    }
    for shape in shapes(Kernel::AllGather, count * 4) {
        let got = world.call(Kernel::AllGather, (ReduceOp::Sum, 0, count * 4), &slices, count * n, way(shape));
        assert_bits(&got, &vec![slices.concat(); n], format!("all-gather, {shape:?}"));
    }
    for shape in shapes(Kernel::Broadcast, count * 4) {
        let got = world.call(Kernel::Broadcast, (ReduceOp::Sum, 1, count * 4), &slices, count, way(shape));
        assert_bits(&got, &vec![slices[1].clone(); n], format!("broadcast, {shape:?}"));
    }
    let folded = vec![Vec::new(), folded.concat(), Vec::new()];
    for shape in shapes(Kernel::Reduce(DataType::F32), count * 4) {
        let kernel = Kernel::Reduce(DataType::F32);
        let got = world.call(kernel, (ReduceOp::Sum, 1, count * n), &whole, count * n, way(shape));
        assert_bits(&got, &folded, format!("{kernel}, {shape:?}"));
    }
    let exchanged = reference::all_to_all(&whole, &[[count; 3]; 3]).unwrap();
    for shape in shapes(Kernel::AllToAll, count * 4) {
        let got = world.call(Kernel::AllToAll, (ReduceOp::Sum, 0, count * 4), &whole, count * n, way(shape));
        assert_bits(&got, &exchanged, format!("all-to-all, {shape:?}"));
    }
    for shape in &shapes(Kernel::Barrier, 0)[..2] {
        world.call::<f32>(Kernel::Barrier, (ReduceOp::Sum, 0, 0), &vec![Vec::new(); n], 0, way(*shape));
    }
}

#[test]
fn bits_of_one_device_do_not_depend_on_the_launch_shape() {
    if library().is_none() {
        return;
    }
    let values = inputs::cancelling::<f32>(3, 0, &[70_001; 3]);
    let expected = reference::fold(&FoldOrder::Rank, ReduceOp::Sum, &values).unwrap();
    for shape in shapes(Kernel::Fold(DataType::F32), expected.len() * 4) {
        let mut args = Fold { elements: expected.len() as u64, sources: 3, destinations: 1, ..Fold::zeroed() };
        (args.operation, args.factor) = operation(ReduceOp::Sum, DataType::F32);
        for (address, values) in args.from.iter_mut().zip(&values) {
            *address = values.as_ptr() as u64;
        }
        let mut to = Memory::new(expected.len() * 4);
        args.to[0] = to.address();
        launch(Kernel::Fold(DataType::F32), &[args], shape, 1);
        let got = bytemuck::pod_collect_to_vec(&to.bytes()[..expected.len() * 4]);
        assert_bits(&[got], std::slice::from_ref(&expected), format!("fold, {shape:?}"));
    }
    let expected: Vec<f16> = values[0].iter().map(|value| f16::from_f32_const(value * 0.5)).collect();
    for shape in shapes(Kernel::Convert { from: DataType::F32, to: DataType::F16 }, expected.len() * 2) {
        let (got, _) = convert::<f32, f16>(&values[0], 0.5, 0, shape);
        assert_bits(&[got], std::slice::from_ref(&expected), format!("f32 to f16, {shape:?}"));
    }
}

fn fold_one<T: Element>(turn: &mut usize) {
    let data_type = T::DATA_TYPE;
    let size = size_of::<T>();
    for op in operations(data_type) {
        for sources in [1, 2, 3, 8, 16] {
            for destinations in [1, 3] {
                for in_place in [false, true] {
                    *turn += 1;
                    let length = LENGTHS[*turn * 5 % LENGTHS.len()];
                    let offsets = OFFSETS[*turn % OFFSETS.len()];
                    let values = values_of::<T>(*turn as u64, &vec![length; sources]);
                    let mut heaps: Vec<Memory> =
                        (0..sources + destinations).map(|_| Memory::new((length + 8) * size)).collect();
                    let mut addresses = Vec::new();
                    for (i, heap) in heaps.iter_mut().enumerate() {
                        let offset = offsets[i % 2] * size;
                        heap.bytes().fill(0x5a);
                        if i < sources {
                            heap.bytes()[offset..][..length * size].copy_from_slice(bytemuck::cast_slice(&values[i]));
                        }
                        addresses.push(heap.address() + offset as u64);
                    }
                    let into: Vec<usize> =
                        (0..destinations).map(|i| if in_place && i == 0 { sources / 2 } else { sources + i }).collect();
                    let to: Vec<u64> = into.iter().map(|heap| addresses[*heap]).collect();
                    let args = Fold::new(op, data_type, length, &addresses[..sources], &to, sources);
                    launch(Kernel::Fold(data_type), &[args], SHAPES[*turn % SHAPES.len()], 1);
                    let expected = reference::fold(&FoldOrder::Rank, op, &values).unwrap();
                    for heap in into {
                        let offset = offsets[heap % 2] * size;
                        let bytes = heaps[heap].bytes();
                        let got: Vec<T> = bytemuck::pod_collect_to_vec(&bytes[offset..][..length * size]);
                        let what =
                            format!("fold_{data_type}, {op:?}, {sources} sources, {length} elements, {offsets:?}");
                        assert_bits(&[got], std::slice::from_ref(&expected), what);
                        let beyond = &bytes[offset + length * size..];
                        assert!(beyond.iter().all(|byte| *byte == 0x5a), "the fold wrote beyond its end");
                    }
                }
            }
        }
    }
}

#[test]
fn folds_have_the_bits_of_the_reference() {
    if library().is_none() {
        return;
    }
    let mut turn = 0;
    macro_rules! each {
        ($($type:ty),*) => { $(fold_one::<$type>(&mut turn);)* };
    }
    each!(f64, f32, f16, bf16, i8, u8, i16, u16, i32, u32, i64, u64);
}

fn convert<F: Element, T: Element>(values: &[F], factor: f32, offset: usize, shape: Shape) -> (Vec<T>, bool) {
    let mut from = Memory::new((values.len() + 8) * size_of::<F>());
    let mut to = Memory::new((values.len() + 8) * size_of::<T>());
    from.bytes()[offset * size_of::<F>()..][..size_of_val(values)].copy_from_slice(bytemuck::cast_slice(values));
    let mut overflow = 0_u32;
    let args = Convert {
        from: from.address() + (offset * size_of::<F>()) as u64,
        to: to.address() + (offset * size_of::<T>()) as u64,
        overflow: &raw mut overflow as u64,
        elements: values.len() as u64,
        factor,
        unused: 0,
    };
    launch(Kernel::Convert { from: F::DATA_TYPE, to: T::DATA_TYPE }, &[args], shape, 1);
    // SAFETY: a live word of this frame, which the kernel that has ended may have written.
    let overflowed = unsafe { (&raw const overflow).read_volatile() } != 0;
    let bytes = &to.bytes()[offset * size_of::<T>()..][..values.len() * size_of::<T>()];
    (bytemuck::pod_collect_to_vec(bytes), overflowed)
}

#[test]
fn conversions_round_once_and_notice_overflow() {
    if library().is_none() {
        return;
    }
    // Every f16 and every bf16 widens exactly, NaN to the canonical one; and the way back is the identity.
    let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let brains: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    let canonical = |value: f32| if value.is_nan() { f32::from_bits(0x7fc0_0000) } else { value };
    let (floats, overflowed) = convert::<f16, f32>(&halves, 1.0, 0, SHAPES[0]);
    assert!(overflowed);
    assert_bits(&[floats], &[halves.iter().map(|half| canonical(half.to_f32_const())).collect()], "f16 to f32");
    let (floats, overflowed) = convert::<bf16, f32>(&brains, 1.0, 1, SHAPES[0]);
    assert!(overflowed);
    assert_bits(&[floats], &[brains.iter().map(|brain| canonical(brain.to_f32_const())).collect()], "bf16 to f32");
    // Floats of all exponents, and those around the middle between two neighbours.
    for (length, offset) in [(0, 0), (1, 0), (7, 1), (9, 0), (70_001, 0), (70_001, 3)] {
        let mut state = inputs::SplitMix64::new(length as u64);
        let floats: Vec<f32> = (0..length)
            .map(|_| {
                let bits = state.bits() as u32;
                f32::from_bits(if bits.is_multiple_of(3) { bits & 0xffff_f000 | 0x1000 } else { bits })
            })
            .collect();
        let scaled: Vec<f32> = floats.iter().map(|value| value * 0.37).collect();
        let (got, _) = convert::<f32, f16>(&floats, 0.37, offset, SHAPES[0]);
        let half = |value: &f32| if value.is_nan() { f16::from_bits(0x7e00) } else { f16::from_f32_const(*value) };
        assert_bits(&[got], &[scaled.iter().map(half).collect()], "f32 to f16");
        let (got, _) = convert::<f32, bf16>(&floats, 0.37, offset, SHAPES[0]);
        let brain = |value: &f32| if value.is_nan() { bf16::from_bits(0x7fc0) } else { bf16::from_f32_const(*value) };
        assert_bits(&[got], &[scaled.iter().map(brain).collect()], "f32 to bf16");
    }
    let (got, overflowed) = convert::<f32, f16>(&[65519.0, -3.0, 1e-9], 1.0, 0, SHAPES[0]);
    assert!(!overflowed && got[0] == f16::MAX);
    for value in [65520.0, f32::INFINITY, f32::NAN] {
        assert!(convert::<f32, f16>(&[1.0, value, 2.0], 1.0, 0, SHAPES[0]).1, "{value} was not noticed");
    }
    assert!(convert::<f32, f16>(&[2.0], 40_000.0, 0, SHAPES[0]).1);
}

#[test]
fn arguments_are_laid_out_alike() {
    let Some(library) = library() else { return };
    let mut text = vec![0_u8; 1 << 16];
    // SAFETY: the function has this type (library.cpp), and writes a string of at most so many bytes.
    unsafe {
        let layout = library.get::<unsafe extern "C" fn(*mut u8, usize)>(b"annulus_layout").unwrap();
        layout(text.as_mut_ptr(), text.len());
    }
    let end = text.iter().position(|byte| *byte == 0).unwrap();
    let cpp = std::str::from_utf8(&text[..end]).unwrap();
    let mut rust = String::new();
    macro_rules! fields {
        ($($struct:ident $(begins with $part:ident: $first:ident { $($inner:ident)* })? { $($field:ident)* })*) => {$(
            rust += &format!("{} - 0 {}\n", stringify!($struct), size_of::<$struct>());
            // The members of the part are the C++ side's own.
            $($({
                let zero: $first = bytemuck::Zeroable::zeroed();
                let (offset, size) = (std::mem::offset_of!($struct, $part.$inner), size_of_val(&zero.$inner));
                rust += &format!("{} {} {offset} {size}\n", stringify!($struct), stringify!($inner));
            })*)?
            $({
                let zero: $struct = bytemuck::Zeroable::zeroed();
                let (offset, size) = (std::mem::offset_of!($struct, $field), size_of_val(&zero.$field));
                rust += &format!("{} {} {offset} {size}\n", stringify!($struct), stringify!($field));
            })*
        )*};
    }
    fields! {
        Fold { from to elements factor sources destinations operation ranks }
        FoldPartials begins with fold: Fold { from to elements factor sources destinations operation ranks } {
            partial_from partial_to
        }
        Convert { from to overflow elements factor unused }
        Collective {
            hash regions state report abort patience from to from_place to_place elements stride factor packets lines
            staging half operation root rank world call journal number
        }
        Called { calls hash word }
        Stamps { entered before waited after who }
        Pad { entries done passed taken flags called awaited sent received said }
        Sent { count contents from unused }
        Said { number contents }
        Mark { rank flag before_end }
        Flags { call raised awaited closes marks }
        Message { address place bytes contents peer blocks before unused }
        Messages { call slots slot room sends messages message }
        Relay { batch moved unused }
    }
    rust += &format!("State - 0 {STATE_BYTES}\n");
    fields! { Report { claims ended phase block calls missing differing deserted } }
    rust += &format!("ALWAYS_STAGED {}\n", annulus::kernel::ALWAYS_STAGED);
    assert_eq!(cpp, rust, "the C++ side, then Rust's: struct, field, offset, bytes");
}
