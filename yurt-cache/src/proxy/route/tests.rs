use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, Method};

use super::*;
use crate::api::Resource;
use crate::authorize::local_write;
use crate::codec::{FieldSelector, LabelSelector};
use crate::filter::FilterConfig;
use crate::filter::chain::Filters;
use crate::filter::context::Context;
use crate::identity::Caller;

fn read(method: Method, uri: &str, accept: &str) -> Exchange {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::ACCEPT, HeaderValue::from_str(accept).unwrap());
    if uri.contains("/exec") {
        headers.insert(http::header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    }
    let api = ApiRequest::read(&method, &uri.parse().unwrap(), &headers);
    let mut exchange = Exchange::new(Caller::Node, api);
    exchange.scope = exchange
        .scope
        .map(|scope| scope.map(|_| anywhere().clone()));
    exchange
}

const NOTHING: Route<'static> = Route::Forward(Remember::Nothing);
const OBJECT: Route<'static> = Route::Forward(Remember::Object);
const SCOPE: Route<'static> = Route::Forward(Remember::Scope);
const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const PODS: &str = "/api/v1/namespaces/a/pods";
const POD: &str = "/api/v1/namespaces/a/pods/p";
const STATUS: &str = "/api/v1/namespaces/a/pods/p/status";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The scope of every list and watch here; which it is, is not the table's concern.
fn anywhere() -> &'static Scope {
    static ANYWHERE: LazyLock<Scope> = LazyLock::new(|| Scope {
        resource: Resource::core("pods"),
        namespace: None,
        labels: LabelSelector::default(),
        fields: FieldSelector::default(),
    });
    &ANYWHERE
}

fn decide(
    method: Method,
    path: &str,
    query: &str,
    accept: &str,
    link: Link,
    have: Have,
) -> Route<'static> {
    let request = read(method, &format!("{path}{query}"), accept);
    route(Box::leak(Box::new(request)), link, have, None)
}

#[test]
fn while_the_cloud_is_there_it_answers_whatever_must_be_fresh() {
    let latest = || Route::Mirror(anywhere(), Freshness::Latest);
    let at = Have::Synced(100);
    // {"v":"meta.k8s.io/v1","rv":100,"start":"b\u0000"}
    let here =
        "?limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MTAwLCJzdGFydCI6ImJcdTAwMDAifQ";
    for (path, query, accept, have, expected) in [
        (POD, "", JSON, at, Route::Forward(Remember::Object)),
        (POD, "?resourceVersion=0", JSON, at, Route::Object),
        (
            POD,
            "?resourceVersion=0",
            JSON,
            Have::Nothing,
            Route::Forward(Remember::Object),
        ),
        (
            POD,
            "?resourceVersion=0",
            TABLE,
            at,
            Route::Forward(Remember::Object),
        ),
        ("/api/v1/namespaces/a/pods/p/log", "", JSON, at, NOTHING),
        (
            "/api/v1/namespaces/a/pods/p/exec",
            "",
            JSON,
            at,
            Route::Upgrade,
        ),
        (PODS, "", JSON, at, latest()),
        (PODS, "", JSON, Have::Syncing, latest()),
        (PODS, "", JSON, Have::Nothing, latest()),
        (PODS, "?limit=500", JSON, Have::Nothing, latest()),
        (PODS, "?limit=500", JSON, at, latest()),
        (
            PODS,
            here,
            JSON,
            at,
            Route::Mirror(anywhere(), Freshness::Any),
        ),
        (PODS, here, JSON, Have::Synced(101), NOTHING),
        (PODS, here, JSON, Have::Nothing, NOTHING),
        (PODS, "", TABLE, at, SCOPE),
        (PODS, "", "application/vnd.kubernetes.protobuf", at, NOTHING),
        (
            PODS,
            "?resourceVersion=0",
            JSON,
            Have::Nothing,
            Route::Mirror(anywhere(), Freshness::Any),
        ),
        (
            PODS,
            "?resourceVersion=0&limit=500",
            JSON,
            at,
            Route::Mirror(anywhere(), Freshness::Any),
        ),
        (
            PODS,
            "?resourceVersion=90",
            JSON,
            at,
            Route::Mirror(anywhere(), Freshness::AtLeast(90)),
        ),
        (
            PODS,
            "?resourceVersion=110&resourceVersionMatch=NotOlderThan",
            JSON,
            at,
            SCOPE,
        ),
        (
            PODS,
            "?resourceVersion=100&resourceVersionMatch=Exact",
            JSON,
            at,
            SCOPE,
        ),
        (PODS, "?resourceVersionMatch=Exact", JSON, at, SCOPE),
        (PODS, "?continue=theirs", JSON, at, NOTHING),
        (
            PODS,
            "?watch=1",
            JSON,
            at,
            Route::Mirror(anywhere(), Freshness::Latest),
        ),
        (
            PODS,
            "?watch=1&resourceVersion=0",
            JSON,
            at,
            Route::Mirror(anywhere(), Freshness::Any),
        ),
        (
            PODS,
            "?watch=1&resourceVersion=110",
            JSON,
            at,
            Route::Mirror(anywhere(), Freshness::Any),
        ),
        (
            PODS,
            "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
            JSON,
            at,
            Route::Mirror(anywhere(), Freshness::Latest),
        ),
        (
            PODS,
            "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=110",
            JSON,
            at,
            Route::Mirror(anywhere(), Freshness::AtLeast(110)),
        ),
        (PODS, "?watch=1&sendInitialEvents=true", JSON, at, NOTHING),
        (PODS, "?watch=1", TABLE, at, NOTHING),
        (PODS, "?watch=1&timeoutSeconds=abc", JSON, at, NOTHING),
        (PODS, "?limit=many", JSON, at, NOTHING),
        (
            "/api/v1/watch/namespaces/a/pods/p",
            "",
            JSON,
            at,
            Route::Mirror(anywhere(), Freshness::Latest),
        ),
        ("/apis", "", JSON, at, Route::Forward(Remember::Document)),
        ("/healthz", "", JSON, at, NOTHING),
    ] {
        assert_eq!(
            decide(Method::GET, path, query, accept, Link::Up, have),
            expected,
            "{path}{query} as {accept} with {have:?}"
        );
    }
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        assert_eq!(
            decide(method.clone(), POD, "", JSON, Link::Up, at),
            Route::Forward(Remember::Object),
            "{method}"
        );
    }
}

