// SPDX-License-Identifier: MPL-2.0
//! Schedules of one's own: verified programs of every kind, in memory that peers see and in other memory.

use annulus::driver::{DeviceBuffer, Stream};
use annulus::reference::check::compare;
use annulus::reference::{bits, inputs};
use annulus::schedule::{self, Access, Collective, Layout, named, verify};
use annulus::{DeviceCommunicator, Error, FoldOrder, ReduceOp, bf16, reference};

use super::butterfly::Butterfly;
use super::programs::{Case, cases, expected};
use super::{absent, everywhere, on, ranks, threads, upload};

/// Elements of a heap.
const HEAP: usize = 16 << 10;

/// Runs both forms of a case in a heap, and compares all of it.
fn call(gpus: &DeviceCommunicator, stream: &Stream, heap: &DeviceBuffer<bf16>, case: &Case, number: u64) {
    let (world, rank, collective) = (gpus.world_size(), gpus.rank(), case.schedule.collective());
    let op = if collective.is_scan() { ReduceOp::Sum } else { ReduceOp::Avg };
    for verified in &case.forms {
        let layout = verified.layout();
        let lens: Vec<usize> = (0..world).map(|r| layout.input_len(collective, r)).collect();
        let inputs = inputs::cancelling::<bf16>(7, number, &lens);
        let expected = expected(verified, op, &inputs);
        let expected = expected.get(rank).map_or(&[][..], |output| output);
        let op = collective.folds().then_some(op);
        // Of all ranks inputs begin at one place, and so do outputs.
        let (alias, apart) = match layout.is_in_place() {
            true => (layout.alias(collective, rank), 0),
            false => (0, HEAP / 2),
        };
        let (input, output) = (alias.max(0) as usize, (-alias).max(0) as usize + apart);
        let out_len = layout.output_len(collective, rank);
        let mut image = vec![bits::element(!0); HEAP];
        image[input..input + lens[rank]].copy_from_slice(&inputs[rank]);
        stream.write(heap, &image).unwrap();
        let part = |begin: usize, len: usize| heap.part(begin..begin + len).unwrap();
        match layout.is_in_place() {
            true => gpus.execute_in_place(verified, &part(0, lens[rank].max(out_len)), op, stream),
            false => gpus.execute(verified, &part(input, lens[rank]), &part(output, out_len), op, stream),
        }
        .unwrap();
        image[output..output + expected.len()].copy_from_slice(expected);
        let got = stream.read(heap).unwrap();
        compare(&got, &image, rank).unwrap_or_else(|wrong| {
            let (name, access) = (verified.name(), verified.access());
            panic!("{name} {collective} of {world} ({access:?}), in place {}: {wrong}", layout.is_in_place())
        });
    }
}

#[test]
fn every_schedule_computes_what_was_proved() {
    if absent() {
        return;
    }
    for world in if ranks::full() { vec![1, 2, 3, 4, 5, 6, 7, 8] } else { vec![1, 2, 3, 5] } {
        let cases = cases(world);
        threads(world, |comm| {
            let (gpus, stream) = on(&comm);
            let heaps = [gpus.allocate(HEAP).unwrap(), gpus.device().allocate(HEAP).unwrap()];
            comm.barrier().unwrap();
            for (number, case) in cases.iter().enumerate() {
                call(&gpus, &stream, &heaps[number % 2], case, number as u64);
                if case.schedule.access() != Access::Staged {
                    call(&gpus, &stream, &heaps[1 - number % 2], case, number as u64);
                }
            }
        });
    }
}

#[test]
fn a_butterfly_runs_on_devices() {
    if absent() {
        return;
    }
    everywhere(4, "own::a_butterfly_runs_on_devices", |comm| {
        let (gpus, stream) = on(&comm);
        let layout = Layout::uniform(4, 1001);
        let verified = verify(&Butterfly, &layout).unwrap();
        let in_place = verify(&Butterfly, &layout.in_place(true)).unwrap();
        for (number, op) in [ReduceOp::Sum, ReduceOp::Avg, ReduceOp::Max].into_iter().enumerate() {
            let inputs = inputs::cancelling::<bf16>(3, number as u64, &[1001; 4]);
            let expected = &reference::all_reduce(&FoldOrder::Tree, op, &inputs).unwrap()[comm.rank()];
            let send = upload(gpus.device(), &stream, &inputs[comm.rank()]);
            let recv = gpus.device().allocate(1001).unwrap();
            comm.barrier().unwrap();
            gpus.execute(&verified, &send, &recv, Some(op), &stream).unwrap();
            compare(&stream.read(&recv).unwrap(), expected, comm.rank()).unwrap();
            gpus.execute_in_place(&in_place, &send, Some(op), &stream).unwrap();
            compare(&stream.read(&send).unwrap(), expected, comm.rank()).unwrap();
            let record = gpus.last_call().unwrap();
            assert_eq!(
                (record.call, record.path, &*record.algorithm),
                (2 * number as u64 + 1, "schedule", "butterfly")
            );
            assert!(record.arrived <= record.last_arrived && record.last_arrived <= record.done, "{record:?}");
        }
    });
}

#[test]
fn what_was_not_verified_or_does_not_fit_is_refused() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let buffers = [gpus.device().allocate::<f32>(100).unwrap(), gpus.device().allocate(100).unwrap()];
        comm.barrier().unwrap();
        let verified = verify(&Butterfly, &Layout::uniform(2, 100)).unwrap();
        let refused = |result: annulus::Result<()>, part: &str| match result {
            Err(Error::InvalidArgument(why)) => {
                assert!(why.contains(part) && why.contains(&format!(" on rank {}: ", comm.rank())), "{why}");
            }
            other => panic!("{other:?}"),
        };
        let [send, recv] = &buffers;
        let sum = Some(ReduceOp::Sum);
        refused(gpus.execute(&verified, send, &recv.part(..99).unwrap(), sum, &stream), "100 elements in and 100 out");
        refused(gpus.execute(&verified, send, recv, None, &stream), "needs an operation");
        refused(gpus.execute(&verified, send, recv, Some(ReduceOp::BitOr), &stream), "f32");
        refused(gpus.execute(&verified, send, send, sum, &stream), "are the same");
        refused(gpus.execute_in_place(&verified, send, sum, &stream), "it was verified out of place");
        let one_shot = schedule::one_shot::all_reduce();
        let carrying = verify(&one_shot, &Layout::uniform(2, 100)).unwrap();
        refused(gpus.execute(&carrying, send, recv, sum, &stream), "carries its own entry");
        gpus.set_schedule_memory(256).unwrap();
        refused(gpus.execute(&verified, send, recv, sum, &stream), "512 bytes of shared memory a rank");
        let direct = named(Collective::AllReduce, "direct", Access::Direct, None).unwrap();
        let direct = verify(&*direct, &Layout::uniform(2, 100)).unwrap();
        refused(gpus.execute(&direct, send, recv, sum, &stream), "1024 bytes of shared memory a rank");
        // None of these was a call.
        gpus.set_schedule_memory(1024).unwrap();
        stream.fill(send, 1.5).unwrap();
        gpus.execute(&direct, send, recv, sum, &stream).unwrap();
        assert_eq!(stream.read(recv).unwrap(), [3.0; 100]);
    });
}
