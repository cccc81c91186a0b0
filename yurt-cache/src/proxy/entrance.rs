//! What is let in: requests of a form that an API server is asked in, as many as their caller has room for.

use std::time::Duration;

use http::header::{CONNECTION, HOST};
use http::{HeaderMap, Method, Request};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{Proxy, upload};
use crate::answer::RETRY;
use crate::api::request::{ApiRequest, Verb, is_decodable};
use crate::codec::Status;
use crate::identity::Caller;
use crate::limits::{Admission, RequestClass, RequestGuard, Requester};
use crate::metrics::Refused;

/// How long a caller that asks too much waits for the refusal.
const REFUSED_AFTER: Duration = Duration::from_secs(1);

impl Proxy {
    /// Waits for the requester's turn, if it has a place left.
    pub(super) async fn place(
        &self,
        requester: &Requester,
        api: &ApiRequest,
    ) -> (Option<RequestGuard>, Result<(), Status>) {
        let class = if api.lasts() {
            RequestClass::Watch
        } else {
            RequestClass::Request
        };
        match self.shares.begin(&requester.tenant, class, Instant::now()) {
            Admission::Admitted(place, turn) => {
                // A timer of nothing still waits for the next millisecond.
                if !turn.is_zero() {
                    tokio::time::sleep(turn).await;
                }
                (Some(place), Ok(()))
            }
            Admission::Refused(place) => {
                self.metrics.refused(match class {
                    RequestClass::Request | RequestClass::Refusal => Refused::Requests,
                    RequestClass::Watch => Refused::Watches,
                });
                tokio::time::sleep(REFUSED_AFTER).await;
                (Some(place), Err(too_many(class)))
            }
            Admission::Overrun => {
                self.metrics.refused(Refused::Overrun);
                requester.end.cancel();
                (None, Err(too_many(class)))
            }
        }
    }

    /// Refuses a token of a stranger's that the cloud need not be asked about.
    pub(super) fn check_stranger(&self, caller: &Caller) -> Result<(), Status> {
        self.authenticator
            .check_stranger(caller)
            .inspect_err(|_| self.metrics.refused(Refused::Stranger))
    }

    /// Refuses a body that says itself that it is too long; what lasts may send what it wants.
    pub(super) fn check_length(&self, api: &ApiRequest, headers: &HeaderMap) -> Result<(), Status> {
        if api.verb != Verb::Write || api.lasts() {
            return Ok(());
        }
        upload::check_length(headers, self.body_limit)
    }
}

/// Refuses what no API server is asked.
pub(super) fn check_head(request: &Request<Incoming>) -> Result<(), Status> {
    if *request.method() == Method::CONNECT {
        return Err(Status::method_not_allowed());
    }
    if !is_decodable(request.uri()) {
        let why = "the path or the query cannot be decoded";
        return Err(Status::bad_request(why));
    }
    if request.headers().get_all(HOST).iter().count() > 1 {
        return Err(Status::bad_request("too many Host headers"));
    }
    if drops_impersonation(request.headers()) {
        let why = "`Connection` may not name who is impersonated";
        return Err(Status::bad_request(why));
    }
    Ok(())
}

/// Returns whether `Connection` would have us drop what makes the caller less than it is.
fn drops_impersonation(headers: &HeaderMap) -> bool {
    let named = headers.get_all(CONNECTION).iter();
    named.filter_map(|value| value.to_str().ok()).any(|value| {
        let mut names = value.split(',').map(str::trim);
        names.any(|name| name.to_ascii_lowercase().starts_with("impersonate-"))
    })
}

fn too_many(class: RequestClass) -> Status {
    let message = match class {
        RequestClass::Request | RequestClass::Refusal => {
            "this caller has too many requests under way on this node: see callerRequests of the hub"
        }
        RequestClass::Watch => {
            "this caller has too many watches and streams on this node: see callerWatches of the hub"
        }
    };
    Status::too_many_requests(message, RETRY)
}
