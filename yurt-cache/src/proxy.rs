//! One request's life: parse, decide, then forward, answer or refuse.

mod by_name;
pub(crate) mod exchange;
pub(crate) mod forward;
mod local_write;
pub(crate) mod mirrored;
pub(crate) mod route;
mod sifted;
pub(crate) mod tee;
mod token_request;
mod upload;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use yurt_core::name::NodeName;

use self::exchange::Exchange;
use self::forward::Broken;
use self::route::{Have, Route, route};
use self::validate::validate;
use crate::answer::object::{Found, find};
use crate::answer::{self, RETRY, write::Writer};
use crate::api::request::{ApiRequest, Path, Revision, Shape, Target, Verb, is_decodable};
use crate::api::{Scope, elapsed, human, key};
use crate::authorize::{Access, Permit, Verdicts, local_write};
use crate::body::{self, Body};
use crate::codec::{FieldSelector, LabelSelector, Status};
use crate::discovery::Documents;
use crate::filter::sieve::Filters;
use crate::follow::registry::Registry;
use crate::identity::{Authenticator, Caller};
use crate::limits::{Begun, Guest, Place, Shares, What};
use crate::metrics::{Metrics, Refused, ServedFrom};
use crate::mirror::Mirror;
use crate::outbox::Outbox;
use crate::overlay::truth::Truth;
use crate::tasks::{Tasks, blocking};
use crate::upstream::{Link, Reach, Upstream};

/// Serves requests of authenticated callers.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) node: NodeName,
    pub(crate) registry: Arc<Registry>,
    pub(crate) upstream: Upstream,
    pub(crate) verdicts: Verdicts,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) documents: Documents,
    pub(crate) truth: Arc<Truth>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) filters: Arc<Filters>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: Tasks,
    /// Ends the watches of the hub's clients.
    pub(crate) stop: CancellationToken,
    /// Ends what is still going on after that.
    pub(crate) end: CancellationToken,
    pub(crate) object_limit: usize,
    pub(crate) shares: Arc<Shares>,
    /// The longest body of a request.
    pub(crate) body_limit: u64,
    pub(crate) clock: fn() -> jiff::Timestamp,
}

/// An answer and where it came from.
type Answer = (Response<Body>, ServedFrom);

/// How long a caller that asks too much waits for the refusal.
const REFUSED_AFTER: Duration = Duration::from_secs(1);

/// How long after its start a hub that was stopped while cut off takes itself for cut off still, before it
/// answers what the cloud should.
const STILL_CUT: Duration = Duration::from_millis(400);

/// How long after its start a hub that was stopped while online waits for the cloud's first answer before it
/// shows what it remembers.
const FIRST_PROBE: Duration = Duration::from_secs(1);

