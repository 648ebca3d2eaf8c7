// SPDX-License-Identifier: MPL-2.0
//! A user's own streams and memory: cudarc's, and raw ones.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use annulus::driver::{Device, DeviceBuffer, Stream};
use annulus::{ReduceOp, run};
use cudarc::driver::{CudaContext, CudaSlice, DevicePtr, DevicePtrMut, sys};

use super::{alone, invalid};

#[test]
fn streams_and_memory_of_cudarc_work() {
    alone("borrowed::streams_and_memory_of_cudarc_work", &[], || {
        let context = CudaContext::new(0).unwrap();
        let theirs = context.new_stream().unwrap();
        let stream = Stream::try_from(theirs.clone()).unwrap();
        assert_eq!(stream.device(), Device::cuda(0).unwrap());
        // One order, whoever enqueues.
        let mut slice = theirs.clone_htod(&[1.0_f32; 1000]).unwrap();
        let device = Device::cuda(0).unwrap();
        let address = slice.device_ptr_mut(&theirs).0;
        {
            // SAFETY: the memory lives as long as `slice`, and is used on its stream alone.
            let borrowed = unsafe { DeviceBuffer::<f32>::from_raw(&device, address, 1000) }.unwrap();
            stream.fill(&borrowed.part(..500).unwrap(), 2.0).unwrap();
        }
        let read = theirs.clone_dtoh(&slice).unwrap();
        theirs.synchronize().unwrap();
        assert_eq!((&read[..500], &read[500..]), (&[2.0; 500][..], &[1.0; 500][..]));

        // Memory that is given away is used after what cudarc has enqueued on it, on any stream.
        let (open, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        stream.call(move || gate.lock().unwrap().recv().unwrap_or_default()).unwrap();
        theirs.memcpy_htod(&[7.0_f32; 1000], &mut slice).unwrap();
        let buffer = DeviceBuffer::try_from(slice).unwrap();
        assert!(!buffer.is_mappable(), "cudarc allocates from the pool");
        let other = device.stream().unwrap();
        let copy = device.allocate::<f32>(1000).unwrap();
        other.copy(&buffer, &copy).unwrap();
        let event = device.event().unwrap();
        other.record(&event).unwrap();
        assert!(!event.has_passed().unwrap());
        open.send(()).unwrap();
        assert_eq!(other.read(&copy).unwrap(), [7.0; 1000]);
        // What is captured on their stream is a graph as any.
        let graph = stream.capture(|stream| stream.fill(&buffer, 9.0)).unwrap();
        graph.launch(&stream).unwrap();
        assert_eq!(other.read(&buffer).unwrap(), [9.0; 1000]);
        drop((buffer, graph, stream));
        theirs.synchronize().unwrap();
        context.check_err().unwrap();
    });
}

#[test]
fn collectives_run_on_memory_and_streams_of_cudarc() {
    alone("borrowed::collectives_run_on_memory_and_streams_of_cudarc", &[("STANDIN_MEMORY", "2048")], || {
        run(3, |comm| {
            let context = CudaContext::new(0).unwrap();
            let theirs = context.new_stream().unwrap();
            let stream = Stream::try_from(theirs.clone())?;
            let gpus = comm.on(&stream.device())?;
            let buffer = DeviceBuffer::try_from(theirs.clone_htod(&vec![comm.rank() as i32; 777]).unwrap())?;
            gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream)?;
            assert_eq!(stream.read(&buffer)?, [3; 777]);
            // An allocation of its own can be registered, then peers read it where it is.
            let plain = gpus.device().allocate_mappable::<i32>(777)?;
            // SAFETY: the memory lives as long as `plain`, and until the stream has been read.
            let raw = unsafe { DeviceBuffer::<i32>::from_raw(gpus.device(), plain.address(), 777) }?;
            gpus.register(&raw)?;
            stream.fill(&raw, 5)?;
            gpus.all_reduce_in_place(&raw, ReduceOp::Sum, &stream)?;
            assert_eq!(stream.read(&raw)?, [15; 777]);
            comm.barrier()
        })
        .unwrap();
    });
}

