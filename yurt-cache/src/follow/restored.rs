//! Notices that the cloud has gone back in time, as when its etcd was restored from a backup: a watch that is
//! resumed at a revision of the future hears nothing, for hours.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::run::Follower;
use super::source::{FetchError, METADATA, ask, read_metadata, selectors, stored};
use crate::api::Resource;
use crate::identity::Caller;

/// How long the cloud has to say where it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long nobody asks again after there was no answer.
const PAUSE: Duration = Duration::from_secs(5);

/// When the cloud was asked for a resource's revision, and what it said. Whoever asks holds it.
type Known = Arc<tokio::sync::Mutex<Option<(Instant, u64)>>>;

/// The cloud's revisions, by resource: each may have an etcd of its own.
#[derive(Debug, Default)]
pub(super) struct Revisions(Mutex<HashMap<Resource, Known>>);

impl Follower {
    /// Returns when the cloud is known to be at an earlier revision than `before`, and never otherwise.
    pub(super) async fn went_back(&self, caller: &Caller, before: u64) -> FetchError {
        let since = Instant::now();
        let now = loop {
            match self.revision_since(caller, since).await {
                Some(now) => break now,
                None => sleep(PAUSE).await,
            }
        };
        if now >= before {
            std::future::pending::<()>().await;
        }
        let mirror = self.mirror.clone();
        match stored(move || mirror.went_back()).await {
            Ok(()) => FetchError::WentBack { before, now },
            Err(error) => error,
        }
    }

    /// Returns the resource's revision as the cloud told one of its mirrors after `since`.
    async fn revision_since(&self, caller: &Caller, since: Instant) -> Option<u64> {
        let resource = &self.mirror.scope.resource;
        let known = self.turns.revisions.0.lock();
        let known = { known }.entry(resource.clone()).or_default().clone();
        let mut known = known.lock().await;
        if let Some((asked, revision)) = *known
            && asked >= since
        {
            return Some(revision);
        }
        let asked = Instant::now();
        let revision = timeout(PATIENCE, self.revision(caller)).await.ok()?.ok()?;
        *known = Some((asked, revision));
        Some(revision)
    }

    /// Asks by a list of one object: what the cloud reads for it is where it is now.
    async fn revision(&self, caller: &Caller) -> Result<u64, FetchError> {
        let mut query = selectors(&self.mirror);
        query.push(("limit", "1".to_owned()));
        let upstream = &self.config.upstream;
        let response = ask(&self.mirror, upstream, caller, METADATA, &query).await?;
        let limit = self.config.object_limit;
        let head = read_metadata(&self.mirror, response, limit, &mut |_| {}).await?;
        match head.resource_version {
            0 => Err(FetchError::Unnumbered),
            revision => Ok(revision),
        }
    }
}
