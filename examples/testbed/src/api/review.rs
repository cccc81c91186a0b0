//! Questions about identity and rights: answered by the same hook that guards every request.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    auth::{Attributes, User},
    reply::Reply,
    request::Target,
    serve::{Server, plain_json},
    status::ApiError,
};

const KINDS: [(&str, &str); 5] = [
    ("localsubjectaccessreviews", "LocalSubjectAccessReview"),
    ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("selfsubjectreviews", "SelfSubjectReview"),
    ("subjectaccessreviews", "SubjectAccessReview"),
    ("tokenreviews", "TokenReview"),
];

/// Tells whether the path is a review, which is answered and never stored.
pub(crate) fn is_review(target: &Target) -> bool {
    matches!(
        target.group.as_str(),
        "authorization.k8s.io" | "authentication.k8s.io"
    ) && KINDS.iter().any(|(plural, _)| *plural == target.plural)
}

pub(crate) fn answer(
    server: &Arc<Server>,
    user: &User,
    target: &Target,
    mut review: Value,
) -> Result<Response<Reply>, ApiError> {
    if !review.is_object() || !(review["spec"].is_object() || review["spec"].is_null()) {
        return Err(ApiError::bad_request("the object provided is unrecognized"));
    }
    let kind = KINDS.iter().find(|(plural, _)| *plural == target.plural);
    review["kind"] = kind.map(|(_, kind)| *kind).into();
    review["apiVersion"] = format!("{}/{}", target.group, target.version).into();
    review["metadata"] = json!({});
    review["status"] = match target.plural.as_str() {
        "selfsubjectaccessreviews" => access(server, user, &review["spec"]),
        "tokenreviews" => token(server, &review["spec"]),
        "selfsubjectreviews" => json!({"userInfo": user_info(user)}),
        _ => {
            let spec = &review["spec"];
            let groups = spec["groups"].as_array().into_iter().flatten();
            let subject = User {
                name: spec["user"].as_str().unwrap_or_default().to_owned(),
                groups: groups
                    .filter_map(|group| group.as_str().map(str::to_owned))
                    .collect(),
            };
            access(server, &subject, spec)
        }
    };
    Ok(plain_json(StatusCode::CREATED, &review))
}

fn access(server: &Server, user: &User, spec: &Value) -> Value {
    let asked = &spec["resourceAttributes"];
    let text = |field: &str| asked[field].as_str().unwrap_or_default().to_owned();
    let attributes = Attributes {
        verb: asked["verb"]
            .as_str()
            .or(spec["nonResourceAttributes"]["verb"].as_str())
            .unwrap_or_default()
            .to_owned(),
        group: text("group"),
        resource: text("resource"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
        path: spec["nonResourceAttributes"]["path"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    };
    json!({"allowed": server.config.authorizer.allows(user, &attributes)})
}

fn token(server: &Server, spec: &Value) -> Value {
    let token = spec["token"].as_str().unwrap_or_default();
    match server.user_of_token(token) {
        Some(user) => json!({"authenticated": true, "user": user_info(&user)}),
        None => json!({"user": {}, "error": "invalid bearer token"}),
    }
}

fn user_info(user: &User) -> Value {
    json!({"username": user.name, "groups": user.groups})
}
