// SPDX-License-Identifier: MPL-2.0
//! The cache of device memory: who gets a block, and when; that results stay right; and the account of it, against a
//! count by hand.

use annulus::optim::Rule;
use annulus::perceptron::{Account, LossScale, Memory, Precision, TensorClass};
use annulus::train::Config;

use super::simulated::{absent, block, open};
use super::{report, room, small};

const STEP: TensorClass = TensorClass::Activations;

#[test]
fn a_block_is_reused_on_its_stream_at_once_and_on_another_when_it_is_idle() {
    if absent() {
        return;
    }
    let _room = room();
    let device = open(0).unwrap();
    let (first, second) = (device.stream().unwrap(), device.stream().unwrap());
    let memory = Memory::new(&device);
    let gate = block(&first);
    let tensor = memory.of_step::<u32>(STEP, 1000, &first).unwrap();
    first.fill(&tensor, 7).unwrap();
    let address = tensor.address();
    drop(tensor);
    // The device is still at the gate.
    let other = memory.of_step::<u32>(STEP, 1000, &second).unwrap();
    assert_ne!(other.address(), address, "the second stream would wait for the first");
    drop(other);
    let same = memory.of_step::<u16>(STEP, 1901, &first).unwrap();
    assert_eq!((same.address(), same.len()), (address, 1901), "4000 and 3802 bytes are of one class");
    first.fill(&same, 1).unwrap();
    drop(same);
    drop(gate);
    first.synchronize().unwrap();
    // Both are idle now, and the second stream has its own first.
    let [own, other] = [(); 2].map(|()| memory.of_step::<u32>(STEP, 1000, &second).unwrap());
    assert!(own.address() != address && other.address() == address);
    assert_eq!(memory.report().all(), Account { live: 8192, cached: 0, peak: 8192 });
}

/// A tensor is dropped while a copy of it waits at a gate, and its block is overwritten from the same stream, and, by a
/// part that outlives it, from another: the copy is made first.
#[test]
fn reuse_never_overtakes() {
    if absent() {
        return;
    }
    let _room = room();
    let device = open(0).unwrap();
    let (first, second) = (device.stream().unwrap(), device.stream().unwrap());
    let memory = Memory::new(&device);
    let copies = [(); 2].map(|()| device.allocate::<u32>(64).unwrap());
    for (turn, late) in [&first, &second].into_iter().enumerate() {
        let gate = block(&first);
        let tensor = memory.of_step::<u32>(STEP, 64, &first).unwrap();
        first.fill(&tensor, 7).unwrap();
        first.copy(&tensor, &copies[turn]).unwrap();
        let part = tensor.part(..).unwrap();
        drop(tensor);
        let next = memory.of_step::<u32>(STEP, 64, &first).unwrap();
        assert_eq!(next.address(), part.address());
        late.fill(&part, 8).unwrap();
        drop(gate);
        first.synchronize().unwrap();
        assert_eq!(late.read(&*next).unwrap(), [8; 64]);
        assert_eq!(first.read(&copies[turn]).unwrap(), [7; 64]);
    }
}

#[test]
fn lasting_tensors_are_zero_and_share_no_block_with_steps() {
    if absent() {
        return;
    }
    let _room = room();
    let device = open(0).unwrap();
    let (stream, memory) = (device.stream().unwrap(), Memory::new(&device));
    let of_step = memory.of_step::<u64>(STEP, 9, &stream).unwrap();
    let lasting = memory.lasting::<u64>(TensorClass::Weights, 9, &stream).unwrap();
    let addresses = [of_step.address(), lasting.address()];
    stream.fill(&of_step, 3).unwrap();
    stream.fill(&lasting, 3).unwrap();
    drop((of_step, lasting));
    let lasting = memory.lasting::<u64>(TensorClass::Optimizer, 9, &stream).unwrap();
    let of_step = memory.of_step::<u64>(STEP, 9, &stream).unwrap();
    assert_eq!(addresses, [of_step.address(), lasting.address()]);
    assert_eq!(stream.read(&*lasting).unwrap(), [0; 9]);
}

