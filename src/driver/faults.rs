// SPDX-License-Identifier: MPL-2.0
//! What goes wrong while operations are done, after the call that enqueued them has returned.
//!
//! A kernel reports by words in memory that the host sees: it writes what happened into words 1 to 15 and then, with
//! release, anything but zero into word 0. A function of the host reports by panicking, and the device by refusing. The
//! host looks where it waits: `synchronize`, event waits and reads return the first fault, and return it ever after.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::device::Core;
use super::words::Words;
use crate::error::{Error, Result};

/// Makes a sentence of what a kernel has reported.
type Render = dyn Fn(&[u32; FaultWords::COUNT]) -> Error + Send + Sync;

/// Words in which kernels report what went wrong, and how that is said. Clones are the same words.
///
/// Every stream has one. Whoever knows better what its kernels mean makes one of its own, gives its address to them,
/// and has the streams that they run on watch it ([`Stream::watch`](super::Stream::watch)).
#[derive(Clone)]
pub struct FaultWords(Arc<Inner>);

struct Inner {
    words: Words,
    render: Box<Render>,
    first: OnceLock<Error>,
}

impl FaultWords {
    /// How many words a report has.
    pub const COUNT: usize = 16;

    pub(super) fn new(
        core: &Arc<Core>,
        render: impl Fn(&[u32; FaultWords::COUNT]) -> Error + Send + Sync + 'static,
    ) -> Result<FaultWords> {
        let words = Words::new(core, Self::COUNT)?;
        Ok(FaultWords(Arc::new(Inner { words, render: Box::new(render), first: OnceLock::new() })))
    }

    /// The words themselves, to be given to kernels.
    pub fn words(&self) -> &Words {
        &self.0.words
    }

    /// The first fault, if there has been one.
    pub fn first(&self) -> Option<Error> {
        let words = self.0.words.get();
        // Acquire: the other words are what the kernel wrote before it stored this one with release.
        if self.0.first.get().is_none() && words[0].load(Ordering::Acquire) != 0 {
            // Relaxed: they are ordered by the load above.
            let report = std::array::from_fn(|word| words[word].load(Ordering::Relaxed));
            self.report((self.0.render)(&report));
        }
        self.0.first.get().cloned()
    }

    /// Reports a fault that no kernel has seen; an earlier one stays the first.
    pub(super) fn report(&self, error: Error) {
        // An error that is there already stays.
        let _ = self.0.first.set(error);
    }

    fn is(&self, other: &FaultWords) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for FaultWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultWords").field(&self.0.first.get()).finish()
    }
}

/// The fault words that a stream looks at, in the order in which it came to watch them.
pub(super) struct Watched(Mutex<Vec<FaultWords>>);

impl Watched {
    pub fn new(own: FaultWords) -> Self {
        Watched(Mutex::new(vec![own]))
    }

    pub fn add_all(&self, faults: &[FaultWords]) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for faults in faults {
            if !watched.iter().any(|other| other.is(faults)) {
                watched.push(faults.clone());
            }
        }
        // Nobody else holds these any more and nothing has come of them: no operation can report by them either, since
        // operations hold what they use. The first are the stream's own.
        let mut own = true;
        watched
            .retain(|faults| std::mem::take(&mut own) || Arc::strong_count(&faults.0) > 1 || faults.first().is_some());
    }

    /// All that is watched now.
    pub fn all(&self) -> Vec<FaultWords> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first fault of any.
    pub fn look(&self) -> Result<()> {
        self.all().iter().find_map(FaultWords::first).map_or(Ok(()), Err)
    }
}
