//! The objects and their history: one revision for everything, a bounded log of changes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;

/// Which objects belong together whatever version serves them: `group/plural`.
pub(crate) type Family = Arc<str>;

/// Where an object is stored: `namespace/name`, or `name` in the cluster's scope, orders like etcd's keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) family: Family,
    pub(crate) path: String,
}

/// One write.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    pub(crate) before: Option<Arc<Value>>,
    pub(crate) after: Option<Arc<Value>>,
}

/// The history before this point is gone.
#[derive(Debug)]
pub(crate) struct Compacted;

/// All objects at the current revision, and the changes that led there.
#[derive(Debug)]
pub(crate) struct Store {
    revision: u64,
    compacted: u64,
    capacity: usize,
    objects: BTreeMap<Key, Arc<Value>>,
    log: VecDeque<Change>,
}

impl Key {
    pub(crate) fn new(family: &Family, namespace: Option<&str>, name: &str) -> Self {
        Self {
            family: family.clone(),
            path: match namespace {
                Some(namespace) => format!("{namespace}/{name}"),
                None => name.to_owned(),
            },
        }
    }
}

impl Store {
    /// Starts empty; the log keeps at most `capacity` changes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            revision: 1,
            compacted: 0,
            capacity: capacity.max(1),
            objects: BTreeMap::new(),
            log: VecDeque::new(),
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// Stores the object under the next revision and returns it as stored.
    pub(crate) fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let object = Arc::new(object);
        let before = self.objects.insert(key.clone(), object.clone());
        self.record(key, before, Some(object.clone()));
        object
    }

    /// Removes the object and returns its last state.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let last = self.objects.remove(key)?;
        self.revision += 1;
        self.record(key.clone(), Some(last.clone()), None);
        Some(last)
    }

    fn record(&mut self, key: Key, before: Option<Arc<Value>>, after: Option<Arc<Value>>) {
        self.log.push_back(Change {
            revision: self.revision,
            key,
            before,
            after,
        });
        while self.log.len() > self.capacity {
            if let Some(change) = self.log.pop_front() {
                self.compacted = change.revision;
            }
        }
    }

    /// Forgets the history up to a revision; what is stored stays.
    pub(crate) fn compact(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision.min(self.revision));
        while self
            .log
            .front()
            .is_some_and(|change| change.revision <= self.compacted)
        {
            self.log.pop_front();
        }
    }

    /// Lists a family, or one namespace of it, in the order of keys.
    pub(crate) fn list(
        &self,
        family: &Family,
        namespace: Option<&str>,
    ) -> Vec<(String, Arc<Value>)> {
        let prefix = namespace
            .map(|namespace| format!("{namespace}/"))
            .unwrap_or_default();
        let from = Key {
            family: family.clone(),
            path: prefix.clone(),
        };
        self.objects
            .range(from..)
            .take_while(|(key, _)| key.family == *family && key.path.starts_with(&prefix))
            .map(|(key, object)| (key.path.clone(), object.clone()))
            .collect()
    }

    /// Lists as it was at a revision, by undoing what came after.
    pub(crate) fn list_at(
        &self,
        family: &Family,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<Vec<(String, Arc<Value>)>, Compacted> {
        if revision < self.compacted {
            return Err(Compacted);
        }
        let prefix = namespace
            .map(|namespace| format!("{namespace}/"))
            .unwrap_or_default();
        let mut objects: BTreeMap<String, Arc<Value>> =
            self.list(family, namespace).into_iter().collect();
        let later = self
            .log
            .iter()
            .rev()
            .take_while(|change| change.revision > revision);
        for change in later {
            if change.key.family == *family && change.key.path.starts_with(&prefix) {
                let path = change.key.path.clone();
                match &change.before {
                    Some(before) => objects.insert(path, before.clone()),
                    None => objects.remove(&path),
                };
            }
        }
        Ok(objects.into_iter().collect())
    }

    /// Returns the changes after a revision.
    pub(crate) fn changes_after(
        &self,
        revision: u64,
    ) -> Result<impl Iterator<Item = &Change>, Compacted> {
        if revision < self.compacted {
            return Err(Compacted);
        }
        let first = self
            .log
            .partition_point(|change| change.revision <= revision);
        Ok(self.log.iter().skip(first))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(objects: &[(String, Arc<Value>)]) -> Vec<&str> {
        objects.iter().map(|(path, _)| path.as_str()).collect()
    }

    #[test]
    fn a_past_state_is_listed_by_undoing_later_changes() {
        let family: Family = "/configmaps".into();
        let key = |name| Key::new(&family, Some("a"), name);
        let mut store = Store::new(100);
        store.put(key("x"), json!({"metadata": {}, "v": 1}));
        let then = store.revision();
        store.put(key("x"), json!({"metadata": {}, "v": 2}));
        store.put(key("y"), json!({"metadata": {}}));
        store.remove(&key("x"));
        assert_eq!(names(&store.list(&family, Some("a"))), ["a/y"]);
        let past = store.list_at(&family, Some("a"), then).unwrap();
        assert_eq!(names(&past), ["a/x"]);
        assert_eq!(past[0].1["v"], 1);
    }

    #[test]
    fn a_namespace_is_not_mixed_with_one_that_begins_alike() {
        let family: Family = "/configmaps".into();
        let mut store = Store::new(100);
        for namespace in ["a", "a-b", "b"] {
            store.put(
                Key::new(&family, Some(namespace), "x"),
                json!({"metadata": {}}),
            );
        }
        assert_eq!(names(&store.list(&family, Some("a"))), ["a/x"]);
        assert_eq!(names(&store.list(&family, None)), ["a-b/x", "a/x", "b/x"]);
    }

    #[test]
    fn compacted_history_is_refused() {
        let family: Family = "/configmaps".into();
        let mut store = Store::new(100);
        store.put(Key::new(&family, Some("a"), "x"), json!({"metadata": {}}));
        let then = store.revision();
        store.put(Key::new(&family, Some("a"), "y"), json!({"metadata": {}}));
        store.compact(store.revision());
        assert!(store.changes_after(then).is_err());
        assert!(store.list_at(&family, None, then).is_err());
        assert_eq!(store.changes_after(store.revision()).unwrap().count(), 0);
    }
}
