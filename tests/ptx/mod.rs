// SPDX-License-Identifier: MPL-2.0
//! The executor of PTX (ptx.h says what it is), as a library with the PTX that is checked in.

#![allow(dead_code)] // each test uses its part
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int};
use std::path::PathBuf;

use crate::compiler;

/// The library, without any text, or `None` and a sentence on stderr where there is no C++ compiler.
pub fn library() -> Option<PathBuf> {
    const FLAGS: [&str; 8] =
        ["-std=c++17", "-ffp-contract=off", "-fPIC", "-Wall", "-Wextra", "-O2", "-pthread", "-shared"];
    let compiler = compiler::compiler()?;
    let folders = ["kernels/host", "tests/ptx", "tests/ptx/library"];
    let mut all = compiler::files(&folders, &["cpp", "h"]);
    all.extend(compiler::files(&["tests/kernels/library"], &["h"]));
    let folder = compiler::once("ptx", &FLAGS, &all, |folder| {
        let arguments: Vec<&str> = FLAGS.iter().copied().chain(["-Wl,-z,nodelete"]).collect();
        compiler::compile(&compiler, &arguments, &compiler::files(&folders, &["cpp"]), &folder.join("ptx.so"));
    });
    Some(folder.join("ptx.so"))
}

/// Reads a text, or says why not.
pub fn read(library: &libloading::Library, text: &str) -> Result<(), String> {
    type Read = unsafe extern "C" fn(*const c_char, *mut c_char, usize) -> c_int;
    let text = CString::new(text).expect("no zero in it");
    let mut mistake = vec![0_u8; 500];
    // SAFETY: the function has this type (library/library.cpp): it reads up to a zero, and writes less than it is told.
    let ended = unsafe {
        let read = library.get::<Read>(b"annulus_read").expect("the library has it");
        read(text.as_ptr(), mistake.as_mut_ptr().cast(), mistake.len())
    };
    let end = mistake.iter().position(|byte| *byte == 0).unwrap_or(mistake.len());
    if ended == 0 { Ok(()) } else { Err(String::from_utf8_lossy(&mistake[..end]).into_owned()) }
}

/// Every text for a target, as checked in: those for the oldest are all there is of most.
pub fn checked_in(target: &str) -> Vec<PathBuf> {
    let mut texts = compiler::files(&["kernels/ptx"], &["ptx"]);
    texts.retain(|path| path.to_string_lossy().ends_with(&format!(".{target}.ptx")));
    texts
}
