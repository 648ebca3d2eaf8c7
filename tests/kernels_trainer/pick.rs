// SPDX-License-Identifier: MPL-2.0
//! Batches of samples: bytes as they are, whatever the width and wherever rows begin.

use annulus::driver::Use;
use annulus::kernel::training::Pick;
use annulus::kernel::{Kernel, Shape};

use super::{Draw, SHAPES, Sim, chosen};

const SAMPLES: usize = 11;

/// With rows of so many elements that take two or four bytes, and buffers so many elements off.
fn picks<T: annulus::Element>(sim: &Sim, width: usize, offset: usize) {
    let mut draw = Draw(width as u64);
    let values: Vec<T> = bytemuck::pod_collect_to_vec(
        &(0..SAMPLES * width * size_of::<T>()).map(|_| draw.next() as u8).collect::<Vec<_>>(),
    );
    let names: Vec<u32> = (0..SAMPLES as u32).map(|sample| 100 + sample).collect();
    // Some twice, and not all.
    let order: Vec<u32> = (0..9).map(|_| draw.next() as u32 % SAMPLES as u32).collect();
    for rows in [0, 1, order.len()] {
        let (inputs, labels) = (sim.upload(&values, offset), sim.upload(&names, 0));
        let order = &order[..rows];
        let places = sim.upload(order, 1);
        let picked = |sample: &u32| values[*sample as usize * width..][..width].to_vec();
        // One more than is picked, which stays as it is.
        let expected: Vec<T> = order.iter().flat_map(picked).chain([T::zeroed()]).collect();
        let expected_labels: Vec<u32> = order.iter().map(|sample| 100 + sample).chain([7]).collect();
        for shape in SHAPES.into_iter().chain([chosen(Shape::of_rows(rows as u64, 8))]) {
            let (to, to_labels) =
                (sim.upload(&vec![T::zeroed(); rows * width + 1], offset / 2), sim.upload(&vec![7; rows + 1], 0));
            let arguments = Pick {
                inputs: inputs.address(),
                labels: labels.address(),
                order: places.address(),
                to: to.address(),
                to_labels: to_labels.address(),
                rows: rows as u64,
                bytes: (width * size_of::<T>()) as u64,
            };
            let reads = [Use::reads(&inputs), Use::reads(&labels), Use::reads(&places)];
            let uses: Vec<Use> = reads.into_iter().chain([Use::writes(&to), Use::writes(&to_labels)]).collect();
            sim.run(Kernel::Pick, shape, &arguments, &uses);
            let (got, got_labels) = (sim.read(&to), sim.read(&to_labels));
            // As bytes, since some are no numbers.
            assert_eq!(
                bytemuck::cast_slice::<T, u8>(&got),
                bytemuck::cast_slice::<T, u8>(&expected),
                "{rows} x {width}, {shape:?}"
            );
            assert_eq!(got_labels, expected_labels, "{rows} x {width}, {shape:?}");
        }
    }
}

#[test]
fn rows_are_picked_as_they_are() {
    let Some(sim) = Sim::new() else { return };
    for width in [1, 3, 64, 67, 784] {
        for offset in [0, 1, 3] {
            picks::<f32>(&sim, width, offset);
            picks::<annulus::bf16>(&sim, width, offset);
        }
    }
}
