//! GET: one stored object, or what its absence is worth.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use http::{Response, StatusCode};
use tokio::time::Instant;

use super::write::Writer;
use super::{blocking, json};
use crate::api::key;
use crate::api::request::{Path, Revision};
use crate::body::{self, Body};
use crate::codec::{Status, Subject, TypeMeta, with_type_meta};
use crate::filter::sieve::Sifted;
use crate::mirror::kind::{Covering, Kind};

/// Answers a GET from the store.
///
/// # Errors
/// 404 if a mirror covers the place, 503 if nobody knows; a revision to come is refused.
pub(crate) async fn object(
    kind: Option<Arc<Kind>>,
    path: &Path,
    revision: &Revision,
    covering: Option<Covering>,
    writer: impl FnOnce(&Kind, Arc<TypeMeta>) -> Writer,
) -> Result<Response<Body>, Status> {
    let name = path.name.clone().unwrap_or_default();
    let namespace = path.namespace.clone().unwrap_or_default();
    let found = match kind {
        None => None,
        Some(kind) => {
            let reading = kind.clone();
            reading.note_use(&key(&namespace, &name), Instant::now());
            blocking(move || reading.newest(&namespace, &name, covering))
                .await?
                .zip(Some(kind))
        }
    };
    let Some(((at, stored), kind)) = found else {
        return Err(absent(path, covering.is_some()));
    };
    let known = covering.map_or(at, |mirror| mirror.revision.max(at));
    if let Revision::At(wanted) = revision
        && *wanted > known
    {
        return Err(Status::too_large_resource_version(*wanted, known));
    }
    let form = kind.form().unwrap_or_else(|| Arc::new(form_of(&stored)));
    let writer = writer(&kind, form);
    let Sifted::Shown(object) = writer.sift(&with_type_meta(&stored, &writer.form))? else {
        return Err(hidden(path));
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

fn absent(path: &Path, is_absence_proven: bool) -> Status {
    if is_absence_proven {
        hidden(path)
    } else {
        let name = path.name.as_deref().unwrap_or_default();
        let message = format!(
            "the cloud is not reachable and this node has never seen {} {name:?}",
            path.resource
        );
        Status::unavailable(message, None)
    }
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