impl Proxy {
    /// Answers one request.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        caller: Caller,
        guest: &Guest,
        mut request: Request<Incoming>,
    ) -> (Response<Body>, ServedFrom) {
        let began = Instant::now();
        let is_head = request.method() == Method::HEAD;
        if let Err(status) = check_head(&request) {
            return (answer::status(&status), ServedFrom::Hub);
        }
        let api = ApiRequest::read(request.method(), request.uri(), request.headers());
        let sieve = self.sieve(&caller, &api).await;
        let exchange = Exchange { api, sieve };
        let api = &exchange.api;
        let (place, placed) = self.place(guest, api).await;
        request.extensions_mut().insert(place.clone());
        let checked = placed.and_then(|()| self.check_length(api, request.headers()));
        let answered = match checked {
            Ok(()) => self.answer(&caller, &exchange, request).await,
            Err(refused) => Err(refused),
        };
        let (mut response, from) = match answered {
            Ok(answer) => answer,
            Err(status) => (answer::status(&status), ServedFrom::Hub),
        };
        answer::mark(&mut response, from.as_str());
        let mut response = response.map(|body| body::holding(body, place));
        if is_head {
            *response.body_mut() = body::empty();
        }
        let resource = api.path().map(|path| &path.resource);
        let resource = resource.filter(|resource| self.registry.known_kind(resource).is_some());
        self.metrics
            .request(api.verb, resource, from, response.status(), began.elapsed());
        (response, from)
    }

    /// Waits for the guest's turn, if it has a place left.
    async fn place(&self, guest: &Guest, api: &ApiRequest) -> (Option<Place>, Result<(), Status>) {
        let what = if api.lasts() {
            What::Watch
        } else {
            What::Request
        };
        match self.shares.begin(&guest.holder, what, Instant::now()) {
            Begun::Placed(place, turn) => {
                tokio::time::sleep(turn).await;
                (Some(place), Ok(()))
            }
            Begun::Refused(place) => {
                self.metrics.refused(match what {
                    What::Request | What::Refusal => Refused::Requests,
                    What::Watch => Refused::Watches,
                });
                tokio::time::sleep(REFUSED_AFTER).await;
                (Some(place), Err(too_many(what)))
            }
            Begun::Overrun => {
                self.metrics.refused(Refused::Overrun);
                guest.end.cancel();
                (None, Err(too_many(what)))
            }
        }
    }

    /// Refuses a body that says itself that it is too long; what lasts may send what it wants.
    fn check_length(&self, api: &ApiRequest, headers: &http::HeaderMap) -> Result<(), Status> {
        if api.verb != Verb::Write || api.lasts() {
            return Ok(());
        }
        upload::check_length(headers, self.body_limit)
    }

    async fn answer(
        self: &Arc<Self>,
        caller: &Caller,
        exchange: &Exchange,
        request: Request<Incoming>,
    ) -> Result<Answer, Status> {
        let api = &exchange.api;
        let scope = scope(api);
        let link = self.link_of(caller, api).await?;
        if link == Link::Cut {
            self.authenticator.check_offline(caller)?;
        }
        let have = match &scope {
            Ok(Some(scope)) => self.have(scope),
            _ => self.have_object(api),
        };
        // A selector that does not parse is the server's to refuse while it is there.
        let chosen = match &scope {
            Err(_) if link == Link::Up => Route::Forward(route::Remember::Nothing),
            Err(status) => return Err(status.clone()),
            Ok(scope) => {
                let local = local_write(api, caller, &self.node);
                route(exchange, scope.as_ref(), link, have, local)
            }
        };
        if link == Link::Cut && self.link() == Link::Up && !chosen.is_local() {
            return Err(Authenticator::asks_for_renewal());
        }
        match chosen {
            Route::Upgrade => self
                .upgrade(caller, request)
                .await
                .map(|response| (response, ServedFrom::Cloud)),
            Route::Mirror(scope, fresh) => {
                self.mirrored(caller, exchange, scope, fresh, link, request)
                    .await
            }
            Route::Token(permit) => {
                self.forward_token_request(permit, caller, api, request)
                    .await
            }
            Route::Forward(remember) => {
                let scope = scope.as_ref().ok().and_then(Option::as_ref);
                self.forwarded(caller, exchange, scope, remember, request)
                    .await
            }
            Route::LocalWrite(write, permit) => {
                let written = self.write_locally(api, (write, permit), request).await;
                let (response, from) = written?;
                Ok((self.sifted(exchange, response).await?, from))
            }
            Route::Object | Route::Document | Route::Unavailable | Route::NotAcceptable => {
                self.local(caller, exchange, chosen, &request.into_parts().0, link)
                    .await
            }
        }
    }

    /// Forwards; when the link breaks under a read, answers as if it had been cut before.
    async fn forwarded(
        self: &Arc<Self>,
        caller: &Caller,
        exchange: &Exchange,
        scope: Option<&Scope>,
        remember: route::Remember,
        request: Request<Incoming>,
    ) -> Result<Answer, Status> {
        let api = &exchange.api;
        if let (route::Remember::Scope, Some(scope)) = (remember, scope) {
            self.sync_first(caller, api, scope).await;
        }
        match self
            .forward(caller, exchange, scope, remember, request)
            .await
        {
            Ok(response) => Ok((self.sifted(exchange, response).await?, ServedFrom::Cloud)),
            Err(Broken {
                refused: Some(status),
                ..
            }) => Err(status),
            Err(Broken { parts, error, .. }) if api.verb != Verb::Write && !api.is_upgrade => {
                tracing::debug!(%error, uri = %parts.uri, "the link broke under a read");
                self.cut_off(caller, exchange, scope, &parts).await
            }
            Err(Broken { error, .. }) => Err(forward::unsent(&error, self.since())),
        }
    }

    /// Answers as when the cloud is away.
    async fn cut_off(
        self: &Arc<Self>,
        caller: &Caller,
        exchange: &Exchange,
        scope: Option<&Scope>,
        parts: &http::request::Parts,
    ) -> Result<Answer, Status> {
        self.authenticator.check_offline(caller)?;
        let have = scope.map_or(Have::Nothing, |scope| self.have(scope));
        match route(exchange, scope, Link::Cut, have, None) {
            Route::Mirror(scope, fresh) => {
                self.mirrored_offline(caller, exchange, scope, fresh).await
            }
            route => self.local(caller, exchange, route, parts, Link::Cut).await,
        }
    }

    /// Answers from the store alone, or refuses.
    async fn local(
        self: &Arc<Self>,
        caller: &Caller,
        exchange: &Exchange,
        chosen: Route<'_>,
        parts: &http::request::Parts,
        link: Link,
    ) -> Result<Answer, Status> {
        let api = &exchange.api;
        match (chosen, &api.target) {
            (Route::Object, Target::Resource(path)) => {
                let found = match self.stored_object(api, path).await {
                    // What nobody here has seen needs no verdict, and there may be none.
                    Err(status) if status.code == http::StatusCode::SERVICE_UNAVAILABLE => {
                        return Err(status);
                    }
                    found => found,
                };
                let permit = self.may(caller, &access("get", path), link).await?;
                let (found, shape) = found?;
                let now = (self.clock)();
                let include = api.options.include_object.as_deref();
                let mut response = found.show(permit, &api.options.revision, |kind, form| {
                    Writer::new(kind, form, shape, include, now).through(exchange.sieve.clone())
                })?;
                self.warn_of_age(&mut response, link);
                Ok((response, ServedFrom::Mirror))
            }
            (Route::Document, _) => {
                let (documents, uri, headers) = (
                    self.documents.clone(),
                    parts.uri.clone(),
                    parts.headers.clone(),
                );
                let found =
                    blocking(move || documents.answer(&uri, &headers, Instant::now())).await;
                let found = found.map_err(|error| {
                    Status::internal(&format!("read the node's store: {error}"))
                })?;
                found
                    .map(|response| (response, ServedFrom::Store))
                    .ok_or_else(|| {
                        self.unavailable(
                            "this document was never asked for while it was there",
                            None,
                        )
                    })
            }
            _ if matches!(parts.method, Method::HEAD | Method::OPTIONS) => {
                Err(Status::method_not_allowed())
            }
            (Route::NotAcceptable, _) => Err(Status::not_acceptable(&["application/json"])),
            _ => Err(self.unavailable(
                "this request needs it",
                (api.verb == Verb::Write).then_some(RETRY),
            )),
        }
    }

    /// Finds what a path names, and how it is to be written.
    async fn stored_object<'a>(
        &self,
        api: &ApiRequest,
        path: &'a Path,
    ) -> Result<(Found<'a>, Shape), Status> {
        let kind = self.registry.known_kind(&path.resource);
        validate(api.verb, &api.options)?;
        let (namespace, name) = (path.namespace.as_deref(), path.name.as_deref());
        let key = key(namespace.unwrap_or_default(), name.unwrap_or_default());
        let covering = self.covering(path).map(|mirror| mirror.covering(&key));
        let shape = api
            .shape
            .ok_or_else(|| Status::not_acceptable(&["application/json"]))?;
        Ok((find(kind, path, covering).await?, shape))
    }

    /// Returns a synced mirror that holds everything of the place where the object would be.
    fn covering(&self, path: &Path) -> Option<Arc<Mirror>> {
        let name = path.name.as_ref()?;
        let place = Scope::all(path.resource.clone()).in_namespace(path.namespace.clone());
        [place.clone(), place.named(name)]
            .iter()
            .filter_map(|scope| self.registry.find(scope))
            .find(|mirror| mirror.is_synced() && !mirror.is_suspect())
    }

    /// Permits it if the caller may do it. The cloud is asked unless it is known to be away, or has said so not
    /// long ago; then what it said counts and is asked again beside the answer.
    async fn may(
        self: &Arc<Self>,
        caller: &Caller,
        access: &Access,
        link: Link,
    ) -> Result<Permit, Status> {
        let is_online = matches!(*self.reach().borrow(), Reach::Online);
        if link == Link::Cut {
            return self.verdicts.check_offline(caller, access);
        }
        let Some(permit) = self.verdicts.allowed_lately(caller, access, is_online) else {
            return self.verdicts.check(&self.upstream, caller, access).await;
        };
        if !self.verdicts.is_fresh(caller, access) {
            let (proxy, caller, access) = (self.clone(), caller.clone(), access.clone());
            self.tasks.spawn(async move {
                // What it says is remembered, for the next request.
                let _verdict = proxy
                    .verdicts
                    .check(&proxy.upstream, &caller, &access)
                    .await;
            });
        }
        Ok(permit)
    }

    fn have(&self, scope: &Scope) -> Have {
        match self.registry.find(scope) {
            None => Have::Nothing,
            Some(mirror) if mirror.is_synced() => Have::Synced(mirror.revision()),
            Some(_) => Have::Syncing,
        }
    }

    /// What can answer a GET that takes any revision.
    fn have_object(&self, api: &ApiRequest) -> Have {
        match api.path() {
            Some(path) if api.options.revision == Revision::Zero => match self.covering(path) {
                Some(mirror) if mirror.is_live() => Have::Synced(mirror.revision()),
                _ => Have::Nothing,
            },
            _ => Have::Nothing,
        }
    }

    /// Returns the link as it is for a caller: who comes with a token of the hub's own is nobody to the cloud.
    async fn link_of(&self, caller: &Caller, api: &ApiRequest) -> Result<Link, Status> {
        if caller.is_of_hub() {
            let is_online = matches!(*self.reach().borrow(), Reach::Online);
            self.authenticator.check_own(is_online)?;
            return Ok(Link::Cut);
        }
        // A write is not decided on what was.
        if api.verb == Verb::Write || !self.is_reach_unknown() {
            return Ok(self.link());
        }
        let (contact, takes_any) = (&self.authenticator.contact, api.takes_any_version());
        let wait = match (contact.was_cut(), takes_any) {
            (true, true) => Duration::ZERO,
            (true, false) => STILL_CUT,
            // What was deleted meanwhile is not shown, if the cloud is there to say so.
            (false, true) => FIRST_PROBE,
            (false, false) => return Ok(self.link()),
        };
        let wait = wait.saturating_sub(contact.open_for(Instant::now()));
        let mut reach = self.reach();
        let is_known = reach.wait_for(|reach| !matches!(reach, Reach::Unknown));
        let _known_or_not = timeout(wait, is_known).await;
        Ok(if contact.was_cut() && self.is_reach_unknown() {
            Link::Cut
        } else {
            self.link()
        })
    }

    pub(crate) fn link(&self) -> Link {
        match *self.reach().borrow() {
            Reach::CutOff { .. } => Link::Cut,
            Reach::Unknown | Reach::Online => Link::Up,
        }
    }

    /// Returns for how long the cloud has been away, `None` while it is there.
    pub(crate) fn since(&self) -> Option<Duration> {
        match *self.reach().borrow() {
            Reach::CutOff { since } => {
                // A hub that has started since then knows only of its own failures.
                let last = self.authenticator.contact.last();
                let since = last.map_or(since, |last| last.min(since));
                Some(elapsed(since, (self.clock)()))
            }
            Reach::Unknown => {
                let contact = &self.authenticator.contact;
                let since = contact.was_cut().then(|| contact.last()).flatten();
                since.map(|since| elapsed(since, (self.clock)()))
            }
            Reach::Online => None,
        }
    }

    /// Returns whether the hub has just started and has not heard of the cloud yet.
    pub(crate) fn is_reach_unknown(&self) -> bool {
        matches!(*self.reach().borrow(), Reach::Unknown)
    }

    fn reach(&self) -> watch::Receiver<Reach> {
        self.upstream.reach()
    }

    fn warn_of_age(&self, response: &mut Response<Body>, link: Link) {
        if link == Link::Cut
            && let Some(since) = self.since()
        {
            let age = human(since);
            answer::warn(
                response,
                &format!("the cloud is not reachable: this is what the node knew {age} ago"),
            );
        }
    }

    fn unavailable(&self, why: &str, retry_after: Option<Duration>) -> Status {
        let since = self
            .since()
            .map_or_else(String::new, |since| format!(" for {}", human(since)));
        Status::unavailable(
            format!("the cloud is not reachable{since}, and {why}"),
            retry_after,
        )
    }
}

