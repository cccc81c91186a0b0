//! Keeps a mirror as the cloud has it: does what the plan says, in whose name it can, when it may.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use yurt_core::backoff::Backoff;
use yurt_core::store::Batch;

use super::plan::{Ended, Next, Situation, Step, Up, next};
use super::source::FetchError;
use super::{FollowerConfig, Following, Turns};
use crate::api::{ListAt, Resource};
use crate::codec::Status;
use crate::identity::Caller;
use crate::mirror::saved::scope_key;
use crate::mirror::{Mirror, Phase};
use crate::tasks::{blocking, contained};
use crate::upstream::Reach;

/// After so long a round was a good one. A server that ends every watch at once, or sends only what
/// cannot be read, is asked less and less often.
const LASTED: Duration = Duration::from_secs(5);

/// Over so long the mirrors spread when the cloud is back.
const SPREAD: Duration = Duration::from_millis(200);

/// Somebody who asks ends a wait for an identity, but not before.
const ASKED_AFTER: Duration = Duration::from_secs(1);

/// What keeps one mirror.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    pub(super) mirror: Arc<Mirror>,
    pub(super) following: Arc<Following>,
    pub(super) config: FollowerConfig,
    pub(super) turns: Arc<Turns>,
}

/// What the follower remembers between its requests.
struct Course {
    situation: Situation,
    backoff: Backoff,
    missing_since: Option<Instant>,
}

impl Follower {
    /// Notes a new mirror in the store; without that there is none.
    pub(super) async fn begin(&self) -> bool {
        let mirror = self.mirror.clone();
        let noted = blocking(move || {
            let mut batch = Batch::new();
            batch.put(scope_key(mirror.id), mirror.saved().encode());
            mirror.kind.store().write(batch)
        })
        .await;
        if let Err(error) = &noted {
            tracing::warn!(scope = %self.mirror.scope, %error, "cannot create the mirror: the store is not writable");
            let status = Status::internal("the node's store takes no write");
            self.mirror.set_phase(Phase::Failed(status));
        }
        noted.is_ok()
    }

    /// Follows until `stop`, or until the mirror is given up.
    pub(super) async fn run(self, first: ListAt, stop: CancellationToken) {
        // On the heap: each mirror has one, and most of them only wait.
        let following = Box::pin(self.follow_on(first));
        stop.run_until_cancelled_owned(following).await;
        self.mirror.fall_behind(Instant::now());
    }

