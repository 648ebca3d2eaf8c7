// SPDX-License-Identifier: MPL-2.0
//! Builds C++ for tests with the machine's compiler (`$CXX`, else `c++`), once for each content of its sources.
//!
//! What is built lies in cargo's folder for tests' files, in a folder named after everything that went into it. It is
//! made under another name and renamed when complete, so that test processes may build at the same time.

#![allow(dead_code)] // each test uses its part

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files in the folders (below the root) whose names end in one of the extensions, in order.
pub fn files(folders: &[&str], extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in folders {
        for entry in std::fs::read_dir(root().join(folder)).expect("the folder is there") {
            let path = entry.expect("the folder can be read").path();
            if path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The compiler, or `None` and a sentence on stderr where there is none.
pub fn compiler() -> Option<String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    match Command::new(&compiler).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Some(compiler),
        _ => {
            eprintln!("not tested: {compiler} is not a C++ compiler on this machine (CXX names another)");
            None
        }
    }
}

/// Whether the compiler can build and link a program with these flags; a sentence on stderr where it cannot.
pub fn accepts(compiler: &str, flags: &[&str]) -> bool {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let program = folder.join(format!("accepts-{}", std::process::id()));
    let source = program.with_extension("cpp");
    std::fs::write(&source, "int main() { return 0; }\n").expect("the folder for tests' files can be written");
    let built = Command::new(compiler).args(flags).arg(&source).arg("-o").arg(&program).stderr(Stdio::null()).status();
    let accepted = built.is_ok_and(|status| status.success())
        && Command::new(&program).status().is_ok_and(|status| status.success());
    let _ = std::fs::remove_file(source);
    let _ = std::fs::remove_file(program);
    if !accepted {
        eprintln!("not tested: {compiler} cannot build a program with {}", flags.join(" "));
    }
    accepted
}

/// A folder named after `name`, the arguments and the content of the files, filled by `make` if it is not there yet.
pub fn once(name: &str, arguments: &[&str], files: &[PathBuf], make: impl FnOnce(&Path)) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    arguments.hash(&mut hasher);
    for file in files {
        file.hash(&mut hasher);
        std::fs::read(file).expect("a source can be read").hash(&mut hasher);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{:016x}", hasher.finish()));
    // Of this process's tests, one fills it and the others wait for that.
    static FILLED: Mutex<BTreeMap<PathBuf, Arc<Mutex<()>>>> = Mutex::new(BTreeMap::new());
    let own = FILLED.lock().unwrap_or_else(PoisonError::into_inner).entry(folder.clone()).or_default().clone();
    let _filling = own.lock().unwrap_or_else(PoisonError::into_inner);
    if !folder.exists() {
        let temporary = folder.with_extension(std::process::id().to_string());
        std::fs::create_dir_all(&temporary).expect("the folder for tests' files can be written");
        make(&temporary);
        // Another process may have been quicker: then its folder stays, which has the same content.
        if std::fs::rename(&temporary, &folder).is_err() {
            assert!(folder.exists(), "{} cannot be renamed to {}", temporary.display(), folder.display());
            let _ = std::fs::remove_dir_all(&temporary);
        }
    }
    folder
}

/// Runs the compiler with these arguments and paths; what it says goes into the panic if it fails.
pub fn compile(compiler: &str, arguments: &[&str], sources: &[PathBuf], to: &Path) {
    let output =
        Command::new(compiler).args(arguments).args(sources).arg("-o").arg(to).output().expect("the compiler starts");
    assert!(output.status.success(), "{compiler} failed:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Compiles each source on its own, two at a time, to an object in the folder; those that take long are to come first.
pub fn objects<'a, A: AsRef<[&'a str]>>(
    compiler: &str,
    sources: &[PathBuf],
    arguments: impl Fn(&Path) -> A + Sync,
    folder: &Path,
) -> Vec<PathBuf> {
    let objects: Vec<PathBuf> = sources.iter().map(|source| object(folder, source)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Relaxed: the number is all there is to it.
                while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let own = arguments(source);
                    let arguments = [own.as_ref(), &["-c", "-xc++"]].concat();
                    compile(compiler, &arguments, std::slice::from_ref(source), &object(folder, source));
                }
            });
        }
    });
    objects
}

/// Where a source's object is in a folder: sources of two folders may have one name.
pub fn object(folder: &Path, source: &Path) -> PathBuf {
    let path = source.strip_prefix(root()).expect("sources are below the root");
    folder.join(path.to_string_lossy().replace('/', "-")).with_extension("o")
}
