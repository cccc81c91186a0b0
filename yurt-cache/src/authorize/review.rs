//! The question to the cloud: a SelfSubjectAccessReview, with the caller's own identity.

use serde::Deserialize;
use serde_json::json;

use super::Access;
use crate::codec::Status;
use crate::identity::Caller;
use crate::upstream::client::{Content, outcome};
use crate::upstream::{SendError, Upstream};

/// Why the cloud has not decided.
pub(super) enum Refusal {
    Status(Status),
    Unreachable,
}

/// Asks the cloud whether the caller may do it.
pub(super) async fn ask(
    upstream: &Upstream,
    caller: &Caller,
    access: &Access,
) -> Result<bool, Refusal> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": {
            "verb": access.verb,
            "group": access.resource.group,
            "version": access.resource.version,
            "resource": access.resource.plural,
            "namespace": access.namespace.as_deref().unwrap_or_default(),
            "name": access.name.as_deref().unwrap_or_default(),
            "subresource": access.subresource.as_deref().unwrap_or_default(),
            "labelSelector": selector(&access.labels),
            "fieldSelector": selector(&access.fields),
        }},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let client = caller.client(upstream);
    let posted = client.post(path, Content::json(&review)).await;
    let response = posted.map_err(|error| match error {
        SendError::CutOff | SendError::Connection { .. } | SendError::Closed { .. } => {
            Refusal::Unreachable
        }
        error => Refusal::Status(Status::internal(&format!(
            "ask the cloud who may see it: {error}"
        ))),
    })?;
    let answer = outcome(response, 64 << 10).await;
    let text = answer
        .map_err(|_| Refusal::Unreachable)?
        .map_err(Refusal::Status)?;
    let review: Review = serde_json::from_slice(&text).map_err(|error| {
        Refusal::Status(Status::internal(&format!(
            "read the access review: {error}"
        )))
    })?;
    Ok(review.status.allowed)
}

/// The server reads the raw text itself, as it does that of a request.
fn selector(text: &str) -> serde_json::Value {
    if text.is_empty() {
        serde_json::Value::Null
    } else {
        json!({ "rawSelector": text })
    }
}

#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize)]
struct ReviewStatus {
    #[serde(default)]
    allowed: bool,
}
