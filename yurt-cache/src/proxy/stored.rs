//! Answers from the store alone: single objects and documents.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Response, StatusCode};
use tokio::time::Instant;

use super::exchange::{Exchange, access};
use super::route::{Have, Route};
use super::validate::validate;
use super::{Answer, Proxy};
use crate::answer::RETRY;
use crate::answer::object::{Found, find};
use crate::answer::write::Writer;
use crate::api::request::{ApiRequest, Path, Revision, Shape, Target, Verb};
use crate::api::{Scope, key};
use crate::authorize::{Access, Permit};
use crate::body::Body;
use crate::codec::Status;
use crate::identity::Caller;
use crate::metrics::ServedFrom;
use crate::mirror::Mirror;
use crate::tasks::blocking;
use crate::upstream::Link;

impl Proxy {
    /// Answers from the store alone, or refuses.
    pub(super) async fn local(
        &self,
        exchange: &Exchange,
        chosen: Route<'_>,
        parts: &Parts,
        link: Link,
    ) -> Result<Answer, Status> {
        match (chosen, &exchange.api.target) {
            (Route::Object, Target::Resource(path)) => {
                let shown = self.object(exchange, path, link).await?;
                Ok((shown, ServedFrom::Mirror))
            }
            (Route::Document, _) => {
                let shown = self.document(&exchange.caller, parts).await?;
                Ok((shown, ServedFrom::Store))
            }
            _ if matches!(parts.method, Method::HEAD | Method::OPTIONS) => {
                Err(Status::method_not_allowed())
            }
            (Route::NotAcceptable, _) => Err(Status::not_acceptable(&["application/json"])),
            _ => Err(self.unavailable(
                "this request needs it",
                (exchange.api.verb == Verb::Write).then_some(RETRY),
            )),
        }
    }

    async fn object(
        &self,
        exchange: &Exchange,
        path: &Path,
        link: Link,
    ) -> Result<Response<Body>, Status> {
        let Exchange { caller, api, .. } = exchange;
        let access = access("get", path);
        let permit = self.verdicts.authorize(caller, &access, link).await;
        let (found, shape) = match self.stored_object(api, path).await {
            Err(status) if status.code == StatusCode::SERVICE_UNAVAILABLE => {
                return Err(self.absent(caller, &access, permit, status));
            }
            found => {
                permit.as_ref().map_err(Clone::clone)?;
                found?
            }
        };
        let permit = permit?;
        let now = (self.clock)();
        let include = api.options.include_object.as_deref();
        let mut response = found.show(permit, &api.options.revision, |kind, form| {
            Writer::new(kind, form, shape, include, now).through(exchange.chain.clone())
        })?;
        self.warn_of_age(&mut response, link);
        Ok(response)
    }

    /// Refuses what this node does not have. Who may not see it is told no more than of what is there; but the node, of
    /// which nobody has asked yet whether it may, asks later.
    pub(super) fn absent(
        &self,
        caller: &Caller,
        access: &Access,
        permit: Result<Permit, Status>,
        absent: Status,
    ) -> Status {
        let is_open = *caller == Caller::Node && !self.verdicts.is_judged(caller, access);
        match permit {
            Err(refused) if !is_open => refused,
            Ok(_) | Err(_) => absent,
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

    async fn document(&self, caller: &Caller, parts: &Parts) -> Result<Response<Body>, Status> {
        let (documents, tenant) = (self.documents.clone(), caller.tenant());
        let (uri, headers) = (parts.uri.clone(), parts.headers.clone());
        let find = move || documents.answer(&uri, &headers, &tenant, Instant::now());
        let found = blocking(find).await;
        let found =
            found.map_err(|error| Status::internal(&format!("read the node's store: {error}")))?;
        let why = "this document was never asked for while it was there";
        found.ok_or_else(|| self.unavailable(why, None))
    }

    /// What can answer for a scope.
    pub(super) fn have(&self, scope: &Scope) -> Have {
        match self.registry.find(scope) {
            None => Have::Nothing,
            Some(mirror) if mirror.is_synced() => Have::Synced(mirror.revision()),
            Some(_) => Have::Syncing,
        }
    }

    /// What can answer a GET that takes any revision.
    pub(super) fn have_object(&self, api: &ApiRequest) -> Have {
        match api.path() {
            Some(path) if api.options.revision == Revision::Zero => match self.covering(path) {
                Some(mirror) if mirror.is_live() => Have::Synced(mirror.revision()),
                _ => Have::Nothing,
            },
            _ => Have::Nothing,
        }
    }
}
