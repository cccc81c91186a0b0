//! One request's life: parse, decide, then forward, answer or refuse.

mod by_name;
mod entrance;
pub(crate) mod exchange;
mod filtered;
mod fit;
mod forward;
mod headers;
mod link;
mod local_write;
mod mirrored;
mod outgoing;
pub(crate) mod own_word;
mod public;
mod remember;
pub(crate) mod route;
mod stored;
pub(crate) mod tee;
mod token_request;
pub(crate) mod unread;
mod upload;
mod validate;
mod wait;

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use yurt_core::name::NodeName;

use self::entrance::check_head;
use self::exchange::{Exchange, Speaks};
use self::forward::{Broken, unsent};
use self::mirrored::Asked;
pub(crate) use self::public::{PublicAnswers, PublicPath};
use self::route::{Have, Remember, Route, route};
use self::unread::Unread;
use crate::answer::{self, RETRY};
use crate::api::request::{ApiRequest, Verb};
use crate::authorize::{Verdicts, local_write};
use crate::body::{self, Body};
use crate::codec::Status;
use crate::discovery::Documents;
use crate::filter::chain::Filters;
use crate::follow::registry::Registry;
use crate::identity::{Authenticator, Caller};
use crate::limits::{Requester, Shares};
use crate::metrics::{Metrics, ServedFrom};
use crate::outbox::Outbox;
use crate::overlay::local_pods::LocalPods;
use crate::tasks::Tasks;
use crate::upstream::{Link, SendError, Upstream};

/// Serves requests of authenticated callers.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) node: NodeName,
    pub(crate) registry: Arc<Registry>,
    pub(crate) upstream: Upstream,
    pub(crate) verdicts: Arc<Verdicts>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) documents: Documents,
    pub(crate) public_answers: PublicAnswers,
    pub(crate) local_pods: Arc<LocalPods>,
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
    pub(crate) unread: Arc<Unread>,
    /// The longest body of a request.
    pub(crate) body_limit: u64,
    pub(crate) clock: fn() -> jiff::Timestamp,
}

/// An answer and where it came from.
type Answer = (Response<Body>, ServedFrom);

