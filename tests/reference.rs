// SPDX-License-Identifier: MPL-2.0
//! The reference against results worked out by hand, as literal bits.

use std::sync::Arc;

use annulus::element::Bracketing;
use annulus::reference::{self, bits};
use annulus::{Element, Error, FoldOrder, ReduceOp, bf16, f16};

use ReduceOp::{Avg, BitAnd, BitOr, BitXor, Max, Min, PreMulSum, Prod, Sum};

/// Folds one element a rank in rank order, and compares the bits.
#[track_caller]
fn folds<T: Element>(op: ReduceOp, contributions: &[u64], expected: u64) {
    let inputs: Vec<[T; 1]> = contributions.iter().map(|&b| [bits::element(b)]).collect();
    let got = bits::of(reference::fold(&FoldOrder::Rank, op, &inputs).unwrap()[0]);
    assert_eq!(got, expected, "{} {op} of {contributions:x?}: {got:x} instead of {expected:x}", T::DATA_TYPE);
}

#[test]
fn f64_rounds_to_nearest_even() {
    let (one, half_ulp) = (0x3ff0_0000_0000_0000, 0x3ca0_0000_0000_0000);
    folds::<f64>(Sum, &[one, half_ulp], one);
    folds::<f64>(Sum, &[one + 1, half_ulp], one + 2);
    folds::<f64>(Sum, &[one, half_ulp + 1], one + 1);
    folds::<f64>(Prod, &[0x4008_0000_0000_0000, 0xc014_0000_0000_0000], 0xc02e_0000_0000_0000); // 3 x -5
    folds::<f64>(Avg, &[one, 0, 0], 0x3fd5_5555_5555_5555);
    folds::<f64>(Sum, &[1, 2], 3); // subnormals
    folds::<f64>(Prod, &[3, 0x3fe0_0000_0000_0000], 2); // 1.5 smallest subnormals
}

#[test]
fn f32_rounds_to_nearest_even() {
    let (one, half_ulp) = (0x3f80_0000, 0x3380_0000);
    folds::<f32>(Sum, &[one, half_ulp], one);
    folds::<f32>(Sum, &[one + 1, half_ulp], one + 2);
    folds::<f32>(Sum, &[one, half_ulp + 1], one + 1);
    folds::<f32>(Prod, &[0x4040_0000, 0xc0a0_0000], 0xc170_0000); // 3 x -5
    folds::<f32>(Prod, &[0x0080_0000, 0x3f00_0000], 0x0040_0000); // the smallest normal number, halved
    folds::<f32>(Avg, &[one, 0, 0], 0x3eaa_aaab);
    folds::<f32>(Avg, &[0x40a0_0000, 0, 0], 0x3fd5_5555); // 5 / 3; 5 x (1/3) would be .. 56
    folds::<f32>(Sum, &[0x7f7f_ffff, 0x7f7f_ffff], 0x7f80_0000);
}

#[test]
fn f16_accumulates_in_f32_and_rounds_once() {
    let (one, half_ulp) = (0x3c00, 0x1000);
    folds::<f16>(Sum, &[one, half_ulp], one);
    folds::<f16>(Sum, &[one + 1, half_ulp], one + 2);
    folds::<f16>(Sum, &[one, half_ulp, half_ulp], one + 1); // rounding at each step would leave 1
    folds::<f16>(Sum, &[1, 1], 2); // subnormals
    folds::<f16>(Prod, &[0x0400, 0x3800], 0x0200); // the smallest normal number, halved
    folds::<f16>(Prod, &[0x0001, 0x3800], 0); // half the smallest subnormal
    folds::<f16>(Prod, &[0x0003, 0x3800], 2); // 1.5 of them
    folds::<f16>(Sum, &[0x7bff, 0x4b80], 0x7bff); // 65504 + 15
    folds::<f16>(Sum, &[0x7bff, 0x4c00], 0x7c00); // 65504 + 16, half way to 65536
    folds::<f16>(Sum, &[0x7bff, 0x7bff, 0xfbff], 0x7bff); // overflows f16 and not f32
    folds::<f16>(Avg, &[one, 0, 0], 0x3555);
}

