//! One mirror as filters need it: of each object the few things that count.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::{ListAt, ObjectKey, Scope, Selection};
use crate::codec::{EventType, LabelSelector, ObjectMeta};
use crate::follow::registry::Registry;
use crate::identity::Caller;
use crate::mirror::window::Step;
use crate::mirror::{Counted, Mirror, Phase, Read};
use crate::tasks::blocking;

/// Bytes of events that are looked at between two looks at the rest of the world.
const PORTION: usize = 1 << 20;

/// What is known of a scope, and the mirror that says it.
pub(super) struct Source<D> {
    scope: Scope,
    digest: fn(&[u8]) -> Option<D>,
    following: Option<Following>,
    /// What counts of each object that says something that counts; `None` before the first look.
    held: Option<BTreeMap<ObjectKey, D>>,
}

struct Following {
    mirror: Arc<Mirror>,
    changed: watch::Receiver<()>,
    selection: Selection,
    /// Where the window goes on; `None` if everything has to be looked at.
    place: Option<u64>,
    /// Keeps the mirror.
    _counted: Counted,
}

/// Narrows a scope to one label.
pub(super) fn labelled(mut scope: Scope, label: &str, value: &str) -> Scope {
    scope.labels = LabelSelector::parse(&format!("{label}={value}")).unwrap_or_default();
    scope
}

/// Returns when there may be something new of a source that there may be.
pub(super) async fn changed<D: Send + 'static>(source: &mut Option<Source<D>>) {
    match source {
        Some(source) => source.changed().await,
        None => std::future::pending().await,
    }
}

impl<D: Send + 'static> Source<D> {
    pub(super) fn new(scope: Scope, digest: fn(&[u8]) -> Option<D>) -> Self {
        Self {
            scope,
            digest,
            following: None,
            held: None,
        }
    }

    pub(super) fn is_of(&self, scope: &Scope) -> bool {
        self.scope.is_same(scope)
    }

    /// Begins to follow, as the node, if it does not yet; returns whether it did.
    pub(super) fn start(&mut self, registry: &Registry, now: Instant) -> bool {
        if self.following.is_some() {
            return false;
        }
        let found = registry.find_or_start(&self.scope, ListAt::Latest, &Caller::Node, now);
        self.following = found.map(|mirror| Following {
            changed: mirror.changed(),
            selection: Selection::new(&self.scope, &mirror.scope),
            place: None,
            _counted: Counted::new(mirror.clone()),
            mirror,
        });
        self.following.is_some()
    }

    /// Lets go of a mirror that cannot be, to try anew.
    pub(super) fn forget_if_failed(&mut self) {
        self.following
            .take_if(|following| following.mirror.has_failed());
    }

    /// Returns whether the cloud does not show it to the node.
    pub(super) fn is_refused(&self) -> bool {
        self.following.as_ref().is_some_and(|following| {
            matches!(
                following.mirror.phase(),
                Phase::Refused(_) | Phase::Failed(_)
            )
        })
    }

    /// Returns whether it is known that there is nothing that counts.
    pub(super) fn is_empty(&self) -> bool {
        self.held.as_ref().is_some_and(BTreeMap::is_empty)
    }

    /// Returns what counts of each object, `None` before anything is known.
    pub(super) fn held(&self) -> Option<&BTreeMap<ObjectKey, D>> {
        self.held.as_ref()
    }

    /// Returns when there may be something new.
    pub(super) async fn changed(&mut self) {
        match &mut self.following {
            Some(following) => following
                .changed
                .changed()
                .await
                .expect("the mirror holds the sender"),
            None => std::future::pending().await,
        }
    }

    /// Takes over what is new.
    pub(super) async fn advance(&mut self) {
        let Some(following) = &mut self.following else {
            return;
        };
        following.changed.mark_unchanged();
        if !following.mirror.is_synced() {
            return;
        }
        loop {
            let Some(place) = following.place else {
                match following.look_at_all(self.digest).await {
                    Ok(held) => self.held = Some(held),
                    Err(error) => {
                        tracing::warn!(scope = %self.scope, %error, "what filters need is not read");
                        return;
                    }
                }
                continue;
            };
            match following.mirror.read(place, PORTION) {
                Read::Idle(_) => return,
                Read::Lost => following.place = None,
                Read::Ended(_) => {
                    self.following = None;
                    return;
                }
                Read::Steps(steps) => {
                    let held = self.held.get_or_insert_default();
                    following.take(&steps, place, self.digest, held);
                }
            }
        }
    }
}

impl Following {
    async fn look_at_all<D: Send + 'static>(
        &mut self,
        digest: fn(&[u8]) -> Option<D>,
    ) -> yurt_core::store::Result<BTreeMap<ObjectKey, D>> {
        let view = self.mirror.view(self.selection.within());
        let selection = self.selection.clone();
        let reading = move || {
            let kind = view.snapshot.kind().clone();
            let mut held = BTreeMap::new();
            for item in &view.snapshot.items {
                let body = view.snapshot.read(item)?;
                let is_wanted = selection.is_everything()
                    || ObjectMeta::parse(&body)
                        .is_ok_and(|meta| selection.matches(&item.key, &kind.traits(&meta, &body)));
                if let Some(digest) = digest(&body).filter(|_| is_wanted) {
                    held.insert(item.key.clone(), digest);
                }
            }
            Ok::<_, yurt_core::store::Error>(held)
        };
        let held = blocking(reading).await?;
        self.place = Some(view.place);
        Ok(held)
    }

    fn take<D>(
        &mut self,
        steps: &[Arc<Step>],
        mut place: u64,
        digest: fn(&[u8]) -> Option<D>,
        held: &mut BTreeMap<ObjectKey, D>,
    ) {
        for step in steps {
            match &**step {
                Step::Event(event) => {
                    let is_there = event.event_type != EventType::Deleted
                        && self.selection.matches(&event.key, &event.traits);
                    match digest(&event.object).filter(|_| is_there) {
                        Some(digest) => held.insert(event.key.clone(), digest),
                        None => held.remove(&event.key),
                    };
                }
                Step::Jump { .. } => {
                    self.place = None;
                    return;
                }
            }
            place += 1;
        }
        self.place = Some(place);
    }
}
