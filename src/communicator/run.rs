// SPDX-License-Identifier: MPL-2.0
//! Ranks as threads of this process, in one call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::explain::limits;
use super::{Communicator, failure};
use crate::error::{Error, Result};
use crate::transport::{default_timeout, threads};

/// The rank that failed first, and what with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rank {rank}: {error}")]
pub struct RankFailure {
    /// The rank.
    pub rank: usize,
    /// Its error; a panic is [`Error::Aborted`] with the panic's message.
    #[source]
    pub error: Error,
}

impl From<RankFailure> for Error {
    fn from(failure: RankFailure) -> Error {
        failure.error
    }
}

/// Runs `rank_main` on `ranks` threads, each with its communicator, and returns their results by rank, or the first
/// failure and its rank. A rank that returns an error or panics leaves its communicator, so that the others do not wait
/// for it but get `RankLost`.
///
/// # Errors
///
/// The first rank's that failed. What keeps any rank from being started is rank 0's: `InvalidArgument` for no ranks or more
/// than 4096, and for an `ANNULUS_TIMEOUT` or a table (`ANNULUS_TABLE`) that is wrong; `System` where memory is exhausted.
///
/// ```
/// use annulus::{ReduceOp, run};
///
/// let sums = run(3, |comm| {
///     let mut value = [comm.rank() as f32 + 1.0];
///     comm.all_reduce_in_place(&mut value, ReduceOp::Sum)?;
///     Ok(value[0])
/// })?;
/// assert_eq!(sums, [6.0, 6.0, 6.0]);
/// # Ok::<(), annulus::Error>(())
/// ```
pub fn run<T, F>(ranks: usize, rank_main: F) -> Result<Vec<T>, RankFailure>
where
    T: Send,
    F: Fn(Communicator) -> Result<T> + Sync,
{
    let outside = |error| RankFailure { rank: 0, error };
    let timeout = default_timeout().map_err(outside)?;
    let transports = limits().and_then(|limits| threads::world(ranks, limits)).map_err(outside)?;
    let first: Mutex<Option<RankFailure>> = Mutex::new(None);
    let (rank_main, failed) = (&rank_main, &first);
    let results: Vec<Option<T>> = std::thread::scope(|scope| {
        let threads: Vec<_> = transports
            .into_iter()
            .enumerate()
            .map(|(rank, transport)| {
                let absent = transport.clone();
                let body = move || {
                    let main = || {
                        let result = rank_main(Communicator::new(transport, rank, timeout));
                        // Before the communicator's peers can fail for its sake, unless `rank_main` dropped it.
                        result.map_err(|error| note(failed, rank, error)).ok()
                    };
                    catch_unwind(AssertUnwindSafe(main)).unwrap_or_else(|panic| {
                        note(failed, rank, Error::Aborted(format!("panicked: {}", failure::message(&*panic)).into()));
                        None
                    })
                };
                let thread = std::thread::Builder::new().name(format!("rank-{rank}")).spawn_scoped(scope, body);
                thread.inspect_err(|_| absent.leave(true))
            })
            .collect();
        threads
            .into_iter()
            .enumerate()
            .map(|(rank, thread)| match thread {
                Ok(thread) => thread.join().ok().flatten(),
                Err(error) => {
                    note(failed, rank, Error::system("starting a rank's thread", error));
                    None
                }
            })
            .collect()
    });
    if let Some(failure) = first.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(failure);
    }
    results
        .into_iter()
        .collect::<Option<Vec<T>>>()
        .ok_or_else(|| outside(Error::Aborted("a rank ended without a result".into())))
}

/// Keeps the first failure. Those of ranks that another one took along come later, or, where a panic is reported after
/// its unwinding, give way to it.
fn note(first: &Mutex<Option<RankFailure>>, rank: usize, error: Error) {
    let mut first = first.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let consequence = |failure: &RankFailure| match &failure.error {
        Error::RankLost { rank: lost, .. } => *lost == rank,
        other => *other == failure::panicked(rank),
    };
    if first.as_ref().is_none_or(consequence) {
        *first = Some(RankFailure { rank, error });
    }
}
