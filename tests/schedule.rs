// SPDX-License-Identifier: MPL-2.0
//! Schedules: every built-in one is proved for every world of 1 to 17 ranks and for lengths around every boundary, and
//! every ordered pair that could share scratch; so are two algorithms of a user's own.
//!
//! Proofs are by runs of elements, so the built-in segments are proved at their real size.

mod butterfly;
mod zero_two_one;

use annulus::schedule::{
    self, Access, Buffer, Collective, Entry, Layout, Place, Program, Resources, Schedule, bruck, chain, direct,
    dissemination, draw, partition, pull, recursive_doubling, recursive_halving, ring, rounds, staged, tree, verify,
    verify_pair,
};
use annulus::{Error, FoldOrder};
use butterfly::Butterfly;
use proptest::prelude::*;
use zero_two_one::ZeroTwoOne;

/// How many elements of a part a built-in schedule moves at once, so that lengths around it can be tried.
fn segment(schedule: &dyn Schedule, world: usize) -> usize {
    match (schedule.name(), schedule.collective()) {
        ("staged", Collective::Broadcast | Collective::AllGather | Collective::Gather) => staged::SEGMENT,
        ("staged", collective) if collective.is_scan() => staged::SCAN_SEGMENT / world,
        ("staged", _) => staged::SEGMENT / world,
        ("pull", Collective::AllToAll) => pull::SEGMENT / world,
        ("ring", Collective::AllReduce | Collective::ReduceScatter | Collective::AllGather) => ring::SEGMENT,
        ("recursive_doubling", Collective::AllReduce) => recursive_doubling::SEGMENT,
        ("ring" | "tree", Collective::Broadcast) | (_, Collective::Reduce) => chain::SEGMENT,
        ("tree", _) | ("recursive_doubling" | "recursive_halving", _) => tree::SEGMENT / world,
        ("bruck", Collective::AllGather) => rounds::SEGMENT / world,
        ("bruck", _) => {
            let travels: u32 = (0..world).map(usize::count_ones).sum();
            bruck::SEGMENT / travels.max(1) as usize
        }
        ("direct", collective) if collective.is_scan() || collective == Collective::AllToAll => direct::SEGMENT,
        _ => 4,
    }
}

/// Layouts, out of place, around the boundaries of a schedule that moves `segment` elements of a part at once.
fn lengths(collective: Collective, world: usize, segment: usize) -> Vec<Layout> {
    let n = world;
    let mut counts = match collective.has_parts() {
        true => vec![0, 1, segment - 1, segment, segment + 1, 3 * segment + 1],
        false => vec![0, 1, n - 1, n, n + 1, segment * n - 1, segment * n, segment * n + 1, 3 * segment * n + n / 2],
    };
    counts.dedup();
    let mut layouts: Vec<Layout> = counts.into_iter().map(|count| Layout::uniform(world, count)).collect();
    // Unequal parts: empty ones between parts of several segments; and one alone.
    let mixed = |r: usize| r * 5 % 4 * segment + r % 3;
    let alone = |r: usize| if r == world / 2 { 2 * segment + 1 } else { 0 };
    if collective == Collective::AllToAll {
        // The same both ways, so that they can be in place; out of place below, also others.
        let matrix = |count: &dyn Fn(usize, usize) -> usize| -> Layout {
            let row = |from| (0..world).map(|to| count(from, to)).collect::<Vec<_>>();
            Layout::matrix(&(0..world).map(row).collect::<Vec<_>>())
        };
        layouts.push(matrix(&|from, to| mixed(from + to)));
        layouts.push(matrix(&|from, to| if from == to { 1 } else { alone(from.min(to)) }));
    } else if collective.has_parts() {
        layouts.push(Layout::varying(&(0..world).map(mixed).collect::<Vec<_>>()));
        layouts.push(Layout::varying(&(0..world).map(alone).collect::<Vec<_>>()));
    }
    if collective.has_root() {
        layouts = layouts.into_iter().enumerate().map(|(i, layout)| layout.with_root(i * 7 % world)).collect();
    }
    layouts
}

