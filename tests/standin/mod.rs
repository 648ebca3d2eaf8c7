// SPDX-License-Identifier: MPL-2.0
//! The stand-in for the CUDA driver, as a library that a program finds as `libcuda.so.1` (driver.h says what it is, and
//! switches.cpp what it can be asked for by environment variables). It executes the PTX that it is given (../ptx). Beside
//! it lies one for the management library and, where tests are built with the feature `hip`, the same under HIP's names, as
//! `libamdhip64.so.5` (hip/hip.h), which has the kernels as the host's compiler makes them.

#![allow(dead_code)] // each test uses its part

use std::path::{Path, PathBuf};

use crate::compiler;

const FLAGS: [&str; 9] = [
    "-std=c++17",
    "-ffp-contract=off",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-pthread",
    "-xc++",
];

/// The folder to put first into `LD_LIBRARY_PATH`, or `None` and a sentence on stderr where there is no C++ compiler.
pub fn library() -> Option<PathBuf> {
    let compiler = compiler::compiler()?;
    Some(compiler::once("standin", &FLAGS, &inputs(), |folder| {
        // What takes time in a test: PTX and, of HIP's kernels, the fold.
        let ptx = compiler::root().join("tests/ptx");
        let is_busy = |source: &Path| source.ends_with("fold.cu") || source.starts_with(&ptx);
        let arguments = |source: &Path| [&FLAGS[..], &[if is_busy(source) { "-O3" } else { "-O1" }]].concat();
        compiler::objects(&compiler, &sources(), arguments, folder);
        INTERFACES.iter().for_each(|interface| link(&compiler, folder, folder, interface, ""));
        let arguments: Vec<&str> = FLAGS.iter().copied().chain(["-O1", "-shared"]).collect();
        compiler::compile(
            &compiler,
            &arguments,
            &compiler::files(&[MANAGEMENT], &["cpp"]),
            &folder.join(MANAGEMENT_LIBRARY),
        );
    }))
}

/// The same with libraries that lack one function, as an older driver does.
pub fn library_without(symbol: &str) -> Option<PathBuf> {
    let compiler = compiler::compiler()?;
    let objects = library()?;
    let name = format!("standin-without-{symbol}");
    Some(compiler::once(&name, &FLAGS, &inputs(), |folder| {
        INTERFACES.iter().for_each(|interface| link(&compiler, &objects, folder, interface, symbol));
    }))
}

/// A stand-in for cuBLAS, over the stand-in for the driver: the folder to put beside that one's, or `None`.
pub fn blas() -> Option<PathBuf> {
    blas_without("")
}

/// The same without one function.
pub fn blas_without(symbol: &str) -> Option<PathBuf> {
    let (compiler, driver) = (compiler::compiler()?, library()?);
    let sources = compiler::files(&["tests/standin/blas"], &["cpp"]);
    let name = format!("standin-blas{symbol}");
    Some(compiler::once(&name, &FLAGS, &sources, |folder| {
        let renamed = format!("-D{symbol}=lacking_{symbol}");
        let soname = format!("-Wl,-soname,{BLAS_LIBRARY}");
        let search = format!("-L{}", driver.display());
        let mut arguments: Vec<&str> = FLAGS.to_vec();
        arguments.extend(["-O2", "-shared", &soname]);
        if !symbol.is_empty() {
            arguments.push(&renamed);
        }
        let to = folder.join(BLAS_LIBRARY);
        let sources: Vec<PathBuf> = sources
            .iter()
            .cloned()
            .chain([search, "-xnone".into(), "-l:libcuda.so.1".into()].map(PathBuf::from))
            .collect();
        compiler::compile(&compiler, &arguments, &sources, &to);
    }))
}

const BLAS_LIBRARY: &str = "libcublas.so.12";
const MANAGEMENT: &str = "tests/standin/management";
const MANAGEMENT_LIBRARY: &str = "libnvidia-ml.so.1";

/// What a library is called, what the names of its functions begin with, and where its sources are.
struct Interface {
    file: &'static str,
    functions: &'static str,
    folders: &'static [&'static str],
}

const INTERFACES: &[Interface] = &[
    Interface { file: "libcuda.so.1", functions: "cu", folders: &["kernels/host", "tests/ptx", "tests/standin"] },
    #[cfg(feature = "hip")]
    Interface {
        file: "libamdhip64.so.5",
        functions: "hip",
        folders: &["kernels/host", "tests/ptx", "tests/standin", "kernels", "tests/standin/hip"],
    },
];

/// A folder of bundles of code for AMD devices with these targets, as far as the stand-in looks into them.
pub fn bundles(targets: &[&str]) -> PathBuf {
    let mut bundle = b"__CLANG_OFFLOAD_BUNDLE__".to_vec();
    bundle.extend((targets.len() as u64).to_le_bytes());
    for target in targets {
        let name = format!("hipv4-amdgcn-amd-amdhsa--{target}");
        for word in [4096, 0, name.len() as u64] {
            bundle.extend(word.to_le_bytes());
        }
        bundle.extend(name.bytes());
    }
    let kernels = compiler::files(&["kernels"], &["cu"]);
    compiler::once(&format!("bundles-{}", targets.join("-")), &[], &kernels, |folder| {
        for source in &kernels {
            let name = source.file_name().expect("a source has a name");
            std::fs::write(folder.join(name).with_extension("hipfb"), &bundle).expect("the folder can be written");
        }
    })
}

fn inputs() -> Vec<PathBuf> {
    let folders: Vec<&str> = INTERFACES.iter().flat_map(|interface| interface.folders).copied().collect();
    compiler::files(&[&folders[..], &[MANAGEMENT]].concat(), &["cu", "cpp", "h"])
}

/// Of all libraries. Each has all of one folder or nothing of it.
fn sources() -> Vec<PathBuf> {
    let mut sources: Vec<PathBuf> = INTERFACES.iter().flat_map(Interface::sources).collect();
    sources.sort();
    sources.dedup();
    sources
}

impl Interface {
    fn sources(&self) -> Vec<PathBuf> {
        compiler::files(self.folders, &["cu", "cpp"])
    }
}

/// Links the objects in a folder. The library must stay loaded, since threads of its streams wait for work for ever.
fn link(compiler: &str, objects: &Path, to: &Path, interface: &Interface, without: &str) {
    let Interface { file, functions, .. } = interface;
    let script = to.join(format!("{functions}-exported"));
    let local = if without.is_empty() { String::new() } else { format!("{without};") };
    std::fs::write(&script, format!("{{ global: {functions}*; local: {local} *; }};\n"))
        .expect("the folder can be written");
    let version_script = format!("-Wl,--version-script={}", script.display());
    let arguments = ["-shared", &format!("-Wl,-soname,{file}"), "-Wl,-z,nodelete", "-pthread", &version_script];
    let objects: Vec<PathBuf> = interface.sources().iter().map(|source| compiler::object(objects, source)).collect();
    compiler::compile(compiler, &arguments, &objects, &to.join(file));
}
