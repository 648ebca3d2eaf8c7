// SPDX-License-Identifier: MPL-2.0
//! What a strict launch fails by, in words.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::process::Command;

/// Where a word of the dialect stands (`host::Place`).
#[repr(C)]
#[derive(Clone, Copy)]
struct Place {
    file: *const c_char,
    line: i32,
}

/// `host::strict::Access`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Access {
    address: usize,
    bytes: u64,
    how: u32,
    from: *const c_void,
}

/// `host::strict::Fault` of `kernels/host/strict/fault.h`, which says what each field means.
/// `host::strict::Range`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    begin: usize,
    bytes: usize,
}

/// `host::strict::Fault`; `kernels/host/strict/fault.h` says what each field means.
#[repr(C)]
pub(super) struct Fault {
    wrong: u32,
    block: u32,
    thread: u32,
    other: u32,
    asked: u32,
    other_wrote: u32,
    place: Place,
    other_place: Place,
    access: Access,
    other_from: *const c_void,
    near: Range,
}

/// `host::strict::Unwritten`.
#[repr(C)]
pub(super) struct Unwritten {
    block: u32,
    thread: u32,
    from: *const c_void,
}

/// Where something was in a module.
#[repr(C)]
struct InModule {
    file: *const c_char,
    offset: usize,
}

unsafe extern "C" {
    fn annulus_strict_place(from: *const c_void) -> InModule;
}

/// Bit of `Access::how`: it writes.
const WRITES: u32 = 1;

/// Who misses memory by more than this means none in particular.
const NEAR: usize = 1 << 30;

impl Fault {
    /// The sentence about the launch of a kernel, or none where nothing was wrong.
    pub fn sentence(&self, kernel: &str) -> Option<String> {
        let Fault { block, thread, other, asked, .. } = *self;
        let who = format!("{kernel}, thread {thread} of block {block}");
        let [place, other_place] = [self.place, self.other_place].map(Place::words);
        Some(match self.wrong {
            0 => return None,
            1 => format!("{who} ended without the barrier{place} at which thread {other} waits"),
            2 => format!("{who} came to the barrier{place} while thread {other} waits at another{other_place}"),
            3 => format!("{who} ended without the meeting of its warp{place} at which thread {other} waits"),
            4 => {
                format!(
                    "{who} came to the meeting of its warp{place} while thread {other} waits at another{other_place}"
                )
            }
            5 => format!("{who} asks for lane {asked} of its warp{place}, which has not so many threads"),
            6 => format!("{who} {} {}", self.access.words(), self.whereabouts()),
            7 => format!(
                "{who} {}, where there are constants: the kernel's argument, or its tables",
                self.access.words()
            ),
            8 => format!(
                "{who} {} at {:#x}, which is not aligned to so many bytes",
                self.access.words(),
                self.access.address
            ),
            9 => format!(
                "{who} {} of shared memory that thread {other} {}{}, with no barrier between",
                self.access.words(),
                if self.other_wrote != 0 { "wrote" } else { "read" },
                line_of(self.other_from)
            ),
            _ => format!("{kernel} was given up: no memory for the stacks of its threads"),
        })
    }

    /// Where in which memory.
    fn whereabouts(&self) -> String {
        let Range { begin, bytes } = self.near;
        let at = self.access.address.wrapping_sub(begin);
        match bytes {
            1.. if at < bytes + NEAR => format!("at byte {at} of memory of {bytes} bytes"),
            _ => format!("at {:#x}, where no memory of simulated devices is", self.access.address),
        }
    }
}

impl Unwritten {
    /// The sentence about the launch of a kernel, or none where it read nothing of that kind.
    pub fn sentence(&self, kernel: &str) -> Option<String> {
        let Unwritten { block, thread, from } = *self;
        let line = (!from.is_null()).then(|| line_of(from))?;
        Some(format!("{kernel}, thread {thread} of block {block}, read shared memory{line} that no thread had written"))
    }
}

impl Place {
    fn words(self) -> String {
        if self.file.is_null() {
            return String::new();
        }
        // SAFETY: a file that is not null is a string of a module, and those stay loaded.
        let file = unsafe { CStr::from_ptr(self.file) };
        format!(" ({}:{})", file.to_string_lossy(), self.line)
    }
}

impl Access {
    fn words(&self) -> String {
        let does = if self.how & WRITES != 0 { "writes" } else { "reads" };
        format!("{does} {} bytes{}", self.bytes, line_of(self.from))
    }
}

/// The line of an instruction of a module, as the binutils' `addr2line` finds it; else where it is in its module.
fn line_of(from: *const c_void) -> String {
    // SAFETY: any address may be asked for.
    let InModule { file, offset } = unsafe { annulus_strict_place(from) };
    if file.is_null() {
        return String::new();
    }
    // SAFETY: a file that is not null is a string of the dynamic linker's, and modules stay loaded.
    let file = unsafe { CStr::from_ptr(file) }.to_string_lossy();
    // The address is where the call returns to, which may be the next line's.
    let asked = Command::new("addr2line").args(["-e", &file, &format!("{:#x}", offset - 1)]).output();
    let said = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let line = said.split([' ', '\n']).next().unwrap_or_default().trim_start_matches("./");
    if line.is_empty() || line.starts_with("??") || line.ends_with(":?") {
        return format!(" ({file}+{offset:#x})");
    }
    format!(" ({line})")
}
