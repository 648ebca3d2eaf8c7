// SPDX-License-Identifier: MPL-2.0
//! Matrix products by cuBLAS, found at run time like the driver, each of its functions looked up before one is called.
//!
//! The functions' types are cudarc's, checked by the compiler; they are called through a table of our own, for the reasons
//! that `library` has. Of versions, that of the driver's own CUDA is taken, or an older one.
//!
//! A product has the same bits whenever it is computed on cards of one model: nothing is added atomically, workspace is
//! ours and always as large, and arithmetic is that of the types: f32 in f32, never in TF32; f16 and bf16 added in f32
//! throughout, also where parts are added up.
//!
//! A handle is made once for each user, and kept for another when that one ends: to destroy one waits for all that runs.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use cudarc::cublas::sys::{
    self, cublasAtomicsMode_t, cublasComputeType_t, cublasGemmAlgo_t, cublasHandle_t, cublasMath_t, cublasOperation_t,
    cudaDataType, cudaStream_t,
};

use super::super::backend::{Address, Factor, Failure, Product, Products, ProductsId, StreamId};
use super::super::gpu::{Multiplies, number};
use super::library::Driver;
use crate::element::DataType;

/// Bytes of a user's workspace: what its makers advise for their largest cards.
const WORKSPACE: usize = 32 << 20;

/// The version of CUDA, and what the library is called there. The newest first.
const NAMES: [(i32, &str); 2] = [(13, "libcublas.so.13"), (12, "libcublas.so.12")];

/// The functions that are called: a line each, as in the library's header. For each, a method of [`Library`].
macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)*) => {
        #[allow(non_snake_case)]
        struct Functions {
            $($name: unsafe extern "C" fn($($type),*) -> u32,)*
        }

        // cudarc's bindings have the same arguments; they answer an enumeration of 32 bits where we take the bits.
        $(const _: unsafe fn($($type),*) -> sys::cublasStatus_t = sys::$name;)*
        const _: () = assert!(size_of::<sys::cublasStatus_t>() == size_of::<u32>());

        impl Functions {
            /// # Safety
            /// The library is cuBLAS, or one with the same interface.
            unsafe fn look_up(library: &libloading::Library) -> Result<Self, &'static str> {
                Ok(Functions {
                    // SAFETY: a function of this name in that library has this type (see above, and the caller).
                    $($name: *unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }
                        .map_err(|_| stringify!($name))?,)*
                })
            }
        }

        #[allow(non_snake_case, clippy::too_many_arguments)]
        impl Library {
            $(
                /// The function of this name.
                ///
                /// # Safety
                /// What the library's documentation asks of the arguments.
                unsafe fn $name(&self, $($argument: $type),*) -> Result<(), Failure> {
                    // SAFETY: the caller's promise.
                    match unsafe { (self.functions.$name)($($argument),*) } {
                        0 => Ok(()),
                        code => Err(self.failure(stringify!($name), code)),
                    }
                }
            )*
        }
    };
}

functions! {
    fn cublasCreate_v2(handle: *mut cublasHandle_t);
    fn cublasGetVersion_v2(handle: cublasHandle_t, version: *mut c_int);
    fn cublasSetMathMode(handle: cublasHandle_t, mode: cublasMath_t);
    fn cublasSetAtomicsMode(handle: cublasHandle_t, mode: cublasAtomicsMode_t);
    fn cublasSetStream_v2(handle: cublasHandle_t, stream: cudaStream_t);
    fn cublasSetWorkspace_v2(handle: cublasHandle_t, workspace: *mut c_void, bytes: usize);
    fn cublasGemmEx(
        handle: cublasHandle_t, first_form: cublasOperation_t, second_form: cublasOperation_t, rows: c_int,
        columns: c_int, inner: c_int, factor: *const c_void, first: *const c_void, first_type: cudaDataType,
        first_step: c_int, second: *const c_void, second_type: cudaDataType, second_step: c_int, kept: *const c_void,
        to: *mut c_void, to_type: cudaDataType, to_step: c_int, computed: cublasComputeType_t, algorithm: cublasGemmAlgo_t,
    );
}

/// The type of `cublasGetStatusName`, which takes any number.
type StatusName = unsafe extern "C" fn(u32) -> *const c_char;

/// The library, loaded.
struct Library {
    functions: Functions,
    status_name: Option<StatusName>,
    // What the functions point into.
    _library: libloading::Library,
}

/// What a device has of it: handles that nobody uses at present.
#[derive(Default)]
pub(super) struct Blas {
    spare: Mutex<Vec<ProductsId>>,
}

/// The library, or why there is none, once somebody has asked.
static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();

