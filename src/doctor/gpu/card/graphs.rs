// SPDX-License-Identifier: MPL-2.0
//! Graphs.
#![allow(unsafe_code)]

use std::ptr;

use super::{Card, Stream};
use crate::driver::cuda::Fault;
use crate::driver::cuda::sys::{CUgraph, CUgraphExec};

/// Work that was captured.
pub(in super::super) struct Graph<'a> {
    pub(super) card: &'a Card,
    pub(super) graph: CUgraph,
}

impl<'a> Graph<'a> {
    /// How many nodes it has.
    pub fn nodes(&self) -> Result<usize, Fault> {
        let mut count = 0;
        // SAFETY: without a place for nodes, they are counted.
        unsafe { self.card.driver.cuGraphGetNodes(self.graph, ptr::null_mut(), &mut count) }?;
        Ok(count)
    }

    pub fn instantiate(&self) -> Result<Executable<'a>, Fault> {
        let mut executable = ptr::null_mut();
        // SAFETY: the graph lives; the pointer is to a variable of ours.
        unsafe { self.card.driver.cuGraphInstantiateWithFlags(&mut executable, self.graph, 0) }?;
        Ok(Executable { card: self.card, executable })
    }
}

/// A graph that can be launched.
pub(in super::super) struct Executable<'a> {
    card: &'a Card,
    executable: CUgraphExec,
}

impl Executable<'_> {
    /// Enqueues it.
    pub fn launch(&self, stream: &Stream) -> Result<(), Fault> {
        // SAFETY: Both live, and so does the memory that the captured work uses, since nothing is freed.
        unsafe { self.card.driver.cuGraphLaunch(self.executable, stream.stream) }
    }
}