#[test]
fn bf16_accumulates_in_f32_and_rounds_once() {
    let (one, half_ulp) = (0x3f80, 0x3b80);
    folds::<bf16>(Sum, &[one, half_ulp], one);
    folds::<bf16>(Sum, &[one + 1, half_ulp], one + 2);
    folds::<bf16>(Sum, &[one, half_ulp, half_ulp], one + 1);
    folds::<bf16>(Sum, &[1, 1], 2);
    folds::<bf16>(Prod, &[0x0080, 0x3f00], 0x0040);
    folds::<bf16>(Prod, &[0x0001, 0x3f00], 0);
    folds::<bf16>(Prod, &[0x0003, 0x3f00], 2);
    folds::<bf16>(Sum, &[0x7f7f, 0x7f7f], 0x7f80);
    folds::<bf16>(Avg, &[one, 0, 0], 0x3eab);
}

/// The average of a number and its successor lies half way and goes to the even one; three of it and one successor lie
/// a quarter above and go back to it. For every positive number, subnormal or not.
fn rounds_every_midpoint<T: Element>(numbers: std::ops::Range<u64>) {
    let below: Vec<T> = numbers.clone().map(bits::element).collect();
    let above: Vec<T> = numbers.clone().map(|b| bits::element(b + 1)).collect();
    let halves = reference::fold(&FoldOrder::Rank, Avg, &[&below, &above]).unwrap();
    let quarters = reference::fold(&FoldOrder::Rank, Avg, &[&below, &below, &below, &above]).unwrap();
    for ((b, half), quarter) in numbers.zip(halves).zip(quarters) {
        assert_eq!(bits::of(half), b + (b & 1), "half way above {b:x}");
        assert_eq!(bits::of(quarter), b, "a quarter above {b:x}");
    }
}

#[test]
fn the_rounding_of_f16_and_bf16_is_right_at_every_midpoint() {
    rounds_every_midpoint::<f16>(0..0x7bff);
    rounds_every_midpoint::<bf16>(0..0x7e80); // beyond, sums of four leave f32
}

#[test]
fn integers_wrap() {
    folds::<i8>(Sum, &[100, 100], 0xc8);
    folds::<i8>(Prod, &[17, 17], 33);
    folds::<i8>(Prod, &[16, 16, 1], 0);
    folds::<u8>(Sum, &[255, 1], 0);
    folds::<u8>(Prod, &[255, 255], 1);
    folds::<i16>(Sum, &[0x7fff, 2], 0x8001);
    folds::<i16>(Prod, &[300, 300], 24_464); // 90,000 - 2^16
    folds::<u16>(Sum, &[0xffff, 3], 2);
    folds::<u16>(Prod, &[0xffff, 0xffff], 1);
    folds::<i32>(Sum, &[0x7fff_ffff, 1], 0x8000_0000);
    folds::<i32>(Prod, &[0x8000_0000, 0xffff_ffff], 0x8000_0000);
    folds::<u32>(Sum, &[0xffff_ffff, 2], 1);
    folds::<u32>(Prod, &[0x1_0001, 0x1_0001], 0x0002_0001);
    folds::<i64>(Sum, &[i64::MAX as u64, 1], 1 << 63);
    folds::<i64>(Prod, &[u64::MAX, 1 << 63], 1 << 63);
    folds::<u64>(Sum, &[u64::MAX, 2], 1);
    folds::<u64>(Prod, &[u64::MAX, u64::MAX], 1);
}

