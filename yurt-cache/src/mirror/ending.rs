//! How a mirror ends: what the store has of it goes, and what it held is released.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use yurt_core::store::{Batch, Result};

use super::saved::{member_key, scope_key, tombstone_prefix};
use super::{Mirror, Phase};
use crate::api::ObjectKey;
use crate::codec::Status;

/// For how long a scope that was over its budget is only forwarded: a list of it costs the link.
const REST: Duration = Duration::from_secs(600);

/// Objects that are released at a time.
const PORTION: usize = 500;

impl Mirror {
    /// Ends: who reads is told so, and nothing more is taken. Blocks on whoever takes now.
    pub(crate) fn end(&self, status: Status) {
        self.writing.lock().is_ended = true;
        self.set_phase(Phase::Failed(status));
    }

    /// Erases what is stored of a mirror that has ended. Blocks on the store.
    pub(crate) fn erase(&self) -> Result<()> {
        let mut writing = self.writing.lock();
        writing.is_ended = true;
        let mut batch = Batch::new();
        batch.delete(scope_key(self.id));
        let tombstones = tombstone_prefix(self.id);
        self.store.keys(&tombstones, None, &mut |key, _| {
            batch.delete(Bytes::copy_from_slice(key));
            ControlFlow::Continue(())
        })?;
        self.store.write(batch)?;
        self.unstage(&mut writing)?;
        loop {
            let held = self.some_held();
            if held.is_empty() {
                return Ok(());
            }
            self.release(&held)?;
        }
    }

    fn some_held(&self) -> Vec<ObjectKey> {
        let state = self.state.read();
        state.history.keys().take(PORTION).cloned().collect()
    }

    /// Lets go of objects that nobody is told of any more.
    fn release(&self, keys: &[ObjectKey]) -> Result<()> {
        let mut writer = self.kind.bodies.writer();
        for key in keys {
            let held = self.state.read().history.holding(key);
            for version in held.versions() {
                writer.release(key, version);
            }
            writer.batch.delete(member_key(self.id, key));
        }
        writer.write(|| self.state.write().history.let_go(keys))
    }

    /// Gives up for a while, because the kind is over its budget: requests are forwarded meanwhile.
    pub(crate) fn rest(&self, now: Instant) {
        let budget = self.kind.budget();
        let status = Status::unavailable(
            format!(
                "this node keeps no more than {} objects and {} bytes of {}",
                budget.objects, budget.bytes, self.kind.resource
            ),
            Some(REST),
        );
        self.rest_saying(status, now);
    }

    /// Gives up for a while: requests are forwarded meanwhile.
    pub(crate) fn rest_saying(&self, status: Status, now: Instant) {
        self.state.write().rests_until = Some(now + REST);
        self.end(status);
    }

    /// Returns whether it has failed and may be tried again.
    pub(crate) fn is_done_resting(&self, now: Instant) -> bool {
        let state = self.state.read();
        matches!(state.phase, Phase::Failed(_))
            && state.rests_until.is_none_or(|until| now >= until)
    }

    /// Returns whether a list that is being taken is more than the node keeps of the kind.
    pub(crate) fn is_over_budget(&self) -> bool {
        let is_first = !self.is_synced() && !crate::retention::is_always_kept(&self.scope);
        is_first && self.kind.budget().is_exceeded_by(self.kind.held())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use yurt_core::store::Store;

    use super::*;
    use crate::api::{Resource, Scope};
    use crate::codec::{EventType, TypeMeta};
    use crate::mirror::kind::Kind;
    use crate::mirror::relist::Item;
    use crate::mirror::remembered::Remembered;
    use crate::mirror::saved::{SavedScope, scope_key};
    use crate::mirror::window::Limit;
    use crate::retention::Budget;
    use crate::store::MemoryStore;

    const OBJECT: &[u8] =
        br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"n","resourceVersion":"9"}}"#;

    fn mirror(store: &Arc<dyn Store>) -> Mirror {
        let budget = Budget {
            objects: 100,
            bytes: 1 << 20,
        };
        let resource = Resource::core("configmaps");
        let remembered = Arc::new(Remembered::new(budget));
        let kind = Kind::new(
            resource.clone(),
            store.clone(),
            budget,
            (remembered, Arc::default()),
        );
        let window = Limit {
            steps: 10,
            bytes: 1 << 20,
        };
        let scope = Scope::all(resource);
        Mirror::new(
            1,
            scope,
            Arc::new(kind),
            store.clone(),
            window,
            Instant::now(),
        )
    }

    #[tokio::test]
    async fn nothing_is_stored_of_a_mirror_that_has_ended_whatever_still_comes() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mirror = mirror(&store);
        let mut batch = Batch::new();
        batch.put(scope_key(1), SavedScope::new(&mirror.scope).encode());
        store.write(batch).unwrap();
        let item = |revision| Item {
            key: crate::api::key("n", "a"),
            revision,
            body: Bytes::copy_from_slice(OBJECT),
        };
        let type_meta = || TypeMeta {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            list_kind: "ConfigMapList".into(),
        };
        mirror.take_listed(vec![item(5)]).unwrap();
        mirror.finish_list(5, type_meta(), &HashSet::new()).unwrap();
        mirror.set_phase(Phase::Live);
        mirror.end(Status::expired_list());
        mirror.erase().unwrap();
        let event = mirror.read_event(EventType::Added, OBJECT).unwrap();
        mirror.take(vec![event]).unwrap();
        mirror.claim(12).unwrap();
        mirror.take_listed(vec![item(9)]).unwrap();
        mirror.finish_list(9, type_meta(), &HashSet::new()).unwrap();
        let mut left = Vec::new();
        store
            .keys(b"", None, &mut |key, _| {
                left.push(String::from_utf8_lossy(key).into_owned());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(left, Vec::<String>::new());
        assert!(matches!(mirror.read(0, 1), crate::mirror::Read::Ended(_)));
    }
}