#[test]
fn an_option_that_only_the_server_knows_is_never_ignored() {
    let at = Have::Synced(100);
    for query in ["?shardSelector=x", "?resourceVersion=0&x", "?watch=1&x=1"] {
        for (link, expected) in [(Link::Up, NOTHING), (Link::Cut, Route::Unavailable)] {
            let decided = decide(Method::GET, PODS, query, JSON, link, at);
            assert_eq!(decided, expected, "{query} {link:?}");
        }
    }
    let query = "?resourceVersion=0&pretty=true&timeout=9s";
    for link in [Link::Up, Link::Cut] {
        let decided = decide(Method::GET, PODS, query, JSON, link, at);
        assert_eq!(
            decided,
            Route::Mirror(anywhere(), Freshness::Any),
            "{link:?}"
        );
    }
    let tried = decide(Method::POST, PODS, "?x=1", JSON, Link::Up, at);
    assert_eq!(tried, OBJECT, "a write is forwarded anyway");
}

#[test]
fn while_the_cloud_is_away_reads_are_answered_and_the_rest_is_refused() {
    let at = Have::Synced(100);
    for (method, path, query, accept, expected) in [
        (Method::GET, POD, "", JSON, Route::Object),
        (Method::GET, POD, "", TABLE, Route::Object),
        (
            Method::GET,
            "/api/v1/namespaces/a/pods/p/status",
            "",
            JSON,
            Route::Object,
        ),
        (
            Method::GET,
            "/api/v1/namespaces/a/pods/p/log",
            "",
            JSON,
            Route::Unavailable,
        ),
        (
            Method::GET,
            "/api/v1/namespaces/a/pods/p/exec",
            "",
            JSON,
            Route::Unavailable,
        ),
        (
            Method::GET,
            PODS,
            "",
            JSON,
            Route::Mirror(anywhere(), Freshness::Any),
        ),
        (
            Method::GET,
            PODS,
            "?limit=3",
            TABLE,
            Route::Mirror(anywhere(), Freshness::Any),
        ),
        (
            Method::GET,
            PODS,
            "?resourceVersion=90",
            JSON,
            Route::Mirror(anywhere(), Freshness::AtLeast(90)),
        ),
        (
            Method::GET,
            PODS,
            "?resourceVersion=90&resourceVersionMatch=Exact",
            JSON,
            Route::Mirror(anywhere(), Freshness::Exactly(90)),
        ),
        (
            Method::GET,
            PODS,
            "?watch=1",
            JSON,
            Route::Mirror(anywhere(), Freshness::Any),
        ),
        (
            Method::GET,
            PODS,
            "?watch=1&resourceVersion=110",
            JSON,
            Route::Mirror(anywhere(), Freshness::Any),
        ),
        (
            Method::GET,
            PODS,
            "",
            "application/vnd.kubernetes.protobuf",
            Route::NotAcceptable,
        ),
        (
            Method::GET,
            "/api/v1/watch/namespaces/a/pods/p",
            "",
            JSON,
            Route::Mirror(anywhere(), Freshness::Any),
        ),
        (
            Method::GET,
            "/api/v1/watch/namespaces/a/pods/p/status",
            "",
            JSON,
            Route::Unavailable,
        ),
        (Method::GET, "/api", "", JSON, Route::Document),
        (Method::GET, "/healthz", "", JSON, Route::Unavailable),
        (Method::POST, PODS, "", JSON, Route::Unavailable),
        (Method::DELETE, POD, "", JSON, Route::Unavailable),
    ] {
        assert_eq!(
            decide(method.clone(), path, query, accept, Link::Cut, at),
            expected,
            "{method} {path}{query} as {accept}"
        );
    }
}

