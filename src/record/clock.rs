// SPDX-License-Identifier: MPL-2.0
//! The clock that stamps arrivals: one that all ranks of a machine read alike, for a few nanoseconds.
//!
//! Where the processor's time-stamp counter is constant, does not stop, and is what the kernel itself keeps time by, a
//! stamp is that counter, and cores agree on it. Elsewhere it is CLOCK_MONOTONIC in nanoseconds. All ranks of one
//! machine come to the same choice, since it depends on the machine alone.
#![allow(unsafe_code)] // the counter's instruction and the processor's feature leaves

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A moment, in ticks of this machine's clock. Ticks of ranks on one machine compare.
pub type Ticks = u64;

/// How ticks relate to time: two readings of both clocks, the first when the clock was first asked for.
struct Anchor {
    counter: bool,
    ticks: Ticks,
    instant: Instant,
}

static ANCHOR: OnceLock<Anchor> = OnceLock::new();

fn anchor() -> &'static Anchor {
    ANCHOR.get_or_init(|| {
        let counter = counter_is_usable();
        let instant = Instant::now();
        Anchor { counter, ticks: if counter { read_counter() } else { 0 }, instant }
    })
}

/// A handle on the clock, so that stamping costs no look-up.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    counter: bool,
}

impl Clock {
    /// This machine's clock.
    pub fn new() -> Self {
        Clock { counter: anchor().counter }
    }

    /// Now.
    #[inline]
    pub fn now(self) -> Ticks {
        if self.counter { read_counter() } else { monotonic() }
    }

    /// How long `ticks` are. Where the counter's rate must be measured, the first answers wait until some milliseconds
    /// have passed since the clock was made.
    pub fn duration(self, ticks: Ticks) -> Duration {
        if !self.counter {
            return Duration::from_nanos(ticks);
        }
        Duration::from_secs_f64(ticks as f64 * seconds_per_tick())
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Measured once, over at least ten milliseconds, against the monotonic clock.
fn seconds_per_tick() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let start = anchor();
        let elapsed = start.instant.elapsed();
        if let Some(rest) = Duration::from_millis(10).checked_sub(elapsed) {
            std::thread::sleep(rest);
        }
        let (elapsed, ticks) = (start.instant.elapsed(), read_counter());
        elapsed.as_secs_f64() / ticks.saturating_sub(start.ticks).max(1) as f64
    })
}

#[cfg(target_os = "linux")]
fn monotonic() -> Ticks {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Elsewhere all ranks are threads of one process, so one process's clock will do.
#[cfg(not(target_os = "linux"))]
fn monotonic() -> Ticks {
    anchor().instant.elapsed().as_nanos() as u64
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn read_counter() -> Ticks {
    // SAFETY: RDTSC exists on every x86-64 processor. A kernel may forbid it to user code (prctl PR_SET_TSC); a process
    // that asked for that also loses the clock of its C library, so no running program has it set.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn read_counter() -> Ticks {
    monotonic()
}

/// Constant and nonstop by the processor's word (CPUID 8000_0007h, EDX bit 8), and trusted by the kernel.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(unused_unsafe)] // newer standard libraries declare the intrinsic safe
fn counter_is_usable() -> bool {
    // SAFETY: CPUID exists on every x86-64 processor.
    let invariant = unsafe {
        std::arch::x86_64::__cpuid(0x8000_0000).eax >= 0x8000_0007
            && std::arch::x86_64::__cpuid(0x8000_0007).edx & (1 << 8) != 0
    };
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    invariant && source.is_ok_and(|name| name.trim() == "tsc")
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn counter_is_usable() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_grow_and_convert() {
        let clock = Clock::new();
        let (ticks, instant) = (clock.now(), Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        let (measured, real) = (clock.duration(clock.now() - ticks), instant.elapsed());
        let ratio = measured.as_secs_f64() / real.as_secs_f64();
        assert!((0.5..2.0).contains(&ratio), "{measured:?} against {real:?}");
    }
}
