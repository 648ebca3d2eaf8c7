// SPDX-License-Identifier: MPL-2.0
//! Negative controls: each mistake planted in a right schedule must be caught, by a sentence that names it.

use annulus::FoldOrder;
use annulus::schedule::{
    Access, Buffer, Collective, Entry, Fault, Layout, Place, Program, Resources, Schedule, Step, bruck, chain, direct,
    one_shot, recursive_doubling, recursive_halving, ring, staged, tree, verify, verify_pair,
};

/// A right schedule with a mistake in one rank's program, in its resources or in its fold order.
struct Mistaken<'a> {
    right: &'a dyn Schedule,
    rank: usize,
    steps: Vec<Step>,
    resources: Resources,
    fold_order: FoldOrder,
}

impl<'a> Mistaken<'a> {
    fn new(right: &'a dyn Schedule, layout: &Layout, rank: usize, mistake: impl FnOnce(&mut Vec<Step>)) -> Self {
        let mut steps = right.program(rank, layout).steps;
        mistake(&mut steps);
        Mistaken { right, rank, steps, resources: right.resources(layout), fold_order: right.fold_order() }
    }
}

impl Schedule for Mistaken<'_> {
    fn name(&self) -> &str {
        "mistaken"
    }

    fn collective(&self) -> Collective {
        self.right.collective()
    }

    fn access(&self) -> Access {
        self.right.access()
    }

    fn entry(&self) -> Entry {
        self.right.entry()
    }

    fn fold_order(&self) -> FoldOrder {
        self.fold_order.clone()
    }

    fn resources(&self, _: &Layout) -> Resources {
        self.resources
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        match rank == self.rank {
            true => Program { steps: self.steps.clone() },
            false => self.right.program(rank, layout),
        }
    }
}

fn ten() -> Layout {
    Layout::uniform(3, 10)
}

/// The sentence with which `right`, for [`ten`], is refused after a mistake in rank `rank`'s program.
#[track_caller]
fn refusal(right: impl Schedule, rank: usize, mistake: impl FnOnce(&mut Vec<Step>)) -> String {
    let layout = ten();
    sentence(&Mistaken::new(&right, &layout, rank, mistake), &layout)
}

#[track_caller]
fn sentence(schedule: &dyn Schedule, layout: &Layout) -> String {
    verify(schedule, layout).expect_err("the mistake must be caught").to_string()
}

/// The sources and destinations of the first copy or fold.
fn places(steps: &mut [Step]) -> (&mut [Place], &mut [Place]) {
    let places = steps.iter_mut().find_map(|step| match step {
        Step::Fold { from, to, .. } => Some((&mut from[..], &mut to[..])),
        Step::Copy { from, to, .. } => Some((std::slice::from_mut(from), &mut to[..])),
        _ => None,
    });
    places.expect("the right program moves something")
}

fn is_wait(step: &Step) -> bool {
    matches!(step, Step::Wait { .. })
}

fn is_signal(step: &Step) -> bool {
    matches!(step, Step::Signal { .. })
}

fn is_work(step: &Step) -> bool {
    matches!(step, Step::Copy { .. } | Step::Fold { .. })
}

fn remove_first(steps: &mut Vec<Step>, is_it: impl Fn(&Step) -> bool) {
    let index = steps.iter().position(is_it).expect("the right program has such a step");
    steps.remove(index);
}

#[test]
fn dropped_wait() {
    let sentence = refusal(one_shot::all_reduce(), 1, |steps| remove_first(steps, is_wait));
    assert_eq!(sentence, "rank 1, call 0, step 3 reads elements 0..10 of rank 2's slot 0, which nobody has written");
}

#[test]
fn missing_exit_wait() {
    let sentence = refusal(direct::all_reduce(), 1, |steps| remove_first(steps, is_wait));
    assert_eq!(
        sentence,
        "rank 1's user after call 0 reads elements 7..10 of rank 1's output, which rank 2, call 0, step \
         0 writes, and no signal orders the two"
    );
}

#[test]
fn missing_exit_wait_of_a_ring() {
    let sentence = refusal(ring::all_gather(Access::Direct, 4), 1, |steps| {
        steps.pop();
    });
    assert_eq!(
        sentence,
        "rank 1's user after call 0 writes elements 8..10 of rank 1's output, which rank 2, call 0, \
         step 8 reads, and no signal orders the two"
    );
}

#[test]
fn early_signal() {
    let sentence = refusal(one_shot::all_reduce(), 1, |steps| steps.swap(0, 1));
    assert_eq!(
        sentence,
        "rank 2, call 0, step 4 reads elements 0..10 of rank 1's slot 0, which rank 1, call 0, step 1 \
         writes, and no signal orders the two"
    );
}

