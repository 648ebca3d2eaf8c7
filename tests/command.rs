// SPDX-License-Identifier: MPL-2.0
//! The command as its users meet it: what it prints, and what it says when something is wrong.
#![cfg(feature = "cli")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use annulus::DataType;
use annulus::schedule::Collective;
use serde_json::Value;

struct Ended {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

/// The command with these arguments, and an environment in which nothing says that it is a rank.
fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annulus"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    let ranks = ["RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE"];
    for name in ranks.into_iter().chain(["SLURM_STEP_ID", "ANNULUS_TIMEOUT"]) {
        command.env_remove(name);
    }
    command
}

fn end(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Ended { status: output.status.code(), stdout, stderr }
}

fn annulus(arguments: &str) -> Ended {
    end(command(arguments))
}

#[track_caller]
fn succeeds(arguments: &str) -> String {
    let Ended { status, stdout, stderr } = annulus(arguments);
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{arguments}: {stdout}");
    stdout
}

#[test]
fn wrong_arguments_are_named_in_a_sentence_and_give_status_2() {
    for (arguments, named) in [
        ("", "Usage"),
        ("dance", "dance"),
        ("bench", "<COLLECTIVE>"),
        ("bench sum", "one of all_reduce, reduce_scatter, all_gather, broadcast, barrier"),
        ("bench all_reduce --ranks 0", "--ranks"),
        ("bench all_reduce --ranks two", "--ranks"),
        ("bench all_reduce --memory pinned", "allocated, plain"),
        ("bench all_reduce --dtype f8", "bf16, i8, u8, i16, u16"),
        ("bench all_reduce --op xor", "sum, prod, min, max, avg"),
        ("bench all_reduce --op band", "band does not apply to f32"),
        ("bench all_reduce --algorithm tree", "no algorithm tree for all_reduce; there is auto, one_shot, direct"),
        ("bench broadcast --algorithm bruck --processes", "no algorithm bruck for broadcast"),
        ("bench barrier --algorithm ring", "no algorithm ring for barrier"),
        ("bench all_reduce --algorithm one_shot --end 1M", "one_shot carries at most"),
        ("bench all_reduce --begin 0", "--begin"),
        ("bench all_reduce --begin 1.5K", "as 8, 64K, 16M or 1G"),
        ("bench all_reduce --begin 64 --end 8", "begin at 64 bytes and end at 8"),
        ("bench all_reduce --end 99999999999999G", "--end"),
        ("bench all_reduce --end 9999999G --processes", "of buffers, and this machine has"),
        ("bench all_reduce --factor 1", "factor of 1"),
        ("bench all_reduce --iterations 0", "--iterations"),
        ("bench all_reduce --in-place --out-of-place", "--out-of-place"),
        ("bench barrier --in-place", "no form in place"),
        ("bench all_reduce --algorithm auto,tree", "no algorithm tree for all_reduce"),
        ("bench all_reduce --algorithm ring,auto,ring", "names ring twice"),
        ("bench --plot plot.svg", "<COLLECTIVE>"),
        ("bench all_reduce --compare Cargo.toml", "--plot <FILE>"),
        ("bench --plot plot.svg --compare /no/such/file", "/no/such/file"),
        ("bench --plot plot.svg --compare Cargo.toml", "line 1 of Cargo.toml is no result"),
        ("bench --plot plot.svg --compare Cargo.toml --ranks 2", "<COLLECTIVE>"),
        ("bench barrier --plot plot.svg", "no sizes"),
        ("bench all_reduce --plot /no/such/directory/plot.svg", "/no/such/directory/plot.svg"),
        ("bench all_reduce --plot src", "src is a directory"),
        #[cfg(unix)]
        ("bench all_reduce --plot /dev/null", "no regular file"),
        ("schedule all_reduce --ranks 2", "--algorithm"),
        ("schedule all_reduce --algorithm ring", "--ranks"),
        ("schedule all_reduce --algorithm tree --ranks 2", "for all_reduce there is one_shot, direct, staged, ring"),
        ("schedule barrier --algorithm ring --ranks 2", "for barrier there is barrier"),
        ("schedule all_reduce --algorithm ring --ranks 0", "--ranks"),
        ("schedule all_reduce --algorithm ring --ranks 2 --length -1", "-1"),
        ("schedule all_gather --algorithm ring --ranks 4096", "4096 ranks are too many to prove"),
        (
            "schedule all_reduce --algorithm ring --ranks 3 --length 18446744073709551615",
            "--length 18446744073709551615",
        ),
        #[cfg(target_os = "linux")]
        ("launch true", "--ranks <N>"),
        #[cfg(target_os = "linux")]
        ("launch -n 2", "<PROGRAM>"),
        #[cfg(target_os = "linux")]
        ("launch -n 0 true", "--ranks <N>"),
        #[cfg(target_os = "linux")]
        ("launch -n 2 -- /no/such/program", "/no/such/program"),
    ] {
        let Ended { status, stdout, stderr } = annulus(arguments);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{arguments}: {stderr}");
        assert!(stderr.contains(named), "{arguments}: {stderr}");
        assert!(!stderr.contains("panicked"), "{arguments}: {stderr}");
    }
}

