// SPDX-License-Identifier: MPL-2.0
//! What ids stand for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::super::backend::Failure;
use super::refused;

/// Objects by their ids, which count up and are never used again.
pub(super) struct Table<T>(Mutex<Entries<T>>);

struct Entries<T> {
    last: u64,
    objects: HashMap<u64, Arc<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table(Mutex::new(Entries { last: 0, objects: HashMap::new() }))
    }
}

impl<T> Table<T> {
    fn entries(&self) -> MutexGuard<'_, Entries<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn insert(&self, object: Arc<T>) -> u64 {
        let mut entries = self.entries();
        entries.last += 1;
        let id = entries.last;
        entries.objects.insert(id, object);
        id
    }

    /// The object of an id; a failure of `call` where there is none.
    pub fn get(&self, call: &'static str, id: u64) -> Result<Arc<T>, Failure> {
        let object = self.entries().objects.get(&id).cloned();
        object.ok_or_else(|| refused(call, Errno::BADF, format!("nothing has the id {id}")))
    }

    pub fn remove(&self, id: u64) -> Option<Arc<T>> {
        self.entries().objects.remove(&id)
    }
}
