// SPDX-License-Identifier: MPL-2.0
//! What a star promises, held against ranks that are threads and strangers that say anything.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rustix::io::Errno;

use super::connection::{Connection, Incoming, Listener};
use super::packet::{LARGEST, Packet, VERSION};
use super::*;
use crate::error::Cause;

/// Longer than any of these tests takes: what ends at this deadline has failed.
fn late() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(500)
}

fn name() -> Vec<u8> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // ORDERING: only that each number is given once matters, which any read-modify-write ensures.
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("annulus-test-{}-{next}", std::process::id()).into_bytes()
}

fn meeting(name: &[u8], rank: usize, world: usize) -> Meeting {
    let (subject, remedy) = ("the test".into(), "Do something.".into());
    Meeting { rank, world, name: name.to_vec(), subject, remedy }
}

fn star(name: &[u8], rank: usize, world: usize, deadline: Instant) -> Result<Star> {
    Star::begin(meeting(name, rank, world), deadline)
}

/// One round in which nobody has anything to say.
fn meet(name: &[u8], rank: usize, world: usize, deadline: Instant) -> Result<Star> {
    let mut star = star(name, rank, world, deadline)?;
    star.all_gather(&[], &[], deadline)?;
    Ok(star)
}

/// What each of these `(rank, world)` gets from meeting.
fn meet_all(ranks: &[(usize, usize)], deadline: Instant) -> Vec<Result<()>> {
    let name = name();
    thread::scope(|threads| {
        let threads: Vec<_> = ranks
            .iter()
            .map(|&(rank, world)| {
                threads.spawn({
                    let name = &name;
                    move || meet(name, rank, world, deadline).map(drop)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn hello(rank: u32, world: u32) -> Packet {
    Packet::Hello { version: VERSION, rank, world, process: 77, patience: 60_000 }
}

/// Connects as soon as rank 0 listens.
fn knock(name: &[u8]) -> Connection {
    loop {
        match Connection::connect(name) {
            Ok(connection) => return connection,
            Err(Errno::CONNREFUSED | Errno::AGAIN) => thread::yield_now(),
            Err(errno) => panic!("{errno}"),
        }
    }
}

#[test]
fn everyone_gets_what_everyone_gives_round_after_round() {
    for world in [1, 2, 3, 8] {
        let name = &name();
        thread::scope(|threads| {
            for rank in 0..world {
                threads.spawn(move || {
                    let mut star = star(name, rank, world, late()).unwrap();
                    for round in 0..4 {
                        // Nothing, less than a packet, and several packets.
                        let bytes = |rank: usize| vec![(rank + round) as u8; rank * round * round * 3000];
                        let all = star.all_gather(&bytes(rank), &[], late()).unwrap();
                        assert_eq!(all.len(), world);
                        for (source, contribution) in all.iter().enumerate() {
                            assert_eq!(contribution.bytes, bytes(source));
                            assert!(contribution.descriptors.is_empty());
                        }
                    }
                });
            }
        });
    }
}

#[test]
fn the_largest_contributions_pass_and_larger_ones_are_refused() {
    let name = &name();
    thread::scope(|threads| {
        for rank in 0..3 {
            threads.spawn(move || {
                let mut star = star(name, rank, 3, late()).unwrap();
                let refused = star.all_gather(&vec![0; MOST_BYTES + 1], &[], late());
                assert!(matches!(refused, Err(Error::InvalidArgument(_))));
                let all = star.all_gather(&vec![rank as u8; MOST_BYTES], &[], late()).unwrap();
                assert!(all.iter().enumerate().all(|(rank, all)| all.bytes == vec![rank as u8; MOST_BYTES]));
            });
        }
    });
}

#[test]
fn two_processes_with_one_rank_are_an_error_on_all() {
    for ranks in [&[(0, 4), (2, 4), (2, 4)][..], &[(0, 3), (1, 3), (0, 3)]] {
        let twice = ranks[2].0;
        let results = meet_all(ranks, late());
        for result in &results {
            let Err(Error::Mismatch(sentence)) = result else { panic!("{results:?}") };
            assert!(sentence.contains("two processes"), "{sentence}");
            assert!(sentence.contains(&format!("rank {twice} of {}", ranks[2].1)), "{sentence}");
        }
    }
}

#[test]
fn disagreeing_world_sizes_are_an_error_on_all() {
    for ranks in [&[(0, 3), (1, 4), (2, 3)][..], &[(0, 2), (5, 6)]] {
        let results = meet_all(ranks, late());
        for result in &results {
            let Err(Error::Mismatch(sentence)) = result else { panic!("{results:?}") };
            assert!(sentence.contains("give all ranks the same world size"), "{sentence}");
        }
    }
}

#[test]
fn ranks_out_of_range_and_other_versions_are_named() {
    let foreign = Packet::Hello { version: 9, rank: 1, world: 2, process: 77, patience: 60_000 };
    for (said, named) in [(hello(2, 2), "started as rank 2 of 2: ranks count from 0 to 1"), (foreign, "version 9")] {
        let name = &name();
        thread::scope(|threads| {
            let host = threads.spawn(|| meet(name, 0, 2, late()).map(drop));
            let stranger = knock(name);
            stranger.send(&said, &[], late()).unwrap();
            let Incoming::Packet(Packet::Failure(told), _) = stranger.receive_until(late()).unwrap() else { panic!() };
            assert!(told.to_string().contains(named), "{told}");
            assert_eq!(host.join().unwrap(), Err(told));
        });
    }
}

#[test]
fn ranks_that_never_come_are_named_to_all_that_did() {
    // The others have all the time in the world: the least patient ends the wait for everybody.
    let name = &name();
    thread::scope(|threads| {
        let patient = [0, 3].map(|rank| threads.spawn(move || meet(name, rank, 5, late()).map(drop)));
        let impatient = threads.spawn(move || meet(name, 1, 5, soon()).map(drop));
        for thread in patient.into_iter().chain([impatient]) {
            let Err(Error::Timeout { missing, context }) = thread.join().unwrap() else { panic!() };
            assert_eq!(missing, [2, 4]);
            assert!(context.contains("for ranks 2, 4") && context.contains("Do something."), "{context}");
        }
    });
}

#[test]
fn without_rank_0_the_others_name_it() {
    let results = meet_all(&[(1, 3), (2, 3)], soon());
    for result in &results {
        let Err(Error::Timeout { missing, context }) = result else { panic!("{results:?}") };
        assert_eq!(missing, &[0]);
        assert!(context.contains("for rank 0"), "{context}");
    }
    // Rank 0 listens, but never takes part.
    let name = name();
    let _host = star(&name, 0, 2, late()).unwrap();
    let Err(Error::Timeout { missing, .. }) = meet(&name, 1, 2, soon()) else { panic!() };
    assert_eq!(missing, [0]);
}

#[test]
fn a_rank_that_goes_is_named_to_all_that_stay() {
    // Rank `goes` ends after the first round: by itself, which drops its star, or by death, which closes the socket.
    for (goes, cause) in [(0, Cause::Left), (1, Cause::Left), (1, Cause::Died)] {
        let name = &name();
        thread::scope(|threads| {
            let stay: Vec<_> = (0..3)
                .filter(|&rank| rank != goes)
                .map(|rank| {
                    threads.spawn(move || {
                        let mut star = meet(name, rank, 3, late()).unwrap();
                        let lost = star.all_gather(&[], &[], late()).map(drop).unwrap_err();
                        // The first failure is the last.
                        assert_eq!(star.all_gather(&[], &[], late()).map(drop), Err(lost.clone()));
                        lost
                    })
                })
                .collect();
            match cause {
                Cause::Left => drop(meet(name, goes, 3, late()).unwrap()),
                Cause::Died => {
                    let dying = knock(name);
                    dying.send(&hello(goes as u32, 3), &[], late()).unwrap();
                    let part = Packet::Part { round: 0, source: 1, total: 0, patience: 60_000, bytes: vec![] };
                    dying.send(&part, &[], late()).unwrap();
                    // Welcome, two parts; then it says that it has them, and dies.
                    for _ in 0..3 {
                        dying.receive_until(late()).unwrap();
                    }
                    dying.send(&Packet::Received { round: 0 }, &[], late()).unwrap();
                }
            }
            for stay in stay {
                let lost = stay.join().unwrap();
                assert!(
                    matches!(&lost, Error::RankLost { rank, cause: c, .. } if (*rank, *c) == (goes, cause)),
                    "{lost}"
                );
                assert!(lost.to_string().contains("during the test"), "{lost}");
            }
        });
    }
}

#[test]
fn a_rank_that_dies_half_way_is_named() {
    // After its Hello; after its part; when it has been served half. Never by running into the deadline.
    for phase in 0..3 {
        let name = &name();
        thread::scope(|threads| {
            let others = [0, 2].map(|rank| threads.spawn(move || meet(name, rank, 3, late()).map(drop)));
            let dying = knock(name);
            dying.send(&hello(1, 3), &[], late()).unwrap();
            if phase > 0 {
                let part = Packet::Part { round: 0, source: 1, total: 0, patience: 60_000, bytes: vec![] };
                dying.send(&part, &[], late()).unwrap();
            }
            for _ in 0..phase {
                dying.receive_until(late()).unwrap();
            }
            drop(dying);
            for other in others {
                let lost = other.join().unwrap().unwrap_err();
                assert!(matches!(lost, Error::RankLost { rank: 1, cause: Cause::Died, .. }), "{lost}");
            }
        });
    }
}

#[test]
fn strangers_are_ignored() {
    let name = &name();
    thread::scope(|threads| {
        let host = threads.spawn(|| meet(name, 0, 2, late()).map(drop));
        // More than are kept, of each kind: silent, gone at once, talking nonsense, far too long, saying what only a
        // rank may say.
        let mut silent = Vec::new();
        let texts = [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![1], vec![0xff; LARGEST + 1], Packet::Leave.encode()];
        for _ in 0..40 {
            silent.push(knock(name));
            drop(knock(name));
            for text in &texts {
                // The one before may have been sent away by now.
                let _ = rustix::net::send(knock(name), text, rustix::net::SendFlags::NOSIGNAL);
            }
        }
        meet(name, 1, 2, late()).unwrap();
        host.join().unwrap().unwrap();
    });
}

#[test]
fn other_users_are_sent_away_and_not_trusted() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can be somebody else
    }
    let name = &name();
    thread::scope(|threads| {
        let host = threads.spawn(|| meet(name, 0, 2, late()).map(drop));
        let other = threads.spawn(|| {
            // Of this thread alone: users are a matter of threads to the kernel.
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            let knocked = knock(name);
            assert!(matches!(knocked.receive_until(late()), Ok(Incoming::Closed)));
            // With another name it would have met its own rank 0; here it refuses to speak to somebody else's.
            meet(name, 1, 2, late()).map(drop).unwrap_err()
        });
        let error = other.join().unwrap();
        assert!(error.to_string().contains("another user holds its name"), "{error}");
        meet(name, 1, 2, late()).unwrap();
        host.join().unwrap().unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        rng_seed: RngSeed::Fixed(5),
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn a_rank_that_talks_nonsense_is_an_error(kind in 0..8_u8, rest in prop::collection::vec(any::<u8>(), 0..40)) {
        let bytes = [&[kind], &rest[..]].concat();
        let name = name();
        let mut host = star(&name, 0, 2, late()).unwrap();
        let rank = knock(&name);
        rank.send(&hello(1, 2), &[], late()).unwrap();
        rustix::net::send(&rank, &bytes, rustix::net::SendFlags::NOSIGNAL).unwrap();
        drop(rank);
        prop_assert!(host.all_gather(&[], &[], late()).is_err());
    }
}

#[test]
fn a_taken_name_is_an_error() {
    let name = name();
    let holder = Listener::bind(&name, 1).unwrap();
    let error = star(&name, 0, 2, late()).map(drop).unwrap_err();
    assert!(matches!(&error, Error::System(text) if text.contains("already taken")), "{error}");
    drop(holder);
    star(&name, 0, 2, late()).unwrap();
}

#[test]
fn a_name_is_free_again_at_once() {
    let name = &name();
    for _ in 0..20 {
        thread::scope(|threads| {
            for rank in 0..3 {
                threads.spawn(move || meet(name, rank, 3, late()).unwrap());
            }
        });
    }
}
