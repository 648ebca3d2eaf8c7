// SPDX-License-Identifier: MPL-2.0
//! The trainer's kernels, of every type, and those of one device: the same bits in every schedule.

use annulus::driver::{Device, DeviceBuffer, Shape, Use, strict};
use annulus::kernel::training::{
    Activate, AdamW, AdamWBegin, AdamWStep, COPY_BF16, ColumnSum, CrossEntropy, FindOverflow, Pick, Product, RECTIFIER,
    Scaling, Sgd, UpdateScale,
};
use annulus::kernel::{Convert, Kernel};
use annulus::{Element, bf16, f16};

use super::{SEEDS, simulated};

const ROWS: usize = 7;
const COLUMNS: usize = 67;
const INNER: usize = 35;

/// A device, and what its kernels have written.
struct Bench<'a> {
    device: &'a Device,
    got: Vec<u8>,
    drawn: u32,
}

/// Numbers of a type between -1 and 1.
trait Number: Element {
    fn of(value: f32) -> Self;
}
impl Number for f32 {
    fn of(value: f32) -> Self {
        value
    }
}
impl Number for f16 {
    fn of(value: f32) -> Self {
        f16::from_f32_const(value)
    }
}
impl Number for bf16 {
    fn of(value: f32) -> Self {
        bf16::from_f32_const(value)
    }
}

