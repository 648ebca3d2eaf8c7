// SPDX-License-Identifier: MPL-2.0
//! What `segment` promises, held against two mappings of one segment in one process.

use std::fs::File;

use super::*;

fn page() -> usize {
    page_size()
}

/// A segment of `pages` pages and a peer's mapping of it.
fn pair(pages: usize) -> (Segment, Segment) {
    let own = Segment::create("annulus-test", pages * page()).unwrap();
    let peer = Segment::open(own.as_fd().try_clone_to_owned().unwrap(), own.len()).unwrap();
    (own, peer)
}

fn store(segment: &Segment, at: usize, byte: u8) {
    assert!(at < segment.len());
    // SAFETY: Within the mapping; these tests touch it from one thread and hold no references to it.
    unsafe { segment.base().as_ptr().add(at).write_volatile(byte) }
}

fn load(segment: &Segment, at: usize) -> u8 {
    assert!(at < segment.len());
    // SAFETY: As in `store`.
    unsafe { segment.base().as_ptr().add(at).read_volatile() }
}

/// Pages of the file that exist.
fn existing(segment: &Segment) -> usize {
    rustix::fs::fstat(segment).unwrap().st_blocks as usize * 512 / page()
}

#[test]
fn two_mappings_see_each_others_writes() {
    let (own, peer) = pair(4);
    assert_ne!(own.base(), peer.base());
    own.commit(0..own.len()).unwrap();
    for at in [0, 1, page(), 4 * page() - 1] {
        store(&own, at, 7);
        assert_eq!(load(&peer, at), 7);
        store(&peer, at, 8);
        assert_eq!(load(&own, at), 8);
    }
}

#[test]
fn memory_exists_where_it_was_committed_and_until_it_is_released() {
    let (own, peer) = pair(8);
    assert_eq!(existing(&own), 0);
    own.commit(2 * page()..5 * page()).unwrap();
    assert_eq!(existing(&own), 3);
    own.commit(3 * page()..3 * page()).unwrap();
    store(&own, 3 * page(), 9);
    own.commit(3 * page()..6 * page()).unwrap();
    assert_eq!((existing(&own), load(&peer, 3 * page())), (4, 9));
    own.release(3 * page()..4 * page()).unwrap();
    own.release(0..0).unwrap();
    assert_eq!(existing(&own), 3);
    assert_eq!(load(&peer, 3 * page()), 0, "a released page comes back as zeros");
}

#[test]
fn more_than_the_machine_has_is_an_error_value() {
    let capacity = Segment::capacity(2);
    assert!(capacity.is_power_of_two() && capacity as u64 >= memory::physical());
    let segment = Segment::create("annulus-test", capacity).unwrap();
    let error = segment.commit(0..capacity).unwrap_err();
    assert!(matches!(&error, Error::System(text) if text.contains("are available")), "{error}");
    assert_eq!(existing(&segment), 0);
}

#[test]
fn worlds_of_any_size_fit_the_address_space() {
    for world in [0, 1, 2, 3, 64, 1000, usize::MAX] {
        let capacity = Segment::capacity(world);
        assert!(capacity.is_power_of_two() && capacity.is_multiple_of(page()));
        assert!(world > 1 << 20 || capacity as u64 * world as u64 <= ADDRESS_SPACE);
    }
}

#[test]
fn ranges_that_are_not_whole_pages_within_are_refused() {
    let (own, _) = pair(4);
    for range in [0..1, 1..page(), 0..5 * page(), 4 * page()..0, 5 * page()..5 * page(), 0..usize::MAX] {
        let errors = [own.commit(range.clone()), own.release(range.clone()), {
            // SAFETY: Refused before anything is touched.
            unsafe { own.privatise(range.clone()) }
        }];
        for error in errors {
            assert!(matches!(error, Err(Error::InvalidArgument(_))), "{range:?}");
        }
    }
    for capacity in [0, 1, page() + 1] {
        assert!(matches!(Segment::create("annulus-test", capacity), Err(Error::InvalidArgument(_))));
    }
    assert!(matches!(Segment::create("annulus-test", 1 << 62), Err(Error::System(_))));
    assert!(matches!(Segment::create("a\0b", page()), Err(Error::System(_))));
}

#[test]
fn a_private_copy_is_written_by_nobody_else() {
    let (own, peer) = pair(6);
    own.commit(page()..4 * page()).unwrap();
    for at in 0..6 {
        store(&own, at * page() + 5, 10 + at as u8);
    }
    let before = own.base();
    // SAFETY: One thread, no references.
    unsafe { own.privatise(page()..5 * page()) }.unwrap();
    assert_eq!(own.base(), before);
    for at in 0..6 {
        assert_eq!(load(&own, at * page() + 5), 10 + at as u8, "the copy has the bytes of page {at}");
        store(&peer, at * page() + 5, 99);
        store(&own, at * page() + 6, 77);
        let private = (1..5).contains(&at);
        assert_eq!(load(&own, at * page() + 5), if private { 10 + at as u8 } else { 99 });
        assert_eq!(load(&peer, at * page() + 6), if private { 0 } else { 77 });
    }
    // Privatising what is private already takes the file's bytes, which are unspecified; it must merely not fail.
    // SAFETY: As above.
    unsafe { own.privatise(0..6 * page()) }.unwrap();
    store(&own, 0, 1);
    drop(own);
    assert_eq!(load(&peer, 5), 99, "the peer keeps its mapping");
}

#[test]
fn only_sealed_memfds_of_the_right_size_are_mapped() {
    let (own, _) = pair(2);
    let again = || own.as_fd().try_clone_to_owned().unwrap();
    for wrong in [0, page(), 4 * page()] {
        let error = Segment::open(again(), wrong).unwrap_err();
        assert!(error.to_string().contains("instead of"), "{error}");
    }
    // The seals hold: a peer can neither cut the file nor take the seals off.
    assert_eq!(rustix::fs::ftruncate(&own, 0), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(&own, 4 * page() as u64), Err(Errno::PERM));
    assert_eq!(rustix::fs::fcntl_add_seals(&own, SealFlags::WRITE), Err(Errno::PERM));

    let unsealed = rustix::fs::memfd_create("annulus-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&unsealed, page() as u64).unwrap();
    let error = Segment::open(unsealed, page()).unwrap_err();
    assert!(error.to_string().contains("not sealed"), "{error}");

    let error = Segment::open(File::open("/dev/null").unwrap().into(), page()).unwrap_err();
    assert!(error.to_string().contains("not a memfd"), "{error}");
}

#[test]
fn a_segment_is_private_to_its_process_and_its_mapping_ends_with_it() {
    let mapped = || std::fs::read_to_string("/proc/self/smaps").unwrap();
    let own = Segment::create("annulus-test-flags", 2 * page()).unwrap();
    let flags = rustix::io::fcntl_getfd(&own).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    let text = mapped();
    let (_, entry) = text.split_once("annulus-test-flags").expect("it is mapped under its name");
    let flags = entry.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
    assert!(flags.contains(" dc") && flags.contains(" dd"), "neither forked nor dumped: {flags}");
    drop(own);
    assert!(!mapped().contains("annulus-test-flags"));
}