#[test]
fn integers_compare_by_their_sign() {
    folds::<i8>(Min, &[0x7f, 0x80, 0], 0x80);
    folds::<i8>(Max, &[0x7f, 0x80, 0], 0x7f);
    folds::<u8>(Min, &[0x7f, 0x80, 1], 1);
    folds::<u8>(Max, &[0x7f, 0x80, 1], 0x80);
    folds::<i16>(Min, &[1, 0x8000, 0x7fff], 0x8000);
    folds::<i16>(Max, &[1, 0x8000, 0x7fff], 0x7fff);
    folds::<u16>(Min, &[1, 0x8000, 0x7fff], 1);
    folds::<u16>(Max, &[1, 0x8000, 0x7fff], 0x8000);
    folds::<i32>(Min, &[1, 0xffff_ffff], 0xffff_ffff);
    folds::<i32>(Max, &[1, 0xffff_ffff], 1);
    folds::<u32>(Min, &[1, 0xffff_ffff], 1);
    folds::<u32>(Max, &[1, 0xffff_ffff], 0xffff_ffff);
    folds::<i64>(Min, &[1, u64::MAX], u64::MAX);
    folds::<i64>(Max, &[1, u64::MAX], 1);
    folds::<u64>(Min, &[1, u64::MAX], 1);
    folds::<u64>(Max, &[1, u64::MAX], u64::MAX);
}

#[test]
fn integer_averages_carry_64_bits_and_truncate() {
    folds::<i8>(Avg, &[100, 100, 100], 100);
    folds::<i8>(Avg, &[0xfd, 0xfc], 0xfd); // -3.5
    folds::<i8>(Avg, &[3, 4], 3);
    folds::<u8>(Avg, &[255, 254], 254);
    folds::<i16>(Avg, &[0x7fff, 0x7fff, 0x7ffd], 0x7ffe); // 98,299 / 3
    folds::<i16>(Avg, &[0xfffd, 0xfffc], 0xfffd); // -3.5
    folds::<u16>(Avg, &[0xffff, 0xfffe], 0xfffe);
    folds::<i32>(Avg, &[0x7fff_ffff, 0x7fff_ffff], 0x7fff_ffff);
    folds::<i32>(Avg, &[0xffff_ffff, 0], 0); // -0.5
    folds::<u32>(Avg, &[0xffff_ffff, 0xffff_ffff], 0xffff_ffff);
    folds::<i64>(Avg, &[i64::MAX as u64, i64::MAX as u64], u64::MAX); // wraps to -2
    folds::<u64>(Avg, &[u64::MAX, 3], 1); // wraps to 2
}

#[test]
fn bitwise_operations_fold_each_bit() {
    folds::<i8>(BitAnd, &[0xf0, 0xbc, 0xff], 0xb0);
    folds::<i8>(BitOr, &[0x80, 0x01, 0], 0x81);
    folds::<u8>(BitXor, &[0xff, 0x0f, 0xaa], 0x5a);
    folds::<i16>(BitXor, &[0x8001, 0x0001], 0x8000);
    folds::<u16>(BitAnd, &[0xff0f, 0x0fff], 0x0f0f);
    folds::<i32>(BitAnd, &[0xffff_ffff, 0x8000_0001], 0x8000_0001);
    folds::<u32>(BitOr, &[0xf000_0000, 0xf], 0xf000_000f);
    folds::<i64>(BitXor, &[u64::MAX, 1], u64::MAX - 1);
    folds::<u64>(BitOr, &[1 << 63, 1 << 31], 1 << 63 | 1 << 31);
    folds::<u64>(BitAnd, &[5], 5);
}