#[test]
fn early_exit_signal() {
    let sentence = refusal(direct::all_reduce(), 1, |steps| steps.swap(0, 1));
    assert_eq!(
        sentence,
        "rank 0's user after call 0 reads elements 4..7 of rank 0's output, which rank 1, call 0, step \
         1 writes, and no signal orders the two"
    );
}

#[test]
fn signal_that_does_not_name_its_waiter() {
    let sentence = refusal(direct::all_reduce(), 2, |steps| {
        let signal = steps.iter_mut().find(|step| is_signal(step));
        let Some(Step::Signal { to, .. }) = signal else { panic!("there is a signal") };
        to.retain(|&rank| rank != 1);
    });
    assert_eq!(
        sentence,
        "rank 1, call 0, step 2 waits for flag 0 of rank 2, but rank 2, call 0, step 1 does not signal \
         to it"
    );
}

#[test]
fn slot_reused_one_call_too_soon() {
    let (right, layout) = (one_shot::all_reduce(), ten());
    let mut mistaken = Mistaken::new(&right, &layout, 0, |_| {});
    mistaken.resources.depth = 1;
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 0, call 1, step 0 writes elements 0..10 of rank 0's slot 0, which rank 2, call 0, step 4 \
         reads, and no signal orders the two"
    );
}

#[test]
fn slot_reused_one_segment_too_soon() {
    let (right, layout) = (staged::all_reduce(6, 3), Layout::uniform(3, 60));
    let mut mistaken = Mistaken::new(&right, &layout, 0, |_| {});
    mistaken.resources.depth = 2;
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 2, call 0, step 5 reads elements 4..6 of rank 1's slot 0, which rank 1, call 0, step 10 \
         writes, and no signal orders the two"
    );
}

#[test]
fn wait_for_one_segment_too_few() {
    let (right, layout) = (staged::broadcast(6, 3), Layout::uniform(3, 60));
    let mistaken = Mistaken::new(&right, &layout, 0, |steps| {
        let body = steps.iter_mut().find_map(|step| match step {
            Step::Repeat { body, .. } if is_wait(&body[0]) => Some(body),
            _ => None,
        });
        let Some(Step::Wait { value, .. }) = body.map(|body| &mut body[0]) else { panic!("the root waits for room") };
        *value -= 1;
    });
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 0, call 0, step 1.2 in turn 0 writes elements 0..6 of rank 0's slot 0, which rank 1, call \
         0, step 0.1 in turn 0 reads, and no signal orders the two"
    );
}

#[test]
fn partial_overwritten_while_it_is_read() {
    let (right, layout) = (ring::reduce_scatter(Access::Direct, 4), Layout::uniform(6, 4));
    let mistaken = Mistaken::new(&right, &layout, 2, |steps| {
        let successor = |step: &Step| matches!(step, Step::Wait { rank: 3, value: 2, .. });
        remove_first(steps, successor);
    });
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 3, call 0, step 6 reads elements 0..4 of rank 2's partial 1, which rank 2, call 0, step 9 \
         writes, and no signal orders the two"
    );
}

#[test]
fn swapped_chunk() {
    let sentence = refusal(direct::all_reduce(), 1, |steps| {
        let (from, to) = places(steps);
        from.iter_mut().chain(to).for_each(|place| place.offset = 7);
    });
    assert_eq!(
        sentence,
        "rank 1, call 0, step 0 writes elements 7..10 of rank 0's output, which rank 2, call 0, step 0 \
         writes, and no signal orders the two"
    );
}

#[test]
fn swapped_chunk_of_an_all_gather() {
    let sentence = refusal(one_shot::all_gather(), 1, |steps| {
        let copies: Vec<usize> = (0..steps.len()).filter(|&index| is_work(&steps[index])).collect();
        for (copy, offset) in [(copies[1], 10), (copies[2], 0)] {
            let (_, to) = places(&mut steps[copy..]);
            to[0].offset = offset;
        }
    });
    assert_eq!(
        sentence,
        "rank 1, call 0: elements 0..10 of the output should end as the input of rank 0 from element 0 \
         on, and rank 1, call 0, step 5 has left the input of rank 1 from element 0 on"
    );
}

#[test]
fn different_elements_folded() {
    let sentence = refusal(direct::all_reduce(), 1, |steps| places(steps).0[2].offset += 1);
    assert_eq!(sentence, "rank 1, call 0, step 0 folds element 4 (rank 0's input) with element 5 (rank 2's input)");
}

