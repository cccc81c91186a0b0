//! One request from its bytes to its answer.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    ApiConfig,
    auth::{self, Attributes, User},
    body::json_body,
    call::Call,
    connect, discovery, present,
    record::Records,
    reply::{self, Reply},
    request::{Form, Query, Target, verb},
    resource::Resource,
    review,
    state::State,
    status::ApiError,
    tasks::Tasks,
};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) config: ApiConfig,
    pub(crate) ca_pem: String,
    pub(crate) state: Mutex<State>,
    pub(crate) records: Records,
    pub(crate) tasks: Tasks,
    revision: watch::Sender<u64>,
}

impl Server {
    pub(crate) fn new(config: ApiConfig, ca_pem: String) -> Self {
        let state = State::new(config.history, &ca_pem, (config.clock)());
        let revision = watch::Sender::new(state.store.revision());
        Self {
            config,
            ca_pem,
            state: Mutex::new(state),
            records: Records::default(),
            tasks: Tasks::default(),
            revision,
        }
    }

    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Tells the watches that there is something new.
    pub(crate) fn announce(&self, state: &State) {
        let now = state.store.revision();
        self.revision
            .send_if_modified(|last| std::mem::replace(last, now) != now);
    }

    /// Returns whose token this is: a configured one, or one of a service account.
    pub(crate) fn user_of_token(&self, token: &str) -> Option<User> {
        if let Some(user) = self.config.tokens.get(token) {
            return Some(user.clone());
        }
        let claims = self.config.issuer.good(token, (self.config.clock)())?;
        let subject = claims["sub"].as_str()?;
        let namespace = claims["kubernetes.io"]["namespace"].as_str()?;
        let groups = [
            "system:serviceaccounts",
            &format!("system:serviceaccounts:{namespace}"),
        ];
        Some(User::new(subject, &groups))
    }

    /// Makes a token of a service account.
    pub(crate) fn issue_token(
        &self,
        namespace: &str,
        name: &str,
        spec: &Value,
        seconds: i64,
    ) -> String {
        let issuer = &self.config.issuer;
        let mut claims = issuer.claims(namespace, name, (self.config.clock)(), seconds);
        claims["aud"] = spec["audiences"].clone();
        claims["jti"] = self.state.lock().next_uid().into();
        if spec["boundObjectRef"]["kind"] == "Pod" {
            let bound = &spec["boundObjectRef"];
            claims["kubernetes.io"]["pod"] = json!({"name": bound["name"], "uid": bound["uid"]});
        }
        issuer.sign(&claims)
    }

    /// Waits until a revision exists, as long as the server has patience.
    pub(crate) async fn wait_for(&self, revision: u64) -> Result<(), ApiError> {
        let mut revisions = self.revisions();
        let arrived = revisions.wait_for(|current| *current >= revision);
        let waited = tokio::time::timeout(self.config.too_large_wait, arrived).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => {
                let current = self.state.lock().store.revision();
                Err(ApiError::too_large_version(revision, current))
            }
        }
    }

    /// Answers one request; every error becomes a Status.
    pub(crate) async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        certificate: Option<User>,
    ) -> Result<Response<Reply>, Infallible> {
        let accepts_gzip = reply::accepts_gzip(request.headers());
        let wants_body = request.method() != Method::HEAD;
        let answered = self.answer(request, certificate.as_ref()).await;
        let mut response = match answered {
            Ok(response) => response,
            Err(error) => reply::error(&error),
        };
        if !wants_body {
            *response.body_mut() = reply::boxed(Empty::new());
        }
        Ok(reply::finish(response, accepts_gzip))
    }

    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        certificate: Option<&User>,
    ) -> Result<Response<Reply>, ApiError> {
        let path = request.uri().path().to_owned();
        let user = auth::authenticate(request.headers(), certificate, |token| {
            self.user_of_token(token)
        });
        if user.is_none() && discovery::is_public(&path) {
            return discovery::answer(self, &request);
        }
        let user = user.ok_or_else(ApiError::unauthorized)?;
        let Some(target) = Target::parse(&path) else {
            let verb = request.method().as_str().to_lowercase();
            self.records.note_path(&verb, request.uri(), &user);
            let attributes = Attributes {
                verb,
                path,
                ..Attributes::default()
            };
            self.config.authorizer.check(&user, &attributes)?;
            return discovery::answer(self, &request);
        };
        let query = Query::parse(request.uri());
        let verb = verb(request.method(), &target, &query);
        let note = self.records.note(verb, request.uri(), &user, &target);
        let answered = self.dispatch(request, user, target, query, verb).await;
        let code = answered
            .as_ref()
            .map_or_else(|error| error.code, Response::status);
        self.records.complete(note, code);
        answered
    }

    async fn dispatch(
        self: &Arc<Self>,
        request: Request<Incoming>,
        user: User,
        target: Target,
        query: Query,
        verb: &str,
    ) -> Result<Response<Reply>, ApiError> {
        let fields = query.get("fieldSelector").unwrap_or_default();
        let single = fields
            .strip_prefix("metadata.name=")
            .filter(|name| !name.contains(','));
        let attributes = Attributes::of(verb, &target, single);
        self.config.authorizer.check(&user, &attributes)?;
        if review::is_review(&target) {
            if *request.method() != Method::POST {
                return Err(ApiError::method_not_allowed());
            }
            let body = json_body(request).await?;
            return review::answer(self, &user, &target, body);
        }
        let resource = self.state.lock().resolve(&target)?;
        check_shape(&resource, &target)?;
        if *request.method() == Method::HEAD || *request.method() == Method::OPTIONS {
            return Err(ApiError::method_not_allowed());
        }
        if connect::is_connect(&resource, &target) {
            return connect::answer(self, &user, &target, &query, request).await;
        }
        let form = Form::parse(request.headers())?;
        let headers = request.headers().clone();
        let call = Call {
            server: self.clone(),
            user,
            target,
            query,
            form,
            headers,
            resource,
        };
        call.run(verb, request).await
    }
}

/// Refuses paths that no route of the resource has.
fn check_shape(resource: &Resource, target: &Target) -> Result<(), ApiError> {
    if !resource.is_namespaced && target.namespace.is_some() {
        return Err(ApiError::no_such_resource());
    }
    let is_known = match target.subresource.as_deref() {
        None => true,
        Some("status") => resource.has_status,
        Some("finalize") => resource.kind == "Namespace",
        Some(other) => connect::is_subresource(resource, other),
    };
    if is_known {
        Ok(())
    } else {
        Err(ApiError::no_such_resource())
    }
}

/// An answer that needs no presenter.
pub(crate) fn plain_json(code: StatusCode, value: &Value) -> Response<Reply> {
    reply::json(code, present::status(value))
}

/// A text, as health checks and logs are.
pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Reply> {
    let mut response = Response::new(reply::boxed(Full::new(text.into())));
    *response.status_mut() = code;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
