//! The head of a request, from bytes alone: `CONNECT host:port HTTP/1.1` and what may follow it, or
//! `GET http://host:port/path HTTP/1.1`, which clients of a proxy say for a target without TLS.

use bytes::Bytes;
use httparse::{EMPTY_HEADER, Header, Status};

use crate::dial::{Address, InvalidAddress};

/// The longest head, in bytes: kube-apiserver's has under 400.
pub const MAX_HEAD_LEN: usize = 8 << 10;

const MAX_HEADERS: usize = 64;

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where the client wants to go.
    pub address: Address,
    /// How many bytes it has; those behind it are the tunnel's first.
    pub len: usize,
    /// The request that is passed on to the target, unless it is for a tunnel. Nothing may follow it.
    pub forward: Option<Bytes>,
}

/// Why a door does not serve a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadHead {
    /// They are not HTTP/1.
    #[error("not a request of HTTP/1: {0}")]
    Malformed(httparse::Error),
    /// They are too many.
    #[error("the head of the request is longer than {MAX_HEAD_LEN} bytes")]
    TooLong,
    /// The request is for something else.
    #[error("only CONNECT is served here, and GET and HEAD of http:// addresses")]
    Method,
    /// The request has a body.
    #[error("a request to an http:// address must not have a body: use CONNECT")]
    Body,
    /// There is no such address.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
}

/// Parses the head at the start of the bytes; `None` if it is not complete.
///
/// The target of the request is all that counts: the Host header says 127.0.0.1 whatever is asked, and a length
/// of a body has no meaning with CONNECT (RFC 9110, section 9.3.6).
///
/// # Errors
/// Why the request is refused, whatever follows.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, BadHead> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let within = &bytes[..bytes.len().min(MAX_HEAD_LEN)];
    match request.parse(within).map_err(BadHead::Malformed)? {
        Status::Partial if within.len() == MAX_HEAD_LEN => Err(BadHead::TooLong),
        Status::Partial => Ok(None),
        Status::Complete(len) if request.method == Some("CONNECT") => {
            let address = request.path.unwrap_or_default().parse()?;
            Ok(Some(Head {
                address,
                len,
                forward: None,
            }))
        }
        Status::Complete(len) => {
            let (address, request) = passed_on(&request)?;
            Ok(Some(Head {
                address,
                len,
                forward: Some(request),
            }))
        }
    }
}

