// SPDX-License-Identifier: MPL-2.0
//! What a call would run, and why, without making it.

use std::fmt;
use std::time::Duration;

use super::Communicator;
use super::plan::request;
use crate::element::{DataType, ReduceOp};
use crate::error::Result;
use crate::schedule::cost::{Cost, cost};
use crate::schedule::table::{Table, Took, VARIABLE};
use crate::schedule::{Access, Collective, Entry, Layout, select};
use crate::transport::{Limits, shm};

/// A call to be explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// What would be called.
    pub collective: Collective,
    /// On which elements.
    pub data_type: DataType,
    /// With which operation, if it folds.
    pub op: Option<ReduceOp>,
    /// How many, as the call counts them.
    pub count: usize,
    /// In place or not.
    pub in_place: bool,
    /// Whether all ranks' buffers come from [`Communicator::allocate`]. Among threads any memory is as good.
    pub allocated: bool,
}

/// What would run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The algorithm, by name.
    pub algorithm: String,
    /// What it reaches of other ranks.
    pub access: Access,
    /// How it runs: `schedule`, as all calls on host memory do.
    pub path: &'static str,
    /// Why this algorithm.
    pub reason: String,
    /// What the alpha-beta model predicts for the rank with most to do.
    pub cost: Cost,
    /// What the prediction takes for granted.
    pub assumption: String,
    /// What a call of about this size took when `annulus tune` measured it, and of which size that was, if the table of the
    /// machine says so.
    pub measured: Option<(Duration, usize)>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { algorithm, path, reason, cost, assumption, measured, .. } = self;
        writeln!(f, "{algorithm} ({path}): {reason}")?;
        writeln!(f, "{} rounds; a rank {}; about {:?}, {assumption}", cost.rounds, cost.moved, cost.time)?;
        match measured {
            Some((time, bytes)) => write!(f, "measured: {time:?} for {bytes} bytes"),
            None => write!(f, "not measured: `annulus tune` makes the table that {VARIABLE} names"),
        }
    }
}

/// What the table of this machine says rides along with the entry.
pub(super) fn limits() -> Result<Limits> {
    Table::of_machine().map(|table| limits_of(&table))
}

fn limits_of(table: &Table) -> Limits {
    Limits { always: table.always, inline: table.inline }
}

impl Communicator {
    /// What a call would run here, why, and what the model predicts.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the algorithm that was set cannot run it, or the operation does not apply to the type.
    ///
    /// ```
    /// use annulus::communicator::Question;
    /// use annulus::schedule::Collective;
    /// use annulus::{DataType, ReduceOp, run};
    ///
    /// run(2, |comm| {
    ///     let explanation = comm.explain(&Question {
    ///         collective: Collective::AllReduce,
    ///         data_type: DataType::F32,
    ///         op: Some(ReduceOp::Sum),
    ///         count: 1 << 20,
    ///         in_place: true,
    ///         allocated: false,
    ///     })?;
    ///     assert_eq!(explanation.algorithm, "direct");
    ///     Ok(())
    /// })?;
    /// # Ok::<(), annulus::Error>(())
    /// ```
    pub fn explain(&self, question: &Question) -> Result<Explanation> {
        let (ranks, transport) = (self.world_size(), self.transport_kind());
        let private = if self.transport().reads() { Access::Read } else { Access::Staged };
        let limits = self.transport().limits();
        question.explain(&Table::of_machine()?, ranks, (transport, private), limits, self.algorithm.get())
    }
}

impl Question {
    /// What the call would run among so many ranks, which are threads or processes of this machine: what
    /// [`Communicator::explain`] says, without a communicator.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the operation does not apply to the type or the table of the machine is none, `System` if that
    /// cannot be read.
    pub fn among(&self, ranks: usize, processes: bool) -> Result<Explanation> {
        let table = Table::of_machine()?;
        let private = if shm::may_read() { Access::Read } else { Access::Staged };
        let transport = if processes { "processes" } else { "threads" };
        self.explain(&table, ranks.max(1), (transport, private), limits_of(&table), 0)
    }

    fn explain(
        &self,
        table: &Table,
        ranks: usize,
        (transport, private): (&str, Access),
        limits: Limits,
        algorithm: u32,
    ) -> Result<Explanation> {
        let Question { collective, data_type, op, count, in_place, allocated } = *self;
        op.map_or(Ok(()), |op| op.check(data_type))?;
        let layout = Layout::uniform(ranks, count).in_place(in_place);
        let access = match allocated || transport == "threads" || ranks == 1 {
            true => Access::Direct,
            false => private,
        };
        let schedule = select::choose(&request(collective, data_type, op, &layout, access, algorithm, limits))?;
        let reason = if algorithm != 0 {
            "it was asked for by name".to_owned()
        } else if collective == Collective::Barrier {
            "entering is all there is to do".to_owned()
        } else if schedule.entry() == Entry::Carries {
            "a rank's contribution is small enough to ride along with the entry".to_owned()
        } else {
            let reason = match access.max(schedule.access()) {
                Access::Direct => "all ranks' buffers can be addressed by all",
                Access::Read => {
                    "plain memory of processes is read by peers, copy by copy; Communicator::allocate avoids that"
                }
                Access::Staged => {
                    "plain memory of processes passes through shared slots; Communicator::allocate avoids that"
                }
            };
            reason.to_owned()
        };
        let elements = if collective.has_parts() { layout.total() } else { count };
        let like = Took {
            collective,
            algorithm: schedule.name().to_owned(),
            transport: transport.to_owned(),
            allocated,
            in_place,
            ranks,
            bytes: elements.saturating_mul(data_type.size()),
            time_us: 0.0,
        };
        let measured = table.nearest(&like).map(|took| (Duration::from_secs_f64(took.time_us * 1e-6), took.bytes));
        Ok(Explanation {
            measured,
            algorithm: schedule.name().to_owned(),
            access: schedule.access(),
            path: "schedule",
            reason,
            cost: cost(&*schedule, &layout, data_type.size(), table.machine),
            assumption: format!(
                "if all ranks arrive together, a round takes {:.0} ns and a core moves {:.0} GB/s",
                table.machine.alpha * 1e9,
                1e-9 / table.machine.beta
            ),
        })
    }
}