/// Refuses what no API server is asked.
fn check_head(request: &Request<Incoming>) -> Result<(), Status> {
    if *request.method() == Method::CONNECT {
        return Err(Status::method_not_allowed());
    }
    if !is_decodable(request.uri()) {
        let why = "the path or the query cannot be decoded";
        return Err(Status::bad_request(why));
    }
    if request.headers().get_all(http::header::HOST).iter().count() > 1 {
        return Err(Status::bad_request("too many Host headers"));
    }
    if drops_impersonation(request.headers()) {
        let why = "`Connection` may not name who is impersonated";
        return Err(Status::bad_request(why));
    }
    Ok(())
}

/// Returns whether `Connection` would have us drop what makes the caller less than it is.
fn drops_impersonation(headers: &http::HeaderMap) -> bool {
    let named = headers.get_all(http::header::CONNECTION).iter();
    named.filter_map(|value| value.to_str().ok()).any(|value| {
        let mut names = value.split(',').map(str::trim);
        names.any(|name| name.to_ascii_lowercase().starts_with("impersonate-"))
    })
}

fn too_many(what: What) -> Status {
    let message = match what {
        What::Request | What::Refusal => "this caller has too many requests under way on this node",
        What::Watch => "this caller has too many watches and streams on this node",
    };
    Status::too_many_requests(message, RETRY)
}

