//! One request from its bytes to its answer.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    ApiConfig,
    auth::{self, Attributes, User},
    connect, discovery,
    list::ListOptions,
    patch::PatchKind,
    present::{self, Presenter},
    record::Records,
    reply::{self, Reply},
    request::{Form, Query, Target, verb},
    resource::Resource,
    review,
    selector::Selector,
    state::State,
    status::ApiError,
    table,
    tasks::Tasks,
    watch::{Begin, WatchBody, WatchOptions, Watcher},
    write::{Write, Written},
};

/// The server refuses larger bodies.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) config: ApiConfig,
    pub(crate) ca_pem: String,
    pub(crate) state: Mutex<State>,
    pub(crate) records: Records,
    pub(crate) tasks: Tasks,
    revision: watch::Sender<u64>,
    issued: Mutex<BTreeMap<String, User>>,
}

/// A request that found its resource.
struct Call {
    server: Arc<Server>,
    user: User,
    target: Target,
    query: Query,
    form: Form,
    headers: HeaderMap,
    resource: Arc<Resource>,
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
            issued: Mutex::default(),
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

    /// Returns whose token this is: a configured one, or one that was requested here.
    pub(crate) fn user_of_token(&self, token: &str) -> Option<User> {
        let configured = self.config.tokens.get(token).cloned();
        configured.or_else(|| self.issued.lock().get(token).cloned())
    }

    /// Makes a token of a service account: shaped like a JWT, with a signature that proves nothing.
    pub(crate) fn issue_token(
        &self,
        namespace: &str,
        name: &str,
        spec: &Value,
        expiry: i64,
    ) -> String {
        let subject = format!("system:serviceaccount:{namespace}:{name}");
        let claims = json!({
            "iss": "https://kubernetes.default.svc",
            "sub": subject,
            "aud": spec["audiences"],
            "exp": expiry,
            "jti": self.state.lock().next_uid(),
        });
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(json!({"alg": "ES256", "kid": "testbed"}));
        let token = format!(
            "{head}.{}.{}",
            part(claims),
            URL_SAFE_NO_PAD.encode([0; 64])
        );
        let groups = [
            "system:serviceaccounts",
            &format!("system:serviceaccounts:{namespace}"),
        ];
        self.issued
            .lock()
            .insert(token.clone(), User::new(&subject, &groups));
        token
    }

