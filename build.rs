// SPDX-License-Identifier: MPL-2.0
//! Builds the kernels for the simulated device (feature `sim`): `kernels/*.cu` and what executes them, `kernels/host`,
//! with the machine's C++ compiler (`CXX` names another).
//!
//! Where there is no compiler, or one that cannot build them, the crate is built without simulated devices, and a
//! warning says why; so does whoever asks for one. `ANNULUS_BUILD_SIM=0` builds without them in any case;
//! `ANNULUS_BUILD_SIM=1` fails the build where they cannot be had.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(annulus_simulated)");
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "sim")]
    let built = kernels::build();
    #[cfg(not(feature = "sim"))]
    let built = Err("it was built without the feature `sim`".to_owned());
    match built {
        Ok(()) => println!("cargo::rustc-cfg=annulus_simulated"),
        // What whoever asks for a simulated device is told.
        Err(why) => println!("cargo::rustc-env=ANNULUS_NOT_SIMULATED={why}"),
    }
}

#[cfg(feature = "sim")]
mod kernels {
    use std::path::{Path, PathBuf};

    /// Where the sources are, below the crate's folder, with the endings of those that are compiled.
    const SOURCES: [(&str, &str); 2] = [("kernels", "cu"), ("kernels/host", "cpp")];

    const SWITCH: &str = "ANNULUS_BUILD_SIM";

    /// Builds the kernels, or says why it was not to be.
    pub fn build() -> Result<(), String> {
        println!("cargo::rerun-if-env-changed={SWITCH}");
        for (folder, _) in SOURCES {
            println!("cargo::rerun-if-changed={folder}");
        }
        if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
            return Err("simulated devices need Linux".into());
        }
        let switch = std::env::var(SWITCH).ok();
        if switch.as_deref() == Some("0") {
            return Err(format!("it was built with {SWITCH}=0"));
        }
        compile().map_err(|why| {
            let level = if switch.as_deref() == Some("1") { "error" } else { "warning" };
            println!("cargo::{level}=simulated devices cannot be built, since the C++ compiler failed: {why}");
            "the C++ compiler failed when it was built, or there was none; install one, or name it by CXX".into()
        })
    }

    fn compile() -> Result<(), String> {
        // Every kernel adds itself to a list before main begins; nothing else refers to it, so it must be linked whole.
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .opt_level(2)
            .warnings(false)
            .flag("-ffp-contract=off")
            .flag("-pthread")
            .flag("-fvisibility=hidden")
            .flag("-Wno-unknown-pragmas")
            .flag("-xc++")
            .files(sources()?)
            .link_lib_modifier("+whole-archive")
            .try_compile("annulus_kernels")
            .map_err(|error| error.to_string().replace('\n', " "))
    }

    fn sources() -> Result<Vec<PathBuf>, String> {
        let mut sources = Vec::new();
        for (folder, ending) in SOURCES {
            let entries = Path::new(folder).read_dir().map_err(|error| format!("reading {folder}: {error}"))?;
            let paths = entries.flatten().map(|entry| entry.path());
            sources.extend(paths.filter(|path| path.extension().is_some_and(|own| own == ending)));
        }
        sources.sort();
        Ok(sources)
    }
}
