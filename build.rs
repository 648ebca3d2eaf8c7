// SPDX-License-Identifier: MPL-2.0
//! Makes the kernels ready for devices of each kind.
//!
//! For NVIDIA's (feature `cuda`) the PTX of `kernels/ptx` is embedded as it is checked in. Where `ANNULUS_BUILD_PTX=1` asks
//! for it, and not because some compiler is found, `kernels/compile` compiles it anew.
//!
//! For AMD's (feature `hip`) `kernels/compile-amd` compiles them for the targets that `ANNULUS_HIP_TARGETS` names
//! (`gfx90a gfx942`), with the `hipcc` on the path or the one that `HIPCC` names; that takes minutes for each target, so none
//! is compiled for unasked. Where none is, or that fails, the crate is built without them, and says so when a device is
//! opened; they may then be in a folder (`ANNULUS_HIP_CODE`, when the program runs).
//!
//! For the simulated device (feature `sim`) `kernels/*.cu` and what executes them, `kernels/host`, are built with the
//! machine's C++ compiler (`CXX` names another).
//!
//! Where there is no compiler, or one that cannot build them, the crate is built without simulated devices, and a
//! warning says why; so does whoever asks for one. `ANNULUS_BUILD_SIM=0` builds without them in any case;
//! `ANNULUS_BUILD_SIM=1` fails the build where they cannot be had.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(annulus_simulated)");
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    if let Err(why) = ptx::list() {
        println!("cargo::error=the kernels for NVIDIA devices cannot be embedded: {why}");
    }
    #[cfg(feature = "hip")]
    if let Err(why) = hip::list() {
        println!("cargo::error=the kernels for AMD devices cannot be listed: {why}");
    }
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

#[cfg(feature = "cuda")]
mod ptx {
    use std::env;
    use std::fmt::Write;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    const SWITCH: &str = "ANNULUS_BUILD_PTX";
    const CHECKED_IN: &str = "kernels/ptx";

    /// Writes the list of all units, which `src/driver/cuda/ptx.rs` includes.
    pub fn list() -> Result<(), String> {
        println!("cargo::rerun-if-env-changed={SWITCH}");
        println!("cargo::rerun-if-changed={CHECKED_IN}");
        let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
        let folder = match env::var(SWITCH).as_deref() {
            Ok("1") => compile(&out.join("ptx"))?,
            _ => env::current_dir().map_err(|error| error.to_string())?.join(CHECKED_IN),
        };
        let list = units(&folder)?;
        std::fs::write(out.join("ptx.rs"), list).map_err(|error| format!("writing the list of units: {error}"))
    }

    /// Each file is named after its unit and target: `fold.sm_75.ptx`.
    fn units(folder: &Path) -> Result<String, String> {
        let entries = folder.read_dir().map_err(|error| format!("reading {}: {error}", folder.display()))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let mut list = String::from("pub(super) const UNITS: &[Unit] = &[\n");
        for path in paths.iter().filter(|path| path.extension().is_some_and(|own| own == "ptx")) {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let named = stem.split_once(".sm_").and_then(|(name, target)| Some((name, target.parse::<u32>().ok()?)));
            let (name, target) = named.ok_or_else(|| format!("{} is not named UNIT.sm_TARGET.ptx", path.display()))?;
            let text = format!("include_str!({path:?})");
            // Writing to a string does not fail.
            let _ = writeln!(list, "    Unit {{ name: {name:?}, target: {target}, text: {text} }},");
        }
        Ok(list + "];\n")
    }

    fn compile(to: &Path) -> Result<PathBuf, String> {
        println!("cargo::rerun-if-changed=kernels");
        let status = Command::new("kernels/compile").arg("--to").arg(to).status();
        match status.map_err(|error| format!("starting kernels/compile: {error}"))? {
            status if status.success() => Ok(to.to_owned()),
            status => Err(format!("kernels/compile: {status}")),
        }
    }
}

#[cfg(feature = "hip")]
#[path = "src/driver/gpu/entries.rs"]
mod entries;

#[cfg(feature = "hip")]
mod hip {
    use std::env;
    use std::fmt::Write;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::entries::entries;

    const TARGETS: &str = "ANNULUS_HIP_TARGETS";
    const CHECKED_IN: &str = "kernels/ptx";

    /// Writes the list of all sources, which `src/driver/hip/objects.rs` includes.
    pub fn list() -> Result<(), String> {
        println!("cargo::rerun-if-env-changed={TARGETS}");
        println!("cargo::rerun-if-changed={CHECKED_IN}");
        let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
        let targets = env::var(TARGETS).unwrap_or_default();
        let targets: Vec<&str> = targets.split([' ', ',']).filter(|target| !target.is_empty()).collect();
        let made = match targets.is_empty() {
            true => Err(format!("{TARGETS} named no targets when it was built, as `{TARGETS}=gfx90a` would")),
            false => compile(&out.join("hip"), &targets).inspect_err(|why| {
                println!("cargo::warning=there will be no code for AMD devices: {why}");
            }),
        };
        let list = sources(&made)?;
        std::fs::write(out.join("hip.rs"), list).map_err(|error| format!("writing the list of sources: {error}"))
    }