#[test]
fn doubled_contribution() {
    let sentence = refusal(direct::all_reduce(), 1, |steps| {
        let (from, _) = places(steps);
        from[2] = from[0];
    });
    assert_eq!(
        sentence,
        "rank 0, call 0: elements 4..7 of the output should end as the fold [0 1 2] from element 4 on, \
         and rank 1, call 0, step 0 has left the fold [0 1 0] from element 4 on"
    );
}

#[test]
fn doubled_contribution_to_a_reduce() {
    let layout = ten().with_root(1);
    let right = direct::reduce();
    let mistaken = Mistaken::new(&right, &layout, 2, |steps| {
        let (from, _) = places(steps);
        from[0] = from[1];
    });
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 1, call 0: elements 7..10 of the output should end as the fold [0 1 2] from element 7 on, and rank \
         2, call 0, step 0 has left the fold [1 1 2] from element 7 on"
    );
}

#[test]
fn wrong_root_of_a_reduce() {
    let sentence = refusal(direct::reduce(), 2, |steps| places(steps).1[0].rank = 1);
    assert_eq!(sentence, "rank 2, call 0, step 0 reaches elements 7..10 of rank 1's output, which has 0");
}

#[test]
fn wrong_root_of_a_broadcast() {
    let (right, layout) = (staged::broadcast(6, 3), ten());
    let mistaken = Mistaken::new(&right, &layout, 1, |steps| places(steps).0[0].rank = 2);
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 1, call 0, step 1 reads elements 0..6 of rank 2's slot 0, which nobody has written"
    );
}

#[test]
fn swapped_part_of_a_scatter() {
    let sentence = refusal(one_shot::scatter(), 1, |steps| places(steps).0[0].offset = 20);
    assert_eq!(
        sentence,
        "rank 1, call 0: elements 0..10 of the output should end as the input of rank 0 from element 10 on, and \
         rank 1, call 0, step 3 has left the input of rank 0 from element 20 on"
    );
}

#[test]
fn missing_exit_wait_of_a_scatter() {
    let sentence = refusal(direct::scatter(), 0, |steps| remove_first(steps, is_wait));
    assert_eq!(
        sentence,
        "rank 0's user after call 0 writes elements 10..20 of rank 0's input, which rank 1, call 0, step 0 reads, \
         and no signal orders the two"
    );
}

#[test]
fn early_signal_of_a_gather() {
    let sentence = refusal(staged::gather(10, 3), 1, |steps| steps.swap(0, 1));
    assert_eq!(
        sentence,
        "rank 0, call 0, step 1 reads elements 0..10 of rank 1's slot 0, which rank 1, call 0, step 1 writes, and \
         no signal orders the two"
    );
}

#[test]
fn part_of_a_gather_at_another_place() {
    let sentence = refusal(direct::gather(), 1, |steps| places(steps).1[0].offset = 20);
    assert_eq!(
        sentence,
        "rank 1, call 0, step 0 writes elements 20..30 of rank 0's output, which rank 2, call 0, step 0 writes, \
         and no signal orders the two"
    );
}

#[test]
fn swapped_part_of_an_all_to_all() {
    let sentence = refusal(direct::all_to_all(4), 1, |steps| {
        let Step::Copy { from, .. } = &mut steps[1] else { panic!("the parts are copied one by one") };
        from.offset = 20;
    });
    assert_eq!(
        sentence,
        "rank 1, call 0: elements 20..30 of the output should end as the input of rank 2 from element 10 on, and \
         rank 1, call 0, step 1 has left the input of rank 2 from element 20 on"
    );
}

#[test]
fn part_of_an_all_to_all_swapped_twice() {
    let layout = ten().in_place(true);
    let right = direct::all_to_all(5);
    let mistaken = Mistaken::new(&right, &layout, 0, |steps| {
        for step in &mut steps[..3] {
            let Step::Copy { from, to, .. } = step else { panic!("a swap is three copies") };
            let of_buffers = to.iter_mut().chain([from]).filter(|place| place.buffer == Buffer::Output);
            of_buffers.for_each(|place| place.offset += 5);
        }
    });
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 1, call 0, step 3 reads elements 5..10 of rank 1's output, which rank 0, call 0, step 2 writes, and \
         no signal orders the two"
    );
}

#[test]
fn own_contribution_in_an_exclusive_scan() {
    let sentence = refusal(one_shot::exclusive_scan(), 1, |steps| {
        let (from, _) = places(&mut steps[4..]);
        from[0].rank = 1;
    });
    assert_eq!(
        sentence,
        "rank 1, call 0: elements 0..10 of the output should end as the fold [0] from element 0 on, and rank 1, \
         call 0, step 4 has left the fold [1] from element 0 on"
    );
}

