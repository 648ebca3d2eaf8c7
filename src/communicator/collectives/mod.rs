// SPDX-License-Identifier: MPL-2.0
//! The calls, typed and checked. Counts and in-place rules are NCCL's.
//!
//! | file | calls |
//! |---|---|
//! | `folds` | all-reduce, reduce-scatter, reduce, scans |
//! | `moves` | all-gather, broadcast, scatter, gather, all-to-all, barrier |
//! | `varying` | those with a count for each rank |
//! | `own` | schedules of one's own |
//!
//! A call comes in up to six forms: blocking, started (`started`) and started in a scope, each out of place and in place.
//! All are made of one description, [`Asked`], which is checked in one place: here.
//!
//! What a rank can see wrong alone (lengths that do not fit together, a root that does not exist) is
//! `InvalidArgument`: nothing is posted, no call number is used. Lengths that differ *between* ranks are a `Mismatch`
//! on all of them.

mod folds;
mod moves;
mod own;
mod varying;

use super::Communicator;
use super::addresses::Run;
use super::calls::Call;
use super::descriptor::{self, Descriptor};
use super::engine::COLLECTIVES;
use super::plan::request;
use super::refusals::Asker;
use crate::element::{Element, ReduceOp};
use crate::error::Result;
use crate::schedule::{self, Access, Collective, Layout};

impl Run {
    /// Nothing.
    pub const NONE: Run = Run { data: std::ptr::null_mut(), bytes: 0 };

    /// Elements that are only read.
    pub fn of<T: Element>(elements: &[T]) -> Self {
        Run { data: elements.as_ptr().cast_mut().cast(), bytes: size_of_val(elements) }
    }

    /// Elements that are written.
    pub fn of_mut<T: Element>(elements: &mut [T]) -> Self {
        Run { data: elements.as_mut_ptr().cast(), bytes: size_of_val(elements) }
    }

    /// Elements `range` of these.
    fn part<T: Element>(self, first: usize, len: usize) -> Self {
        Run { data: self.data.wrapping_add(first * size_of::<T>()), bytes: len * size_of::<T>() }
    }
}

/// What is called, apart from its buffers and their type.
struct Asked {
    /// The call's name, for what is said of it.
    name: &'static str,
    collective: Collective,
    op: Option<ReduceOp>,
    layout: Layout,
}

impl Communicator {
    /// The call on separate buffers. Ranks that give or get nothing pass `None`.
    fn out_of_place<T: Element>(
        &self,
        asked: Asked,
        send: Option<&[T]>,
        recv: Option<&mut [T]>,
    ) -> Result<Call<'static>> {
        let Asked { name, collective, ref layout, .. } = asked;
        let (rank, root) = (self.rank(), layout.root());
        let others = collective.has_root() && rank != root;
        let gives = !(others && matches!(collective, Collective::Broadcast | Collective::Scatter));
        let gets = !(others && matches!(collective, Collective::Reduce | Collective::Gather));
        for (what, needed, given) in [("send", gives, send.is_some()), ("recv", gets, recv.is_some())] {
            self.asker(name).check_passed(what, root, needed, given)?;
        }
        let (sent, received) = (send.map_or(0, <[T]>::len), recv.as_ref().map_or(0, |recv| recv.len()));
        let input_len = layout.input_len(collective, rank);
        let output_len = match collective {
            // Rank 0's is left as it is, and as long as the others'.
            Collective::ExclusiveScan => layout.count(rank),
            _ => layout.output_len(collective, rank),
        };
        if (sent, received) != (input_len, output_len) {
            return self.refuse_lengths(&asked, sent, received, (input_len, output_len));
        }
        let (input, output) = (send.map_or(Run::NONE, Run::of), recv.map_or(Run::NONE, Run::of_mut));
        Ok(self.call::<T>(asked, input, output))
    }

    /// The call on one buffer, which is the larger of input and output.
    fn in_place<T: Element>(&self, asked: Asked, buffer: &mut [T]) -> Result<Call<'static>> {
        let Asked { name, collective, ref layout, .. } = asked;
        let rank = self.rank();
        let (input_len, output_len) = (layout.input_len(collective, rank), layout.output_len(collective, rank));
        let len = input_len.max(output_len);
        if buffer.len() != len {
            let has = buffer.len();
            return self
                .asker(name)
                .refuse(format_args!("the buffer has {has} elements; by the counts it must have {len}"));
        }
        let whole = Run::of_mut(buffer);
        let alias = layout.alias(collective, rank);
        let input = whole.part::<T>(usize::try_from(alias).unwrap_or(0), input_len);
        let output = whole.part::<T>(usize::try_from(-alias).unwrap_or(0), output_len);
        let layout = asked.layout.in_place(true);
        Ok(self.call::<T>(Asked { layout, ..asked }, input, output))
    }

    fn call<T: Element>(&self, asked: Asked, input: Run, output: Run) -> Call<'static> {
        let Asked { collective, op, layout, .. } = asked;
        let mut algorithm = self.algorithm.get();
        if collective == Collective::Barrier && algorithm != 0 {
            // An algorithm that was set for other calls does not keep one from a barrier.
            let name = schedule::NAMES[algorithm as usize - 1];
            algorithm *= u32::from(schedule::names(collective).contains(&name));
        }
        let (is_uniform, data_type) = (layout.is_uniform(), T::DATA_TYPE);
        let descriptor = Descriptor {
            collective,
            data_type,
            op,
            operator: None,
            count: if is_uniform { layout.count(0) } else { layout.total() },
            root: layout.root(),
            in_place: layout.is_in_place(),
            algorithm,
            program: if is_uniform { 0 } else { descriptor::counts(&layout) },
            is_varying: !is_uniform,
        };
        let layout = (!is_uniform).then_some(layout);
        Call { lane: COLLECTIVES, descriptor, layout, verified: None, operator: None, input, output }
    }

    /// All ranks with the same count.
    fn uniform(&self, count: usize) -> Layout {
        Layout::uniform(self.world_size(), count)
    }

    /// Whether the algorithm that was set exists for this collective, of a call that says something to others first.
    fn check_algorithm<T: Element>(&self, collective: Collective) -> Result<()> {
        let (nothing, algorithm) = (self.uniform(0), self.algorithm.get());
        let limits = self.transport().limits();
        let request = request(collective, T::DATA_TYPE, None, &nothing, Access::Direct, algorithm, limits);
        schedule::select::choose(&request).map(drop)
    }

    fn asker<'a>(&self, name: &'a str) -> Asker<'a> {
        Asker { name, rank: self.rank(), world: self.world_size() }
    }

    /// The root, if there is such a rank.
    fn checked_root(&self, name: &str, root: usize) -> Result<usize> {
        self.asker(name).checked_root(root)
    }

    /// One of the world's equal parts of `all` elements.
    fn part_of(&self, name: &str, all: usize) -> Result<usize> {
        self.asker(name).part_of(all)
    }

    #[cold]
    fn refuse_lengths<T>(
        &self,
        asked: &Asked,
        sent: usize,
        received: usize,
        (input, output): (usize, usize),
    ) -> Result<T> {
        let Asked { name, collective, ref layout, .. } = *asked;
        let (asker, world) = (self.asker(name), self.world_size());
        if !layout.is_uniform() {
            return asker.refuse(format_args!(
                "send has {sent} elements and recv {received}; by the counts they must have {input} and {output}"
            ));
        }
        asker.refuse_lengths(
            sent,
            received,
            match collective {
                Collective::ReduceScatter | Collective::Scatter => (world, 1),
                Collective::AllGather | Collective::Gather => (1, world),
                _ => (1, 1),
            },
        )
    }
}
