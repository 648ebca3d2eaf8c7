// SPDX-License-Identifier: MPL-2.0
//! Collectives with a count for each rank: `MPI_Allgatherv` and its like.
//!
//! `counts` has one entry a rank, the same on all ranks: that they agree on every entry is checked like everything else
//! of a call. All-to-all is the exception, because nobody knows all of its counts: each rank passes its own, and the
//! ranks exchange them before.

use super::super::Communicator;
use super::super::calls::Call;
use super::Asked;
use crate::element::{Element, ReduceOp};
use crate::error::{Error, Result};
use crate::schedule::{Collective, Layout};

impl Communicator {
    /// [`Communicator::all_gather`] of `counts[r]` elements from rank r, one rank's after the other's.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is not one count a rank, or if `send` and `recv` are not as long as the counts say;
    /// `Mismatch` if the ranks' counts differ; and the failures of every collective.
    pub fn all_gather_v<T: Element>(&self, send: &[T], recv: &mut [T], counts: &[usize]) -> Result<()> {
        self.engine.block(self.all_gather_v_call(send, recv, counts)?)
    }

    /// The same with the input where it belongs in `buffer`.
    ///
    /// # Errors
    ///
    /// As [`Communicator::all_gather_v`].
    pub fn all_gather_v_in_place<T: Element>(&self, buffer: &mut [T], counts: &[usize]) -> Result<()> {
        self.engine.block(self.all_gather_v_in_place_call(buffer, counts)?)
    }

    /// [`Communicator::reduce_scatter`] in which rank r receives `counts[r]` elements.
    ///
    /// # Errors
    ///
    /// As [`Communicator::all_gather_v`] and [`Communicator::reduce_scatter`].
    pub fn reduce_scatter_v<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        counts: &[usize],
        op: ReduceOp,
    ) -> Result<()> {
        self.engine.block(self.reduce_scatter_v_call(send, recv, counts, op)?)
    }

    /// The same with the output where it belongs in `buffer`, the rest of which is left as it is.
    ///
    /// # Errors
    ///
    /// As [`Communicator::reduce_scatter_v`].
    pub fn reduce_scatter_v_in_place<T: Element>(
        &self,
        buffer: &mut [T],
        counts: &[usize],
        op: ReduceOp,
    ) -> Result<()> {
        self.engine.block(self.reduce_scatter_v_in_place_call(buffer, counts, op)?)
    }

    /// [`Communicator::scatter`] of `counts[r]` elements to rank r.
    ///
    /// # Errors
    ///
    /// As [`Communicator::all_gather_v`] and [`Communicator::scatter`].
    pub fn scatter_v<T: Element>(
        &self,
        send: Option<&[T]>,
        recv: &mut [T],
        counts: &[usize],
        root: usize,
    ) -> Result<()> {
        self.engine.block(self.scatter_v_call(send, recv, counts, root)?)
    }

    /// The same in place, as [`Communicator::scatter_in_place`].
    ///
    /// # Errors
    ///
    /// As [`Communicator::scatter_v`].
    pub fn scatter_v_in_place<T: Element>(&self, buffer: &mut [T], counts: &[usize], root: usize) -> Result<()> {
        self.engine.block(self.scatter_v_in_place_call(buffer, counts, root)?)
    }

    /// [`Communicator::gather`] of `counts[r]` elements from rank r, one rank's after the other's.
    ///
    /// # Errors
    ///
    /// As [`Communicator::all_gather_v`] and [`Communicator::gather`].
    pub fn gather_v<T: Element>(
        &self,
        send: &[T],
        recv: Option<&mut [T]>,
        counts: &[usize],
        root: usize,
    ) -> Result<()> {
        self.engine.block(self.gather_v_call(send, recv, counts, root)?)
    }

    /// The same in place, as [`Communicator::gather_in_place`].
    ///
    /// # Errors
    ///
    /// As [`Communicator::gather_v`].
    pub fn gather_v_in_place<T: Element>(&self, buffer: &mut [T], counts: &[usize], root: usize) -> Result<()> {
        self.engine.block(self.gather_v_in_place_call(buffer, counts, root)?)
    }

    /// [`Communicator::all_to_all`] of `send_counts[i]` elements to rank i, and of `recv_counts[i]` from it, which must be
    /// as many as it sends. Parts lie one after the other, in the order of the ranks.
    ///
    /// The ranks exchange their counts first: this is two calls, and takes two numbers.
    ///
    /// ```
    /// use annulus::run;
    ///
    /// let received = run(2, |comm| {
    ///     // Rank 0 keeps one element and sends two; rank 1 sends three and keeps none.
    ///     let (sends, receives) = [([1, 2], [1, 3]), ([3, 0], [2, 0])][comm.rank()];
    ///     let send: Vec<u32> = (0..3).map(|i| 10 * comm.rank() as u32 + i).collect();
    ///     let mut recv = vec![0; receives.iter().sum()];
    ///     comm.all_to_all_v(&send, &sends, &mut recv, &receives)?;
    ///     Ok(recv)
    /// })?;
    /// assert_eq!(received, [vec![0, 10, 11, 12], vec![1, 2]]);
    /// # Ok::<(), annulus::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is not one count a rank, or if `send` and `recv` are not as long as the counts say;
    /// `Mismatch` on all ranks if one expects more or fewer elements than another sends it; and the failures of every
    /// collective.
    pub fn all_to_all_v<T: Element>(
        &self,
        send: &[T],
        send_counts: &[usize],
        recv: &mut [T],
        recv_counts: &[usize],
    ) -> Result<()> {
        self.engine.block(self.all_to_all_v_call(send, send_counts, recv, recv_counts)?)
    }
}