#[test]
fn doubled_contribution_to_a_scan() {
    let sentence = refusal(direct::scan(4), 0, |steps| {
        let Step::Fold { from, .. } = &mut steps[1] else { panic!("prefixes are folded one by one") };
        from[1].rank = 0;
    });
    assert_eq!(
        sentence,
        "rank 1, call 0: elements 0..4 of the output should end as the fold [0 1] from element 0 on, and rank 0, \
         call 0, step 1 has left the fold [0 0] from element 0 on"
    );
}

#[test]
fn result_for_the_first_rank_of_an_exclusive_scan() {
    let sentence = refusal(direct::exclusive_scan(4), 0, |steps| {
        let Step::Fold { to, .. } = &mut steps[1] else { panic!("prefixes are folded one by one") };
        to[0].rank = 0;
    });
    assert_eq!(sentence, "rank 0, call 0, step 1 reaches elements 0..4 of rank 0's output, which has 0");
}

#[test]
fn dropped_wait_of_a_reduce_by_its_root_alone() {
    let sentence = refusal(staged::reduce(10, 3), 0, |steps| remove_first(steps, is_wait));
    assert_eq!(sentence, "rank 0, call 0, step 1 reads elements 0..10 of rank 1's slot 0, which nobody has written");
}

#[test]
fn dropped_wait_of_a_staged_scan() {
    let sentence = refusal(staged::scan(10, 3), 1, |steps| remove_first(steps, is_wait));
    assert_eq!(
        sentence,
        "rank 1, call 0, step 6 reads elements 4..7 of rank 2's slot 0, which rank 2, call 0, step 0 writes, and \
         no signal orders the two"
    );
}

#[test]
fn wrong_parent_in_a_chain() {
    let (right, layout) = (chain::broadcast(Access::Staged, 10), ten());
    let mistaken = Mistaken::new(&right, &layout, 2, |steps| {
        let Step::Wait { rank, .. } = &mut steps[0] else { panic!("a rank waits for its parent") };
        *rank = 0;
    });
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 2, call 0, step 0 waits for flag 0 of rank 0, but rank 0, call 0, step 1 does not signal to it"
    );
}

#[test]
fn halves_folded_the_other_way_round() {
    let sentence = refusal(recursive_doubling::all_reduce(10), 1, |steps| {
        let Step::Fold { from, .. } = &mut steps[3] else { panic!("a fold follows the wait") };
        from.reverse();
    });
    assert_eq!(
        sentence,
        "rank 1, call 0: elements 0..4 of the output should end as the fold [0 1 2] from element 0 on, and rank \
         1, call 0, step 6 has left the fold [1 0 2] from element 0 on"
    );
}

#[test]
fn doubled_contribution_to_a_tree() {
    let sentence = refusal(tree::reduce(10), 0, |steps| {
        let Step::Fold { from, .. } = &mut steps[1] else { panic!("a fold follows the wait") };
        from[1] = from[0];
    });
    assert_eq!(
        sentence,
        "rank 0, call 0: elements 0..4 of the output should end as the fold [0 1 2] from element 0 on, and rank \
         0, call 0, step 3 has left the fold [0 0 2] from element 0 on"
    );
}

#[test]
fn swapped_part_of_recursive_halving() {
    let sentence = refusal(recursive_halving::reduce_scatter(30), 1, |steps| {
        let (from, _) = places(steps);
        from[0].offset = 20;
    });
    assert_eq!(
        sentence,
        "rank 0, call 0, step 3 folds element 0 (rank 0's input) with element 20 (rank 1's partial 0)"
    );
}

#[test]
fn early_signal_of_bruck() {
    let sentence = refusal(bruck::all_to_all(40), 1, |steps| steps[..3].rotate_right(1));
    assert_eq!(
        sentence,
        "rank 2, call 0, step 5 reads elements 0..10 of rank 1's slot 0, which rank 1, call 0, step 1 writes, and \
         no signal orders the two"
    );
}

#[test]
fn dropped_wait_of_a_gathering() {
    let sentence = refusal(bruck::all_gather(Access::Direct, 4), 2, |steps| remove_first(steps, is_wait));
    assert_eq!(sentence, "rank 2, call 0, step 2 reads elements 0..10 of rank 0's output, which nobody has written");
}

#[test]
fn slots_of_a_gathering_used_too_soon() {
    let (right, layout) = (bruck::all_gather(Access::Staged, 12), ten());
    let mut mistaken = Mistaken::new(&right, &layout, 0, |_| {});
    mistaken.resources.depth = 1;
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 0, call 0, step 0.6 in turn 0 reads elements 8..12 of rank 2's slot 0, which rank 2, call 0, step \
         0.0 in turn 1 writes, and no signal orders the two"
    );
}

