// SPDX-License-Identifier: MPL-2.0
//! How much memory the machine has, and how much of it may still be taken.
//!
//! Linux reports exhausted shared memory by killing somebody. So an allocation asks here first, and answers with an
//! error value where it would not fit. Two that ask at the same moment may both be told yes; this guards against a
//! number that was too large, not against a full machine.

use std::fs;
use std::path::{Path, PathBuf};

/// Physical memory of the machine, in bytes.
pub fn physical() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}

/// Bytes that this process can still take without pushing others out: what the kernel holds for available (with free
/// swap), or what is left in this process's control group if that is less. `None` where the kernel does not say.
pub fn available() -> Option<u64> {
    let machine = machine(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| group(&text));
    Some(groups.iter().flat_map(|group| group.ancestors()).filter_map(left_in).fold(machine, u64::min))
}

/// Available memory and free swap by the text of `/proc/meminfo`.
fn machine(text: &str) -> Option<u64> {
    let kibibytes = |key| field(text, key).map(|value| value.saturating_mul(1024));
    Some(kibibytes("MemAvailable:")?.saturating_add(kibibytes("SwapFree:").unwrap_or(0)))
}

/// The directory of this process's control group (version 2) by the text of `/proc/self/cgroup`.
fn group(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

/// What a control group may still take: its limit less its use, where file cache does not count since it gives way.
/// `None` without a limit.
fn left_in(group: &Path) -> Option<u64> {
    let number = |file| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let (limit, used) = (number("memory.max")?, number("memory.current")?);
    let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cache = ["inactive_file", "active_file"].iter().filter_map(|key| field(&statistics, key)).sum();
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

/// The number after `key` at the start of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(key)).then(|| words.next()?.parse().ok())?
    })
}

/// `bytes` as a person reads it: `3.5 GiB`.
pub fn readable(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    if power == 0 {
        return format!("{bytes} bytes");
    }
    format!("{:.1} {}", bytes as f64 / f64::from(1 << 10).powi(power as i32), units[power as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let text = "MemTotal:       24000 kB\nMemAvailable:    3000 kB\nSwapTotal: 5 kB\nSwapFree:          20 kB\n";
        assert_eq!(machine(text), Some(3020 * 1024));
        assert_eq!(machine("MemAvailable: 1 kB\n"), Some(1024));
        assert_eq!(machine("MemTotal: 1 kB\n"), None);
        assert_eq!(machine("MemAvailable: many\n"), None);
        assert_eq!(group("1:name=x:/y\n0::/a/b\n"), Some(PathBuf::from("/sys/fs/cgroup/a/b")));
        assert_eq!(group("12:memory:/a\n"), None);
        assert_eq!(field("active_file 7\ninactive_file 9\n", "inactive_file"), Some(9));
    }

    #[test]
    fn this_machine_has_memory() {
        let available = available().expect("Linux has /proc/meminfo");
        assert!(physical() > 0 && available > 0);
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(readable(0), "0 bytes");
        assert_eq!(readable(1023), "1023 bytes");
        assert_eq!(readable(1 << 10), "1.0 KiB");
        assert_eq!(readable((1 << 30) * 7 / 2), "3.5 GiB");
        assert_eq!(readable(u64::MAX), "16777216.0 TiB");
    }
}
