// SPDX-License-Identifier: MPL-2.0
//! What a launcher says to a rank in its environment.
//!
//! | launcher | rank, world size | rank and world size on this host |
//! |---|---|---|
//! | `annulus launch`, torchrun | `RANK` `WORLD_SIZE` | `LOCAL_RANK` `LOCAL_WORLD_SIZE` |
//! | Open MPI | `OMPI_COMM_WORLD_RANK` `.._SIZE` | `OMPI_COMM_WORLD_LOCAL_RANK` `.._LOCAL_SIZE` |
//! | MPICH, Intel MPI | `PMI_RANK` `PMI_SIZE` | `MPI_LOCALRANKID` `MPI_LOCALNRANKS` |
//! | srun | `SLURM_PROCID` `SLURM_NTASKS` | `SLURM_LOCALID`, and `SLURM_STEP_NUM_NODES` should be 1 |
//!
//! Slurm tells batch scripts and shells the same, without a step (`SLURM_STEP_ID`) or in one of one task: those are no ranks
//! to commands that may or may not be started as one ([`Environment::is_rank`]).
//!
//! The first row of which either the rank or the world size is set speaks alone. `MASTER_ADDR` and `MASTER_PORT` are
//! part of the name at which ranks meet, in every row; nothing ever connects to them, and the port is never bound
//! (torchrun's own store listens there). So is the job: the first that is set of `ANNULUS_JOB`; `TORCHELASTIC_RUN_ID`
//! with `TORCHELASTIC_RESTART_COUNT`; `PMIX_NAMESPACE`; `SLURM_JOB_ID` with `SLURM_STEP_ID`.

use std::fmt;

use crate::error::{Error, Result};
use crate::transport::MOST_RANKS;

/// Who this process is, by its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The rank, less than `world_size`.
    pub rank: usize,
    /// The number of ranks, at least one; all of them are on this host.
    pub world_size: usize,
    /// The number of this process on its host. The rank, where the launcher does not say.
    pub local_rank: usize,
    /// `MASTER_ADDR` as it is written, or nothing.
    pub master_addr: String,
    /// `MASTER_PORT`, if set.
    pub master_port: Option<u16>,
    /// What tells this job from others that may run at the same time, if the environment says it.
    pub job: Option<String>,
}

/// The variables of one kind of launcher.
struct Family {
    rank: &'static str,
    world_size: &'static str,
    local_rank: &'static str,
    local_world_size: Option<&'static str>,
    hosts: Option<&'static str>,
    /// What is set of ranks alone, where the others may be set of what starts them too.
    step: Option<&'static str>,
}

const FAMILIES: [Family; 4] = [
    Family {
        rank: "RANK",
        world_size: "WORLD_SIZE",
        local_rank: "LOCAL_RANK",
        local_world_size: Some("LOCAL_WORLD_SIZE"),
        hosts: None,
        step: None,
    },
    Family {
        rank: "OMPI_COMM_WORLD_RANK",
        world_size: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        local_world_size: Some("OMPI_COMM_WORLD_LOCAL_SIZE"),
        hosts: None,
        step: None,
    },
    Family {
        rank: "PMI_RANK",
        world_size: "PMI_SIZE",
        local_rank: "MPI_LOCALRANKID",
        local_world_size: Some("MPI_LOCALNRANKS"),
        hosts: None,
        step: None,
    },
    Family {
        rank: "SLURM_PROCID",
        world_size: "SLURM_NTASKS",
        local_rank: "SLURM_LOCALID",
        local_world_size: None,
        hosts: Some("SLURM_STEP_NUM_NODES"),
        step: Some("SLURM_STEP_ID"),
    },
];

impl Environment {
    /// Whether a launcher has started this process as a rank, to go by its environment: whether [`Environment::read`] is
    /// what a command goes by that can do without. A process that Slurm alone has started is one only in a step of
    /// several tasks.
    pub fn is_rank() -> bool {
        is_rank(variable)
    }

    /// Reads this process's environment.
    ///
    /// # Errors
    ///
    /// As [`Environment::parse`].
    pub fn read() -> Result<Environment> {
        Environment::parse(variable)
    }

