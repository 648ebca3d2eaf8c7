// SPDX-License-Identifier: MPL-2.0
//! A cache of device memory, for tensors that come and go within each step.
//!
//! Blocks have sizes of few classes, four to a doubling, so that a block of one tensor does for others. A tensor that
//! is dropped leaves its block to the next one that asks, while the device may still be using it:
//!
//! - on the same stream at once. What the next tensor is used for is enqueued behind what the last one was used for.
//! - on another stream when the marks of all that uses the block have passed, each an event behind an operation. Until
//!   then that stream gets other memory, and so waits for nobody.
//!
//! Neither rule is what keeps results right: the driver's notes of who uses which bytes put any two uses in order, also
//! if a part of a tensor outlives it, or is used on a third stream. They are there so that nobody waits.
//!
//! A captured step keeps its blocks: launched, it writes to them, though they are in the cache. So tensors of steps and
//! lasting ones never get each other's blocks, and a tensor of a step is not to outlive it.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::account::{MemoryReport, TensorClass};
use crate::driver::{Device, DeviceBuffer, Stream, WeakStream};
use crate::element::Element;
use crate::error::{Error, Result};

/// The smallest block, in bytes; all others are multiples of it.
const SMALLEST: usize = 256;

/// The memory of a device for tensors. Clones are the same.
///
/// ```
/// use annulus::driver::Device;
/// use annulus::perceptron::{Memory, TensorClass};
///
/// # if Device::simulated(0).is_err() { return Ok(()) } // built without a C++ compiler
/// let device = Device::simulated(0)?;
/// let (memory, stream) = (Memory::new(&device), device.stream()?);
/// let address = memory.of_step::<f32>(TensorClass::Activations, 1000, &stream)?.address();
/// let next = memory.of_step::<u8>(TensorClass::Slopes, 3900, &stream)?;
/// assert_eq!((next.address(), memory.report().all().peak), (address, 4096));
/// # Ok::<(), annulus::Error>(())
/// ```
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    device: Device,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last to come is the first to go: a processor's caches may still have it.
    free: Vec<Free>,
    report: MemoryReport,
}

/// A block that no tensor has.
struct Free {
    block: DeviceBuffer<u8>,
    is_lasting: bool,
    /// Whose it was last, and on which stream.
    class: TensorClass,
    stream: WeakStream,
}

/// A tensor in device memory, a buffer whose memory is left to others when this is dropped: use no clone of the buffer,
/// and no part of it, after that.
pub struct DeviceTensor<T: Element> {
    buffer: DeviceBuffer<T>,
    block: DeviceBuffer<u8>,
    is_lasting: bool,
    class: TensorClass,
    stream: WeakStream,
    shared: Arc<Shared>,
}

impl Memory {
    /// Of this device, with nothing cached.
    pub fn new(device: &Device) -> Self {
        Memory { shared: Arc::new(Shared { device: device.clone(), state: Mutex::default() }) }
    }

    /// A tensor of a step, which will be used on this stream first. What is in it is not said.
    ///
    /// # Errors
    ///
    /// `System` where memory is exhausted, and nothing is cached any more.
    pub fn of_step<T: Element>(&self, class: TensorClass, elements: usize, stream: &Stream) -> Result<DeviceTensor<T>> {
        self.allocate(class, false, elements, stream)
    }

    /// A tensor that may be there during any step, with zeros in it once the stream has come to them.
    ///
    /// # Errors
    ///
    /// As [`of_step`](Self::of_step); those of filling.
    pub fn lasting<T: Element>(&self, class: TensorClass, elements: usize, stream: &Stream) -> Result<DeviceTensor<T>> {
        let tensor = self.allocate(class, true, elements, stream)?;
        stream.fill(&tensor, T::zeroed())?;
        Ok(tensor)
    }

    fn allocate<T: Element>(
        &self,
        class: TensorClass,
        is_lasting: bool,
        elements: usize,
        stream: &Stream,
    ) -> Result<DeviceTensor<T>> {
        let size = elements.checked_mul(size_of::<T>()).and_then(block_size);
        let size = size.ok_or_else(|| {
            let (device, data_type) = (&self.shared.device, T::DATA_TYPE);
            Error::invalid(format!("{device} has no memory for {elements} {data_type}; ask for fewer"))
        })?;
        let block = match self.shared.reuse(class, is_lasting, size, stream) {
            Some(block) => block,
            None => self.shared.grow(class, size)?,
        };
        // A block begins where an allocation does, which is aligned for every type, and has all of these elements.
        let buffer = block.cast::<T>()?.part(..elements)?;
        let (stream, shared) = (stream.downgrade(), self.shared.clone());
        Ok(DeviceTensor { buffer, block, is_lasting, class, stream, shared })
    }

