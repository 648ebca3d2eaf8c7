// SPDX-License-Identifier: MPL-2.0
//! The kernels by name.

use std::fmt;

use crate::element::DataType;

/// A kernel that the library has; its name is what `Display` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Folds sources in their order; [`Fold`](super::Fold).
    Fold(DataType),
    /// Folds sources in their order, some of which, or of the destinations, hold partials;
    /// [`FoldPartials`](super::FoldPartials).
    FoldPartials(DataType),
    /// Converts f32 to f16 or bf16, or back; [`Convert`](super::Convert).
    Convert {
        /// The type of the source.
        from: DataType,
        /// The type of the destination.
        to: DataType,
    },
    /// A batch of samples; [`Pick`](super::training::Pick).
    Pick,
    /// Matrix product; [`Product`](super::training::Product). The result is of the operands' type, or f32.
    Product {
        /// The type of the operands.
        from: DataType,
        /// The type of the result.
        to: DataType,
    },
    /// Bias and activation; [`Activate`](super::training::Activate).
    Activate(DataType),
    /// The loss of each row, and the gradient of its logits; [`CrossEntropy`](super::training::CrossEntropy).
    CrossEntropy(DataType),
    /// The sum of each column; [`ColumnSum`](super::training::ColumnSum). The sums are of the elements' type, or f32.
    ColumnSum {
        /// The type of the elements.
        from: DataType,
        /// The type of the sums.
        to: DataType,
    },
    /// Looks for infinite gradients; [`FindOverflow`](super::training::FindOverflow).
    FindOverflow(DataType),
    /// Ends a step with a scaled loss; [`UpdateScale`](super::training::UpdateScale).
    UpdateScale,
    /// A step of gradient descent, by gradients of that type; [`Sgd`](super::training::Sgd).
    Sgd(DataType),
    /// Begins a step of AdamW; [`AdamWBegin`](super::training::AdamWBegin).
    AdamWBegin,
    /// A step of AdamW, by gradients of that type; [`AdamW`](super::training::AdamW).
    AdamW(DataType),
    /// Raises flags and waits for others; [`Flags`](super::Flags).
    Flags,
    /// Sends and receives messages; [`Messages`](super::Messages).
    Messages,
    /// Tells of what was moved of a message, and waits for what can be; [`Relay`](super::Relay).
    Relay,
    /// Nothing but entering; [`Collective`](super::Collective), as of all that follow. `elements`: by how much flags
    /// advance with the call, of which this is the entry.
    Barrier,
    /// All-reduce in which each rank reads everything. `elements`: the length.
    OneShot(DataType),
    /// All-reduce in which each rank folds a slice for all. `elements`: the length.
    TwoShot(DataType),
    /// Reduce in which each rank folds a slice for the root. `elements`: the length.
    Reduce(DataType),
    /// Reduce-scatter. `elements`: the length of one rank's slice.
    ReduceScatter(DataType),
    /// All-reduce round a ring, of fold order `Ring`. `elements`: the length.
    Ring(DataType),
    /// All-reduce of small messages, whose data carries its flags. `elements`: the length.
    LowLatency(DataType),
    /// All-gather of any type. `elements`: bytes of one rank's slice.
    AllGather,
    /// Broadcast of any type. `elements`: bytes of the message.
    Broadcast,
    /// Scatter of any type. `elements`: bytes that are moved of one rank's part; `stride`: bytes of the part, as of those
    /// that follow.
    Scatter,
    /// Gather of any type.
    Gather,
    /// All-to-all of any type.
    AllToAll,
}

