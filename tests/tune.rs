// SPDX-License-Identifier: MPL-2.0
//! `annulus tune` and what comes of it: a table that is read back, by which algorithms are chosen and explained.
#![cfg(all(feature = "cli", target_os = "linux"))]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use annulus::schedule::table::Table;

fn annulus(arguments: &str, table: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annulus"));
    command.args(arguments.split_whitespace()).env_remove("ANNULUS_TABLE");
    if let Some(table) = table {
        command.env("ANNULUS_TABLE", table);
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tune");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// Whether 64 bytes ride along by such a table: among threads, and among processes with plain memory.
fn ride_along(table: &Path) -> [bool; 2] {
    ["", "--processes"].map(|more| {
        let output =
            annulus(&format!("bench all_reduce --begin 64 --end 64 --iterations 3 --json {more}"), Some(table));
        let out = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        out.contains("\"algorithm\":\"one_shot\"")
    })
}

#[test]
fn a_table_is_written_and_used() {
    let table = file("written");
    let _ = std::fs::remove_file(&table);
    let output = annulus(&format!("tune {} --end 512 --iterations 20", table.display()), None);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("measuring all_to_all") && said.contains("set ANNULUS_TABLE="), "{said}");
    let written = Table::read(&std::fs::read_to_string(&table).unwrap()).unwrap();
    // Ten collectives, two kinds of memory, two modes, 8, 64 and 512 bytes.
    assert_eq!(written.took.len(), 10 * 2 * 2 * 3);
    assert!(written.took.iter().all(|took| took.ranks == 2 && took.transport == "processes"));

    let output = annulus("schedule all_reduce --explain --ranks 2 --length 2", Some(&table));
    let said = text(&output.stdout);
    assert!(output.status.success() && said.starts_with("one_shot (schedule): "), "{said}");
    assert!(said.contains("rounds") && said.contains("measured: ") && said.contains("for 8 bytes"), "{said}");
    let said = text(&annulus("schedule all_gather --explain --ranks 4 --length 9000 --staged", None).stdout);
    assert!(
        ["pull", "staged"].iter().any(|name| said.starts_with(name)) && said.contains("not measured: `annulus tune`"),
        "{said}"
    );
}

#[test]
fn a_table_decides() {
    let table = file("decides");
    std::fs::write(&table, "always 64\ninline 64\n").unwrap();
    assert_eq!(ride_along(&table), [true, true]);
    std::fs::write(&table, "always 8\ninline 256\n").unwrap();
    assert_eq!(ride_along(&table), [false, true]);
    std::fs::write(&table, "always 8\ninline 8\n").unwrap();
    assert_eq!(ride_along(&table), [false, false]);
}

#[test]
fn what_is_no_table_is_a_sentence() {
    let table = file("wrong");
    std::fs::write(&table, "always 8\nnever 9\n").unwrap();
    let output = annulus("bench barrier", Some(&table));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("which ANNULUS_TABLE names: line 2: give always"),
        "{}",
        text(&output.stderr)
    );
    let output = annulus("bench barrier --processes", Some(&file("none")));
    assert_ne!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("which ANNULUS_TABLE names"), "{}", text(&output.stderr));
    let output = annulus("tune /proc/no/such/folder --end 8 --iterations 1", None);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("writing the table /proc/no/such/folder"), "{}", text(&output.stderr));
}
