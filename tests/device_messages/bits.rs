// SPDX-License-Identifier: MPL-2.0
//! The bits of messages: what is received is what was sent, wherever both lie, and all around it is left as it was.

use annulus::driver::{DeviceBuffer, Stream};
use annulus::reference::check::compare;
use annulus::reference::{self, bits, inputs};
use annulus::{Communicator, DeviceCommunicator, Element, bf16, f16, run};

use super::{ALGORITHMS, absent, is_simulated, lacks, on, ranks, threads, variables};

/// Lengths around what a line takes, and so long that a message has several pieces and several blocks.
const LENGTHS: [usize; 9] = [0, 1, 7, 33, 257, 600, 2049, 5001, 20_011];

/// Elements of what a rank sends to all, or receives of all.
const ROOM: usize = 4 * 20_011 + 64;

/// A rank, and where it sends from and receives at.
struct Rank<'a, T: Element> {
    gpus: &'a DeviceCommunicator,
    stream: &'a Stream,
    heap: DeviceBuffer<T>,
}

fn guard<T: Element>() -> T {
    bits::element(0x5a5a_5a5a_5a5a_5a5a)
}

impl<T: Element> Rank<'_, T> {
    /// Writes what the rank gives, and makes of it, and of where it gets, one part for each rank.
    fn parts(&self, counts: &[Vec<usize>], given: &[T], number: usize) -> (Vec<DeviceBuffer<T>>, Vec<DeviceBuffer<T>>) {
        let (rank, first) = (self.gpus.rank(), number % 5);
        let mut image = vec![guard::<T>(); 2 * ROOM];
        image[first..first + given.len()].copy_from_slice(given);
        self.stream.write(&self.heap, &image).unwrap();
        let cut = |first: usize, lengths: Vec<usize>| {
            let ends = lengths.iter().scan(first, |at, length| {
                *at += length;
                Some(*at)
            });
            let parts = ends.zip(&lengths).map(|(end, length)| self.heap.part(end - length..end).unwrap());
            parts.collect::<Vec<_>>()
        };
        let received = counts.iter().map(|row| row[rank]).collect();
        (cut(first, counts[rank].clone()), cut(ROOM + number / 2 % 3, received))
    }

    /// Compares all of the heap with what was given and with what must have come.
    fn check(&self, given: &[T], expected: &[T], number: usize) {
        let mut image = vec![guard::<T>(); 2 * ROOM];
        image[number % 5..][..given.len()].copy_from_slice(given);
        image[ROOM + number / 2 % 3..][..expected.len()].copy_from_slice(expected);
        compare(&self.stream.read(&self.heap).unwrap(), &image, self.gpus.rank()).unwrap();
    }

    /// From everybody to everybody, this rank too, in one batch; then one message after the other.
    fn exchange(&self, number: usize) {
        let (n, rank) = (self.gpus.world_size(), self.gpus.rank());
        let length = |from: usize, to: usize| LENGTHS[(from * 5 + to * 2 + number * 4) % LENGTHS.len()];
        let counts: Vec<Vec<usize>> = (0..n).map(|from| (0..n).map(|to| length(from, to)).collect()).collect();
        let lengths: Vec<usize> = counts.iter().map(|row| row.iter().sum()).collect();
        let inputs = inputs::special::<T>(7, number as u64, &lengths);
        let outputs = reference::all_to_all(&inputs, &counts).unwrap();
        let (sent, received) = self.parts(&counts, &inputs[rank], number);
        let batch = |batch: &annulus::communicator::DeviceBatch| {
            for i in 0..n {
                let peer = (i + number) % n;
                batch.send(&sent[peer], peer);
                batch.recv(&received[peer], peer);
            }
        };
        self.gpus.batch(self.stream, batch).unwrap();
        self.check(&inputs[rank], &outputs[rank], number);
        let (sent, received) = self.parts(&counts, &inputs[rank], number);
        for (from, received) in received.iter().enumerate() {
            for (to, sent) in sent.iter().enumerate() {
                match (rank == from, rank == to) {
                    (true, true) => self.gpus.send_recv(sent, to, received, from, self.stream),
                    (true, false) => self.gpus.send(sent, to, self.stream),
                    (false, true) => self.gpus.recv(received, from, self.stream),
                    (false, false) => Ok(()),
                }
                .unwrap();
            }
        }
        self.check(&inputs[rank], &outputs[rank], number);
    }

    /// To the next rank, from the one before.
    fn shift(&self, number: usize) {
        let (n, rank) = (self.gpus.world_size(), self.gpus.rank());
        let (next, before, length) = ((rank + 1) % n, (rank + n - 1) % n, LENGTHS[number % LENGTHS.len()]);
        let inputs = inputs::special::<T>(9, number as u64, &vec![length; n]);
        let counts: Vec<Vec<usize>> =
            (0..n).map(|from| (0..n).map(|to| if to == (from + 1) % n { length } else { 0 }).collect()).collect();
        let (sent, received) = self.parts(&counts, &inputs[rank], number);
        self.gpus.send_recv(&sent[next], next, &received[before], before, self.stream).unwrap();
        self.check(&inputs[rank], &inputs[before], number);
    }
}

