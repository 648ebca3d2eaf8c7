// SPDX-License-Identifier: MPL-2.0
//! Memory: what is given back, and when; what is of a pool, and what is not.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;

use annulus::driver::{Device, DeviceBuffer, IpcHandle, Stream};
use annulus::{Communicator, ReduceOp, run};

use super::{alone, invalid, ranks, standin};

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

/// Where streams share a queue, what is allocated is zeroed all the same while another stream waits.
#[test]
fn allocating_waits_for_no_other_stream() {
    alone("memory::allocating_waits_for_no_other_stream", &[("STANDIN_ORDER", "2")], || {
        let device = Device::cuda(0).unwrap();
        let stream = device.stream().unwrap();
        let ((open, gate), (say, said)) = (channel::<()>(), channel());
        let gate = Mutex::new(gate);
        // Who waits for it would wait so long.
        let opened = move || gate.lock().unwrap().recv_timeout(Duration::from_secs(5)).is_ok();
        stream.call(move || say.send(opened()).unwrap()).unwrap();
        drop((device.allocate::<u8>(1000).unwrap(), device.allocate_mappable::<u8>(1000).unwrap()));
        open.send(()).unwrap();
        assert!(said.recv().unwrap(), "it was waited for");
    });
}

/// What runs is seen too where a stream captures since, and on a user's own stream, also when that was given back.
#[test]
fn what_cannot_be_asked_runs_all_the_same() {
    alone("memory::what_cannot_be_asked_runs_all_the_same", &[], || {
        let device = Device::cuda(0).unwrap();
        let context = cudarc::driver::CudaContext::new(0).unwrap();
        let is_there_room = || device.allocate_mappable::<u8>(100 << 20).is_ok();
        for (borrows, captures) in [(false, true), (true, true), (true, false)] {
            let theirs = context.new_stream().unwrap();
            let stream = match borrows {
                true => Stream::try_from(theirs.clone()).unwrap(),
                false => device.stream().unwrap(),
            };
            let buffer = device.allocate_mappable::<u8>(100 << 20).unwrap();
            let ((open, gate), (say, said)) = (channel::<()>(), channel());
            let gate = Mutex::new(gate);
            // Who frees and waits for it would wait so long.
            let opened = move || gate.lock().unwrap().recv_timeout(Duration::from_secs(5)).is_ok();
            stream.call(move || say.send(opened()).unwrap()).unwrap();
            match captures {
                true => {
                    let freed = stream.capture(|_| {
                        drop(buffer);
                        Ok(())
                    });
                    drop(freed.unwrap());
                }
                false => {
                    let again = Stream::try_from(theirs.clone()).unwrap();
                    drop(stream);
                    drop((again, buffer));
                }
            }
            open.send(()).unwrap();
            assert!(said.recv().unwrap(), "borrowed: {borrows}, captured: {captures}: it was waited for");
            assert!(is_there_room() && is_there_room(), "borrowed: {borrows}, captured: {captures}");
        }
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
        assert!(kept <= begin - (59 << 20), "{begin} bytes were free, and now {kept}");
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

/// To pin memory may wait for what runs, so what programs usually need is pinned when a device is opened.
#[test]
fn nothing_is_pinned_once_a_device_is_open() {
    let variables = [("STANDIN_PINNED", "32"), ("STANDIN_MEMORY", "2048")];
    alone("memory::nothing_is_pinned_once_a_device_is_open", &variables, || {
        Device::cuda(0).unwrap();
        let _context = cudarc::driver::CudaContext::new(0).unwrap();
        // SAFETY: memory that nobody gets.
        let more = unsafe { cudarc::driver::result::malloc_host(4096, 0) };
        assert!(more.is_err(), "all that can be pinned has been");
        run(3, |comm| {
            let device = Device::cuda(0)?;
            let gpus = comm.on(&device)?;
            let (stream, buffer) = (device.stream()?, gpus.allocate::<f32>(1 << 20)?);
            let gathered = device.allocate::<f32>(1 << 20)?;
            for count in [1, 1000, 100_000, 1 << 20] {
                let part = buffer.part(..count)?;
                stream.write(&part, &vec![1.0; count])?;
                gpus.all_reduce_in_place(&part, ReduceOp::Sum, &stream)?;
                gpus.all_gather(&buffer.part(..count / 3)?, &gathered.part(..count / 3 * 3)?, &stream)?;
                assert_eq!(stream.read(&part)?, vec![3.0; count]);
            }
            let graph = stream.capture(|stream| gpus.all_reduce_in_place(&buffer, ReduceOp::Max, stream))?;
            comm.barrier()?;
            graph.launch(&stream)?;
            assert_eq!(stream.read(&buffer)?, vec![3.0; 1 << 20]);
            stream.call(|| {})?;
            gpus.barrier(&stream)?;
            stream.synchronize()?;
            // And far more of it one after the other than there is at a time.
            let shared = comm.rank() == 0;
            for bytes in (0..20).map(|turn| (8 << 20) - 1000 * turn).filter(|_| shared) {
                assert_eq!(stream.read(&device.allocate::<u8>(bytes)?)?.len(), bytes);
                drop(device.words(bytes / 16)?);
            }
            comm.barrier()
        })
        .unwrap();
    });
}

/// A host that lets less be pinned has devices all the same.
#[test]
fn as_much_is_pinned_as_can_be() {
    alone("memory::as_much_is_pinned_as_can_be", &[("STANDIN_PINNED", "3")], || {
        let device = Device::cuda(0).unwrap();
        let stream = device.stream().unwrap();
        let long = device.allocate::<u8>(2 << 20).unwrap();
        let short = long.part(..1 << 20).unwrap();
        for _ in 0..10 {
            assert_eq!(stream.read(&short).unwrap().len(), 1 << 20);
            let words = [1, 100, 10_000].map(|count| device.words(count).unwrap());
            assert!(words.iter().all(|words| words.get()[0].load(Ordering::Relaxed) == 0));
            words.iter().for_each(|words| words.get()[0].store(1, Ordering::Relaxed));
        }
        let why = stream.read(&long).unwrap_err().to_string();
        assert!(why.contains("allocating 2097152 bytes: cuMemHostAlloc answers CUDA_ERROR_OUT_OF_MEMORY (2)"), "{why}");
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

/// Runs `body` on two processes over the stand-in.
fn two(name: &str, body: impl FnOnce(Communicator)) {
    let Some(library) = standin::library() else { return };
    let variables = [("LD_LIBRARY_PATH", library.to_str().unwrap()), ("STANDIN_MEMORY", "2048")];
    for rank in ranks::start(&[0, 1], 2, name, &variables, || body(Communicator::from_env().unwrap())) {
        assert!(rank.status.success(), "rank {}: {}", rank.rank, rank.output);
    }
}

/// What another process has freed may still be mapped when it exports what it has there now.
#[test]
fn an_address_that_is_used_again_is_imported() {
    two("memory::an_address_that_is_used_again_is_imported", |comm| {
        let device = Device::cuda(0).unwrap();
        let stream = device.stream().unwrap();
        let exchange = |own: Option<&DeviceBuffer<u8>>| {
            let name = own.map_or([0; IpcHandle::BYTES], |own| own.export().unwrap().to_bytes());
            let mut names = [0; 2 * IpcHandle::BYTES];
            comm.all_gather(&name, &mut names).unwrap();
            IpcHandle::from_bytes(names[IpcHandle::BYTES..].try_into().unwrap())
        };
        // So much that what else is mapped meanwhile does not take all of the place.
        const BYTES: usize = 64 << 20;
        let allocate = || device.allocate_mappable::<u8>(BYTES).unwrap();
        if std::env::var("RANK").unwrap() == "1" {
            let first = allocate();
            exchange(Some(&first));
            exchange(None);
            let address = first.address();
            drop(first);
            let others: Vec<DeviceBuffer<u8>> = (0..4).map(|_| allocate()).collect();
            let overlaps = |other: &&DeviceBuffer<u8>| other.address().abs_diff(address) < BYTES as u64;
            let second = others.iter().find(overlaps).expect("the place is used again");
            stream.fill(second, 7).unwrap();
            stream.synchronize().unwrap();
            exchange(Some(second));
            exchange(None);
            return;
        }
        let first = device.import::<u8>(&exchange(None)).unwrap();
        exchange(None);
        let name = exchange(None);
        let why = device.import::<u8>(&name).unwrap_err().to_string();
        assert!(why.contains("cuIpcOpenMemHandle_v2 answers CUDA_ERROR_ALREADY_MAPPED (208)"), "{why}");
        stream.call(|| std::thread::sleep(Duration::from_millis(100))).unwrap();
        drop(first);
        let second = device.import::<u8>(&name).unwrap();
        assert_eq!(stream.read(&second.part(BYTES - 1000..).unwrap()).unwrap(), [7; 1000]);
        exchange(None);
    });
}

/// A driver may not say how long memory is that another process allocated.
#[test]
fn who_exports_says_how_long_it_is() {
    two("memory::who_exports_says_how_long_it_is", |comm| {
        let imports = comm.rank() == 0;
        if imports {
            // SAFETY: this process has no other thread that writes to the environment, and the stand-in reads it at its
            // first call.
            unsafe { std::env::set_var("STANDIN_FAIL", "cuMemGetAddressRange_v2=1") };
        }
        let device = Device::cuda(0).unwrap();
        let own = (!imports).then(|| device.allocate_mappable::<f32>(3000).unwrap());
        let mut name = own.as_ref().map_or([0; IpcHandle::BYTES], |own| own.export().unwrap().to_bytes());
        comm.broadcast_in_place(&mut name, 1).unwrap();
        if imports {
            let theirs = device.import::<f32>(&IpcHandle::from_bytes(&name)).unwrap();
            assert_eq!(device.stream().unwrap().read(&theirs).unwrap(), [0.0; 3000]);
            // A page, and no more.
            name[72..80].copy_from_slice(&(1_u64 << 19).to_le_bytes());
            device.import::<f32>(&IpcHandle::from_bytes(&name)).unwrap();
            name[72..80].copy_from_slice(&((1_u64 << 19) + 1).to_le_bytes());
            assert!(
                invalid(device.import::<f32>(&IpcHandle::from_bytes(&name))).contains("the imported name is damaged")
            );
        }
        comm.barrier().unwrap();
    });
}

/// An owner frees what nobody else maps, whatever else runs.
#[test]
fn who_closes_unmaps_before_others_free() {
    /// How many allocations of devices are mapped here, of whichever process.
    fn mapped() -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("stand-in device memory")).count()
    }
    two("memory::who_closes_unmaps_before_others_free", |comm| {
        let device = Device::cuda(0).unwrap();
        let (stream, other, begin) = (device.stream().unwrap(), device.stream().unwrap(), mapped());
        let sleep = || other.call(|| std::thread::sleep(Duration::from_millis(200))).unwrap();
        let gpus = comm.on(&device).unwrap();
        let arenas = mapped();
        let buffer = gpus.allocate::<f32>(1000).unwrap();
        gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
        assert_eq!(mapped(), arenas + 2);
        sleep();
        gpus.deregister(&buffer).unwrap();
        assert_eq!(mapped(), arenas + 1, "the peer's buffer is mapped still");
        gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
        sleep();
        gpus.close().unwrap();
        // Its own, it has freed too.
        assert_eq!(mapped(), begin + 1, "the peer's arenas are mapped still");
    });
}
