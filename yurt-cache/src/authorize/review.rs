//! The question to the cloud, with the caller's own identity: a SelfSubjectAccessReview, or the read itself where the
//! caller may not ask.

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{Access, RETRY};
use crate::codec::Status;
use crate::identity::Caller;
use crate::upstream::client::{Content, JSON, outcome};
use crate::upstream::{SendError, Upstream};

/// Why the cloud has not decided.
pub(super) enum Refusal {
    Status(Status),
    Unreachable,
}

/// Asks the cloud whether the caller may do it. Some clusters let not everybody ask: then it is tried.
pub(super) async fn ask(
    upstream: &Upstream,
    caller: &Caller,
    access: &Access,
) -> Result<bool, Refusal> {
    match review(upstream, caller, access).await {
        Err(Refusal::Status(status)) if status.code == StatusCode::FORBIDDEN => {
            match access.trial() {
                Some(path) => attempt(upstream, caller, &path).await,
                None => Err(Refusal::Status(status)),
            }
        }
        reviewed => reviewed,
    }
}

async fn review(upstream: &Upstream, caller: &Caller, access: &Access) -> Result<bool, Refusal> {
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
    let answer = outcome(posted.map_err(unsent)?, 64 << 10).await;
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

/// Does it, and looks no further than whether that is allowed.
async fn attempt(upstream: &Upstream, caller: &Caller, path: &str) -> Result<bool, Refusal> {
    let got = caller.client(upstream).get(path, JSON).await;
    let response = got.map_err(unsent)?;
    match response.status() {
        StatusCode::NOT_FOUND => Ok(true),
        code if code.is_success() => Ok(true),
        StatusCode::FORBIDDEN => Ok(false),
        _ => {
            let refused = outcome(response, 64 << 10).await;
            let refused = refused.map_err(|_| Refusal::Unreachable)?;
            Err(refused.map_or_else(Refusal::Status, |_| Refusal::Unreachable))
        }
    }
}

fn unsent(error: SendError) -> Refusal {
    match error {
        SendError::CutOff
        | SendError::Connection { .. }
        | SendError::Closed { .. }
        | SendError::Body(_) => Refusal::Unreachable,
        SendError::NotCarriedOut { .. } => Refusal::Status(Status::unavailable(
            "the API server took no question about who may see it: ask again",
            Some(RETRY),
        )),
        SendError::InUse => Refusal::Status(Status::streams_in_use()),
        error => Refusal::Status(Status::internal(&format!(
            "ask the cloud who may see it: {error}"
        ))),
    }
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
