// SPDX-License-Identifier: MPL-2.0
//! What a rank calls, in six words: what ranks compare, by its hash, before anything is moved.

use std::fmt::Write;

use crate::element::{DataType, Factor, ReduceOp};
use crate::error::Error;
use crate::schedule::{Collective, NAMES};
use crate::transport::page::DESCRIPTOR;

/// The descriptor of a call. Two ranks may proceed together exactly if theirs are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Descriptor {
    pub collective: Collective,
    pub data_type: DataType,
    pub op: Option<ReduceOp>,
    /// Elements, as NCCL counts them.
    pub count: usize,
    pub root: usize,
    pub in_place: bool,
    /// The algorithm that was asked for by name: 0 for none, else its place in the catalogue plus 1.
    pub algorithm: u32,
    /// The hash of a user's own verified schedule; 0 for a built-in.
    pub program: u64,
}

impl Descriptor {
    /// As words, all of which count.
    pub fn words(&self) -> [u64; DESCRIPTOR] {
        let op = self.op.map_or(0, |op| op.number().into());
        let factor = if let Some(ReduceOp::PreMulSum(factor)) = self.op { factor.bits() } else { 0 };
        let kind = self.collective as u64 | (self.data_type as u64) << 8 | op << 16 | u64::from(self.in_place) << 24;
        let mut words = [0; DESCRIPTOR];
        let all = [kind | u64::from(self.algorithm) << 32, self.count as u64, self.root as u64, self.program, factor];
        words.iter_mut().zip(all).for_each(|(word, value)| *word = value);
        words
    }

    /// The hash of the words: multiply and fold, as in wyhash (public domain), one round a word.
    pub fn hash(&self) -> u64 {
        self.words().into_iter().fold(0x9e37_79b9_7f4a_7c15, |hash, word| {
            let product = u128::from(hash ^ word) * u128::from(0xd6e8_feb8_6659_fd93_u64);
            (product as u64 ^ (product >> 64) as u64).wrapping_add(0x9e37_79b9_7f4a_7c15)
        })
    }

    /// What is called, of which type and with which operation.
    fn kind(words: &[u64; DESCRIPTOR]) -> Option<(Collective, DataType, Option<ReduceOp>)> {
        let word = words[0];
        let collective = Collective::ALL.into_iter().find(|c| *c as u64 == word & 0xff)?;
        let data_type = DataType::ALL.into_iter().find(|t| *t as u64 == word >> 8 & 0xff)?;
        // The kind of a factor is the type's: a call with another is refused before it is posted.
        let op = ReduceOp::from_number((word >> 16) as u8, Factor::from_bits(data_type.is_float(), words[4]));
        Some((collective, data_type, op))
    }

    /// The call as a user would write it.
    pub fn sentence(words: &[u64; DESCRIPTOR]) -> String {
        let kind = words[0];
        let Some((collective, data_type, op)) = Self::kind(words) else {
            return "something this version does not know".into();
        };
        if collective == Collective::Barrier {
            return "barrier()".into();
        }
        let in_place = if kind >> 24 & 1 == 1 { "_in_place" } else { "" };
        let mut text = format!("{collective}{in_place}({data_type}, {}", words[1]);
        if let Some(op) = op {
            let _ = write!(text, ", {op:?}");
        }
        if collective.has_root() {
            let _ = write!(text, ", root {}", words[2]);
        }
        text.push(')');
        if let Some(name) = ((kind >> 32) as usize).checked_sub(1).and_then(|place| NAMES.get(place)) {
            let _ = write!(text, " by algorithm {name}");
        }
        if words[3] != 0 {
            let _ = write!(text, " by the verified program {:016x}", words[3]);
        }
        text
    }
}

/// The mismatch of call `call`, given every rank's sentence: ranks that say the same are named together.
pub(crate) fn mismatch(call: u64, sentences: &[String]) -> Error {
    let mut parts: Vec<(Vec<usize>, &str)> = Vec::new();
    for (rank, sentence) in sentences.iter().enumerate() {
        match parts.iter_mut().find(|(_, text)| *text == sentence) {
            Some((ranks, _)) => ranks.push(rank),
            None => parts.push((vec![rank], sentence)),
        }
    }
    let parts: Vec<String> = parts
        .into_iter()
        .map(|(ranks, text)| match ranks.len() {
            1 => format!("rank {} calls {text}", ranks[0]),
            _ => format!("ranks {} call {text}", list(&ranks)),
        })
        .collect();
    Error::Mismatch(format!("call {call}: {}; all ranks must make the same call", parts.join("; ")).into())
}

/// Ranks as in a sentence: `0, 1, 3`.
pub(crate) fn list(ranks: &[usize]) -> String {
    ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