impl Proxy {
    /// Answers one request.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        caller: Caller,
        speaks: Speaks,
        requester: &Requester,
        request: Request<Incoming>,
    ) -> Answer {
        let began = Instant::now();
        let is_head = request.method() == Method::HEAD;
        if let Err(status) = check_head(&request) {
            return (answer::status(&status), ServedFrom::Hub);
        }
        let api = ApiRequest::read(request.method(), request.uri(), request.headers());
        let mut exchange = Exchange::new(caller, api);
        exchange.speaks = speaks;
        exchange.chain = self.chain(&exchange).await;
        let (place, placed) = self.place(requester, &exchange.api).await;
        exchange.place = place;
        let checked = placed
            .and_then(|()| self.check_stranger(&exchange.caller))
            .and_then(|()| self.check_length(&exchange.api, request.headers()));
        let answered = match checked {
            Ok(()) => self.answer(&mut exchange, request).await,
            Err(refused) => Err(refused),
        };
        let (mut response, from) =
            answered.unwrap_or_else(|status| (answer::status(&status), ServedFrom::Hub));
        answer::mark(&mut response, from.as_str());
        let Exchange { api, place, .. } = exchange;
        let response = response.map(|body| body::holding(body, place));
        let mut response = self
            .unread
            .attend(response, &requester.tenant, (from, api.lasts()));
        if is_head {
            *response.body_mut() = body::empty();
        }
        let resource = api.path().map(|path| &path.resource);
        let resource = resource.filter(|resource| self.registry.known_kind(resource).is_some());
        self.metrics
            .request(api.verb, resource, from, response.status(), began.elapsed());
        (response, from)
    }

    /// Returns whether what is read may be kept and shown to others.
    async fn may_share(&self, exchange: &Exchange, link: Link) -> bool {
        let api = &exchange.api;
        let Some(path) = api.path().filter(|_| api.verb != Verb::Write) else {
            return true;
        };
        match link {
            Link::Up => {
                let caller = &exchange.caller;
                self.registry.may_share(caller, &path.resource).await
            }
            Link::Cut => self.registry.may_share_held(&path.resource),
        }
    }

    async fn answer(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        request: Request<Incoming>,
    ) -> Result<Answer, Status> {
        let mut link = self.link_of(exchange).await?;
        let mut is_shared = self.may_share(exchange, link).await;
        if !is_shared && link == Link::Up && self.link() == Link::Cut {
            // It broke while the cloud was asked.
            link = Link::Cut;
            is_shared = self.may_share(exchange, link).await;
        }
        if !is_shared {
            exchange.keep_to_caller();
        }
        if link == Link::Cut {
            self.authenticator.check_offline(&exchange.caller)?;
        }
        let chosen = self.choose(exchange, link)?;
        if link == Link::Cut && self.link() == Link::Up && !chosen.is_local() {
            return Err(exchange.asks_for_renewal());
        }
        match chosen {
            Route::Upgrade => {
                let response = self.upgrade(exchange, request).await?;
                Ok((response, ServedFrom::Cloud))
            }
            Route::Mirror(scope, fresh) => {
                let asked = Asked::new(exchange, scope, fresh);
                match link {
                    Link::Up => self.mirrored(asked, request).await,
                    Link::Cut => self.mirrored_offline(asked).await,
                }
            }
            Route::Forward(remember) => self.forwarded(exchange, remember, request).await,
            Route::Token(permit) => self.forward_token_request(permit, exchange, request).await,
            Route::LocalWrite(write, permit) => {
                let written = self.write_locally(&exchange.api, (write, permit), request);
                let (response, from) = written.await?;
                Ok((self.filtered(exchange, response).await?, from))
            }
            Route::Object | Route::Document | Route::Unavailable | Route::NotAcceptable => {
                let (parts, _) = request.into_parts();
                self.local(exchange, chosen, &parts, link).await
            }
        }
    }

    fn choose<'a>(&self, exchange: &'a Exchange, link: Link) -> Result<Route<'a>, Status> {
        let have = match &exchange.scope {
            Ok(Some(scope)) => self.have(scope),
            Ok(None) => self.have_object(&exchange.api),
            // A selector that does not parse is the server's to refuse while it is there.
            Err(_) if link == Link::Up => return Ok(Route::Forward(Remember::Nothing)),
            Err(status) => return Err(status.clone()),
        };
        let local = local_write(&exchange.api, &exchange.caller, &self.node);
        Ok(route(exchange, link, have, local))
    }

    /// Forwards; when the link breaks under a read, answers as if it had been cut before.
    async fn forwarded(
        self: &Arc<Self>,
        exchange: &Exchange,
        remember: Remember,
        request: Request<Incoming>,
    ) -> Result<Answer, Status> {
        let api = &exchange.api;
        if let (Remember::Scope, Some(scope)) = (remember, exchange.scope()) {
            self.sync_first(exchange, scope).await;
        }
        match self.forward(exchange, remember, request).await {
            Ok(response) => Ok((self.filtered(exchange, response).await?, ServedFrom::Cloud)),
            Err(Broken {
                refused: Some(status),
                ..
            }) => Err(status),
            Err(Broken {
                error: error @ SendError::InUse,
                ..
            }) => Err(unsent(&error, self.since())),
            Err(Broken { parts, error, .. }) if api.verb != Verb::Write && !api.is_upgrade => {
                tracing::debug!(%error, uri = %parts.uri, "the link broke under a read");
                let answered = self.cut_off(exchange, &parts).await;
                match answered {
                    // Only the cloud refuses while it is there.
                    Err(status) if is_refusal(status.code) && self.is_still_there().await => {
                        Err(Status::unavailable(
                            "the connection to the cloud broke under this read: send it again",
                            Some(RETRY),
                        ))
                    }
                    answered => answered,
                }
            }
            Err(Broken { error, .. }) => Err(unsent(&error, self.since())),
        }
    }

    /// Answers as when the cloud is away.
    async fn cut_off(&self, exchange: &Exchange, parts: &Parts) -> Result<Answer, Status> {
        self.authenticator.check_offline(&exchange.caller)?;
        let have = exchange
            .scope()
            .map_or(Have::Nothing, |scope| self.have(scope));
        match route(exchange, Link::Cut, have, None) {
            Route::Mirror(scope, fresh) => {
                let asked = Asked::new(exchange, scope, fresh);
                self.mirrored_offline(asked).await
            }
            route => self.local(exchange, route, parts, Link::Cut).await,
        }
    }
}

fn is_refusal(code: StatusCode) -> bool {
    matches!(code, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