#[test]
fn a_wrong_environment_is_named_in_a_sentence_and_gives_status_2() {
    for (rank, world_size, arguments, named) in [
        ("7", "4", "", "RANK=7 is out of range for WORLD_SIZE=4"),
        ("one", "4", "", "RANK=\"one\" should be a number"),
        ("0", "4", "--ranks 3", "--ranks 3 is asked for, but the environment says that this is rank 0 of 4"),
    ] {
        let mut bench = command(&format!("bench all_reduce {arguments}"));
        bench.env("RANK", rank).env("WORLD_SIZE", world_size);
        let Ended { status, stdout, stderr } = end(bench);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.starts_with("annulus: ") && stderr.contains(named), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

/// Tasks of one step of Slurm are ranks of one world. Its batch scripts, which have the same variables but that of a step,
/// are none.
#[test]
fn tasks_of_slurm_are_ranks_and_batch_scripts_are_not() {
    let bench = |step: Option<&str>| {
        let mut bench = command("bench all_reduce --end 8 --iterations 1");
        bench.env("SLURM_PROCID", "5").env("SLURM_NTASKS", "4").env("SLURM_JOB_ID", "7");
        step.map(|step| bench.env("SLURM_STEP_ID", step));
        end(bench)
    };
    let Ended { status, stderr, .. } = bench(Some("0"));
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("SLURM_PROCID=5 is out of range for SLURM_NTASKS=4"), "{stderr}");
    let Ended { status, stdout, stderr } = bench(None);
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.contains("; 2 ranks as threads, pinned;"), "{stdout}");
}

