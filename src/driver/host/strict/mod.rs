// SPDX-License-Identifier: MPL-2.0
//! What executes kernels on a strict device: the Rust side of `kernels/host/strict`.
//!
//! Kernels are of modules (`compile`), which are loaded when somebody asks for one of their kernels and stay. Those that
//! users have added come first, the last of them before all others.
#![allow(unsafe_code)]

mod compile;
mod fault;

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::super::backend::{Address, Failure, Grid};
use super::execution::{self, ALIGNMENT};
use super::refused;
use fault::{Fault, Unwritten};

/// `host::Launch`.
#[repr(C)]
struct Launch {
    kernel: *const c_void,
    args: *const c_void,
    blocks: u32,
    threads: u32,
    shared: u32,
}

unsafe extern "C" {
    fn annulus_strict_obstacle() -> *const c_char;
    fn annulus_strict_add_memory(begin: usize, bytes: usize);
    fn annulus_strict_remove_memory(begin: usize);
    fn annulus_strict_load(file: *const c_char, why: *mut *const c_char) -> *const c_void;
    fn annulus_strict_find(
        module: *const c_void,
        name: *const c_char,
        argument_bytes: *mut usize,
        argument_alignment: *mut usize,
    ) -> *const c_void;
    fn annulus_strict_device(seed: u64) -> *mut c_void;
    fn annulus_strict_resident(device: *const c_void, threads: u32, shared: u32) -> u32;
    fn annulus_strict_run(
        device: *mut c_void,
        module: *const c_void,
        launch: *const Launch,
        number: u64,
        fault: *mut Fault,
        unwritten: *mut Unwritten,
    );
}

/// Why strict devices cannot be had in this build, if so.
pub(super) fn obstacle() -> Option<String> {
    // SAFETY: takes nothing; what it answers is null or a string that stays.
    let obstacle = unsafe { annulus_strict_obstacle().as_ref().map(|first| CStr::from_ptr(first)) };
    obstacle.map(|why| why.to_string_lossy().into_owned())
}

/// Lets kernels of strict devices access memory.
pub(super) fn add_memory(begin: Address, bytes: usize) {
    // SAFETY: this only notes numbers.
    unsafe { annulus_strict_add_memory(begin as usize, bytes) }
}

/// The opposite, before the memory goes.
pub(super) fn remove_memory(begin: Address) {
    // SAFETY: as above.
    unsafe { annulus_strict_remove_memory(begin as usize) }
}

/// A loaded module.
#[derive(Clone, Copy)]
struct Module(*const c_void);

// SAFETY: a module is never changed, and stays loaded; any thread may use it.
unsafe impl Send for Module {}

/// A kernel of a module.
struct Function {
    name: String,
    module: *const c_void,
    kernel: *const c_void,
    argument_bytes: usize,
}

/// The modules of this process.
#[derive(Default)]
struct Modules {
    /// What users have added.
    added: Vec<Module>,
    /// The library's, by the names of their files without the ending.
    units: HashMap<String, Module>,
    /// Kernels that have been found, by where they are: the address of a `Function` that stays.
    found: HashMap<usize, u64>,
}

static MODULES: LazyLock<Mutex<Modules>> = LazyLock::new(Mutex::default);

fn modules() -> MutexGuard<'static, Modules> {
    MODULES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compiles and loads the kernels of a file.
pub(super) fn add_kernels(source: &Path) -> Result<(), String> {
    // The lock is held meanwhile: who asks for a kernel now waits for it.
    let mut modules = modules();
    modules.added.push(load(&compile::file(source)?)?);
    Ok(())
}

fn load(file: &Path) -> Result<Module, String> {
    let name = CString::new(file.as_os_str().as_bytes()).map_err(|_| "a path with a zero in it".to_owned())?;
    let mut why = ptr::null();
    // SAFETY: the file is a module of ours, whose constructors only fill its list; `why` is set where it is not loaded.
    let module = unsafe { annulus_strict_load(name.as_ptr(), &mut why) };
    if module.is_null() {
        // SAFETY: it was set to a string that stays until the next call, which the lock keeps away.
        return Err(unsafe { CStr::from_ptr(why) }.to_string_lossy().into_owned());
    }
    Ok(Module(module))
}

