// SPDX-License-Identifier: MPL-2.0
//! Exchange of file descriptors among all ranks, given any rendezvous.
//!
//! A rendezvous moves bytes, and a descriptor is not bytes: only a Unix socket passes it on (SCM_RIGHTS). So rank 0
//! listens at an abstract name that is 128 random bits, the rendezvous carries the name to the others, and one round
//! around that socket carries everybody's descriptors to everybody. Both sides check that the other is of the same
//! user.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::rand::GetRandomFlags;

use crate::error::{Error, Result};
use crate::transport::rendezvous::Rendezvous;
use crate::transport::star::{Meeting, Star};

/// Gives every rank's descriptors to every rank: the result's entry `r` has those that rank `r` passed, in their order;
/// this rank's own come back as duplicates. All are closed on exec. Ranks may pass different numbers, 253 at most.
///
/// # Errors
///
/// What the rendezvous reports; [`Error::Timeout`] naming the ranks that are missing at the deadline;
/// [`Error::RankLost`]; [`Error::System`] where descriptors run out (RLIMIT_NOFILE). A failure on one rank is reported
/// on all that have come.
pub fn exchange(
    rendezvous: &mut dyn Rendezvous,
    own: &[BorrowedFd<'_>],
    deadline: Instant,
) -> Result<Vec<Vec<OwnedFd>>> {
    let (rank, world) = (rendezvous.rank(), rendezvous.world_size());
    let meeting = |name: Vec<u8>| Meeting {
        rank,
        world,
        name,
        subject: format!("the exchange of descriptors among {world} ranks"),
        remedy: "All ranks must run on one host, in one network namespace.".into(),
    };
    // Rank 0 listens before it says where. What it says begins with 1 and is the name, or with 0 and is why there is
    // none.
    let host = (rank == 0).then(|| {
        let name = random_name()?;
        Ok((Star::begin(meeting(name.clone()), deadline)?, name))
    });
    let said = match &host {
        None => Vec::new(),
        Some(Ok((_, name))) => [&[1], &name[..]].concat(),
        Some(Err(error)) => [&[0], Error::to_string(error).as_bytes()].concat(),
    };
    let heard = rendezvous.all_gather(&said, deadline)?;
    let mut star = match (host, heard.first().and_then(|said| said.split_first())) {
        (Some(host), _) => host?.0,
        (None, Some((1, name))) => Star::begin(meeting(name.to_vec()), deadline)?,
        (None, Some((0, sentence))) => {
            return Err(Error::System(format!("rank 0: {}", String::from_utf8_lossy(sentence)).into()));
        }
        (None, _) => {
            let answer = "the rendezvous did not bring what rank 0 passed to it";
            return Err(Error::system(format!("rank {rank} in the exchange of descriptors"), answer));
        }
    };
    let all = star.all_gather(&[], own, deadline)?;
    Ok(all.into_iter().map(|contribution| contribution.descriptors).collect())
}

fn random_name() -> Result<Vec<u8>> {
    let mut random = [0_u8; 16];
    rustix::rand::getrandom(&mut random, GetRandomFlags::empty())
        .map_err(|errno| Error::system("asking for random bytes", errno))?;
    Ok(format!("annulus-{:032x}", u128::from_ne_bytes(random)).into_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::sync::{Barrier, Mutex};
    use std::time::Duration;

    use super::*;

    /// A rendezvous of threads.
    struct Threads<'a> {
        rank: usize,
        barrier: &'a Barrier,
        said: &'a Mutex<Vec<Vec<u8>>>,
    }

    impl Rendezvous for Threads<'_> {
        fn rank(&self) -> usize {
            self.rank
        }

        fn world_size(&self) -> usize {
            self.said.lock().unwrap().len()
        }

        fn local_rank(&self) -> usize {
            self.rank
        }

        fn all_gather(&mut self, bytes: &[u8], _: Instant) -> Result<Vec<Vec<u8>>> {
            self.said.lock().unwrap()[self.rank] = bytes.to_vec();
            self.barrier.wait();
            Ok(self.said.lock().unwrap().clone())
        }
    }

    /// What `act` returns on each rank of a world.
    fn on_ranks<T: Send>(world: usize, act: impl Fn(&mut dyn Rendezvous) -> T + Sync) -> Vec<T> {
        let (barrier, said) = (Barrier::new(world), Mutex::new(vec![Vec::new(); world]));
        std::thread::scope(|threads| {
            let ranks: Vec<_> = (0..world)
                .map(|rank| {
                    let mut rendezvous = Threads { rank, barrier: &barrier, said: &said };
                    let act = &act;
                    threads.spawn(move || act(&mut rendezvous))
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Which file is behind a descriptor.
    fn identity(descriptor: impl AsFd) -> (u64, u64) {
        let stat = rustix::fs::fstat(descriptor).unwrap();
        (stat.st_dev, stat.st_ino)
    }

    fn memfd() -> OwnedFd {
        rustix::fs::memfd_create("annulus-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn everyone_gets_everyones_descriptors_in_order() {
        for world in [1, 2, 5, 16] {
            // Rank r passes r of them, at most three.
            let results = on_ranks(world, |rendezvous| {
                let own: Vec<OwnedFd> = (0..rendezvous.rank().min(3)).map(|_| memfd()).collect();
                let own_fds: Vec<BorrowedFd<'_>> = own.iter().map(AsFd::as_fd).collect();
                let all = exchange(rendezvous, &own_fds, late()).unwrap();
                (own, all)
            });
            let sent: Vec<Vec<_>> = results.iter().map(|(own, _)| own.iter().map(identity).collect()).collect();
            for (_, all) in &results {
                let got: Vec<Vec<_>> = all.iter().map(|of_rank| of_rank.iter().map(identity).collect()).collect();
                assert_eq!(got, sent);
                for descriptor in all.iter().flatten() {
                    let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
                    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
                }
            }
        }
    }

    #[test]
    fn as_many_pass_as_a_message_holds_and_no_more() {
        let null = File::open("/dev/null").unwrap();
        let results = on_ranks(2, |rendezvous| {
            let many = vec![null.as_fd(); if rendezvous.rank() == 1 { 253 } else { 1 }];
            exchange(rendezvous, &many, late()).map(|all| all.iter().map(Vec::len).collect::<Vec<_>>())
        });
        assert_eq!(results, [Ok(vec![1, 253]), Ok(vec![1, 253])]);
        let results = on_ranks(1, |rendezvous| exchange(rendezvous, &vec![null.as_fd(); 254], late()).map(drop));
        assert!(matches!(results[0], Err(Error::InvalidArgument(_))));
    }

    #[test]
    fn a_rank_that_stays_away_is_named() {
        let results = on_ranks(3, |rendezvous| {
            let deadline = Instant::now() + Duration::from_millis(500);
            if rendezvous.rank() == 2 {
                return rendezvous.all_gather(&[], deadline).map(drop);
            }
            exchange(rendezvous, &[], deadline).map(drop)
        });
        for result in &results[..2] {
            assert!(matches!(result, Err(Error::Timeout { missing, .. }) if missing == &[2]), "{result:?}");
        }
    }

    #[test]
    fn a_rendezvous_that_brings_nonsense_is_an_error() {
        /// Rank 1 of a world whose rank 0 says this.
        struct Heard(&'static [u8]);
        impl Rendezvous for Heard {
            fn rank(&self) -> usize {
                1
            }
            fn world_size(&self) -> usize {
                2
            }
            fn local_rank(&self) -> usize {
                1
            }
            fn all_gather(&mut self, _: &[u8], _: Instant) -> Result<Vec<Vec<u8>>> {
                Ok(vec![self.0.to_vec(), Vec::new()])
            }
        }
        for said in [&b""[..], &[7, 7], &[0, b'n', b'o'], &[1; 200]] {
            let error = exchange(&mut Heard(said), &[], late()).unwrap_err();
            assert!(matches!(error, Error::System(_)), "{error}");
        }
    }
}