/// Returns the scope of a list or a watch; `None` for other requests.
pub(crate) fn scope(api: &ApiRequest) -> Result<Option<Scope>, Status> {
    let is_collection = matches!(api.verb, Verb::List | Verb::Watch);
    let Some(path) = api
        .path()
        .filter(|path| path.subresource.is_none() && is_collection)
    else {
        return Ok(None);
    };
    let labels = LabelSelector::parse(&api.options.labels)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    let mut fields = FieldSelector::parse(&api.options.fields)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    // A watch in the old style names one object: `k8s.io/apiserver/pkg/endpoints/handlers/get.go`, `ListResource`.
    if let Some(name) = &path.name {
        if fields.is_everything() {
            fields = FieldSelector::equal("metadata.name", name);
        } else if fields.exact("metadata.name") != Some(name) {
            let why = "fieldSelector metadata.name doesn't match requested name";
            return Err(Status::bad_request(why));
        }
    }
    Ok(Some(Scope {
        resource: path.resource.clone(),
        namespace: path.namespace.clone(),
        labels,
        fields,
    }))
}

/// Returns the read that a path names.
pub(crate) fn access(verb: &'static str, path: &Path) -> Access {
    Access {
        verb,
        resource: path.resource.clone(),
        namespace: path.namespace.clone(),
        name: path.name.clone(),
        subresource: path.subresource.clone(),
        labels: String::new(),
        fields: String::new(),
    }
}