impl Kernel {
    /// The file of `kernels/` that has it, without its ending.
    pub const fn unit(self) -> &'static str {
        match self {
            Kernel::Fold(_) => "fold",
            Kernel::FoldPartials(_) => "fold_partials",
            Kernel::Convert { .. } => "convert",
            Kernel::Pick => "pick",
            Kernel::Product { .. } => "product",
            Kernel::Activate(_) => "activate",
            Kernel::CrossEntropy(_) => "cross_entropy",
            Kernel::ColumnSum { .. } => "column_sum",
            Kernel::FindOverflow(_) | Kernel::UpdateScale => "loss_scale",
            Kernel::Sgd(_) => "sgd",
            Kernel::AdamWBegin | Kernel::AdamW(_) => "adamw",
            Kernel::Flags => "flags",
            Kernel::Messages => "messages",
            Kernel::Relay => "relay",
            Kernel::Barrier => "barrier",
            Kernel::OneShot(_) => "one_shot",
            Kernel::TwoShot(_) | Kernel::Reduce(_) | Kernel::ReduceScatter(_) => "two_shot",
            Kernel::Ring(_) => "ring",
            Kernel::LowLatency(_) => "low_latency",
            Kernel::AllGather | Kernel::Broadcast => "share",
            Kernel::Scatter | Kernel::Gather | Kernel::AllToAll => "parts",
        }
    }

    /// Whether it needs all its blocks on all ranks to be resident together.
    pub const fn is_collective(self) -> bool {
        matches!(
            self,
            Kernel::Barrier
                | Kernel::Flags
                | Kernel::Messages
                | Kernel::Relay
                | Kernel::OneShot(_)
                | Kernel::TwoShot(_)
                | Kernel::Reduce(_)
                | Kernel::ReduceScatter(_)
                | Kernel::Ring(_)
                | Kernel::LowLatency(_)
                | Kernel::AllGather
                | Kernel::Broadcast
                | Kernel::Scatter
                | Kernel::Gather
                | Kernel::AllToAll
        )
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kernel::Fold(data_type) => write!(f, "fold_{data_type}"),
            Kernel::FoldPartials(data_type) => write!(f, "fold_partials_{data_type}"),
            Kernel::Convert { from, to } => write!(f, "convert_{from}_to_{to}"),
            Kernel::Pick => f.write_str("pick"),
            Kernel::Product { from, to } if from == to => write!(f, "product_{from}"),
            Kernel::Product { from, to } => write!(f, "product_{from}_to_{to}"),
            Kernel::Activate(data_type) => write!(f, "activate_{data_type}"),
            Kernel::CrossEntropy(data_type) => write!(f, "cross_entropy_{data_type}"),
            Kernel::ColumnSum { from, to } if from == to => write!(f, "column_sum_{from}"),
            Kernel::ColumnSum { from, to } => write!(f, "column_sum_{from}_to_{to}"),
            Kernel::FindOverflow(data_type) => write!(f, "find_overflow_{data_type}"),
            Kernel::UpdateScale => f.write_str("update_scale"),
            Kernel::Sgd(data_type) => write!(f, "sgd_{data_type}"),
            Kernel::AdamWBegin => f.write_str("adamw_begin"),
            Kernel::AdamW(data_type) => write!(f, "adamw_{data_type}"),
            Kernel::Flags => f.write_str("flags"),
            Kernel::Messages => f.write_str("messages"),
            Kernel::Relay => f.write_str("relay"),
            Kernel::Barrier => f.write_str("barrier"),
            Kernel::OneShot(data_type) => write!(f, "one_shot_{data_type}"),
            Kernel::TwoShot(data_type) => write!(f, "two_shot_{data_type}"),
            Kernel::Reduce(data_type) => write!(f, "reduce_{data_type}"),
            Kernel::ReduceScatter(data_type) => write!(f, "reduce_scatter_{data_type}"),
            Kernel::Ring(data_type) => write!(f, "ring_{data_type}"),
            Kernel::LowLatency(data_type) => write!(f, "low_latency_{data_type}"),
            Kernel::AllGather => f.write_str("all_gather"),
            Kernel::Broadcast => f.write_str("broadcast"),
            Kernel::Scatter => f.write_str("scatter"),
            Kernel::Gather => f.write_str("gather"),
            Kernel::AllToAll => f.write_str("all_to_all"),
        }
    }
}
