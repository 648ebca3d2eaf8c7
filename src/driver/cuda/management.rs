// SPDX-License-Identifier: MPL-2.0
//! NVIDIA's management library (NVML), where it is there: what the driver itself does not say of a device.
//!
//! It is found at run time, like the driver. What it lacks, or refuses for a device, is simply not known. The functions
//! answer a number; only 0 is of interest here.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr;
use std::sync::OnceLock;

const NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

type Device = *mut c_void;

/// `nvmlMemory_t`, in bytes.
#[repr(C)]
#[derive(Default)]
struct MemoryInfo {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlProcessInfo_t` of the functions whose names end in `_v3`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProcessInfo {
    process: c_uint,
    used: c_ulonglong,
    instance: c_uint,
    compute_instance: c_uint,
}

/// Declares the functions that are asked for, each of which may be missing.
macro_rules! functions {
    ($(fn $name:ident($($type:ty),*);)*) => {
        #[allow(non_snake_case)]
        struct Functions {
            $($name: Option<unsafe extern "C" fn($($type),*) -> c_uint>,)*
        }

        impl Functions {
            /// # Safety
            /// The library is NVIDIA's management library, or one with the same interface.
            unsafe fn look_up(library: &libloading::Library) -> Self {
                Functions {
                    // SAFETY: a function of this name in that library has this type.
                    $($name: unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }.ok().map(|found| *found),)*
                }
            }
        }
    };
}

functions! {
    fn nvmlInit_v2();
    fn nvmlSystemGetDriverVersion(*mut c_char, c_uint);
    fn nvmlDeviceGetHandleByPciBusId_v2(*const c_char, *mut Device);
    fn nvmlDeviceGetMemoryInfo(Device, *mut MemoryInfo);
    fn nvmlDeviceGetClockInfo(Device, c_int, *mut c_uint);
    fn nvmlDeviceGetTemperature(Device, c_int, *mut c_uint);
    fn nvmlDeviceGetPowerUsage(Device, *mut c_uint);
    fn nvmlDeviceGetComputeRunningProcesses_v3(Device, *mut c_uint, *mut ProcessInfo);
    fn nvmlDeviceGetP2PStatus(Device, Device, c_int, *mut c_int);
    fn nvmlDeviceGetTopologyCommonAncestor(Device, Device, *mut c_int);
}

/// The library, loaded and started.
pub(crate) struct Management {
    functions: Functions,
    // What the functions point into.
    _library: libloading::Library,
}

/// A device, as this library knows it.
#[derive(Clone, Copy)]
pub(crate) struct Managed {
    management: &'static Management,
    device: Device,
}

impl Management {
    /// The library, loaded and started once in a process; or what was looked for, and what came of it.
    pub fn get() -> Result<&'static Management, String> {
        static LIBRARY: OnceLock<Result<Management, String>> = OnceLock::new();
        LIBRARY.get_or_init(Management::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Management, String> {
        let looked_for = NAMES.join(" and ");
        // SAFETY: Loading a library runs its initialisers; those of a library of this name are NVIDIA's.
        let library = NAMES.iter().find_map(|name| unsafe { libloading::Library::new(*name) }.ok());
        let library =
            library.ok_or_else(|| format!("there is no NVIDIA management library: looked for {looked_for}"))?;
        // SAFETY: the library is NVIDIA's, by its name.
        let functions = unsafe { Functions::look_up(&library) };
        // SAFETY: takes nothing.
        match functions.nvmlInit_v2.map(|init| unsafe { init() }) {
            Some(0) => Ok(Management { functions, _library: library }),
            Some(code) => Err(format!("the NVIDIA management library does not start: nvmlInit_v2 answers {code}")),
            None => Err("the NVIDIA management library has no function nvmlInit_v2".into()),
        }
    }

    /// The version of the driver, as its maker counts: 580.65.06.
    pub fn driver_version(&self) -> Option<String> {
        let mut text = [0_u8; 128];
        // SAFETY: so many bytes are ours, and the last stays zero.
        let code =
            unsafe { self.functions.nvmlSystemGetDriverVersion?(text.as_mut_ptr().cast(), text.len() as c_uint - 1) };
        let text = CStr::from_bytes_until_nul(&text).ok().filter(|_| code == 0)?;
        Some(text.to_string_lossy().into_owned())
    }

    /// The device at a place on the PCI bus.
    pub fn device(&'static self, bus: &str) -> Option<Managed> {
        let bus = CString::new(bus).ok()?;
        let mut device = ptr::null_mut();
        // SAFETY: the text ends with a zero, and the pointer is to a variable of ours.
        let code = unsafe { self.functions.nvmlDeviceGetHandleByPciBusId_v2?(bus.as_ptr(), &mut device) };
        (code == 0).then_some(Managed { management: self, device })
    }
}

impl Managed {
    fn functions(&self) -> &'static Functions {
        &self.management.functions
    }

    /// Bytes of memory that are free.
    pub fn free_memory(&self) -> Option<u64> {
        let mut memory = MemoryInfo::default();
        // SAFETY: the device is this library's, and the pointer is to a struct of ours.
        let code = unsafe { self.functions().nvmlDeviceGetMemoryInfo?(self.device, &mut memory) };
        (code == 0).then_some(memory.free)
    }

    /// The clock of the multiprocessors now, in MHz.
    pub fn clock(&self) -> Option<u32> {
        const MULTIPROCESSORS: c_int = 1;
        // SAFETY: the device is this library's.
        self.number(self.functions().nvmlDeviceGetClockInfo, |ask, to| unsafe { ask(self.device, MULTIPROCESSORS, to) })
    }

    /// Degrees Celsius.
    pub fn temperature(&self) -> Option<u32> {
        const OF_THE_CHIP: c_int = 0;
        // SAFETY: as above.
        self.number(self.functions().nvmlDeviceGetTemperature, |ask, to| unsafe { ask(self.device, OF_THE_CHIP, to) })
    }

    /// Milliwatts.
    pub fn power(&self) -> Option<u32> {
        // SAFETY: as above.
        self.number(self.functions().nvmlDeviceGetPowerUsage, |ask, to| unsafe { ask(self.device, to) })
    }

    fn number<F>(&self, function: Option<F>, ask: impl FnOnce(F, *mut c_uint) -> c_uint) -> Option<u32> {
        let mut number = 0;
        (ask(function?, &mut number) == 0).then_some(number)
    }

    /// The processes that compute on the device, each with the bytes of memory that it uses, where that is known.
    pub fn processes(&self) -> Option<Vec<(u32, Option<u64>)>> {
        /// What it says of memory that it does not know.
        const UNKNOWN: u64 = u64::MAX;
        let ask = self.functions().nvmlDeviceGetComputeRunningProcesses_v3?;
        // More than that are cut off.
        let mut all = vec![ProcessInfo { process: 0, used: 0, instance: 0, compute_instance: 0 }; 1024];
        let mut count = all.len() as c_uint;
        // SAFETY: the device is this library's, and there is room for so many.
        let code = unsafe { ask(self.device, &mut count, all.as_mut_ptr()) };
        all.truncate(count as usize);
        let known = |info: &ProcessInfo| (info.process, Some(info.used).filter(|used| *used != UNKNOWN));
        (code == 0).then(|| all.iter().map(known).collect())
    }

    /// Whether NVLink joins this device to the other.
    pub fn is_linked(&self, other: &Managed) -> Option<bool> {
        const NVLINK: c_int = 2;
        let mut status = 0;
        // SAFETY: both devices are this library's, and the pointer is to an integer of ours.
        let code = unsafe { self.functions().nvmlDeviceGetP2PStatus?(self.device, other.device, NVLINK, &mut status) };
        (code == 0).then_some(status == 0)
    }

    /// What the way from this device to the other goes through: 0 one board, 10 one PCIe switch, 20 several, 30 one host
    /// bridge, 40 one node of memory, 50 the whole system.
    pub fn common_ancestor(&self, other: &Managed) -> Option<i32> {
        let mut level = 0;
        // SAFETY: as above; the level is an enumeration of 32 bits, read as a number.
        let code =
            unsafe { self.functions().nvmlDeviceGetTopologyCommonAncestor?(self.device, other.device, &mut level) };
        (code == 0).then_some(level)
    }
}