/// What the forms of a call have in common.
impl Communicator {
    pub(in super::super) fn all_gather_v_call<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        counts: &[usize],
    ) -> Result<Call<'static>> {
        let asked = self.varying("all_gather_v", Collective::AllGather, None, counts)?;
        self.out_of_place(asked, Some(send), Some(recv))
    }

    pub(in super::super) fn reduce_scatter_v_call<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        counts: &[usize],
        op: ReduceOp,
    ) -> Result<Call<'static>> {
        let asked = self.varying("reduce_scatter_v", Collective::ReduceScatter, Some(op), counts)?;
        self.out_of_place(asked, Some(send), Some(recv))
    }

    pub(in super::super) fn scatter_v_call<T: Element>(
        &self,
        send: Option<&[T]>,
        recv: &mut [T],
        counts: &[usize],
        root: usize,
    ) -> Result<Call<'static>> {
        let asked = self.varying_rooted("scatter_v", Collective::Scatter, counts, root)?;
        self.out_of_place(asked, send, Some(recv))
    }

    pub(in super::super) fn gather_v_call<T: Element>(
        &self,
        send: &[T],
        recv: Option<&mut [T]>,
        counts: &[usize],
        root: usize,
    ) -> Result<Call<'static>> {
        let asked = self.varying_rooted("gather_v", Collective::Gather, counts, root)?;
        self.out_of_place(asked, Some(send), recv)
    }

    pub(in super::super) fn all_gather_v_in_place_call<T: Element>(
        &self,
        buffer: &mut [T],
        counts: &[usize],
    ) -> Result<Call<'static>> {
        self.in_place(self.varying("all_gather_v_in_place", Collective::AllGather, None, counts)?, buffer)
    }

    pub(in super::super) fn reduce_scatter_v_in_place_call<T: Element>(
        &self,
        buffer: &mut [T],
        counts: &[usize],
        op: ReduceOp,
    ) -> Result<Call<'static>> {
        self.in_place(self.varying("reduce_scatter_v_in_place", Collective::ReduceScatter, Some(op), counts)?, buffer)
    }

    pub(in super::super) fn scatter_v_in_place_call<T: Element>(
        &self,
        buffer: &mut [T],
        counts: &[usize],
        root: usize,
    ) -> Result<Call<'static>> {
        self.in_place(self.varying_rooted("scatter_v_in_place", Collective::Scatter, counts, root)?, buffer)
    }

    pub(in super::super) fn gather_v_in_place_call<T: Element>(
        &self,
        buffer: &mut [T],
        counts: &[usize],
        root: usize,
    ) -> Result<Call<'static>> {
        self.in_place(self.varying_rooted("gather_v_in_place", Collective::Gather, counts, root)?, buffer)
    }

    pub(in super::super) fn all_to_all_v_call<T: Element>(
        &self,
        send: &[T],
        send_counts: &[usize],
        recv: &mut [T],
        recv_counts: &[usize],
    ) -> Result<Call<'static>> {
        let (name, rank, world) = ("all_to_all_v", self.rank(), self.world_size());
        let total = |counts: &[usize]| counts.iter().try_fold(0_usize, |sum, count| sum.checked_add(*count));
        for (what, counts, len) in [("send", send_counts, send.len()), ("recv", recv_counts, recv.len())] {
            self.check_counts(name, counts)?;
            if total(counts) != Some(len) {
                return Err(Error::invalid(format!(
                    "{name} on rank {rank}: {what} has {len} elements; its counts must add up to that"
                )));
            }
        }
        self.check_algorithm::<T>(Collective::AllToAll)?;
        // What each rank sends to the others, then what it expects of them.
        let own: Vec<u64> = send_counts.iter().chain(recv_counts).map(|count| *count as u64).collect();
        let mut all = vec![0; own.len() * world];
        self.exchange(&own, &mut all)?;
        let rows: Vec<Vec<usize>> =
            all.chunks(2 * world).map(|row| row.iter().map(|c| *c as usize).collect()).collect();
        for (from, sent) in rows.iter().enumerate() {
            for (to, expected) in rows.iter().enumerate() {
                let (sent, expected) = (sent[to], expected[world + from]);
                if sent != expected {
                    // All ranks see the same counts, so all come to this.
                    let sentence = format!(
                        "{name}: rank {from} sends {sent} elements to rank {to}, which expects {expected}; both must name \
                         the same count"
                    );
                    return Err(self.reporter.report(Error::Mismatch(sentence.into())));
                }
            }
        }
        let rows: Vec<&[usize]> = rows.iter().map(|row| &row[..world]).collect();
        let asked = Asked { name, collective: Collective::AllToAll, op: None, layout: Layout::matrix(&rows) };
        self.out_of_place(asked, Some(send), Some(recv))
    }

    fn varying(
        &self,
        name: &'static str,
        collective: Collective,
        op: Option<ReduceOp>,
        counts: &[usize],
    ) -> Result<Asked> {
        self.check_counts(name, counts)?;
        Ok(Asked { name, collective, op, layout: Layout::varying(counts) })
    }

    fn varying_rooted(
        &self,
        name: &'static str,
        collective: Collective,
        counts: &[usize],
        root: usize,
    ) -> Result<Asked> {
        let root = self.checked_root(name, root)?;
        let asked = self.varying(name, collective, None, counts)?;
        Ok(Asked { layout: asked.layout.with_root(root), ..asked })
    }

    fn check_counts(&self, name: &str, counts: &[usize]) -> Result<()> {
        let (rank, world) = (self.rank(), self.world_size());
        match counts.len() == world {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "{name} on rank {rank}: there are {} counts; pass one for each of the {world} ranks",
                counts.len()
            ))),
        }
    }
}