#[test]
fn premultiplied_sums_round_each_product() {
    let third = PreMulSum((1.0 / 3.0).into());
    folds::<f64>(third, &[0x4008_0000_0000_0000], 0x3ff0_0000_0000_0000); // 3 x 0.333.. rounds to 1
    folds::<f32>(third, &[0x4040_0000, 0x4040_0000], 0x4000_0000);
    // The factor is rounded to f32 once, not to the element: 0.1 in f32 is 0x3dcccccd, in f16 0x2e66, in bf16 0x3dcd.
    folds::<f32>(PreMulSum(0.1.into()), &[0x3f80_0000], 0x3dcc_cccd);
    folds::<f16>(PreMulSum(0.1.into()), &[0x6400, 0x6400], 0x5a66); // 204.8: twice f16's own 0.1 x 1024 is 204.75
    folds::<bf16>(PreMulSum(2.0.into()), &[0x3f80, 0x4000, 0x4040], 0x4140);
    folds::<f32>(PreMulSum((-0.0).into()), &[0x3f80_0000], 0x8000_0000);
    folds::<f32>(PreMulSum(0.0.into()), &[0x7f80_0000, 0x3f80_0000], 0x7fc0_0000);
    folds::<f32>(PreMulSum(1e300.into()), &[0x3f80_0000], 0x7f80_0000); // infinite in f32
    folds::<i8>(PreMulSum(3.into()), &[100, 1], 47); // 303 - 256
    folds::<i16>(PreMulSum((-1).into()), &[0x8000], 0x8000);
    folds::<u16>(PreMulSum((-1).into()), &[1, 2], 0xfffd);
    folds::<i32>(PreMulSum((1_i64 << 32 | 5).into()), &[2], 10);
    folds::<u64>(PreMulSum((-1).into()), &[u64::MAX, 5], u64::MAX - 3);
}

/// What all four float types have in common, in terms of one and of the sign, infinity and NaN of the type.
fn float_rules<T: Element>(one: u64, infinity: u64, nan: u64) {
    let sign = 1 << (8 * T::DATA_TYPE.size() - 1);
    let (signalling, payload) = (infinity | 1, nan | 5);
    for op in ReduceOp::ALL.into_iter().filter(|op| op.applies_to(T::DATA_TYPE)) {
        folds::<T>(op, &[one], one);
        folds::<T>(op, &[sign], sign); // a fold that started from zero would lose the sign
        folds::<T>(op, &[1], 1);
        folds::<T>(op, &[infinity | sign], infinity | sign);
        for other in [nan, nan | sign, payload, payload | sign, signalling, signalling | sign] {
            folds::<T>(op, &[other], nan);
            folds::<T>(op, &[other, one], nan);
            folds::<T>(op, &[one, other], nan);
            folds::<T>(op, &[one, other, infinity], nan);
        }
    }
    folds::<T>(Sum, &[infinity, infinity | sign], nan);
    folds::<T>(Sum, &[infinity, one], infinity);
    folds::<T>(Prod, &[infinity, 0], nan);
    folds::<T>(Prod, &[one | sign, 0], sign);
    folds::<T>(Sum, &[sign, sign], sign);
    folds::<T>(Sum, &[sign, 0], 0);
    folds::<T>(Avg, &[sign, sign, sign], sign);
    for [left, right] in [[0, sign], [sign, 0]] {
        folds::<T>(Min, &[left, right], sign);
        folds::<T>(Max, &[left, right], 0);
    }
    folds::<T>(Min, &[one, 1, one | sign, infinity], one | sign);
    folds::<T>(Max, &[one, 1, one | sign, infinity | sign], one);
    folds::<T>(Min, &[1, 2, sign | 1, 0], sign | 1);
    folds::<T>(Max, &[1, 2, sign | 1, 0], 2);
}

#[test]
fn zeros_infinities_subnormals_and_nan_follow_one_set_of_rules() {
    float_rules::<f64>(0x3ff0_0000_0000_0000, 0x7ff0_0000_0000_0000, 0x7ff8_0000_0000_0000);
    float_rules::<f32>(0x3f80_0000, 0x7f80_0000, 0x7fc0_0000);
    float_rules::<f16>(0x3c00, 0x7c00, 0x7e00);
    float_rules::<bf16>(0x3f80, 0x7f80, 0x7fc0);
}

fn given(entries: &[Bracketing]) -> FoldOrder {
    FoldOrder::Given(Arc::from(entries))
}

/// Around 1e8, f32 has every eighth integer: adding 6 there adds 8, and adding 3 adds nothing.
const ORDER_SHOWS: [f32; 4] = [1e8, 6.0, -1e8, 3.0];

