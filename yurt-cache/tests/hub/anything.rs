//! Requests as nobody sane makes them: every shape of path, numbers at the ends of their types, names of odd signs,
//! selectors of every length, bodies that are none.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// A request of HTTP/1.1 and who makes it.
#[derive(Clone, Debug)]
pub(crate) struct Anything {
    pub(crate) caller: Caller,
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Node,
    /// A token that the API server knows.
    Known,
    /// Somebody with a token that nobody knows.
    Stranger,
    Nobody,
}

impl Anything {
    /// Returns the bytes to send; the server is to close afterwards.
    pub(crate) fn text(&self, known: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let token = match self.caller {
            Caller::Node | Caller::Nobody => None,
            Caller::Known => Some(known),
            Caller::Stranger => Some("not.a.token"),
        };
        if let Some(token) = token {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "Host: hub\r\n";
        if !self.headers.iter().any(|(name, _)| *name == "Connection") {
            head += "Connection: close\r\n";
        }
        head += &format!("Content-Length: {}\r\n\r\n", self.body.len());
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// A GET of the node.
    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self {
            caller: Caller::Node,
            method: "GET",
            target: target.into(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }
}

/// Makes any of them.
pub(crate) fn anything() -> impl Strategy<Value = Anything> {
    let caller = prop_oneof![
        6 => Just(Caller::Node),
        2 => Just(Caller::Known),
        1 => Just(Caller::Stranger),
        1 => Just(Caller::Nobody),
    ];
    let method = prop_oneof![
        8 => Just("GET"),
        4 => select(vec!["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FROB"]),
    ];
    (caller, method, target(), headers(), body()).prop_map(
        |(caller, method, target, headers, body)| Anything {
            caller,
            method,
            target,
            headers,
            body,
        },
    )
}

fn target() -> impl Strategy<Value = String> {
    let plain = (path(), option::weighted(0.7, query()));
    prop_oneof![
        20 => plain.prop_map(|(path, query)| match query {
            Some(query) => format!("{path}?{query}"),
            None => path,
        }),
        1 => select(vec!["*", "/", "//", "/?", "/??", "http://hub", "http://hub?watch=1", "http://hub/api/v1/pods"])
            .prop_map(str::to_owned),
    ]
}

fn path() -> impl Strategy<Value = String> {
    let root = select(vec![
        "/api/v1",
        "/api/v1",
        "/api/v1",
        "/api/v1/watch",
        "/apis/apps/v1",
        "/apis/apps/v1/watch",
        "/apis/discovery.k8s.io/v1",
        "/apis/coordination.k8s.io/v1",
        "/apis/example.com/v1",
        "/apis/authorization.k8s.io/v1",
        "/apis",
        "/openapi/v3",
        "/version",
        "",
    ]);
    let namespace = option::of(prop_oneof![2 => Just("default".to_owned()), 1 => segment()]);
    let plural = prop_oneof![
        4 => select(vec!["pods", "configmaps", "secrets", "nodes", "services", "namespaces", "events",
            "endpointslices", "leases", "deployments", "serviceaccounts"]).prop_map(str::to_owned),
        1 => segment(),
    ];
    (root, namespace, plural, vec(segment(), 0..4)).prop_map(|(root, namespace, plural, rest)| {
        let namespace = namespace.map_or_else(String::new, |name| format!("/namespaces/{name}"));
        let rest: String = rest.iter().map(|one| format!("/{one}")).collect();
        format!("{root}{namespace}/{plural}{rest}")
    })
}

fn segment() -> impl Strategy<Value = String> {
    let known = select(vec![
        "a",
        "default",
        "n1",
        "till",
        "pods",
        "watch",
        "namespaces",
        "status",
        "log",
        "exec",
        "proxy",
        "token",
        "finalize",
        "binding",
        "-",
        "*",
    ]);
    let odd = select(vec![
        "",
        ".",
        "..",
        "%2e%2e",
        "%00",
        "%ff",
        "%zz",
        "%",
        "a%2Fb",
        "a,b",
        "a%3Db",
        "a!=b",
        "a%5Cb",
        "system%3Anode",
        "%E2%82%AC",
        "a%0Ab",
        "a%25",
        "metadata.name",
        "~",
        "a;b",
        "{}",
    ]);
    prop_oneof![
        4 => known.prop_map(str::to_owned),
        2 => odd.prop_map(str::to_owned),
        1 => (1_usize..6_000).prop_map(|length| "x".repeat(length)),
    ]
}

fn query() -> impl Strategy<Value = String> {
    let name = select(vec![
        "watch",
        "resourceVersion",
        "resourceVersionMatch",
        "timeoutSeconds",
        "limit",
        "continue",
        "labelSelector",
        "fieldSelector",
        "allowWatchBookmarks",
        "sendInitialEvents",
        "includeObject",
        "timeout",
        "pretty",
        "dryRun",
        "follow",
        "%77atch",
        "x",
    ]);
    let pair = (name, value()).prop_map(|(name, value)| format!("{name}={value}"));
    vec(pair, 1..6).prop_map(|pairs| pairs.join("&"))
}

fn value() -> impl Strategy<Value = String> {
    let number = select(vec![
        "0",
        "1",
        "-1",
        "7",
        "00",
        "1e9",
        "0x10",
        "",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "4611686018427387904",
    ]);
    let word = select(vec![
        "true",
        "false",
        "Exact",
        "NotOlderThan",
        "Object",
        "None",
        "Metadata",
        "All",
        "%",
        "%zz",
        // The hub's token of a page, with a revision of the far future, and the server's.
        "eyJ2IjoieXVydC92MSIsInJ2IjoxODQ0Njc0NDA3MzcwOTU1MTYxNSwic3RhcnQiOiIifQ",
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0",
    ]);
    let selector = select(vec![
        "a%3Db",
        "metadata.name%3Da",
        "metadata.name!%3Da",
        "spec.nodeName%3Dn1",
        "!a",
        "a+in+(b,c)",
        "a,,b",
        "((",
        "a+notin+()",
        "a%3Cb",
        "metadata.name%3Da%5C",
        "x%3D%5C%2C",
        "%ff%3D",
        "status.phase%3DRunning",
        "a%3Db,a%3Dc",
    ]);
    prop_oneof![
        4 => number.prop_map(str::to_owned),
        2 => word.prop_map(str::to_owned),
        3 => selector.prop_map(str::to_owned),
        1 => (1_usize..6_000).prop_map(long),
    ]
}

/// A selector of so many terms, most of whose signs have to be encoded.
pub(crate) fn long(terms: usize) -> String {
    let terms: Vec<String> = (0..terms).map(|at| format!("k{at}!=-")).collect();
    terms.join(",")
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let accept = select(vec![
        "application/json",
        "*/*",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        "application/vnd.kubernetes.protobuf",
        "application/json;as=;v=;g=,;;,=",
        "text/html",
    ]);
    let content_type = select(vec![
        "application/json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "application/vnd.kubernetes.protobuf",
        ";;",
    ]);
    let other = select(vec![
        ("Connection", "Upgrade"),
        ("Connection", "impersonate-user, close"),
        ("Upgrade", "SPDY/3.1"),
        ("Impersonate-User", "root"),
        ("Accept-Encoding", "gzip"),
        ("Content-Encoding", "gzip"),
        ("Host", "again"),
        ("If-None-Match", "\"x\""),
        ("Range", "bytes=0-"),
    ]);
    let named = |name: &'static str| move |value: &str| (name, value.to_owned());
    vec(
        prop_oneof![
            3 => accept.prop_map(named("Accept")),
            2 => content_type.prop_map(named("Content-Type")),
            1 => other.prop_map(|(name, value)| (name, value.to_owned())),
        ],
        0..4,
    )
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let text = select(vec![
        "",
        "{}",
        "null",
        "{",
        r#"{"metadata":{"name":"a","namespace":"default"}}"#,
        r#"{"metadata":{"name":"a\nb","uid":""},"status":{"phase":"Running","podIPs":[{"$patch":"replace"},{"ip":"10.0.0.9"}],"conditions":[{"type":"Ready","status":"True"}]}}"#,
        r#"{"status":{"conditions":[{"type":1}],"podIPs":7,"$retainKeys":[[]],"$setElementOrder/podIPs":{}}}"#,
        r#"{"spec":{"audiences":["",""],"expirationSeconds":9223372036854775807,"boundObjectRef":{"kind":"Pod","name":"till","uid":"u"}}}"#,
    ]);
    prop_oneof![
        6 => text.prop_map(|text| text.as_bytes().to_vec()),
        1 => (1_usize..20_000).prop_map(|depth| "[".repeat(depth).into_bytes()),
        1 => vec(any::<u8>(), 0..64).prop_map(|bytes| [b"k8s\0".to_vec(), bytes].concat()),
        1 => vec(any::<u8>(), 0..64),
    ]
}
