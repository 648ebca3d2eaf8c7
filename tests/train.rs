// SPDX-License-Identifier: MPL-2.0
//! Training on several ranks equals training on one, says so, and notices when it does not.
#![cfg(all(feature = "cli", target_os = "linux"))]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use annulus::data::{Order, digits};
use annulus::ddp::Fault;
use annulus::optim::Rule;
use annulus::run;
use annulus::train::{self, Config, Report};
use serde_json::Value;

fn report(config: &Config) -> Report {
    let prepared = config.prepare().unwrap();
    let mut reports = run(config.ranks, |comm| train::run(comm, config, &prepared, &|_| ())).unwrap();
    reports.swap_remove(0)
}

fn small(ranks: usize) -> Config {
    Config { ranks, hidden: vec![12], epochs: 2, ..Config::default() }
}

#[test]
fn several_ranks_equal_one() {
    for ranks in [1, 2, 3, 5] {
        for rule in [Rule::Sgd { rate: 0.1, momentum: 0.9 }, Rule::AdamW { rate: 0.01 }] {
            let report = report(&Config { rule, ..small(ranks) });
            assert!(report.is_verified(), "{ranks} ranks, {rule:?}: {:?}", report.differences);
            assert_eq!(report.losses.len(), 2);
            assert!(report.losses[1] < report.losses[0], "{:?}", report.losses);
        }
    }
}

/// 1,438 samples in global batches of 3 x 479 leave one sample for the second step: shares of 1, 0 and 0.
#[test]
fn ranks_without_samples_make_every_step() {
    let report = report(&Config { batch: 479, ..small(3) });
    assert!(report.is_verified(), "{:?}", report.differences);
    assert_eq!((report.step_losses.len(), report.samples), (4, 2 * 1438));
}

#[test]
fn the_buckets_do_not_matter() {
    let checksums = [0, 1000, 1 << 20].map(|bucket_bytes| {
        let report = report(&Config { bucket_bytes, ..small(3) });
        assert!(report.is_verified(), "{:?}", report.differences);
        report.parameters_checksum
    });
    assert_eq!(checksums, [checksums[0]; 3]);
}

#[test]
fn each_planted_fault_is_noticed_and_its_place_named() {
    // The fault, the steps it takes to show, and what it must show in: the name of the first parameter.
    for (fault, steps, replicas_identical, place) in [
        // Bucket 0 of the default model has the last layers; layer 0 is right after one step.
        (Fault::SkippedBucket, 1, false, "layers.1.weight["),
        (Fault::SwappedRanks, 1, true, "layers.0.weight["),
        (Fault::StaleGradient, 2, true, "layers.0.weight["),
        (Fault::ReciprocalAverage, 1, true, "layers.0.weight["),
    ] {
        let config = Config { ranks: 3, steps: Some(steps), ..Config::default() };
        let sound = report(&config);
        assert!(sound.is_verified(), "{:?}", sound.differences);
        let report = report(&Config { fault: Some(fault), ..config });
        assert_eq!((report.replicas_identical, report.equal_to_one_rank), (replicas_identical, false), "{fault:?}");
        let sentence = report.differences.last().unwrap();
        assert!(sentence.starts_with(place) && sentence.ends_with("after one"), "{fault:?}: {sentence}");
        assert_eq!(report.differences.len(), if replicas_identical { 1 } else { 2 });
    }
}

#[test]
fn with_two_ranks_a_reciprocal_is_exact_and_no_fault() {
    let report = report(&Config { fault: Some(Fault::ReciprocalAverage), ..small(2) });
    assert!(report.is_verified(), "{:?}", report.differences);
}

#[test]
fn a_late_rank_is_waited_for_by_the_others() {
    let (late, steps) = (Duration::from_millis(50), 8);
    let config = Config { ranks: 3, steps: Some(steps), fault: Some(Fault::SleepyRank(1, late)), ..Config::default() };
    let report = report(&config);
    assert!(report.is_verified(), "{:?}", report.differences);
    let slept = late * steps as u32;
    for (rank, times) in report.ranks.iter().enumerate() {
        if rank != 1 {
            assert!(times.wait >= slept.mul_f64(0.8), "rank {rank} of {:?}", report.ranks);
        } else {
            assert!(times.wait <= slept.mul_f64(0.5), "rank {rank} of {:?}", report.ranks);
        }
        assert!(times.transfer <= slept.mul_f64(0.3), "rank {rank} of {:?}", report.ranks);
    }
}