    /// Follows again after a panic: a mirror without a task would wait for ever.
    async fn follow_on(&self, first: ListAt) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        while contained(self.follow(first)).await.is_err() {
            self.mirror.fall_behind(Instant::now());
            sleep(backoff.next_delay(fastrand::f64())).await;
        }
    }

    async fn follow(&self, first: ListAt) {
        let mut reach = self.config.upstream.reach();
        let mut course = self.course(first);
        let mut failed = None;
        loop {
            let step = match next(&course.situation) {
                Next::Now(step) => {
                    if step != Step::Watch && course.situation.last.is_some() {
                        course.backoff.next_delay(fastrand::f64());
                    }
                    step
                }
                Next::After(step, least) => {
                    let delay = course.backoff.next_delay(fastrand::f64()).max(least);
                    self.pause(delay, false, &mut course, &mut reach).await;
                    step
                }
                Next::WhenAsked(step) => {
                    let delay = course.backoff.next_delay(fastrand::f64());
                    self.pause(delay, true, &mut course, &mut reach).await;
                    step
                }
                Next::Give(up) => return self.give_up(up, failed).await,
            };
            if !self.is_online(&mut reach).await {
                return;
            }
            let began = Instant::now();
            let is_resumed =
                !matches!(course.situation.last, Some((last, _)) if last != Step::Watch);
            let done = self.round(step, is_resumed).await;
            if matches!(&done, Err(error) if error.ended() == Ended::Lost) {
                self.note_progress().await;
            }
            self.mirror.fall_behind(Instant::now());
            self.note(step, &done);
            let ended = done.as_ref().err().map_or(Ended::Well, FetchError::ended);
            failed = done.err();
            course.took(step, ended, began.elapsed(), &self.mirror);
        }
    }

    /// Lets clients know, now that the link is gone, how far the watch had come: the cloud itself may have told them as
    /// much, and a list while cut off is not to be older.
    async fn note_progress(&self) {
        let mirror = self.mirror.clone();
        if let Err(error) = blocking(move || mirror.claim(mirror.followed())).await {
            tracing::warn!(scope = %self.mirror.scope, %error, "cannot store a revision: the store is not writable");
        }
    }

    fn course(&self, first: ListAt) -> Course {
        let is_synced = self.mirror.is_synced();
        Course {
            situation: Situation {
                last: None,
                first,
                is_synced,
                is_suspect: self.mirror.is_suspect(),
                was_watched: is_synced,
                has_lasted: false,
                is_fresh: true,
                missing_for: Duration::ZERO,
            },
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(30)),
            missing_since: None,
        }
    }

    /// Waits until the cloud is there; whoever has something to show lets others go first, by chance.
    async fn is_online(&self, reach: &mut watch::Receiver<Reach>) -> bool {
        let is_there = |reach: &Reach| matches!(reach, Reach::Online);
        if is_there(&reach.borrow_and_update()) {
            return true;
        }
        if reach.wait_for(is_there).await.is_err() {
            return false;
        }
        if self.mirror.is_synced() {
            sleep(SPREAD.mul_f64(fastrand::f64())).await;
        }
        true
    }

    /// Waits for `delay`, or until the link is gone: when it is back there is nothing to wait for.
    async fn pause(
        &self,
        delay: Duration,
        is_for_caller: bool,
        course: &mut Course,
        reach: &mut watch::Receiver<Reach>,
    ) {
        let is_cut = async {
            let is_cut = |reach: &Reach| matches!(reach, Reach::CutOff { .. });
            if reach.wait_for(is_cut).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let asked = async {
            sleep(ASKED_AFTER).await;
            self.mirror.asked.notified().await;
        };
        tokio::select! {
            () = sleep(delay) => {}
            () = is_cut => course.backoff.reset(),
            () = asked, if is_for_caller => {}
        }
    }

    /// Sends one request, in the name of whoever may.
    async fn round(&self, step: Step, is_resumed: bool) -> Result<(), FetchError> {
        let _turn = match step {
            Step::List(_) | Step::WatchList => {
                let turn = self.turns.lists_of(&self.mirror.owner()).acquire();
                turn.await.ok()
            }
            Step::Watch => None,
        };
        let mut refused = None;
        for caller in self.identities() {
            // A list takes more memory than the watch after it, which lasts.
            let ended = match step {
                Step::List(at) => Box::pin(self.list(&caller, at)).await,
                Step::WatchList => Box::pin(self.watch_list(&caller)).await,
                Step::Watch => self.watch(&caller, is_resumed).await,
            };
            match ended {
                Err(FetchError::Refused(status)) if is_about_identity(&status) => {
                    self.mirror.note_refused_as(&caller);
                    refused = Some(status);
                }
                ended => return ended,
            }
        }
        Err(FetchError::Refused(refused.unwrap_or_else(|| {
            Status::unauthorized().saying("nobody who may fetch it has asked yet")
        })))
    }

    /// With whose identity to fetch: the one that worked, the node's, then of those who asked.
    fn identities(&self) -> Vec<Caller> {
        let node = self.config.has_node_identity.then_some(Caller::Node);
        let mut identities: Vec<Caller> = Vec::new();
        let worked = self.mirror.fetched_as().into_iter().flatten();
        for caller in worked.chain(node).chain(self.mirror.callers()) {
            if !identities.contains(&caller) {
                identities.push(caller);
            }
        }
        identities
    }

    /// Tells requests, the log and the figures how a round ended.
    fn note(&self, step: Step, done: &Result<(), FetchError>) {
        let scope = &self.mirror.scope;
        let Err(error) = done else { return };
        let cause = std::error::Error::source(error).map(ToString::to_string);
        let cause = cause.unwrap_or_default();
        match error.ended() {
            Ended::Lost => {
                tracing::debug!(%scope, step = %error, cause, "the mirror lost its watch")
            }
            Ended::Malformed => {
                let counters = &self.mirror.counters;
                counters.malformed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%scope, step = %error, cause, "the cloud's answer was malformed, listing again");
            }
            // It is told once, however often somebody else is tried.
            Ended::Forbidden if *self.following.refused.borrow() => {}
            Ended::Forbidden => {
                tracing::info!(%scope, "the mirror waits for a caller who may fetch it")
            }
            _ => tracing::warn!(%scope, step = %error, cause, "the mirror cannot follow"),
        }
        match error {
            // It has lists in pages.
            FetchError::Refused(_) if step == Step::WatchList => {}
            error if error.is_too_large() && !self.mirror.is_synced() => {
                // Waiting callers are forwarded at once; it is tried again, in case the object goes.
                let status = too_large(&self.mirror.scope.resource);
                self.mirror.set_phase(Phase::Refused(status));
            }
            FetchError::Refused(status) | FetchError::Busy(_, status)
                if !self.mirror.is_synced() =>
            {
                self.mirror.set_phase(Phase::Refused(status.clone()));
            }
            FetchError::Refused(_) | FetchError::Busy(..) | FetchError::Take(_) => {
                self.following.refused.send_replace(true);
            }
            _ => {}
        }
    }

    /// Ends with a status that has requests forwarded; what is held of a scope that stays so is released.
    async fn give_up(&self, up: Up, failed: Option<FetchError>) {
        let mirror = &self.mirror;
        match (up, failed) {
            (Up::Refused, Some(FetchError::Refused(status) | FetchError::Busy(_, status))) => {
                mirror.set_phase(Phase::Failed(status));
            }
            (Up::OverBudget, _) => {
                tracing::warn!(scope = %mirror.scope, "more than the node keeps of the kind: only forwarded");
                self.release(|mirror| mirror.rest(Instant::now())).await;
            }
            (Up::Refused | Up::Unfollowable, failed) => {
                let why = failed.map_or_else(String::new, |error| format!(": {error}"));
                tracing::info!(scope = %mirror.scope, why, "the scope cannot be followed: only forwarded");
                let message = format!("{} cannot be followed{why}", mirror.scope.resource);
                let status = Status::unavailable(message, None);
                self.release(|mirror| mirror.rest_saying(status, Instant::now()))
                    .await;
            }
        }
    }

    /// Ends the mirror for a while and erases it.
    async fn release(&self, rest: impl FnOnce(&Mirror) + Send + 'static) {
        let mirror = self.mirror.clone();
        let released = blocking(move || {
            rest(&mirror);
            mirror.erase()
        });
        if let Err(error) = released.await {
            tracing::warn!(scope = %self.mirror.scope, %error, "a mirror that was given up is not erased");
        }
    }
}

