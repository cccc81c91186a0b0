//! A map of short rows that survives a restart: it is read from memory, and written when the store comes to it.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use yurt_core::store::{Batch, Result, Store};

use crate::tasks::Tasks;

/// The rows of a table.
pub(crate) type Rows<V> = HashMap<Arc<str>, V>;

/// Which table it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// How its keys begin in the store.
    pub(crate) prefix: &'static str,
    /// One row of it, to people.
    pub(crate) row: &'static str,
}

/// The table. What goes, where there is no room, each owner decides.
#[derive(Debug)]
pub(crate) struct Table<V> {
    place: Place,
    store: Arc<dyn Store>,
    tasks: Tasks,
    rows: Arc<Mutex<Rows<V>>>,
    /// Held while rows are written, so that none is written as it was before. Only by who may wait for the disk.
    writing: Arc<Mutex<()>>,
}

impl<V: Send + 'static> Table<V> {
    /// Opens what the store remembers, at most so many rows; what `read` cannot read is not known. Blocks on the store.
    pub(crate) fn open(
        place: Place,
        store: Arc<dyn Store>,
        tasks: Tasks,
        most: usize,
        read: impl Fn(&Bytes) -> Option<V>,
    ) -> Result<Self> {
        let mut keys = Vec::new();
        store.keys(place.prefix.as_bytes(), None, &mut |key, _| {
            keys.extend(String::from_utf8(key.to_vec()));
            if keys.len() < most {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        let mut rows = Rows::new();
        for stored in keys {
            // What is damaged is not known either.
            let value = store.get(stored.as_bytes()).ok().flatten();
            let row = value.as_ref().and_then(&read);
            if let (Some(key), Some(row)) = (stored.strip_prefix(place.prefix), row) {
                rows.insert(key.into(), row);
            }
        }
        Ok(Self {
            place,
            store,
            tasks,
            rows: Arc::new(Mutex::new(rows)),
            writing: Arc::default(),
        })
    }

    /// Returns the rows as they are now.
    pub(crate) fn rows(&self) -> MutexGuard<'_, Rows<V>> {
        self.rows.lock()
    }

    /// Puts a row in its place, after those went that `evict` names; returns them.
    pub(crate) fn insert(
        &self,
        key: Arc<str>,
        row: V,
        evict: impl FnOnce(&Rows<V>) -> Vec<Arc<str>>,
    ) -> Vec<Arc<str>> {
        let mut rows = self.rows.lock();
        let gone = take_out(&mut rows, evict);
        rows.insert(key, row);
        gone
    }

    /// The same, but only if `room` makes some.
    pub(crate) fn insert_if(
        &self,
        key: Arc<str>,
        row: V,
        room: impl FnOnce(&Rows<V>) -> Option<Vec<Arc<str>>>,
    ) -> Option<Vec<Arc<str>>> {
        let mut rows = self.rows.lock();
        let gone = room(&rows)?;
        let gone = take_out(&mut rows, |_| gone);
        rows.insert(key, row);
        Some(gone)
    }

    /// Takes out what `evict` names; returns it.
    pub(crate) fn evict(&self, evict: impl FnOnce(&Rows<V>) -> Vec<Arc<str>>) -> Vec<Arc<str>> {
        take_out(&mut self.rows.lock(), evict)
    }

    /// Writes these as they are when the store comes to it: no caller waits for a disk. What is gone is deleted, and
    /// what `write` has nothing to say of stays in the store as it is.
    pub(crate) fn save(
        &self,
        keys: Vec<Arc<str>>,
        write: impl Fn(&str, &V) -> Option<Bytes> + Send + 'static,
    ) {
        let (place, store) = (self.place, self.store.clone());
        let (rows, writing) = (self.rows.clone(), self.writing.clone());
        self.tasks.spawn_blocking(move || {
            let _one_at_a_time = writing.lock();
            let mut batch = Batch::new();
            for key in keys {
                let stored = format!("{}{key}", place.prefix);
                match rows.lock().get(&key).map(|row| write(&key, row)) {
                    Some(Some(value)) => {
                        batch.put(stored, value);
                    }
                    Some(None) => {}
                    None => {
                        batch.delete(stored);
                    }
                }
            }
            if let Err(error) = store.write(batch) {
                tracing::warn!(%error, "{} is not remembered", place.row);
            }
        });
    }

    /// Returns what the store has of a row. Blocks on the store.
    pub(crate) fn stored(&self, key: &str) -> Result<Option<Bytes>> {
        self.store
            .get(format!("{}{key}", self.place.prefix).as_bytes())
    }

    /// Waits until all is written.
    #[cfg(test)]
    pub(crate) async fn written(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn take_out<V>(rows: &mut Rows<V>, evict: impl FnOnce(&Rows<V>) -> Vec<Arc<str>>) -> Vec<Arc<str>> {
    let gone = evict(rows);
    for key in &gone {
        rows.remove(key);
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    const PLACE: Place = Place {
        prefix: "x/",
        row: "a row",
    };

    fn open(store: &Arc<dyn Store>, most: usize) -> Table<u8> {
        let read = |value: &Bytes| std::str::from_utf8(value).ok()?.parse().ok();
        Table::open(PLACE, store.clone(), Tasks::default(), most, read).unwrap()
    }

    fn text(_: &str, row: &u8) -> Option<Bytes> {
        Some(row.to_string().into())
    }

    #[tokio::test]
    async fn rows_survive_a_restart_and_what_went_does_not() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let table = open(&store, 10);
        for (key, row) in [("a", 1), ("b", 2)] {
            let gone = table.insert(key.into(), row, |_| Vec::new());
            assert!(gone.is_empty());
            table.save(vec![key.into()], text);
        }
        let mut changed = table.insert("c".into(), 3, |_| vec!["a".into()]);
        assert_eq!(changed, ["a".into()]);
        changed.push("c".into());
        table.save(changed, text);
        table.written().await;
        let table = open(&store, 10);
        let mut rows: Vec<_> = table
            .rows()
            .iter()
            .map(|(key, row)| (key.to_string(), *row))
            .collect();
        rows.sort_unstable();
        assert_eq!(rows, [("b".to_owned(), 2), ("c".to_owned(), 3)]);
        assert_eq!(table.stored("b").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(store.get(b"x/a").unwrap(), None);
    }

    #[tokio::test]
    async fn a_row_is_written_as_it_is_then() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let table = open(&store, 10);
        table.insert("a".into(), 1, |_| Vec::new());
        table.save(vec!["a".into()], text);
        table.written().await;
        let table = open(&store, 10);
        let blocked = table.writing.lock();
        table.save(vec!["a".into()], text);
        table.insert("a".into(), 2, |_| Vec::new());
        table.save(vec!["a".into()], |_, _| None);
        drop(blocked);
        table.written().await;
        assert_eq!(open(&store, 10).rows().get("a"), Some(&2));
    }

    #[test]
    fn what_cannot_be_read_is_not_known_and_no_more_than_so_many_are_read() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut batch = Batch::new();
        for (key, value) in [("x/a", "1"), ("x/b", "garbage"), ("y/a", "3"), ("x/c", "4")] {
            batch.put(key, value);
        }
        store.write(batch).unwrap();
        let keys = |most| {
            let table = open(&store, most);
            let mut keys: Vec<String> = table.rows().keys().map(ToString::to_string).collect();
            keys.sort_unstable();
            keys
        };
        assert_eq!(keys(10), ["a", "c"]);
        assert_eq!(keys(1), ["a"]);
    }
}