#[test]
fn the_digits_are_learnt_with_every_seed() {
    let accuracies: Vec<f64> = (0..5)
        .map(|seed| {
            let report = report(&Config { seed, ..Config::default() });
            assert!(report.is_verified(), "seed {seed}: {:?}", report.differences);
            report.test_accuracy
        })
        .collect();
    let mean = accuracies.iter().sum::<f64>() / accuracies.len() as f64;
    assert!(accuracies[0] >= 0.97 && mean >= 0.97, "{accuracies:?}");
}

// The command.

fn annulus(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annulus"));
    command.args(["train", "--device", "cpu"]).args(args.split_whitespace()).stdin(Stdio::null());
    for name in ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_RANK"] {
        command.env_remove(name);
    }
    command
}

fn json(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}; {}", stderr(output)))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory of this test alone, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("annulus-train-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn threads_and_processes_come_to_the_same_bits() {
    let outputs = ["", "--processes"].map(|how| {
        let output = annulus(&format!("--json --ranks 4 --epochs 3 --batch 16 {how}")).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        json(&output)
    });
    for field in ["losses", "test_accuracy", "parameters_checksum", "replicas_identical", "equal_to_one_rank"] {
        assert_eq!(outputs[0][field], outputs[1][field], "{field}");
        assert_ne!(outputs[0][field], Value::Null, "{field}");
    }
    assert_eq!(
        outputs.each_ref().map(|output| output["config"]["transport"].as_str().unwrap()),
        ["threads", "processes"]
    );
}

#[test]
fn the_json_has_every_field() {
    let output = annulus("--json --steps 30 --optimizer adamw --no-shuffle --seed 3").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report = json(&output);
    assert!(report["test_accuracy"].is_number() && report["samples_per_second"].as_f64() > Some(0.0));
    assert_eq!((report["losses"].as_array().unwrap().len(), report["step_losses"].as_array().unwrap().len()), (2, 30));
    assert_eq!((&report["replicas_identical"], &report["equal_to_one_rank"]), (&Value::Bool(true), &Value::Bool(true)));
    let checksum = report["parameters_checksum"].as_str().unwrap();
    assert!(checksum.len() == 16 && u64::from_str_radix(checksum, 16).is_ok(), "{checksum}");
    let config: Value = serde_json::from_str(
        r#"{"ranks": 2, "transport": "threads", "device": "cpu", "precision": "f32", "data": "digits",
            "hidden": [64, 64], "epochs": 30, "batch": 32, "optimizer": "adamw", "lr": 0.01, "momentum": null, "seed": 3, "shuffle": false,
            "steps": 30, "save": null, "weights": null, "bucket_bytes": 16384}"#,
    )
    .unwrap();
    assert_eq!(report["config"], config);
    for of_devices in ["loss_scale", "skipped_steps", "device_memory"] {
        assert!(report[of_devices].is_null(), "{of_devices}");
    }
    let ranks = report["ranks"].as_array().unwrap();
    let seconds = |rank: &Value, name: &str| rank[name].as_f64().unwrap();
    let walls =
        ranks.iter().map(|rank| ["compute_s", "wait_s", "transfer_s"].map(|name| seconds(rank, name)).iter().sum());
    let slowest = walls.fold(0.0, f64::max);
    assert!((slowest - report["seconds"].as_f64().unwrap()).abs() < 1e-6);
    assert!(ranks.len() == 2 && ranks.iter().all(|rank| seconds(rank, "overlapped_s") <= seconds(rank, "compute_s")));
}

#[test]
fn without_json_there_is_a_short_table() {
    let output = annulus("--epochs 1").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in ["test accuracy", "replicas identical      yes", "equal to one rank       yes, bit for bit"] {
        assert!(table.contains(line), "{line:?} in {table}");
    }
    assert_eq!(table.lines().count(), 11, "{table}");
    assert_eq!(stderr(&output), "annulus: training on the CPU, since --device cpu asks for it\n");
}