    /// Counts memory as a tensor's that was allocated elsewhere, and is as long as this.
    pub(super) fn count(&self, class: TensorClass, bytes: usize) {
        self.shared.state().report.take(class, bytes, None);
    }

    /// What tensors have, had, and had at the most.
    pub fn report(&self) -> MemoryReport {
        self.shared.state().report.clone()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of the cache that a tensor may have on this stream.
    fn reuse(&self, class: TensorClass, is_lasting: bool, size: usize, stream: &Stream) -> Option<DeviceBuffer<u8>> {
        let mut state = self.state();
        let fits = |free: &Free| free.block.len() == size && free.is_lasting == is_lasting;
        let own = state.free.iter().rposition(|free| fits(free) && free.stream.is(stream));
        let place = own.or_else(|| state.free.iter().rposition(|free| fits(free) && free.block.is_idle()))?;
        let free = state.free.remove(place);
        state.report.take(class, size, Some(free.class));
        Some(free.block)
    }

    /// New memory; if there is none, what is cached is given back first.
    fn grow(&self, class: TensorClass, size: usize) -> Result<DeviceBuffer<u8>> {
        let block = self.device.allocate(size).or_else(|_| {
            let mut state = self.state();
            let cached = std::mem::take(&mut state.free);
            cached.iter().for_each(|free| state.report.give_back(free.class, free.block.len()));
            drop(state);
            drop(cached);
            self.device.allocate(size)
        })?;
        self.state().report.take(class, size, None);
        Ok(block)
    }
}

/// The size of the block for so many bytes: four sizes to a doubling, so less than a fifth of it is for nothing, but
/// for small ones. `None` if there is none.
fn block_size(bytes: usize) -> Option<usize> {
    // 2^k of the doubling, from 2^k, exclusive, to 2^(k + 1), inclusive.
    let below = bytes.checked_sub(1).and_then(usize::checked_ilog2).map_or(1, |k| 1_usize << k);
    bytes.max(1).checked_next_multiple_of(SMALLEST.max(below / 4)).filter(|size| *size <= isize::MAX as usize)
}

impl<T: Element> Deref for DeviceTensor<T> {
    type Target = DeviceBuffer<T>;

    fn deref(&self) -> &DeviceBuffer<T> {
        &self.buffer
    }
}

impl<T: Element> Drop for DeviceTensor<T> {
    fn drop(&mut self) {
        let (block, stream) = (self.block.clone(), self.stream.clone());
        let mut state = self.shared.state();
        state.report.cache(self.class, block.len());
        state.free.push(Free { block, is_lasting: self.is_lasting, class: self.class, stream });
    }
}

impl<T: Element> fmt::Debug for DeviceTensor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceTensor({}, {:?})", self.class, self.buffer)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({:?} of {})", self.report().all(), self.shared.device)
    }
}

#[cfg(test)]
mod tests {
    use super::block_size;

    #[test]
    fn sizes_are_few_and_not_much_too_large() {
        let by_hand = [
            (0, 256),
            (1, 256),
            (256, 256),
            (257, 512),
            (1024, 1024),
            (1025, 1280),
            (1281, 1536),
            (2048, 2048),
            (2049, 2560),
            (3680, 4096),
            (1 << 20, 1 << 20),
            ((1 << 20) + 1, 5 << 18),
        ];
        for (bytes, size) in by_hand {
            assert_eq!(block_size(bytes), Some(size), "{bytes}");
        }
        let mut sizes = std::collections::BTreeSet::new();
        for bytes in 1..=40_000 {
            let size = block_size(bytes).unwrap();
            assert!(size >= bytes && size.is_multiple_of(256), "{bytes}: {size}");
            assert!(size - bytes < 256 || (size - bytes) * 5 < size, "{bytes}: {size}");
            assert_eq!(block_size(size), Some(size), "a block of {size} is no block of its own size");
            sizes.insert(size);
        }
        assert_eq!(sizes.len(), 4 + 4 * 5 + 1); // to 1 KiB, to 32 KiB, and one of 40 KiB
        assert_eq!((block_size(usize::MAX), block_size(isize::MAX as usize)), (None, None));
    }
}
