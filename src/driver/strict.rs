// SPDX-License-Identifier: MPL-2.0
//! Strict simulated devices: they execute kernels to find mistakes in them, of the library and of users.
//!
//! `ANNULUS_SIM=strict` makes all simulated devices strict; [`Device::simulated_strict`] opens one beside the others.
//! What is run on it is slow, perhaps a hundredth as quick as on other simulated devices. It is:
//!
//! - *Shuffled.* Each GPU thread is a fiber, and which one goes on is drawn from the seed: at barriers, in waits, and
//!   between any two accesses to memory. So is the order of blocks. What only works in one order fails for some seed; and
//!   a seed makes the same of a launch each time, as long as it does not wait for another.
//! - *Checked.* A launch ends with a fault, which the stream reports where the host waits for it, where a thread
//!   - reads or writes outside of the memory that devices of this process have allocated, by however little;
//!   - accesses memory that is not aligned to the access, or writes to the kernel's argument or a constant;
//!   - accesses shared memory that another thread has accessed since the last barrier, if one of the two wrote
//!     (`sync_warp()` counts among threads of a warp);
//!   - ends without a barrier that others wait at, or comes to another one than they;
//!   - asks for a lane that its warp does not have.
//!
//!   The sentence names kernel, block, thread, and the line, if `addr2line` of the binutils is there.
//! - *Filled.* Shared memory that nobody has written has bytes of the seed, so that results depend on the seed that
//!   depend on those ([`agree`]).
//! - *As large as a card.* It has room for as many blocks, threads and bytes of dynamic shared memory as other simulated
//!   devices have: blocks that wait for blocks which have no room wait in vain, as they do on a card. Shared memory that a
//!   kernel declares takes no room.
//!
//! Not noticed are races in device memory, but by their results; accesses to memory that is somebody else's; and what
//! stays within the shared memory of the kernels of one file. A kernel that waits for ever does so here too.
//!
//! Kernels are compiled when they are asked for first, by the machine's C++ compiler (`CXX`, else `c++`; GCC or clang),
//! and kept in `ANNULUS_SIM_CACHE`, else below `XDG_CACHE_HOME` or `~/.cache`.
//!
//! A user's kernel is a file in the dialect that `kernels/dialect.h` describes, which NVIDIA's and AMD's compilers
//! understand too:
//!
//! ```cpp
//! #include "dialect.h"
//! struct Scale { float* values; u64 count; float factor; };
//! KERNEL(scale, Scale) {
//!     for (u64 i = block() * threads() + thread(); i < args.count; i += blocks() * threads())
//!         args.values[i] *= args.factor;
//! }
//! ```
//!
//! [`add_kernels`] compiles it, and `Device::kernel` finds it on every strict device. `examples/strict.rs` is a whole
//! test: `cargo run --example strict`.

use std::path::Path;

use super::device::Device;
use crate::error::{Error, Result};

/// Compiles the kernels of a file (`KERNEL` of `dialect.h`, which its folder need not have) and adds them to those of all
/// strict devices of this process. A kernel of a name that there was before takes its place, whosever it was: so a
/// changed kernel of the library can be tried.
///
/// # Errors
///
/// `InvalidArgument` with what the compiler says, where it fails or there is none; `Unsupported` as
/// [`Device::simulated_strict`].
pub fn add_kernels(source: impl AsRef<Path>) -> Result<()> {
    add(source.as_ref())
}

#[cfg(annulus_simulated)]
fn add(source: &Path) -> Result<()> {
    super::host::add_kernels(source)
}

#[cfg(not(annulus_simulated))]
fn add(_: &Path) -> Result<()> {
    Device::simulated(0).map(drop)
}

/// Runs `run` on strict device 0 of each seed, and returns what it returns, which must be the same for all seeds.
///
/// # Errors
///
/// What `run` fails with first; `System` where results differ, with the two seeds, and where shared memory was read that
/// nobody had written, if it was.
pub fn agree<R: PartialEq>(
    seeds: impl IntoIterator<Item = u64>,
    mut run: impl FnMut(&Device) -> Result<R>,
) -> Result<R> {
    let mut first: Option<(u64, R)> = None;
    for seed in seeds {
        let device = Device::simulated_strict(0, seed)?;
        device.core.backend.remark();
        let result = run(&device)?;
        match &first {
            Some((other, expected)) if *expected != result => {
                let remark = device.core.backend.remark().map_or(String::new(), |remark| format!(": {remark}"));
                return Err(Error::System(
                    format!("{device}: the result of seed {seed} differs from that of seed {other}{remark}").into(),
                ));
            }
            Some(_) => {}
            None => first = Some((seed, result)),
        }
    }
    first.map(|(_, result)| result).ok_or_else(|| Error::invalid("no seed was given; give two at least"))
}
