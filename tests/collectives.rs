// SPDX-License-Identifier: MPL-2.0
//! Every collective against the reference, bit for bit: on threads and on processes, in worlds of 1 to 8 ranks.
//!
//! Among threads, every type, operation and count meets every other; place (in or out of place), algorithm, memory,
//! offset and kind of input are drawn for each. Among processes, cases are chosen so that every pair of values of any
//! two of these occurs. With `ANNULUS_TEST=full`, threads and processes alike do everything; only the kind of input is
//! drawn. Inputs differ from rank to rank and from call to call; around every buffer lie elements that nobody may
//! touch.
#![cfg(target_os = "linux")]

#[macro_use]
mod types;
mod butterfly;
#[path = "ranks/pairwise.rs"]
mod pairwise;
mod ranks;
mod zero_two_one;

use std::any::Any;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex};

use annulus::communicator::Question;
use annulus::reference::check::{Request, compare};
use annulus::reference::{bits, inputs};
use annulus::schedule::{Access, Collective, Layout, Schedule, named, names, verify};
use annulus::{Communicator, DataType, Element, Error, FoldOrder, ReduceOp, Shared, bf16, f16};

use butterfly::Butterfly;
use pairwise::pairwise;
use ranks::{everywhere, full, processes, threads};
use types::all_operations;
use zero_two_one::ZeroTwoOne;

/// Bytes of a contribution that the entry record holds, and up to which one always rides along.
const INLINE: usize = 8192;
const ALWAYS: usize = 512;

/// What is called, apart from the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct What {
    collective: Collective,
    /// The operation of those that fold; `Sum` of others.
    op: ReduceOp,
}

impl What {
    const fn moves(collective: Collective) -> Self {
        What { collective, op: ReduceOp::Sum }
    }

    fn all() -> Vec<What> {
        let (folds, moves): (Vec<_>, Vec<_>) = Collective::ALL.into_iter().partition(|collective| collective.folds());
        let folds = folds.into_iter().flat_map(|collective| {
            // Prefixes have different numbers of contributions, and hence no average.
            let averages = move |op: &ReduceOp| *op == ReduceOp::Avg && collective.is_scan();
            all_operations().into_iter().filter(move |op| !averages(op)).map(move |op| What { collective, op })
        });
        folds.chain(moves.into_iter().map(What::moves)).collect()
    }

    /// Whether a rank's input has a part for each rank.
    fn gives_parts(self) -> bool {
        matches!(self.collective, Collective::ReduceScatter | Collective::Scatter | Collective::AllToAll)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    Plain,
    Allocated,
    /// Plain on rank 0, allocated on the others.
    Mixed,
}

const MEMORIES: [Memory; 3] = [Memory::Plain, Memory::Allocated, Memory::Mixed];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Random,
    Cancelling,
    Special,
    Exact,
}

const KINDS: [Kind; 4] = [Kind::Random, Kind::Cancelling, Kind::Special, Kind::Exact];

const ALGORITHMS: [Option<&str>; 10] = [
    None,
    Some("ring"),
    Some("direct"),
    Some("pull"),
    Some("staged"),
    Some("one_shot"),
    Some("tree"),
    Some("recursive_doubling"),
    Some("recursive_halving"),
    Some("bruck"),
];

/// Elements by which a buffer is off the alignment of its memory.
const OFFSETS: [usize; 3] = [0, 1, 3];

/// One call.
#[derive(Debug, Clone, Copy)]
struct Case {
    what: What,
    /// Elements, as NCCL counts them.
    count: usize,
    in_place: bool,
    algorithm: Option<&'static str>,
    memory: Memory,
    offset: usize,
    kind: Kind,
}

/// Elements of a rank's buffer, with others around them that nobody may touch.
struct Guarded<T: Element> {
    home: Home<T>,
    inner: Range<usize>,
}

enum Home<T: Element> {
    Plain(Vec<T>),
    Allocated(Shared<T>),
}

impl<T: Element> Guarded<T> {
    fn new(comm: &Communicator, case: &Case, len: usize) -> Self {
        let all = case.offset + len + 3;
        let plain = case.memory == Memory::Plain || case.memory == Memory::Mixed && comm.rank() == 0;
        let home = match plain {
            true => Home::Plain(vec![bits::element(0); all]),
            false => Home::Allocated(comm.allocate(all).unwrap()),
        };
        let mut guarded = Guarded { home, inner: case.offset..case.offset + len };
        guarded.whole().fill(guard());
        guarded
    }

