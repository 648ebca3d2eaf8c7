// SPDX-License-Identifier: MPL-2.0
//! What is said of calls that go by schedules before they are made, and what runs.

use annulus::communicator::Question;
use annulus::schedule::Collective::{self, AllGather, AllReduce, Barrier, Broadcast, Scan};
use annulus::{DataType, ReduceOp};

use super::{absent, on, threads};

fn question(collective: Collective, count: usize, allocated: bool) -> Question {
    let op = Some(ReduceOp::Sum).filter(|_| collective.folds());
    Question { collective, data_type: DataType::F32, op, count, in_place: true, allocated }
}

#[test]
fn what_is_explained_is_what_runs() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let buffers = [gpus.device().allocate::<f32>(1000).unwrap(), gpus.allocate(1000).unwrap()];
        // Collective, name, in memory that peers see; what runs, whether that is staged; launches and copies, by hand
        // for two ranks: an entry and an end, which has the flags that come last, and between them folds, copies, and
        // flags.
        let expected: [(Collective, &str, bool, &str, bool, usize, usize); 6] = [
            // A fold of a half from both inputs to both outputs.
            (AllReduce, "direct", true, "direct", false, 3, 0),
            // A copy to a slot, flags, a fold to the output and a slot, flags, a copy from a slot.
            (AllReduce, "direct", false, "staged", true, 5, 2),
            // A copy to a slot, flags, a fold.
            (AllReduce, "one_shot", false, "one_shot", true, 4, 1),
            (AllGather, "direct", true, "direct", false, 2, 1),
            (Broadcast, "direct", true, "direct", false, 2, 1),
            (Barrier, "dissemination", false, "dissemination", false, 2, 0),
        ];
        for (collective, name, allocated, ran, staged, launches, copies) in expected {
            gpus.set_algorithm(Some(&format!("schedule:{name}"))).unwrap();
            let said = gpus.explain(&question(collective, 500, allocated)).unwrap();
            assert_eq!((&*said.algorithm, said.kernel, said.staged), (ran, None, staged), "{said}");
            assert_eq!((said.launches, said.copies), (launches, copies), "{collective}: {said}");
            let parts = [&format!("{ran} (schedule)"), "it was asked for by name; this rank", "on this rank; "];
            assert!(parts.iter().all(|part| said.to_string().contains(part)), "{said}");
            let buffer = &buffers[usize::from(allocated)];
            let part = buffer.part(..500).unwrap();
            match collective {
                AllReduce => gpus.all_reduce_in_place(&part, ReduceOp::Sum, &stream),
                AllGather => gpus.all_gather_in_place(buffer, &stream),
                Broadcast => gpus.broadcast_in_place(&part, 0, &stream),
                _ => gpus.barrier(&stream),
            }
            .unwrap();
            stream.synchronize().unwrap();
            let record = gpus.last_call().unwrap();
            assert_eq!((record.path, record.algorithm), ("schedule", said.algorithm));
        }
        // What cannot be is said as by the call.
        let refused = |collective, count| gpus.explain(&question(collective, count, false)).unwrap_err().to_string();
        gpus.set_algorithm(Some("schedule:tree")).unwrap();
        assert!(refused(AllReduce, 5).contains("no algorithm tree for all_reduce"));
        assert!(refused(Scan, 5).contains("no scan on devices"));
        gpus.set_algorithm(Some("schedule:one_shot")).unwrap();
        assert!(refused(AllReduce, 2 << 20).contains("at most 4194304 bytes"));
    });
}
