// SPDX-License-Identifier: MPL-2.0
//! The library's kernels on a device: loaded all together when the device is opened, then found by name.
//!
//! To load code, a driver may wait for all that runs on the device; a kernel that waits for a peer would wait for ever for
//! one whose code is yet to be loaded. So nothing is loaded later. A driver that loads a function at its first use by
//! itself (`CUDA_MODULE_LOADING`) is told to load it (`cuFuncLoad`), or, before CUDA 12.4, asked what only the loaded code
//! can answer.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use super::super::backend::{Failure, Function, FunctionId, Grid, StreamId};
use super::context::{Context, Entered, NOT_SUPPORTED, refused};
use super::library::Fault;
use super::memory::raw;
use super::ptx;
use super::sys::{CUdevice_attribute, CUfunction, CUfunction_attribute, CUmodule};

pub(super) struct Code {
    functions: HashMap<String, Function>,
    multiprocessors: u32,
    /// Resident blocks by function, threads and shared memory: asked for with every launch.
    resident: Mutex<HashMap<(FunctionId, u32, u32), u32>>,
}

impl Code {
    /// Loads the code of every kernel.
    pub fn load(context: &Context) -> Result<Code, Failure> {
        let driver = context.enter()?;
        let capability = context.ordinal.capability()?;
        let units = ptx::chosen(capability).ok_or_else(|| {
            let (own, oldest) = (capability, ptx::oldest());
            let sentence = format!(
                "the device has compute capability {}.{}, and the kernels are for {}.{} and later",
                own / 10,
                own % 10,
                oldest / 10,
                oldest % 10
            );
            refused("cuDeviceGetAttribute", NOT_SUPPORTED, sentence)
        })?;
        let shared =
            context.ordinal.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let mut functions = HashMap::new();
        for unit in units {
            let module = load(&driver, unit).map_err(|fault| Failure {
                meaning: format!("{}, of the kernels of {}.cu for sm_{}", fault.name, unit.name, unit.target),
                ..fault.into()
            })?;
            for (name, argument_bytes) in ptx::entries(unit.text) {
                let function = find(&driver, module, name)?;
                // SAFETY: the function is of this context.
                unsafe { prepare(&driver, function, shared) }?;
                let id = FunctionId(function.expose_provenance() as u64);
                functions.insert(name.to_owned(), Function { id, argument_bytes });
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
            driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(
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
        const TOO_LARGE: i32 = 720;
        if together {
            // SAFETY: the caller's promise.
            let room = unsafe { self.resident_blocks(driver, function, grid.threads, grid.shared) }?;
            if grid.blocks > room {
                return Err(refused("launch", TOO_LARGE, format!("there is room for {room} blocks of this shape")));
            }
        }
        let mut arguments = [argument.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the argument is only read, as many bytes as the kernel takes, which it has by the caller's promise;
        // the driver copies it before it returns. The rest is the caller's promise.
        unsafe {
            driver.cuLaunchKernel(
                raw_function(function),
                grid.blocks,
                1,
                1,
                grid.threads,
                1,
                1,
                grid.shared,
                raw(stream),
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            )
        }?;
        Ok(())
    }
}

fn load(driver: &Entered, unit: &ptx::Unit) -> Result<CUmodule, Fault> {
    // PTX is text without zeros, as its compiler wrote it; up to one, if there were one.
    let text = CString::new(unit.text).unwrap_or_else(|zero| {
        let length = zero.nul_position();
        let mut text = zero.into_vec();
        text.truncate(length);
        CString::new(text).unwrap_or_default()
    });
    let mut module = ptr::null_mut();
    // SAFETY: the text ends with a zero, and the pointer is to a variable of ours. The module is never unloaded.
    unsafe { driver.cuModuleLoadData(&mut module, text.as_ptr().cast()) }?;
    Ok(module)
}

fn find(driver: &Entered, module: CUmodule, name: &str) -> Result<CUfunction, Failure> {
    let c_name = CString::new(name).unwrap_or_default();
    let mut function = ptr::null_mut();
    // SAFETY: the module lives, the name ends with a zero, and the pointer is to a variable of ours.
    unsafe { driver.cuModuleGetFunction(&mut function, module, c_name.as_ptr()) }
        .map_err(|fault| Failure { meaning: format!("{}, of the kernel {name}", fault.name), ..fault.into() })?;
    Ok(function)
}

/// Has the function loaded, and allows it all the dynamic shared memory that a block may have.
///
/// # Safety
/// The function is of the current context.
unsafe fn prepare(driver: &Entered, function: CUfunction, shared: u32) -> Result<(), Fault> {
    let mut own = 0;
    // SAFETY: the pointer is to an integer of ours; the rest is the caller's promise.
    unsafe {
        driver.load_now(function)?;
        driver.cuFuncGetAttribute(&mut own, CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function)?;
        let most = (shared as c_int).saturating_sub(own).max(0);
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        driver.cuFuncSetAttribute(function, attribute, most)
    }
}

fn raw_function(function: FunctionId) -> CUfunction {
    ptr::with_exposed_provenance_mut(function.0 as usize)
}
