// SPDX-License-Identifier: MPL-2.0
//! Whether two sets of parameters are the same, bit for bit, and where they first are not.

use std::fmt;

use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A parameter's name and its values.
pub type Named = (String, Vec<f32>);

/// A copy of named parameters.
///
/// # Errors
///
/// `InvalidArgument` if a parameter cannot be read at this moment, because its bucket is in flight for example.
pub fn snapshot(parameters: &[(String, Tensor)]) -> Result<Vec<Named>> {
    parameters.iter().map(|(name, parameter)| Ok((name.clone(), parameter.to_vec()?))).collect()
}

/// FNV-1a in 64 bits over the values' little-endian bytes, in order: a name for exactly these bits.
pub fn checksum(parameters: &[Named]) -> u64 {
    let values = parameters.iter().flat_map(|(_, values)| values);
    values
        .flat_map(|value| value.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The first place where two sets of parameters differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The parameter's name.
    pub parameter: String,
    /// The element, counted within the parameter, row-major.
    pub index: usize,
    /// Whose the first value is, and the value.
    pub one: (String, f32),
    /// Whose the other is, and that.
    pub other: (String, f32),
}

impl fmt::Display for Difference {
    /// `layers.0.weight[17] is 0.25 (3e800000) on rank 0 and 0.5 (3f000000) on rank 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { parameter, index, one: (one, a), other: (other, b) } = self;
        write!(f, "{parameter}[{index}] is {a} ({:08x}) {one} and {b} ({:08x}) {other}", a.to_bits(), b.to_bits())
    }
}

/// Where `other` first differs from `one`, which has the names; `whose` is what to call them, `on rank 0` for example.
/// Bits are compared: 0.0 and -0.0 differ, and a NaN equals itself. `None` if nothing does.
///
/// # Errors
///
/// `InvalidArgument` if the lengths differ.
pub fn first_difference<V: AsRef<[f32]>>(
    one: &[Named],
    other: &[V],
    whose: (&str, &str),
) -> Result<Option<Difference>> {
    let lengths =
        |same: bool| if same { Ok(()) } else { Err(Error::invalid("the parameters differ in their lengths")) };
    lengths(one.len() == other.len())?;
    for ((name, one), other) in one.iter().zip(other) {
        let other = other.as_ref();
        lengths(one.len() == other.len())?;
        if let Some(index) = one.iter().zip(other).position(|(a, b)| a.to_bits() != b.to_bits()) {
            let (one, other) = ((whose.0.to_owned(), one[index]), (whose.1.to_owned(), other[index]));
            return Ok(Some(Difference { parameter: name.clone(), index, one, other }));
        }
    }
    Ok(None)
}

/// Collective. Whether all ranks have the same parameters: where the first rank that does not first differs from rank
/// 0. Every rank gets the same answer. Usually one exchange of checksums; the parameters themselves travel only if
/// those differ.
///
/// # Errors
///
/// The failures of every collective.
pub fn replica_difference(comm: &Communicator, parameters: &[Named]) -> Result<Option<Difference>> {
    let mut checksums = vec![0; comm.world_size()];
    comm.all_gather(&[checksum(parameters)], &mut checksums)?;
    let Some(rank) = checksums.iter().position(|checksum| *checksum != checksums[0]) else { return Ok(None) };
    let on = |rank: usize| format!("on rank {rank}");
    let from = |root: usize| -> Result<Vec<Vec<f32>>> {
        let mut all: Vec<Vec<f32>> = parameters.iter().map(|(_, values)| values.clone()).collect();
        all.iter_mut().try_for_each(|values| comm.broadcast_in_place(values, root))?;
        Ok(all)
    };
    let names = parameters.iter().map(|(name, _)| name.clone());
    let first: Vec<Named> = names.zip(from(0)?).collect();
    first_difference(&first, &from(rank)?, (&on(0), &on(rank)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_fnv_1a() {
        assert_eq!(checksum(&[]), 0xcbf2_9ce4_8422_2325);
        // The bytes of "foobar" and "\0\0": a known vector, continued.
        let foobar = [b"foob", b"ar\0\0"].map(|bytes| f32::from_le_bytes(*bytes)).to_vec();
        let known = (0x8594_4171_f739_67e8_u64).wrapping_mul(0x0000_0100_0000_01b3).wrapping_mul(0x0000_0100_0000_01b3);
        assert_eq!(checksum(&[("a".into(), foobar)]), known);
    }

    #[test]
    fn the_first_differing_bit_is_found() {
        let one = vec![("a".to_owned(), vec![1.0, f32::NAN]), ("b".to_owned(), vec![0.0, 2.0])];
        let same = [vec![1.0, f32::NAN], vec![0.0, 2.0]];
        let whose = ("here", "there");
        assert_eq!(first_difference(&one, &same, whose).unwrap(), None);
        let zero = [vec![1.0, f32::NAN], vec![-0.0, 3.0]];
        let difference = first_difference(&one, &zero, whose).unwrap().unwrap();
        assert_eq!(difference.to_string(), "b[0] is 0 (00000000) here and -0 (80000000) there");
        assert!(first_difference(&one, &same[..1], whose).is_err());
    }
}
