//! The head of a request, from bytes alone: `CONNECT host:port HTTP/1.1` and what may follow it.

use httparse::{EMPTY_HEADER, Status};

use crate::server::{Address, InvalidAddress};

/// The longest head, in bytes: kube-apiserver's has under 400.
pub const MAX_HEAD_LEN: usize = 8 << 10;

const MAX_HEADERS: usize = 64;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where the client wants to go.
    pub address: Address,
    /// How many of the bytes it took; those behind it are the tunnel's first.
    pub len: usize,
}

/// Why bytes are no head that is answered with a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadHead {
    /// They are not HTTP/1.
    #[error("not a request of HTTP/1: {0}")]
    Malformed(httparse::Error),
    /// They are too many.
    #[error("a head of more than {MAX_HEAD_LEN} bytes")]
    TooLong,
    /// The request is for something else.
    #[error("only CONNECT is served here")]
    Method,
    /// There is no such address.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
}

/// Reads the head at the start of what has arrived; `None` if there is to be more.
///
/// The target of the request is all that counts: the Host header says 127.0.0.1 whatever is asked, and a length
/// of a body has no meaning with CONNECT (RFC 9110, section 9.3.6).
///
/// # Errors
/// Why there will be no tunnel, whatever follows.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, BadHead> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let within = &bytes[..bytes.len().min(MAX_HEAD_LEN)];
    match request.parse(within).map_err(BadHead::Malformed)? {
        Status::Partial if within.len() == MAX_HEAD_LEN => Err(BadHead::TooLong),
        Status::Partial => Ok(None),
        Status::Complete(_) if request.method != Some("CONNECT") => Err(BadHead::Method),
        Status::Complete(len) => {
            let address = request.path.unwrap_or_default().parse()?;
            Ok(Some(Head { address, len }))
        }
    }
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
    fn the_bytes_behind_it_are_not_of_the_head() {
        let found = head(b"CONNECT a:1 HTTP/1.1\r\n\r\n\r\nCONNECT b:2 HTTP/1.1\r\n\r\n");
        assert_eq!(found.unwrap().unwrap().len, 24);
    }

    #[test]
    fn what_is_something_else_is_refused_with_its_reason() {
        for bytes in [
            "GET / HTTP/1.1\r\n\r\n",
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
            let expected = Head { address: Address { host, port }, len: text.len() };
            for end in text.len()..=bytes.len() {
                prop_assert_eq!(head(&bytes[..end]), Ok(Some(expected.clone())));
            }
        }
    }
}