    /// Waits until a revision exists, as long as the server has patience.
    async fn wait_for(&self, revision: u64) -> Result<(), ApiError> {
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

impl Call {
    async fn run(
        self,
        verb: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Reply>, ApiError> {
        let is_everywhere = self.resource.is_namespaced && self.target.namespace.is_none();
        let is_part = self.target.subresource.is_some();
        match verb {
            "get" if !is_everywhere => self.get().await,
            "list" => self.list().await,
            "watch" => self.watch().await,
            "create" if !is_everywhere && self.target.name.is_none() => self.create(request).await,
            "update" if !is_everywhere && self.target.name.is_some() => self.update(request).await,
            "patch" if !is_everywhere && self.target.name.is_some() => self.patch(request).await,
            "delete" if !is_everywhere && !is_part => self.delete(request).await,
            "deletecollection" if !is_everywhere => self.delete_collection(request).await,
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    // === Reading ===

    async fn get(&self) -> Result<Response<Reply>, ApiError> {
        if let Some(revision) = super::list::parse_version(&self.query)? {
            self.server.wait_for(revision).await?;
        }
        let object = {
            let mut state = self.server.state.lock();
            let name = self.target.name();
            let key = state.key(&self.resource, self.target.namespace.as_deref(), name);
            state.store.get(&key).cloned()
        };
        let object =
            object.ok_or_else(|| ApiError::not_found(&self.resource, self.target.name()))?;
        Ok(reply::json(
            StatusCode::OK,
            self.presenter()?.object(&object),
        ))
    }

    async fn list(&self) -> Result<Response<Reply>, ApiError> {
        let options = ListOptions::parse(&self.query)?;
        let selector = self.selector()?;
        if let Some(revision) = options.version.awaited() {
            self.server.wait_for(revision).await?;
        }
        let page = {
            let mut state = self.server.state.lock();
            let family = state.family(&self.resource.group, &self.resource.plural);
            options.page(
                &state.store,
                &family,
                self.target.namespace.as_deref(),
                &selector,
            )?
        };
        Ok(reply::json(StatusCode::OK, self.presenter()?.list(&page)))
    }

    async fn watch(&self) -> Result<Response<Reply>, ApiError> {
        let options = WatchOptions::parse(&self.query)?;
        let selector = self.selector()?;
        if let Begin::State { at_least } | Begin::Now { at_least } = options.begin {
            self.server.wait_for(at_least).await?;
        }
        let presenter = self.presenter()?;
        let mut state = self.server.state.lock();
        let family = state.family(&self.resource.group, &self.resource.plural);
        let scope = (family, self.target.namespace.clone(), selector);
        let watcher = Watcher::new(self.server.clone(), &state, presenter, scope, options);
        Ok(reply::stream(WatchBody::new(watcher)))
    }

    // === Writing ===

    async fn create(&self, request: Request<Incoming>) -> Result<Response<Reply>, ApiError> {
        let body = json_body(request).await?;
        self.write("CreateOptions", |write, state| write.create(state, body))
    }

    async fn update(&self, request: Request<Incoming>) -> Result<Response<Reply>, ApiError> {
        let body = json_body(request).await?;
        self.write("UpdateOptions", |write, state| write.update(state, body))
    }

    async fn patch(&self, request: Request<Incoming>) -> Result<Response<Reply>, ApiError> {
        let content_type = self.headers.get(header::CONTENT_TYPE);
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let kind = PatchKind::parse(content_type, &self.resource)?;
        let bytes = body_bytes(request).await?;
        let patch: Value = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
        self.write("PatchOptions", |write, state| {
            write.patch(state, kind, &patch)
        })
    }

    async fn delete(&self, request: Request<Incoming>) -> Result<Response<Reply>, ApiError> {
        let options = delete_options(request).await?;
        self.write("DeleteOptions", |write, state| {
            write.delete(state, &options)
        })
    }

    async fn delete_collection(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Reply>, ApiError> {
        let options = delete_options(request).await?;
        let selector = self.selector()?;
        let page = {
            let mut state = self.server.state.lock();
            let write = self.as_write("DeleteOptions")?;
            let revision = state.store.revision();
            let items = write.delete_collection(&mut state, &selector, &options)?;
            self.server.announce(&state);
            super::list::Page {
                items,
                revision,
                next: None,
                remaining: None,
            }
        };
        Ok(reply::json(StatusCode::OK, self.presenter()?.list(&page)))
    }

    fn write(
        &self,
        options: &str,
        act: impl FnOnce(&Write<'_>, &mut State) -> Result<Written, ApiError>,
    ) -> Result<Response<Reply>, ApiError> {
        let presenter = self.presenter()?;
        let written = {
            let mut state = self.server.state.lock();
            let written = act(&self.as_write(options)?, &mut state);
            self.server.announce(&state);
            written?
        };
        Ok(reply::json(written.code, presenter.object(&written.object)))
    }

    fn as_write(&self, options: &str) -> Result<Write<'_>, ApiError> {
        tracing::trace!(user = self.user.name, target = ?self.target, "write");
        Ok(Write {
            resource: self.resource.clone(),
            target: &self.target,
            query: &self.query,
            now: (self.server.config.clock)(),
            is_dry: Write::is_dry(&self.query, options)?,
            ca_pem: &self.server.ca_pem,
        })
    }

    fn selector(&self) -> Result<Selector, ApiError> {
        let labels = self.query.get("labelSelector");
        Selector::parse(&self.resource, labels, self.query.get("fieldSelector"))
    }

    fn presenter(&self) -> Result<Presenter, ApiError> {
        Ok(Presenter {
            resource: self.resource.clone(),
            form: self.form,
            rows: table::Rows::parse(&self.query, (self.server.config.clock)())?,
        })
    }
}

// === Bodies ===

pub(crate) async fn body_bytes(request: Request<Incoming>) -> Result<Bytes, ApiError> {
    let limited = Limited::new(request.into_body(), MAX_BODY);
    let collected = limited.collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            ApiError::too_large_body()
        } else {
            ApiError::bad_request("unable to read the request body")
        }
    })?;
    Ok(collected.to_bytes())
}

pub(crate) async fn json_body(request: Request<Incoming>) -> Result<Value, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media = content_type.split(';').next().unwrap_or_default().trim();
    if !matches!(media, "" | "application/json") {
        return Err(ApiError::unsupported_media_type("application/json"));
    }
    let bytes = body_bytes(request).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized: couldn't get version/kind; json parse error: {error}"
        ))
    })
}

/// Options of a deletion: in the body, or none.
async fn delete_options(request: Request<Incoming>) -> Result<Value, ApiError> {
    let bytes = body_bytes(request).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad_request(format!("json parse error: {error}")))
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
