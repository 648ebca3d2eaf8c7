// SPDX-License-Identifier: MPL-2.0
//! The negative control of calls on devices, in a build with `--cfg annulus_corrupt` alone: one rank gives its kernels
//! an argument that is wrong, as the variable `ANNULUS_CORRUPT` says. `tests/device_corrupt.rs` sees that each is
//! noticed in every result that it concerns.

use crate::driver::{Device, DeviceBuffer};
use crate::error::Result;
use crate::kernel::{Collective, Messages, Place};

/// Whether this mistake is to be made.
fn is_planted(mistake: &str) -> bool {
    std::env::var("ANNULUS_CORRUPT").is_ok_and(|asked| asked == mistake)
}

/// The arguments with the mistake of the rank that makes it; those of short calls, like the self-test, stay right.
pub(super) fn corrupted(arguments: Collective) -> Collective {
    let Collective { elements, operation, root, rank, world, from_place, .. } = arguments;
    if elements < 100 {
        return arguments;
    }
    let (is_first, is_last) = (rank == 0, rank == world - 1);
    match () {
        () if is_last && is_planted("short") => Collective { elements: elements - 1, ..arguments },
        () if is_first && is_planted("operation") => Collective { operation: operation ^ 1, ..arguments },
        () if is_first && is_planted("root") => Collective { root: (root + 1) % world, ..arguments },
        () if is_last && is_planted("place") && from_place != Place::STAGED.word() => {
            Collective { from_place: from_place + 16, ..arguments }
        }
        () => arguments,
    }
}

/// The same of messages.
pub(super) fn corrupted_messages(mut arguments: Messages, rank: usize, world: usize) -> Messages {
    if rank != world - 1 {
        return arguments;
    }
    let sends = arguments.sends as usize;
    for (number, message) in arguments.message.iter_mut().take(arguments.messages as usize).enumerate() {
        let is_placed = number < sends && message.place != Place::STAGED.word();
        message.place += if is_placed && is_planted("place") { 16 } else { 0 };
        message.bytes -= u64::from(number >= sends && message.bytes > 100 && is_planted("short"));
    }
    arguments
}

/// Whether ranks meet in memory of the host, or where some of them cannot come.
pub(super) fn hosted(hosted: bool) -> bool {
    hosted && !is_planted("unhosted")
}

/// The arenas as rank 0 sees them, or not: what it writes to rank 1 does not arrive.
pub(super) fn lost(mut arenas: Vec<DeviceBuffer<u8>>, rank: usize, device: &Device) -> Result<Vec<DeviceBuffer<u8>>> {
    if rank == 0 && arenas.len() > 1 && is_planted("lost") {
        arenas[1] = device.allocate_mappable(arenas[1].len())?;
    }
    Ok(arenas)
}

/// Where rank 0 sees ranks' registered memory, with ranks 1 and 2 in each other's place.
pub(super) fn disordered(mut addresses: Vec<u64>, rank: usize, region: usize) -> Vec<u64> {
    if rank == 0 && addresses.len() > 2 && region > 1 && is_planted("order") {
        addresses.swap(1, 2);
    }
    addresses
}
