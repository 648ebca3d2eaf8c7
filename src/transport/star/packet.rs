// SPDX-License-Identifier: MPL-2.0
//! The packets of a star, and their bytes: a kind, then little-endian fields. Pure data.
//!
//! Reading accepts any bytes: what is not a packet is `None`. The layout of [`Packet::Hello`] up to its version, and
//! that of [`Packet::Failure`], stay the same in all versions, so that ranks of different versions can say that they
//! differ.

use crate::error::{Cause, Error};

/// The first bytes of a Hello, by which a stranger is told from a rank.
const MAGIC: [u8; 8] = *b"annulus\0";
/// The version of these packets. Ranks of different versions refuse each other.
pub(super) const VERSION: u32 = 1;
/// The most bytes that one packet carries of a contribution, so that a packet fits any socket's buffer.
pub(super) const PAYLOAD: usize = 16 << 10;
/// The size of the largest packet.
pub(super) const LARGEST: usize = PAYLOAD + 32;
/// The longest error sentence that is passed on, and the longest list of missing ranks: both fit one packet.
const SENTENCE: usize = 4 << 10;
const MISSING: usize = 2 << 10;

/// One message between rank 0 and another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    /// The first from a rank: who it is, and for how many milliseconds it will wait.
    Hello { version: u32, rank: u32, world: u32, process: u32, patience: u32 },
    /// The answer to a Hello that was in order.
    Welcome,
    /// A piece of what rank `source` contributes to a round, `total` bytes in all. The first piece carries all of its
    /// descriptors. `patience` is that of the sender.
    Part { round: u32, source: u32, total: u32, patience: u32, bytes: Vec<u8> },
    /// A rank has all parts of a round.
    Received { round: u32 },
    /// Something failed, for everyone.
    Failure(Error),
    /// The sender goes of its own accord.
    Leave,
}

impl Packet {
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Vec::new();
        match self {
            Packet::Hello { version, rank, world, process, patience } => {
                to.push(1);
                to.extend(MAGIC);
                put(&mut to, &[*version, *rank, *world, *process, *patience]);
            }
            Packet::Welcome => to.push(2),
            Packet::Part { round, source, total, patience, bytes } => {
                to.push(3);
                put(&mut to, &[*round, *source, *total, *patience]);
                to.extend(bytes);
            }
            Packet::Received { round } => {
                to.push(4);
                put(&mut to, &[*round]);
            }
            Packet::Failure(error) => {
                to.push(5);
                encode_error(&mut to, error);
            }
            Packet::Leave => to.push(6),
        }
        to
    }

    pub fn decode(bytes: &[u8]) -> Option<Packet> {
        let (kind, mut rest) = bytes.split_first()?;
        let rest = &mut rest;
        let packet = match kind {
            1 => {
                let (magic, after) = rest.split_first_chunk()?;
                *rest = after;
                let [version, rank, world, process, patience] = take(rest)?;
                (*magic == MAGIC).then_some(Packet::Hello { version, rank, world, process, patience })?
            }
            2 => Packet::Welcome,
            3 => {
                let [round, source, total, patience] = take(rest)?;
                Packet::Part { round, source, total, patience, bytes: std::mem::take(rest).to_vec() }
            }
            4 => {
                let [round] = take(rest)?;
                Packet::Received { round }
            }
            5 => Packet::Failure(decode_error(rest)?),
            6 => Packet::Leave,
            _ => return None,
        };
        // A later version may say more in its Hello.
        (rest.is_empty() || matches!(packet, Packet::Hello { .. })).then_some(packet)
    }
}

fn put(to: &mut Vec<u8>, fields: &[u32]) {
    to.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u32; N]> {
    let mut fields = [0; N];
    for field in &mut fields {
        let (bytes, rest) = from.split_first_chunk()?;
        *field = u32::from_le_bytes(*bytes);
        *from = rest;
    }
    Some(fields)
}