/// Whatever the user captures, and however.
#[test]
fn a_capture_of_the_users_is_left_in_peace() {
    alone("borrowed::a_capture_of_the_users_is_left_in_peace", &[], || {
        let (context, device) = (CudaContext::new(0).unwrap(), Device::cuda(0).unwrap());
        let theirs = context.new_stream().unwrap();
        let mut slice: CudaSlice<u32> = theirs.alloc_zeros(10).unwrap();
        theirs.synchronize().unwrap();
        let before = device.allocate_mappable::<u32>(10).unwrap();
        // SAFETY: what is used in the capture is allocated, and stays.
        unsafe { context.disable_event_tracking() };
        theirs.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
        let ours = || {
            let (stream, buffer) = (device.stream().unwrap(), device.allocate_mappable::<u32>(1000).unwrap());
            stream.fill(&buffer, 3).unwrap();
            assert_eq!(stream.read(&buffer).unwrap(), [3; 1000]);
            let graph = stream.capture(|stream| stream.fill(&buffer, 4)).unwrap();
            graph.launch(&stream).unwrap();
            assert_eq!(stream.read(&buffer).unwrap(), [4; 1000]);
        };
        ours();
        std::thread::scope(|scope| scope.spawn(ours).join().unwrap());
        drop(before);
        theirs.memset_zeros(&mut slice).unwrap();
        let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        assert!(theirs.end_capture(flags).unwrap().is_some(), "the capture was spoiled");
    });
}

/// What its owner's capture would take in is refused, and neither that capture nor the stream is the worse for it.
#[test]
fn nothing_is_enqueued_into_a_capture_of_the_owners() {
    alone("borrowed::nothing_is_enqueued_into_a_capture_of_the_owners", &[], || {
        let context = CudaContext::new(0).unwrap();
        let theirs = context.new_stream().unwrap();
        let stream = Stream::try_from(theirs.clone()).unwrap();
        let device = Device::cuda(0).unwrap();
        let (buffer, event) = (device.allocate::<u32>(100).unwrap(), device.event().unwrap());
        let slice = theirs.clone_htod(&[1.0_f32; 100]).unwrap();
        theirs.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
        let refused = [
            invalid(stream.fill(&buffer, 7)),
            invalid(stream.record(&event)),
            invalid(stream.wait(&event)),
            invalid(stream.synchronize()),
            invalid(stream.capture(|_| Ok(())).map(drop)),
        ];
        for sentence in refused {
            assert!(sentence.contains("captures a graph on it; capture by `Stream::capture`"), "{sentence}");
        }
        let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        drop(theirs.end_capture(flags).unwrap());
        stream.fill(&buffer, 9).unwrap();
        assert_eq!(stream.read(&buffer).unwrap(), [9; 100]);

        // Memory that is refused is dropped, which spoils the capture for cudarc.
        theirs.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
        assert!(invalid(DeviceBuffer::try_from(slice).map(drop)).contains("take the memory before that"));
        let _ = theirs.end_capture(flags);
    });
}

#[test]
fn what_cannot_be_borrowed_is_refused() {
    let variables = [("STANDIN_DEVICES", "2")];
    alone("borrowed::what_cannot_be_borrowed_is_refused", &variables, || {
        let context = CudaContext::new(0).unwrap();
        let theirs = context.default_stream();
        assert!(invalid(Stream::try_from(context.per_thread_stream())).contains("another in each thread"));
        let slice: CudaSlice<f32> = theirs.alloc_zeros(100).unwrap();
        let address = slice.device_ptr(&theirs).0;
        let [first, second] = [0, 1].map(|index| Device::cuda(index).unwrap());
        // SAFETY: what is refused is not used.
        let refused =
            |device: &Device, address, elements| unsafe { DeviceBuffer::<f32>::from_raw(device, address, elements) };
        assert!(invalid(refused(&first, address, 101)).contains("400 bytes left, fewer than 404"));
        assert!(invalid(refused(&first, address + 4, 100)).contains("396 bytes left"));
        assert!(invalid(refused(&first, address + 2, 10)).contains("not aligned for f32"));
        assert!(invalid(refused(&second, address, 100)).contains("of CUDA device 0, not 1"));
        let why = refused(&first, 4096, 1).unwrap_err().to_string();
        assert!(why.contains("looking at memory at 0x1000") && why.contains("cuMemGetAddressRange_v2"), "{why}");
        if let Ok(simulated) = Device::simulated(0) {
            assert!(invalid(refused(&simulated, address, 1)).contains("Device::cuda"));
            // SAFETY: as above.
            assert!(invalid(unsafe { Stream::from_raw(&simulated, std::ptr::null_mut()) }).contains("Device::cuda"));
        }
        // SAFETY: the default stream is there for good.
        let stream = unsafe { Stream::from_raw(&first, std::ptr::null_mut()) }.unwrap();
        stream.synchronize().unwrap();
    });
}
