//! Working copies: what a batch has read, and what it has changed since. Every table of a batch is one of these, so
//! that commands of one batch see each other and each table is written once.

use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Rows of one table by key, as read and as they are now.
#[derive(Clone, Debug)]
pub struct Cells<T>(FxHashMap<Arc<str>, Cell<T>>);

#[derive(Clone, Debug)]
struct Cell<T> {
    before: Option<Arc<T>>,
    now: Option<Arc<T>>,
}

/// A row that differs from what was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change<'a, T> {
    /// As read; `None` for a new row.
    pub before: Option<&'a Arc<T>>,
    /// As it is now; `None` for a row that goes.
    pub now: Option<&'a Arc<T>>,
}

impl<T> Default for Cells<T> {
    fn default() -> Self {
        Self(FxHashMap::default())
    }
}

impl<T: PartialEq> Cell<T> {
    fn is_changed(&self) -> bool {
        match (&self.before, &self.now) {
            (Some(before), Some(now)) => !Arc::ptr_eq(before, now) && before != now,
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        }
    }

    fn change(&self) -> Change<'_, T> {
        Change { before: self.before.as_ref(), now: self.now.as_ref() }
    }
}

impl<T: PartialEq> Cells<T> {
    /// Takes over a row as the store has it, unless it is known: then what became of it since counts.
    pub fn load(&mut self, key: Arc<str>, row: impl Into<Arc<T>>) {
        self.0.entry(key).or_insert_with(|| {
            let row = row.into();
            Cell { before: Some(Arc::clone(&row)), now: Some(row) }
        });
    }

    /// Whether it was read or made before: then nothing in the store is newer.
    #[must_use]
    pub fn knows(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The row as it is now.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&T> {
        self.0.get(key)?.now.as_deref()
    }

    /// Sets or adds a row.
    pub fn put(&mut self, key: Arc<str>, row: T) {
        self.0.entry(key).or_insert(Cell { before: None, now: None }).now = Some(row.into());
    }

    /// Removes a row.
    pub fn remove(&mut self, key: &str) {
        if let Some(cell) = self.0.get_mut(key) {
            cell.now = None;
        }
    }

    /// All rows that changed, by key, so that the same batch always writes the same statements.
    #[must_use]
    pub fn changes(&self) -> Vec<Change<'_, T>> {
        let mut changed: Vec<_> = self.0.iter().filter(|(_, cell)| cell.is_changed()).collect();
        changed.sort_unstable_by_key(|(key, _)| *key);
        changed.into_iter().map(|(_, cell)| cell.change()).collect()
    }

    /// All rows that changed, in no order.
    pub fn changed(&self) -> impl Iterator<Item = Change<'_, T>> {
        self.0.values().filter(|cell| cell.is_changed()).map(Cell::change)
    }

    /// All rows as they are now, in no order.
    pub fn rows(&self) -> impl Iterator<Item = &T> {
        self.0.values().filter_map(|cell| cell.now.as_deref())
    }
}