    /// Reads an environment given as a function from names to values.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`], one sentence that names the variable, its value and what would be right, also where
    /// nothing is set; [`Error::Unsupported`] where the ranks are spread over several hosts.
    pub fn parse(lookup: impl Fn(&str) -> Option<String>) -> Result<Environment> {
        let number = |name| number(&lookup, name);
        let Some(family) = family(&lookup) else {
            return Err(Error::invalid(
                "this process was not started as a rank (RANK and WORLD_SIZE are not set): start it with \
                 `annulus launch -n 4 -- PROGRAM`, torchrun, mpirun or srun",
            ));
        };
        let &Family { rank: rank_name, world_size: world_name, local_rank: local_name, .. } = family;
        let partner = |set: &str, value: usize, missing: &str| {
            Error::invalid(format!("{set}={value} is set but {missing} is not: set both, or start with a launcher"))
        };
        let (rank, world_size) = match (number(rank_name)?, number(world_name)?) {
            (Some(rank), Some(world_size)) => (rank, world_size),
            (Some(rank), None) => return Err(partner(rank_name, rank, world_name)),
            (None, Some(world_size)) => return Err(partner(world_name, world_size, rank_name)),
            (None, None) => return Err(Error::invalid(format!("{rank_name} vanished while it was read"))),
        };
        if world_size == 0 || world_size > MOST_RANKS {
            return Err(Error::invalid(format!("{world_name}={world_size} should be between 1 and {MOST_RANKS}")));
        }
        if rank >= world_size {
            return Err(Error::invalid(format!(
                "{rank_name}={rank} is out of range for {world_name}={world_size}: ranks count from 0 to {}",
                world_size - 1
            )));
        }
        if let Some(local_size_name) = family.local_world_size
            && let Some(local_size) = number(local_size_name)?
            && local_size != world_size
        {
            let what = format!("{local_size_name}={local_size} and {world_name}={world_size}");
            return Err(if local_size < world_size && local_size > 0 {
                Error::unsupported(format!(
                    "{what}: these ranks are on several hosts, and Annulus connects those of one"
                ))
            } else {
                Error::invalid(format!("{what}: they should be equal, since all ranks are on one host"))
            });
        }
        if let Some(hosts_name) = family.hosts
            && let Some(hosts) = number(hosts_name)?.filter(|&hosts| hosts > 1)
        {
            return Err(Error::unsupported(format!(
                "{hosts_name}={hosts}: these ranks are on several hosts, and Annulus connects those of one"
            )));
        }
        let local_rank = number(local_name)?.unwrap_or(rank);
        if local_rank >= world_size {
            return Err(Error::invalid(format!(
                "{local_name}={local_rank} is out of range for {world_size} ranks on this host: they count from 0 to \
                 {}",
                world_size - 1
            )));
        }
        let master_port = match number("MASTER_PORT")? {
            None => None,
            Some(port) => Some(u16::try_from(port).ok().filter(|&port| port > 0).ok_or_else(|| {
                Error::invalid(format!("MASTER_PORT={port} should be a port number between 1 and 65535"))
            })?),
        };
        let master_addr = lookup("MASTER_ADDR").unwrap_or_default();
        Ok(Environment { rank, world_size, local_rank, master_addr, master_port, job: job(&lookup) })
    }
}

impl fmt::Display for Environment {
    /// What the ranks of a world must have in common, for error sentences.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.master_port.map_or(String::new(), |port| port.to_string());
        let job = self.job.as_deref().unwrap_or("of the parent process");
        write!(f, "MASTER_ADDR={}, MASTER_PORT={port}, job {job}", self.master_addr)
    }
}

/// A variable of this process. What is not Unicode is no number either, and is refused as such, by name.
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The kind of launcher that speaks.
fn family(lookup: &impl Fn(&str) -> Option<String>) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| lookup(family.rank).is_some() || lookup(family.world_size).is_some())
}

fn is_rank(lookup: impl Fn(&str) -> Option<String>) -> bool {
    let is_alone = |family: &Family| lookup(family.world_size).is_some_and(|ranks| ranks.trim() == "1");
    let starts = |family: &Family| family.step.is_some_and(|step| lookup(step).is_none() || is_alone(family));
    family(&lookup).is_some_and(|family| !starts(family))
}