    /// Each source has PTX for its oldest target at least: `fold.sm_75.ptx`. Its kernels are those of every target.
    fn sources(made: &Result<PathBuf, String>) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("reading {CHECKED_IN}: {error}");
        let entries_of = Path::new(CHECKED_IN).read_dir().map_err(failed)?;
        let mut paths: Vec<PathBuf> = entries_of.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.to_string_lossy().ends_with(".sm_75.ptx"));
        paths.sort();
        // Writing to a string does not fail.
        let mut list = String::new();
        let _ = writeln!(list, "const NOT_EMBEDDED: Option<&str> = {:?};", made.as_ref().err());
        let _ = writeln!(list, "static SOURCES: &[Source] = &[");
        for path in &paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().replace(".sm_75.ptx", "");
            let text = std::fs::read_to_string(path).map_err(failed)?;
            let kernels: Vec<_> = entries(&text).collect();
            let bundle = match made {
                Ok(folder) => {
                    let bytes = format!("include_bytes!({:?})", folder.join(&name).with_extension("hipfb"));
                    format!("Some({{ static BUNDLE: Aligned<[u8; {bytes}.len()]> = Aligned(*{bytes}); &BUNDLE.0 }})")
                }
                Err(_) => "None".to_owned(),
            };
            let _ = writeln!(list, "    Source {{ name: {name:?}, kernels: &{kernels:?}, bundle: {bundle} }},");
        }
        Ok(list + "];\n")
    }

    fn compile(to: &Path, targets: &[&str]) -> Result<PathBuf, String> {
        println!("cargo::rerun-if-changed=kernels");
        println!("cargo::rerun-if-env-changed=HIPCC");
        let output = Command::new("kernels/compile-amd").arg("--to").arg(to).args(targets).output();
        let output = output.map_err(|error| format!("starting kernels/compile-amd: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        // The last line says what came of it.
        let why =
            said.lines().rfind(|line| line.contains("rror") || line.contains("not ")).unwrap_or("it does not say why");
        output.status.success().then(|| to.to_owned()).ok_or_else(|| format!("kernels/compile-amd failed: {why}"))
    }
}

#[cfg(feature = "sim")]
mod kernels {
    use std::fmt::Write;
    use std::path::{Path, PathBuf};

    /// Where the sources are, below the crate's folder, with the endings of those that are compiled.
    const SOURCES: [(&str, &str); 3] = [("kernels", "cu"), ("kernels/host", "cpp"), ("kernels/host/strict", "cpp")];

    /// Where that is which strict devices compile when they come to it, with its endings.
    const EMBEDDED: [(&str, &[&str]); 3] =
        [("kernels", &["h", "cu"]), ("kernels/host", &["h", "cpp"]), ("kernels/host/module", &["h", "cpp"])];

    /// The source that wants a flag of its own.
    const PRODUCT: &str = "product.cu";

    /// What takes longest to compile, and so is begun with.
    const LONGEST: [&str; 3] = ["two_shot.cu", "ring.cu", "one_shot.cu"];

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
        embed()?;
        compile().map_err(|why| {
            let level = if switch.as_deref() == Some("1") { "error" } else { "warning" };
            println!("cargo::{level}=simulated devices cannot be built, since the C++ compiler failed: {why}");
            "the C++ compiler failed when it was built, or there was none; install one, or name it by CXX".into()
        })
    }

    /// Writes the list of all that strict devices compile, which `src/driver/host/strict/compile.rs` includes.
    fn embed() -> Result<(), String> {
        let root = std::env::current_dir().map_err(|error| error.to_string())?;
        let mut list = String::from("[\n");
        for (folder, endings) in EMBEDDED {
            for path in endings.iter().map(|ending| files(folder, ending)).collect::<Result<Vec<_>, _>>()?.concat() {
                // Writing to a string does not fail.
                let _ = writeln!(list, "    ({path:?}, include_str!({:?})),", root.join(&path));
            }
        }
        let out = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
        std::fs::write(Path::new(&out).join("sources.rs"), list + "]\n")
            .map_err(|error| format!("writing the list of sources: {error}"))
    }

    fn compile() -> Result<(), String> {
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++17")
            .opt_level(3)
            .debug(false)
            .warnings(false)
            .flag("-ffp-contract=off")
            .flag("-pthread")
            .flag("-fvisibility=hidden")
            .flag("-Wno-unknown-pragmas")
            .flag("-xc++");
        // Lines and names, as much as Rust's code has; all that C++ knows of its types would be six times the objects.
        if std::env::var("DEBUG").is_ok_and(|debug| debug != "false") {
            build.flag("-g1").flag("-fno-omit-frame-pointer");
        }
        let failed = |error: cc::Error| error.to_string().replace('\n', " ");
        // GCC 12 unrolls the eight steps of a product's inner loop before it looks for vectors, and then finds them the
        // wrong way round: it transposes the sums in each step, which makes products five times as slow. So loops of
        // eight are to be left alone until then.
        let (products, mut others): (Vec<_>, Vec<_>) = sources()?.into_iter().partition(|path| path.ends_with(PRODUCT));
        others.sort_by_key(|path| !LONGEST.iter().any(|name| path.ends_with(name)));
        let mut of_products = build.clone();
        of_products.flag_if_supported("--param=max-completely-peel-times=7").files(products);
        let products = of_products.try_compile_intermediates().map_err(failed)?;
        // Every kernel adds itself to a list before main begins; nothing else refers to it, so it must be linked whole.
        build
            .files(others)
            .objects(products)
            .link_lib_modifier("+whole-archive")
            .try_compile("annulus_kernels")
            .map_err(failed)
    }

    fn sources() -> Result<Vec<PathBuf>, String> {
        let all = SOURCES.iter().map(|(folder, ending)| files(folder, ending)).collect::<Result<Vec<_>, _>>();
        all.map(|folders| folders.concat())
    }

    /// The files in a folder whose names end so, in order.
    fn files(folder: &str, ending: &str) -> Result<Vec<PathBuf>, String> {
        let entries = Path::new(folder).read_dir().map_err(|error| format!("reading {folder}: {error}"))?;
        let paths = entries.flatten().map(|entry| entry.path());
        let mut files: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|own| own == ending)).collect();
        files.sort();
        Ok(files)
    }
}