#[test]
fn finished_fold_folded_again() {
    let sentence = refusal(direct::reduce_scatter(), 1, |steps| {
        let mut again = steps[0].clone();
        let (from, to) = places(std::slice::from_mut(&mut again));
        from[1] = to[0];
        steps.insert(1, again);
    });
    assert_eq!(
        sentence,
        "rank 1, call 0, step 1 folds the fold [0 1 2] from element 10 on in rank 1's output, which is \
         finished"
    );
}

#[test]
fn wrong_fold_order() {
    let (right, layout) = (direct::all_reduce(), ten());
    let mut mistaken = Mistaken::new(&right, &layout, 0, |_| {});
    mistaken.fold_order = FoldOrder::Ring;
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 0, call 0: elements 0..4 of the output should end as the fold [1 2 0] from element 0 on, \
         and rank 0, call 0, step 0 has left the fold [0 1 2] from element 0 on"
    );
}

#[test]
fn fold_order_without_a_rank() {
    let (right, layout) = (direct::all_reduce(), ten());
    let mut mistaken = Mistaken::new(&right, &layout, 0, |_| {});
    mistaken.fold_order = FoldOrder::linear([0, 2]);
    assert_eq!(sentence(&mistaken, &layout), "entry 0 of the given fold order does not fold each of 3 ranks once");
    mistaken.fold_order = FoldOrder::Given([].into());
    assert_eq!(sentence(&mistaken, &layout), "the given fold order has no entries");
}

#[test]
fn out_of_bounds() {
    let sentence = refusal(direct::all_reduce(), 2, |steps| places(steps).0[1].offset = 8);
    assert_eq!(sentence, "rank 2, call 0, step 0 reaches elements 8..11 of rank 1's input, which has 10");
}

#[test]
fn out_of_bounds_in_the_last_turn() {
    let (right, layout) = (staged::broadcast(6, 3), Layout::uniform(2, 18));
    let mistaken = Mistaken::new(&right, &layout, 1, |steps| {
        let Step::Repeat { body, .. } = &mut steps[0] else { panic!("full segments are a loop") };
        places(body).1[0].stride += 1;
    });
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 1, call 0, step 0.1 in turn 2 reaches elements 14..20 of rank 1's output, which has 18"
    );
}

#[test]
fn offset_beyond_all_numbers() {
    let sentence = refusal(direct::all_reduce(), 2, |steps| places(steps).0[1].offset = usize::MAX);
    assert_eq!(
        sentence,
        "rank 2, call 0, step 0 reaches elements 18446744073709551615..18446744073709551615 of rank 1's \
         input, which has 10"
    );
}

#[test]
fn no_such_rank() {
    let sentence = refusal(direct::all_reduce(), 2, |steps| places(steps).0[1].rank = 3);
    assert_eq!(sentence, "rank 2, call 0, step 0 names rank 3; the ranks are 0 to 2");
}

#[test]
fn input_of_another_rank_under_staged_access() {
    let sentence = refusal(one_shot::all_reduce(), 2, |steps| places(steps).0[0].rank = 1);
    assert_eq!(sentence, "rank 2, call 0, step 0 reads rank 1's input, which is out of reach under staged access");
}

#[test]
fn input_written() {
    let sentence = refusal(direct::all_reduce(), 2, |steps| places(steps).1[1].buffer = Buffer::Input);
    assert_eq!(sentence, "rank 2, call 0, step 0 writes rank 1's input; results go to the output");
}

#[test]
fn accumulators_copied() {
    let (right, layout) = (ring::all_reduce(Access::Staged, 4), ten());
    let mistaken = Mistaken::new(&right, &layout, 0, |steps| places(steps).1[0].buffer = Buffer::Partial(0));
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 0, call 0, step 2 copies rank 0's partial 0; accumulators are folded, never copied"
    );
}

#[test]
fn copied_onto_itself() {
    let sentence = refusal(one_shot::all_reduce(), 0, |steps| {
        let (from, to) = places(steps);
        from[0] = to[0];
    });
    assert_eq!(sentence, "rank 0, call 0, step 0 copies part of rank 0's slot 0 onto itself, as rank 0's slot 0");
}

#[test]
fn stored_twice_to_one_place() {
    let sentence = refusal(direct::all_reduce(), 0, |steps| {
        let (_, to) = places(steps);
        to[2] = to[1];
    });
    assert_eq!(
        sentence,
        "rank 0, call 0, step 0 stores twice to the same elements, rank 1's output and rank 1's output"
    );
}