#[test]
fn each_order_gives_its_own_bits() {
    let inputs = ORDER_SHOWS.map(|x| [x; 4]); // element c is chunk c
    let fold = |order| reference::fold(&order, Sum, &inputs).unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let [six, eight, nine, eleven] = [0x40c0_0000, 0x4100_0000, 0x4110_0000, 0x4130_0000];
    assert_eq!(fold(FoldOrder::Rank), [eleven; 4]); // ((1e8 + 6) - 1e8) + 3
    assert_eq!(fold(FoldOrder::Tree), [eight; 4]); // (1e8 + 6) + (-1e8 + 3)
    assert_eq!(fold(FoldOrder::linear([0, 2, 1, 3])), [nine; 4]); // ((1e8 - 1e8) + 6) + 3
    assert_eq!(fold(FoldOrder::Ring), [eight, six, eight, eleven]);
    let entries = given(&[Bracketing::linear([0, 2, 1, 3]), Bracketing::linear([0, 1, 2, 3])]);
    assert_eq!(fold(entries), [nine, eleven, nine, eleven]);
}

#[test]
fn f16_orders_differ_in_the_accumulator() {
    let (large, small) = (0x7800, 0x1800); // 2^15 and 2^-9, half of what f32 resolves there
    let inputs = [large, small, large | 0x8000].map(|b| [f16::from_bits(b)]);
    let fold = |order| reference::fold(&order, Sum, &inputs).unwrap()[0].to_bits();
    assert_eq!(fold(FoldOrder::Rank), 0);
    assert_eq!(fold(FoldOrder::linear([0, 2, 1])), small);
}

#[test]
fn brackets_are_folded_inside_out() {
    let inputs = [[1e8_f32], [3.0], [3.0], [3.0]];
    let nested = Bracketing::Fold(vec![
        Bracketing::Leaf(0),
        Bracketing::Fold(vec![Bracketing::Leaf(3), Bracketing::linear([1, 2])]),
    ]);
    assert_eq!(reference::fold(&FoldOrder::Rank, Sum, &inputs).unwrap(), [1e8]);
    assert_eq!(reference::fold(&given(&[nested]), Sum, &inputs).unwrap(), [1e8 + 9.0]);
}

/// Which bits the ring order gives in each chunk for [`ORDER_SHOWS`].
const RING: [f32; 4] = [8.0, 6.0, 8.0, 11.0];

#[test]
fn chunks_are_even_and_the_longer_ones_come_first() {
    for (len, chunks) in [
        (0, &[][..]),
        (1, &[0][..]),
        (3, &[0, 1, 2]),
        (4, &[0, 1, 2, 3]),
        (6, &[0, 0, 1, 1, 2, 3]),
        (11, &[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]),
    ] {
        let inputs = ORDER_SHOWS.map(|x| vec![x; len]);
        let expected: Vec<f32> = chunks.iter().map(|&chunk: &usize| RING[chunk]).collect();
        assert_eq!(reference::fold(&FoldOrder::Ring, Sum, &inputs).unwrap(), expected);
    }
}

#[test]
fn reduce_scatter_has_the_counts_as_chunks() {
    let inputs = ORDER_SHOWS.map(|x| vec![x; 6]);
    let outputs = reference::reduce_scatter(&FoldOrder::Ring, Sum, &inputs, &[0, 3, 1, 2]).unwrap();
    assert_eq!(outputs, [vec![], vec![6.0; 3], vec![8.0], vec![11.0; 2]]);
    let outputs = reference::reduce_scatter(&FoldOrder::Rank, Sum, &[[1, 2, 3], [10, 20, 30]], &[2, 1]).unwrap();
    assert_eq!(outputs, [vec![11, 22], vec![33]]);
}

