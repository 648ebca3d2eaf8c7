// SPDX-License-Identifier: MPL-2.0
//! Matrix products by the vendor's library: a stand-in for cuBLAS, over the stand-in for the CUDA driver. No GPU is involved.
#![cfg(all(feature = "cuda", feature = "cli", target_os = "linux"))]

mod compiler;
#[path = "standin/mod.rs"]
mod standin;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// `annulus train` on CUDA over the stand-in, with the libraries of another folder too.
fn train(blas: &Path, variables: &[(&str, &str)], args: &str) -> Option<Output> {
    let path = format!("{}:{}", standin::library()?.display(), blas.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_annulus"));
    let small = "train --device cuda --steps 3 --hidden 12,7 --batch 9 --json";
    command.args(small.split(' ').chain(args.split_whitespace())).stdin(Stdio::null());
    command.env("LD_LIBRARY_PATH", path).env("STANDIN_MEMORY", "4096").envs(variables.iter().copied());
    for name in ["RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "ANNULUS_PRODUCTS"] {
        if !variables.iter().any(|(own, _)| *own == name) {
            command.env_remove(name);
        }
    }
    Some(command.output().unwrap())
}

/// What it reports of a run that is proved.
fn report(blas: &Path, variables: &[(&str, &str)], args: &str) -> Option<Value> {
    let output = train(blas, variables, args)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["equal_to_one_rank"], &report["replicas_identical"]), (&true.into(), &true.into()));
    Some(report)
}

fn losses(report: &Value) -> Vec<f64> {
    report["step_losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect()
}

/// Ranks equal one, bit for bit, eagerly and as graphs; and what is computed is what the own kernel computes, within
/// rounding.
#[test]
fn training_by_the_library_is_proved_and_is_the_same_training() {
    let Some(blas) = standin::blas() else { return };
    for (precision, near) in [("f32", 1e-5), ("bf16", 2e-2), ("f16", 5e-3)] {
        for how in ["--ranks 1", "--ranks 3", "--ranks 2 --processes", "--ranks 2 --eager"] {
            let args = format!("--precision {precision} {how}");
            let library = report(&blas, &[], &args).unwrap();
            let own = report(&blas, &[("ANNULUS_PRODUCTS", "own")], &args).unwrap();
            assert_eq!(library["matrix_products"], "cuBLAS 12.3.4");
            assert_eq!(own["matrix_products"], "own kernel, since ANNULUS_PRODUCTS=own asks for it");
            for (library, own) in losses(&library).iter().zip(losses(&own)) {
                assert!((library - own).abs() <= near, "{args}: {library} and {own}");
            }
        }
    }
}

/// The own kernel steps in, and it is said why.
#[test]
fn what_cannot_be_used_is_not_and_it_is_said_why() {
    let Some(blas) = standin::blas() else { return };
    let why = |blas: &Path, variables: &[(&str, &str)]| {
        let report = report(blas, variables, "--ranks 2").unwrap();
        report["matrix_products"].as_str().unwrap().strip_prefix("own kernel, since ").unwrap().to_owned()
    };
    for lacks in ["cublasGemmEx", "cublasSetWorkspace_v2"] {
        let without = standin::blas_without(lacks).unwrap();
        assert_eq!(why(&without, &[]), format!("libcublas.so.12 has no function {lacks}"));
    }
    for call in ["cublasCreate_v2", "cublasGetVersion_v2", "cublasSetMathMode", "cublasSetAtomicsMode"] {
        let why = why(&blas, &[("STANDIN_BLAS_FAIL", &format!("{call}=15"))]);
        assert_eq!(why, format!("cuBLAS cannot be used: {call} answers CUBLAS_STATUS_NOT_SUPPORTED (15)"));
    }
    // A machine may have one of its own, which can do nothing with the stand-in's streams.
    if Command::new("ldconfig")
        .arg("-p")
        .output()
        .is_ok_and(|known| !String::from_utf8_lossy(&known.stdout).contains("libcublas"))
    {
        let nowhere = why(Path::new("/there/is/none"), &[]);
        assert_eq!(nowhere, "there is no cuBLAS: looked for libcublas.so.12");
    }
}

#[test]
fn what_is_refused_is_a_sentence() {
    let Some(blas) = standin::blas() else { return };
    for call in ["cublasGemmEx", "cublasSetStream_v2", "cublasSetWorkspace_v2"] {
        let variables = [("STANDIN_BLAS_FAIL", format!("{call}=13"))];
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let output = train(&blas, &variables, "--ranks 2").unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("{call} answers CUBLAS_STATUS_EXECUTION_FAILED (13)")), "{said}");
        assert!(said.contains("a product by cuBLAS 12.3.4"), "{said}");
    }
    let output = train(&blas, &[("ANNULUS_PRODUCTS", "best")], "--ranks 1").unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("ANNULUS_PRODUCTS may be `own`"), "{said}");
}

/// Ranks that would round otherwise do not train together.
#[test]
fn ranks_must_have_the_same_library() {
    let (Some(blas), Some(driver)) = (standin::blas(), standin::library()) else { return };
    let script =
        "[ $RANK = 1 ] && export ANNULUS_PRODUCTS=own; exec \"$0\" train --device cuda --steps 1 --hidden 3 --batch 4";
    let own = env!("CARGO_BIN_EXE_annulus");
    let output = Command::new(own)
        .args(["launch", "-n", "2", "--", "sh", "-c", script, own])
        .env("LD_LIBRARY_PATH", format!("{}:{}", driver.display(), blas.display()))
        .env("STANDIN_MEMORY", "4096")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let sentence = "made by cuBLAS 12.3.4 on rank 0 and by the own kernel on rank 1";
    assert!(!output.status.success() && said.contains(sentence), "{said}");
}
