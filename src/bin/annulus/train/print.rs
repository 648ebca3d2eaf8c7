// SPDX-License-Identifier: MPL-2.0
//! The report of a run, as JSON and as tables.

use std::path::PathBuf;

use annulus::optim::Rule;
use annulus::perceptron::{Account, MemoryReport, Precision, Scaling, TensorClass};
use annulus::train::{Config, Report, Source};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

/// One object with all of it.
pub fn as_json(config: &Config, report: &Report, transport: &str) -> Value {
    let (optimizer, rate, momentum) = match config.rule {
        Rule::Sgd { rate, momentum } => ("sgd", rate, Some(momentum)),
        Rule::AdamW { rate } => ("adamw", rate, None),
    };
    let data = match &config.data {
        Source::Digits => "digits".into(),
        Source::Directory(directory) => directory.to_string_lossy(),
    };
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let ranks = report.ranks.iter().map(|times| {
        json!({
            "compute_s": times.compute.as_secs_f64(),
            "wait_s": times.wait.as_secs_f64(),
            "transfer_s": times.transfer.as_secs_f64(),
            "overlapped_s": times.overlapped.as_secs_f64(),
        })
    });
    let mut object = json!({
        "test_accuracy": report.test_accuracy,
        "losses": report.losses,
        "replicas_identical": report.replicas_identical,
        "equal_to_one_rank": report.equal_to_one_rank,
        "differences": report.differences,
        "loss_scale": report.scaling.map(|scaling| shortest(scaling.scale)),
        "skipped_steps": report.scaling.map(|scaling| scaling.skipped),
        "matrix_products": report.products,
        "device_memory": report.memory.as_ref().map(memory_as_json),
        "parameters_checksum": format!("{:016x}", report.parameters_checksum),
        "samples_per_second": report.samples_per_second(),
        "seconds": report.seconds,
        "ranks": ranks.collect::<Vec<_>>(),
        "config": {
            "ranks": config.ranks,
            "transport": transport,
            "device": report.device,
            "precision": config.precision.to_string(),
            "data": data,
            "hidden": config.hidden,
            "epochs": config.epochs,
            "batch": config.batch,
            "optimizer": optimizer,
            "lr": shortest(rate),
            "momentum": momentum.map(shortest),
            "seed": config.seed,
            "shuffle": config.shuffle,
            "steps": config.steps,
            "save": path(&config.save),
            "weights": path(&config.weights),
            "bucket_bytes": config.bucket_bytes,
        },
    });
    if config.steps.is_some() {
        object["step_losses"] = report.step_losses.iter().copied().map(shortest).collect();
    }
    object
}

/// By class of tensors, and of all, the bytes that they have, had, and had at the most.
fn memory_as_json(report: &MemoryReport) -> Value {
    let bytes = |account: Account| json!({ "live": account.live, "cached": account.cached, "peak": account.peak });
    let classes = TensorClass::ALL.map(|class| (class.name().to_owned(), bytes(report.of(class))));
    let all = [("all".to_owned(), bytes(report.all()))];
    Value::Object(classes.into_iter().chain(all).collect())
}

/// The number of the fewest digits that stands for these bits: 0.1, not 0.10000000149011612. Null if it is not finite.
fn shortest(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// The report's own table, where the time went, and, on devices, where their memory did.
pub fn as_tables(config: &Config, report: &Report, transport: &str) -> String {
    let yes = |is: bool, yes: &str| if is { yes.to_owned() } else { "NO".to_owned() };
    let mut lines = vec![("ranks", format!("{} {transport}", config.ranks))];
    if config.precision != Precision::F32 {
        lines.push(("precision", config.precision.to_string()));
    }
    lines.push(("test accuracy", format!("{:.2} %", report.test_accuracy * 100.0)));
    if let Some(loss) = report.losses.last() {
        lines.push(("loss of the last epoch", format!("{loss:.6}")));
    }
    if let Some(Scaling { scale, skipped, .. }) = report.scaling {
        let steps = report.step_losses.len();
        lines.push(("steps skipped", format!("{skipped} of {steps}, by overflows; the loss scale is {scale} now")));
    }
    lines.extend([
        ("replicas identical", yes(report.replicas_identical, "yes")),
        ("equal to one rank", yes(report.equal_to_one_rank, "yes, bit for bit")),
        ("parameters' checksum", format!("{:016x}", report.parameters_checksum)),
        ("samples a second", format!("{:.0}", report.samples_per_second())),
    ]);
    if let Some(products) = &report.products {
        lines.push(("matrix products", products.clone()));
    }
    if let Some(memory) = &report.memory {
        lines.push(("peak device bytes", format!("{} on rank 0", memory.all().peak)));
    }
    let mut run = Table::new();
    run.load_style(NOTHING);
    run.add_rows(lines.into_iter().map(|(name, value)| [name.to_owned(), value]));

    let mut times = Table::new();
    times.load_style(NOTHING);
    times.set_header(["rank", "compute s", "wait s", "transfer s", "overlapped s"]);
    for (rank, of) in report.ranks.iter().enumerate() {
        let seconds =
            [of.compute, of.wait, of.transfer, of.overlapped].map(|time| format!("{:.3}", time.as_secs_f64()));
        times.add_row(std::iter::once(rank.to_string()).chain(seconds));
    }
    times.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let memory = report.memory.as_ref().map_or_else(String::new, |report| format!("\n{}\n", memory_as_table(report)));
    format!("{}\n\n{}\n{memory}", run.trim_fmt(), times.trim_fmt())
}

fn memory_as_table(report: &MemoryReport) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["bytes on rank 0's device", "live", "cached", "peak"]);
    let mut row = |name: &str, account: Account| {
        let bytes = [account.live, account.cached, account.peak].map(|bytes| bytes.to_string());
        table.add_row(std::iter::once(name.to_owned()).chain(bytes));
    };
    TensorClass::ALL.into_iter().for_each(|class| row(class.name(), report.of(class)));
    row("all", report.all());
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.trim_fmt()
}
