//! Lists and watches that a mirror answers: found or started, waited for, checked, written.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout};

use super::exchange::Exchange;
use super::route::Remember;
use super::validate::validate;
use super::{Answer, Proxy};
use crate::answer::write::Writer;
use crate::answer::{RETRY, Reading, list, watch};
use crate::api::request::{ApiRequest, Revision, Shape, Verb};
use crate::api::{Freshness, ListAt, Resource, Scope, Selection};
use crate::authorize::{Access, Permit};
use crate::body::Body;
use crate::codec::fields::Selectable;
use crate::codec::{Status, fields};
use crate::follow::definition;
use crate::identity::Caller;
use crate::metrics::ServedFrom;
use crate::mirror::Mirror;
use crate::upstream::{Link, Reach};

/// How long a request waits for a mirror's first list before it is forwarded instead.
const SYNC_WAIT: Duration = Duration::from_secs(30);

/// How long a request waits for a mirror's watch to be open again, or to reach a revision: as the server.
const CATCH_UP_WAIT: Duration = Duration::from_secs(3);

/// What became of a wait for a mirror.
enum Waited {
    Ready,
    /// It cannot be, or not in time: the cloud itself shall answer.
    Forward,
    CutOff,
}

/// What a mirror has to show before it answers.
#[derive(Clone, Copy)]
struct Wanted {
    fresh: Freshness,
    /// It has to be proven once that it shows more than what the store remembers.
    proof: bool,
}

impl Proxy {
    /// Answers from a mirror, or forwards if there can be none.
    pub(super) async fn mirrored(
        self: &Arc<Self>,
        caller: &Caller,
        exchange: &Exchange,
        scope: &Scope,
        fresh: Freshness,
        link: Link,
        request: Request<Incoming>,
    ) -> Result<Answer, Status> {
        let api = &exchange.api;
        if link == Link::Cut {
            return self.mirrored_offline(caller, exchange, scope, fresh).await;
        }
        let access = scope_access(api, scope);
        self.check_claim(caller, &access).await?;
        let started = match (api.verb, &api.options.revision, api.options.initial_events) {
            (Verb::Watch, Revision::At(revision), None | Some(false)) => ListAt::Exactly(*revision),
            _ => ListAt::Latest,
        };
        let arrived = Instant::now();
        let mirror = self.registry.find_or_start(scope, started, caller, arrived);
        let Some(mirror) = mirror else {
            return self
                .forwarded(caller, exchange, Some(scope), Remember::Nothing, request)
                .await;
        };
        let wanted = Wanted {
            fresh: ahead(&mirror, api).map_or(fresh, Freshness::AtLeast),
            // What the cloud has deleted since an earlier hub stopped is not shown again.
            proof: wants_state(api) && !self.registry.was_proven(&mirror),
        };
        match self.wait_for(&mirror, caller, wanted, arrived).await {
            Waited::Ready => {}
            // Filters need a mirror, and whoever takes any version takes the one that is not proven.
            Waited::Forward
                if exchange.sieve.is_some() && fresh == Freshness::Any && mirror.is_synced() => {}
            Waited::Forward => {
                return self
                    .forwarded(caller, exchange, Some(scope), Remember::Nothing, request)
                    .await;
            }
            Waited::CutOff => {
                self.authenticator.check_offline(caller)?;
                return self.mirrored_offline(caller, exchange, scope, fresh).await;
            }
        }
        if exchange.sieve.is_some()
            && let Some(from) = lost(&mirror, api)
        {
            // The cloud could go on, but not through the filters.
            return Err(Status::expired_watch(from, mirror.revision()));
        }
        mirror.check_damage();
        if mirror.is_suspect()
            || is_misplaced(&mirror, scope)
            || !can_select(&mirror, scope)
            || lost(&mirror, api).is_some()
        {
            return self
                .forwarded(caller, exchange, Some(scope), Remember::Nothing, request)
                .await;
        }
        let Some(permit) = self.permit(&mirror, caller, api, scope).await else {
            // The refusal is the cloud's to word; and if it has changed its mind, the caller is served.
            return self
                .forwarded(caller, exchange, Some(scope), Remember::Nothing, request)
                .await;
        };
        self.learn(caller, scope);
        match self.write(permit, &mirror, exchange, scope, fresh).await {
            Ok(response) => Ok((response, ServedFrom::Mirror)),
            // The mirror has moved on, or is gone; the cloud goes on where a page ended.
            Err(status) if is_gone(&status) && exchange.sieve.is_none() => {
                self.forwarded(caller, exchange, Some(scope), Remember::Nothing, request)
                    .await
            }
            Err(status) => Err(status),
        }
    }

