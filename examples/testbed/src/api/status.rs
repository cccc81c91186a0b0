//! The server's errors, as the `Status` objects that clients act on.

use http::StatusCode;
use serde_json::{Value, json};

use super::resource::Resource;

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) code: StatusCode,
    /// Whether the body is the router's plain text instead of a Status.
    pub(crate) is_plain: bool,
    status: Box<Value>,
}

impl ApiError {
    fn new(code: StatusCode, reason: &str, message: impl Into<String>, details: Value) -> Self {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message.into(),
            "code": code.as_u16(),
        });
        if !reason.is_empty() {
            status["reason"] = reason.into();
        }
        if !details.is_null() {
            status["details"] = details;
        }
        Self {
            code,
            is_plain: false,
            status: Box::new(status),
        }
    }

    /// Returns the Status object.
    pub(crate) fn status(&self) -> &Value {
        &self.status
    }

    /// Returns the seconds after which the client may try again.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.status["details"]["retryAfterSeconds"].as_u64()
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message, Value::Null)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
            "Unauthorized",
            Value::Null,
        )
    }

    pub(crate) fn forbidden(message: impl Into<String>, kind: &str, name: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            message,
            details(name, "", kind),
        )
    }

    /// A namespace that is going away takes nothing new.
    pub(crate) fn terminating(resource: &Resource, name: &str, namespace: &str) -> Self {
        let message = format!(
            "{} {name:?} is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
            resource.qualified()
        );
        let mut error = Self::forbidden(message, &resource.plural, name);
        error.status["details"]["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
        error
    }

    /// A path that leads nowhere: the router's own plain text.
    pub(crate) fn no_such_path() -> Self {
        let mut error = Self::new(StatusCode::NOT_FOUND, "NotFound", "", Value::Null);
        error.is_plain = true;
        error
    }

    /// A resource that a group of built-ins does not have.
    pub(crate) fn no_such_resource() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
            json!({}),
        )
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("{} \"{name}\" not found", resource.qualified()),
            details(name, &resource.group, &resource.plural),
        )
    }

    pub(crate) fn namespace_not_found(name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("namespaces \"{name}\" not found"),
            details(name, "", "namespaces"),
        )
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
            json!({}),
        )
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", resource.qualified()),
            details(name, &resource.group, &resource.plural),
        )
    }

    /// A write against a version that is no longer the last.
    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} \"{name}\": {why}",
                resource.qualified()
            ),
            details(name, &resource.group, &resource.plural),
        )
    }

    /// A deletion whose precondition does not hold; the server names the kind here, not the resource.
    pub(crate) fn precondition(resource: &Resource, name: &str, why: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} \"{name}\": {why}",
                resource.qualified_kind()
            ),
            details(name, &resource.group, &resource.kind),
        )
    }

    /// Server-side apply over fields of other managers.
    pub(crate) fn apply_conflict(causes: Vec<Value>) -> Self {
        let message = match causes.as_slice() {
            [one] => format!(
                "Apply failed with 1 conflict: {}: {}",
                one["message"].as_str().unwrap_or_default(),
                one["field"].as_str().unwrap_or_default()
            ),
            more => format!("Apply failed with {} conflicts", more.len()),
        };
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            message,
            json!({"causes": causes}),
        )
    }

    /// A field that validation refuses; `kind` is `Kind` or `Kind.group`.
    pub(crate) fn invalid(
        kind: (&str, &str),
        name: &str,
        field: &str,
        reason: &str,
        message: &str,
    ) -> Self {
        let (group, kind) = kind;
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let mut details = details(name, group, kind);
        details["causes"] = json!([{"reason": reason, "message": message, "field": field}]);
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            format!("{qualified} \"{name}\" is invalid: {field}: {message}"),
            details,
        )
    }

    /// An option of the query that validation refuses.
    pub(crate) fn invalid_option(kind: &str, field: &str, reason: &str, message: &str) -> Self {
        Self::invalid(("meta.k8s.io", kind), "", field, reason, message)
    }

    /// A JSON patch that cannot be applied to this object.
    pub(crate) fn unprocessable_patch() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            "the server rejected our request due to an error in our request",
            json!({}),
        )
    }

    pub(crate) fn unsupported_media_type(accepted: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {accepted}"
            ),
            Value::Null,
        )
    }

    pub(crate) fn not_acceptable(message: &str) -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            message,
            Value::Null,
        )
    }

    pub(crate) fn too_large_body() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            "Request entity too large: limit is 3145728",
            Value::Null,
        )
    }

    pub(crate) fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message, Value::Null)
    }

    /// A revision that the history no longer holds.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message, Value::Null)
    }

    /// A page that the history no longer holds, with a token for an inconsistent rest.
    pub(crate) fn expired_continue(token: &str) -> Self {
        let mut error = Self::expired(
            "The provided continue parameter is too old to display a consistent list result. \
             You can start a new list without the continue parameter, or use the continue token \
             in this response to retrieve the remainder of the results. Continuing with the \
             provided token results in an inconsistent list - objects that were created, \
             modified, or deleted between the time the first chunk was returned and now may show \
             up in the list.",
        );
        error.status["metadata"]["continue"] = token.into();
        error
    }

    /// A revision of the future that did not come in time.
    pub(crate) fn too_large_version(asked: u64, current: u64) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
            json!({
                "causes": [{
                    "reason": "ResourceVersionTooLarge",
                    "message": "Too large resource version",
                }],
                "retryAfterSeconds": 1,
            }),
        )
    }
}

fn details(name: &str, group: &str, kind: &str) -> Value {
    let mut details = json!({"kind": kind});
    if !name.is_empty() {
        details["name"] = name.into();
    }
    if !group.is_empty() {
        details["group"] = group.into();
    }
    details
}
