//! A request that found its resource: the reads and writes of objects, over HTTP.

use std::sync::Arc;

use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::Value;

use super::{
    auth::User,
    body::{body_bytes, delete_options, json_body},
    list::{ListOptions, Page, parse_version},
    patch::PatchKind,
    present::Presenter,
    reply::{self, Reply},
    request::{Form, Query, Target},
    resource::Resource,
    selector::Selector,
    serve::Server,
    state::State,
    status::ApiError,
    table,
    watch::{Begin, WatchBody, WatchOptions, Watcher},
    write::{Write, Written},
};

/// A request that found its resource.
pub(super) struct Call {
    pub(super) server: Arc<Server>,
    pub(super) user: User,
    pub(super) target: Target,
    pub(super) query: Query,
    pub(super) form: Form,
    pub(super) headers: HeaderMap,
    pub(super) resource: Arc<Resource>,
}

impl Call {
    pub(super) async fn run(
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
            "deletecollection" if !is_everywhere && self.resource.kind != "Namespace" => {
                self.delete_collection(request).await
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    // === Reading ===

    async fn get(&self) -> Result<Response<Reply>, ApiError> {
        if let Some(revision) = parse_version(&self.query)? {
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
        if self.form == Form::MetadataList {
            let message =
                "you requested PartialObjectMetadataList, but the requested object is not a list";
            return Err(ApiError::not_acceptable(message));
        }
        Ok(reply::json(
            StatusCode::OK,
            self.presenter()?.object(&object),
        ))
    }

    async fn list(&self) -> Result<Response<Reply>, ApiError> {
        let options = ListOptions::parse(&self.query)?;
        if self.form == Form::Metadata {
            let message = "you requested PartialObjectMetadata, but the requested object is a list";
            return Err(ApiError::not_acceptable(message));
        }
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
        let presenter = self.presenter()?;
        if let Begin::State { at_least } | Begin::Now { at_least } = options.begin
            && let Err(error) = self.server.wait_for(at_least).await
        {
            // The watch is open by then: it can only be told as an event.
            return Ok(reply::json(
                StatusCode::OK,
                presenter.event("ERROR", error.status()),
            ));
        }
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
            Page {
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
