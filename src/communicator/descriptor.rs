// SPDX-License-Identifier: MPL-2.0
//! What a rank calls, in nine words: what ranks compare, by its hash, before anything is moved.

use std::fmt::Write;

use super::operator::Signature;
use crate::element::{DataType, Factor, ReduceOp};
use crate::error::Error;
use crate::schedule::{Collective, Layout, NAMES, Verified};
use crate::transport::page::DESCRIPTOR;

/// What stands for an operation of one's own, where others have their number.
const OWN: u64 = 0xff;

/// The descriptor of a call. Two ranks may proceed together exactly if theirs are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Descriptor {
    pub collective: Collective,
    pub data_type: DataType,
    pub op: Option<ReduceOp>,
    /// The operation of one's own, of calls that fold with one.
    pub operator: Option<Signature>,
    /// Elements, as NCCL counts them; all of them, where ranks' counts differ.
    pub count: usize,
    pub root: usize,
    pub in_place: bool,
    /// The algorithm that was asked for by name: 0 for none, else its place in the catalogue plus 1.
    pub algorithm: u32,
    /// The hash of a user's own verified schedule, or of ranks' counts that differ; else 0.
    pub program: u64,
    /// Whether `program` is of counts.
    pub is_varying: bool,
}

impl Descriptor {
    /// Of a user's own schedule.
    pub fn of_verified(verified: &Verified, data_type: DataType, op: Option<ReduceOp>) -> Self {
        let layout = verified.layout();
        Descriptor {
            collective: verified.collective(),
            data_type,
            op,
            operator: None,
            // The same on all ranks, whose own counts may differ; the program's hash covers those.
            count: layout.largest(),
            root: layout.root(),
            in_place: layout.is_in_place(),
            algorithm: 0,
            program: verified.hash(),
            is_varying: false,
        }
    }

    /// Of a message. Among two, sending is broadcasting; in place, since the sender receives nothing.
    pub fn of_message(data_type: DataType, count: usize) -> Self {
        Descriptor {
            collective: Collective::Broadcast,
            data_type,
            op: None,
            operator: None,
            count,
            root: 0,
            in_place: true,
            algorithm: 0,
            program: 0,
            is_varying: false,
        }
    }

    /// As words, all of which count.
    pub fn words(&self) -> [u64; DESCRIPTOR] {
        let op = match self.operator {
            Some(_) => OWN,
            None => self.op.map_or(0, |op| op.number().into()),
        };
        let mut kind = self.collective as u64 | (self.data_type as u64) << 8 | op << 16;
        kind |= u64::from(self.in_place) << 24 | u64::from(self.operator.is_some_and(|own| own.is_ordered)) << 25;
        kind |= u64::from(self.is_varying) << 26 | u64::from(self.algorithm) << 32;
        let parameter = match (self.operator, self.op) {
            (Some(operator), _) => operator.words,
            (None, Some(ReduceOp::PreMulSum(factor))) => [factor.bits(), 0, 0, 0, 0],
            _ => [0; 5],
        };
        let all = [kind, self.count as u64, self.root as u64, self.program].into_iter().chain(parameter);
        let mut words = [0; DESCRIPTOR];
        words.iter_mut().zip(all).for_each(|(word, value)| *word = value);
        words
    }

    /// Why a rank refuses the call, if it does: which call that is.
    #[cold]
    pub fn refused(&self, rank: usize, error: Error) -> Error {
        match error {
            Error::InvalidArgument(why) => {
                Error::invalid(format!("{} on rank {rank}: {why}", Self::sentence(&self.words())))
            }
            other => other,
        }
    }

    /// The hash of the words.
    pub fn hash(&self) -> u64 {
        hash(self.words())
    }

    /// What the call folds with, as a user would write it; `None` for a call that folds nothing.
    fn operation(words: &[u64; DESCRIPTOR], data_type: DataType) -> Option<String> {
        if words[0] >> 16 & 0xff == OWN {
            let operator =
                Signature { is_ordered: words[0] >> 25 & 1 == 1, words: std::array::from_fn(|i| words[4 + i]) };
            return Some(operator.to_string());
        }
        // The kind of a factor is the type's: a call with another is refused before it is posted.
        let factor = Factor::from_bits(data_type.is_float(), words[4]);
        ReduceOp::from_number((words[0] >> 16) as u8, factor).map(|op| format!("{op:?}"))
    }