impl Bench<'_> {
    /// A buffer with as many numbers, which are the same on each device.
    fn numbers<T: Number>(&mut self, count: usize) -> annulus::Result<DeviceBuffer<T>> {
        let mut number = || {
            self.drawn = self.drawn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            T::of((self.drawn >> 8) as f32 / (1 << 23) as f32 - 1.0)
        };
        super::upload(self.device, &(0..count).map(|_| number()).collect::<Vec<T>>())
    }

    fn bytes<T: bytemuck::Pod>(&self, values: &[T]) -> annulus::Result<DeviceBuffer<u8>> {
        super::upload(self.device, bytemuck::cast_slice::<T, u8>(values))
    }

    /// Launches a kernel that reads and writes these, and waits for it.
    fn launch<A: bytemuck::Pod>(&self, kernel: Kernel, argument: A, uses: &[Use]) -> annulus::Result<()> {
        let stream = self.device.stream()?;
        let loaded = self.device.kernel(&kernel.to_string())?;
        // SAFETY: callers give the kernel's own argument, whose addresses are of the buffers in `uses`, which are as long
        // as it says.
        unsafe { stream.launch(&loaded, Shape::new(2, 96), bytemuck::bytes_of(&argument), uses) }?;
        stream.synchronize()
    }

    fn keep<T: Element>(&mut self, buffer: &DeviceBuffer<T>) -> annulus::Result<()> {
        self.got.extend_from_slice(bytemuck::cast_slice(&super::read(self.device, buffer)?));
        Ok(())
    }

    fn pick<T: Number>(&mut self) -> annulus::Result<()> {
        let (inputs, to) = (self.numbers::<T>(ROWS * COLUMNS)?, self.numbers::<T>(3 * COLUMNS)?);
        let [labels, order] =
            [(0..ROWS as u32).collect(), vec![5_u32, 0, 5]].map(|all| super::upload(self.device, &all));
        let (labels, order, to_labels) = (labels?, order?, super::upload(self.device, &[9_u32; 3])?);
        let argument = Pick {
            inputs: inputs.address(),
            labels: labels.address(),
            order: order.address(),
            to: to.address(),
            to_labels: to_labels.address(),
            rows: 3,
            bytes: (COLUMNS * size_of::<T>()) as u64,
        };
        let reads = [&labels, &order].map(Use::reads).into_iter().chain([Use::reads(&inputs)]);
        let uses: Vec<Use> = reads.chain([Use::writes(&to), Use::writes(&to_labels)]).collect();
        self.launch(Kernel::Pick, argument, &uses)?;
        self.keep(&to)?;
        self.keep(&to_labels)
    }

    fn product<T: Number, To: Number>(&mut self) -> annulus::Result<()> {
        let (left, right) = (self.numbers::<T>(ROWS * INNER)?, self.numbers::<T>(INNER * COLUMNS)?);
        let [rows, columns, inner] = [ROWS as u64, COLUMNS as u64, INNER as u64];
        for small in [0, 1] {
            let to = self.numbers::<To>(ROWS * COLUMNS)?;
            let argument = Product {
                left: left.address(),
                right: right.address(),
                to: to.address(),
                rows,
                columns,
                inner,
                left_row: inner,
                left_column: 1,
                right_row: columns,
                right_column: 1,
                accumulate: 1,
                small,
            };
            let uses = [Use::reads(&left), Use::reads(&right), Use::writes(&to)];
            self.launch(Kernel::Product { from: T::DATA_TYPE, to: To::DATA_TYPE }, argument, &uses)?;
            self.keep(&to)?;
        }
        Ok(())
    }

    fn column_sum<T: Number, To: Number>(&mut self) -> annulus::Result<()> {
        let [from, output] = [(); 2].map(|()| self.numbers::<T>(ROWS * COLUMNS));
        let (from, output, to) = (from?, output?, self.numbers::<To>(COLUMNS)?);
        let argument = ColumnSum {
            from: from.address(),
            output: output.address(),
            to: to.address(),
            rows: ROWS as u64,
            columns: COLUMNS as u64,
            accumulate: 1,
            unused: 0,
        };
        let kernel = Kernel::ColumnSum { from: T::DATA_TYPE, to: To::DATA_TYPE };
        self.launch(kernel, argument, &[Use::reads(&output), Use::writes(&from), Use::writes(&to)])?;
        self.keep(&from)?;
        self.keep(&to)
    }

    fn activate<T: Number>(&mut self) -> annulus::Result<()> {
        let elements = ROWS * COLUMNS;
        let (from, bias, to) =
            (self.numbers::<T>(elements)?, self.numbers::<T>(COLUMNS)?, self.numbers::<T>(elements)?);
        let argument = Activate {
            from: from.address(),
            bias: bias.address(),
            to: to.address(),
            elements: elements as u64,
            columns: COLUMNS as u64,
            activation: RECTIFIER,
            unused: 0,
        };
        let uses = [Use::reads(&from), Use::reads(&bias), Use::writes(&to)];
        self.launch(Kernel::Activate(T::DATA_TYPE), argument, &uses)?;
        self.keep(&to)
    }

    fn loss<T: Number>(&mut self) -> annulus::Result<()> {
        let elements = ROWS * COLUMNS;
        let labels: Vec<u32> = (0..ROWS as u32).map(|row| row * 9).collect();
        let (logits, labels) = (self.numbers::<T>(elements)?, super::upload(self.device, &labels)?);
        let (losses, to) = (self.numbers::<f32>(ROWS)?, self.numbers::<T>(elements)?);
        let scaling = self.bytes(&[Scaling::new(8.0)])?;
        let each = CrossEntropy {
            logits: logits.address(),
            labels: labels.address(),
            losses: losses.address(),
            scaling: scaling.address(),
            to: to.address(),
            rows: ROWS as u64,
            classes: COLUMNS as u64,
            denominator: ROWS as f32,
            unused: 0,
        };
        let mut uses = vec![Use::reads(&logits), Use::reads(&labels), Use::reads(&scaling)];
        uses.extend([Use::writes(&losses), Use::writes(&to)]);
        self.launch(Kernel::CrossEntropy(T::DATA_TYPE), each, &uses)?;
        self.keep(&losses)?;
        self.keep(&to)
    }

    fn updates<T: Number>(&mut self) -> annulus::Result<()> {
        let (gradients, copy) = (self.numbers::<T>(COLUMNS)?, self.numbers::<bf16>(COLUMNS)?);
        let [weights, first, second] = [(); 3].map(|()| self.numbers::<f32>(COLUMNS));
        let (weights, first, second) = (weights?, first?, second?);
        let (scaling, step) = (self.bytes(&[Scaling::new(8.0)])?, self.bytes(&[AdamWStep::START])?);
        let elements = COLUMNS as u64;
        let find = FindOverflow { from: gradients.address(), scaling: scaling.address(), elements };
        let shared = || [Use::reads(&gradients), Use::writes(&scaling), Use::writes(&weights)];
        self.launch(Kernel::FindOverflow(T::DATA_TYPE), find, &shared())?;
        let sgd = Sgd {
            weights: weights.address(),
            velocities: first.address(),
            gradients: gradients.address(),
            copy: copy.address(),
            scaling: scaling.address(),
            elements,
            rate: 0.1,
            momentum: 0.9,
            copy_type: COPY_BF16,
            unused: 0,
        };
        let uses = || shared().into_iter().chain([Use::writes(&first), Use::writes(&second), Use::writes(&copy)]);
        self.launch(Kernel::Sgd(T::DATA_TYPE), sgd, &uses().collect::<Vec<_>>())?;
        let begin = AdamWBegin {
            step: step.address(),
            scaling: scaling.address(),
            rate: 0.1,
            beta1: 0.9,
            beta2: 0.99,
            unused: 0,
        };
        self.launch(Kernel::AdamWBegin, begin, &[Use::writes(&step), Use::reads(&scaling)])?;
        let adamw = AdamW {
            weights: weights.address(),
            moments: first.address(),
            squares: second.address(),
            gradients: gradients.address(),
            copy: copy.address(),
            step: step.address(),
            scaling: scaling.address(),
            elements,
            beta1: 0.9,
            beta2: 0.99,
            first: 0.1,
            second: 0.01,
            keep: 0.999,
            epsilon: 1e-8,
            copy_type: COPY_BF16,
            unused: 0,
        };
        let uses: Vec<Use> = uses().chain([Use::reads(&step)]).collect();
        self.launch(Kernel::AdamW(T::DATA_TYPE), adamw, &uses)?;
        let scale = UpdateScale { scaling: scaling.address(), interval: 1, unused: 0 };
        self.launch(Kernel::UpdateScale, scale, &[Use::writes(&scaling)])?;
        self.keep(&weights)?;
        self.keep(&copy)?;
        self.keep(&scaling)
    }

    fn convert<T: Number, To: Number>(&mut self) -> annulus::Result<()> {
        let (from, to) = (self.numbers::<T>(COLUMNS)?, self.numbers::<To>(COLUMNS)?);
        let overflow = super::upload(self.device, &[0_u32])?;
        let argument = Convert {
            from: from.address(),
            to: to.address(),
            overflow: overflow.address(),
            elements: COLUMNS as u64,
            factor: 0.5,
            unused: 0,
        };
        let uses = [Use::reads(&from), Use::writes(&to), Use::writes(&overflow)];
        self.launch(Kernel::Convert { from: T::DATA_TYPE, to: To::DATA_TYPE }, argument, &uses)?;
        self.keep(&to)
    }
}

