//! `Status`: every refusal in the API server's own shape and words (kube-apiserver 1.34.4),
//! because clients decide by its reason and show its message.

mod write;

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

/// A failure as clients of Kubernetes understand it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// The HTTP status; on a watch it is told in the object only.
    pub(crate) code: StatusCode,
    /// The machine's word, as `NotFound`; empty where the server has none.
    pub(crate) reason: Cow<'static, str>,
    /// The human's words.
    pub(crate) message: String,
    /// What it is about.
    pub(crate) details: Option<Box<Details>>,
    /// Where a list may go on whose `continue` has expired.
    pub(crate) continue_token: Option<String>,
}

/// What a failure is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// The object's name.
    pub(crate) name: String,
    /// The API group.
    pub(crate) group: String,
    /// The resource, or the kind of an invalid object.
    pub(crate) kind: String,
    /// What is wrong, one by one.
    pub(crate) causes: Vec<Cause>,
    /// When to try again.
    pub(crate) retry_after: Option<Duration>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cause {
    /// The machine's word, as `FieldValueForbidden`.
    pub(crate) reason: Cow<'static, str>,
    /// The human's words.
    pub(crate) message: String,
    /// The field, if it is one.
    pub(crate) field: String,
}

/// What a request is about, as messages name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// The API group; empty for core.
    pub(crate) group: &'a str,
    /// The plural, without a subresource.
    pub(crate) resource: &'a str,
    /// The object's name; empty for a collection.
    pub(crate) name: &'a str,
}

impl Subject<'_> {
    fn details(self) -> Details {
        Details {
            name: self.name.into(),
            group: self.group.into(),
            kind: self.resource.into(),
            ..Details::default()
        }
    }

    /// `deployments.apps "web"`.
    fn text(self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        let qualified = format!("{}{dot}{}", self.resource, self.group);
        if self.name.is_empty() {
            qualified
        } else {
            format!("{qualified} {:?}", self.name)
        }
    }
}

impl Status {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            details: None,
            continue_token: None,
        }
    }

    fn with(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// 400: the request cannot be understood.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401: nobody known asks.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403: the caller may not; `why` reads like `User "bob" cannot list resource …`.
    pub(crate) fn forbidden(subject: Subject<'_>, why: &str) -> Self {
        let message = format!("{} is forbidden: {why}", subject.text());
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).with(subject.details())
    }

    /// 404: there is no such object.
    pub(crate) fn not_found(subject: Subject<'_>) -> Self {
        let message = format!("{} not found", subject.text());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).with(subject.details())
    }

    /// 409: the object is not what the writer thinks.
    pub(crate) fn conflict(subject: Subject<'_>, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {}: {why}", subject.text());
        Self::new(StatusCode::CONFLICT, "Conflict", message).with(subject.details())
    }

    /// 409: there is such an object.
    pub(crate) fn already_exists(subject: Subject<'_>) -> Self {
        let message = format!("{} already exists", subject.text());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).with(subject.details())
    }

    /// 404: there is no such resource.
    pub(crate) fn unknown_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).with(Details::default())
    }

    /// 504: nobody answered in time.
    pub(crate) fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    /// What another server answered.
    pub(crate) fn received(code: StatusCode, body: &[u8]) -> Self {
        let received = ReceivedStatus::parse(body).unwrap_or_default();
        let code = StatusCode::from_u16(received.code).unwrap_or(code);
        let mut status = Self::new(code, "", received.message);
        status.reason = received.reason.into();
        status
    }

    /// The same refusal in other words for people.
    pub(crate) fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// 405: the resource has no such verb.
    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
            .with(Details::default())
    }

    /// 406: none of the accepted types can be written.
    pub(crate) fn not_acceptable(offered: &[&str]) -> Self {
        let message = format!(
            "only the following media types are accepted: {}",
            offered.join(", ")
        );
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// 410: the revision asked of a list is no longer known.
    pub(crate) fn expired_list() -> Self {
        Self::new(
            StatusCode::GONE,
            "Expired",
            "The resourceVersion for the provided list is too old.",
        )
    }

    /// 410: the page asked for is no longer known; `token` goes on at the present revision.
    pub(crate) fn expired_continue(token: String) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. \
            You can start a new list without the continue parameter, or use the continue token in this \
            response to retrieve the remainder of the results. Continuing with the provided token results \
            in an inconsistent list - objects that were created, modified, or deleted between the time the \
            first chunk was returned and now may show up in the list.";
        let expired = Self::new(StatusCode::GONE, "Expired", message);
        Self {
            continue_token: Some(token),
            ..expired
        }
    }

    /// 410: the events since the revision asked of a watch are no longer known.
    pub(crate) fn expired_watch(asked: u64, oldest: u64) -> Self {
        Self::new(
            StatusCode::GONE,
            "Expired",
            format!("too old resource version: {asked} ({oldest})"),
        )
    }

    /// 408: the request did not come whole in time.
    pub(crate) fn request_timeout() -> Self {
        let message = "the request's body did not come in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "Timeout", message)
    }

    /// 413: the request's body has more than `limit` bytes.
    pub(crate) fn too_large(limit: u64) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            message,
        )
    }

    /// 429: the caller asks too much at a time.
    pub(crate) fn too_many_requests(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).with(Details {
            retry_after: Some(retry_after),
            ..Details::default()
        })
    }

    /// 429: the streams to the cloud that a request may have are in use.
    pub(crate) fn streams_in_use() -> Self {
        let message = "the streams to the cloud that this caller may hold are in use";
        Self::too_many_requests(message, Duration::from_secs(1))
    }

    /// 422: fields of an object are wrong.
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let subject = Subject {
            group,
            resource: kind,
            name: "",
        };
        let faults: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let faults = match faults.as_slice() {
            [fault] => fault.clone(),
            _ => format!("[{}]", faults.join(", ")),
        };
        let message = format!("{} {name:?} is invalid: {faults}", subject.text());
        let details = Details {
            name: name.into(),
            causes,
            ..subject.details()
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with(details)
    }

    /// 422: the parameters of a list or watch contradict each other.
    pub(crate) fn invalid_list_options(causes: Vec<Cause>) -> Self {
        Self::invalid("meta.k8s.io", "ListOptions", "", causes)
    }

    /// 504: the revision asked for has not come yet.
    pub(crate) fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let cause = Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        };
        let details = Details {
            causes: vec![cause],
            retry_after: Some(Duration::from_secs(1)),
            ..Details::default()
        };
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).with(details)
    }

    /// 503: not now.
    pub(crate) fn unavailable(message: impl Into<String>, retry_after: Option<Duration>) -> Self {
        let unavailable = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            message,
        );
        match retry_after {
            None => unavailable,
            Some(_) => unavailable.with(Details {
                retry_after,
                ..Details::default()
            }),
        }
    }

    /// 500: our fault.
    pub(crate) fn internal(error: &str) -> Self {
        let cause = Cause {
            message: error.into(),
            ..Cause::default()
        };
        let details = Details {
            causes: vec![cause],
            ..Details::default()
        };
        let message = format!("Internal error occurred: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message).with(details)
    }
}

/// What another server's `Status` says; enough to act on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ReceivedStatus {
    /// The HTTP status; 0 if it names none.
    pub(crate) code: u16,
    /// The machine's word.
    pub(crate) reason: String,
    /// The human's words.
    pub(crate) message: String,
}

impl ReceivedStatus {
    /// Reads a response's body or the object of an ERROR event.
    fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }
}

#[cfg(test)]
mod tests;