/// Runs a benchmark and checks what every line of it must have. The measurements.
#[track_caller]
fn measurements(arguments: &str) -> Vec<Value> {
    let text = succeeds(&format!("bench {arguments} --json"));
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    let machine = lines.next().unwrap();
    for field in ["processor", "cores", "system", "annulus"] {
        assert!(!machine["machine"][field].is_null(), "{machine}");
    }
    let measured: Vec<Value> = lines.collect();
    for line in &measured {
        for field in ["collective", "algorithm", "path", "transport", "memory", "dtype"] {
            assert!(line[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {line}");
        }
        for field in ["ranks", "bytes", "iterations"] {
            assert!(line[field].is_u64(), "{field} of {line}");
        }
        let times = ["min_us", "time_us", "p99_us"].map(|field| line[field].as_f64().unwrap());
        assert!(0.0 < times[0] && times.is_sorted(), "{line}");
        for field in ["algbw", "busbw"] {
            assert!(line[field].as_f64().is_some_and(|bandwidth| bandwidth >= 0.0), "{field} of {line}");
        }
        assert!(line["in_place"].is_boolean(), "{line}");
        let collective = Collective::from_name(line["collective"].as_str().unwrap()).unwrap();
        assert_eq!(line["op"].is_string(), collective.folds(), "{line}");
        assert_eq!(line["root"].is_u64(), collective.has_root(), "{line}");
        assert_eq!(line["wrong"], 0, "{line}");
    }
    measured
}

#[test]
fn every_collective_is_measured_and_right_on_threads_and_processes() {
    for collective in Collective::ALL {
        for transport in ["threads", "processes"] {
            let processes = if transport == "processes" { "--processes" } else { "" };
            let lines = measurements(&format!("{collective} --end 1K --factor 4 --iterations 3 {processes}"));
            let modes = if collective == Collective::Barrier { vec![false] } else { vec![false, true] };
            let sizes = if collective == Collective::Barrier { vec![0] } else { vec![8, 32, 128, 512] };
            let expected: Vec<_> = sizes.iter().flat_map(|size| modes.iter().map(move |mode| (*size, *mode))).collect();
            let got = lines.iter().map(|line| (line["bytes"].as_u64().unwrap(), line["in_place"].as_bool().unwrap()));
            assert!(got.eq(expected), "{lines:?}");
            for line in &lines {
                assert_eq!(line["collective"], collective.name());
                assert_eq!(line["transport"], transport);
                assert_eq!(line["iterations"], 3);
                assert_eq!(line["ranks"], 2);
                assert_eq!(line["memory"], "plain");
            }
        }
    }
}

#[test]
fn every_type_operation_memory_and_algorithm_is_right() {
    for data_type in DataType::ALL {
        let lines = measurements(&format!("all_reduce --dtype {data_type} --begin 20K --end 20K --iterations 2"));
        assert!(lines.len() == 2 && lines.iter().all(|line| line["dtype"] == data_type.name()), "{lines:?}");
    }
    for (op, data_type) in [("prod", "f32"), ("min", "i32"), ("max", "u32"), ("avg", "f32"), ("bor", "u32")] {
        let arguments = format!("--op {op} --dtype {data_type}");
        let lines = measurements(&format!("reduce_scatter --ranks 3 {arguments} --begin 20K --end 20K --iterations 2"));
        assert!(lines.iter().all(|line| line["op"] == op && line["bytes"] == 20 * 1024 / 12 * 12), "{lines:?}");
    }
    for algorithm in ["one_shot", "direct", "staged", "ring"] {
        let lines = measurements(&format!("all_gather --algorithm {algorithm} --end 1K --factor 8 --iterations 2"));
        assert!(lines.iter().all(|line| line["algorithm"] == algorithm), "{lines:?}");
    }
    // Sets of buffers in turn.
    for arguments in ["--processes --memory allocated", "--processes", "--processes --unchecked", ""] {
        let arguments = format!("all_reduce --begin 128K --end 128K --iterations 5 {arguments}");
        assert_eq!(measurements(&arguments).len(), 2);
    }
}

/// Each result says that it is one of a simulated device, in every form in which it is printed.
#[cfg(all(feature = "sim", target_os = "linux"))]
#[test]
fn collectives_are_measured_on_simulated_devices_and_say_so() {
    use annulus::{DeviceCommunicator, driver::Device};

    const SAID: &str = "simulated devices: kernels executed on the CPU; no GPU figure";
    if Device::simulated(0).is_err() {
        return; // built without a C++ compiler
    }
    for collective in DeviceCommunicator::COLLECTIVES {
        for more in ["", "--processes --memory allocated --ranks 3"] {
            let lines = measurements(&format!("{collective} --device sim --end 512 --factor 8 --iterations 2 {more}"));
            assert_eq!(lines.len(), if collective == Collective::Barrier { 1 } else { 6 }, "{lines:?}");
            assert!(lines.iter().all(|line| line["device"] == "simulated" && line["caveat"] == SAID), "{lines:?}");
        }
    }
    // Schedules, by their names.
    for (collective, name, more) in [
        ("all_reduce", "schedule:ring", ""),
        ("all_reduce", "schedule:direct", "--memory allocated"),
        ("broadcast", "schedule:tree", "--processes --ranks 3"),
        ("barrier", "schedule:dissemination", ""),
    ] {
        let arguments =
            format!("{collective} --device sim --algorithm {name} --end 512 --factor 8 --iterations 2 {more}");
        let lines = measurements(&arguments);
        let ran = name.strip_prefix("schedule:").unwrap();
        let is_it = |line: &Value| line["algorithm"] == ran && line["path"] == "schedule" && line["asked"] == name;
        assert!(!lines.is_empty() && lines.iter().all(is_it), "{lines:?}");
    }
    let plot = directory("simulated").join("plot.svg");
    let algorithms = "low_latency,one_shot,two_shot,ring,auto";
    let arguments = format!("all_reduce --device sim --algorithm {algorithms} --end 64 --iterations 2 --in-place");
    let text = succeeds(&format!("bench {arguments} --plot {}", plot.display()));
    assert_eq!(text.matches(SAID).count(), 2 * 5, "a head and an end for each table: {text}");
    let rows: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(rows.len() == 20 && rows.iter().all(|row| row.ends_with(" 0  simulated")), "{text}");
    assert!(texts(&plot)[0].contains(SAID), "{:?}", texts(&plot));
    for (arguments, named) in [
        ("scan --device sim", "devices have no scan"),
        ("all_reduce --device sim --algorithm staged", "auto, low_latency, one_shot, two_shot, ring, schedule:"),
        ("broadcast --device sim --algorithm ring", "there is auto, schedule:one_shot"),
        ("reduce_scatter --device sim --algorithm schedule:tree", "no algorithm schedule:tree for reduce_scatter"),
        ("all_reduce --device gpu", "cpu, cuda, hip, sim"),
    ] {
        let Ended { status, stderr, .. } = annulus(&format!("bench {arguments}"));
        assert!(status == Some(2) && stderr.contains(named), "{stderr}");
    }
}

#[test]
fn one_mode_and_odd_sizes() {
    let lines = measurements("all_reduce --begin 7 --end 100 --factor 3 --iterations 1 --in-place");
    assert!(lines.iter().all(|line| line["in_place"] == true), "{lines:?}");
    assert!(lines.iter().map(|line| line["bytes"].as_u64().unwrap()).eq([4, 20, 60]), "{lines:?}");
    let lines = measurements("all_gather --ranks 3 --begin 8 --end 8 --iterations 1 --out-of-place");
    assert!(lines.len() == 1 && lines[0]["bytes"] == 0, "{lines:?}");
    assert_eq!(measurements("broadcast --ranks 1 --end 8 --iterations 1").len(), 2);
}

#[test]
fn without_json_it_is_the_table_of_nccl_tests() {
    let text = succeeds("bench all_reduce --end 64 --iterations 3");
    let rows: Vec<Vec<&str>> =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 4, "{text}");
    assert!(rows.iter().all(|row| row.len() == 13 && row[2..5] == ["f32", "sum", "-1"] && row[12] == "0"), "{text}");
    assert!(text.contains("out-of-place") && text.contains("in-place") && text.contains("created in"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("# Avg bus bandwidth"), "{text}");
}

/// A directory of its own for a test, empty.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// What is written in a picture.
fn texts(plot: &Path) -> Vec<String> {
    let svg = fs::read_to_string(plot).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    svg.lines().filter(|line| !line.starts_with('<')).map(str::to_owned).collect()
}

#[test]
fn several_algorithms_are_measured_in_turn_and_drawn_beside_earlier_results() {
    let directory = directory("plots");
    let [earlier, first, second] = ["earlier.jsonl", "first.svg", "second.svg"].map(|name| directory.join(name));
    let arguments = "--begin 64 --end 1K --factor 4 --iterations 2";
    let lines = measurements(&format!("all_reduce --algorithm auto,ring {arguments} --plot {}", first.display()));
    let got = lines.iter().map(|line| (line["asked"].as_str().unwrap(), line["bytes"].as_u64().unwrap()));
    let expected =
        ["auto", "ring"].into_iter().flat_map(|name| [64, 64, 256, 256, 1024, 1024].map(|size| (name, size)));
    assert!(got.eq(expected), "{lines:?}");
    let of_first = texts(&first);
    assert_eq!(of_first[0], "all_reduce, 2 ranks, threads, plain memory, f32, sum");
    for text in ["auto, in place", "auto, out of place", "ring, in place", "ring, out of place", "64", "1 Ki"] {
        assert!(of_first.iter().any(|line| line == text), "{text}: {of_first:?}");
    }

    // On processes, rank 0 alone draws. A table an algorithm.
    fs::write(&earlier, succeeds(&format!("bench all_reduce --algorithm direct {arguments} --json"))).unwrap();
    let with_earlier = format!("--plot {} --compare {}", second.display(), earlier.display());
    let processes = if cfg!(target_os = "linux") { "--processes" } else { "" };
    let text =
        succeeds(&format!("bench all_reduce --algorithm ring,auto --in-place {arguments} {processes} {with_earlier}"));
    assert_eq!(text.matches("# Avg bus bandwidth").count(), 2, "{text}");
    assert!(text.contains("; algorithm ring\n") && text.contains("; algorithm auto\n"), "{text}");
    let both = texts(&second);
    let has = |texts: &[String], end: &str| texts.iter().any(|text| text.ends_with(end));
    assert!(has(&both, "ring, in place") && has(&both, "direct, in place") && !has(&both, "ring, out of place"));

    // Files alone: nothing is measured, and the same files give the same picture, in the place of the one that was there.
    assert_eq!(succeeds(&format!("bench {with_earlier},{}", earlier.display())), "");
    let alone = fs::read(&second).unwrap();
    assert!(!has(&texts(&second), "ring, in place") && has(&texts(&second), "earlier.jsonl: direct, out of place"));
    assert_eq!(succeeds(&format!("bench {with_earlier},{}", earlier.display())), "");
    assert_eq!(fs::read(&second).unwrap(), alone);

    // Whole or not at all: a failure leaves what was there, and nothing else.
    fs::write(&earlier, "{}").unwrap();
    assert_eq!(annulus(&format!("bench {with_earlier}")).status, Some(2));
    assert_eq!(fs::read(&second).unwrap(), alone);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 3);
}

#[cfg(target_os = "linux")]
#[test]
fn launched_ranks_join_one_world_and_rank_0_alone_writes() {
    let bench = format!("launch -n 3 -- {} bench broadcast --end 8 --iterations 2", env!("CARGO_BIN_EXE_annulus"));
    let text = succeeds(&bench);
    assert!(text.contains("3 ranks as processes"), "{text}");
    assert!(text.lines().all(|line| line.starts_with("[0] ")), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn launch_prefixes_what_ranks_print_and_gives_their_status() {
    let mut launch = command("launch -n 3 -- sh -c");
    launch.arg("echo $RANK/$WORLD_SIZE");
    let Ended { status, stdout, .. } = end(launch);
    let mut lines: Vec<&str> = stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!((status, lines), (Some(0), vec!["[0] 0/3", "[1] 1/3", "[2] 2/3"]));
    assert_eq!(annulus("launch -n 2 sh -c false").status, Some(1));
}

#[test]
fn a_schedule_is_drawn_and_proved() {
    let text = succeeds("schedule all_reduce --algorithm ring --ranks 4 --length 10");
    assert!(text.starts_with("all_reduce by ring: 4 ranks, count 10"), "{text}");
    assert!(text.contains("proved") && text.contains("direct: ranks read") && text.contains("rank 3: reads"), "{text}");
    let text = succeeds("schedule all_reduce --algorithm ring --ranks 4 --length 10 --staged");
    assert!(text.contains("staged: ranks share"), "{text}");
    succeeds("schedule barrier --algorithm barrier --ranks 3");
}

#[cfg(all(feature = "sim", target_os = "linux"))]
#[test]
fn what_devices_would_run_is_explained() {
    if annulus::driver::Device::simulated(0).is_err() {
        return; // built without a C++ compiler
    }
    let explain = |arguments: &str| succeeds(&format!("schedule {arguments} --explain --device sim"));
    let text = explain("all_reduce --ranks 3 --length 100000");
    assert!(text.contains("two_shot (kernel two_shot_f32)") && text.contains("zero-copy"), "{text}");
    let text = explain("all_reduce --ranks 3 --length 100000 --staged --algorithm schedule:ring");
    assert!(text.contains("ring (schedule): it was asked for by name; this rank reads"), "{text}");
    assert!(text.contains("launches") && text.contains("copies on this rank; staged through"), "{text}");
    assert!(text.ends_with("shapes are those of simulated devices, which execute kernels on the CPU\n"), "{text}");
    // As long as any memory could be.
    assert!(explain("all_to_all --ranks 1 --length 4611686018427387903").contains("1099511627776 launches"));
    for (arguments, named) in [
        ("scan --ranks 2 --explain --device sim", "no scan on devices"),
        ("all_reduce --ranks 17 --explain --device sim", "among 16 at the most"),
        ("all_reduce --ranks 2 --explain --device sim --algorithm bruck", "schedule:bruck"),
        ("all_reduce --ranks 2 --explain --algorithm ring", "--device sim"),
        ("all_reduce --ranks 2 --explain --device sim --length 18446744073709551615", "more than memory holds"),
        (
            "all_reduce --ranks 1 --explain --device sim --algorithm schedule:ring --length 18446744073709551615",
            "elements are more than the",
        ),
        (
            "all_reduce --ranks 2 --explain --device sim --algorithm schedule:ring --length 1152921504606846975",
            "elements are more than the",
        ),
        ("all_reduce --ranks 2 --algorithm ring --device sim", "--explain"),
    ] {
        let Ended { status, stderr, .. } = annulus(&format!("schedule {arguments}"));
        assert!(status == Some(2) && stderr.contains(named), "{stderr}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut commands = vec![
        command("bench all_reduce --end 1K --iterations 200"),
        command("schedule all_reduce --algorithm ring --ranks 12"),
    ];
    #[cfg(target_os = "linux")]
    commands.extend([command("bench all_reduce --end 1K --iterations 200 --processes"), command("launch -n 2 yes")]);
    for mut command in commands {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut line, mut stderr) = (String::new(), String::new());
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(stderr, "", "{command:?}: {status}");
        // The ranks of `launch` are cut short, as if by SIGPIPE.
        assert!([Some(0), Some(141)].contains(&status.code()), "{command:?}: {status}");
    }
}
