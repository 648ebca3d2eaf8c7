// SPDX-License-Identifier: MPL-2.0
//! What `annulus tune` measures: the numbers of a [`Table`].
//!
//! | number | measured as |
//! |---|---|
//! | `always` | the largest size up to which an all-reduce on allocated memory is no slower one-shot than direct |
//! | `inline` | the same on plain memory, one-shot against staged |
//! | `alpha_ns` | a barrier, which is one round |
//! | `gb_s` | what a direct all-reduce of allocated memory moves in the time that its rounds leave |
//! | `took` | every collective by the algorithm that is chosen, in and out of place, on either memory |

use std::ops::ControlFlow;
use std::path::Path;

use super::{Measurement, Memory, Modes, Sweep};
use crate::communicator::Communicator;
use crate::error::Result;
use crate::file;
use crate::schedule::cost::{Machine, cost};
use crate::schedule::table::{MOST_INLINE, Table, Took};
use crate::schedule::{Access, Collective, Layout, named};

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// The largest size that calls are measured of, in bytes.
    pub end: usize,
    /// Timed calls of each size; `None`: as many as a [`Sweep`] makes.
    pub iterations: Option<usize>,
}

impl Tuning {
    /// Measures, together with all other ranks, which are processes. `note` is told on rank 0 what is being measured, and
    /// rank 0's table is the one that counts.
    ///
    /// # Errors
    ///
    /// The failures of every collective.
    pub fn run(&self, comm: &Communicator, mut note: impl FnMut(&str)) -> Result<Table> {
        let mut say = |what: &str| {
            if comm.rank() == 0 {
                note(what);
            }
        };
        say("where algorithms give way to one another");
        let always = self.crossing(comm, Memory::Allocated, "direct")?.max(64);
        let inline = self.crossing(comm, Memory::Plain, "staged")?.max(always);
        say("rounds and bandwidth");
        let machine = self.machine(comm)?;
        let mut took = Vec::new();
        for collective in Collective::ALL.into_iter().filter(|collective| *collective != Collective::Barrier) {
            say(collective.name());
            for memory in Memory::ALL {
                let sweep = Sweep { memory, end: self.end, factor: 8, ..self.sweep(collective) };
                took.extend(measured(comm, &sweep)?.into_iter().map(|one| Took {
                    collective,
                    algorithm: one.algorithm,
                    transport: one.transport,
                    allocated: memory == Memory::Allocated,
                    in_place: one.in_place,
                    ranks: one.ranks,
                    bytes: one.bytes,
                    time_us: one.time_us.max(0.001),
                }));
            }
        }
        Ok(Table { always, inline, machine, took })
    }

    fn sweep(&self, collective: Collective) -> Sweep {
        Sweep { iterations: self.iterations, checked: false, ..Sweep::new(collective) }
    }

    /// The largest size up to which `one_shot` is no slower than the other.
    fn crossing(&self, comm: &Communicator, memory: Memory, other: &str) -> Result<usize> {
        let sweep = Sweep {
            memory,
            modes: Modes::InPlace,
            begin: 64,
            // What the record holds of each of these ranks' contributions to a fold.
            end: (2 * MOST_INLINE / comm.world_size()).clamp(MOST_INLINE / 4, MOST_INLINE),
            ..self.sweep(Collective::AllReduce)
        };
        let by = |algorithm: &str| measured(comm, &Sweep { algorithm: Some(algorithm.into()), ..sweep.clone() });
        let (one_shot, other) = (by("one_shot")?, by(other)?);
        let quicker = one_shot.iter().zip(&other).take_while(|(one_shot, other)| one_shot.time_us <= other.time_us);
        Ok(quicker.last().map_or(0, |(one_shot, _)| one_shot.bytes))
    }

    fn machine(&self, comm: &Communicator) -> Result<Machine> {
        const BYTES: usize = 1 << 20;
        let time = |sweep: Sweep| -> Result<f64> {
            Ok(measured(comm, &sweep)?.first().map_or(0.0, |one| one.time_us.max(0.001) * 1e-6))
        };
        let alpha = time(self.sweep(Collective::Barrier))?;
        let call = Sweep {
            memory: Memory::Allocated,
            modes: Modes::InPlace,
            begin: BYTES,
            end: BYTES,
            algorithm: Some("direct".into()),
            ..self.sweep(Collective::AllReduce)
        };
        let seconds = time(call)?;
        let layout = Layout::uniform(comm.world_size(), BYTES / 4).in_place(true);
        let unit = Machine { alpha: 0.0, beta: 1.0 };
        let Some(direct) = named(Collective::AllReduce, "direct", Access::Direct, None) else {
            return Ok(Machine::TYPICAL);
        };
        let moved = cost(&*direct, &layout, 4, unit);
        let rest = (seconds - moved.rounds as f64 * alpha).max(seconds / 10.0);
        // Only rank 0 has measured anything; the others' is not used.
        let beta = if rest > 0.0 { rest / moved.time.as_secs_f64() } else { Machine::TYPICAL.beta };
        Ok(Machine { alpha: if alpha > 0.0 { alpha } else { Machine::TYPICAL.alpha }, beta })
    }
}

impl Tuning {
    /// Whether a table could be written there, as far as can be seen.
    ///
    /// # Errors
    ///
    /// A sentence that names the file.
    pub fn check_file(path: &Path) -> Result<()> {
        file::check_writable("table", path)
    }

    /// Writes a table, with what it is of, whole or not at all.
    ///
    /// # Errors
    ///
    /// `System` if the file cannot be written.
    pub fn write(path: &Path, of: &super::Machine, table: &Table) -> Result<()> {
        file::write_whole("table", path, format!("# {of}\n{table}").as_bytes())
    }
}

/// What a sweep measures, on rank 0.
fn measured(comm: &Communicator, sweep: &Sweep) -> Result<Vec<Measurement>> {
    let mut all = Vec::new();
    sweep.run(comm, |modes| {
        all.extend_from_slice(modes);
        ControlFlow::Continue(())
    })?;
    Ok(all)
}
