//! GET: one stored object, or what its absence is worth.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Response, StatusCode};
use tokio::time::Instant;

use super::write::Writer;
use super::{blocking, json};
use crate::api::key;
use crate::api::request::{Path, Revision};
use crate::authorize::Permit;
use crate::body::{self, Body};
use crate::codec::{Status, Subject, TypeMeta, with_type_meta};
use crate::filter::chain::Filtered;
use crate::mirror::kind::{Covering, Kind, Known};

/// What the node has of one object, before anybody has decided who may see it.
pub(crate) struct Found<'a> {
    path: &'a Path,
    /// Its newest version, and the revision of that; `None` of what is proven to be absent.
    stored: Option<(u64, Bytes, Arc<Kind>)>,
    covering: Option<Covering>,
}

/// Looks for an object in the store.
///
/// # Errors
/// 503 if nobody knows whether there is one.
pub(crate) async fn find(
    kind: Option<Arc<Kind>>,
    path: &Path,
    covering: Option<Covering>,
) -> Result<Found<'_>, Status> {
    let name = path.name.clone().unwrap_or_default();
    let namespace = path.namespace.clone().unwrap_or_default();
    let Some(kind) = kind else {
        return Err(unknown(path));
    };
    let reading = kind.clone();
    reading.note_use(&key(&namespace, &name), Instant::now());
    let known = blocking(move || reading.known(&namespace, &name, covering)).await?;
    let stored = match known {
        Known::There(at, stored) => Some((at, stored, kind)),
        Known::Absent => None,
        Known::Unknown => return Err(unknown(path)),
    };
    Ok(Found {
        path,
        stored,
        covering,
    })
}

impl Found<'_> {
    /// Answers a GET.
    ///
    /// # Errors
    /// 404 for what is not there; a revision to come is refused.
    pub(crate) fn show(
        self,
        _permit: Permit,
        revision: &Revision,
        writer: impl FnOnce(&Kind, Arc<TypeMeta>) -> Writer,
    ) -> Result<Response<Body>, Status> {
        let Some((at, stored, kind)) = self.stored else {
            return Err(hidden(self.path));
        };
        let known = self.covering.map_or(at, |mirror| mirror.revision.max(at));
        if let Revision::At(wanted) = revision
            && *wanted > known
        {
            return Err(Status::too_large_resource_version(*wanted, known));
        }
        let form = kind.form().unwrap_or_else(|| Arc::new(form_of(&stored)));
        let writer = writer(&kind, form);
        let Filtered::Shown(object) = writer.apply(&with_type_meta(&stored, &writer.form))? else {
            return Err(hidden(self.path));
        };
        let shaped = writer
            .single(&object)
            .ok_or_else(|| Status::internal("the stored object cannot be shaped"))?;
        // As the server ends it.
        let mut line = BytesMut::from(shaped);
        if !line.ends_with(b"\n") {
            line.put_u8(b'\n');
        }
        Ok(json(StatusCode::OK, body::full(line)))
    }
}

fn unknown(path: &Path) -> Status {
    let name = path.name.as_deref().unwrap_or_default();
    let message = format!(
        "the cloud is not reachable and this node does not know {} {name:?}",
        path.resource
    );
    Status::unavailable(message, None)
}

/// What is hidden from a caller is not there.
pub(crate) fn hidden(path: &Path) -> Status {
    Status::not_found(Subject {
        group: &path.resource.group,
        resource: &path.resource.plural,
        name: path.name.as_deref().unwrap_or_default(),
    })
}

/// What a remembered object says of itself, where no list has said it.
pub(crate) fn form_of(object: &[u8]) -> TypeMeta {
    let meta = crate::codec::ObjectMeta::parse(object).ok();
    let (api_version, kind) = meta
        .map(|meta| (meta.api_version, meta.kind))
        .unwrap_or_default();
    let kind = kind.unwrap_or_default();
    TypeMeta {
        api_version: api_version.unwrap_or_default(),
        list_kind: format!("{kind}List"),
        kind,
    }
}
