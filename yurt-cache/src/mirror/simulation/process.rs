//! A process on a disk: what it takes over, and the mirrors that it keeps.

use std::sync::Arc;

use tokio::time::Instant;
use yurt_core::store::{Batch, Store};

use super::super::Mirror;
use super::super::kind::Kind;
use super::super::loading::{Loaded, load};
use super::super::remembered::Remembered;
use super::super::saved::parse_object_key;
use super::super::window::Limit;
use super::cloud::scope;
use super::disk::Disk;
use crate::api::{Resource, Scope};
use crate::codec::Status;
use crate::retention::Budget;
use crate::store::layout::RECORDS;

/// Small, so that clients fall behind and deletions are forgotten.
pub(super) const WINDOW: Limit = Limit {
    steps: 6,
    bytes: 1 << 20,
};

/// A process with a mirror for each of some scopes.
pub(super) struct Process<const N: usize> {
    pub(super) kind: Arc<Kind>,
    pub(super) mirrors: [Arc<Mirror>; N],
    pub(super) last_id: u32,
}

/// Starts a process on what the disk has; what nothing leads to goes.
pub(super) fn start<const N: usize>(disk: &Arc<Disk>, scopes: [Scope; N]) -> Process<N> {
    let store: Arc<dyn Store> = disk.clone();
    let budget = Budget::new(1_000, 1 << 20);
    let remembered = Arc::new(Remembered::new(budget));
    let make_kind = |resource: &Resource| {
        let shared = (remembered.clone(), Arc::default());
        Kind::new(resource.clone(), disk.clone(), budget, shared)
    };
    let mut loaded = load(&store, WINDOW, &make_kind, Instant::now()).unwrap();
    let resource = scope().resource;
    let kind = loaded.kinds.entry(resource.clone());
    let kind = kind
        .or_insert_with(|| Arc::new(make_kind(&resource)))
        .clone();
    drop_orphans(disk, &kind, &mut loaded);
    let mut last_id = loaded.last_id;
    let mut mirrors: Vec<Arc<Mirror>> = loaded.mirrors.into_iter().map(Arc::new).collect();
    let mirrors = scopes.map(|scope| {
        last_of(&mut mirrors, &scope).unwrap_or_else(|| {
            last_id += 1;
            disk.note(last_id, &scope).unwrap();
            begin(disk, &kind, last_id, &scope)
        })
    });
    Process {
        kind,
        mirrors,
        last_id,
    }
}

/// Begins a mirror.
pub(super) fn begin(disk: &Arc<Disk>, kind: &Arc<Kind>, id: u32, scope: &Scope) -> Arc<Mirror> {
    let now = Instant::now();
    let made = Mirror::new(id, scope.clone(), kind.clone(), disk.clone(), WINDOW, now);
    Arc::new(made)
}

fn drop_orphans(disk: &Disk, kind: &Kind, loaded: &mut Loaded) {
    for stored in loaded.orphans.drain(..) {
        match parse_object_key(&stored).filter(|_| stored.starts_with(RECORDS.as_bytes())) {
            Some((_, key)) => kind.delete_orphan(&key).unwrap(),
            None => {
                let mut batch = Batch::new();
                batch.delete(stored);
                disk.write(batch).unwrap();
            }
        }
    }
}

/// Takes the last mirror of a scope; one that was to end and could not be erased goes now.
fn last_of(mirrors: &mut Vec<Arc<Mirror>>, scope: &Scope) -> Option<Arc<Mirror>> {
    let of_scope: Vec<_> = mirrors
        .extract_if(.., |mirror| mirror.scope.is_same(scope))
        .collect();
    let (last, others) = of_scope.split_last()?;
    for other in others {
        other.end(Status::expired_list());
        other.erase().unwrap();
    }
    Some(last.clone())
}
