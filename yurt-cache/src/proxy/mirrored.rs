//! Lists and watches that a mirror answers: found or started, waited for, checked, written.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::exchange::{Exchange, scope_access};
use super::fit::{can_answer, is_misplaced, lost, unsupported};
use super::route::Remember;
use super::validate::validate;
use super::wait::{CATCH_UP_WAIT, Waited, Wanted};
use super::{Answer, Proxy};
use crate::answer::write::Writer;
use crate::answer::{RETRY, Reading, list, watch};
use crate::api::request::{ApiRequest, Revision, Shape, Verb};
use crate::api::{Freshness, ListAt, Scope, Selection};
use crate::authorize::{Access, Permit};
use crate::body::Body;
use crate::codec::Status;
use crate::follow::definition;
use crate::identity::Caller;
use crate::metrics::ServedFrom;
use crate::mirror::Mirror;
use crate::upstream::Link;

/// A list or a watch, and how fresh it has to be.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    exchange: &'a Exchange,
    scope: &'a Scope,
    fresh: Freshness,
}

impl<'a> Asked<'a> {
    pub(super) fn new(exchange: &'a Exchange, scope: &'a Scope, fresh: Freshness) -> Self {
        Self {
            exchange,
            scope,
            fresh,
        }
    }

    fn access(self) -> Access {
        scope_access(&self.exchange.api, self.scope)
    }
}

impl Proxy {
    /// Answers from a mirror, or forwards if there can be none.
    pub(super) async fn mirrored(
        self: &Arc<Self>,
        asked: Asked<'_>,
        request: Request<Incoming>,
    ) -> Result<Answer, Status> {
        match self.from_mirror(asked).await? {
            Some(answer) => Ok(answer),
            None => {
                self.forwarded(asked.exchange, Remember::Nothing, request)
                    .await
            }
        }
    }