#[test]
fn folded_over_part_of_a_source() {
    let layout = Layout::uniform(3, 10).in_place(true);
    let right = direct::all_reduce();
    let mistaken = Mistaken::new(&right, &layout, 0, |steps| places(steps).1[2].offset += 1);
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 0, call 0, step 0 stores to rank 2's output over part of its source, rank 2's input"
    );
}

#[test]
fn input_spoilt_in_place() {
    let layout = Layout::uniform(3, 4).in_place(true);
    let right = direct::reduce_scatter();
    let mistaken = Mistaken::new(&right, &layout, 0, |steps| places(steps).1[0] = Place::new(1, Buffer::Output, 0));
    assert_eq!(
        sentence(&mistaken, &layout),
        "rank 1, call 0, step 0 reads elements 4..8 of rank 1's input, which rank 0, call 0, step 0 \
         writes, and no signal orders the two"
    );
}

#[test]
fn deadlock() {
    let sentence = refusal(direct::all_reduce(), 2, |steps| remove_first(steps, is_signal));
    assert_eq!(
        sentence,
        "no rank can go on: rank 0, call 0, step 3 waits for flag 0 of rank 2 to reach 1, and it has 0; \
         rank 1, call 0, step 2 waits for flag 0 of rank 2 to reach 1, and it has 0; rank 2 is at the \
         entry of call 1"
    );
}

#[test]
fn signal_that_does_not_grow() {
    let sentence = refusal(direct::all_reduce(), 2, |steps| steps.push(steps[1].clone()));
    assert_eq!(sentence, "rank 2, call 0, step 4 raises flag 0 to 1, but the flag has 1 already");
}

#[test]
fn signal_beyond_the_advance() {
    let sentence = refusal(direct::all_reduce(), 2, |steps| {
        steps.push(Step::Signal { flag: 0, to: vec![0], value: 2, stride: 0 });
    });
    assert_eq!(sentence, "rank 2, call 0, step 4 raises flag 0 to 2; values go from 1 to the declared advance, 1");
}

#[test]
fn wait_beyond_the_advance() {
    let sentence = refusal(direct::all_reduce(), 2, |steps| {
        steps.push(Step::Wait { rank: 0, flag: 0, value: 2, stride: 0 });
    });
    assert_eq!(sentence, "rank 2, call 0, step 4 waits for value 2, but flags advance by 1 in a call");
}

#[test]
fn undeclared_flag() {
    let sentence = refusal(direct::all_reduce(), 2, |steps| {
        steps.push(Step::Signal { flag: 1, to: vec![0], value: 1, stride: 0 });
    });
    assert_eq!(sentence, "rank 2, call 0, step 4 names flag 1, but only flags below 1 are declared");
}

#[test]
fn loop_in_a_loop() {
    let sentence = refusal(direct::all_reduce(), 2, |steps| {
        let inner = Step::Repeat { segments: 2, body: steps.clone() };
        steps.push(Step::Repeat { segments: 2, body: vec![inner] });
    });
    assert_eq!(sentence, "rank 2, step 4: a Repeat holds another; they do not nest");
}

#[test]
fn flags_that_would_overflow() {
    let (right, layout) = (direct::all_reduce(), ten());
    let mut mistaken = Mistaken::new(&right, &layout, 0, |_| {});
    mistaken.resources.advance = i64::MAX as u64 / 12;
    assert_eq!(
        sentence(&mistaken, &layout),
        "an advance of 768614336404564650 a call would exhaust flags of 64 bits; declare the largest value that a flag \
         reaches (at most 67108864)"
    );
}

#[test]
fn slots_without_depth() {
    let (right, layout) = (one_shot::all_reduce(), ten());
    let mut mistaken = Mistaken::new(&right, &layout, 0, |_| {});
    mistaken.resources.depth = 0;
    assert_eq!(
        sentence(&mistaken, &layout),
        "slots or partials are declared with a depth of 0; declare a depth of at least 1"
    );
}

#[test]
fn what_another_schedule_left_in_shared_memory() {
    // The root forgets to stage, so that the others read what the call before has left in its slot.
    let (ring, layout) = (ring::all_gather(Access::Staged, 10), ten());
    let right = staged::broadcast(10, 3);
    let mistaken = Mistaken::new(&right, &layout, 0, |steps| {
        let Step::Copy { to, .. } = &mut steps[0] else { panic!("the root stages first") };
        to.pop();
    });
    let fault = verify_pair((&ring, &layout), (&mistaken, &layout)).expect_err("the mistake must be caught");
    assert_eq!(
        fault.to_string(),
        "rank 1, call 1: elements 0..10 of the output should end as the input of rank 0 from element 0 \
         on, and rank 1, call 1, step 1 has left the input of rank 0@call 0 from element 0 on"
    );
    let fewer = Layout::uniform(2, 10);
    let fault = verify_pair((&ring, &layout), (&right, &fewer)).expect_err("the worlds differ");
    assert!(matches!(fault, Fault::Declaration(_)));
}

