// SPDX-License-Identifier: MPL-2.0
//! Ranks on cores of their own, so that the scheduler moves none of them while it is measured.

use crate::error::Result;

/// Pins the calling thread to one of the cores that it may use: of k of them, rank r takes number r modulo k. Returns
/// that core's number, or `None` where the system has no such call (it has on Linux).
///
/// # Errors
///
/// `System` if the system refuses.
#[cfg(target_os = "linux")]
pub fn pin(rank: usize) -> Result<Option<usize>> {
    use crate::error::Error;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let refused = |errno| Error::system(format!("pinning rank {rank} to a core"), errno);
    let allowed = sched_getaffinity(None).map_err(refused)?;
    let cores = || (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    let Some(core) = cores().nth(rank % cores().count().max(1)) else { return Ok(None) };
    let mut own = CpuSet::new();
    own.set(core);
    sched_setaffinity(None, &own).map_err(refused)?;
    Ok(Some(core))
}

/// Pins nothing: this system has no such call.
#[cfg(not(target_os = "linux"))]
pub fn pin(_rank: usize) -> Result<Option<usize>> {
    Ok(None)
}