    /// Answers from a mirror; `None` where the cloud itself shall answer.
    async fn from_mirror(self: &Arc<Self>, asked: Asked<'_>) -> Result<Option<Answer>, Status> {
        let Asked {
            exchange,
            scope,
            fresh,
        } = asked;
        let Exchange {
            caller, api, chain, ..
        } = exchange;
        self.check_claim(caller, &asked.access()).await?;
        let arrived = Instant::now();
        let found = self
            .registry
            .find_or_start(scope, starts_at(api), caller, arrived);
        let Some(mirror) = found else {
            return Ok(None);
        };
        let wanted = Wanted::of(api, &mirror, fresh, self.registry.was_proven(&mirror));
        match self.wait_for(&mirror, caller, wanted, arrived).await {
            Waited::Ready => {}
            // Filters need a mirror, and whoever takes any version takes the one that is not proven.
            Waited::Forward if chain.is_some() && fresh == Freshness::Any && mirror.is_synced() => {
            }
            Waited::Forward => return Ok(None),
            Waited::CutOff => {
                self.authenticator.check_offline(caller)?;
                return self.mirrored_offline(asked).await.map(Some);
            }
        }
        let lost = lost(&mirror, api);
        if let (Some(_), Some(from)) = (chain, lost) {
            // The cloud could go on, but not through the filters.
            return Err(Status::expired_watch(from, mirror.revision()));
        }
        mirror.check_damage();
        if lost.is_some() || !can_answer(&mirror, scope) {
            return Ok(None);
        }
        let Some(permit) = self.permit(&mirror, asked).await else {
            // The refusal is the cloud's to word; and if it has changed its mind, the caller is served.
            return Ok(None);
        };
        self.learn(caller, scope);
        match self.write(permit, &mirror, asked).await {
            Ok(response) => Ok(Some((response, ServedFrom::Mirror))),
            // The mirror has moved on, or is gone, or its store does not give what it has; the cloud does, and goes on
            // where a page ended.
            Err(status) if is_lost(&status) && chain.is_none() => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Permits what the cloud lets the caller see of a mirror; it has said so by letting it be fetched as the caller.
    async fn permit(&self, mirror: &Mirror, asked: Asked<'_>) -> Option<Permit> {
        let caller = &asked.exchange.caller;
        // Both, so that a cut right after the first list finds the watch allowed.
        for (verb, word) in [(Verb::List, "list"), (Verb::Watch, "watch")] {
            if let Some(at) = mirror.fetched_at(caller, verb) {
                let access = Access::to_scope(word, asked.scope);
                self.verdicts.granted_at(caller, &access, at);
            }
        }
        let access = asked.access();
        self.verdicts
            .authorize(caller, &access, Link::Up)
            .await
            .ok()
    }

    /// Answers from a mirror while the cloud is away.
    pub(super) async fn mirrored_offline(&self, asked: Asked<'_>) -> Result<Answer, Status> {
        let scope = asked.scope;
        let Exchange { caller, api, .. } = asked.exchange;
        validate(api.verb, &api.options)?;
        let permit = self.verdicts.check_offline(caller, &asked.access());
        let found = self.registry.find(scope);
        let Some(mirror) = found.filter(|mirror| mirror.is_synced()) else {
            let absent = self.unavailable(&format!("this node has never listed {scope}"), None);
            return Err(self.absent(caller, &asked.access(), permit, absent));
        };
        let permit = permit?;
        mirror.note_use(caller, Instant::now());
        mirror.check_damage();
        if mirror.is_suspect() {
            let why = if mirror.is_outdated() {
                format!(
                    "the cloud was put back to an earlier state, and {scope} was not listed since"
                )
            } else {
                format!("the node's store is damaged: what it has of {scope} may lack something")
            };
            return Err(self.unavailable(&why, Some(RETRY)));
        }
        if is_misplaced(&mirror, scope) {
            return Err(Status::unknown_resource());
        }
        if let Some(field) = unsupported(&mirror, scope) {
            return Err(field);
        }
        let mut response = self.write(permit, &mirror, asked).await?;
        if api.verb == Verb::List && api.options.revision == Revision::Unset {
            self.warn_of_age(&mut response, Link::Cut);
        }
        Ok((response, ServedFrom::Mirror))
    }

    async fn write(
        &self,
        permit: Permit,
        mirror: &Arc<Mirror>,
        asked: Asked<'_>,
    ) -> Result<Response<Body>, Status> {
        let Exchange { api, chain, .. } = asked.exchange;
        let form = mirror
            .kind
            .form()
            .ok_or_else(|| Status::internal("the mirror does not know its kind"))?;
        let shape = api
            .shape
            .ok_or_else(|| Status::not_acceptable(&["application/json"]))?;
        let include = api.options.include_object.as_deref();
        let now = (self.clock)();
        let reading = Reading {
            mirror,
            selection: Selection::new(asked.scope, &mirror.scope),
            options: &api.options,
            writer: Writer::new(&mirror.kind, form, shape, include, now).through(chain.clone()),
        };
        if api.verb == Verb::Watch {
            let caller = &asked.exchange.caller;
            let permit = self.verdicts.lasting(permit, caller, &asked.access());
            return Ok(watch::watch(permit, reading, self.stop.clone()));
        }
        list::list(permit, reading, asked.fresh).await
    }

    /// Returns if the caller may start a mirror: the node has shown its certificate, a token only claims.
    async fn check_claim(&self, caller: &Caller, access: &Access) -> Result<(), Status> {
        match caller {
            Caller::Node => Ok(()),
            Caller::Token(_) => {
                let permit = self.verdicts.authorize(caller, access, Link::Up).await;
                permit.map(drop)
            }
        }
    }

    /// Lets a new mirror sync before a list of its scope is forwarded, so that its history reaches back to
    /// the revision of that list, and the watch that follows is the hub's own.
    pub(super) async fn sync_first(&self, exchange: &Exchange, scope: &Scope) {
        let Exchange { caller, api, .. } = exchange;
        if api.verb != Verb::List || api.shape == Some(Shape::Table) {
            return;
        }
        let claim = self.check_claim(caller, &scope_access(api, scope)).await;
        // What the caller is told of it is the cloud's affair.
        if claim.is_err() {
            return;
        }
        let found = self
            .registry
            .find_or_start(scope, ListAt::Latest, caller, Instant::now());
        if let Some(mirror) = found {
            // Whether it can be or not: the cloud answers this one.
            let _synced_or_not = timeout(CATCH_UP_WAIT, mirror.synced()).await;
        }
    }

    /// Learns beside the answer what else the caller may read of the scope, for when the cloud is away.
    pub(super) fn learn(self: &Arc<Self>, caller: &Caller, scope: &Scope) {
        let accesses = ["get", "list", "watch"].map(|verb| Access::to_scope(verb, scope));
        let unknown: Vec<Access> = accesses
            .into_iter()
            .filter(|access| !self.verdicts.is_asked(caller, access))
            .collect();
        if unknown.is_empty() {
            return;
        }
        let (proxy, caller) = (self.clone(), caller.clone());
        let kind = self.registry.kind(&scope.resource);
        self.tasks.spawn(async move {
            definition::learn(&proxy.registry, &proxy.upstream, &kind, &caller).await;
            for access in unknown {
                proxy.verdicts.learn(&caller, &access).await;
            }
        });
    }
}

/// Returns at which revision a new mirror begins: where a watch goes on, if it does.
fn starts_at(api: &ApiRequest) -> ListAt {
    match (api.verb, &api.options.revision, api.options.initial_events) {
        (Verb::Watch, Revision::At(revision), None | Some(false)) => ListAt::Exactly(*revision),
        _ => ListAt::Latest,
    }
}

fn is_lost(status: &Status) -> bool {
    // 504 is a revision that has not come, here or there.
    let is_to_come = status.code == StatusCode::GATEWAY_TIMEOUT;
    status.code == StatusCode::GONE || (status.code.is_server_error() && !is_to_come)
}
