// SPDX-License-Identifier: MPL-2.0
//! An algorithm of one's own: defined, verified, drawn and executed. `cargo run --release --example own_schedule`
//!
//! A gather at rank 0, a fold there in an order of our own, and a broadcast back: slow, and a few lines long.

use annulus::schedule::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule, draw, verify};
use annulus::{FoldOrder, ReduceOp, run};

/// All ranks stage their input; rank 0 folds them from the last to the first; all copy the result.
struct Backwards;

impl Schedule for Backwards {
    fn name(&self) -> &str {
        "backwards"
    }

    fn collective(&self) -> Collective {
        Collective::AllReduce
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn fold_order(&self) -> FoldOrder {
        FoldOrder::linear([2, 1, 0])
    }

    fn resources(&self, layout: &Layout) -> Resources {
        // The inputs lie in the first half of each rank's scratch, the result in the second half of rank 0's.
        Resources { scratch: 2 * layout.count(0), flags: 1, advance: 2, ..Resources::default() }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let (count, scratch) = (layout.count(0), |rank, offset| Place::new(rank, Buffer::Scratch, offset));
        let mut program = Program::new();
        program.copy(Place::new(rank, Buffer::Input, 0), [scratch(rank, 0)], count);
        program.signal(0, layout.others(rank), 1, 0);
        if rank == 0 {
            for other in layout.others(rank) {
                program.wait(other, 0, 1, 0);
            }
            let inputs = (0..layout.world()).rev().map(|rank| scratch(rank, 0));
            program.fold(inputs, [scratch(0, count), Place::new(0, Buffer::Output, 0)], count);
            program.signal(0, layout.others(rank), 2, 0);
        } else {
            program.wait(0, 0, 2, 0);
            program.copy(scratch(0, count), [Place::new(rank, Buffer::Output, 0)], count);
        }
        program
    }
}

fn main() -> Result<(), annulus::Error> {
    let layout = Layout::uniform(3, 4);
    println!("{}", draw(&Backwards, &layout));
    let verified = verify(&Backwards, &layout)?;
    let sums = run(3, |comm| {
        let (mine, mut sum) = ([1.0e8_f32, 1.0, -1.0e8, 0.5].map(|x| x * (comm.rank() + 1) as f32), [0.0; 4]);
        comm.execute(&verified, &mine, &mut sum, Some(ReduceOp::Sum))?;
        Ok(sum)
    })?;
    println!("{:?}", sums[0]);
    Ok(())
}
