// SPDX-License-Identifier: MPL-2.0
//! Files that appear whole or not at all: each is written beside its destination, flushed to the disk, and renamed.
//!
//! `what` names the file's purpose in sentences: `checkpoint`, `plot`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Whether [`write_whole`] could write to `path`, as far as can be seen before there is something to write: tries to
/// make a file beside it, and removes that again.
///
/// # Errors
///
/// A sentence naming `path` if it names no file, or something that is none, or no file can be made beside it.
pub(crate) fn check_writable(what: &str, path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::invalid(format!("{} is a directory: a {what} needs a file name", path.display())));
    }
    if path.exists() && !path.is_file() {
        // Renaming would replace a device by a file.
        return Err(Error::invalid(format!("{} is no regular file: a {what} needs one", path.display())));
    }
    let partial = partial_beside(what, path)?;
    let made = File::create_new(&partial).and_then(|_| fs::remove_file(&partial));
    made.map_err(|error| Error::system(format!("writing the {what} {}", path.display()), error))
}

/// Writes a file beside `path` and renames it to `path`.
///
/// # Errors
///
/// A sentence naming `path`, which is then as it was.
pub(crate) fn write_whole(what: &str, path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = partial_beside(what, path)?;
    write_and_rename(&partial, path, bytes).map_err(|error| {
        // The first error is the one to report; the partial file may not even exist.
        let _ = fs::remove_file(&partial);
        Error::system(format!("writing the {what} {}", path.display()), error)
    })
}

/// A name beside `path` that no other partial file has.
fn partial_beside(what: &str, path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::invalid(format!("{} names no file: a {what} needs a file name", path.display())));
    };
    // Relaxed, because the numbers need only differ.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let (process, write) = (std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
    let mut partial_name = OsString::from(".");
    partial_name.push(name);
    partial_name.push(format!(".{process}.{write}.partial"));
    Ok(path.with_file_name(partial_name))
}

fn write_and_rename(partial: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(partial, path)
}
