// SPDX-License-Identifier: MPL-2.0
//! `annulus devices`, where there is no driver, and over the stand-ins for the CUDA driver and for the management library,
//! whose figures are made up. No GPU is involved.
#![cfg(all(feature = "cli", feature = "cuda", target_os = "linux"))]

mod compiler;
#[path = "standin/mod.rs"]
mod standin;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// The command, with driver libraries from this folder alone, if the machine has none, and these variables.
fn devices(library: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_annulus"))
        .arg("devices")
        .args(arguments)
        .env("LD_LIBRARY_PATH", library)
        .env_remove("CUDA_VISIBLE_DEVICES")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn object(output: &Output) -> Value {
    serde_json::from_str(&text(output)).unwrap()
}

/// Those of NVIDIA.
fn of_cuda(machine: &Value) -> Vec<&Value> {
    machine["devices"].as_array().unwrap().iter().filter(|device| device["platform"] == "CUDA").collect()
}

#[test]
fn every_device_is_described() {
    let Some(library) = standin::library() else { return };
    let variables = [("STANDIN_DEVICES", "3"), ("STANDIN_UNREACHABLE", "0-2"), ("ANNULUS_SIM_DEVICES", "2")];
    let machine = object(&devices(&library, &variables, &["--json"]));
    assert_eq!((&machine["driver"], &machine["cuda"]), (&json!("0.0 (stand-in)"), &json!("12.8")));
    let found = of_cuda(&machine);
    assert_eq!(found.len(), 3);
    for (index, device) in found.iter().enumerate() {
        assert_eq!(device["index"], index);
        assert_eq!(device["name"], "stand-in, no GPU");
        assert_eq!(device["bus"], format!("0000:00:0{index}.0"));
        assert_eq!((&device["memory"], &device["free"]), (&json!(128 << 20), &json!(96 << 20)));
        assert_eq!(device["capability"], "9.0");
        assert_eq!(device["clock_mhz"], 1000 + index);
        assert_eq!(device["temperature_c"], 40 + index);
        assert_eq!(device["power_w"], 123.4);
        assert_eq!(device["processes"].as_array().unwrap().len(), usize::from(index == 0));
    }
    let process = &found[0]["processes"][0];
    assert_eq!((&process["name"], &process["memory"]), (&json!("annulus"), &json!(32 << 20)));
    let row = |row: usize| machine["links"][row].as_array().unwrap()[..3].to_vec();
    assert_eq!(row(0), [json!("-"), json!("NVLink"), json!("SYS, copies only")]);
    assert_eq!(row(2), [json!("SYS, copies only"), json!("SYS"), json!("-")]);
    // With HIP, its stand-in shows as many devices again.
    if compiler::compiler().is_some() && cfg!(not(feature = "hip")) {
        let all = machine["devices"].as_array().unwrap();
        assert_eq!(all.len(), 5);
        assert_eq!((&all[4]["platform"], &all[4]["index"]), (&json!("simulated"), &json!(1)));
        assert_eq!(machine["links"][3], json!(["-", "-", "-", "-", "memory"]));
        assert_eq!(machine["missing"], json!([]));
    }

    let page = text(&devices(&library, &variables, &[]));
    for part in ["NVIDIA driver 0.0 (stand-in), CUDA 12.8", "CUDA 2", "96.0 MiB", "1001 MHz", "41 C", "123 W", "NVLink"]
    {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    assert!(page.contains("simulated 1") && page.contains("no GPU"), "{page}");
}

#[test]
fn what_the_driver_hides_is_not_listed() {
    let Some(library) = standin::library() else { return };
    let variables = [("STANDIN_DEVICES", "3"), ("CUDA_VISIBLE_DEVICES", "2,0")];
    let machine = object(&devices(&library, &variables, &["--json"]));
    let buses: Vec<&Value> = of_cuda(&machine).iter().map(|device| &device["bus"]).collect();
    assert_eq!(buses, ["0000:00:02.0", "0000:00:00.0"]);
}

#[test]
fn a_figure_that_nobody_gives_is_left_out() {
    let Some(library) = standin::library() else { return };
    let lacks = "nvmlDeviceGetPowerUsage,nvmlDeviceGetComputeRunningProcesses_v3,nvmlDeviceGetP2PStatus";
    let variables = [("STANDIN_MANAGEMENT_LACKS", lacks), ("STANDIN_DEVICES", "2")];
    let machine = object(&devices(&library, &variables, &["--json"]));
    let device = of_cuda(&machine)[0];
    assert_eq!((&device["power_w"], &device["processes"]), (&Value::Null, &Value::Null));
    assert_eq!(device["clock_mhz"], 1000);
    assert_eq!(machine["links"][0][1], "SYS");

    // Without the library, free memory is the driver's to say.
    let variables = [("STANDIN_MANAGEMENT_LACKS", "nvmlInit_v2"), ("STANDIN_DEVICES", "2")];
    let machine = object(&devices(&library, &variables, &["--json"]));
    let device = of_cuda(&machine)[0];
    assert_eq!((&device["free"], &device["clock_mhz"]), (&json!(128 << 20), &Value::Null));
    assert_eq!(machine["links"][0][1], "direct");
    let missing = machine["missing"][0].as_str().unwrap();
    assert!(missing.contains("nvmlInit_v2 answers 3") && missing.contains("temperature"), "{missing}");
}

#[test]
fn what_is_missing_is_said() {
    let Some(library) = standin::library() else { return };
    let why = |library: &Path, variables: &[(&str, &str)]| {
        let output = devices(library, variables, &[]);
        // Where there are no simulated devices either, the sentence is an error.
        let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
        assert_eq!(output.status.code(), Some(if said.contains("simulated 0") { 0 } else { 2 }), "{said}");
        said
    };
    let none = why(&library, &[("STANDIN_DEVICES", "0")]);
    assert!(none.contains("shows no device") && none.contains("CUDA_VISIBLE_DEVICES"), "{none}");
    let hidden = why(&library, &[("CUDA_VISIBLE_DEVICES", "-1")]);
    assert!(hidden.contains("shows no device"), "{hidden}");
    let old = why(&library, &[("STANDIN_VERSION", "11080")]);
    assert!(old.contains("the driver is for CUDA 11.8; Annulus needs one for CUDA 12.0 or later"), "{old}");
    let fails = why(&library, &[("STANDIN_FAIL", "cuDeviceGetName=999")]);
    assert!(fails.contains("cuDeviceGetName answers CUDA_ERROR_UNKNOWN (999)"), "{fails}");
    let lacks = standin::library_without("cuMemAllocAsync").unwrap();
    assert!(why(&lacks, &[]).contains("no function cuMemAllocAsync"));
    let empty = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // On a machine with a driver, it is found all the same.
    let said = why(empty, &[]);
    assert!(said.contains("looked for libcuda.so.1 and libcuda.so") || said.contains("CUDA 0"), "{said}");
}

#[test]
fn it_looks_again_until_nobody_reads() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_annulus"))
        .args(["devices", "--watch", "1", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let machine: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(machine["devices"].is_array());
    }
    drop(lines);
    assert!(child.wait().unwrap().code().is_some_and(|code| code == 0 || code == 2));
}