/// Returns where a request by an absolute address goes, and what is said there (RFC 9112, section 3.2).
///
/// The connection is for this one request: the next may be for another target, where its client may not go.
fn passed_on(request: &httparse::Request<'_, '_>) -> Result<(Address, Bytes), BadHead> {
    let method = request
        .method
        .filter(|method| ["GET", "HEAD"].contains(method));
    let target = request
        .path
        .and_then(|target| target.strip_prefix("http://"));
    let (method, target) = method.zip(target).ok_or(BadHead::Method)?;
    let (authority, path) = target.split_at(target.find(['/', '?']).unwrap_or(target.len()));
    let address = authority.parse();
    let address: Address = address.or_else(|_| format!("{authority}:80").parse())?;
    if request.headers.iter().any(announces_a_body) {
        return Err(BadHead::Body);
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let version = request.version.unwrap_or_default();
    let start = format!("{method} {slash}{path} HTTP/1.{version}\r\nHost: {authority}\r\n");
    let mut told = start.into_bytes();
    for Header { name, value } in request.headers.iter() {
        if !is_of_the_connection(name, request.headers) {
            told.extend_from_slice(&[name.as_bytes(), b": ", *value, b"\r\n"].concat());
        }
    }
    told.extend_from_slice(b"Connection: close\r\n\r\n");
    Ok((address, told.into()))
}

fn announces_a_body(header: &Header<'_>) -> bool {
    let is_empty = header.name.eq_ignore_ascii_case("content-length") && header.value == b"0";
    let bodies = ["content-length", "transfer-encoding"];
    !is_empty
        && bodies
            .iter()
            .any(|body| header.name.eq_ignore_ascii_case(body))
}

/// Whether a header is for us, and not for the target (RFC 9110, section 7.6.1).
fn is_of_the_connection(name: &str, headers: &[Header<'_>]) -> bool {
    const OURS: [&str; 8] = [
        "host",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "trailer",
        "upgrade",
    ];
    let is_named = |header: &Header<'_>| {
        header.name.eq_ignore_ascii_case("connection")
            && header
                .value
                .split(|byte| *byte == b',')
                .any(|named| named.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    };
    OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)) || headers.iter().any(is_named)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn the_head_of_kube_apiserver_is_one() {
        let bytes = b"CONNECT 10.0.0.7:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        let expected = Head {
            address: address("10.0.0.7:10250"),
            len: bytes.len(),
            forward: None,
        };
        assert_eq!(head(bytes), Ok(Some(expected)));
    }

    #[test]
    fn a_head_is_one_in_every_form_that_clients_use() {
        for (bytes, at) in [
            (
                "CONNECT [2001:db8::7]:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
                "[2001:db8::7]:10250",
            ),
            ("CONNECT edge-1:10250 HTTP/1.0\r\n\r\n", "edge-1:10250"),
            (
                "CONNECT edge-1:443 HTTP/1.1\nHost: other:80\n\n",
                "edge-1:443",
            ),
            (
                "CONNECT edge-1:443 HTTP/1.1\r\nHost: a\r\nUser-Agent: curl/8\r\nProxy-Connection: Keep-Alive\r\n\r\n",
                "edge-1:443",
            ),
        ] {
            let found = head(bytes.as_bytes()).unwrap().unwrap();
            assert_eq!((found.address, found.len), (address(at), bytes.len()));
        }
    }

    #[test]
    fn a_request_by_an_absolute_address_goes_to_its_target_as_one_of_its_own() {
        for (start, at, told) in [
            (
                "GET http://edge-1:9100/metrics?x=http://b/ HTTP/1.1",
                "edge-1:9100",
                "GET /metrics?x=http://b/ HTTP/1.1\r\nHost: edge-1:9100",
            ),
            (
                "HEAD http://a HTTP/1.0",
                "a:80",
                "HEAD / HTTP/1.0\r\nHost: a",
            ),
            (
                "GET http://a?b HTTP/1.1",
                "a:80",
                "GET /?b HTTP/1.1\r\nHost: a",
            ),
            (
                "GET http://[2001:db8::7]/ HTTP/1.1",
                "[2001:db8::7]:80",
                "GET / HTTP/1.1\r\nHost: [2001:db8::7]",
            ),
        ] {
            let ours = "Host: other\r\nProxy-Connection: keep-alive\r\nconnection: X-Hop, close\r\n\
                        X-Hop: 1\r\nProxy-Authorization: Basic eA==\r\nUpgrade: h2c\r\n";
            let bytes = format!("{start}\r\nAccept: a\r\n{ours}Content-Length: 0\r\n\r\n");
            let found = head(bytes.as_bytes()).unwrap().unwrap();
            assert_eq!((found.address, found.len), (address(at), bytes.len()));
            let rest = "Accept: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            assert_eq!(found.forward.unwrap(), format!("{told}\r\n{rest}"));
        }
    }

    #[test]
    fn a_request_by_an_absolute_address_has_one_target_and_no_body() {
        for target in [
            "http://",
            "http:///",
            "http://u@a/",
            "http://a:0/",
            "http://a:b/",
            "http://2001:db8::7/",
        ] {
            let found = head(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes());
            assert!(
                matches!(found, Err(BadHead::Address(_))),
                "{target}: {found:?}"
            );
        }
        for body in [
            "Content-Length: 5",
            "content-length: 00",
            "Transfer-Encoding: chunked",
        ] {
            let found = head(format!("GET http://a/ HTTP/1.1\r\n{body}\r\n\r\n").as_bytes());
            assert_eq!(found, Err(BadHead::Body), "{body}");
        }
    }

    #[test]
    fn the_bytes_behind_it_are_not_of_the_head() {
        let found = head(b"CONNECT a:1 HTTP/1.1\r\n\r\n\r\nCONNECT b:2 HTTP/1.1\r\n\r\n");
        assert_eq!(found.unwrap().unwrap().len, 24);
    }

    #[test]
    fn what_is_something_else_is_refused_with_its_reason() {
        for bytes in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET https://a/ HTTP/1.1\r\n\r\n",
            "GET HTTP://a/ HTTP/1.1\r\n\r\n",
            "POST http://a/ HTTP/1.1\r\n\r\n",
            "connect a:1 HTTP/1.1\r\n\r\n",
            "POST a:1 HTTP/1.0\r\n\r\n",
        ] {
            assert_eq!(head(bytes.as_bytes()), Err(BadHead::Method), "{bytes:?}");
        }
        for target in [
            "edge-1",
            "/",
            "http://edge-1:80/",
            "edge-1:0",
            "2001:db8::7:1",
            "user@a:1",
            "*",
        ] {
            let found = head(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes());
            assert!(
                matches!(found, Err(BadHead::Address(_))),
                "{target:?}: {found:?}"
            );
        }
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01\x00"[..],
            b"CONNECT a:1 HTTP/2.0\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"CONNECT a:1\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\nHo st: a\r\n\r\n",
            b"\0",
        ] {
            assert!(
                matches!(head(bytes), Err(BadHead::Malformed(_))),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_head_has_a_limit_of_bytes_and_of_headers() {
        let of = |padding: usize| {
            format!("CONNECT a:1 HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(padding)).into_bytes()
        };
        let most = of(MAX_HEAD_LEN - of(0).len());
        assert_eq!(head(&most).unwrap().unwrap().len, MAX_HEAD_LEN);
        let longer = of(MAX_HEAD_LEN - of(0).len() + 1);
        assert_eq!(head(&longer), Err(BadHead::TooLong));
        assert_eq!(head(&vec![b'A'; 1 << 20]), Err(BadHead::TooLong));

        let of = |headers| format!("CONNECT a:1 HTTP/1.1\r\n{}\r\n", "A: a\r\n".repeat(headers));
        assert!(head(of(MAX_HEADERS).as_bytes()).unwrap().is_some());
        let too_many = Err(BadHead::Malformed(httparse::Error::TooManyHeaders));
        assert_eq!(head(of(MAX_HEADERS + 1).as_bytes()), too_many);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            drop(head(&bytes));
            drop(head(&[b"CONNECT ", bytes.as_slice()].concat()));
            drop(head(&[b"GET http://", bytes.as_slice()].concat()));
            drop(head(&[b"CONNECT a:1 HTTP/1.1\r\n", bytes.as_slice()].concat()));
        }

        #[test]
        fn a_head_is_the_same_however_it_is_cut(
            host in "[a-z][a-z0-9.-]{0,40}",
            port in 1..=u16::MAX,
            headers in proptest::collection::vec("[A-Za-z]{1,10}: [ -~]{0,20}\r\n", 0..8),
            behind in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let text = format!("CONNECT {host}:{port} HTTP/1.1\r\n{}\r\n", headers.concat());
            let bytes = [text.as_bytes(), &behind].concat();
            for end in 0..text.len() {
                prop_assert_eq!(head(&bytes[..end]), Ok(None));
            }
            let address = Address { host, port };
            let expected = Head { address, len: text.len(), forward: None };
            for end in text.len()..=bytes.len() {
                prop_assert_eq!(head(&bytes[..end]), Ok(Some(expected.clone())));
            }
        }
    }
}
