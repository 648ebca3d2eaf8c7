// SPDX-License-Identifier: MPL-2.0
//! Where a tensor's numbers live: a [`Storage`] is a range of some [`Memory`], borrowed at run time.
//!
//! The memory is the tensor's own, or somebody else's who may take it away for a while. A gradient can so be a view of
//! a bucket that a collective folds in place: while the bucket is in flight its owner has [`take`](Lent::take)n it, and
//! touching the gradient is an error value. Nothing here is shared between threads; each rank trains on one.

use std::borrow::Cow;
use std::cell::{Ref, RefCell, RefMut};
use std::ops::{DerefMut, Range};
use std::rc::Rc;

use crate::error::{Error, Result};

/// Numbers that are borrowed for the time of one read or write.
pub trait Memory {
    /// All of it, for reading.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if it is away or being written.
    fn read(&self) -> Result<Ref<'_, [f32]>>;

    /// All of it, for writing.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if it is away, being read or being written.
    fn write(&self) -> Result<RefMut<'_, [f32]>>;
}

/// Memory of somebody who may take it away and give it back: a gradient bucket, for example.
pub struct Lent<M> {
    name: Cow<'static, str>,
    memory: RefCell<Option<M>>,
}

impl<M> Lent<M> {
    /// Lends `memory`. The name is what error sentences call it: `gradient bucket 2`.
    pub fn new(name: impl Into<Cow<'static, str>>, memory: M) -> Self {
        Lent { name: name.into(), memory: RefCell::new(Some(memory)) }
    }

    /// Takes the memory away: until [`give_back`](Self::give_back), every access through a tensor is an error.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the memory is away already, or borrowed at this moment.
    pub fn take(&self) -> Result<M> {
        let mut memory = self.memory.try_borrow_mut().map_err(|_| self.borrowed())?;
        memory.take().ok_or_else(|| self.away())
    }

    /// Gives the memory back, or puts other memory in its place.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is memory here already.
    pub fn give_back(&self, memory: M) -> Result<()> {
        let mut place = self.memory.try_borrow_mut().map_err(|_| self.borrowed())?;
        if place.is_some() {
            return Err(Error::invalid(format!("{} was not taken away, so nothing can be given back", self.name)));
        }
        *place = Some(memory);
        Ok(())
    }

    fn away(&self) -> Error {
        Error::invalid(format!(
            "{} is away, in a collective that has not been waited for: wait for it first",
            self.name
        ))
    }

    fn borrowed(&self) -> Error {
        Error::invalid(format!("{} is being read or written elsewhere: let go of that borrow first", self.name))
    }
}

impl<M: DerefMut<Target = [f32]>> Memory for Lent<M> {
    fn read(&self) -> Result<Ref<'_, [f32]>> {
        let memory = self.memory.try_borrow().map_err(|_| self.borrowed())?;
        Ref::filter_map(memory, |memory| memory.as_deref()).map_err(|_| self.away())
    }

    fn write(&self) -> Result<RefMut<'_, [f32]>> {
        let memory = self.memory.try_borrow_mut().map_err(|_| self.borrowed())?;
        RefMut::filter_map(memory, |memory| memory.as_deref_mut()).map_err(|_| self.away())
    }
}

/// A range of some memory: the values of a tensor, or its gradient. Clones are the same numbers.
#[derive(Clone)]
pub struct Storage {
    memory: Rc<dyn Memory>,
    range: Range<usize>,
}

impl Storage {
    /// Storage of its own.
    pub fn new(values: Vec<f32>) -> Self {
        let range = 0..values.len();
        Storage { memory: Rc::new(Lent::new("the tensor's storage", values)), range }
    }

    /// A view of `range` of `memory`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the memory is shorter, or cannot be read at this moment.
    pub fn view(memory: Rc<dyn Memory>, range: Range<usize>) -> Result<Self> {
        check(memory.read()?.len(), &range)?;
        Ok(Storage { memory, range })
    }

    /// How many numbers.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The numbers, for reading.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the memory is away or being written.
    pub fn read(&self) -> Result<Ref<'_, [f32]>> {
        let memory = self.memory.read()?;
        check(memory.len(), &self.range)?;
        Ok(Ref::map(memory, |memory| &memory[self.range.clone()]))
    }

    /// The numbers, for writing.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the memory is away, being read or being written.
    pub fn write(&self) -> Result<RefMut<'_, [f32]>> {
        let memory = self.memory.write()?;
        check(memory.len(), &self.range)?;
        Ok(RefMut::map(memory, |memory| &mut memory[self.range.clone()]))
    }
}

fn check(len: usize, range: &Range<usize>) -> Result<()> {
    if range.start <= range.end && range.end <= len {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a view of elements {}..{} needs that many; the memory has {len}",
        range.start, range.end
    )))
}
