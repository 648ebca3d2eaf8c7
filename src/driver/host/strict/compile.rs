// SPDX-License-Identifier: MPL-2.0
//! Modules for strict devices, compiled while the program runs: by the machine's C++ compiler (`CXX`, else `c++`), once for
//! each content.
//!
//! The sources of the library's kernels, and of what a module needs, are in the library. They are written to a folder
//! of the cache, below which a module lies that is named after all that its compiler reads: `ANNULUS_SIM_CACHE`, else
//! `annulus` in `XDG_CACHE_HOME`, else in `~/.cache`. What is there is complete, since it is made under another name.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Every file: its path below the crate's folder, and its content.
const SOURCES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// Kernels: with a call before each access to memory, and the lines of the source. Optimised little, so that each access
/// of the source is one.
const KERNELS: [&str; 13] = [
    "-std=c++17",
    "-O1",
    "-g1",
    "-fsanitize=thread",
    "-DANNULUS_STRICT",
    "-ffp-contract=off",
    "-fno-exceptions",
    "-fno-strict-aliasing",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wno-unknown-pragmas",
    "-xc++",
    "-Ikernels",
];

/// What a module has beside its kernels.
const MODULE: [&str; 10] = [
    "-std=c++17",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-shared",
    "-Wl,-z,defs",
    "-Wl,--wrap=memcpy,--wrap=memmove,--wrap=memset",
    "kernels/host/module/module.cpp",
    "kernels/host/kernel.cpp",
    "-o",
];

/// The module of the library's kernels in `kernels/UNIT.cu`.
pub(super) fn unit(unit: &str) -> Result<PathBuf, String> {
    module(&format!("kernels/{unit}.cu"))
}

/// The module of the kernels in a user's file.
pub(super) fn file(source: &Path) -> Result<PathBuf, String> {
    let absolute = std::path::absolute(source).map_err(|error| format!("{}: {error}", source.display()))?;
    module(&absolute.to_string_lossy())
}

/// The module of the kernels in a file, as it is called from the folder of the sources.
fn module(source: &str) -> Result<PathBuf, String> {
    let folder = sources()?;
    // All that the compiler reads is in what it makes of the source first.
    let mut hasher = DefaultHasher::new();
    run(&folder, ["--version"])?.stdout.hash(&mut hasher);
    run(&folder, KERNELS.iter().copied().chain(["-E", source]))?.stdout.hash(&mut hasher);
    let finished = folder.join(format!("{:016x}.so", hasher.finish()));
    if finished.exists() {
        return Ok(finished);
    }
    let module = temporary(&finished);
    let object = temporary(&module);
    let [module_name, object_name] = [&module, &object].map(|path| path.to_string_lossy());
    // Lines of the library's files are said to be in `kernels/`.
    let prefix = format!("-ffile-prefix-map={}=.", folder.display());
    let made = run(&folder, KERNELS.iter().copied().chain([&prefix, "-c", source, "-o", &object_name]))
        .and_then(|_| run(&folder, MODULE.iter().copied().chain([&*module_name, &object_name])));
    let _ = fs::remove_file(&object);
    made?;
    fs::rename(&module, &finished).map_err(|error| format!("{}: {error}", finished.display()))?;
    Ok(finished)
}

/// The folder with all sources, written if they are not there yet.
fn sources() -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    SOURCES.hash(&mut hasher);
    KERNELS.hash(&mut hasher);
    MODULE.hash(&mut hasher);
    let folder = cache().join(format!("strict-{:016x}", hasher.finish()));
    if folder.exists() {
        return Ok(folder);
    }
    let written = temporary(&folder);
    write_sources(&written)
        .map_err(|error| format!("{}: {error}; ANNULUS_SIM_CACHE names another folder", written.display()))?;
    // Another process may have been quicker: then its folder stays, which has the same content.
    if fs::rename(&written, &folder).is_err() {
        let _ = fs::remove_dir_all(&written);
    }
    if folder.exists() { Ok(folder) } else { Err(format!("{} cannot be made", folder.display())) }
}

fn write_sources(folder: &Path) -> io::Result<()> {
    for (path, content) in SOURCES {
        let path = folder.join(path);
        // What lies there is loaded into the process: it is nobody else's to write.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap_or(folder))?;
        fs::write(path, content)?;
    }
    Ok(())
}

fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = variable("ANNULUS_SIM_CACHE").or_else(|| Some(variable("XDG_CACHE_HOME")?.join("annulus")));
    let named = named.or_else(|| Some(variable("HOME")?.join(".cache/annulus")));
    named.unwrap_or_else(|| std::env::temp_dir().join(format!("annulus-{}", rustix::process::getuid().as_raw())))
}

/// A name beside the path that nobody else uses.
fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Relaxed: only that numbers differ matters.
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_extension(format!("{}-{number}.o", std::process::id()))
}

/// Runs the compiler in the folder; what it says is the error where it fails.
fn run<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output, String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let output = Command::new(&compiler).current_dir(folder).args(arguments).output().map_err(|error| {
        format!("strict devices compile kernels, and {compiler} does not start ({error}); CXX names another compiler")
    })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{compiler} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
