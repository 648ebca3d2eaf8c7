// SPDX-License-Identifier: MPL-2.0
//! Who has how much of a device's memory, by what it is for.

use std::fmt;

/// What a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorClass {
    /// The weights, and the copy of them that layers read in 16 bits.
    Weights,
    /// The gradients of the weights.
    Gradients,
    /// What the optimizer remembers, and the state of the loss scale.
    Optimizer,
    /// Samples, and a batch of them: inputs and labels.
    Inputs,
    /// What layers put out.
    Activations,
    /// The gradients of that.
    Slopes,
    /// Losses of rows, and of steps.
    Losses,
}

impl TensorClass {
    /// Every class.
    pub const ALL: [TensorClass; 7] = [
        TensorClass::Weights,
        TensorClass::Gradients,
        TensorClass::Optimizer,
        TensorClass::Inputs,
        TensorClass::Activations,
        TensorClass::Slopes,
        TensorClass::Losses,
    ];

    /// The name: `weights`, `gradients`, `optimizer`, ..
    pub const fn name(self) -> &'static str {
        match self {
            TensorClass::Weights => "weights",
            TensorClass::Gradients => "gradients",
            TensorClass::Optimizer => "optimizer",
            TensorClass::Inputs => "inputs",
            TensorClass::Activations => "activations",
            TensorClass::Slopes => "slopes",
            TensorClass::Losses => "losses",
        }
    }
}

impl fmt::Display for TensorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Bytes of device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// What tensors have.
    pub live: usize,
    /// What tensors had, kept for others.
    pub cached: usize,
    /// Of a class, the most that its tensors had at a time; of all, the most that was live and cached together, which
    /// is what the device had to give.
    pub peak: usize,
}

/// A report of all tensors of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryReport {
    of_classes: [Account; TensorClass::ALL.len()],
    all: Account,
}

impl MemoryReport {
    /// The tensors of a class. What is cached belongs to the class that had it last.
    pub fn of(&self, class: TensorClass) -> Account {
        self.of_classes[class as usize]
    }

    /// All of them.
    pub fn all(&self) -> Account {
        self.all
    }

    /// A tensor of this class got so many bytes, which `last` had before, or nobody.
    pub(super) fn take(&mut self, class: TensorClass, bytes: usize, last: Option<TensorClass>) {
        if let Some(last) = last {
            self.give_back(last, bytes);
        }
        let account = &mut self.of_classes[class as usize];
        account.live += bytes;
        account.peak = account.peak.max(account.live);
        self.all.live += bytes;
        self.all.peak = self.all.peak.max(self.all.live + self.all.cached);
    }

    /// Its bytes are cached now.
    pub(super) fn cache(&mut self, class: TensorClass, bytes: usize) {
        for account in [&mut self.of_classes[class as usize], &mut self.all] {
            account.live -= bytes;
            account.cached += bytes;
        }
    }

    /// And not any more.
    pub(super) fn give_back(&mut self, class: TensorClass, bytes: usize) {
        self.of_classes[class as usize].cached -= bytes;
        self.all.cached -= bytes;
    }
}
