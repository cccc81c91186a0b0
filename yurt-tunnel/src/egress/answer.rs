//! A door's answers: a head of HTTP/1.1, and for everything but a tunnel a reason in plain text.

use yurt_core::error::Chain;
use yurt_core::transport::{self, ErrorKind};

use super::head::BadHead;
use super::policy::Denied;

/// The answer to a request that got its tunnel; the tunnel's bytes follow.
pub(super) const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

/// The longest reason, in characters.
const MAX_REASON: usize = 512;

/// How many seconds a client should wait before it asks again.
const RETRY_AFTER: &str = "Retry-After: 1\r\n";

/// The answer to a request that gets no tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: Status,
    /// Why, in printable ASCII.
    pub(super) reason: String,
}

/// The statuses that a door knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Status {
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    RequestTimeout,
    BadGateway,
    ServiceUnavailable,
    GatewayTimeout,
}

impl Status {
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::BadGateway => 502,
            Self::ServiceUnavailable => 503,
            Self::GatewayTimeout => 504,
        }
    }

    fn phrase(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad Request",
            Self::Forbidden => "Forbidden",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::RequestTimeout => "Request Timeout",
            Self::BadGateway => "Bad Gateway",
            Self::ServiceUnavailable => "Service Unavailable",
            Self::GatewayTimeout => "Gateway Timeout",
        }
    }

    fn header(self) -> &'static str {
        match self {
            Self::MethodNotAllowed => "Allow: CONNECT, GET, HEAD\r\n",
            Self::ServiceUnavailable => RETRY_AFTER,
            Self::BadRequest
            | Self::Forbidden
            | Self::RequestTimeout
            | Self::BadGateway
            | Self::GatewayTimeout => "",
        }
    }

    fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Forbidden => Self::Forbidden,
            ErrorKind::Draining | ErrorKind::Overloaded => Self::ServiceUnavailable,
            ErrorKind::Timeout => Self::GatewayTimeout,
            // What a later version adds is a reason for which there is no tunnel, too.
            _ => Self::BadGateway,
        }
    }
}

impl Refused {
    pub(super) fn new(status: Status, reason: &str) -> Self {
        let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
        Self {
            status,
            reason: reason.chars().take(MAX_REASON).map(printable).collect(),
        }
    }

    /// Returns the bytes. The reason is in the head too: it is all that kube-apiserver logs.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let Self { status, reason } = self;
        format!(
            "HTTP/1.1 {} {}: {reason}\r\n{}Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reason}\n",
            status.code(),
            status.phrase(),
            status.header(),
            reason.len() + 1,
        )
        .into_bytes()
    }
}

impl From<BadHead> for Refused {
    fn from(bad: BadHead) -> Self {
        let status = match bad {
            BadHead::Method => Status::MethodNotAllowed,
            BadHead::Malformed(_) | BadHead::TooLong | BadHead::Address(_) | BadHead::Body => {
                Status::BadRequest
            }
        };
        Self::new(status, &bad.to_string())
    }
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        Self::new(Status::Forbidden, &denied.to_string())
    }
}

impl From<&transport::Error> for Refused {
    fn from(error: &transport::Error) -> Self {
        Self::new(Status::of(error.kind()), &Chain(error).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_its_status() {
        for (kind, code) in [
            (ErrorKind::NoPeer, 502),
            (ErrorKind::Refused, 502),
            (ErrorKind::Unreachable, 502),
            (ErrorKind::Timeout, 504),
            (ErrorKind::Forbidden, 403),
            (ErrorKind::Overloaded, 503),
            (ErrorKind::Draining, 503),
            (ErrorKind::Reset(7), 502),
            (ErrorKind::Closed, 502),
            (ErrorKind::Protocol, 502),
            (ErrorKind::Other, 502),
        ] {
            assert_eq!(Status::of(kind).code(), code, "{kind:?}");
        }
    }

    #[test]
    fn an_answer_says_why_in_its_first_line_and_in_its_body() {
        let cause = std::io::Error::other("the link\r\nX: y is down");
        let error = transport::Error::new(ErrorKind::Overloaded, "dial edge-1").with_source(cause);
        let bytes = Refused::from(&error).bytes();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "HTTP/1.1 503 Service Unavailable: dial edge-1: the link??X: y is down\r\n\
             Retry-After: 1\r\nContent-Type: text/plain\r\nContent-Length: 36\r\nConnection: close\r\n\r\n\
             dial edge-1: the link??X: y is down\n"
        );
    }

    #[test]
    fn a_reason_has_a_limit() {
        let bytes = Refused::new(Status::BadGateway, &"é".repeat(1 << 20)).bytes();
        assert!(bytes.len() < 2 * MAX_REASON + 200);
        assert!(bytes.is_ascii());
    }
}
