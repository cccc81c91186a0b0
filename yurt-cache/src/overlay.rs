//! What this node changed while cut off: the status that its kubelet reports, and what follows from it for
//! the endpoints of Services. Bytes in, bytes out; where it is kept is the mirrors' affair.

pub(crate) mod endpoint;
pub(crate) mod local_pods;
mod patch;
pub(crate) mod reconcile;
pub(crate) mod unheard;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::codec::{ObjectError, Status, Subject, with_field};
use crate::follow::local::LocalError;
use crate::tasks::Panicked;

/// How a change is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchType {
    /// The whole object.
    Replace,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own: lists are merged by a key.
    Strategic,
}

/// Why a status is not taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OverlayError {
    #[error("malformed patch")]
    Parse(#[source] serde_json::Error),
    #[error("the patch is no JSON object")]
    FindObject,
    #[error("change the stored object")]
    Change(#[source] ObjectError),
    #[error("a node can only update the status of pods with spec.nodeName set to itself")]
    OtherNode,
    #[error("the patch is for another object of that name")]
    OtherUid,
    #[error(
        "the object has been modified; please apply your changes to the latest version and try again"
    )]
    OtherRevision,
    #[error(transparent)]
    Local(#[from] LocalError),
}

impl From<Panicked> for OverlayError {
    fn from(panicked: Panicked) -> Self {
        Self::Local(panicked.into())
    }
}

impl PatchType {
    /// Reads the content type of a PUT or PATCH; `None` for what is not understood here.
    pub(crate) fn of(method: &http::Method, content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        match (method.as_str(), media_type) {
            ("PUT", "application/json" | "") => Some(Self::Replace),
            ("PATCH", "application/merge-patch+json") => Some(Self::Merge),
            ("PATCH", "application/strategic-merge-patch+json") => Some(Self::Strategic),
            _ => None,
        }
    }
}

/// Applies a write of the status subresource: `None` if it changes nothing. Only the status, and the labels and
/// annotations of a node, are taken over, as the server does.
pub(crate) fn apply_status(
    object: &Bytes,
    written: &[u8],
    patch_type: PatchType,
) -> Result<Option<Bytes>, OverlayError> {
    let current: Map<String, Value> =
        serde_json::from_slice(object).map_err(OverlayError::Parse)?;
    let written: Value = serde_json::from_slice(written).map_err(OverlayError::Parse)?;
    let Value::Object(written) = written else {
        return Err(OverlayError::FindObject);
    };
    check_preconditions(&current, &written)?;
    let mut changed = current.clone();
    for field in ["metadata", "status"] {
        let Some(value) = written.get(field).cloned() else {
            continue;
        };
        let before = changed.entry(field).or_insert(Value::Null);
        match patch_type {
            PatchType::Replace => *before = value,
            PatchType::Merge => patch::merge(before, value),
            PatchType::Strategic => patch::strategic(before, value),
        }
    }
    let mut result = object.clone();
    if changed.get("status") != current.get("status") {
        result = set(
            &result,
            "status",
            changed.get("status").unwrap_or(&Value::Null),
        )?;
    }
    if current.get("kind").and_then(Value::as_str) == Some("Node") {
        result = copy_metadata(result, &current, &changed)?;
    }
    Ok((result != *object).then_some(result))
}

/// As the server: what a patch says of uid and revision has to be so.
fn check_preconditions(
    current: &Map<String, Value>,
    written: &Map<String, Value>,
) -> Result<(), OverlayError> {
    let said = |object: &Map<String, Value>, field: &str| {
        let value = object.get("metadata")?.get(field)?.as_str()?;
        (!value.is_empty()).then(|| value.to_owned())
    };
    let differs =
        |field| said(written, field).is_some_and(|value| Some(value) != said(current, field));
    if differs("uid") {
        return Err(OverlayError::OtherUid);
    }
    if differs("resourceVersion") {
        return Err(OverlayError::OtherRevision);
    }
    Ok(())
}

fn copy_metadata(
    object: Bytes,
    current: &Map<String, Value>,
    changed: &Map<String, Value>,
) -> Result<Bytes, OverlayError> {
    let of = |object: &Map<String, Value>, field: &str| {
        object
            .get("metadata")
            .and_then(|metadata| metadata.get(field))
            .cloned()
    };
    let Some(Value::Object(mut metadata)) = current.get("metadata").cloned() else {
        return Ok(object);
    };
    for field in ["labels", "annotations"] {
        match of(changed, field) {
            Some(value) => metadata.insert(field.to_owned(), value),
            None => metadata.remove(field),
        };
    }
    if Some(&metadata) == current.get("metadata").and_then(Value::as_object) {
        return Ok(object);
    }
    set(&object, "metadata", &Value::Object(metadata))
}

fn set(object: &Bytes, field: &str, value: &Value) -> Result<Bytes, OverlayError> {
    with_field(object, field, value.to_string().as_bytes()).map_err(OverlayError::Change)
}

impl OverlayError {
    /// Returns what the client is told.
    pub(crate) fn status(&self, subject: Subject<'_>) -> Status {
        match self {
            Self::Parse(_) | Self::FindObject => Status::bad_request(self.to_string()),
            Self::OtherNode => Status::forbidden(subject, &self.to_string()),
            Self::OtherUid | Self::OtherRevision => Status::conflict(subject, &self.to_string()),
            Self::Change(_) | Self::Local(_) => Status::internal(&self.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
