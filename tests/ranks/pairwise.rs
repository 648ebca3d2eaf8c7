// SPDX-License-Identifier: MPL-2.0
//! Few cases that, together, have every possible pair of values of any two dimensions.

use std::collections::BTreeSet;

use annulus::reference::inputs::SplitMix64;

/// Cases, each with one value (from 0) for every dimension and all of them possible, so that any two values of two
/// different dimensions that can occur together do so in at least one. Greedy: each case is begun by a pair that is
/// still missing, and the rest of it is the best of some draws.
pub fn pairwise(dimensions: &[usize], seed: u64, possible: impl Fn(&[usize]) -> bool) -> Vec<Vec<usize>> {
    type Pair = ((usize, usize), (usize, usize));
    let pairs = |case: &[usize]| -> Vec<Pair> {
        let at = |dimension: usize| (dimension, case[dimension]);
        (0..case.len()).flat_map(|a| (a + 1..case.len()).map(move |b| (a, b))).map(|(a, b)| (at(a), at(b))).collect()
    };
    let mut missing: BTreeSet<Pair> = BTreeSet::new();
    for (a, of_a) in dimensions.iter().enumerate() {
        for (b, of_b) in dimensions.iter().enumerate().skip(a + 1) {
            missing.extend((0..*of_a).flat_map(|x| (0..*of_b).map(move |y| ((a, x), (b, y)))));
        }
    }
    let mut generator = SplitMix64::new(seed);
    let mut cases = Vec::new();
    while let Some(&((a, x), (b, y))) = missing.first() {
        let draws = (0..100).map(|_| {
            let mut case: Vec<usize> =
                dimensions.iter().map(|size| generator.between(0, *size as u64 - 1) as usize).collect();
            (case[a], case[b]) = (x, y);
            case
        });
        let draws = draws.filter(|case| possible(case)).take(12);
        let gain = |case: &Vec<usize>| pairs(case).iter().filter(|pair| missing.contains(pair)).count();
        let Some(best) = draws.max_by_key(gain) else {
            missing.remove(&((a, x), (b, y)));
            continue;
        };
        for pair in pairs(&best) {
            missing.remove(&pair);
        }
        cases.push(best);
    }
    cases
}

#[test]
fn every_pair_occurs() {
    let dimensions = [10, 12, 5, 3, 2];
    // Value 0 of the first dimension and value 0 of the last exclude each other.
    let possible = |case: &[usize]| case[0] > 0 || case[4] > 0;
    let cases = pairwise(&dimensions, 1, possible);
    assert!(cases.iter().all(|case| possible(case)));
    for (a, of_a) in dimensions.iter().enumerate() {
        for (b, of_b) in dimensions.iter().enumerate().skip(a + 1) {
            for (x, y) in (0..*of_a).flat_map(|x| (0..*of_b).map(move |y| (x, y))) {
                let occurs = cases.iter().any(|case| case[a] == x && case[b] == y);
                assert_eq!(occurs, (a, x, b, y) != (0, 0, 4, 0));
            }
        }
    }
    assert!(cases.len() < 200, "{} cases", cases.len());
}