/// The same, in place and out of place: up to 8 ranks each length both ways, above in turn.
fn layouts(collective: Collective, world: usize, segment: usize) -> impl Iterator<Item = Layout> {
    let both = |layout: &Layout| [false, true].map(|in_place| layout.clone().in_place(in_place));
    let lengths = lengths(collective, world, segment);
    let chosen = move |index: usize| world <= 8 || index / 2 % 2 == index % 2;
    let all: Vec<Layout> = lengths.iter().flat_map(both).collect();
    all.into_iter().enumerate().filter(move |&(index, _)| chosen(index)).map(|(_, layout)| layout)
}

fn prove(schedule: &dyn Schedule, layout: &Layout) {
    if let Err(fault) = verify(schedule, layout) {
        panic!("{} {} for {layout:?}: {fault}", schedule.name(), schedule.collective());
    }
}

fn sweep(is_meant: impl Fn(&str) -> bool) {
    for schedule in schedule::built_in().into_iter().filter(|schedule| is_meant(schedule.name())) {
        for world in 1..=17 {
            for layout in layouts(schedule.collective(), world, segment(&*schedule, world)) {
                prove(&*schedule, &layout);
            }
        }
    }
}

#[test]
fn ring_is_right() {
    sweep(|name| name == "ring");
}

#[test]
fn staged_is_right() {
    sweep(|name| name == "staged");
}

#[test]
fn pull_is_right() {
    sweep(|name| name == "pull");
}

#[test]
fn tree_is_right() {
    sweep(|name| name == "tree");
}

#[test]
fn recursive_doubling_and_halving_are_right() {
    sweep(|name| ["recursive_doubling", "recursive_halving"].contains(&name));
}

#[test]
fn bruck_is_right() {
    sweep(|name| name == "bruck");
}

#[test]
fn all_others_are_right() {
    sweep(|name| ["barrier", "dissemination", "one_shot", "direct"].contains(&name));
}

#[test]
fn staged_is_right_at_other_depths() {
    for depth in [4, 5] {
        for world in [1, 2, 3, 5] {
            let schedules = [
                staged::all_reduce(6, depth),
                staged::reduce_scatter(6, depth),
                staged::all_gather(6, depth),
                staged::broadcast(6, depth),
                staged::reduce(6, depth),
                staged::scatter(6, depth),
                staged::gather(6, depth),
                staged::all_to_all(6, depth),
                staged::scan(6, depth),
                staged::exclusive_scan(6, depth),
            ];
            for schedule in schedules {
                for layout in layouts(schedule.collective(), world, 6) {
                    prove(&schedule, &layout);
                }
            }
        }
    }
}

#[test]
fn unequal_all_to_all_is_right() {
    for schedule in schedule::built_in().into_iter().filter(|s| s.collective() == Collective::AllToAll) {
        for world in 1..=17 {
            let segment = segment(&*schedule, world);
            let count = |from: usize, to: usize| (from * 3 + to * 5) % 4 * segment + from % 3;
            let row = |from| (0..world).map(|to| count(from, to)).collect::<Vec<_>>();
            prove(&*schedule, &Layout::matrix(&(0..world).map(row).collect::<Vec<_>>()));
            prove(&*schedule, &Layout::varying(&(0..world).map(|r| r % 3 * segment).collect::<Vec<_>>()));
        }
    }
}

/// An all-gather through slots that has nothing but a barrier's signals and waits between staging and copying out.
struct Around<B>(B);

impl<B: Schedule> Schedule for Around<B> {
    fn name(&self) -> &str {
        "around"
    }