/// What the request is to the node itself.
fn local(request: &Exchange) -> Option<(LocalWrite, Permit)> {
    local_write(&request.api, &Caller::Node, &"edge-1".parse().unwrap())
}

#[test]
fn what_the_node_can_stand_behind_is_written_here_only_while_the_cloud_is_away() {
    let request = read(Method::PATCH, "/api/v1/namespaces/a/pods/p/status", JSON);
    assert!(matches!(
        route(&request, Link::Cut, Have::Nothing, local(&request)),
        Route::LocalWrite(LocalWrite::Status, _)
    ));
    assert_eq!(
        route(&request, Link::Up, Have::Nothing, local(&request)),
        Route::Forward(Remember::Nothing)
    );
}

#[test]
fn a_token_for_a_pod_is_asked_of_the_cloud_and_kept() {
    let path = "/api/v1/namespaces/a/serviceaccounts/b/token";
    let request = read(Method::POST, path, JSON);
    let decide = |link, local| route(&request, link, Have::Nothing, local);
    assert!(matches!(decide(Link::Up, local(&request)), Route::Token(_)));
    assert!(matches!(
        decide(Link::Cut, local(&request)),
        Route::LocalWrite(LocalWrite::TokenRequest, _)
    ));
    assert_eq!(decide(Link::Up, None), Route::Forward(Remember::Nothing));
    assert_eq!(decide(Link::Cut, None), Route::Unavailable);
}

#[test]
fn what_filters_look_at_comes_from_a_mirror_or_as_one_object_and_always_as_json() {
    let context = Context {
        hub: Some("169.254.2.1:10268".parse().unwrap()),
        ..Context::default()
    };
    let filters = Filters::new(FilterConfig::default(), context);
    let at = Have::Synced(100);
    let mirror = |fresh| Route::Mirror(anywhere(), fresh);
    for (method, path, query, accept, have, expected) in [
        (Method::GET, POD, "", JSON, at, OBJECT),
        (Method::GET, POD, "", TABLE, at, OBJECT),
        (
            Method::GET,
            POD,
            "?resourceVersion=0",
            TABLE,
            at,
            Route::Object,
        ),
        (Method::PUT, POD, "", JSON, at, OBJECT),
        (Method::PATCH, STATUS, "", JSON, at, NOTHING),
        (
            Method::PATCH,
            STATUS,
            "",
            PROTOBUF,
            at,
            Route::NotAcceptable,
        ),
        (Method::PUT, POD, "", PROTOBUF, at, Route::NotAcceptable),
        (Method::GET, PODS, "", PROTOBUF, at, Route::NotAcceptable),
        (Method::GET, PODS, "", JSON, at, mirror(Freshness::Latest)),
        (
            Method::GET,
            PODS,
            "",
            JSON,
            Have::Nothing,
            mirror(Freshness::Latest),
        ),
        (
            Method::GET,
            PODS,
            "?limit=3",
            TABLE,
            at,
            mirror(Freshness::Latest),
        ),
        (
            Method::GET,
            PODS,
            "?resourceVersion=0",
            JSON,
            at,
            mirror(Freshness::Any),
        ),
        (
            Method::GET,
            PODS,
            "?resourceVersion=110",
            JSON,
            at,
            mirror(Freshness::AtLeast(110)),
        ),
        (
            Method::GET,
            PODS,
            "?resourceVersion=90&resourceVersionMatch=Exact",
            JSON,
            at,
            mirror(Freshness::Exactly(90)),
        ),
        (
            Method::GET,
            PODS,
            "?limit=3&continue=abc",
            JSON,
            at,
            mirror(Freshness::Any),
        ),
        (
            Method::GET,
            PODS,
            "?resourceVersionMatch=Exact",
            JSON,
            at,
            NOTHING,
        ),
        (Method::GET, PODS, "?resourceVersion=x", JSON, at, NOTHING),
        (Method::GET, PODS, "?limit=x", JSON, at, NOTHING),
        (
            Method::GET,
            PODS,
            "?watch=1",
            TABLE,
            at,
            mirror(Freshness::Latest),
        ),
        (
            Method::GET,
            PODS,
            "?watch=1&resourceVersion=90",
            JSON,
            at,
            mirror(Freshness::Any),
        ),
    ] {
        let mut request = read(method.clone(), &format!("{path}{query}"), accept);
        let resource = &request.api.path().unwrap().resource;
        request.chain = filters.for_caller(&Caller::Node, resource);
        assert!(request.chain.is_some());
        assert_eq!(
            route(&request, Link::Up, have, None),
            expected,
            "{method} {path}{query} as {accept}"
        );
    }
}
