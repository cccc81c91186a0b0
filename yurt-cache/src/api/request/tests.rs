use super::*;

fn read(method: Method, uri: &str) -> ApiRequest {
    ApiRequest::read(&method, &uri.parse().unwrap(), &HeaderMap::new())
}

fn named(uri: &str) -> String {
    let request = read(Method::GET, uri);
    match request.target {
        Target::Document => "document".to_owned(),
        Target::Other => "other".to_owned(),
        Target::Resource(path) => format!(
            "{:?} {} {} {} {}",
            request.verb,
            path.resource,
            path.namespace.as_deref().unwrap_or("-"),
            path.name.as_deref().unwrap_or("-"),
            path.subresource.as_deref().unwrap_or("-")
        ),
    }
}

#[test]
fn a_path_says_resource_namespace_name_and_subresource() {
    for (uri, expected) in [
        ("/api/v1/pods", "List pods - - -"),
        ("/api/v1/pods?watch=true", "Watch pods - - -"),
        ("/api/v1/pods?watch", "Watch pods - - -"),
        ("/api/v1/pods?watch=0", "List pods - - -"),
        ("/api/v1/namespaces", "List namespaces - - -"),
        ("/api/v1/namespaces/a", "Get namespaces - a -"),
        ("/api/v1/namespaces/a/status", "Get namespaces - a status"),
        ("/api/v1/namespaces/a/pods", "List pods a - -"),
        ("/api/v1/namespaces/a/pods/b", "Get pods a b -"),
        ("/api/v1/namespaces/a/pods/b/log", "Get pods a b log"),
        (
            "/api/v1/namespaces/a/services/b/proxy/x/y",
            "Get services a b proxy/x/y",
        ),
        (
            "/apis/apps/v1/namespaces/a/deployments/",
            "List deployments.apps a - -",
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "Get clusterroles.rbac.authorization.k8s.io - system:node -",
        ),
        ("/api/v1/watch/pods", "Watch pods - - -"),
        ("/api", "document"),
        ("/api/v1", "document"),
        ("/apis/apps", "document"),
        ("/apis/apps/v1", "document"),
        ("/openapi/v3/apis/apps/v1", "document"),
        ("/version", "document"),
        ("/healthz", "other"),
        ("/", "other"),
        ("/api/v1/../secrets", "other"),
        ("/api//v1/pods", "other"),
        ("/api/v1/namespaces/a%2Fb/pods", "other"),
        ("/api/v1/namespaces/%2e%2e/pods", "other"),
        ("/api/v1/pods%3Fwatch=1", "other"),
        ("/api/v1/namespaces/a%23/pods", "other"),
        ("/api/v1/namespaces/a%253Fb/pods", "other"),
        ("/api/v1/pods;x", "other"),
        ("/apis/a%20b/v1/pods", "other"),
        ("/api/v1/namespaces/a/pods/%252e", "other"),
        ("/api/v1/namespaces/a/pods/b%0d", "other"),
        ("/api/v1/namespaces/a/pods/%c2%85", "other"),
        ("//api/v1/pods", "other"),
        ("/api/v1/pods//", "other"),
        ("/api/v1/namespaces//pods", "other"),
        ("/API/v1/pods", "other"),
        ("/api/v1/pods?watch=1;x=2", "List pods - - -"),
        ("/api/v1/pods?watch=0&watch=1", "List pods - - -"),
        ("/api/v1/pods?%77atch=1", "Watch pods - - -"),
    ] {
        assert_eq!(named(uri), expected, "{uri}");
    }
    assert_eq!(read(Method::POST, "/api/v1/pods?watch=1").verb, Verb::Write);
}

#[test]
fn what_cannot_be_decoded_is_told_before_it_is_sent_on() {
    for (uri, expected) in [
        ("/api/v1/pods?labelSelector=a%3Db", true),
        ("/api/v1/namespaces/a/pods/%zz", false),
        ("/api/v1/pods?x=%4", false),
        ("/api/v1/pods%", false),
        ("*", false),
        ("10.0.0.1:22", false),
        ("http://10.0.0.1/api", true),
        // A server takes this for no path at all.
        ("http://10.0.0.1?watch=1", false),
    ] {
        assert_eq!(is_decodable(&uri.parse().unwrap()), expected, "{uri}");
    }
}

#[test]
fn what_is_asked_as_somebody_else_lasts_as_long_as_otherwise() {
    let mut headers = HeaderMap::new();
    headers.insert("impersonate-user", "jane".parse().unwrap());
    for (uri, lasts) in [
        ("/api/v1/pods", false),
        ("/api/v1/pods?watch=1", true),
        ("/api/v1/watch/pods", true),
        ("/api/v1/namespaces/a/pods/p/log?follow=true", true),
        ("/api/v1/namespaces/a/services/s/proxy/x", true),
        ("/api/v1/namespaces/a/pods/p", false),
    ] {
        let uri = uri.parse().unwrap();
        let asked = ApiRequest::read(&Method::GET, &uri, &headers);
        assert_eq!(asked.lasts(), lasts, "{uri}");
        assert_eq!(
            (asked.verb, asked.target),
            (Verb::Get, Target::Other),
            "{uri}"
        );
    }
}

#[test]
fn an_option_that_the_hub_does_not_know_is_noticed() {
    for (query, expected) in [
        ("watch=1&limit=5&pretty=true&timeout=9s", false),
        ("resourceVersion=0&shardSelector=x", true),
        ("%73hardSelector=x", true),
        ("x", true),
        ("", false),
    ] {
        let options = read(Method::GET, &format!("/api/v1/pods?{query}")).options;
        assert_eq!(options.has_unknown, expected, "{query}");
    }
}

#[test]
fn a_query_is_read_as_the_server_reads_it() {
    let options = read(
        Method::GET,
        "/api/v1/pods?labelSelector=app%3Dx%2Ctier+in+(a)&fieldSelector=spec.nodeName%3Dn&resourceVersion=7&resourceVersionMatch=NotOlderThan&limit=5&continue=abc&timeoutSeconds=9&allowWatchBookmarks=true&sendInitialEvents=true&limit=9",
    )
    .options;
    assert_eq!(options.labels, "app=x,tier in (a)");
    assert_eq!(options.fields, "spec.nodeName=n");
    assert_eq!(options.revision, Revision::At(7));
    assert_eq!(options.revision_match, Some(RevisionMatch::NotOlderThan));
    assert_eq!((options.limit, options.timeout_seconds), (5, Some(9)));
    assert_eq!(options.continue_token.as_deref(), Some("abc"));
    assert!(options.allows_bookmarks);
    assert_eq!(options.initial_events, Some(true));
    assert_eq!(
        read(Method::GET, "/api/v1/pods?resourceVersion=x")
            .options
            .revision,
        Revision::Invalid("x".into())
    );
}

#[test]
fn the_first_acceptable_shape_counts() {
    for (accept, expected) in [
        ("", Some(Shape::Object)),
        ("*/*", Some(Shape::Object)),
        (
            "application/vnd.kubernetes.protobuf,application/json",
            Some(Shape::Object),
        ),
        ("application/vnd.kubernetes.protobuf", None),
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            Some(Shape::Table),
        ),
        (
            "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            Some(Shape::Object),
        ),
        (
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
            Some(Shape::Metadata),
        ),
        ("application/json;stream=watch", Some(Shape::Object)),
        ("text/html", None),
        // The form of one object, asked of a list.
        (
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            None,
        ),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        assert_eq!(Shape::preferred(&headers, Verb::List), expected, "{accept}");
    }
}