/// Schedules of four ranks in which hardly a step is idle, over several segments of which the last is shorter.
fn busy() -> Vec<Box<dyn Schedule>> {
    vec![
        Box::new(one_shot::all_reduce()),
        Box::new(one_shot::reduce_scatter()),
        Box::new(one_shot::all_gather()),
        Box::new(direct::all_reduce()),
        Box::new(direct::reduce_scatter()),
        Box::new(direct::all_gather()),
        Box::new(direct::broadcast()),
        Box::new(staged::all_reduce(8, 3)),
        Box::new(staged::reduce_scatter(8, 3)),
        Box::new(staged::all_gather(8, 3)),
        Box::new(staged::broadcast(8, 3)),
        Box::new(one_shot::reduce()),
        Box::new(one_shot::scatter()),
        Box::new(one_shot::gather()),
        Box::new(one_shot::all_to_all()),
        Box::new(one_shot::scan()),
        Box::new(one_shot::exclusive_scan()),
        Box::new(direct::reduce()),
        Box::new(direct::scatter()),
        Box::new(direct::gather()),
        Box::new(direct::all_to_all(4)),
        Box::new(direct::scan(4)),
        Box::new(direct::exclusive_scan(4)),
        Box::new(staged::reduce(8, 3)),
        Box::new(staged::scatter(8, 3)),
        Box::new(staged::gather(8, 3)),
        Box::new(staged::all_to_all(8, 3)),
        Box::new(staged::scan(8, 3)),
        Box::new(staged::exclusive_scan(8, 3)),
    ]
}

fn rings() -> Vec<Box<dyn Schedule>> {
    let forms = [Access::Direct, Access::Staged].map(|access| -> [Box<dyn Schedule>; 3] {
        [
            Box::new(ring::all_reduce(access, 4)),
            Box::new(ring::reduce_scatter(access, 4)),
            Box::new(ring::all_gather(access, 4)),
        ]
    });
    forms.into_iter().flatten().collect()
}

/// Schedules of four ranks in which messages go by way of other ranks.
fn indirect() -> Vec<Box<dyn Schedule>> {
    vec![
        Box::new(chain::broadcast(Access::Direct, 4)),
        Box::new(chain::broadcast(Access::Staged, 4)),
        Box::new(tree::broadcast(Access::Direct, 4)),
        Box::new(tree::broadcast(Access::Staged, 4)),
        Box::new(tree::reduce(4)),
        Box::new(tree::gather(16)),
        Box::new(tree::scatter(16)),
        Box::new(recursive_doubling::all_reduce(4)),
        Box::new(recursive_doubling::all_gather(Access::Direct, 16)),
        Box::new(recursive_doubling::all_gather(Access::Staged, 16)),
        Box::new(recursive_halving::reduce_scatter(16)),
        Box::new(bruck::all_gather(Access::Direct, 16)),
        Box::new(bruck::all_gather(Access::Staged, 16)),
        Box::new(bruck::all_to_all(16)),
    ]
}

/// All of them.
fn all() -> Vec<Box<dyn Schedule>> {
    busy().into_iter().chain(rings()).chain(indirect()).collect()
}

/// Makes the mistake at each step at which it can be made, of each rank's program, each time alone. `mistake` changes
/// the step at an index of a list, if it is one that it can change.
#[track_caller]
fn each_is_caught(schedules: &[Box<dyn Schedule>], mistake: impl Fn(&mut Vec<Step>, usize) -> bool) {
    let layout = Layout::uniform(4, 47).in_place(true);
    let mut made = 0;
    for schedule in schedules {
        for rank in 0..layout.world() {
            let right = schedule.program(rank, &layout).steps;
            let positions = right.iter().enumerate().flat_map(|(outer, step)| match step {
                Step::Repeat { body, .. } => (0..body.len()).map(|inner| (outer, Some(inner))).collect(),
                _ => vec![(outer, None)],
            });
            for (outer, inner) in positions {
                let mut is_made = false;
                let mistaken = Mistaken::new(&**schedule, &layout, rank, |steps| {
                    is_made = match (&mut steps[outer], inner) {
                        (Step::Repeat { body, .. }, Some(inner)) => mistake(body, inner),
                        _ => mistake(steps, outer),
                    };
                });
                if is_made {
                    made += 1;
                    let caught = verify(&mistaken, &layout).is_err();
                    let (name, collective) = (schedule.name(), schedule.collective());
                    assert!(caught, "{name} {collective} {:?}, rank {rank}: {outer} {inner:?}", schedule.access());
                }
            }
        }
    }
    assert!(made > 40, "only {made} mistakes were made");
}

