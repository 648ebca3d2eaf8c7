// SPDX-License-Identifier: MPL-2.0
//! What ranks agree on before they share anything: that their devices are of one kind, how much room launches have, how
//! much one moves, and whether the devices reach each other (`reach`).
//!
//! Where two do not, everything that ranks share is memory of the host, on all ranks: what kernels do stays as it is,
//! and so does each call's choice of kernel.

use std::collections::HashMap;

use super::super::Communicator;
use super::exchange::agree;
use super::reach::is_confined;
use crate::driver::{self, Device, Platform};
use crate::error::{Error, Result};
use crate::kernel::{BLOCKS, Kernel, Shape};

/// Threads of a block of a collective.
const THREADS: u32 = 256;

/// Threads of a block where that is the only one of its multiprocessor (`THREADS` of `kernels/dialect.h`).
const MANY: u32 = 512;

/// The room for a rank's launches, so that those of all ranks are resident together; the same on all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Blocks of a launch, at the most.
    blocks: u32,
    /// Threads of each, where there are so many blocks: [`MANY`] on cards that ranks share, since each multiprocessor has
    /// one block there, whose threads alone have loads on their way.
    threads: u32,
}

impl Room {
    /// The shape of a launch that works through so many bytes.
    pub fn shape(self, kernel: Kernel, bytes: usize) -> Shape {
        let shape = Shape::of(kernel, bytes as u64, self.blocks);
        let is_full = shape.threads == THREADS && shape.blocks == self.blocks.min(BLOCKS as u32);
        if is_full { Shape { threads: self.threads, ..shape } } else { shape }
    }
}

/// What all ranks have found alike.
pub(super) struct Agreed {
    pub room: Room,
    /// Whether some rank's device cannot address another's memory.
    pub hosted: bool,
    /// Bytes that one launch moves at the most. Each rank has three times as much for what peers do not see.
    pub staged: usize,
}

impl Agreed {
    /// Collective.
    pub fn new(comm: &Communicator, device: &Device, kernels: &HashMap<Kernel, driver::Kernel>) -> Result<Agreed> {
        const WORDS: usize = 8;
        let resident = |threads| {
            let rooms = kernels.values().map(|kernel| kernel.resident_blocks(threads, 0));
            rooms.min_by_key(|room| room.as_ref().map_or(0, |room| *room)).unwrap_or(Ok(0))
        };
        let resident = || Ok([resident(THREADS)?, resident(MANY)?]);
        let [resident, of_many] = agree(comm, "asking for the room of kernels", resident())?;
        let has = device.capabilities();
        let mut all = vec![0_u64; WORDS * comm.world_size()];
        let [high, low] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|byte| has.identity[at + byte])));
        let is_card = has.platform != Platform::Simulated;
        // Simulated devices run no kernels but ours.
        let multiprocessors = if is_card { has.multiprocessors } else { 0 };
        let [platform, index] = [has.platform as u64, has.index as u64];
        let [resident, of_many, multiprocessors] = [resident, of_many, multiprocessors].map(u64::from);
        let own = [platform, high, low, index, resident, has.memory, multiprocessors, of_many];
        comm.all_gather(&own, &mut all)?;
        let (said, _) = all.as_chunks::<WORDS>();
        if let Some(rank) = said.iter().position(|own| own[0] != said[0][0]) {
            let kinds = [Platform::Simulated, Platform::Cuda, Platform::Hip];
            let kind = |rank: usize| {
                kinds
                    .into_iter()
                    .find(|kind| *kind as u64 == said[rank][0])
                    .map_or_else(String::new, |kind| kind.to_string())
            };
            return Err(Error::unsupported(format!(
                "rank 0 has a {} device and rank {rank} a {} one, and collectives need devices of one kind; open the same \
                 kind on all ranks (`Device::auto` takes the one that ANNULUS_DEVICE names)",
                kind(0),
                kind(rank)
            )));
        }
        let is_near = |own: &&[u64; WORDS]| own[1..3] == [high, low];
        let sharing = said.iter().filter(is_near).count();
        let is_one_process = comm.transport().kind() == "threads";
        let turns = if is_one_process { attended(device, sharing, &asked_of_driver) } else { Ok(()) };
        agree(comm, "sharing devices among threads", turns)?;
        let identity = |own: &[u64; WORDS]| std::array::from_fn(|byte| own[1 + byte / 8].to_le_bytes()[byte % 8]);
        let identities: Vec<[u8; 16]> = said.iter().map(identity).collect();
        let hosted = is_confined(comm, device, &identities)?;
        // Processes may see the same device under different numbers.
        let ranks = |own: &[u64; WORDS]| said.iter().filter(|other| identity(other) == identity(own)).count();
        let mut blocks = u32::MAX;
        for (rank, own @ [_, _, _, index, resident, _, multiprocessors, _]) in said.iter().enumerate() {
            let shared = room(rank, *index, *resident as u32, ranks(own))?;
            blocks = blocks.min(shared.min(beside_others(*multiprocessors as u32, ranks(own))));
        }
        // More threads may not cost blocks.
        let is_roomy = |own: &[u64; WORDS]| own[7] / ranks(own) as u64 >= u64::from(blocks);
        let is_shared = is_card && said.iter().any(|own| ranks(own) > 1);
        let threads = if is_shared && said.iter().all(is_roomy) { MANY } else { THREADS };
        let memory = said.iter().map(|own| own[5]).min().unwrap_or(0);
        Ok(Agreed {
            room: Room { blocks, threads },
            hosted,
            staged: if is_card && !hosted { staged(memory) } else { STAGED },
        })
    }
}

