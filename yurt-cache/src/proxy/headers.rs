//! Which headers pass, and what they say.

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

/// Headers about one connection, not about the request (RFC 9110, section 7.6.1).
const NOT_FORWARDED: [HeaderName; 9] = [
    CONNECTION,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authorization"),
];

/// What tells of who is in front of us, and as whom: nobody in front of us may say it.
const CLAIMS: [&str; 4] = ["forwarded", "x-forwarded-", "x-real-ip", "x-remote-"];

/// Returns the headers of a request that pass on to the cloud.
pub(super) fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    remove_hop_headers(&mut kept);
    let claims: Vec<HeaderName> = kept
        .keys()
        .filter(|name| CLAIMS.iter().any(|claim| name.as_str().starts_with(claim)))
        .cloned()
        .collect();
    for name in claims {
        kept.remove(name);
    }
    kept
}

/// Removes what is about one connection.
pub(super) fn remove_hop_headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in NOT_FORWARDED.iter().chain(&named) {
        headers.remove(name);
    }
}

/// Returns the length that the sender announced.
pub(super) fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Returns whether a body is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"))
}