    /// With these contents.
    fn with(comm: &Communicator, case: &Case, contents: &[T]) -> Self {
        let mut guarded = Guarded::new(comm, case, contents.len());
        guarded.copy_from_slice(contents);
        guarded
    }

    fn whole(&mut self) -> &mut [T] {
        match &mut self.home {
            Home::Plain(elements) => elements,
            Home::Allocated(elements) => elements,
        }
    }

    fn check_guards(&mut self) {
        let inner = self.inner.clone();
        let whole = self.whole();
        let outside = whole[..inner.start].iter().chain(&whole[inner.end..]);
        assert!(outside.copied().all(|element| bits::of(element) == bits::of(guard::<T>())), "a guard was touched");
    }
}

/// What lies around buffers, and in outputs before a call.
fn guard<T: Element>() -> T {
    bits::element(0x5a5a_5a5a_5a5a_5a5a)
}

impl<T: Element> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.home {
            Home::Plain(elements) => &elements[self.inner.clone()],
            Home::Allocated(elements) => &elements[self.inner.clone()],
        }
    }
}

impl<T: Element> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let inner = self.inner.clone();
        &mut self.whole()[inner]
    }
}

/// All ranks' inputs of a call, and their outputs by the reference.
struct Data<T> {
    inputs: Vec<Vec<T>>,
    expected: Vec<Vec<T>>,
}

/// The data of the call that ranks come to next, made by whichever of them comes first. One call's suffices: a rank
/// comes to a call after all others have come to the one before.
#[derive(Default)]
struct Latest(Mutex<Option<(u64, Arc<dyn Any + Send + Sync>)>>);

impl Latest {
    fn data<T: Element>(&self, number: u64, make: impl FnOnce() -> Data<T>) -> Arc<Data<T>> {
        let mut latest = self.0.lock().unwrap();
        if let Some((_, data)) = latest.as_ref().filter(|(of, _)| *of == number) {
            return data.clone().downcast().unwrap();
        }
        let data = Arc::new(make());
        *latest = Some((number, data.clone()));
        data
    }
}

/// Makes one call, and compares its output with the reference and its record with what should have run.
fn call<T: Element>(comm: &Communicator, case: &Case, number: u64, latest: &Latest) {
    let (world, rank, Case { what, count, in_place, .. }) = (comm.world_size(), comm.rank(), *case);
    let root = number as usize % world;
    let What { collective, op } = what;
    if collective == Collective::Barrier {
        comm.barrier().unwrap();
        let last = comm.last_call().unwrap();
        assert_eq!((last.collective, last.bytes, last.algorithm.as_str()), (Collective::Barrier, 0, "barrier"));
        return;
    }
    let layout = Layout::uniform(world, count).with_root(root).in_place(in_place);
    let data = latest.data::<T>(number, || {
        // Every rank's as long as the root's, where only that is used.
        let lengths = vec![layout.input_len(collective, root); world];
        let seed = 0x616e_6e75;
        let inputs = match case.kind {
            Kind::Random => inputs::random(seed, number, &lengths),
            Kind::Cancelling => inputs::cancelling(seed, number, &lengths),
            Kind::Special => inputs::special(seed, number, &lengths),
            Kind::Exact => inputs::exact(op, seed, number, &lengths),
        };
        let expected = request(case, world, root, &inputs);
        Data { inputs, expected }
    });
    let (input_len, output_len) = (layout.input_len(collective, rank), layout.output_len(collective, rank));
    let own = &data.inputs[rank][..input_len];
    comm.set_algorithm(case.algorithm).unwrap();
    let output: Vec<T> = if in_place {
        let mut buffer = Guarded::new(comm, case, input_len.max(output_len));
        let alias = layout.alias(collective, rank);
        let (input_at, output_at) = (alias.max(0) as usize, (-alias).max(0) as usize);
        buffer[input_at..input_at + input_len].copy_from_slice(own);
        let before = buffer.to_vec();
        blocking_in_place(comm, what, &mut buffer, root);
        buffer.check_guards();
        let output = output_at..output_at + output_len;
        for element in (0..before.len()).filter(|element| !output.contains(element)) {
            assert_eq!(bits::of(buffer[element]), bits::of(before[element]), "{case:?}: element {element} was touched");
        }
        buffer[output].to_vec()
    } else {
        let mut send = Guarded::with(comm, case, own);
        // Rank 0 passes one in an exclusive scan too, which is left alone.
        let is_left = collective == Collective::ExclusiveScan && rank == 0;
        let mut recv = Guarded::new(comm, case, if is_left { count } else { output_len });
        blocking(comm, what, &send, &mut recv, root);
        send.check_guards();
        recv.check_guards();
        compare(&send, own, rank).unwrap();
        if is_left {
            assert!(recv.iter().all(|element| bits::of(*element) == bits::of(guard::<T>())), "{case:?}");
        }
        recv[..output_len].to_vec()
    };
    compare(&output, &data.expected[rank], rank).unwrap_or_else(|difference| panic!("{case:?}: {difference}"));
    check_record::<T>(comm, case, &layout);
}

