// SPDX-License-Identifier: MPL-2.0
//! Memory: what is given back, and when; what is of a pool, and what is not.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use annulus::driver::{Device, DeviceBuffer};

use super::{alone, invalid};

/// To free, to unmap and to end a stream must not wait for what runs: that may wait for the thread that frees.
#[test]
fn giving_memory_back_waits_for_nothing() {
    alone("memory::giving_memory_back_waits_for_nothing", &[], || {
        let device = Device::cuda(0).unwrap();
        let free = || device.allocate_mappable::<u8>(100 << 20).is_ok();
        let stream = device.stream().unwrap();
        let (open, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        stream.call(move || gate.lock().unwrap().recv().unwrap_or_default()).unwrap();
        // All of this while the stream is blocked; where anything waited, this would not come to its end.
        let second = device.stream().unwrap();
        let buffer = device.allocate_mappable::<u8>(100 << 20).unwrap();
        second.fill(&buffer, 1).unwrap();
        second.synchronize().unwrap();
        drop((buffer, second));
        let words = device.words(1 << 20).unwrap();
        drop((words, device.allocate::<u8>(1000).unwrap(), device.event().unwrap()));
        open.send(()).unwrap();
        stream.synchronize().unwrap();
        // And then it is given back: there is room for one of these, and not for two.
        assert!(free() && free());
    });
}

/// What is needed before is given back all the same, by waiting.
#[test]
fn exhausted_memory_is_what_is_in_use() {
    alone("memory::exhausted_memory_is_what_is_in_use", &[], || {
        let device = Device::cuda(0).unwrap();
        let stream = device.stream().unwrap();
        stream.call(|| std::thread::sleep(Duration::from_millis(100))).unwrap();
        drop(device.allocate_mappable::<u8>(100 << 20).unwrap());
        let held = device.allocate_mappable::<u8>(100 << 20).unwrap();
        let why = device.allocate_mappable::<u8>(100 << 20).unwrap_err().to_string();
        assert!(
            why.contains(
                "CUDA device 0, allocating 104857600 bytes: cuMemAlloc_v2 answers CUDA_ERROR_OUT_OF_MEMORY (2)"
            ),
            "{why}"
        );
        assert!(why.contains("ask for less"), "{why}");
        drop(held);
    });
}

/// Freed memory of the pool stays there, so that to take it again maps nothing; and it is there for whoever needs it.
#[test]
fn the_pool_gives_back_what_it_has_when_it_is_asked() {
    alone("memory::the_pool_gives_back_what_it_has_when_it_is_asked", &[], || {
        let device = Device::cuda(0).unwrap();
        let context = cudarc::driver::CudaContext::new(0).unwrap();
        let free = || context.mem_get_info().unwrap().0;
        let (stream, begin) = (device.stream().unwrap(), free());
        let cycle = || {
            let buffer = device.allocate::<u8>(60 << 20).unwrap();
            stream.fill(&buffer, 1).unwrap();
            stream.synchronize().unwrap();
            drop(buffer);
            stream.synchronize().unwrap();
        };
        cycle();
        let kept = free();
        assert!(kept <= begin - (60 << 20), "{begin} bytes were free, and now {kept}");
        cycle();
        assert_eq!(free(), kept, "what was free was taken again, or not kept");
        // Memory of another kind, which there would be no room for.
        let held = device.allocate_mappable::<u8>(100 << 20).unwrap();
        let why = device.allocate::<u8>(60 << 20).unwrap_err().to_string();
        assert!(why.contains("cuMemAllocFromPoolAsync answers CUDA_ERROR_OUT_OF_MEMORY (2)"), "{why}");
        drop(held);
        stream.synchronize().unwrap();
        // It was given back when nothing ran, and the pool's with it.
        assert!(free() >= begin, "{begin} bytes were free, and now {}", free());
    });
}

#[test]
fn only_allocations_of_their_own_are_exported() {
    alone("memory::only_allocations_of_their_own_are_exported", &[], || {
        let device = Device::cuda(0).unwrap();
        assert!(invalid(device.allocate::<f32>(10).unwrap().export()).contains("allocate_mappable"));
        let whole = device.allocate_mappable::<u8>(1000).unwrap();
        let [name, part] = [whole.clone(), whole.part(300..).unwrap()].map(|some| some.export().unwrap().to_bytes());
        assert_eq!(name[..64], part[..64], "a name is of the allocation");
        assert_eq!([&name[64..72], &part[64..72]].map(|at| u64::from_le_bytes(at.try_into().unwrap())), [0, 300]);
        // Also of memory that somebody else allocated, and of which only a part is known here.
        // SAFETY: the memory lives as long as `whole`.
        let raw = unsafe { DeviceBuffer::<u8>::from_raw(&device, whole.address() + 200, 100) }.unwrap();
        let name = raw.export().unwrap().to_bytes();
        assert_eq!((&name[..64], name[64]), (&part[..64], 200));
    });
}

#[test]
fn fills_of_every_width_are_right() {
    alone("memory::fills_of_every_width_are_right", &[], || {
        let device = Device::cuda(0).unwrap();
        let stream = device.stream().unwrap();
        for count in [1, 2, 3, 7, 64, 1000, 1025] {
            let buffer = device.allocate::<u64>(count + 1).unwrap();
            stream.fill(&buffer.part(..count).unwrap(), 0x0123_4567_89ab_cdef).unwrap();
            let mut expected = vec![0x0123_4567_89ab_cdef; count];
            expected.push(0);
            assert_eq!(stream.read(&buffer).unwrap(), expected);
            stream.fill(&buffer, u64::MAX).unwrap();
            assert_eq!(stream.read(&buffer).unwrap(), vec![u64::MAX; count + 1]);
        }
    });
}