#[test]
fn every_rank_gets_its_output() {
    let inputs = [vec![1_u8, 2], vec![3, 4], vec![5, 6]];
    assert_eq!(reference::all_reduce(&FoldOrder::Rank, Sum, &inputs).unwrap(), [[9, 12]; 3]);
    assert_eq!(reference::all_gather(&inputs).unwrap(), [[1, 2, 3, 4, 5, 6]; 3]);
    assert_eq!(reference::all_gather(&[vec![1_u8], vec![], vec![2, 3]]).unwrap(), [[1, 2, 3]; 3]);
    assert_eq!(reference::broadcast(&inputs, 1).unwrap(), [[3, 4]; 3]);
    assert_eq!(reference::broadcast(&[&[][..], &[7_u8], &[]], 1).unwrap(), [[7]; 3]);
    assert_eq!(reference::all_reduce::<u8>(&FoldOrder::Tree, Sum, &[[]; 3]).unwrap(), vec![Vec::<u8>::new(); 3]);
}

#[test]
fn copies_keep_payloads() {
    let inputs = [[f32::from_bits(0xffc1_2345)], [f32::from_bits(0x7fc0_0001)]];
    let gathered = reference::all_gather(&inputs).unwrap();
    assert_eq!(gathered[1].iter().map(|x| x.to_bits()).collect::<Vec<_>>(), [0xffc1_2345, 0x7fc0_0001]);
    assert_eq!(reference::broadcast(&inputs, 0).unwrap()[1][0].to_bits(), 0xffc1_2345);
}

#[test]
fn wrong_arguments_are_sentences() {
    #[track_caller]
    fn refused<R: std::fmt::Debug>(result: annulus::Result<R>, sentence: &str) {
        assert_eq!(result.unwrap_err(), Error::invalid(sentence));
    }
    let none: [[f32; 1]; 0] = [];
    let two = [[1.0_f32, 2.0], [3.0, 4.0]];
    let uneven = [vec![1.0_f32], vec![2.0], vec![]];
    let rank = FoldOrder::Rank;
    refused(reference::fold(&rank, Sum, &none), "there are no inputs: give one for each rank, at least one");
    refused(reference::all_gather(&none), "there are no inputs: give one for each rank, at least one");
    refused(
        reference::all_reduce(&rank, Sum, &uneven),
        "rank 0's input has 1 elements and rank 2's has 0: give all the same length",
    );
    refused(reference::reduce_scatter(&rank, Sum, &two, &[2]), "there are 1 counts for 2 ranks: give one a rank");
    refused(
        reference::reduce_scatter(&rank, Sum, &two, &[usize::MAX, 3]),
        &format!("the counts add up to {} elements; each input has 2", usize::MAX as u128 + 3),
    );
    refused(reference::broadcast(&two, 2), "the root is rank 2, but there are 2 ranks: give one below 2");
    refused(reference::fold(&given(&[]), Sum, &two), "the given fold order is empty: give at least one bracketing");
    refused(
        reference::fold(&rank, BitXor, &two),
        "the operation bxor does not apply to f32: bitwise operations are of integers only",
    );
    refused(
        reference::reduce_scatter(&rank, PreMulSum(1.into()), &two, &[1, 1]),
        "the operation premul_sum(1) does not apply to f32: its factor must be a floating-point number, as 2.0",
    );
    for (wrong, leaves) in [(vec![0, 0], "[0, 0]"), (vec![1], "[1]"), (vec![0, 1, 2], "[0, 1, 2]"), (vec![], "[]")] {
        refused(
            reference::fold(&FoldOrder::linear(wrong), Sum, &two),
            &format!("the fold order of chunk 0 folds ranks {leaves}: each of the 2 ranks must occur exactly once"),
        );
    }
}

#[test]
fn an_empty_bracket_adds_nothing() {
    let nothing = Bracketing::Fold(vec![]);
    let odd = Bracketing::Fold(vec![nothing.clone(), Bracketing::Leaf(0), nothing, Bracketing::Leaf(1)]);
    assert_eq!(reference::fold(&given(&[odd]), Sum, &[[1], [2]]).unwrap(), [3]);
}
