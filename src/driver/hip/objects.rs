// SPDX-License-Identifier: MPL-2.0
//! The code of the library's kernels for AMD devices: for each source file a bundle of objects, of which HIP takes the one
//! for its card.
//!
//! `build.rs` embeds the bundles for the targets that `ANNULUS_HIP_TARGETS` named when it was built. Those in the folder that
//! `ANNULUS_HIP_CODE` names when a device is opened come first; `kernels/compile-amd --to FOLDER TARGET..` makes it. Which
//! kernels there are, and how long their arguments, is known of the checked-in PTX, which is of the same sources.

use std::borrow::Cow;
use std::path::Path;

use super::super::backend::Failure;
use super::super::gpu::{Unit, number};

/// The variable that names a folder of bundles.
const FOLDER: &str = "ANNULUS_HIP_CODE";

/// A source file.
struct Source {
    name: &'static str,
    kernels: &'static [(&'static str, Option<usize>)],
    bundle: Option<&'static [u8]>,
}

/// Bytes that begin where an object may.
#[allow(dead_code, reason = "a build may have been asked for no targets")]
#[repr(align(4096))]
struct Aligned<T: ?Sized>(T);

include!(concat!(env!("OUT_DIR"), "/hip.rs"));

/// The code of every kernel.
pub(super) fn units() -> Result<Vec<Unit>, Failure> {
    let folder = std::env::var_os(FOLDER);
    SOURCES.iter().map(|source| unit(source, folder.as_deref().map(Path::new))).collect()
}

fn unit(source: &Source, folder: Option<&Path>) -> Result<Unit, Failure> {
    let what = format!("the kernels of {}.cu", source.name);
    let missing = |meaning| Failure { call: "looking for their code", code: number::NOT_SUPPORTED as i32, meaning };
    let image = match (folder, source.bundle) {
        (Some(folder), _) => {
            let path = folder.join(source.name).with_extension("hipfb");
            let bundle = std::fs::read(&path)
                .map_err(|error| missing(format!("{what} cannot be read from {}: {error}", path.display())))?;
            // HIP may read in it as long as its module lives, which is for good.
            &*bundle.leak()
        }
        (None, Some(bundle)) => bundle,
        (None, None) => {
            return Err(missing(format!(
                "{what} are not in this build of Annulus: {}; or let {FOLDER} name a folder that `kernels/compile-amd --to` \
                 made",
                NOT_EMBEDDED.unwrap_or("their bundle was not made")
            )));
        }
    };
    Ok(Unit { what, image: Cow::Borrowed(image), kernels: source.kernels.to_vec() })
}