#[test]
fn where_memory_is_exhausted_the_cache_is_given_back_first() {
    if absent() {
        return;
    }
    let _room = room();
    let device = open(0).unwrap();
    let (stream, memory) = (device.stream().unwrap(), Memory::new(&device));
    let kept = memory.of_step::<u8>(STEP, 300, &stream).unwrap();
    drop(memory.of_step::<u8>(TensorClass::Losses, 600, &stream).unwrap());
    assert_eq!(memory.report().all(), Account { live: 512, cached: 768, peak: 1280 });
    assert_eq!(memory.report().of(TensorClass::Losses), Account { live: 0, cached: 768, peak: 768 });
    for elements in [1 << 60, usize::MAX] {
        assert!(memory.of_step::<f64>(STEP, elements, &stream).is_err(), "{elements}");
    }
    assert!(memory.of_step::<u8>(STEP, 1 << 60, &stream).is_err());
    assert_eq!(memory.report().all(), Account { live: 512, cached: 0, peak: 1280 });
    drop(kept);
    assert_eq!(memory.report().all(), Account { live: 0, cached: 512, peak: 1280 });
}

/// The peaks of each class, in the order of `TensorClass::ALL`, and of all together.
fn peaks(rule: Rule, precision: Precision, replay: bool) -> ([usize; 7], usize) {
    let report = report(&Config { rule, precision, replay, ..small(1) });
    assert!(report.is_verified(), "{:?}", report.differences);
    let memory = report.memory.unwrap();
    assert_eq!(memory.of(STEP).live, 0, "activations outlive their step");
    (TensorClass::ALL.map(|class| memory.of(class).peak), memory.all().peak)
}

/// 64 inputs, 12 and 10 outputs, 8 rows. Every tensor's bytes, in its block.
///
/// Lasting: 16 + 120 + 16 + 768 weights, in f32 3680 bytes, in a block of 4096, and in 16 bits 1840, in one of 2048; as
/// many gradients, which are the communicator's and in no block; labels, 32 in 256; losses of a batch's rows, 32 in 256, of
/// all rows of the 180 steps of an epoch, 5760 in 6144, and of those steps, 720 in 768. Of the 1437 samples the labels, 5748
/// in 6144, an order as long, and the inputs, in f32 367872 in 393216, and in 16 bits 183936 in 196608.
///
/// Of a step: logits are given up when their slope was computed, which then is there with the one before.
#[test]
fn the_peaks_are_those_of_a_count_by_hand() {
    if absent() {
        return;
    }
    let sgd = Rule::Sgd { rate: 0.1, momentum: 0.9 };
    let adamw = Rule::AdamW { rate: 0.01 };
    let losses = 256 + 6144 + 768;
    let [wide, narrow] = [393_216, 196_608].map(|inputs| inputs + 2 * 6144);
    for replay in [true, false] {
        // Outputs of 384 and 320 bytes, slopes too: blocks of 512. The second slope has that of the logits.
        let (outputs, slope) = (2 * 512, 512);
        let by_class = [4096, 3680, 4096, wide + 2048 + 256, outputs, 2 * slope, losses];
        let all = 4096 + 3680 + 4096 + (wide + 2048 + 256) + losses + (outputs + slope);
        assert_eq!(peaks(sgd, Precision::F32, replay), (by_class, all));

        // Outputs of 192 and 160 bytes, slopes too: blocks of 256. Weights are there twice, and AdamW's step is 24 bytes.
        let (outputs, slope) = (2 * 256, 256);
        let weights = 4096 + 2048;
        let optimizer = 2 * 4096 + 256;
        let by_class = [weights, 1840, optimizer, narrow + 1024 + 256, outputs, 2 * slope, losses];
        let all = weights + 1840 + optimizer + (narrow + 1024 + 256) + losses + (outputs + slope);
        assert_eq!(peaks(adamw, Precision::Bf16, replay), (by_class, all));

        // The loss scale's state is 16 bytes.
        let optimizer = 4096 + 256;
        let by_class = [weights, 1840, optimizer, narrow + 1024 + 256, outputs, 2 * slope, losses];
        let all = weights + 1840 + optimizer + (narrow + 1024 + 256) + losses + (outputs + slope);
        assert_eq!(peaks(sgd, Precision::F16(LossScale::default()), replay), (by_class, all));
    }
}
