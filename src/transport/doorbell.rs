// SPDX-License-Identifier: MPL-2.0
//! Sleeping until a peer changes a word, and waking those who sleep on it: a futex.
//!
//! The kernel compares the word with the expected value and puts the caller to sleep in one step with respect to
//! [`wake_all`], so a waker who *first* changes the word and *then* rings can never be missed by a sleeper who expected
//! the old value. Nothing here orders memory: whoever wakes re-reads the word, with the ordering its protocol needs.
//! Sleeps may end for no reason, so every [`wait`] belongs in a loop.
//!
//! Where there is no futex (systems other than Linux, on which ranks are threads only), a wait is a short sleep and
//! ringing does nothing.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Who may be asleep on the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Threads of this process alone: the kernel finds the sleepers by the word's address, which is quicker.
    Threads,
    /// Threads of any process that maps the word's page: the kernel finds them by the page itself.
    Processes,
}

/// The longest nap where there is no futex to sleep on.
const NAP: Duration = Duration::from_micros(100);

/// Sleeps while `word` holds `expected`, until [`wake_all`] is called on it or `timeout` has passed; returns at once if
/// it holds something else. May return early for no reason.
///
/// Sleepers and wakers of one word name the same [`Scope`].
pub fn wait(word: &AtomicU32, expected: u32, timeout: Duration, scope: Scope) {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::Errno;
        use rustix::thread::futex;

        // A timeout beyond what the kernel's clock can express is as good as its largest: sleeps may end early.
        let timeout = futex::Timespec::try_from(timeout.min(Duration::from_secs(1 << 31))).unwrap_or_default();
        match futex::wait(word, flags(scope), expected, Some(&timeout)) {
            // Rung, changed before we slept, interrupted, too late: all of them send the caller back to its loop.
            Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => return,
            // A sandbox without futexes: the loop around this call must still not burn the processor.
            Err(_) => (),
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = scope;
    // ORDERING: only whether to nap is decided here; the caller re-reads the word with the ordering it needs.
    if word.load(std::sync::atomic::Ordering::Relaxed) == expected {
        std::thread::sleep(timeout.min(NAP));
    }
}

/// Wakes all that sleep on `word`. Change the word first.
pub fn wake_all(word: &AtomicU32, scope: Scope) {
    #[cfg(target_os = "linux")]
    {
        // The kernel takes the number as a signed integer. Waking fails only for an address that is not mapped, which a
        // reference rules out, or without futexes, where nobody sleeps on one.
        let _ = rustix::thread::futex::wake(word, flags(scope), i32::MAX as u32);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (word, scope);
}

#[cfg(target_os = "linux")]
fn flags(scope: Scope) -> rustix::thread::futex::Flags {
    use rustix::thread::futex::Flags;
    match scope {
        Scope::Threads => Flags::PRIVATE,
        Scope::Processes => Flags::empty(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    use super::*;

    /// Longer than any machine needs to wake a thread; a lost wake-up fails these tests by this, not by a hang.
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_changed_word_is_not_slept_on() {
        let started = Instant::now();
        for scope in [Scope::Threads, Scope::Processes] {
            wait(&AtomicU32::new(1), 0, LONG, scope);
        }
        assert!(started.elapsed() < LONG);
    }

    #[test]
    fn an_unchanged_word_is_left_at_the_timeout() {
        for scope in [Scope::Threads, Scope::Processes] {
            wait(&AtomicU32::new(0), 0, Duration::from_millis(1), scope);
            wait(&AtomicU32::new(0), 0, Duration::ZERO, scope);
        }
        // The largest timeout is accepted too.
        wait(&AtomicU32::new(1), 0, Duration::MAX, Scope::Threads);
    }

    #[test]
    fn ringing_wakes_every_sleeper() {
        for scope in [Scope::Threads, Scope::Processes] {
            let word = AtomicU32::new(0);
            let started = Instant::now();
            std::thread::scope(|threads| {
                for _ in 0..3 {
                    threads.spawn(|| {
                        while word.load(Ordering::Acquire) == 0 {
                            wait(&word, 0, LONG, scope);
                        }
                    });
                }
                std::thread::sleep(Duration::from_millis(5));
                word.store(1, Ordering::Release);
                wake_all(&word, scope);
            });
            assert!(started.elapsed() < LONG, "a sleeper missed the bell");
        }
    }
}
