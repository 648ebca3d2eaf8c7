// SPDX-License-Identifier: MPL-2.0
//! The arguments of kernels: one struct each, as the kernel's own source declares it.

use super::arena::WORDS;
use crate::element::{DataType, ReduceOp};

/// The most sources, and the most destinations, of a [`Fold`] or [`FoldPartials`].
pub const SOURCES: usize = 16;

/// `fold_*` (`kernels/fold.cu`): folds sources in their order and stores the result to each destination.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Fold {
    /// Addresses of the sources, of which `sources` are used.
    pub from: [u64; SOURCES],
    /// Addresses of the destinations, of which `destinations` are used; any may be one of the sources.
    pub to: [u64; SOURCES],
    /// Elements to fold.
    pub elements: u64,
    /// By [`operation`].
    pub factor: u64,
    /// 1 to [`SOURCES`].
    pub sources: u32,
    /// 1 to [`SOURCES`].
    pub destinations: u32,
    /// By [`operation`].
    pub operation: u32,
    /// What an average divides by.
    pub ranks: u32,
}

impl Fold {
    /// A fold of the elements at each of `from`, stored at each of `to`; of either at most [`SOURCES`] count. `op` must
    /// apply to the type.
    pub fn new(op: ReduceOp, data_type: DataType, elements: usize, from: &[u64], to: &[u64], ranks: usize) -> Self {
        let addresses = |given: &[u64]| std::array::from_fn(|place| given.get(place).copied().unwrap_or(0));
        let count = |given: &[u64]| given.len().min(SOURCES) as u32;
        let (operation, factor) = operation(op, data_type);
        Fold {
            from: addresses(from),
            to: addresses(to),
            elements: elements as u64,
            factor,
            sources: count(from),
            destinations: count(to),
            operation,
            ranks: ranks as u32,
        }
    }
}

/// `fold_partials_*` (`kernels/fold_partials.cu`): the same where sources or destinations hold what folds carry.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct FoldPartials {
    /// What is folded. Any destination may be one of the sources of its kind.
    pub fold: Fold,
    /// Bit i: source i holds partials, of the type of the fold's accumulator.
    pub partial_from: u32,
    /// Bit i: destination i holds partials.
    pub partial_to: u32,
}

/// `convert_*` (`kernels/convert.cu`): `to = from * factor`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Convert {
    /// Address of the source.
    pub from: u64,
    /// Address of the destination.
    pub to: u64,
    /// Address of a word that becomes 1 where an infinity or a NaN is stored; 0: nobody asks.
    pub overflow: u64,
    /// Elements to convert.
    pub elements: u64,
    /// What each is multiplied by, in f32.
    pub factor: f32,
    /// Zero.
    pub unused: u32,
}

/// The arguments of every collective (`kernels/pad.h`). What `elements` counts, each kernel says.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Collective {
    /// Of the call's descriptor: ranks with different ones end the call, and report it.
    pub hash: u64,
    /// Address of a table: entry `region * world + rank` is where this rank sees that rank's region. Region 0 are the
    /// arenas.
    pub regions: u64,
    /// Address of this rank's state: [`STATE_BYTES`](super::STATE_BYTES) bytes, zero before the first call, its own.
    pub state: u64,
    /// Address of this rank's [`Report`](super::Report), zero before the first call, which the host reads.
    pub report: u64,
    /// Address of the abort word: not 0 ends the call.
    pub abort: u64,
    /// Nanoseconds that one wait may take.
    pub patience: u64,
    /// Address of what this rank gives.
    pub from: u64,
    /// Address of what it gets.
    pub to: u64,
    /// The [`Place`](super::Place) where peers find `from`, or staged.
    pub from_place: u64,
    /// The place where peers find `to`, or staged.
    pub to_place: u64,
    /// As the kernel says.
    pub elements: u64,
    /// Of kernels that move parts: bytes from one rank's part to the next one's, where they lie side by side.
    pub stride: u64,
    /// By [`operation`].
    pub factor: u64,
    /// Offset of the packets in the arenas.
    pub packets: u64,
    /// Packets of one rank and parity.
    pub lines: u64,
    /// Offset of the staging halves in the arenas.
    pub staging: u64,
    /// Bytes of a half.
    pub half: u64,
    /// By [`operation`].
    pub operation: u32,
    /// The root, where there is one.
    pub root: u32,
    /// This rank.
    pub rank: u32,
    /// How many ranks there are, 1 to [`RANKS`](super::RANKS).
    pub world: u32,
    /// The descriptor, of which `hash` is.
    pub call: [u64; WORDS],
    /// Address of [`LAUNCHES`](super::LAUNCHES) [`Stamps`](super::Stamps), which the host reads; 0: nobody asks.
    pub journal: u64,
    /// The launch, as the host counts: its stamps are those at `number` modulo [`LAUNCHES`](super::LAUNCHES).
    pub number: u64,
}

