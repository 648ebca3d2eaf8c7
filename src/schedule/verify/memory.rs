// SPDX-License-Identifier: MPL-2.0
//! Symbolic memory: what each run of addresses holds, who wrote it, and who has read it since.
//!
//! Race detection is that of FastTrack (Flanagan and Freund, "FastTrack: Efficient and Precise Dynamic Race
//! Detection", 2009), on runs of addresses instead of single ones: of each run the last write is kept, and each rank's
//! last read since. An access must come after the last write, and a write after those reads too, in the order that the
//! clocks give. Earlier accesses need not be kept: a write that was accepted came after them all, and a later read of a
//! rank comes after its earlier ones.

use std::collections::BTreeMap;
use std::ops::Range;

use super::fault::Site;
use super::value::Value;

/// An access, at its rank's time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub(super) site: Site,
    pub(super) time: u32,
}

/// A run of addresses with one value and one history; its first address is its key.
#[derive(Debug, Clone)]
struct Cell {
    end: usize,
    value: Option<Value>,
    written: Option<Event>,
    reads: Vec<Event>,
}

/// A run of addresses and its value, if it has any, and who wrote it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) begin: usize,
    pub(super) end: usize,
    pub(super) value: Option<Value>,
    pub(super) writer: Option<Site>,
}

/// An earlier access that nothing orders before the present one.
#[derive(Debug)]
pub(super) struct Conflict {
    pub(super) earlier: Site,
    pub(super) earlier_does: &'static str,
    pub(super) addresses: Range<usize>,
}

/// One memory, from address 0.
#[derive(Debug)]
pub(super) struct Memory {
    cells: BTreeMap<usize, Cell>,
}

impl Memory {
    /// `len` addresses without values.
    pub(super) fn new(len: usize) -> Self {
        let blank = Cell { end: len, value: None, written: None, reads: Vec::new() };
        Memory { cells: BTreeMap::from([(0, blank)]) }
    }

    /// Makes `address` the beginning of a cell, unless it is the end of the memory.
    fn split(&mut self, address: usize) {
        if let Some((&begin, cell)) = self.cells.range_mut(..=address).next_back()
            && begin < address
            && address < cell.end
        {
            let second = cell.clone();
            cell.end = address;
            self.cells.insert(address, second);
        }
    }

    /// Notes a read of `range` by `event`, whose rank has seen what `clock` says, and appends what is there to `found`.
    pub(super) fn read(
        &mut self,
        range: Range<usize>,
        event: Event,
        clock: &[u32],
        found: &mut Vec<Piece>,
    ) -> Result<(), Conflict> {
        self.split(range.start);
        self.split(range.end);
        for (&begin, cell) in self.cells.range_mut(range) {
            cell.after_write(begin, clock)?;
            match cell.reads.iter_mut().find(|read| read.site.rank == event.site.rank) {
                Some(earlier) => *earlier = event,
                None => cell.reads.push(event),
            }
            let writer = cell.written.map(|write| write.site);
            found.push(Piece { begin, end: cell.end, value: cell.value, writer });
        }
        Ok(())
    }

    /// Writes `values`, which are adjoining runs, in place of what was there.
    pub(super) fn write(
        &mut self,
        values: impl IntoIterator<Item = (Range<usize>, Option<Value>)>,
        event: Event,
        clock: &[u32],
    ) -> Result<(), Conflict> {
        for (range, value) in values {
            if range.is_empty() {
                continue;
            }
            self.split(range.start);
            self.split(range.end);
            for (&begin, cell) in self.cells.range(range.clone()) {
                cell.after_write(begin, clock)?;
                if let Some(read) = cell.reads.iter().find(|read| clock[read.site.rank] < read.time) {
                    return Err(Conflict { earlier: read.site, earlier_does: "reads", addresses: begin..cell.end });
                }
            }
            while let Some((&begin, _)) = self.cells.range(range.clone()).next() {
                self.cells.remove(&begin);
            }
            self.cells.insert(range.start, Cell { end: range.end, value, written: Some(event), reads: Vec::new() });
        }
        Ok(())
    }
}

impl Cell {
    fn after_write(&self, begin: usize, clock: &[u32]) -> Result<(), Conflict> {
        match self.written {
            Some(write) if clock[write.site.rank] < write.time => {
                Err(Conflict { earlier: write.site, earlier_does: "writes", addresses: begin..self.end })
            }
            _ => Ok(()),
        }
    }
}