/// An error as bytes: variant, cause, the number of ranks, the ranks, and the sentence as the rest.
fn encode_error(to: &mut Vec<u8>, error: &Error) {
    let (variant, cause, ranks, sentence) = match error {
        Error::InvalidArgument(sentence) => (0, 0, &[][..], sentence),
        Error::Mismatch(sentence) => (1, 0, &[][..], sentence),
        Error::RankLost { rank, cause: Cause::Left, context } => (2, 0, &[*rank][..], context),
        Error::RankLost { rank, cause: Cause::Died, context } => (2, 1, &[*rank][..], context),
        Error::Timeout { missing, context } => (3, 0, &missing[..], context),
        Error::Aborted(sentence) => (4, 0, &[][..], sentence),
        Error::Unsupported(sentence) => (5, 0, &[][..], sentence),
        Error::System(sentence) => (6, 0, &[][..], sentence),
    };
    let ranks = &ranks[..ranks.len().min(MISSING)];
    to.extend([variant, cause]);
    put(to, &[ranks.len() as u32]);
    for &rank in ranks {
        put(to, &[u32::try_from(rank).unwrap_or(u32::MAX)]);
    }
    to.extend(&sentence.as_bytes()[..sentence.len().min(SENTENCE)]);
}

fn decode_error(from: &mut &[u8]) -> Option<Error> {
    let (&[variant, cause], rest) = from.split_first_chunk()?;
    *from = rest;
    let [count] = take(from)?;
    let mut ranks = Vec::new();
    for _ in 0..count {
        let [rank] = take(from)?;
        ranks.push(rank as usize);
    }
    let sentence = String::from_utf8_lossy(std::mem::take(from)).into();
    Some(match (variant, cause, &ranks[..]) {
        (0, 0, []) => Error::InvalidArgument(sentence),
        (1, 0, []) => Error::Mismatch(sentence),
        (2, 0, &[rank]) => Error::RankLost { rank, cause: Cause::Left, context: sentence },
        (2, 1, &[rank]) => Error::RankLost { rank, cause: Cause::Died, context: sentence },
        (3, 0, _) => Error::Timeout { missing: ranks, context: sentence },
        (4, 0, []) => Error::Aborted(sentence),
        (5, 0, []) => Error::Unsupported(sentence),
        (6, 0, []) => Error::System(sentence),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn samples() -> Vec<Packet> {
        let errors = [
            Error::invalid("a"),
            Error::Mismatch("b".into()),
            Error::RankLost { rank: 3, cause: Cause::Left, context: "c".into() },
            Error::RankLost { rank: 70_000, cause: Cause::Died, context: "".into() },
            Error::Timeout { missing: vec![1, 2], context: "d".into() },
            Error::Aborted("e".into()),
            Error::unsupported("f"),
            Error::system("g", "h"),
        ];
        let mut packets: Vec<Packet> = errors.into_iter().map(Packet::Failure).collect();
        packets.extend([
            Packet::Hello { version: VERSION, rank: 1, world: 2, process: 3, patience: u32::MAX },
            Packet::Welcome,
            Packet::Part { round: 1, source: 2, total: 5, patience: 6, bytes: vec![1, 2, 3] },
            Packet::Part { round: 0, source: 0, total: 0, patience: 0, bytes: vec![0; PAYLOAD] },
            Packet::Received { round: 9 },
            Packet::Leave,
        ]);
        packets
    }

    #[test]
    fn every_packet_survives_its_bytes_and_fits() {
        for packet in samples() {
            let bytes = packet.encode();
            assert!(bytes.len() <= LARGEST);
            assert_eq!(Packet::decode(&bytes), Some(packet));
        }
    }

    #[test]
    fn long_errors_are_cut_to_fit() {
        let context = "é".repeat(LARGEST);
        let missing: Vec<usize> = (0..LARGEST).collect();
        let bytes = Packet::Failure(Error::Timeout { missing, context: context.into() }).encode();
        assert!(bytes.len() <= LARGEST);
        let Some(Packet::Failure(Error::Timeout { missing, context })) = Packet::decode(&bytes) else { panic!() };
        assert_eq!((missing.len(), context.len()), (MISSING, SENTENCE));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(3),
            failure_persistence: None,
            ..Default::default()
        })]

        #[test]
        fn any_bytes_are_a_packet_or_none(kind in 0..8_u8, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut packet = vec![kind];
            packet.extend(&bytes);
            let _ = Packet::decode(&packet);
            let _ = Packet::decode(&bytes);
        }

        #[test]
        fn a_damaged_packet_is_another_packet_or_none(index in 0..14_usize, cut in any::<prop::sample::Index>(),
                                                      at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let packet = samples().swap_remove(index);
            let mut bytes = packet.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_ne!(Packet::decode(&bytes), Some(packet.clone()));
            bytes.truncate(cut.index(bytes.len()));
            prop_assert_ne!(Packet::decode(&bytes), Some(packet));
        }
    }
}