/// What all kernels write, byte by byte.
fn all(device: &Device) -> annulus::Result<Vec<u8>> {
    let mut bench = Bench { device, got: Vec::new(), drawn: 1 };
    macro_rules! of_each_type {
        ($($type:ty)*) => {$(
            bench.pick::<$type>()?;
            bench.product::<$type, $type>()?;
            bench.column_sum::<$type, $type>()?;
            bench.activate::<$type>()?;
            bench.loss::<$type>()?;
            bench.updates::<$type>()?;
        )*};
    }
    of_each_type!(f32 f16 bf16);
    bench.product::<f16, f32>()?;
    bench.product::<bf16, f32>()?;
    bench.column_sum::<f16, f32>()?;
    bench.column_sum::<bf16, f32>()?;
    bench.convert::<f32, f16>()?;
    bench.convert::<f32, bf16>()?;
    bench.convert::<f16, f32>()?;
    bench.convert::<bf16, f32>()?;
    Ok(bench.got)
}

/// Whether kernels write in every schedule what they write on other devices, or a sentence about the first that does not.
pub fn everything_agrees() -> Result<(), String> {
    let strict = strict::agree(SEEDS, all).map_err(|error| error.to_string())?;
    let quick = Device::simulated(0).and_then(|device| all(&device)).map_err(|error| error.to_string())?;
    if strict == quick { Ok(()) } else { Err("the results are not those of other simulated devices".into()) }
}

#[test]
fn the_trainers_kernels_give_the_same_bits_in_every_schedule() {
    if !simulated::absent() {
        everything_agrees().unwrap();
    }
}