/// The non-negative number that a variable holds, if it is set.
fn number(lookup: &impl Fn(&str) -> Option<String>, name: &str) -> Result<Option<usize>> {
    let Some(value) = lookup(name) else { return Ok(None) };
    let number = value.trim().parse().ok();
    number.map(Some).ok_or_else(|| Error::invalid(format!("{name}={value:?} should be a number from 0 up")))
}

/// The job by what its launcher calls it. Different kinds of names never coincide.
fn job(lookup: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let both = |first, second| Some((lookup(first)?, lookup(second)));
    let pair = |kind: &str, (first, second): (String, Option<String>)| match second {
        Some(second) => format!("{kind} {first} {second}"),
        None => format!("{kind} {first}"),
    };
    None.or_else(|| lookup("ANNULUS_JOB").map(|job| format!("annulus {job}")))
        .or_else(|| both("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT").map(|ids| pair("torchelastic", ids)))
        .or_else(|| lookup("PMIX_NAMESPACE").map(|job| format!("pmix {job}")))
        .or_else(|| both("SLURM_JOB_ID", "SLURM_STEP_ID").map(|ids| pair("slurm", ids)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Variables given as `A=1 B=2`.
    fn among(variables: &str) -> impl Fn(&str) -> Option<String> {
        |name| {
            let mut pairs = variables.split(' ').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        }
    }

    fn parse(variables: &str) -> Result<Environment> {
        Environment::parse(among(variables))
    }

    /// Rank, world size and local rank.
    fn place(variables: &str) -> (usize, usize, usize) {
        let environment = parse(variables).unwrap();
        (environment.rank, environment.world_size, environment.local_rank)
    }

    #[test]
    fn every_launcher_is_understood() {
        assert_eq!(place("RANK=1 WORLD_SIZE=4 LOCAL_RANK=3 LOCAL_WORLD_SIZE=4"), (1, 4, 3));
        assert_eq!(place("RANK=1 WORLD_SIZE=4"), (1, 4, 1));
        assert_eq!(
            place(
                "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=3 OMPI_COMM_WORLD_LOCAL_RANK=0 \
                 OMPI_COMM_WORLD_LOCAL_SIZE=3"
            ),
            (2, 3, 0)
        );
        assert_eq!(place("PMI_RANK=2 PMI_SIZE=3 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=3"), (2, 3, 1));
        assert_eq!(place("SLURM_PROCID=2 SLURM_NTASKS=3 SLURM_LOCALID=1 SLURM_STEP_NUM_NODES=1"), (2, 3, 1));
        assert_eq!(
            place("RANK=0 WORLD_SIZE=1 SLURM_PROCID=2 SLURM_NTASKS=3"),
            (0, 1, 0),
            "the first kind speaks alone"
        );
    }

    #[test]
    fn ranks_are_told_from_what_starts_them() {
        for (variables, expected) in [
            ("", false),
            ("MASTER_PORT=29500", false),
            ("WORLD_SIZE=4", true),
            ("RANK=0 WORLD_SIZE=1", true),
            ("OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1", true),
            ("PMI_SIZE=2", true),
            ("SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_JOB_ID=7 SLURM_STEP_ID=0", true),
            ("SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_JOB_ID=7", false),
            ("SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_JOB_ID=7 SLURM_STEP_ID=0", false),
            ("RANK=0 WORLD_SIZE=1 SLURM_PROCID=0 SLURM_NTASKS=4", true),
        ] {
            assert_eq!(is_rank(among(variables)), expected, "{variables}");
        }
    }

    #[test]
    fn the_meeting_place_is_read() {
        let environment = parse("RANK=0 WORLD_SIZE=1 MASTER_ADDR=node-3 MASTER_PORT=29500").unwrap();
        assert_eq!((environment.master_addr.as_str(), environment.master_port), ("node-3", Some(29500)));
        let environment = parse("RANK=0 WORLD_SIZE=1").unwrap();
        assert_eq!((environment.master_addr.as_str(), environment.master_port), ("", None));
    }

    #[test]
    fn the_job_is_what_the_innermost_launcher_calls_it() {
        let job = |variables: &str| parse(&format!("RANK=0 WORLD_SIZE=1 {variables}")).unwrap().job;
        let all = "SLURM_JOB_ID=7 SLURM_STEP_ID=0 PMIX_NAMESPACE=p TORCHELASTIC_RUN_ID=t TORCHELASTIC_RESTART_COUNT=2";
        assert_eq!(job(&format!("{all} ANNULUS_JOB=a")).as_deref(), Some("annulus a"));
        assert_eq!(job(all).as_deref(), Some("torchelastic t 2"));
        assert_eq!(job("SLURM_JOB_ID=7 SLURM_STEP_ID=0 PMIX_NAMESPACE=p").as_deref(), Some("pmix p"));
        assert_eq!(job("SLURM_JOB_ID=7 SLURM_STEP_ID=0").as_deref(), Some("slurm 7 0"));
        assert_eq!(job("SLURM_JOB_ID=7").as_deref(), Some("slurm 7"));
        assert_eq!(job("SLURM_STEP_ID=7"), None);
    }

    #[test]
    fn each_mistake_gets_a_sentence_that_names_it() {
        for (variables, named) in [
            ("", "`annulus launch -n 4 -- PROGRAM`, torchrun, mpirun or srun"),
            ("RANK=7 WORLD_SIZE=4", "RANK=7 is out of range for WORLD_SIZE=4: ranks count from 0 to 3"),
            ("RANK=4 WORLD_SIZE=4", "ranks count from 0 to 3"),
            ("RANK=0 WORLD_SIZE=0", "WORLD_SIZE=0 should be between 1 and"),
            ("RANK=0 WORLD_SIZE=5000", "WORLD_SIZE=5000 should be between 1 and"),
            ("RANK=one WORLD_SIZE=4", "RANK=\"one\" should be a number"),
            ("RANK= WORLD_SIZE=4", "RANK=\"\" should be a number"),
            ("RANK=-1 WORLD_SIZE=4", "RANK=\"-1\" should be a number"),
            ("RANK=0 WORLD_SIZE=99999999999999999999", "WORLD_SIZE=\"99999999999999999999\" should be"),
            ("RANK=3", "RANK=3 is set but WORLD_SIZE is not"),
            ("WORLD_SIZE=3", "WORLD_SIZE=3 is set but RANK is not"),
            ("SLURM_NTASKS=3", "SLURM_NTASKS=3 is set but SLURM_PROCID is not"),
            ("RANK=0 OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2", "RANK=0 is set but WORLD_SIZE is not"),
            ("RANK=0 WORLD_SIZE=4 LOCAL_WORLD_SIZE=8", "LOCAL_WORLD_SIZE=8 and WORLD_SIZE=4: they should be equal"),
            ("RANK=0 WORLD_SIZE=4 LOCAL_WORLD_SIZE=0", "LOCAL_WORLD_SIZE=0 and WORLD_SIZE=4: they should be equal"),
            ("RANK=0 WORLD_SIZE=4 LOCAL_RANK=4", "LOCAL_RANK=4 is out of range"),
            ("RANK=0 WORLD_SIZE=4 LOCAL_RANK=x", "LOCAL_RANK=\"x\" should be a number"),
            ("RANK=0 WORLD_SIZE=4 MASTER_PORT=http", "MASTER_PORT=\"http\" should be a number"),
            ("RANK=0 WORLD_SIZE=4 MASTER_PORT=0", "MASTER_PORT=0 should be a port number"),
            ("RANK=0 WORLD_SIZE=4 MASTER_PORT=65536", "MASTER_PORT=65536 should be a port number"),
        ] {
            let error = parse(variables).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)), "{variables}: {error}");
            assert!(error.to_string().contains(named), "{variables}: {error}");
        }
    }

    #[test]
    fn several_hosts_are_refused() {
        for (variables, named) in [
            ("RANK=0 WORLD_SIZE=4 LOCAL_WORLD_SIZE=2", "LOCAL_WORLD_SIZE=2 and WORLD_SIZE=4"),
            ("PMI_RANK=0 PMI_SIZE=4 MPI_LOCALNRANKS=1", "MPI_LOCALNRANKS=1 and PMI_SIZE=4"),
            ("SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_STEP_NUM_NODES=2", "SLURM_STEP_NUM_NODES=2"),
        ] {
            let error = parse(variables).unwrap_err();
            assert!(matches!(error, Error::Unsupported(_)), "{variables}: {error}");
            assert!(error.to_string().contains(named), "{variables}: {error}");
        }
    }
}
