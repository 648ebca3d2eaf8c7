// SPDX-License-Identifier: MPL-2.0
//! Dynamic loss scaling: what is an overflow, and how the scale goes on.

use annulus::driver::Use;
use annulus::kernel::training::{FindOverflow, Scaling, UpdateScale};
use annulus::kernel::{Kernel, Shape};
use annulus::{bf16, f16};

use super::{Draw, Float, SHAPES, Sim, chosen};

/// Whether an overflow is found in these values, or was before.
fn finds<T: Float>(sim: &Sim, values: &[T], offset: usize, shape: (u32, u32), before: bool) -> bool {
    let from = sim.upload(values, offset);
    let scaling = sim.upload(&[0, u32::from(before), 5, 6], 0);
    let arguments = FindOverflow { from: from.address(), scaling: scaling.address(), elements: values.len() as u64 };
    let uses = [Use::reads(&from), Use::writes(&scaling)];
    sim.run(Kernel::FindOverflow(T::DATA_TYPE), shape, &arguments, &uses);
    match sim.read(&scaling)[..] {
        [0, overflow @ (0 | 1), 5, 6] => overflow == 1,
        ref other => panic!("{other:?}"),
    }
}

fn overflows<T: Float>(greatest: T) {
    let Some(sim) = Sim::new() else { return };
    for (turn, count) in [0, 1, 7, 8, 16, 129, 5000].into_iter().enumerate() {
        let mut values = Draw(count as u64).floats::<T>(count);
        let library = chosen(Shape::of(Kernel::FindOverflow(T::DATA_TYPE), (count * size_of::<T>()) as u64, 4));
        let shapes = [SHAPES[turn % 4], library];
        for value in &mut values {
            if *value == T::zeroed() {
                *value = greatest;
            }
        }
        for (shape, offset) in shapes.into_iter().zip([turn % 3, 0]) {
            assert!(!finds(&sim, &values, offset, shape, false));
            assert!(finds(&sim, &values, offset, shape, true), "what was found is forgotten");
            for place in [0, count / 2, count.saturating_sub(1)].into_iter().filter(|place| *place < count) {
                for beyond in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                    let whole = std::mem::replace(&mut values[place], T::rounded(beyond));
                    assert!(finds(&sim, &values, offset, shape, false), "{beyond} at {place} of {count} {shape:?}");
                    values[place] = whole;
                }
            }
        }
    }
    assert!(!finds(&sim, &[greatest; 9], 1, (1, 32), false));
}

#[test]
fn overflows_are_found_wherever_they_are() {
    overflows(f32::MAX);
    overflows(f16::MAX);
    overflows(bf16::MAX);
}

#[test]
fn the_scale_halves_at_an_overflow_and_doubles_after_the_interval() {
    let Some(sim) = Sim::new() else { return };
    let words = sim.upload(bytemuck::cast_slice::<Scaling, u32>(&[Scaling::new(4.0)]), 0);
    let step = |overflow: u32| {
        sim.stream.write(&words.part(1..2).unwrap(), &[overflow]).unwrap();
        let arguments = UpdateScale { scaling: words.address(), interval: 3, unused: 0 };
        sim.run(Kernel::UpdateScale, (2, 32), &arguments, &[Use::writes(&words)]);
        let scaling: Scaling = bytemuck::cast_slice::<u32, Scaling>(&sim.read(&words))[0];
        assert_eq!(scaling.overflow, 0);
        (scaling.scale, scaling.steps, scaling.skipped)
    };
    let steps = [
        (0, (4.0, 1, 0)),
        (0, (4.0, 2, 0)),
        (0, (8.0, 0, 0)),
        (0, (8.0, 1, 0)),
        (1, (4.0, 0, 1)),
        (1, (2.0, 0, 2)),
        (1, (1.0, 0, 3)),
        (1, (1.0, 0, 4)), // never below 1
        (0, (1.0, 1, 4)),
        (0, (1.0, 2, 4)),
        (0, (2.0, 0, 4)),
    ];
    for (overflow, after) in steps {
        assert_eq!(step(overflow), after);
    }
    for _ in 0..80 {
        step(0);
    }
    assert_eq!(step(0).0, (1 << 24) as f32, "never above 2^24");
}
