// SPDX-License-Identifier: MPL-2.0
//! The kernels by name.

use std::fmt;

use crate::element::DataType;

/// A kernel that the library has; its name is what `Display` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Folds sources in their order; [`Fold`](super::Fold).
    Fold(DataType),
    /// Converts f32 to f16 or bf16, or back; [`Convert`](super::Convert).
    Convert {
        /// The type of the source.
        from: DataType,
        /// The type of the destination.
        to: DataType,
    },
    /// Nothing but entering; [`Collective`](super::Collective), as of all that follow.
    Barrier,
    /// All-reduce in which each rank reads everything. `elements`: the length.
    OneShot(DataType),
    /// All-reduce in which each rank folds a slice for all. `elements`: the length.
    TwoShot(DataType),
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
}

impl Kernel {
    /// The file of `kernels/` that has it, without its ending.
    pub const fn unit(self) -> &'static str {
        match self {
            Kernel::Fold(_) => "fold",
            Kernel::Convert { .. } => "convert",
            Kernel::Barrier => "barrier",
            Kernel::OneShot(_) => "one_shot",
            Kernel::TwoShot(_) | Kernel::ReduceScatter(_) => "two_shot",
            Kernel::Ring(_) => "ring",
            Kernel::LowLatency(_) => "low_latency",
            Kernel::AllGather | Kernel::Broadcast => "share",
        }
    }

    /// Whether it needs all its blocks on all ranks to be resident together.
    pub const fn is_collective(self) -> bool {
        !matches!(self, Kernel::Fold(_) | Kernel::Convert { .. })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kernel::Fold(data_type) => write!(f, "fold_{data_type}"),
            Kernel::Convert { from, to } => write!(f, "convert_{from}_to_{to}"),
            Kernel::Barrier => f.write_str("barrier"),
            Kernel::OneShot(data_type) => write!(f, "one_shot_{data_type}"),
            Kernel::TwoShot(data_type) => write!(f, "two_shot_{data_type}"),
            Kernel::ReduceScatter(data_type) => write!(f, "reduce_scatter_{data_type}"),
            Kernel::Ring(data_type) => write!(f, "ring_{data_type}"),
            Kernel::LowLatency(data_type) => write!(f, "low_latency_{data_type}"),
            Kernel::AllGather => f.write_str("all_gather"),
            Kernel::Broadcast => f.write_str("broadcast"),
        }
    }
}