/// The reference's outputs.
fn request<T: Element>(case: &Case, world: usize, root: usize, inputs: &[Vec<T>]) -> Vec<Vec<T>> {
    let (What { collective, op }, count) = (case.what, case.count);
    let schedule = case.algorithm.and_then(|name| named(collective, name, Access::Direct, None));
    let order = &schedule.map_or(FoldOrder::Rank, |schedule| schedule.fold_order());
    let counts = &vec![count; world];
    let request = match collective {
        Collective::AllReduce => Request::AllReduce { order, op },
        Collective::ReduceScatter => Request::ReduceScatter { order, op, counts },
        Collective::AllGather => Request::AllGather,
        Collective::Broadcast => Request::Broadcast { root },
        Collective::Reduce => Request::Reduce { order, op, root },
        Collective::Scatter => Request::Scatter { root, counts },
        Collective::Gather => Request::Gather { root },
        Collective::AllToAll => Request::AllToAll { counts: &vec![counts.clone(); world] },
        Collective::Scan => Request::Scan { op },
        Collective::ExclusiveScan => Request::ExclusiveScan { op },
        Collective::Barrier => return vec![Vec::new(); world],
        new => panic!("nothing is known of {new}"),
    };
    request.outputs(inputs).unwrap()
}

fn blocking<T: Element>(comm: &Communicator, What { collective, op }: What, send: &[T], recv: &mut [T], root: usize) {
    let is_root = comm.rank() == root;
    match collective {
        Collective::AllReduce => comm.all_reduce(send, recv, op),
        Collective::ReduceScatter => comm.reduce_scatter(send, recv, op),
        Collective::AllGather => comm.all_gather(send, recv),
        Collective::Broadcast => comm.broadcast(is_root.then_some(send), recv, root),
        Collective::Reduce => comm.reduce(send, is_root.then_some(recv), op, root),
        Collective::Scatter => comm.scatter(is_root.then_some(send), recv, root),
        Collective::Gather => comm.gather(send, is_root.then_some(recv), root),
        Collective::AllToAll => comm.all_to_all(send, recv),
        Collective::Scan => comm.scan(send, recv, op),
        Collective::ExclusiveScan => comm.exclusive_scan(send, recv, op),
        Collective::Barrier => comm.barrier(),
        new => panic!("nothing is known of {new}"),
    }
    .unwrap();
}

fn blocking_in_place<T: Element>(comm: &Communicator, What { collective, op }: What, buffer: &mut [T], root: usize) {
    match collective {
        Collective::AllReduce => comm.all_reduce_in_place(buffer, op),
        Collective::ReduceScatter => comm.reduce_scatter_in_place(buffer, op),
        Collective::AllGather => comm.all_gather_in_place(buffer),
        Collective::Broadcast => comm.broadcast_in_place(buffer, root),
        Collective::Reduce => comm.reduce_in_place(buffer, op, root),
        Collective::Scatter => comm.scatter_in_place(buffer, root),
        Collective::Gather => comm.gather_in_place(buffer, root),
        Collective::AllToAll => comm.all_to_all_in_place(buffer),
        Collective::Scan => comm.scan_in_place(buffer, op),
        Collective::ExclusiveScan => comm.exclusive_scan_in_place(buffer, op),
        Collective::Barrier => comm.barrier(),
        new => panic!("nothing is known of {new}"),
    }
    .unwrap();
}