    /// The call as a user would write it.
    pub fn sentence(words: &[u64; DESCRIPTOR]) -> String {
        let kind = words[0];
        let collective = Collective::ALL.into_iter().find(|c| *c as u64 == kind & 0xff);
        let data_type = DataType::ALL.into_iter().find(|t| *t as u64 == kind >> 8 & 0xff);
        let (Some(collective), Some(data_type)) = (collective, data_type) else {
            return "something this version does not know".into();
        };
        if collective == Collective::Barrier {
            return "barrier()".into();
        }
        let in_place = if kind >> 24 & 1 == 1 { "_in_place" } else { "" };
        let varying = if kind >> 26 & 1 == 1 { "_v" } else { "" };
        let with = if kind >> 16 & 0xff == OWN { "_with" } else { "" };
        let mut text = format!("{collective}{varying}{in_place}{with}({data_type}, {}", words[1]);
        if let Some(operation) = Self::operation(words, data_type) {
            let _ = write!(text, ", {operation}");
        }
        if collective.has_root() {
            let _ = write!(text, ", root {}", words[2]);
        }
        text.push(')');
        if let Some(name) = ((kind >> 32) as usize).checked_sub(1).and_then(|place| NAMES.get(place)) {
            let _ = write!(text, " by algorithm {name}");
        }
        if !varying.is_empty() {
            let _ = write!(text, " with the counts {:016x}", words[3]);
        } else if words[3] != 0 {
            let _ = write!(text, " by the verified program {:016x}", words[3]);
        }
        text
    }
}

/// The hash of counts that differ between ranks.
pub(crate) fn counts(layout: &Layout) -> u64 {
    let ranks = 0..layout.world();
    match layout.is_matrix() {
        true => hash(ranks.clone().flat_map(|from| ranks.clone().map(move |to| layout.pair(from, to) as u64))),
        false => hash(ranks.map(|rank| layout.count(rank) as u64)),
    }
}

/// A hash of words: multiply and fold, as in wyhash (public domain), one round a word.
pub(super) fn hash(words: impl IntoIterator<Item = u64>) -> u64 {
    words.into_iter().fold(0x9e37_79b9_7f4a_7c15, |hash, word| {
        let product = u128::from(hash ^ word) * u128::from(0xd6e8_feb8_6659_fd93_u64);
        (product as u64 ^ (product >> 64) as u64).wrapping_add(0x9e37_79b9_7f4a_7c15)
    })
}

/// The mismatch of call `call`, given every rank's descriptor.
pub(crate) fn mismatch(call: u64, descriptors: &[[u64; DESCRIPTOR]]) -> Error {
    mismatch_of(call, descriptors.iter().map(Descriptor::sentence).enumerate())
}

/// The same of calls in words, each with its rank: ranks that call the same are named together.
pub(super) fn mismatch_of(call: u64, sentences: impl IntoIterator<Item = (usize, String)>) -> Error {
    let mut parts: Vec<(Vec<usize>, String)> = Vec::new();
    for (rank, sentence) in sentences {
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

/// What a message's descriptor says: how many elements of which type.
fn contents(words: &[u64; DESCRIPTOR]) -> String {
    let data_type = DataType::ALL.into_iter().find(|t| *t as u64 == words[0] >> 8 & 0xff);
    format!("{} {}", words[1], data_type.map_or("elements", DataType::name))
}

/// A message, in words.
pub(crate) fn message(words: &[u64; DESCRIPTOR], from: usize, to: usize) -> String {
    format!("a message of {} from rank {from} to rank {to}", contents(words))
}

/// The mismatch of a message, given the sender's and the receiver's rank and descriptor.
pub(crate) fn message_mismatch(call: u64, [from, to]: [usize; 2], descriptors: &[[u64; DESCRIPTOR]]) -> Error {
    let [sent, received] = [&descriptors[0], &descriptors[1]].map(contents);
    Error::Mismatch(
        format!(
            "message {call} from rank {from} to rank {to}: rank {from} sends {sent}, rank {to} receives {received}; both \
             must name the same type and length"
        )
        .into(),
    )
}

/// Ranks as in a sentence: `0, 1, 3`.
pub(crate) fn list(ranks: &[usize]) -> String {
    ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
