//! Answers the writes that the node itself can stand behind while the cloud is away.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::{Answer, Proxy};
use crate::answer::{self, RETRY};
use crate::api::key;
use crate::api::request::{ApiRequest, Path, Shape};
use crate::authorize::{LocalWrite, Permit};
use crate::body::{self, Body};
use crate::codec::{ObjectMeta, Status, Subject, protobuf};
use crate::metrics::ServedFrom;
use crate::outbox::Event;
use crate::overlay::{OverlayError, PatchType, apply_status};
use crate::retention::pod::Pod;
use crate::tasks::blocking;

impl Proxy {
    /// Answers a write from what the node itself knows.
    pub(super) async fn write_locally(
        self: &Arc<Self>,
        api: &ApiRequest,
        (write, permit): (LocalWrite, Permit),
        request: Request<Incoming>,
    ) -> Result<Answer, Status> {
        let path = api.path().ok_or_else(Status::unknown_resource)?;
        let (parts, body) = request.into_parts();
        let limit = usize::try_from(self.body_limit).unwrap_or(usize::MAX);
        let body = body::read(body::incoming(body), limit)
            .await
            .map_err(|error| Status::bad_request(format!("read the request's body: {error}")))?;
        let written = Written {
            path,
            content_type: text(parts.headers.get(CONTENT_TYPE)),
            body,
        };
        let response = match write {
            LocalWrite::Status => self.write_status(permit, api, written).await?,
            LocalWrite::Lease => written.echo(&api.method),
            LocalWrite::Event => self.queue_event(api, written).await?,
            LocalWrite::Register => return Err(self.registered(permit, &written)?),
            LocalWrite::TokenRequest => {
                return self
                    .answer_token_request(permit, api, &parts.headers, &written.body)
                    .await;
            }
        };
        Ok((response, ServedFrom::Hub))
    }

    async fn write_status(
        &self,
        _permit: Permit,
        api: &ApiRequest,
        written: Written<'_>,
    ) -> Result<Response<Body>, Status> {
        let Some(patch_type) = PatchType::of(&api.method, written.content_type) else {
            return Err(self.unavailable("only it understands this form of a status", Some(RETRY)));
        };
        if api.shape != Some(Shape::Object) {
            return Err(Status::not_acceptable(&["application/json"]));
        }
        let path = written.path;
        let name = path.name.clone().unwrap_or_default();
        let key = key(path.namespace.as_deref().unwrap_or_default(), &name);
        let (resource, registry, local_pods) = (
            path.resource.clone(),
            self.registry.clone(),
            self.local_pods.clone(),
        );
        let (is_dry_run, node) = (api.options.is_dry_run, self.node.clone());
        let work = move || {
            let mut tried = None;
            let shown = registry.cover(&resource, &key, |object| {
                let runs_on = || Pod::read(object).and_then(|pod| pod.node);
                if resource.plural == "pods" && runs_on().as_deref() != Some(node.as_str()) {
                    return Err(OverlayError::OtherNode);
                }
                let changed = apply_status(object, &written.body, patch_type)?;
                Ok::<_, OverlayError>(if is_dry_run {
                    tried = changed;
                    None
                } else {
                    changed
                })
            })?;
            if is_dry_run {
                return Ok(tried.or(shown));
            }
            if let Some(pod) = shown.as_ref().filter(|_| resource.plural == "pods") {
                local_pods.note(&registry, &key, pod)?;
            }
            Ok(shown)
        };
        let shown: Result<Option<Bytes>, OverlayError> = blocking(work).await;
        match shown.map_err(|error| error.status(subject(path, &name)))? {
            Some(object) => Ok(answer::json(StatusCode::OK, body::full(object))),
            None => Err(self.unavailable(
                &format!("this node has never seen {} {name:?}", path.resource),
                Some(RETRY),
            )),
        }
    }

    /// Queues an event. A later one of the same name takes its place: clients post it anew when they hear that
    /// it cannot be patched.
    async fn queue_event(
        &self,
        api: &ApiRequest,
        written: Written<'_>,
    ) -> Result<Response<Body>, Status> {
        let path = written.path;
        if api.method == Method::PATCH {
            let name = path.name.as_deref().unwrap_or_default();
            return Err(Status::not_found(subject(path, name)));
        }
        let name = written.name()?;
        if api.options.is_dry_run {
            return Ok(written.echo(&Method::POST));
        }
        let event = Event {
            path: path.resource.path(path.namespace.as_deref()),
            name,
            content_type: written.content_type.to_owned(),
            body: written.body.clone(),
        };
        let outbox = self.outbox.clone();
        let queued = blocking(move || outbox.push(event)).await;
        queued.map_err(|error| Status::internal(&format!("queue an event: {error}")))?;
        Ok(written.echo(&Method::POST))
    }

    /// What a node is told that introduces itself: it is known already, as it wanted.
    fn registered(&self, _permit: Permit, written: &Written<'_>) -> Result<Status, Status> {
        let name = written.name()?;
        let known = self
            .registry
            .known_kind(&written.path.resource)
            .and_then(|kind| kind.newest("", &name).ok().flatten());
        match known {
            Some(_) if name == self.node.as_str() => {
                Ok(Status::already_exists(subject(written.path, &name)))
            }
            _ => Err(self.unavailable("this node has never been seen there", Some(RETRY))),
        }
    }
}

/// What was written, as it came.
struct Written<'a> {
    path: &'a Path,
    content_type: &'a str,
    body: Bytes,
}

impl Written<'_> {
    /// Answers with the object as it was written: as the server would, but for what it adds.
    fn echo(&self, method: &Method) -> Response<Body> {
        let code = if *method == Method::POST {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let mut response = answer::json(code, body::full(self.body.clone()));
        if let Ok(content_type) = HeaderValue::from_str(self.content_type) {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        response
    }

    fn name(&self) -> Result<String, Status> {
        let meta = if self.content_type.starts_with(protobuf::MEDIA_TYPE) {
            protobuf::metadata(&self.body)
                .map_err(|error| Status::bad_request(error.to_string()))?
        } else {
            ObjectMeta::parse(&self.body).map_err(|error| Status::bad_request(error.to_string()))?
        };
        Ok(meta.name)
    }
}

fn subject<'a>(path: &'a Path, name: &'a str) -> Subject<'a> {
    Subject {
        group: &path.resource.group,
        resource: &path.resource.plural,
        name,
    }
}

fn text(value: Option<&HeaderValue>) -> &str {
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