/// Whether the ranks, processes, may read each other's private memory: some systems do not let them.
fn can_read(comm: &Communicator) -> bool {
    let question = Question {
        collective: Collective::Broadcast,
        data_type: DataType::U8,
        op: None,
        count: 1 << 20,
        in_place: false,
        allocated: false,
    };
    comm.set_algorithm(Some("pull")).unwrap();
    comm.explain(&question).unwrap().algorithm == "pull"
}

/// What ran is what should have, by its record.
fn check_record<T: Element>(comm: &Communicator, case: &Case, layout: &Layout) {
    let (size, collective) = (size_of::<T>(), case.what.collective);
    let elements = if collective.has_parts() { layout.total() } else { case.count };
    let within_reach = comm.transport_kind() == "threads"
        || comm.world_size() == 1
        || case.memory == Memory::Allocated
        || elements == 0;
    let world = comm.world_size();
    let reads = can_read(comm);
    let is_read = !within_reach && reads;
    comm.set_algorithm(case.algorithm).unwrap();
    let is_carried = is_small(case.what, comm.world_size(), case.count, size)
        && (!reads
            || contribution(case.what, comm.world_size(), case.count, size) <= worth(case.what, comm.world_size()));
    let all_private = comm.transport_kind() == "processes"
        && (case.memory == Memory::Plain || case.memory == Memory::Mixed && world == 1);
    let algorithm = match case.algorithm {
        None if contribution(case.what, world, case.count, size) <= ALWAYS => "one_shot",
        None if all_private && is_carried => "one_shot",
        None | Some("direct") if within_reach => "direct",
        Some("pull") if !within_reach && !is_read => "staged",
        None if is_read && is_pulled(collective, case.in_place, world, case.count * size) => "pull",
        None | Some("direct") => "staged",
        Some(name) => name,
    };
    let last = comm.last_call().unwrap();
    assert_eq!(last.algorithm, algorithm, "{case:?}");
    assert_eq!((last.path, last.collective, last.data_type), ("schedule", collective, T::DATA_TYPE));
    assert_eq!(last.op, collective.folds().then_some(case.what.op));
    assert_eq!(last.bytes, elements * size);
}

/// Whether calls of so many bytes a rank are pulled where they can be.
fn is_pulled(collective: Collective, in_place: bool, world: usize, bytes: usize) -> bool {
    match (collective, in_place) {
        (Collective::AllToAll, in_place) => !in_place,
        (Collective::AllGather, _) => true,
        (Collective::Gather, _) => bytes <= 256 << 10,
        (Collective::Broadcast | Collective::Scatter, true) => bytes <= 512 << 10,
        (Collective::Broadcast | Collective::Scatter, false) => bytes <= 4 << 20,
        (Collective::Reduce, _) => bytes * (world - 1) <= 128 << 10,
        (Collective::ReduceScatter, _) => bytes * world <= 1 << 20,
        _ => false,
    }
}

/// Bytes of a rank's contribution.
fn contribution(what: What, world: usize, count: usize, size: usize) -> usize {
    count * size * if what.gives_parts() { world } else { 1 }
}

/// Bytes of a contribution that rides in the entry record where buffers are out of reach.
fn limit(what: What, world: usize) -> usize {
    match what.collective.folds() && !what.collective.has_parts() {
        true => (2 * INLINE / world).clamp(INLINE / 4, INLINE),
        false => INLINE,
    }
}

/// Up to how many bytes it is worth it where peers may read.
fn worth(what: What, world: usize) -> usize {
    match what.collective {
        Collective::Broadcast | Collective::Gather | Collective::Reduce => limit(what, world) / 4,
        Collective::Scatter => limit(what, world) / 2,
        _ => limit(what, world),
    }
}

/// Whether the contribution fits the entry record.
fn is_small(what: What, world: usize, count: usize, size: usize) -> bool {
    contribution(what, world, count, size) <= limit(what, world)
}