    /// Permits what the cloud lets the caller see of a mirror; by having shown it, where it is fetched as the caller.
    async fn permit(
        self: &Arc<Self>,
        mirror: &Mirror,
        caller: &Caller,
        api: &ApiRequest,
        scope: &Scope,
    ) -> Option<Permit> {
        let mut permit = None;
        // Both, so that a cut right after the first list finds the watch allowed.
        for (verb, word) in [(Verb::List, "list"), (Verb::Watch, "watch")] {
            if mirror.is_fetched_as(caller, verb) {
                let granted = self.verdicts.grant(caller, &Access::to_scope(word, scope));
                permit = permit.or((verb == api.verb).then_some(granted));
            }
        }
        if permit.is_some() {
            return permit;
        }
        let access = scope_access(api, scope);
        self.may(caller, &access, Link::Up).await.ok()
    }

    /// Answers from a mirror while the cloud is away.
    pub(super) async fn mirrored_offline(
        &self,
        caller: &Caller,
        exchange: &Exchange,
        scope: &Scope,
        fresh: Freshness,
    ) -> Result<Answer, Status> {
        let api = &exchange.api;
        validate(api.verb, &api.options)?;
        let mirror = self
            .registry
            .find(scope)
            .filter(|mirror| mirror.is_synced());
        let Some(mirror) = mirror else {
            self.verdicts
                .check_denied(caller, &scope_access(api, scope))?;
            return Err(self.unavailable(&format!("this node has never listed {scope}"), None));
        };
        let permit = self
            .verdicts
            .check_offline(caller, &scope_access(api, scope))?;
        mirror.note_use(caller, Instant::now());
        mirror.check_damage();
        if mirror.is_suspect() {
            let why =
                format!("the node's store is damaged: what it has of {scope} may lack something");
            return Err(self.unavailable(&why, Some(RETRY)));
        }
        if is_misplaced(&mirror, scope) {
            return Err(Status::unknown_resource());
        }
        if let Some(field) = unsupported(&mirror, scope) {
            return Err(field);
        }
        let mut response = self.write(permit, &mirror, exchange, scope, fresh).await?;
        if api.verb == Verb::List && api.options.revision == Revision::Unset {
            self.warn_of_age(&mut response, Link::Cut);
        }
        Ok((response, ServedFrom::Mirror))
    }

    async fn write(
        &self,
        permit: Permit,
        mirror: &Arc<Mirror>,
        exchange: &Exchange,
        scope: &Scope,
        fresh: Freshness,
    ) -> Result<Response<Body>, Status> {
        let api = &exchange.api;
        let form = mirror
            .kind
            .form()
            .ok_or_else(|| Status::internal("the mirror does not know its kind"))?;
        let shape = api
            .shape
            .ok_or_else(|| Status::not_acceptable(&["application/json"]))?;
        let writer = Writer::new(
            &mirror.kind,
            form,
            shape,
            api.options.include_object.as_deref(),
            (self.clock)(),
        )
        .through(exchange.sieve.clone());
        let reading = Reading {
            mirror,
            selection: Selection::new(scope, &mirror.scope),
            options: &api.options,
            writer,
        };
        if api.verb == Verb::Watch {
            return Ok(watch::watch(permit, reading, self.stop.clone()));
        }
        list::list(permit, reading, fresh).await
    }

    /// Returns if the caller may start a mirror: the node has shown its certificate, a token only claims.
    async fn check_claim(&self, caller: &Caller, access: &Access) -> Result<(), Status> {
        match caller {
            Caller::Node => Ok(()),
            Caller::Token(_) => {
                let checked = self.verdicts.check(&self.upstream, caller, access);
                checked.await.map(drop)
            }
        }
    }

