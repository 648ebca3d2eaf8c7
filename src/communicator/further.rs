// SPDX-License-Identifier: MPL-2.0
//! Further communicators: of the same ranks, or of some of them. Each has calls, failures and shared memory of its own.

use super::Communicator;
use crate::error::{Error, Result};

/// What a rank says of itself when communicators are made.
const WORDS: usize = 4;

/// A rank that takes no part.
const NO_COLOR: u64 = 0;
/// A rank that is of a colour, and has what it needs.
const READY: u64 = 1;
/// A rank that could not get the memory.
const FAILED: u64 = 2;

impl Communicator {
    /// Another communicator of the same ranks, with calls and failures of its own. Collective.
    ///
    /// # Errors
    ///
    /// Those of a collective call, and `System` if a rank cannot get the memory.
    pub fn duplicate(&self) -> Result<Communicator> {
        let duplicate = self.split(0, 0)?;
        duplicate.ok_or_else(|| Error::system("duplicating a communicator", "this rank is not among its own"))
    }

    /// Communicators of some of the ranks each: ranks that pass the same colour are together, ordered by `key` and, where
    /// keys are equal, by their rank here. A rank that passes `None` takes no part in any, and gets `None`. Collective:
    /// every rank calls it.
    ///
    /// As `MPI_Comm_split`. Errors of the new communicator name its own ranks.
    ///
    /// ```
    /// use annulus::{ReduceOp, run};
    ///
    /// let sums = run(4, |comm| {
    ///     let parity = (comm.rank() % 2) as u64;
    ///     let half = comm.split(parity, 0)?.unwrap();
    ///     let mut sum = [comm.rank() as u32];
    ///     half.all_reduce_in_place(&mut sum, ReduceOp::Sum)?;
    ///     Ok((half.rank(), sum[0]))
    /// })?;
    /// assert_eq!(sums, [(0, 2), (0, 4), (1, 2), (1, 4)]);
    /// # Ok::<(), annulus::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of a collective call, and `System` on all ranks if one cannot get the memory; this communicator goes on.
    pub fn split(&self, color: impl Into<Option<u64>>, key: i64) -> Result<Option<Communicator>> {
        let color = color.into();
        let token = color.map(|_| self.transport().prepare()).transpose();
        let said = match (&token, color) {
            (Ok(Some(token)), Some(color)) => [READY, color, key as u64, *token],
            (Ok(_), _) => [NO_COLOR; WORDS],
            // Said, so that nobody waits for it.
            (Err(_), _) => [FAILED; WORDS],
        };
        let mut all = vec![0; WORDS * self.world_size()];
        let upcoming = || self.engine.lock().collectives().upcoming_call();
        let call = upcoming();
        let exchanged = self.exchange(&said, &mut all);
        let ranks = || all.chunks_exact(WORDS).enumerate();
        let failed = ranks().find(|(_, said)| said[0] == FAILED).map(|(rank, _)| rank);
        let nobody_joins = match &exchanged {
            Ok(()) => failed.is_some(),
            // Where it was posted, a rank that fails later, or not at all, may have seen the token.
            Err(_) => upcoming() == call,
        };
        if let (true, Ok(Some(token))) = (nobody_joins, &token) {
            self.transport().discard(*token);
        }
        exchanged?;
        token?;
        if let Some(rank) = failed {
            return Err(Error::system("making a communicator", format!("rank {rank} could not get the memory")));
        }
        let Some(color) = color else { return Ok(None) };
        let mut members: Vec<(i64, usize, u64)> = ranks()
            .filter(|(_, said)| said[0] == READY && said[1] == color)
            .map(|(rank, said)| (said[2] as i64, rank, said[3]))
            .collect();
        members.sort_unstable();
        let members: Vec<(usize, u64)> = members.into_iter().map(|(_, rank, token)| (rank, token)).collect();
        let transport = self.transport().join(call, &members)?;
        Ok(Some(Communicator::new(transport, self.local_rank, self.timeout.get())))
    }
}
