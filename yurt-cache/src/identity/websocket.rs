//! Bearer tokens of browsers, which set no header for a websocket: they offer the token as a subprotocol, and
//! kube-apiserver takes it from there.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{
    AUTHORIZATION, CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};

/// What such a subprotocol begins with.
const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Makes a token among the subprotocols the request's `Authorization`, unless there is one. As at kube-apiserver
/// there is one token, and another subprotocol for the answer.
pub(crate) fn take_token(headers: &mut HeaderMap) {
    if headers.contains_key(AUTHORIZATION)
        || !names(headers, &UPGRADE).any(|name| name.eq_ignore_ascii_case("websocket"))
        || !names(headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"))
    {
        return;
    }
    let (tokens, others): (Vec<_>, Vec<_>) =
        names(headers, &SEC_WEBSOCKET_PROTOCOL).partition(|name| name.starts_with(PREFIX));
    let ([token], false) = (tokens.as_slice(), others.is_empty()) else {
        return;
    };
    let Some(mut authorization) = authorization(&token[PREFIX.len()..]) else {
        return;
    };
    let Ok(others) = HeaderValue::from_str(&others.join(",")) else {
        return;
    };
    authorization.set_sensitive(true);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
    headers.insert(AUTHORIZATION, authorization);
}

fn authorization(encoded: &str) -> Option<HeaderValue> {
    let token = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()?;
    HeaderValue::from_str(&format!("Bearer {token}")).ok()
}

/// The words of a header that lists some.
fn names<'a>(headers: &'a HeaderMap, header: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(header).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_beside_another_subprotocol_is_taken_from_a_websocket() {
        // "secret" and "other".
        let token = format!("{PREFIX}c2VjcmV0");
        let second = format!("{PREFIX}b3RoZXI");
        let bearer = Some("Bearer secret");
        let table = [
            (
                "websocket",
                format!("{token}, v4.channel.k8s.io"),
                bearer,
                "v4.channel.k8s.io",
            ),
            ("WebSocket", format!("a,{token} ,b"), bearer, "a,b"),
            ("SPDY/3.1", format!("{token}, a"), None, ""),
            ("websocket", token.clone(), None, ""),
            ("websocket", format!("{token}, {second}, a"), None, ""),
            ("websocket", format!("{PREFIX}%%%, a"), None, ""),
            ("websocket", format!("{PREFIX}_w, a"), None, ""),
            ("websocket", format!("{PREFIX}Cg, a"), None, ""),
        ];
        for (protocol, offered, expected, left) in table {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
            headers.insert(UPGRADE, protocol.parse().unwrap());
            headers.insert(SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
            take_token(&mut headers);
            let taken = headers
                .get(AUTHORIZATION)
                .map(|value| value.to_str().unwrap());
            assert_eq!(taken, expected, "{offered}");
            let left = if expected.is_some() { left } else { &offered };
            assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], left, "{offered}");
        }
    }

    #[test]
    fn an_authorization_that_is_there_stays() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer mine"));
        let offered = format!("{PREFIX}c2VjcmV0, a");
        headers.insert(SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
        take_token(&mut headers);
        assert_eq!(headers[AUTHORIZATION], "Bearer mine");
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], offered);
    }
}
