// SPDX-License-Identifier: MPL-2.0
//! The library's kernels on a device: loaded all together when the device is opened, then found by name.
//!
//! To load code, a driver may wait for all that runs on the device; a kernel that waits for a peer would wait for ever for
//! one whose code is yet to be loaded. So nothing is loaded later: not when a function is used for the first time either.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use super::super::backend::{Failure, Function, FunctionId, Grid, StreamId};
use super::calls::{Attribute, Object, Unit};
use super::context::{Context, Entered};
use super::fault::{number, refused};
use super::memory::raw;

pub(super) struct Code {
    functions: HashMap<&'static str, Function>,
    multiprocessors: u32,
    /// Resident blocks by function, threads and shared memory: asked for with every launch.
    resident: Mutex<HashMap<(FunctionId, u32, u32), u32>>,
}

impl Code {
    /// Loads the code of every kernel.
    pub fn load(context: &Context) -> Result<Code, Failure> {
        let driver = context.enter()?;
        let shared = c_int::try_from(context.ordinal.attribute(Attribute::SharedPerBlock)?).unwrap_or(c_int::MAX);
        let mut functions = HashMap::new();
        for unit in context.ordinal.library.units(context.ordinal)? {
            let module = load(&driver, &unit)?;
            for (name, argument_bytes) in &unit.kernels {
                let function = find(&driver, module, name)?;
                // SAFETY: the function is of this place.
                unsafe { driver.prepare_function(function, shared) }?;
                let id = FunctionId(function.expose_provenance() as u64);
                functions.insert(*name, Function { id, argument_bytes: *argument_bytes });
            }
        }
        let multiprocessors = context.ordinal.multiprocessors()?;
        Ok(Code { functions, multiprocessors, resident: Mutex::default() })
    }

    pub fn find(&self, name: &str) -> Option<Function> {
        self.functions.get(name).copied()
    }

    /// # Safety
    /// The function is of this context.
    pub unsafe fn resident_blocks(
        &self,
        driver: &Entered,
        function: FunctionId,
        threads: u32,
        shared: u32,
    ) -> Result<u32, Failure> {
        let mut resident = self.resident.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = resident.get(&(function, threads, shared)) {
            return Ok(*known);
        }
        let mut blocks = 0;
        // SAFETY: the pointer is to an integer of ours; the rest is the caller's promise.
        unsafe {
            driver.resident_blocks(
                &mut blocks,
                raw_function(function),
                c_int::try_from(threads).unwrap_or(c_int::MAX),
                shared as usize,
            )
        }?;
        let all = (blocks.max(0) as u32).saturating_mul(self.multiprocessors);
        resident.insert((function, threads, shared), all);
        Ok(all)
    }

    /// Launches a kernel. Blocks that must be `together` are counted, and not launched cooperatively: ranks that share a
    /// device launch one kernel each, which have to run at the same time, and of a cooperative launch it is known only
    /// that its own blocks do.
    ///
    /// # Safety
    /// As [`Backend::launch`](super::super::backend::Backend::launch).
    pub unsafe fn launch(
        &self,
        driver: &Entered,
        function: FunctionId,
        grid: Grid,
        together: bool,
        argument: &[u8],
        stream: StreamId,
    ) -> Result<(), Failure> {
        if together {
            // SAFETY: the caller's promise.
            let room = unsafe { self.resident_blocks(driver, function, grid.threads, grid.shared) }?;
            if grid.blocks > room {
                return Err(refused(
                    "launch",
                    number::TOO_MANY_BLOCKS,
                    format!("there is room for {room} blocks of this shape"),
                ));
            }
        }
        let mut arguments = [argument.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the argument is only read, as many bytes as the kernel takes, which it has by the caller's promise;
        // the driver copies it before it returns. The rest is the caller's promise.
        unsafe {
            let (function, arguments) = (raw_function(function), arguments.as_mut_ptr());
            driver.launch(function, grid.blocks, grid.threads, grid.shared, raw(stream), arguments)
        }?;
        Ok(())
    }
}

fn load(driver: &Entered, unit: &Unit) -> Result<Object, Failure> {
    let mut module = ptr::null_mut();
    // SAFETY: the image is as `Unit` says, and the pointer is to a variable of ours. The module is never unloaded.
    unsafe { driver.load_module(&mut module, unit.image.as_ptr().cast()) }
        .map_err(|fault| Failure { meaning: format!("{}, of {}", fault.name, unit.what), ..fault.into() })?;
    Ok(module)
}

fn find(driver: &Entered, module: Object, name: &str) -> Result<Object, Failure> {
    let c_name = CString::new(name).unwrap_or_default();
    let mut function = ptr::null_mut();
    // SAFETY: the module lives, the name ends with a zero, and the pointer is to a variable of ours.
    unsafe { driver.find_function(&mut function, module, c_name.as_ptr()) }
        .map_err(|fault| Failure { meaning: format!("{}, of the kernel {name}", fault.name), ..fault.into() })?;
    Ok(function)
}

fn raw_function(function: FunctionId) -> Object {
    ptr::with_exposed_provenance_mut(function.0 as usize)
}