#[test]
fn every_dropped_wait_is_caught() {
    // A call that carries its entry waits for all, also for those from whom a rank takes nothing. And a staged exclusive
    // scan waits for the last rank, too, to stage what has no part in it. In place, a rank's own part is where others
    // read it directly from the beginning.
    let is_meant = |schedule: &dyn Schedule| match schedule.collective() {
        Collective::AllGather => schedule.access() == Access::Staged || ["direct", "ring"].contains(&schedule.name()),
        Collective::Reduce | Collective::Scatter | Collective::Gather => schedule.entry() == Entry::Barrier,
        Collective::ExclusiveScan => schedule.name() == "direct",
        _ => true,
    };
    let schedules: Vec<Box<dyn Schedule>> =
        busy().into_iter().chain(indirect()).filter(|schedule| is_meant(&**schedule)).collect();
    each_is_caught(&schedules, |steps, index| {
        let is_it = is_wait(&steps[index]);
        if is_it {
            steps.remove(index);
        }
        is_it
    });
}

#[test]
fn every_dropped_copy_or_fold_is_caught() {
    each_is_caught(&all(), |steps, index| {
        let is_it = is_work(&steps[index]);
        if is_it {
            steps.remove(index);
        }
        is_it
    });
}

#[test]
fn every_early_signal_is_caught() {
    // The last signals of staged reduce-scatter, all-gather and all-to-all announce what was staged a turn before, not
    // the step before: a step earlier is early enough. A reduce's root folds, and the last rank of a scan ends, with what
    // is for itself alone. The last segments of a relay or tree leave nobody waiting for room.
    let is_meant = |schedule: &dyn Schedule| match (schedule.name(), schedule.collective()) {
        ("staged", Collective::ReduceScatter | Collective::AllGather | Collective::AllToAll) => false,
        ("staged" | "one_shot" | "tree", Collective::Reduce) => false,
        ("ring" | "tree", Collective::Broadcast) => schedule.access() == Access::Direct,
        ("tree", Collective::Gather | Collective::Scatter) => false,
        (_, collective) => !collective.is_scan(),
    };
    let schedules: Vec<Box<dyn Schedule>> =
        busy().into_iter().chain(indirect()).filter(|schedule| is_meant(&**schedule)).collect();
    each_is_caught(&schedules, |steps, index| {
        let is_it = index > 0 && is_signal(&steps[index]) && is_work(&steps[index - 1]);
        if is_it {
            steps.swap(index - 1, index);
        }
        is_it
    });
}

#[test]
fn every_other_order_of_a_fold_is_caught() {
    each_is_caught(&all(), |steps, index| match &mut steps[index] {
        Step::Fold { from, .. } if from.len() > 1 => {
            from.reverse();
            true
        }
        _ => false,
    });
}

#[test]
fn every_doubled_contribution_is_caught() {
    each_is_caught(&all(), |steps, index| match &mut steps[index] {
        Step::Fold { from, .. } if from.len() > 1 => {
            from[1] = from[0];
            true
        }
        _ => false,
    });
}

#[test]
fn every_other_rank_is_caught() {
    // What is gathered by way of others may as well be read from its own rank, if that has signalled.
    let is_meant = |schedule: &dyn Schedule| match schedule.collective() {
        Collective::AllGather => schedule.access() == Access::Direct || ["staged", "ring"].contains(&schedule.name()),
        Collective::Gather => schedule.name() != "tree",
        _ => true,
    };
    let schedules: Vec<Box<dyn Schedule>> = all().into_iter().filter(|schedule| is_meant(&**schedule)).collect();
    for destination in [false, true] {
        each_is_caught(&schedules, |steps, index| {
            let place = match &mut steps[index] {
                Step::Copy { from, to, .. } => {
                    if destination {
                        &mut to[0]
                    } else {
                        from
                    }
                }
                Step::Fold { from, to, .. } => {
                    if destination {
                        &mut to[0]
                    } else {
                        &mut from[0]
                    }
                }
                _ => return false,
            };
            place.rank = (place.rank + 1) % 4;
            true
        });
    }
}

#[test]
fn every_shifted_place_is_caught() {
    for destination in [false, true] {
        each_is_caught(&all(), |steps, index| match &mut steps[index] {
            Step::Copy { from, to, .. } => {
                if destination { &mut to[0] } else { from }.offset += 1;
                true
            }
            Step::Fold { from, to, .. } => {
                if destination { &mut to[0] } else { &mut from[0] }.offset += 1;
                true
            }
            _ => false,
        });
    }
}
