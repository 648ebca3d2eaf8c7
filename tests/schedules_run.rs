// SPDX-License-Identifier: MPL-2.0
//! Every built-in schedule that has an entry before it, as a program on real memory, against the reference of the fold
//! order that it declares: what is proved of symbols holds of elements. (Those that carry their entry run in
//! `tests/collectives.rs`.)

mod programs;

use annulus::reference::check::compare;
use annulus::reference::{bits, inputs};
use annulus::{Communicator, ReduceOp, bf16, run};

use programs::{Case, cases, expected};

/// Runs both forms of a case, and compares all of the buffers.
fn call(comm: &Communicator, case: &Case, number: u64) {
    let (world, rank, op) = (comm.world_size(), comm.rank(), ReduceOp::Sum);
    let collective = case.schedule.collective();
    for verified in &case.forms {
        let layout = verified.layout();
        let lens: Vec<usize> = (0..world).map(|r| layout.input_len(collective, r)).collect();
        let inputs = inputs::cancelling::<bf16>(7, number, &lens);
        let expected = expected(verified, op, &inputs);
        let expected = expected.get(rank).map_or(&[][..], |output| output);
        let op = collective.folds().then_some(op);
        if !layout.is_in_place() {
            let mut recv = vec![bits::element(!0); layout.output_len(collective, rank)];
            comm.execute(verified, &inputs[rank], &mut recv, op).unwrap();
            compare(&recv, expected, rank).unwrap_or_else(|wrong| panic!("{} {collective}: {wrong}", verified.name()));
            continue;
        }
        // In place: what is no result stays as it was.
        let alias = layout.alias(collective, rank);
        let (input, output) = (alias.max(0) as usize, (-alias).max(0) as usize);
        let len = lens[rank].max(expected.len());
        let mut buffer = vec![bits::element(!0); len];
        buffer[input..input + lens[rank]].copy_from_slice(&inputs[rank]);
        let mut right = buffer.clone();
        right[output..output + expected.len()].copy_from_slice(expected);
        comm.execute_in_place(verified, &mut buffer, op).unwrap();
        compare(&buffer, &right, rank).unwrap_or_else(|wrong| panic!("{} {collective}: {wrong}", verified.name()));
    }
}

#[test]
fn every_schedule_computes_what_was_proved() {
    for world in [1, 2, 3, 4, 7] {
        let cases = cases(world);
        run(world, |comm| {
            for (number, case) in cases.iter().enumerate() {
                call(&comm, case, number as u64);
            }
            Ok(())
        })
        .unwrap();
    }
}