/// Counts at which something changes: none, fewer than ranks, around vectors, around what always rides along, around what
/// the record holds, and one prime beyond it.
fn counts(what: What, world: usize, size: usize) -> Vec<usize> {
    let parts = if what.gives_parts() { world } else { 1 };
    let (always, limit) = (ALWAYS / size / parts, limit(what, world) / size / parts);
    let mut counts = vec![0, 1, 2, 3, 7, 8, 15, 16, 17, always, always + 1, limit - 1, limit, limit + 1];
    match what.collective.has_parts() {
        // All parts together are as many times as long.
        true => counts.extend([256 / world, 257 / world]),
        false => counts.extend([256, 257]),
    }
    if what.collective == Collective::Barrier {
        counts = vec![0];
    }
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// The most that [`counts`] returns.
const COUNTS: usize = 16;

/// Whether there is such a call.
fn exists(case: &Case, world: usize, data_type: DataType) -> bool {
    let (size, collective) = (data_type.size(), case.what.collective);
    if !case.what.op.applies_to(data_type) {
        return false;
    }
    match case.algorithm {
        Some("one_shot") => collective != Collective::Barrier && is_small(case.what, world, case.count, size),
        Some(name) => collective != Collective::Barrier && names(collective).contains(&name),
        None => true,
    }
}

/// Everything meets everything; but only if all is to be tested, what does not change the arithmetic too.
fn product<T: Element>(comm: &Communicator, number: &mut u64, latest: &Latest) {
    let (world, size) = (comm.world_size(), size_of::<T>());
    let mut drawn = inputs::SplitMix64::new(T::DATA_TYPE as u64);
    for what in What::all().into_iter().filter(|what| what.op.applies_to(T::DATA_TYPE)) {
        for count in counts(what, world, size) {
            let everything = ALGORITHMS.len() * MEMORIES.len() * OFFSETS.len() * 2;
            let mut kinds = inputs::SplitMix64::new(count as u64);
            let mut case = |mut i: usize| {
                let mut next = |among: usize| {
                    let place = i % among;
                    i /= among;
                    place
                };
                Case {
                    what,
                    count,
                    algorithm: ALGORITHMS[next(ALGORITHMS.len())],
                    memory: MEMORIES[next(MEMORIES.len())],
                    offset: OFFSETS[next(OFFSETS.len())],
                    in_place: next(2) == 1,
                    kind: KINDS[kinds.between(0, KINDS.len() as u64 - 1) as usize],
                }
            };
            let some = std::iter::repeat_with(|| drawn.between(0, everything as u64 - 1) as usize);
            let exists = |case: &Case| exists(case, world, T::DATA_TYPE);
            let mut call = |case: Case| {
                *number += 1;
                call::<T>(comm, &case, *number, latest);
            };
            match full() {
                true => (0..everything).map(&mut case).filter(exists).for_each(call),
                false => call(some.map(case).find(exists).unwrap()),
            }
        }
    }
}

#[test]
fn on_threads_everything_meets_everything() {
    for world in 1..=8 {
        let latest = Latest::default();
        threads(world, |comm| {
            let number = &mut 0;
            for_every_type!(product(&comm, number, &latest));
        });
    }
}

/// The case with these values, if there is such a call.
fn chosen(values: &[usize], world: usize) -> Option<Case> {
    let data_type = DataType::ALL[values[0]];
    let what = What::all()[values[1]];
    let counts = counts(what, world, data_type.size());
    let case = Case {
        what,
        count: counts[values[2] * counts.len() / COUNTS],
        in_place: values[3] == 1,
        algorithm: ALGORITHMS[values[4]],
        memory: MEMORIES[values[5]],
        offset: OFFSETS[values[6]],
        kind: KINDS[values[7]],
    };
    exists(&case, world, data_type).then_some(case)
}

fn chosen_call<T: Element>(comm: &Communicator, values: &[usize], number: u64, latest: &Latest) {
    if DataType::ALL[values[0]] != T::DATA_TYPE {
        return;
    }
    if let Some(case) = chosen(values, comm.world_size()) {
        call::<T>(comm, &case, number, latest);
    }
}

#[test]
fn on_processes_every_pair_meets() {
    let dimensions = [
        DataType::ALL.len(),
        What::all().len(),
        COUNTS,
        2,
        ALGORITHMS.len(),
        MEMORIES.len(),
        OFFSETS.len(),
        KINDS.len(),
    ];
    for world in 1..=8 {
        processes(world, "on_processes_every_pair_meets", |comm| {
            let latest = Latest::default();
            if full() {
                let number = &mut 0;
                for_every_type!(product(&comm, number, &latest));
            }
            let possible = |values: &[usize]| chosen(values, world).is_some();
            for (number, values) in pairwise(&dimensions, world as u64, possible).iter().enumerate() {
                for_every_type!(chosen_call(&comm, values, number as u64, &latest));
            }
        });
    }
}

/// Lengths of several segments, of several pieces, and beyond those from which results are stored past the caches.
#[test]
fn long_messages() {
    let case = |count, in_place, algorithm, memory| Case {
        what: What { collective: Collective::AllReduce, op: ReduceOp::Sum },
        count,
        in_place,
        algorithm,
        memory,
        offset: 1,
        kind: Kind::Cancelling,
    };
    let latest = Latest::default();
    everywhere(2, "long_messages", |comm| {
        let mut number = 0;
        let mut next = || {
            number += 1;
            number
        };
        for memory in MEMORIES {
            for in_place in [false, true] {
                for algorithm in [None, Some("ring"), Some("pull"), Some("staged")] {
                    let reduced = case(30_011, in_place, algorithm, memory);
                    if exists(&reduced, 2, DataType::F32) {
                        call::<f32>(&comm, &reduced, next(), &latest);
                    }
                    for collective in Collective::ALL.into_iter().filter(|c| *c != Collective::AllReduce) {
                        let op = if collective.is_scan() { ReduceOp::Min } else { ReduceOp::Avg };
                        let what = if collective.folds() { What { collective, op } } else { What::moves(collective) };
                        let case = Case { what, ..case(9_001, in_place, algorithm, memory) };
                        if exists(&case, 2, DataType::Bf16) {
                            call::<bf16>(&comm, &case, next(), &latest);
                        }
                    }
                }
            }
        }
        for (in_place, memory) in [(false, Memory::Plain), (true, Memory::Allocated), (false, Memory::Allocated)] {
            call::<f64>(&comm, &case((4 << 20) / 8 + 3, in_place, None, memory), next(), &latest);
        }
        let staged = case((8 << 20) / 8 + 3, false, Some("staged"), Memory::Plain);
        call::<f64>(&comm, &staged, next(), &latest);
        for (collective, in_place, bytes) in [
            (Collective::Broadcast, false, 8 << 20),
            (Collective::Broadcast, true, 512 << 10),
            (Collective::Gather, false, 256 << 10),
            (Collective::Scatter, true, 512 << 10),
        ] {
            for count in [bytes / 8, bytes / 8 + 1] {
                let long = Case { what: What::moves(collective), ..case(count, in_place, None, Memory::Plain) };
                call::<u64>(&comm, &long, next(), &latest);
            }
        }
    });
}

#[test]
fn a_butterfly_of_ones_own() {
    for world in [1, 2, 4, 8] {
        everywhere(world, "a_butterfly_of_ones_own", |comm| {
            own_schedule(&comm, &Butterfly);
        });
    }
}

/// On data where that differs from rank order: x0 + x2 + x1.
#[test]
fn an_order_of_ones_own() {
    everywhere(3, "an_order_of_ones_own", |comm| {
        own_schedule(&comm, &ZeroTwoOne);
        let value = [[1e8_f32], [1.0], [-1e8]][comm.rank()];
        let verified = verify(&ZeroTwoOne, &Layout::uniform(3, 1)).unwrap();
        let mut sum = [0.0];
        comm.execute(&verified, &value, &mut sum, Some(ReduceOp::Sum)).unwrap();
        assert_eq!(sum, [1.0]);
        comm.all_reduce(&value, &mut sum, ReduceOp::Sum).unwrap();
        assert_eq!(sum, [0.0]);
    });
}

/// Executes a schedule for all-reduce as verified, in and out of place, several times, and against the reference of the
/// order that it declares.
fn own_schedule(comm: &Communicator, schedule: &dyn Schedule) {
    let (world, rank) = (comm.world_size(), comm.rank());
    for len in [0, 1, 5, 257, 10_007] {
        let layout = Layout::uniform(world, len);
        let verified = verify(schedule, &layout).unwrap();
        let in_place = verify(schedule, &layout.clone().in_place(true)).unwrap();
        for number in 0..3 {
            let inputs = inputs::cancelling::<bf16>(5, number, &vec![len; world]);
            let order = schedule.fold_order();
            for op in [ReduceOp::Sum, ReduceOp::Avg] {
                let expected = Request::AllReduce { order: &order, op }.outputs(&inputs).unwrap();
                let mut recv = vec![bf16::NAN; len];
                comm.execute(&verified, &inputs[rank], &mut recv, Some(op)).unwrap();
                compare(&recv, &expected[rank], rank).unwrap();
                let mut send = comm.allocate::<bf16>(len).unwrap();
                send.copy_from_slice(&inputs[rank]);
                let mut recv = comm.allocate::<bf16>(len).unwrap();
                comm.execute(&verified, &send, &mut recv, Some(op)).unwrap();
                compare(&recv, &expected[rank], rank).unwrap();
                comm.execute_in_place(&in_place, &mut send, Some(op)).unwrap();
                compare(&send, &expected[rank], rank).unwrap();
                let last = comm.last_call().unwrap();
                assert_eq!((last.algorithm.as_str(), last.path), (schedule.name(), "schedule"));
            }
        }
    }
}

/// A schedule under another name is another program.
struct Renamed(ZeroTwoOne);

impl Schedule for Renamed {
    fn name(&self) -> &str {
        "zero_two_one, renamed"
    }
    fn collective(&self) -> Collective {
        self.0.collective()
    }
    fn access(&self) -> annulus::schedule::Access {
        self.0.access()
    }
    fn fold_order(&self) -> FoldOrder {
        self.0.fold_order()
    }
    fn resources(&self, layout: &Layout) -> annulus::schedule::Resources {
        self.0.resources(layout)
    }
    fn program(&self, rank: usize, layout: &Layout) -> annulus::schedule::Program {
        let mut program = self.0.program(rank, layout);
        // The same folds, one element apart.
        if let Some(annulus::schedule::Step::Fold { from, to, len }) = program.steps.pop() {
            let moved = |places: &[annulus::schedule::Place], by| {
                places
                    .iter()
                    .map(|place| annulus::schedule::Place { offset: place.offset + by, ..*place })
                    .collect::<Vec<_>>()
            };
            program.fold(from.clone(), to.clone(), 1);
            program.fold(moved(&from, 1), moved(&to, 1), len - 1);
        }
        program
    }
}

#[test]
fn different_programs_are_a_mismatch_on_all() {
    everywhere(3, "different_programs_are_a_mismatch_on_all", |comm| {
        let layout = Layout::uniform(3, 100);
        let verified = match comm.rank() {
            2 => verify(&Renamed(ZeroTwoOne), &layout).unwrap(),
            _ => verify(&ZeroTwoOne, &layout).unwrap(),
        };
        let error = comm.execute(&verified, &[1.0_f32; 100], &mut [0.0; 100], Some(ReduceOp::Sum)).unwrap_err();
        let sentence = error.to_string();
        assert!(matches!(error, Error::Mismatch(_)), "{sentence}");
        assert!(sentence.contains("ranks 0, 1 call") && sentence.contains("rank 2 calls"), "{sentence}");
        assert!(sentence.contains("verified program"), "{sentence}");
    });
}

/// Reads peers' inputs, so it runs only where all can be addressed.
#[test]
fn direct_schedules_say_what_they_need() {
    let direct = annulus::schedule::direct::all_reduce();
    everywhere(2, "direct_schedules_say_what_they_need", |comm| {
        let verified = verify(&direct, &Layout::uniform(2, 1000)).unwrap();
        let (send, mut recv) = (vec![1_u32; 1000], vec![0_u32; 1000]);
        let outcome = comm.execute(&verified, &send, &mut recv, Some(ReduceOp::Sum));
        match comm.transport_kind() {
            "threads" => outcome.unwrap(),
            _ => {
                let error = outcome.unwrap_err();
                assert!(matches!(error, Error::Unsupported(_)), "{error}");
                assert!(error.to_string().contains("Communicator::allocate"), "{error}");
                // The communicator goes on.
                let mut shared = [comm.allocate::<u32>(1000).unwrap(), comm.allocate::<u32>(1000).unwrap()];
                shared[0].fill(1);
                let [send, recv] = &mut shared;
                comm.execute(&verified, send, recv, Some(ReduceOp::Sum)).unwrap();
                assert!(recv.iter().all(|sum| *sum == 2));
            }
        }
    });
}

/// What one rank can see wrong alone posts nothing: the others notice nothing, and the next call is the same one.
#[test]
fn invalid_arguments_post_nothing() {
    everywhere(2, "invalid_arguments_post_nothing", |comm| {
        let (one, mut two) = ([1.0_f32], [0.0_f32; 2]);
        let verified = verify(&Butterfly, &Layout::uniform(2, 2)).unwrap();
        let in_place = verify(&Butterfly, &Layout::uniform(2, 2).in_place(true)).unwrap();
        let of_three = verify(&ZeroTwoOne, &Layout::uniform(3, 2)).unwrap();
        let scans = [Collective::Scan, Collective::ExclusiveScan].map(|scan| {
            let schedule = named(scan, "staged", Access::Staged, None).unwrap();
            [false, true].map(|in_place| verify(&*schedule, &Layout::uniform(2, 2).in_place(in_place)).unwrap())
        });
        let refused = |outcome: annulus::Result<()>, named: &str| {
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
            assert!(error.to_string().contains(named), "{error}");
        };
        for turn in 0..2 {
            if comm.rank() == turn {
                refused(comm.all_reduce(&one, &mut two, ReduceOp::Sum), "send has 1 elements and recv 2");
                refused(comm.reduce_scatter(&one, &mut two, ReduceOp::Sum), "send has 1 elements");
                refused(comm.reduce_scatter_in_place(&mut [0.0_f32; 3], ReduceOp::Sum), "a multiple of 2");
                let float_bits = "the operation band does not apply to f32";
                refused(comm.all_reduce_in_place(&mut [0.0_f32; 3], ReduceOp::BitAnd), float_bits);
                refused(comm.all_reduce_in_place(&mut [0.0_f32; 3000], ReduceOp::BitAnd), float_bits);
                refused(comm.reduce_scatter(&[0.0_f32; 2], &mut [0.0], ReduceOp::BitAnd), float_bits);
                refused(comm.execute(&verified, &[1.0; 2], &mut two, Some(ReduceOp::BitAnd)), float_bits);
                let factor = ReduceOp::PreMulSum(2.into());
                refused(comm.all_reduce_in_place(&mut two, factor), "premul_sum(2) does not apply to f32");
                refused(comm.all_gather(&one, &mut [0.0; 3]), "recv has 3 elements");
                refused(comm.all_gather_in_place(&mut [0.0_f32; 3]), "a multiple of 2");
                refused(comm.broadcast_in_place(&mut two, 2), "no rank 2");
                refused(comm.broadcast(Some(&one), &mut two, comm.rank()), "they must be equal");
                refused(comm.broadcast(None, &mut two, comm.rank()), "must pass send");
                refused(comm.broadcast(Some(&one), &mut [0.0], 1 - comm.rank()), "pass None");
                refused(comm.set_algorithm(Some("magic")), "there is no algorithm magic");
                comm.set_algorithm(Some("bruck")).unwrap();
                refused(comm.broadcast_in_place(&mut two, 0), "there is no algorithm bruck for broadcast");
                comm.set_algorithm(Some("one_shot")).unwrap();
                refused(comm.all_reduce_in_place(&mut [0.0_f32; 3000], ReduceOp::Sum), "at most 8192 bytes");
                comm.set_algorithm(None).unwrap();
                let sum = Some(ReduceOp::Sum);
                refused(comm.execute(&verified, &one, &mut two, sum), "verified for 2 elements in");
                refused(comm.execute(&verified, &[1.0; 2], &mut two, None), "needs an operation");
                refused(comm.execute(&in_place, &[1.0; 2], &mut two, sum), "use execute_in_place");
                refused(comm.execute_in_place(&verified, &mut two, sum), "out of place; use execute");
                refused(comm.execute_in_place(&in_place, &mut [0.0_f32; 3], sum), "verified for 2 elements");
                refused(comm.execute(&of_three, &[1.0; 2], &mut two, sum), "for 3 ranks, and there are 2");
                let avg = Some(ReduceOp::Avg);
                for [scan, in_place] in &scans {
                    let len = scan.layout().output_len(scan.collective(), comm.rank());
                    refused(comm.execute(scan, &[1.0; 2], &mut two[..len], avg), "no average of them; use Sum");
                    refused(comm.execute_in_place(in_place, &mut two, avg), "no average of them; use Sum");
                }
                refused(comm.scan(&[1.0; 2], &mut two, ReduceOp::Avg), "no average of them; use Sum");
                let error = comm.start_all_reduce(vec![1.0_f32], vec![0.0_f32; 2], ReduceOp::Sum).unwrap_err();
                assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
                let error = comm.allocate::<f64>(usize::MAX).unwrap_err();
                assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
            }
            comm.all_reduce(&[1.0, 2.0], &mut two, ReduceOp::Sum).unwrap();
            assert_eq!(two, [2.0, 4.0]);
            assert_eq!(comm.last_call().unwrap().call, turn as u64);
        }
    });
}