/// The most marks of one launch of `flags`.
pub const MARKS: usize = 32;

/// A flag that is raised or awaited.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Mark {
    /// Of a flag that is raised: the rank that is to see it; of one that is awaited: the rank whose it is.
    pub rank: u32,
    /// Which of the writer's flags, below [`FLAGS`](super::FLAGS).
    pub flag: u32,
    /// By how much its value is less than at the end of the call.
    pub before_end: u64,
}

/// `flags` (`kernels/flags.cu`): raises flags of this rank, then waits for flags of others.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Flags {
    /// The call; of its members `regions` to `patience`, `rank` and `world` count.
    pub call: Collective,
    /// How many are raised.
    pub raised: u32,
    /// How many are awaited: [`MARKS`] at the most together.
    pub awaited: u32,
    /// Not 0: it is the end of the call, which is stamped.
    pub closes: u32,
    /// Zero.
    pub unused: u32,
    /// First those that are raised, then those that are awaited.
    pub marks: [Mark; MARKS],
}

/// The most messages of one launch of `messages`.
pub const MESSAGES: usize = 64;

/// What a rank sends to another, or receives from it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Message {
    /// Address of what is sent, or of where it is received.
    pub address: u64,
    /// Of what is sent: the [`Place`](super::Place) where the receiver finds it, or staged.
    pub place: u64,
    /// How many bytes there are.
    pub bytes: u64,
    /// What both ranks must name alike; not 0.
    pub contents: u64,
    /// The other rank.
    pub peer: u32,
    /// Blocks that move it, which follow from `bytes`: 1 to those of the launch.
    pub blocks: u32,
    /// The message that comes before it, of the same peer and direction; or [`NONE`](Self::NONE).
    pub before: u32,
    /// Zero.
    pub unused: u32,
}

impl Message {
    /// There is no message before it.
    pub const NONE: u32 = u32::MAX;
}

/// `messages` (`kernels/messages.cu`): what a rank sends and receives, all at once.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Messages {
    /// Of its members `regions` to `patience`, `rank`, `world`, `journal` and `number` count.
    pub call: Collective,
    /// Offset of the slots in the arenas.
    pub slots: u64,
    /// Bytes of a slot.
    pub slot: u64,
    /// Bytes from the slots of one receiver to those of the next.
    pub room: u64,
    /// How many are sent.
    pub sends: u32,
    /// How many there are: [`MESSAGES`] at the most.
    pub messages: u32,
    /// First those that are sent, then those that are received.
    pub message: [Message; MESSAGES],
}

/// `relay` (`kernels/relay.cu`): tells of what copies have moved of a message, and waits until they can move more.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Relay {
    /// One message, of one block.
    pub batch: Messages,
    /// Pieces of it that were moved; of what is sent, at least one.
    pub moved: u32,
    /// Zero.
    pub unused: u32,
}

/// The words `operation` and `factor` of a fold of such elements. The operation must apply to the type.
pub fn operation(op: ReduceOp, data_type: DataType) -> (u32, u64) {
    let factor = match op {
        ReduceOp::PreMulSum(factor) => match (factor.as_f64(), data_type) {
            (Some(value), DataType::F64) => value.to_bits(),
            (Some(value), _) => u64::from((value as f32).to_bits()),
            (None, _) => factor.bits(),
        },
        _ => 0,
    };
    (u32::from(op.number()), factor)
}