#[test]
fn a_failed_verification_is_printed_and_exits_with_1() {
    let folder = Folder::new("failed");
    let file = folder.0.join("weights.safetensors");
    for how in ["", "--processes"] {
        let args = format!("--json --ranks 3 --steps 2 --plant skipped-bucket --save {} {how}", file.display());
        let output = annulus(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let report = json(&output);
        assert_eq!(
            (&report["replicas_identical"], &report["equal_to_one_rank"]),
            (&Value::Bool(false), &Value::Bool(false))
        );
        assert!(stderr(&output).contains("annulus: verification failed: layers.0.weight["), "{}", stderr(&output));
        assert_eq!(folder.names(), Vec::<String>::new(), "unverified parameters were saved");
    }
}

#[test]
fn what_was_saved_is_where_the_next_run_starts() {
    let folder = Folder::new("saved");
    let file = folder.0.join("weights.safetensors");
    let save = format!("--json --ranks 3 --epochs 2 --save {}", file.display());
    let first = json(&annulus(&save).output().unwrap());
    assert_eq!(folder.names(), ["weights.safetensors"]);
    // No step: the parameters are those of the file. One rank or four, threads or processes.
    for how in ["--ranks 1", "--ranks 4 --processes"] {
        let weights = format!("--json --steps 0 --weights {} {how}", file.display());
        let second = json(&annulus(&weights).output().unwrap());
        for field in ["test_accuracy", "parameters_checksum"] {
            assert_eq!(first[field], second[field], "{field}");
        }
        assert_eq!(second["losses"], Value::Array(vec![]));
    }
    let on = format!("--json --ranks 3 --steps 4 --weights {}", file.display());
    let on = json(&annulus(&on).output().unwrap());
    assert_eq!(on["equal_to_one_rank"], Value::Bool(true));
    assert!(on["losses"][0].as_f64() < first["losses"][0].as_f64());
}

/// A rank as a launcher would start it.
fn rank(rank: usize, world: usize, job: &str, args: &str) -> Child {
    let mut command = annulus(args);
    command.env("RANK", rank.to_string()).env("WORLD_SIZE", world.to_string()).env("ANNULUS_JOB", job);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn job(name: &str) -> String {
    format!("train-{name}-{}", std::process::id())
}

#[test]
fn with_rank_set_it_joins_that_world() {
    let ranks = [0, 1].map(|number| rank(number, 2, &job("joins"), "--json --epochs 1"));
    let outputs = ranks.map(|rank| rank.wait_with_output().unwrap());
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    assert_eq!(json(&outputs[0])["config"]["ranks"], 2);
    assert!(outputs[1].stdout.is_empty() && outputs[1].stderr.is_empty(), "rank 0 alone writes");
}

#[test]
fn a_rank_that_never_arrives_is_named_at_the_deadline() {
    let mut command = annulus("");
    command.env("RANK", "0").env("WORLD_SIZE", "2").env("ANNULUS_JOB", job("alone")).env("ANNULUS_TIMEOUT", "1");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let sentence = stderr(&output);
    assert!(sentence.contains("rank 1") && sentence.lines().count() == 1, "{sentence}");
}

#[test]
fn a_rank_that_is_killed_is_named() {
    let args = "--epochs 1000000 --plant sleepy-rank";
    let mut ranks = [0, 1].map(|number| rank(number, 2, &job("killed"), args));
    std::thread::sleep(Duration::from_millis(500));
    ranks[1].kill().unwrap();
    let killed = Instant::now();
    let outputs = ranks.map(|rank| rank.wait_with_output().unwrap());
    assert_eq!(outputs[0].status.code(), Some(2));
    let sentence = stderr(&outputs[0]);
    assert!(sentence.contains("rank 1 died") && killed.elapsed() < Duration::from_secs(60), "{sentence}");
}

/// The command ends with status 2, having said nothing but one sentence that contains `says`.
fn refused(command: &mut Command, says: &str) {
    let output = command.output().unwrap();
    let sentence = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{command:?}: {sentence}");
    assert!(sentence.contains(says), "{command:?}: {sentence}");
    assert!(!sentence.contains("panicked") && output.stdout.is_empty(), "{command:?}: {sentence}");
}

#[test]
fn bad_arguments_are_refused_by_name() {
    let cases = [
        ("--ranks 0", "0 ranks cannot train"),
        ("--processes --ranks 0", "0 ranks cannot train"),
        ("--ranks -1", "--ranks"),
        ("--batch 0", "at least one"),
        ("--batch 720", "a batch of 720 is larger than the shard"),
        ("--batch 99999999999999999999", "--batch"),
        ("--lr nan", "learning rate is NaN"),
        ("--lr -1", "learning rate is -1"),
        ("--lr fast", "--lr"),
        ("--momentum 1", "momentum is 1"),
        ("--momentum 0.5 --optimizer adamw", "--momentum belongs to sgd"),
        ("--optimizer adam", "[possible values: sgd, adamw]"),
        ("--hidden 64,,64", "--hidden"),
        ("--hidden 64,0", "at least one input and one output"),
        ("--data /nonexistent", "/nonexistent is not a directory"),
        ("--weights /nonexistent", "/nonexistent"),
        ("--save /nonexistent/weights", "/nonexistent/weights"),
        ("--save /", "/ is a directory"),
        ("--save", "--save"),
        ("--sedes 1", "--sedes"),
        ("--plant roses", "no fault"),
    ];
    for (args, says) in cases {
        refused(&mut annulus(args), says);
    }
}

#[test]
fn a_bad_environment_is_refused_by_name() {
    refused(annulus("").env("RANK", "7").env("WORLD_SIZE", "4"), "RANK=7 is out of range for WORLD_SIZE=4");
    refused(annulus("").env("RANK", "0"), "WORLD_SIZE is not");
    refused(
        annulus("--ranks 3").env("RANK", "0").env("WORLD_SIZE", "2"),
        "--ranks 3 is asked for, but the environment says that this is rank 0 of 2",
    );
    refused(annulus("").env("ANNULUS_TIMEOUT", "soon"), "ANNULUS_TIMEOUT");
}

#[test]
fn weights_of_another_shape_are_refused() {
    let folder = Folder::new("shape");
    let file = folder.0.join("weights.safetensors");
    let save = format!("--steps 1 --hidden 8 --save {}", file.display());
    assert!(annulus(&save).output().unwrap().status.success());
    refused(&mut annulus(&format!("--hidden 9 --weights {}", file.display())), "the model's is F32 [9, 64]");
    refused(&mut annulus(&format!("--weights {}", file.display())), "lacks layers.2.weight");
    fs::write(&file, b"no weights").unwrap();
    refused(&mut annulus(&format!("--weights {}", file.display())), "not a whole safetensors file");
}

/// Writes an IDX file of bytes.
fn idx(path: &Path, shape: &[u32], bytes: &[u8]) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&[0, 0, 8, shape.len() as u8]).unwrap();
    shape.iter().for_each(|extent| file.write_all(&extent.to_be_bytes()).unwrap());
    file.write_all(bytes).unwrap();
}