impl Library {
    /// The library, loaded once in a process, for a driver of this version; or why there is none.
    fn get(driver: i32) -> Result<&'static Library, String> {
        LIBRARY.get_or_init(|| Library::load(driver)).as_ref().map_err(Clone::clone)
    }

    fn load(driver: i32) -> Result<Library, String> {
        let names: Vec<&str> = NAMES.iter().filter(|(cuda, _)| *cuda <= driver / 1000).map(|(_, name)| *name).collect();
        // SAFETY: Loading a library runs its initialisers. Those of a library of this name are NVIDIA's.
        let found = names.iter().find_map(|name| Some((name, unsafe { libloading::Library::new(*name) }.ok()?)));
        let (name, library) = found.ok_or_else(|| format!("there is no cuBLAS: looked for {}", names.join(" and ")))?;
        // SAFETY: the library is cuBLAS, by its name.
        let functions =
            unsafe { Functions::look_up(&library) }.map_err(|lacks| format!("{name} has no function {lacks}"))?;
        // SAFETY: the type is the library's, with a number for its enumeration of 32 bits.
        let status_name = unsafe { library.get(b"cublasGetStatusName\0") }.ok().map(|function| *function);
        Ok(Library { functions, status_name, _library: library })
    }

    fn failure(&self, call: &'static str, code: u32) -> Failure {
        // SAFETY: the function takes any number.
        let name = self.status_name.map_or(ptr::null(), |name| unsafe { name(code) });
        let meaning = match name.is_null() {
            true => "a status without a name".into(),
            // SAFETY: a name that there is, is a constant string of the library, which stays loaded.
            false => unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(),
        };
        Failure { call, code: code as i32, meaning }
    }

    /// A handle with our settings.
    fn handle(&self) -> Result<cublasHandle_t, Failure> {
        let mut handle = ptr::null_mut();
        // SAFETY: the pointer is to a variable of ours; the handle is new.
        unsafe {
            self.cublasCreate_v2(&mut handle)?;
            self.cublasSetMathMode(handle, cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)?;
            self.cublasSetAtomicsMode(handle, cublasAtomicsMode_t::CUBLAS_ATOMICS_NOT_ALLOWED)?;
        }
        Ok(handle)
    }
}

impl Multiplies for Blas {
    // To make a handle may wait for what runs.
    fn begin(&self) -> Result<Products, String> {
        let driver = Driver::get().map_err(|absent| absent.to_string())?;
        let version = driver.version().map_err(|fault| fault.to_string())?;
        let library = Library::get(version)?;
        let fails = |failure: Failure| format!("cuBLAS cannot be used: {failure}");
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let id = match spare {
            Some(id) => id,
            None => ProductsId(library.handle().map_err(fails)?.expose_provenance() as u64),
        };
        let mut version = 0;
        // SAFETY: the handle lives, and the pointer is to an integer of ours.
        unsafe { library.cublasGetVersion_v2(handle(id), &mut version) }.map_err(fails)?;
        let name = format!("cuBLAS {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
        Ok(Products { id, name, workspace: WORKSPACE })
    }

    // Keeps the handle for the next user.
    fn end(&self, id: ProductsId) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    unsafe fn multiply(
        &self,
        id: ProductsId,
        product: &Product,
        workspace: Address,
        stream: StreamId,
    ) -> Result<(), Failure> {
        let refused = |meaning| Failure { call: "cublasGemmEx", code: number::NOT_SUPPORTED as i32, meaning };
        let Some(Ok(library)) = LIBRARY.get() else { return Err(refused("there is no cuBLAS".into())) };
        let extent = |extent: usize| {
            c_int::try_from(extent).map_err(|_| refused(format!("an extent of {extent} is more than it takes")))
        };
        let (data_type, computed) = match product.data_type {
            DataType::F32 => (cudaDataType::CUDA_R_32F, cublasComputeType_t::CUBLAS_COMPUTE_32F_PEDANTIC),
            DataType::F16 => (cudaDataType::CUDA_R_16F, cublasComputeType_t::CUBLAS_COMPUTE_32F),
            DataType::Bf16 => (cudaDataType::CUDA_R_16BF, cublasComputeType_t::CUBLAS_COMPUTE_32F),
            other => return Err(refused(format!("products of {other} are not made here"))),
        };
        // The library's matrices lie column by column. What lies row by row is, to it, the transposed matrix: so it is asked
        // for the transposed product, which is that of the transposed factors the other way round.
        let form = |factor: &Factor| match factor.transposed {
            false => cublasOperation_t::CUBLAS_OP_N,
            true => cublasOperation_t::CUBLAS_OP_T,
        };
        let (left, right) = (&product.left, &product.right);
        let [one, kept] = [1.0_f32, if product.accumulate { 1.0 } else { 0.0 }];
        let (handle, [left_step, right_step]) = (handle(id), [extent(left.step)?, extent(right.step)?]);
        let [rows, columns, inner] = [extent(product.rows)?, extent(product.columns)?, extent(product.inner)?];
        // SAFETY: the caller's promise; the two numbers are read before the call returns, as handles do that nobody has told
        // otherwise. A new stream makes the handle forget its workspace, so that is told after it.
        unsafe {
            library.cublasSetStream_v2(handle, at(stream.0).cast())?;
            library.cublasSetWorkspace_v2(handle, at(workspace), WORKSPACE)?;
            library.cublasGemmEx(
                handle,
                form(right),
                form(left),
                columns,
                rows,
                inner,
                (&raw const one).cast(),
                at(right.address),
                data_type,
                right_step,
                at(left.address),
                data_type,
                left_step,
                (&raw const kept).cast(),
                at(product.to),
                data_type,
                columns,
                computed,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
    }
}

fn handle(id: ProductsId) -> cublasHandle_t {
    ptr::with_exposed_provenance_mut(id.0 as usize)
}

fn at(address: Address) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address as usize)
}
