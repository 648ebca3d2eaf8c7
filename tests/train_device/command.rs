// SPDX-License-Identifier: MPL-2.0
//! `annulus train --device`.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::simulated::absent;
use super::{kind, room};

fn train(args: &str) -> Output {
    let _room = room();
    // Where this test was built, or where it is on a machine to which it was carried.
    let own = std::env::var_os("ANNULUS_TEST_COMMAND").unwrap_or_else(|| env!("CARGO_BIN_EXE_annulus").into());
    let mut command = Command::new(own);
    command.arg("train").args(args.split_whitespace()).stdin(Stdio::null());
    for name in ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_RANK"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn threads_and_processes_come_to_the_same_bits() {
    if absent() {
        return;
    }
    for what in ["--precision f32", "--precision f16 --plant overflow"] {
        let reports = ["", "--processes"].map(|how| {
            json(&train(&format!("--json --device {} --ranks 2 --steps 3 --hidden 12 --batch 8 {what} {how}", kind())))
        });
        for field in ["losses", "test_accuracy", "parameters_checksum", "skipped_steps", "loss_scale", "device_memory"]
        {
            assert_eq!(reports[0][field], reports[1][field], "{field}, {what}");
        }
        for report in reports {
            let verdict = (&report["equal_to_one_rank"], &report["config"]["device"]);
            assert_eq!(verdict, (&Value::Bool(true), &kind().into()), "{what}");
        }
    }
}

/// What is printed of an overflow that was forced, and of memory: by tables and as JSON.
#[test]
fn it_says_which_steps_were_skipped_and_where_memory_went() {
    if absent() {
        return;
    }
    let small =
        format!("--device {} --ranks 2 --steps 4 --hidden 12 --batch 8 --precision f16 --loss-scale 1024", kind());
    let tables = train(&format!("{small} --plant overflow"));
    let printed = String::from_utf8_lossy(&tables.stdout).into_owned();
    assert!(tables.status.success(), "{}", stderr(&tables));
    assert!(printed.contains("1 of 4, by overflows; the loss scale is 512 now"), "{printed}");
    let report = json(&train(&format!("{small} --json")));
    assert_eq!((&report["skipped_steps"], &report["loss_scale"]), (&0.into(), &1024.0.into()));
    assert_eq!(report["config"]["precision"], "f16");
    let peak = &report["device_memory"]["all"]["peak"];
    assert!(printed.contains(&format!("peak device bytes       {peak} on rank 0")), "{peak} in {printed}");
    assert!(printed.contains("bytes on rank 0's device") && printed.contains("optimizer"), "{printed}");
    let refused = train(&format!("--device {} --precision bf16 --loss-scale 2", kind()));
    assert!(stderr(&refused).contains("--loss-scale belongs to f16"), "{}", stderr(&refused));
}

#[test]
fn it_says_where_it_trains_and_why() {
    let small = "--steps 1 --hidden 2 --batch 1";
    let on_cpu = train(&format!("--device cpu {small}"));
    assert_eq!(stderr(&on_cpu), "annulus: training on the CPU, since --device cpu asks for it\n");
    if !absent() && kind() == "sim" {
        let on_sim = train(&format!("--device sim {small}"));
        assert_eq!(stderr(&on_sim), "annulus: training on one simulated device, since --device sim asks for it\n");
    }
    let nowhere = train("--device abacus");
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(stderr(&nowhere).contains("choose one of auto, cpu, cuda, hip, sim"), "{}", stderr(&nowhere));
}