#[test]
fn idx_files_are_trained_on_or_refused_by_name() {
    let folder = Folder::new("idx");
    let path = |name: &str| folder.0.join(name);
    for part in ["train", "t10k"] {
        // The digits, as far as they go: 8 x 8 pixels from 0 to 16.
        let split = digits::load(Order::Shuffled(0)).unwrap();
        let data = if part == "train" { &split.train } else { &split.test };
        let pixels: Vec<u8> = data.features().iter().map(|value| (value * 8.0 + 8.0) as u8).collect();
        let labels: Vec<u8> = data.labels().iter().map(|label| *label as u8).collect();
        let many = labels.len() as u32;
        idx(&path(&format!("{part}-images-idx3-ubyte")), &[many, 8, 8], &pixels);
        idx(&path(&format!("{part}-labels-idx1-ubyte")), &[many], &labels);
    }
    let args = format!("--json --epochs 3 --data {}", folder.0.display());
    let output = annulus(&args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report = json(&output);
    assert!(report["test_accuracy"].as_f64() > Some(0.8), "{report}");
    assert_eq!(report["config"]["data"], folder.0.to_str().unwrap());

    let images = path("train-images-idx3-ubyte");
    let whole = fs::read(&images).unwrap();
    fs::write(&images, &whole[..whole.len() / 2]).unwrap();
    refused(&mut annulus(&args), "train-images-idx3-ubyte is truncated");
    refused(&mut annulus(&format!("{args} --processes")), "train-images-idx3-ubyte is truncated");
    idx(&images, &[1438, 64], &whole[16..]);
    refused(&mut annulus(&args), "train-images-idx3-ubyte begins with [0, 0, 8, 2]");
}