/// The kernel of that name: what it is known by, and the bytes of its argument.
pub(super) fn find(name: &CStr) -> Result<Option<(u64, usize)>, Failure> {
    let mut modules = modules();
    let added = modules.added.iter().rev().find_map(|module| find_in(*module, name));
    let function = match (added, execution::file_of(name)) {
        (Some(function), _) => Some(function),
        (None, None) => None,
        (None, Some(file)) => {
            let unit = Path::new(&file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let module = match modules.units.get(&unit) {
                Some(module) => *module,
                None => {
                    let module = compile::unit(&unit).and_then(|file| load(&file));
                    let module = module.map_err(|why| refused("compiling a kernel", Errno::NOEXEC, why))?;
                    modules.units.insert(unit, module);
                    module
                }
            };
            find_in(module, name)
        }
    };
    Ok(function.map(|function| {
        let bytes = function.argument_bytes;
        let known = modules.found.entry(function.kernel as usize);
        (*known.or_insert_with(|| ptr::from_ref(Box::leak(Box::new(function))).expose_provenance() as u64), bytes)
    }))
}

fn find_in(Module(module): Module, name: &CStr) -> Option<Function> {
    let (mut argument_bytes, mut alignment) = (0, 0);
    // SAFETY: the module is loaded, and the name ends with a zero.
    let kernel = unsafe { annulus_strict_find(module, name.as_ptr(), &mut argument_bytes, &mut alignment) };
    let fits = !kernel.is_null() && alignment <= ALIGNMENT;
    fits.then(|| Function { name: name.to_string_lossy().into_owned(), module, kernel, argument_bytes })
}

/// What runs the kernels of one strict device. It lives for ever.
pub(super) struct Strict {
    device: *mut c_void,
    seed: u64,
    /// The first read of shared memory that nobody had written.
    unwritten: Mutex<Option<String>>,
}

// SAFETY: any number of threads may run kernels on a device (strict/device.h), and it is never destroyed.
unsafe impl Send for Strict {}
// SAFETY: as above.
unsafe impl Sync for Strict {}

impl Strict {
    pub fn new(seed: u64) -> Self {
        // SAFETY: takes a number.
        Strict { device: unsafe { annulus_strict_device(seed) }, seed, unwritten: Mutex::default() }
    }

    /// How many blocks of this shape it has room for.
    pub fn resident(&self, threads: u32, shared: u32) -> u32 {
        // SAFETY: the device lives.
        unsafe { annulus_strict_resident(self.device, threads, shared) }
    }

    /// The first read of shared memory that nobody had written, since this was asked last.
    pub fn take_unwritten(&self) -> Option<String> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Runs a launch to its end, or to its first mistake. `number` tells it apart from others like it.
    ///
    /// # Safety
    /// The kernel is one that `find` found, and the argument is one that it takes, aligned to `ALIGNMENT`. The device
    /// has room for such blocks.
    pub unsafe fn run(&self, kernel: u64, grid: Grid, argument: *const c_void, number: u64) -> Result<(), Failure> {
        // SAFETY: by the caller's promise it is the address of one that `find` has leaked.
        let function = unsafe { &*ptr::with_exposed_provenance::<Function>(kernel as usize) };
        let Grid { blocks, threads, shared } = grid;
        let launch = Launch { kernel: function.kernel, args: argument, blocks, threads, shared };
        let (mut fault, mut unwritten) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: the device and the module live; the launch is there until this returns, and its argument by the
        // caller's promise. Both answers are written before it returns.
        let (fault, unwritten): (Fault, Unwritten) = unsafe {
            let (fault_to, unwritten_to) = (fault.as_mut_ptr(), unwritten.as_mut_ptr());
            annulus_strict_run(self.device, function.module, &launch, number, fault_to, unwritten_to);
            (fault.assume_init(), unwritten.assume_init())
        };
        // To find a line takes its time: only the first is asked for.
        let mut first = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = unwritten.sentence(&function.name);
        }
        drop(first);
        match fault.sentence(&function.name) {
            None => Ok(()),
            Some(sentence) => {
                Err(refused("a kernel", Errno::FAULT, format!("{sentence} (strict, seed {})", self.seed)))
            }
        }
    }
}
