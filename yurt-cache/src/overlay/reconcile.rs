//! The end of a cut: what was local goes, the server wins. Endpoints stay true a little longer, until the
//! kubelet has told the cloud itself, so that a Service that answers goes on answering.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use yurt_core::store::Store;

use super::local_pods::{LocalPods, concerned, endpoint_resources, nodes, pods};
use super::unheard::Unheard;
use crate::follow::registry::Registry;
use crate::identity::Caller;
use crate::outbox::Outbox;
use crate::tasks::{Panicked, blocking};
use crate::upstream::{Reach, Upstream};

/// How long endpoints may stay ahead of the cloud: three rounds of the kubelet's status reports, every 10 s.
const GRACE: Duration = Duration::from_secs(30);

/// What is done when the cloud is back.
#[derive(Clone, Debug)]
pub(crate) struct Reconcile {
    pub(crate) registry: Arc<Registry>,
    pub(crate) local_pods: Arc<LocalPods>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) upstream: Upstream,
    pub(crate) store: Arc<dyn Store>,
}

impl Reconcile {
    /// Waits for the ends of cuts, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut reach = self.upstream.reach();
        loop {
            let came = reach.wait_for(|reach| *reach == Reach::Online);
            match stop.run_until_cancelled(came).await {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            }
            let mut gone = reach.clone();
            let work = async {
                let (_settled, ()) =
                    tokio::join!(self.settle(), self.outbox.deliver(&self.upstream));
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = work => {}
                _cut_again = gone.wait_for(|reach| *reach != Reach::Online) => {}
            }
        }
    }

    /// Ends early only by a panic, which is told already.
    async fn settle(&self) -> Result<(), Panicked> {
        let this = self.clone();
        blocking(move || {
            let count = this.uncover(&[pods(), nodes()]);
            if count > 0 {
                tracing::info!(
                    count,
                    "the cloud is back: what only this node knew of its status is gone"
                );
            }
            Ok::<(), Panicked>(())
        })
        .await?;
        if self.local_pods.assumes() {
            self.hear_of_pods().await;
        }
        let this = self.clone();
        blocking(move || {
            if let Err(error) = Unheard::forget(&*this.store) {
                tracing::warn!(%error, "cannot forget which pods the kubelet has not reported: after a restart of the hub they may count as not ready");
            }
            Ok::<(), Panicked>(())
        })
        .await?;
        let until = Instant::now() + GRACE;
        loop {
            let mirrors = concerned(&self.registry);
            let mut changes: Vec<_> = mirrors.iter().map(|mirror| mirror.changed()).collect();
            let this = self.clone();
            let is_ahead = blocking(move || {
                let is_ahead = this.local_pods.agree(&this.registry);
                if let Err(error) = this.local_pods.correct_all(&this.registry) {
                    tracing::warn!(%error, "endpoints cannot be kept true");
                }
                Ok::<_, Panicked>(is_ahead || this.is_covered())
            })
            .await?;
            if !is_ahead || changes.is_empty() {
                break;
            }
            let changed = select_all(changes.iter_mut().map(|change| Box::pin(change.changed())));
            tokio::select! {
                _any = changed => {}
                () = sleep_until(until) => break,
            }
        }
        let this = self.clone();
        blocking(move || {
            this.local_pods.clear();
            this.uncover(&endpoint_resources());
            Ok(())
        })
        .await
    }

    /// Waits, but not for ever, until what is known of pods is what the cloud says now and not what it said before.
    async fn hear_of_pods(&self) {
        let began = Instant::now();
        let of_pods = concerned(&self.registry).into_iter();
        let of_pods = of_pods.filter(|mirror| mirror.scope.resource == pods());
        let proofs = of_pods.map(|mirror| async move {
            let is_proven = self.registry.prove(&mirror, &Caller::Node, began).await;
            tracing::debug!(scope = %mirror.scope, is_proven, "what the cloud says of pods");
        });
        join_all(proofs).await;
    }

    fn is_covered(&self) -> bool {
        endpoint_resources().iter().any(|resource| {
            let kind = self.registry.known_kind(resource);
            kind.is_some_and(|kind| !kind.all_covered().is_empty())
        })
    }

    fn uncover(&self, resources: &[crate::api::Resource]) -> usize {
        let mut count = 0;
        for resource in resources {
            match self.registry.uncover(resource, &|_| true) {
                Ok(uncovered) => count += uncovered,
                Err(error) => {
                    tracing::warn!(%resource, %error, "something local cannot be taken away")
                }
            }
        }
        count
    }
}