    /// Lets a new mirror sync before a list of its scope is forwarded, so that its history reaches back to
    /// the revision of that list, and the watch that follows is the hub's own.
    pub(super) async fn sync_first(&self, caller: &Caller, api: &ApiRequest, scope: &Scope) {
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

    async fn wait_for(
        &self,
        mirror: &Arc<Mirror>,
        caller: &Caller,
        wanted: Wanted,
        arrived: Instant,
    ) -> Waited {
        let mut reach = self.upstream.reach();
        let is_cut = |reach: &Reach| matches!(reach, Reach::CutOff { .. });
        let ready = async {
            match timeout(SYNC_WAIT, mirror.synced()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Waited::Forward,
            }
            // While nobody knows yet whether the cloud is there, what was remembered is as good as any.
            if wanted.fresh == Freshness::Any && self.is_reach_unknown() {
                return Waited::Ready;
            }
            // A mirror that cannot follow while the cloud is there has nothing to say of it.
            if !self.is_followed(mirror).await {
                return Waited::Forward;
            }
            let is_shown = || self.registry.prove(mirror, caller, arrived);
            match wanted.fresh {
                Freshness::Any if wanted.proof && !is_shown().await => return Waited::Forward,
                Freshness::Any | Freshness::Exactly(_) => {}
                Freshness::AtLeast(revision) if revision <= mirror.revision() => {}
                Freshness::AtLeast(revision) => {
                    // Whether it came in time the answer itself checks.
                    is_shown().await;
                    let _came_or_not = timeout(CATCH_UP_WAIT, mirror.reached(revision)).await;
                }
                Freshness::Latest if is_shown().await => {}
                Freshness::Latest => return Waited::Forward,
            }
            Waited::Ready
        };
        tokio::select! {
            waited = ready => waited,
            _ = reach.wait_for(is_cut) => Waited::CutOff,
        }
    }

    /// Waits until the mirror's watch is open; `false` as soon as it is known that it will not be soon.
    async fn is_followed(&self, mirror: &Mirror) -> bool {
        let Some(following) = self.registry.following(mirror) else {
            return false;
        };
        tokio::select! {
            biased;
            () = mirror.live() => true,
            () = following.refused() => false,
            _failed = mirror.failed() => false,
            () = sleep(CATCH_UP_WAIT) => false,
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
                // What it says is remembered; there is nobody to tell.
                let _verdict = proxy
                    .verdicts
                    .check(&proxy.upstream, &caller, &access)
                    .await;
            }
        });
    }
}

/// Returns whether the answer begins with what is there now.
fn wants_state(api: &ApiRequest) -> bool {
    let is_resumed = matches!(api.options.revision, Revision::At(_));
    match api.verb {
        Verb::List => api.options.continue_token.is_none(),
        Verb::Watch => api.options.initial_events.unwrap_or(!is_resumed),
        Verb::Get | Verb::Write => false,
    }
}

fn is_gone(status: &Status) -> bool {
    matches!(
        status.code,
        http::StatusCode::GONE | http::StatusCode::SERVICE_UNAVAILABLE
    )
}

/// Returns whether a namespace is asked for of what has none.
fn is_misplaced(mirror: &Mirror, scope: &Scope) -> bool {
    scope.namespace.is_some() && mirror.scope.namespace.is_none() && mirror.kind.is_cluster_scoped()
}

/// Returns whether the mirror can evaluate the selectors of a narrower scope.
fn can_select(mirror: &Mirror, scope: &Scope) -> bool {
    unsupported(mirror, scope).is_none()
}

fn unsupported(mirror: &Mirror, scope: &Scope) -> Option<Status> {
    if scope.is_same(&mirror.scope) {
        return None;
    }
    let custom = mirror.kind.custom();
    let Resource {
        group,
        version,
        plural,
    } = &scope.resource;
    let of = Selectable {
        group,
        version,
        resource: plural,
        is_namespaced: scope.namespace.is_some() || mirror.kind.is_namespaced(),
        custom: custom.is_defined.then_some(&custom.selectable),
    };
    let error = fields::check(&scope.fields, &of).err()?;
    Some(Status::bad_request(error.to_string()))
}

/// Returns the revision at which a watch begins, if the mirror has not come so far: a client that has listed at the
/// cloud itself may know more.
fn ahead(mirror: &Mirror, api: &ApiRequest) -> Option<u64> {
    match (api.verb, &api.options.revision, api.options.initial_events) {
        (Verb::Watch, Revision::At(revision), None | Some(false)) => {
            (*revision > mirror.revision()).then_some(*revision)
        }
        _ => None,
    }
}

/// Returns the revision at which a watch begins, if the mirror's history does not go back so far.
fn lost(mirror: &Mirror, api: &ApiRequest) -> Option<u64> {
    match (api.verb, &api.options.revision, api.options.initial_events) {
        (Verb::Watch, Revision::At(revision), None | Some(false)) => {
            (!mirror.has_history_since(*revision)).then_some(*revision)
        }
        _ => None,
    }
}

fn scope_access(api: &ApiRequest, scope: &Scope) -> Access {
    let verb = if api.verb == Verb::Watch {
        "watch"
    } else {
        "list"
    };
    Access::to_scope(verb, scope)
}
