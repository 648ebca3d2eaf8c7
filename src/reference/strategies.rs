// SPDX-License-Identifier: MPL-2.0
//! Strategies for property tests with proptest, behind the feature `proptest`.
//!
//! They shrink towards one rank, few elements, rank order and seed 0.
//!
//! ```
//! use annulus::ReduceOp;
//! use annulus::reference::{self, strategies};
//! use proptest::prelude::*;
//!
//! proptest!(|(
//!     (order, inputs) in strategies::world(8).prop_flat_map(|n| {
//!         let inputs = strategies::length(n).prop_flat_map(move |len| strategies::inputs::<f32>(vec![len; n]));
//!         (strategies::fold_order(n), inputs)
//!     }),
//! )| {
//!     let result = reference::fold(&order, ReduceOp::Max, &inputs)?;
//!     prop_assert_eq!(result.len(), inputs[0].len());
//! });
//! ```

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{bits, inputs};
use crate::element::{Bracketing, DataType, Element, Factor, FoldOrder, ReduceOp};

/// Any element type.
pub fn data_type() -> impl Strategy<Value = DataType> {
    select(&DataType::ALL[..])
}

/// Any operation that applies to this type, with any factor if it has one.
pub fn reduce_op(data_type: DataType) -> impl Strategy<Value = ReduceOp> {
    let all: Vec<ReduceOp> = ReduceOp::ALL.into_iter().filter(|op| op.applies_to(data_type)).collect();
    let factor = any::<i64>().prop_map(move |value| match data_type.is_float() {
        true => Factor::from(value as f64 / 2_f64.powi(60)),
        false => Factor::from(value),
    });
    prop_oneof![8 => select(all), 1 => factor.prop_map(ReduceOp::PreMulSum)]
}

/// A number of ranks, from 1 to `largest` (at least 1).
pub fn world(largest: usize) -> impl Strategy<Value = usize> {
    1..=largest.max(1)
}

/// A length for `n` ranks, where lengths hurt: none, few, about a vector's, about a power of two, about a multiple of
/// n, prime. At most 8 n + 1 or 521.
pub fn length(n: usize) -> impl Strategy<Value = usize> {
    let fixed = select(&[0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 61, 63, 64, 65, 127, 255, 256, 257, 521][..]);
    let near_multiple = (0..=8_usize, 0..=2_usize).prop_map(move |(times, off)| (times * n + off).saturating_sub(1));
    prop_oneof![fixed, near_multiple]
}

/// A count for each of `n` ranks, unequal and sometimes zero.
pub fn counts(n: usize) -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1 => Just(0_usize), 3 => 0..=17_usize, 1 => 18..=130_usize], n)
}

/// A fold order for `n` ranks (at least one): rank, ring, tree, or some bracketings of any shape.
pub fn fold_order(n: usize) -> impl Strategy<Value = FoldOrder> {
    let given = vec(bracketing(n), 1..=3).prop_map(|entries| FoldOrder::Given(Arc::from(entries)));
    prop_oneof![Just(FoldOrder::Rank), Just(FoldOrder::Ring), Just(FoldOrder::Tree), given]
}

/// Any bracketing of the ranks below `n` (at least one), in any order.
pub fn bracketing(n: usize) -> impl Strategy<Value = Bracketing> {
    let n = n.max(1);
    let ranks = Just((0..n).collect::<Vec<_>>()).prop_shuffle();
    (ranks, vec(any::<Index>(), n - 1)).prop_map(|(ranks, joints)| {
        // Two neighbours at a time become one, until one is left.
        let mut parts: Vec<Bracketing> = ranks.into_iter().map(Bracketing::Leaf).collect();
        for joint in joints {
            let left = joint.index(parts.len() - 1);
            let pair = parts.splice(left..left + 2, []).collect();
            parts.insert(left, Bracketing::Fold(pair));
        }
        Bracketing::Fold(parts).normal()
    })
}

/// `len` elements with any bits.
pub fn buffer<T: Element>(len: usize) -> impl Strategy<Value = Vec<T>> {
    vec(any::<u64>().prop_map(bits::element), len)
}

/// Inputs of these lengths, one a rank: [`inputs::random`], [`inputs::cancelling`], [`inputs::special`] or any bits.
pub fn inputs<T: Element>(lengths: Vec<usize>) -> impl Strategy<Value = Vec<Vec<T>>> {
    type Generate<T> = fn(u64, u64, &[usize]) -> Vec<Vec<T>>;
    let any_bits: Vec<_> = lengths.iter().map(|&len| buffer(len)).collect();
    let generators: Vec<Generate<T>> = vec![inputs::random, inputs::cancelling, inputs::special];
    let generated = (select(generators), any::<u64>(), any::<u64>());
    prop_oneof![3 => generated.prop_map(move |(generate, seed, call)| generate(seed, call, &lengths)), 1 => any_bits]
}

/// [`inputs::exact`] inputs of these lengths for `op`.
pub fn exact_inputs<T: Element>(op: ReduceOp, lengths: Vec<usize>) -> impl Strategy<Value = Vec<Vec<T>>> {
    (any::<u64>(), any::<u64>()).prop_map(move |(seed, call)| inputs::exact(op, seed, call, &lengths))
}

#[cfg(test)]
mod tests {
    use proptest::test_runner::RngSeed;

    use super::*;
    use crate::reference;
    use crate::reference::check::compare;

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 200,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn any_order_is_complete_and_any_length_is_legal(
            op in reduce_op(DataType::F16),
            (order, inputs) in world(9).prop_flat_map(|n| {
                (fold_order(n), length(n).prop_flat_map(move |len| inputs::<crate::f16>(vec![len; n])))
            }),
        ) {
            let result = reference::fold(&order, op, &inputs)?;
            prop_assert_eq!(result.len(), inputs[0].len());
        }

        #[test]
        fn any_order_is_the_same_on_exact_inputs(
            (op, order, inputs) in (reduce_op(DataType::Bf16), world(9)).prop_flat_map(|(op, n)| {
                (Just(op), fold_order(n), exact_inputs::<crate::bf16>(op, vec![20; n]))
            }),
        ) {
            let by_rank = reference::fold(&FoldOrder::Rank, op, &inputs)?;
            compare(&reference::fold(&order, op, &inputs)?, &by_rank, 0)?;
        }

        #[test]
        fn parts_are_parts_of_the_whole(
            (order, counts, inputs) in world(6).prop_flat_map(counts).prop_flat_map(|counts| {
                let (n, total) = (counts.len(), counts.iter().sum());
                (bracketing(n), Just(counts), inputs::<i32>(vec![total; n]))
            }),
        ) {
            let order = FoldOrder::Given(Arc::new([order]));
            let parts = reference::reduce_scatter(&order, ReduceOp::Sum, &inputs, &counts)?;
            prop_assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), counts);
            prop_assert_eq!(parts.concat(), reference::fold(&order, ReduceOp::Sum, &inputs)?);
        }

        #[test]
        fn every_type_has_a_name(data_type in data_type()) {
            prop_assert_eq!(DataType::from_name(data_type.name()), Some(data_type));
        }
    }
}