/// What a launch moves at the least, and on simulated devices.
const STAGED: usize = 16 << 20;

/// What a launch moves on cards with so many bytes of memory each: about a thousandth of it, up to 128 MiB. To enter and to
/// leave a launch takes some microseconds, in which the fastest cards move as much as 16 MiB.
fn staged(memory: u64) -> usize {
    let part = usize::try_from(memory >> 10).unwrap_or(usize::MAX);
    1 << part.clamp(STAGED, 8 * STAGED).ilog2()
}

/// What the driver was asked for by the environment, where that is a number.
fn asked_of_driver(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// How many streams of one process an NVIDIA card attends to at a time, whatever each of them waits for. The driver reads
/// it, and takes 8 where nothing is said.
pub(super) const CONNECTIONS: &str = "CUDA_DEVICE_MAX_CONNECTIONS";

/// Refuses so many ranks of one process on one NVIDIA card whose streams would take turns: then what one rank needs before
/// it comes to a call may be behind another's kernel, which waits for it. A rank has four streams and more: its user's, one
/// beside it, and two of its own. Where launches wait for their kernels, two ranks are too many.
fn attended(device: &Device, ranks: usize, asked: &dyn Fn(&str) -> Option<u64>) -> Result<()> {
    const MOST: u64 = 32;
    if ranks < 2 || device.capabilities().platform != Platform::Cuda {
        return Ok(());
    }
    if asked("CUDA_LAUNCH_BLOCKING").is_some_and(|asked| asked != 0) {
        return Err(Error::unsupported(format!(
            "{ranks} ranks of one process share {device}, and with CUDA_LAUNCH_BLOCKING each launch would wait for a \
             kernel that waits for another rank's; unset it, or make ranks processes"
        )));
    }
    let (attended, wanted) = (asked(CONNECTIONS).unwrap_or(8), MOST.min(4 * ranks as u64));
    match attended < wanted {
        true => Err(Error::unsupported(format!(
            "{ranks} ranks of one process share {device}, which attends to {attended} of their streams at a time, so that \
             ranks would wait for one another in vain; set {CONNECTIONS}={MOST} before the program starts, or make ranks \
             processes"
        ))),
        false => Ok(()),
    }
}

/// A rank's share of a device that has room for so many blocks, among the ranks that share it.
fn room(rank: usize, index: u64, resident: u32, ranks: usize) -> Result<u32> {
    match resident / ranks as u32 {
        0 => Err(Error::unsupported(format!(
            "{ranks} ranks, rank {rank} among them, share device {index}, which has room for {resident} blocks of \
             {THREADS} threads at once; each rank needs one, so put at most {resident} ranks on it"
        ))),
        share => Ok(share),
    }
}

/// The most blocks that a rank may have waiting on a card with so many multiprocessors that several ranks share: all of
/// them together leave some multiprocessors alone. A card spreads blocks over all that it has, and what a rank computes
/// before it comes to a call, a matrix product of a library, say, may need one to itself: it would find none while its
/// peers wait for it.
fn beside_others(multiprocessors: u32, ranks: usize) -> u32 {
    if ranks < 2 || multiprocessors == 0 {
        return u32::MAX;
    }
    let left_alone = (multiprocessors / 32).max(1);
    ((multiprocessors - left_alone) / ranks as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::DataType;

    #[test]
    fn a_launch_moves_more_where_there_is_more_memory() {
        let gigabytes = [0, 8, 17, 24, 40, 80, 141, 1000].map(|gigabytes| staged(gigabytes * 1_000_000_000) >> 20);
        assert_eq!(gigabytes, [16, 16, 16, 16, 32, 64, 128, 128]);
    }

    #[test]
    fn a_full_launch_alone_has_more_threads() {
        let room = Room { blocks: 4, threads: MANY };
        let two_shot = Kernel::TwoShot(DataType::F32);
        let shape = |blocks, threads| Shape { blocks, threads };
        assert_eq!(
            [0, 1 << 15, 1 << 20].map(|bytes| room.shape(two_shot, bytes)),
            [shape(1, 256), shape(1, 256), shape(4, 512)]
        );
        assert_eq!(room.shape(Kernel::Barrier, 0), shape(1, 32));
        assert_eq!(Room { blocks: 1, threads: MANY }.shape(Kernel::Barrier, 0), shape(1, 32));
        // No launch has more blocks than ranks have words for.
        assert_eq!(Room { blocks: 1000, threads: MANY }.shape(two_shot, 1 << 30), shape(64, 512));
        assert_eq!(Room { blocks: 1000, threads: THREADS }.shape(two_shot, 1 << 30), shape(64, 256));
    }

    #[test]
    fn waiting_blocks_leave_multiprocessors_alone() {
        let shares = [1, 2, 4, 8, 200].map(|ranks| beside_others(132, ranks));
        assert_eq!(shares, [u32::MAX, 64, 32, 16, 1]);
        assert_eq!((beside_others(1, 2), beside_others(0, 2)), (1, u32::MAX));
    }

    #[test]
    fn a_device_is_shared_by_as_many_ranks_as_it_has_room_for() {
        assert_eq!(room(0, 0, 32, 1), Ok(32));
        assert_eq!(room(0, 0, 32, 5), Ok(6));
        assert_eq!(room(0, 0, 4, 4), Ok(1));
        let refused = room(7, 3, 4, 8).unwrap_err().to_string();
        for part in ["8 ranks", "rank 7", "device 3", "room for 4 blocks", "at most 4 ranks"] {
            assert!(refused.contains(part), "{refused}");
        }
    }
}
