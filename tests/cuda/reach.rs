// SPDX-License-Identifier: MPL-2.0
//! Ranks as processes, whatever each sees of the others' cards: they map each other's memory, or meet in the host's.

use annulus::communicator::Question;
use annulus::driver::Device;
use annulus::schedule::Collective;
use annulus::{DataType, ReduceOp};

use super::everything::{joined, maps_and_unmaps};
use super::{ranks, standin};

/// Two processes with these variables reduce on the device that `open` gives them, through memory of the host or not.
fn reduce(case: &str, variables: &[(&str, &str)], hosted: bool, open: fn(usize) -> usize) {
    let Some(library) = standin::library() else { return };
    let always = [("LD_LIBRARY_PATH", library.to_str().unwrap()), ("STANDIN_MEMORY", "2048"), ("STANDIN_LENT", "1")];
    let variables: Vec<_> = always.into_iter().chain(variables.iter().copied()).collect();
    let name = format!("reach::processes_meet_whatever_they_see {case}");
    let ended = ranks::start(&[0, 1], 2, &name, &variables, || {
        let comm = joined();
        let device = Device::cuda(open(comm.rank())).unwrap();
        let stream = device.stream().unwrap();
        let gpus = comm.on(&device).unwrap();
        let buffer = device.allocate::<f32>(70_000).unwrap();
        stream.fill(&buffer, comm.rank() as f32 + 1.0).unwrap();
        gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
        assert_eq!(stream.read(&buffer).unwrap(), [3.0; 70_000]);
        let question = Question {
            collective: Collective::AllReduce,
            data_type: DataType::F32,
            op: Some(ReduceOp::Sum),
            count: 70_000,
            in_place: true,
            allocated: true,
        };
        let explained = gpus.explain(&question).unwrap();
        assert_eq!(explained.path.contains("memory of the host"), hosted, "{explained}");
        gpus.close().unwrap();
    });
    for rank in ended {
        assert!(rank.status.success(), "{case}, rank {}: {}", rank.rank, rank.output);
    }
}

#[test]
fn processes_meet_whatever_they_see() {
    let own_card = [("STANDIN_DEVICES", "2"), ("CUDA_VISIBLE_DEVICES", "{rank}")];
    reduce("own cards", &own_card, false, |_| 0);
    let apart = [&own_card[..], &[("STANDIN_UNREACHABLE", "0-1")]].concat();
    reduce("own cards out of reach", &apart, true, |_| 0);
    reduce("cards out of reach", &[("STANDIN_DEVICES", "2"), ("STANDIN_UNREACHABLE", "0-1")], true, |rank| rank);
    // A driver that maps no memory of other processes, or a process that may not look into another.
    reduce("no names", &[("OF_RANK_1", "cuIpcGetMemHandle=801")], true, |_| 0);
    reduce("no mapping", &[("OF_RANK_1", "cuIpcOpenMemHandle_v2=801")], true, |_| 0);
    reduce("one card", &[], false, |_| 0);
    // What cannot be unpinned stays.
    reduce("no unpinning", &[&apart[..], &[("OF_RANK_1", "cuMemHostUnregister=999")]].concat(), true, |_| 0);
}

#[test]
fn what_cannot_be_unmapped_stays() {
    let Some(library) = standin::library() else { return };
    let variables = [("LD_LIBRARY_PATH", library.to_str().unwrap()), ("OF_RANK_1", "cuIpcCloseMemHandle=999")];
    let name = "reach::what_cannot_be_unmapped_stays";
    for rank in ranks::start(&[0, 1], 2, name, &variables, || maps_and_unmaps(Device::cuda)) {
        assert!(rank.status.success(), "rank {}: {}", rank.rank, rank.output);
    }
}