/// Messages of one type in memory of every kind: all ranks', or each one's another.
fn check_type<T: Element>(gpus: &DeviceCommunicator, stream: &Stream, number: &mut usize) {
    let device = gpus.device();
    // What is this rank's alone comes first: `register` and `allocate` meet the others.
    let (plain, registered) =
        (device.allocate(2 * ROOM).unwrap(), device.allocate_mappable::<T>(2 * ROOM + 3).unwrap());
    gpus.register(&registered).unwrap();
    let heaps = [gpus.allocate(2 * ROOM).unwrap(), registered.part(3..).unwrap(), plain];
    // Short of everything, kinds of memory take turns.
    let kinds = if ranks::full() { 0..4 } else { *number % 4..*number % 4 + 1 };
    for kind in kinds {
        *number += 1;
        gpus.set_algorithm(ALGORITHMS[*number / 4 % 2]).unwrap();
        let heap = heaps[if kind < 3 { kind } else { (gpus.rank() + *number) % 3 }].clone();
        let rank = Rank { gpus, stream, heap };
        rank.exchange(*number);
        rank.shift(*number);
    }
    gpus.deregister(&registered).unwrap();
    gpus.deregister(&heaps[0]).unwrap();
}

pub fn everything(comm: &Communicator) {
    let (gpus, stream) = on(comm);
    let mut number = comm.world_size();
    for_every_type!(check_type(&gpus, &stream, &mut number));
}

#[test]
fn threads_receive_what_is_sent() {
    if absent() {
        return;
    }
    for n in 1..=4 {
        threads(n, |comm| everything(&comm));
    }
}

#[test]
fn processes_receive_what_is_sent() {
    if absent() {
        return;
    }
    for n in if ranks::full() { vec![2, 3, 4] } else { vec![3] } {
        ranks::processes(n, "bits::processes_receive_what_is_sent", |comm| everything(&comm));
    }
}

/// Of a rank a device, and fewer; the last two do not reach each other.
#[test]
fn ranks_on_several_devices_receive_what_is_sent() {
    if absent() {
        return;
    }
    let all = [("3", "", 3), ("2", "0-1", 2), ("2", "", 4), ("3", "0-2", 4)];
    let all = all.into_iter().take(if ranks::full() { 4 } else { 2 });
    for (devices, apart, n) in all.filter(|(devices, apart, _)| !lacks(devices, apart)) {
        let name = format!("bits::ranks_on_several_devices_receive_what_is_sent {devices} {apart}");
        let variables = variables(&[("ANNULUS_SIM_DEVICES", devices), ("ANNULUS_SIM_UNREACHABLE", apart)]);
        let of_threads = || {
            run(n, |comm| {
                everything(&comm);
                Ok(())
            })
            .unwrap();
        };
        let all: Vec<usize> = (0..n).collect();
        let of_processes = || everything(&Communicator::from_env().unwrap());
        let mut ended = ranks::start(&[0], 1, &name, &variables, of_threads);
        ended.extend(ranks::start(&all, n, &name, &variables, of_processes));
        for rank in ended {
            assert!(rank.status.success(), "{}", rank.output);
        }
    }
}

/// Messages of as many blocks as there are, in both directions, and many pieces.
#[test]
fn long_messages_arrive_whole() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let (rank, length) = (comm.rank(), if is_simulated() { 3 << 20 } else { 1 << 19 } + 5);
        let value = |rank: usize, i: usize| (i * (7 + rank) + i / 4096) as u8;
        let image: Vec<u8> = (0..length).map(|i| value(rank, i)).collect();
        let expected: Vec<u8> = (0..length).map(|i| value(1 - rank, i)).collect();
        let plain = [gpus.device().allocate::<u8>(length).unwrap(), gpus.device().allocate::<u8>(length).unwrap()];
        let seen = [gpus.allocate::<u8>(length).unwrap(), gpus.allocate::<u8>(length).unwrap()];
        // Of the last, one rank's is seen by the other and the other's is not.
        for kind in 0..3 {
            let [send, recv] = if kind == 0 || (kind == 2 && rank == 0) { &plain } else { &seen };
            stream.write(send, &image).unwrap();
            gpus.send_recv(send, 1 - rank, recv, 1 - rank, &stream).unwrap();
            assert!(stream.read(recv).unwrap() == expected, "kind {kind}");
            stream.fill(recv, 0).unwrap();
        }
    });
}

/// By copies, through more pieces than there are slots; the other end may be in a batch.
#[test]
fn messages_by_copies_come_in_pieces() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        gpus.set_algorithm(ALGORITHMS[1]).unwrap();
        let (rank, length) = (comm.rank(), (11 << 17) + 5);
        let image = |number: usize| (0..length).map(|i| (i * (7 + number) + i / 4096) as u8).collect::<Vec<_>>();
        let buffer = gpus.device().allocate::<u8>(length).unwrap();
        comm.barrier().unwrap();
        for number in 0..6 {
            let (is_sender, is_batch) = (number % 2 == rank, number / 2 == rank);
            stream.write(&buffer, &if is_sender { image(number) } else { vec![0; length] }).unwrap();
            match (is_sender, is_batch) {
                (true, true) => gpus.batch(&stream, |batch| batch.send(&buffer, 1 - rank)),
                (true, false) => gpus.send(&buffer, 1 - rank, &stream),
                (false, true) => gpus.batch(&stream, |batch| batch.recv(&buffer, 1 - rank)),
                (false, false) => gpus.recv(&buffer, 1 - rank, &stream),
            }
            .unwrap();
            assert!(stream.read(&buffer).unwrap() == image(number), "message {number}");
        }
        let said = gpus.explain_message::<u8>(length, true);
        assert_eq!((said.kernel, said.launches, said.copies), (None, 6, 6), "{said}");
    });
}