impl Course {
    /// Takes in what the last request came to.
    fn took(&mut self, step: Step, ended: Ended, lasted: Duration, mirror: &Mirror) {
        let now = Instant::now();
        // A list is soon over and says nothing of the next round.
        let has_lasted = lasted > LASTED;
        if has_lasted {
            self.backoff.reset();
        }
        self.missing_since = match ended {
            Ended::Missing | Ended::Unsupported => Some(self.missing_since.unwrap_or(now)),
            Ended::Lost | Ended::Busy(_) | Ended::Refused { .. } => self.missing_since,
            _ => None,
        };
        self.situation = Situation {
            last: Some((step, ended)),
            is_synced: mirror.is_synced(),
            is_suspect: mirror.is_suspect(),
            was_watched: self.situation.was_watched || mirror.was_watched(),
            has_lasted,
            is_fresh: self.backoff.is_fresh(),
            missing_for: self
                .missing_since
                .map_or(Duration::ZERO, |since| now.duration_since(since)),
            ..self.situation
        };
    }
}

fn too_large(resource: &Resource) -> Status {
    let message = format!("an object of {resource} is larger than this node keeps");
    Status::unavailable(message, None)
}

fn is_about_identity(status: &Status) -> bool {
    matches!(
        status.code,
        http::StatusCode::UNAUTHORIZED | http::StatusCode::FORBIDDEN
    )
}