    fn collective(&self) -> Collective {
        Collective::AllGather
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn resources(&self, layout: &Layout) -> Resources {
        Resources { slot: 1, depth: 1, ..self.0.resources(layout) }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let slot = |r| Place::new(r, Buffer::Slot(0), 0);
        let mut program = Program::new();
        program.copy(Place::new(rank, Buffer::Input, 0), [slot(rank)], 1);
        program.steps.extend(self.0.program(rank, layout).steps);
        (0..layout.world()).for_each(|r| program.copy(slot(r), [Place::new(rank, Buffer::Output, r)], 1));
        program
    }
}

#[test]
fn dissemination_lets_nobody_leave_before_all_have_come() {
    for world in 1..=33 {
        prove(&Around(dissemination::barrier()), &Layout::uniform(world, 1));
    }
    // The entry, which is all of the other barrier, comes too soon for this.
    assert!(verify(&Around(schedule::barrier::barrier()), &Layout::uniform(2, 1)).is_err());
}

#[test]
fn every_ordered_pair_can_share_scratch() {
    for world in [2, 3] {
        let long = |schedule: &dyn Schedule| {
            let lengths = lengths(schedule.collective(), world, segment(schedule, world));
            lengths.into_iter().max_by_key(Layout::total).expect("there are lengths").in_place(true)
        };
        let all: Vec<_> = schedule::built_in().into_iter().map(|schedule| (long(&*schedule), schedule)).collect();
        for (first_layout, first) in &all {
            for (second_layout, second) in &all {
                if let Err(fault) = verify_pair((&**first, first_layout), (&**second, second_layout)) {
                    panic!("{first_layout:?} by {}, {second_layout:?} by {}: {fault}", first.name(), second.name());
                }
            }
        }
    }
}

#[test]
fn long_messages_are_loops() {
    let layout = Layout::uniform(4, 1 << 28);
    for schedule in schedule::built_in() {
        let steps = schedule.program(1, &layout).steps.len();
        assert!(steps < 300, "{} {}: {steps} steps", schedule.name(), schedule.collective());
    }
}

#[test]
fn shared_memory_is_moderate() {
    for world in 1..=4 {
        let layout = Layout::uniform(world, 1 << 24);
        for schedule in schedule::built_in().into_iter().filter(|schedule| schedule.entry() == Entry::Barrier) {
            let needs = schedule.resources(&layout);
            let bytes = 4 * (needs.scratch + needs.depth * (needs.slot + needs.partial));
            assert!(bytes <= 96 * 1024, "{} {}: {bytes} bytes of f32", schedule.name(), schedule.collective());
        }
    }
}

#[test]
fn algorithms_are_found_by_name() {
    for schedule in schedule::built_in() {
        let found =
            schedule::named(schedule.collective(), schedule.name(), schedule.access(), None).expect("it is built in");
        assert_eq!(found.access(), schedule.access());
    }
    let ring = |access| schedule::named(Collective::AllReduce, "ring", access, None).expect("it is built in").access();
    assert_eq!((ring(Access::Direct), ring(Access::Staged)), (Access::Direct, Access::Staged));
    let fallback = schedule::named(Collective::AllReduce, "direct", Access::Staged, None).expect("it is staged");
    assert_eq!((fallback.name(), fallback.access()), ("staged", Access::Staged));
    assert!(schedule::named(Collective::AllReduce, "staged", Access::Direct, None).is_some());
    assert!(schedule::named(Collective::Barrier, "ring", Access::Direct, None).is_none());
}

#[test]
fn what_selection_may_choose_folds_in_rank_order() {
    let chosen = ["barrier", "one_shot", "direct", "staged"];
    for schedule in schedule::built_in().into_iter().filter(|schedule| chosen.contains(&schedule.name())) {
        assert_eq!(schedule.fold_order(), FoldOrder::Rank);
    }
}

#[test]
fn a_verified_schedule_keeps_what_was_proved() {
    let layout = Layout::uniform(4, 10).in_place(true);
    let schedule = ring::all_reduce(Access::Direct, 2);
    let verified = verify(&schedule, &layout).expect("it is right");
    assert_eq!((verified.name(), verified.collective()), ("ring", Collective::AllReduce));
    assert_eq!((verified.layout(), verified.access(), verified.entry()), (&layout, Access::Direct, Entry::Barrier));
    assert_eq!((verified.fold_order(), verified.resources()), (&FoldOrder::Ring, schedule.resources(&layout)));
    for rank in 0..4 {
        assert_eq!(*verified.program(rank), schedule.program(rank, &layout));
    }
    assert!(verified.program(4).steps.is_empty());
}

#[test]
fn rounds_are_counted() {
    let rounds = |schedule: &dyn Schedule, layout: &Layout| verify(schedule, layout).expect("it is right").rounds();
    let four = Layout::uniform(4, 100);
    assert_eq!(rounds(&schedule::barrier::barrier(), &four), 1);
    assert_eq!(rounds(&schedule::one_shot::all_reduce(), &four), 1);
    assert_eq!(rounds(&schedule::direct::all_reduce(), &four), 2);
    assert_eq!(rounds(&staged::all_reduce(100, 2), &four), 3);
    assert_eq!(rounds(&Butterfly, &four), 3);
    let eight = Layout::uniform(8, 100);
    assert_eq!(rounds(&dissemination::barrier(), &eight), 4);
    assert_eq!(rounds(&recursive_doubling::all_reduce(100), &eight), 4);
    assert_eq!(rounds(&recursive_halving::reduce_scatter(800), &eight), 4);
    assert_eq!(rounds(&bruck::all_gather(Access::Staged, 800), &eight), 4);
    assert_eq!(rounds(&bruck::all_to_all(1200), &eight), 4);
    assert_eq!(rounds(&tree::broadcast(Access::Staged, 100), &eight), 4);
    assert_eq!(rounds(&tree::reduce(100), &eight), 4);
    assert_eq!(rounds(&tree::gather(800), &eight), 4);
    assert_eq!(rounds(&tree::scatter(800), &eight), 4);
    assert_eq!(rounds(&chain::broadcast(Access::Staged, 100), &eight), 8);
}

/// The hash is part of what ranks compare, so it must not depend on the machine: these numbers are kept by hand.
#[test]
fn hashes_tell_schedules_apart() {
    let hash = |schedule: &dyn Schedule, layout: &Layout| verify(schedule, layout).expect("it is right").hash();
    let (ten, eleven) = (Layout::uniform(4, 10), Layout::uniform(4, 11));
    let hashes = [
        hash(&schedule::direct::all_reduce(), &ten),
        hash(&schedule::direct::all_reduce(), &eleven),
        hash(&schedule::direct::all_reduce(), &ten.clone().in_place(true)),
        hash(&schedule::direct::broadcast(), &ten),
        hash(&schedule::direct::broadcast(), &ten.clone().with_root(1)),
        hash(&ring::all_reduce(Access::Staged, 2), &ten),
        hash(&ring::all_reduce(Access::Staged, 3), &ten),
        hash(&direct::all_to_all(4), &Layout::matrix(&[[1, 2], [0, 3]])),
        hash(&direct::all_to_all(4), &Layout::matrix(&[[2, 1], [0, 3]])),
    ];
    for (index, one) in hashes.iter().enumerate() {
        assert!(!hashes[..index].contains(one));
    }
    assert_eq!(hashes[0], hash(&schedule::direct::all_reduce(), &ten));
    assert_eq!(hashes[0], 12158415732978544246);
}

#[test]
fn butterfly_of_a_user_is_right() {
    for world in [1, 2, 4, 8, 16] {
        for len in [0, 1, 2, 1000] {
            for in_place in [false, true] {
                prove(&Butterfly, &Layout::uniform(world, len).in_place(in_place));
            }
        }
    }
    assert!(verify(&Butterfly, &Layout::uniform(6, 10)).is_err());
}

#[test]
fn an_order_of_ones_own_is_right() {
    for len in [0, 1, 1000] {
        for in_place in [false, true] {
            prove(&ZeroTwoOne, &Layout::uniform(3, len).in_place(in_place));
        }
    }
    assert!(verify(&ZeroTwoOne, &Layout::uniform(4, 10)).is_err());
}

#[test]
fn impossible_layouts_are_refused_in_words() {
    let all_reduce = schedule::direct::all_reduce();
    let broadcast = schedule::direct::broadcast();
    let refusal = |schedule: &dyn Schedule, layout: &Layout| {
        let fault = verify(schedule, layout).expect_err("it cannot be");
        assert!(draw(schedule, layout).contains(&fault.to_string()));
        Error::from(fault).to_string()
    };
    assert_eq!(
        refusal(&broadcast, &Layout::uniform(2, 10).with_root(2)),
        "the schedule is wrong: the root is rank 2, but the ranks are 0 to 1"
    );
    assert_eq!(
        refusal(&all_reduce, &Layout::varying(&[3, 3, 4])),
        "the schedule is wrong: all_reduce takes one length on all ranks, but rank 0 has 3 elements and rank 2 has 4"
    );
    assert_eq!(
        refusal(&all_reduce, &Layout::uniform(3, usize::MAX / 2)),
        format!("the schedule is wrong: 3 ranks with up to {} elements each exceed any memory", usize::MAX / 2)
    );
    assert_eq!(
        refusal(&all_reduce, &Layout::uniform(1 << 40, 1)),
        format!("the schedule is wrong: {} ranks are too many to prove (at most 1024)", 1u64 << 40)
    );
    let deep = staged::all_reduce(4, 1 << 40);
    assert!(refusal(&deep, &Layout::uniform(4, 10)).ends_with("is too much to prove (at most 1024)"));
    let tiny = ring::all_reduce(Access::Direct, 1);
    assert!(refusal(&tiny, &Layout::uniform(4, 1 << 30)).ends_with("use longer segments"));
    prove(&schedule::direct::all_gather(), &Layout::varying(&[]));
    let rows = [[1, 2], [3, 4]];
    assert_eq!(
        refusal(&schedule::direct::all_gather(), &Layout::matrix(&rows)),
        "the schedule is wrong: all_gather takes one count a rank; a matrix of counts is for all_to_all"
    );
    assert_eq!(
        refusal(&direct::all_to_all(4), &Layout::matrix(&rows).in_place(true)),
        "the schedule is wrong: in an all_to_all in place ranks swap parts, but rank 0 has 2 elements for rank 1 and \
         rank 1 has 3 for rank 0; give both the same, or use two buffers"
    );
    prove(&direct::all_to_all(4), &Layout::matrix(&[[0usize; 0]; 0]));
}

#[test]
fn a_drawing_shows_every_step() {
    let text = draw(&ring::reduce_scatter(Access::Staged, 4), &Layout::uniform(3, 14));
    let (hash, _) = text.split_once("hash ").expect("a hash").1.split_once('\n').expect("further lines");
    let expected = "\
reduce_scatter by ring: 3 ranks, count 14, out of place
access      staged: ranks share scratch alone
entry       a barrier, then the program
fold order  ring: 1 2 0 | 2 0 1 | 0 1 2
proved      12 rounds, hash HASH
needs       2 slots of 4 elements, 2 partials of 4 accumulators, 1 flag advancing by 12 a rank
notation    rank:buffer[elements]; +n: further by n with each turn of a loop

rank 0: reads 70 elements (28 of other ranks), writes 42 (0 of other ranks)
     0    repeat 3 times
     0.0    wait    flag 0 of 2 reaches 0+3
     0.1    wait    flag 0 of 1 reaches 0+3
     0.2    copy    0:input[28..32]+4  ->  0:slot0[0..4]
     0.3    signal  flag 0 is 1+3, to 2 1
     0.4    wait    flag 0 of 2 reaches 1+3
     0.5    wait    flag 0 of 1 reaches 1+3
     0.6    fold    2:slot0[0..4] 0:input[14..18]+4  ->  0:partial1[0..4]
     0.7    signal  flag 0 is 2+3, to 2 1
     0.8    wait    flag 0 of 2 reaches 2+3
     0.9    fold    2:partial1[0..4] 0:input[0..4]+4  ->  0:output[0..4]+4
    0.10    signal  flag 0 is 3+3, to 2 1
     1    wait    flag 0 of 2 reaches 9
";
    assert!(text.replace(hash, "HASH").starts_with(expected), "{text}");
    assert!(text.contains("rank 1: reads"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parts_are_contiguous_complete_and_even(len in 0usize..10_000, parts in 1usize..40) {
        let mut end = 0;
        let mut longest = usize::MAX;
        for index in 0..parts {
            let part = partition::part(len, parts, index);
            prop_assert_eq!(part.start, end);
            prop_assert!(part.len() <= longest, "longer parts come first");
            prop_assert!(part.len() == len / parts || part.len() == len / parts + 1);
            longest = part.len();
            end = part.end;
        }
        prop_assert_eq!(end, len);
        prop_assert_eq!(partition::part(len, parts, parts + 3), len..len);
    }

    #[test]
    fn uneven_parts_and_odd_segments_are_right(
        counts in prop::collection::vec(prop_oneof![Just(0usize), 0usize..40], 1..6),
        segment in 1usize..12,
        depth in 3usize..6,
        in_place: bool,
    ) {
        let layout = Layout::varying(&counts).in_place(in_place);
        prove(&staged::reduce_scatter(segment, depth), &layout);
        prove(&staged::all_gather(segment, depth), &layout);
        prove(&recursive_halving::reduce_scatter(segment), &layout);
        for access in [Access::Direct, Access::Staged] {
            prove(&ring::reduce_scatter(access, segment), &layout);
            prove(&ring::all_gather(access, segment), &layout);
            prove(&recursive_doubling::all_gather(access, segment), &layout);
            prove(&bruck::all_gather(access, segment), &layout);
        }
        let rooted = layout.clone().with_root(counts.len() / 2);
        prove(&staged::scatter(segment, depth), &rooted);
        prove(&staged::gather(segment, depth), &rooted);
        prove(&tree::scatter(segment), &rooted);
        prove(&tree::gather(segment), &rooted);
        let pair = |from: usize, to: usize| counts[from].min(counts[to]);
        let row = |from| (0..counts.len()).map(|to| pair(from, to)).collect::<Vec<_>>();
        let matrix = Layout::matrix(&(0..counts.len()).map(row).collect::<Vec<_>>()).in_place(in_place);
        prove(&direct::all_to_all(segment), &matrix);
        prove(&staged::all_to_all(segment, depth), &matrix);
        prove(&bruck::all_to_all(segment), &matrix);
        let layout = Layout::uniform(counts.len(), counts.iter().sum()).in_place(in_place);
        prove(&staged::all_reduce(segment, depth), &layout);
        prove(&staged::broadcast(segment, depth), &layout.clone().with_root(counts.len() / 2));
        prove(&ring::all_reduce(Access::Direct, segment), &layout);
        prove(&ring::all_reduce(Access::Staged, segment), &layout);
        prove(&recursive_doubling::all_reduce(segment), &layout);
        prove(&direct::scan(segment), &layout);
        prove(&direct::exclusive_scan(segment), &layout);
        prove(&staged::scan(segment, depth), &layout);
        prove(&staged::exclusive_scan(segment, depth), &layout);
        let rooted = layout.clone().with_root(counts.len() / 2);
        prove(&staged::reduce(segment, depth), &rooted);
        prove(&tree::reduce(segment), &rooted);
        for access in [Access::Direct, Access::Staged] {
            prove(&tree::broadcast(access, segment), &rooted);
            prove(&chain::broadcast(access, segment), &rooted);
        }
    }
}
