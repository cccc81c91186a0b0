//! Filters what does not come from a mirror: single objects as the cloud answers them, read whole.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use http::header::CONTENT_LENGTH;
use tokio::time::timeout;

use super::Proxy;
use super::exchange::Exchange;
use super::headers::is_json;
use crate::answer::object::{form_of, hidden};
use crate::answer::write::Writer;
use crate::api::request::{ApiRequest, Path, Shape, Verb};
use crate::body::{self, Body};
use crate::codec::Status;
use crate::filter::chain::{FilterChain, Filtered};

/// How long a request waits until what filters have to know of the surroundings is known.
const READY_WAIT: Duration = Duration::from_secs(3);

/// What a caller is told of a write that is done and whose object it may not see, and of a deleted collection.
const DONE: &str =
    r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":200}"#;

impl Proxy {
    /// Returns the filters that the answer has to pass.
    pub(super) async fn chain(&self, exchange: &Exchange) -> Option<FilterChain> {
        let path = exchange.api.path().filter(|path| is_object(path))?;
        let mut chain = self.filters.for_caller(&exchange.caller, &path.resource)?;
        // Ready or not: what cannot be decided is refused where it comes up.
        let _ready_or_not = timeout(READY_WAIT, chain.ready()).await;
        Some(chain)
    }

    /// Filters what the cloud answered.
    pub(super) async fn filtered(
        &self,
        exchange: &Exchange,
        response: Response<Body>,
    ) -> Result<Response<Body>, Status> {
        let api = &exchange.api;
        let (Some(chain), Some(path)) = (&exchange.chain, api.path()) else {
            return Ok(response);
        };
        if !response.status().is_success() {
            return Ok(response);
        }
        let refused = |why: &str| {
            Status::unavailable(
                format!("what the filters {chain:?} have to look at {why}"),
                None,
            )
        };
        match api.verb {
            Verb::List | Verb::Watch => return Err(refused("cannot be mirrored now")),
            Verb::Get | Verb::Write if !is_json(response.headers()) => {
                return Err(refused("is not JSON"));
            }
            Verb::Get | Verb::Write => {}
        }
        let (mut head, body) = response.into_parts();
        let text = body::read(body, self.object_limit).await;
        let text = text.map_err(|error| refused(&format!("cannot be read: {error}")))?;
        let shown = self.filter_text(api, path, chain, text)?;
        head.headers.remove(CONTENT_LENGTH);
        Ok(Response::from_parts(head, body::full(shown)))
    }

    fn filter_text(
        &self,
        api: &ApiRequest,
        path: &Path,
        chain: &FilterChain,
        text: Bytes,
    ) -> Result<Bytes, Status> {
        let is_write = api.verb == Verb::Write;
        if is_write && path.name.is_none() && is_list(&text) {
            return Ok(DONE.into());
        }
        let object = match chain.apply(&text) {
            Ok(Filtered::Shown(object)) => object,
            Ok(Filtered::Hidden) if is_write => return Ok(DONE.into()),
            Ok(Filtered::Hidden) => return Err(hidden(path)),
            Err(error) if is_write => {
                let message = format!("the request was carried out, but {error}");
                return Err(Status::internal(&message));
            }
            Err(error) => return Err(error.into()),
        };
        let shaped = match api.shape {
            None | Some(Shape::Object) => Some(object),
            Some(shape @ (Shape::Metadata | Shape::Table)) => {
                let kind = self.registry.kind(&path.resource);
                let form = kind.form().unwrap_or_else(|| form_of(&object).into());
                let include = api.options.include_object.as_deref();
                Writer::new(&kind, form, shape, include, (self.clock)()).single(&object)
            }
        };
        let shaped = shaped.ok_or_else(|| Status::internal("the object cannot be shaped"))?;
        // As the server ends it.
        let mut line = BytesMut::from(shaped);
        if !line.ends_with(b"\n") {
            line.put_u8(b'\n');
        }
        Ok(line.freeze())
    }
}

/// Returns whether what a path names is answered with the object itself.
fn is_object(path: &Path) -> bool {
    matches!(
        path.subresource.as_deref(),
        None | Some("status" | "ephemeralcontainers" | "resize")
    )
}

fn is_list(text: &[u8]) -> bool {
    let kind = form_of(text).kind;
    kind.ends_with("List")
}
