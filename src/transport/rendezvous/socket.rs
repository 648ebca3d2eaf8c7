// SPDX-License-Identifier: MPL-2.0
//! The rendezvous by environment: ranks of one user on one host meet at an abstract Unix socket.
//!
//! All ranks compute the same name: a hash of user, `MASTER_ADDR`, `MASTER_PORT` and job. Rank 0 listens there, the
//! others connect. An abstract name is in no file system and ends with the process that holds it, so a job that is
//! started again finds it free. Where the environment names no job, the parent process stands for it: its id and when
//! it started.

use std::time::Instant;

use super::{Environment, Rendezvous};
use crate::error::Result;
use crate::transport::star::{Meeting, Star};

/// A rank among those that have met.
#[derive(Debug)]
pub struct SocketRendezvous {
    environment: Environment,
    star: Star,
}

impl SocketRendezvous {
    /// Meets the other ranks that this process's environment speaks of. Returns when all have come.
    ///
    /// # Errors
    ///
    /// As [`Environment::parse`] and [`SocketRendezvous::meet`].
    pub fn from_env(deadline: Instant) -> Result<SocketRendezvous> {
        SocketRendezvous::meet(Environment::read()?, deadline)
    }

    /// Meets the other ranks of `environment`. Returns when all have come.
    ///
    /// # Errors
    ///
    /// On all ranks that have come: [`Error::Mismatch`](crate::Error::Mismatch) for two processes with one rank,
    /// different world sizes or a rank out of range; [`Error::Timeout`](crate::Error::Timeout), naming those that have
    /// not come by the earliest deadline among the ranks; [`Error::RankLost`](crate::Error::RankLost) for one that came
    /// and ended. On rank 0: [`Error::System`](crate::Error::System) if the name is taken.
    pub fn meet(environment: Environment, deadline: Instant) -> Result<SocketRendezvous> {
        let name = name(rustix::process::geteuid().as_raw(), &environment, parent);
        let meeting = Meeting {
            rank: environment.rank,
            world: environment.world_size,
            name,
            subject: format!("the rendezvous of {} ranks ({environment})", environment.world_size),
            remedy:
                "Ranks meet if they run as one user on one host with equal MASTER_ADDR, MASTER_PORT and job, and no \
                     other job has the same: set MASTER_PORT or ANNULUS_JOB for all of them."
                    .into(),
        };
        let mut star = Star::begin(meeting, deadline)?;
        star.all_gather(&[], &[], deadline)?;
        Ok(SocketRendezvous { environment, star })
    }
}

impl Rendezvous for SocketRendezvous {
    fn rank(&self) -> usize {
        self.environment.rank
    }

    fn world_size(&self) -> usize {
        self.environment.world_size
    }

    fn local_rank(&self) -> usize {
        self.environment.local_rank
    }

    /// As [`Rendezvous::all_gather`], for at most 1 MiB from each rank.
    fn all_gather(&mut self, bytes: &[u8], deadline: Instant) -> Result<Vec<Vec<u8>>> {
        let all = self.star.all_gather(bytes, &[], deadline)?;
        Ok(all.into_iter().map(|contribution| contribution.bytes).collect())
    }
}

/// The name at which the ranks of `environment` meet.
fn name(uid: u32, environment: &Environment, parent: impl FnOnce() -> String) -> Vec<u8> {
    let Environment { master_addr, master_port, job, .. } = environment;
    let uid = uid.to_string();
    let port = master_port.map_or(String::new(), |port| port.to_string());
    let job = job.clone().unwrap_or_else(parent);
    let hash = hash(&[&uid, master_addr, &port, &job]);
    format!("annulus-{uid}-{hash:032x}").into_bytes()
}

/// FNV-1a of 128 bits (Fowler, Noll and Vo). It must be the same in every build of every rank, which the standard
/// library's hashes do not promise; an attacker gains nothing by a collision, since both sides check the user.
fn hash(fields: &[&str]) -> u128 {
    // A zero after each field keeps ("ab", "c") from ("a", "bc"): no environment variable holds one.
    let bytes = fields.iter().flat_map(|field| field.bytes().chain([0]));
    bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// The parent process, by its id and the time when it started, since ids are used again.
fn parent() -> String {
    let pid = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    format!("parent {pid} {}", start_time(&stat).unwrap_or("0"))
}

/// The start time in the text of `/proc/PID/stat`: the 22nd field, of which the second is a name in parentheses that
/// may hold spaces and parentheses itself.
fn start_time(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let set = [("RANK", "1"), ("WORLD_SIZE", "2")];
        Environment::parse(|name| {
            variables.iter().chain(&set).find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        })
        .unwrap()
    }

    #[test]
    fn a_name_differs_with_each_thing_that_it_stands_for() {
        let base: [(&str, &str); 3] = [("MASTER_ADDR", "a"), ("MASTER_PORT", "12"), ("ANNULUS_JOB", "j")];
        let named = |uid, variables: &[(&str, &str)]| {
            String::from_utf8(name(uid, &environment(variables), || "parent 1 2".into())).unwrap()
        };
        let mut names = vec![named(0, &base), named(1, &base), named(0, &base[..2]), named(0, &base[1..])];
        names.push(named(0, &[("MASTER_ADDR", "a1"), ("MASTER_PORT", "2"), ("ANNULUS_JOB", "j")]));
        names.push(named(0, &[("MASTER_ADDR", "a"), ("MASTER_PORT", "12"), ("PMIX_NAMESPACE", "j")]));
        let count = names.len();
        assert!(names.iter().all(|name| name.len() <= 100));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        // The rank is no part of it.
        assert_eq!(named(0, &[("RANK", "0")]), named(0, &[("RANK", "1")]));
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // The offset basis followed by one zero byte is its product with the prime.
        assert_eq!(hash(&[]), 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(hash(&[""]), 0x6c62272e07bb014262b821756295c58d_u128.wrapping_mul((1 << 88) + 0x13b));
    }

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("17 (a) b (c d) {}", fields.join(" "));
        assert_eq!(start_time(&stat), Some("22"));
        assert_eq!(start_time(""), None);
        assert_eq!(start_time("17 (a) S 1"), None);
        assert!(parent().split(' ').nth(2).unwrap().parse::<u64>().unwrap() > 0);
    }
}
