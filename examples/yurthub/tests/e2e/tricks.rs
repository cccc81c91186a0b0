//! Requests that could be read in two ways: the hub reads each as the API server does, or refuses it.

use std::collections::BTreeSet;

use serde_json::Value;
use testbed::{
    client::{Answer, Error, raw},
    cluster::ClusterConfig,
    endpoint::Endpoint,
    link::Cut,
};

use crate::{
    checks::{Checks, cut, finish_all},
    reading::warm,
    site::Site,
    world,
};

/// A bare `#` is not among them: there the parser of HTTP ends the target, before anybody reads or forwards it.
#[rustfmt::skip]
const TARGETS: &[&str] = &[
    // Dots, slashes, and what they are called when they hide.
    "/api/v1/namespaces/world/configmaps/../secrets", "/api/v1/namespaces/world/../other/secrets", "/api/v1/namespaces/world/./configmaps",
    "/api/v1/namespaces/world/configmaps/.", "/api/v1/namespaces/world/configmaps/..", "/../api/v1/namespaces/world/secrets", "/api/v1/namespaces/..", "/api/v1/namespaces/world/configmaps/plain/..",
    "/api/v1/namespaces/world/configmaps/%2e%2e/secrets", "/api/v1/namespaces/world/configmaps/%252e%252e/secrets", "/api/v1/namespaces/%2e%2e/secrets",
    "/api/v1/namespaces/world/configmaps/..%2fsecrets", "/api/v1/namespaces/world/configmaps/..%2f..%2fother%2fsecrets?resourceVersion=0", "/api/v1/namespaces/world/configmaps/%2e%2e%2fsecrets%2fopaque",
    "//api/v1/namespaces/world/configmaps", "///api/v1/namespaces/world/configmaps", "/api//v1/namespaces/world/configmaps", "/api/v1//namespaces/world/configmaps", "/api/v1/namespaces//configmaps", "/api/v1/namespaces//world/configmaps",
    "/api/v1/namespaces/world//configmaps", "/api/v1/namespaces/world/configmaps/", "/api/v1/namespaces/world/configmaps//", "/api/v1/namespaces/world/configmaps//plain", "/api/v1/namespaces/world/configmaps/plain/", "/api/v1/namespaces/world/configmaps/plain//",
    "/api/v1/namespaces/world%2Fconfigmaps", "/api/v1/namespaces/world%2fsecrets%2fopaque", "/api/v1/namespaces/world%2Fsecrets/opaque?resourceVersion=0", "/api/v1%2Fnamespaces/world/secrets", "/api%2Fv1/namespaces/world/secrets?resourceVersion=0", "%2Fapi/v1/namespaces/world/secrets",
    "/api/v1/namespaces/world%252Fconfigmaps", "/api/v1/namespaces/world/configmaps%2Fplain", "/api/v1/namespaces/world/configmaps%2F?resourceVersion=0", "/api/v1/namespaces/world/configmaps/plain%2Fstatus", "/api/v1/namespaces/world/configmaps/%2Fplain",
    r"/api/v1/namespaces/world/configmaps\..\secrets", "/api/v1/namespaces/world/configmaps%5c..%5csecrets",
    // Signs that end a path, or begin another part of it.
    "/api/v1/namespaces/world/configmaps%3FresourceVersion=0", "/api/v1/namespaces/world/configmaps%3Flimit=1?resourceVersion=0", "/api/v1/namespaces/world%3Fx/configmaps?resourceVersion=0", "/api/v1/configmaps%3Fx=1&resourceVersion=0",
    "/api/v1/namespaces/world/configmaps%23?resourceVersion=0", "/api/v1/namespaces/world%23/configmaps?resourceVersion=0", "/api/v1/namespaces/world/configmaps;x=1?resourceVersion=0", "/api/v1/namespaces/world/configmaps;/plain",
    "/api/v1/namespaces/world/configmaps%3Bx", "/api/v1/namespaces/world/configmaps&x=1", "/api/v1/namespaces/world/configmaps/plain?resourceVersion=0?x", "/api/v1/namespaces/world/configmaps,secrets?resourceVersion=0", "/api/v1/namespaces/world,other/configmaps?resourceVersion=0",
    "/api/v1/namespaces/world/configmaps/plain%3Fx", "/api/v1/namespaces/world/configmaps/plain,web-prod", "/api/v1/namespaces/world/configmaps/x,metadata.name=plain?resourceVersion=0", "/api/v1/namespaces/world/configmaps/*", "/api/v1/namespaces/*/configmaps?resourceVersion=0",
    // Bytes that are no text, or no good one.
    "/api/v1/namespaces/world/configmaps/plain%00", "/api/v1/namespaces/world/configmaps%00?resourceVersion=0", "/api/v1/namespaces/world/configmaps/plain%0a", "/api/v1/namespaces/world/configmaps%0d%0a?resourceVersion=0", "/api/v1/namespaces/world/configmaps/plain%20", "/api/v1/namespaces/world/configmaps/%20plain",
    "/api/v1/namespaces/world/configmaps/plain%09", "/api/v1/namespaces/world/configmaps/plain%7f", "/api/v1/namespaces/world/configmaps/%ff", "/api/v1/namespaces/world/configmaps/%c0%af", "/api/v1/namespaces/%c0%ae%c0%ae/configmaps", "/api/v1/namespaces/world/configmaps/plain%e2%80%ae", "/api/v1/namespaces/world/configmaps/plain+",
    // The same letters, written in another way.
    "/%61pi/v1/namespaces/world/configmaps", "/api/v1/namespaces/world/%63onfigmaps?resourceVersion=0", "/api/v1/namespaces/%77orld/configmaps/plain?resourceVersion=0", "/api/v1/%6eamespaces/world/configmaps/%70lain", "/api/%761/namespaces/world/configmaps",
    "/API/v1/namespaces/world/configmaps", "/api/V1/namespaces/world/configmaps?resourceVersion=0", "/api/v1/Namespaces/world/configmaps", "/api/v1/namespaces/world/ConfigMaps?resourceVersion=0", "/api/v1/namespaces/World/configmaps?resourceVersion=0", "/api/v1/namespaces/world/configmaps/PLAIN?resourceVersion=0",
    // Other roads to the same place.
    "/apis//v1/namespaces/world/configmaps", "/apis/v1/namespaces/world/configmaps", "/apis/core/v1/namespaces/world/configmaps", "/apis/%20/v1/configmaps", "/apis/apps/v1beta1/deployments?resourceVersion=0", "/api/apps/v1/namespaces/world/deployments", "/api/v1/v1/namespaces/world/configmaps",
    "/api/v1/watch/namespaces/world/configmaps?timeoutSeconds=1", "/api/v1/watch/namespaces/world/configmaps/plain?timeoutSeconds=1", "/api/v1/watch/watch/namespaces/world/configmaps?timeoutSeconds=1", "/api/v1/watch", "/api/v1/namespaces/watch/configmaps?resourceVersion=0", "/api/v1/proxy/namespaces/world/services/web", "/api/v1/proxy/configmaps", "/api/v1/redirect/configmaps",
    "/api/v1/namespaces/world/status", "/api/v1/namespaces/world/finalize", "/api/v1/namespaces/status", "/api/v1/namespaces/status/configmaps?resourceVersion=0", "/api/v1/namespaces/namespaces/configmaps?resourceVersion=0", "/api/v1/namespaces/namespaces", "/api/v1/namespaces/world/namespaces", "/api/v1/namespaces/world/namespaces/other",
    "/api/v1/namespaces/world/nodes", "/api/v1/namespaces/world/nodes/edge-1?resourceVersion=0", "/api/v1/configmaps/plain", "/api/v1/configmaps/world/plain", "/api/v1/namespaces/world/configmaps/plain/status", "/api/v1/namespaces/world/configmaps/plain/secrets", "/api/v1/namespaces/world/configmaps/plain/secrets/opaque",
    "/api/v1/namespaces/world/pods/running/status/x", "/api/v1/namespaces/world/pods/status", "/api/v1/namespaces/world/pods/running/running", "https://elsewhere.example.com/api/v1/namespaces/world/configmaps", "http://127.0.0.1:1/api/v1/namespaces/world/configmaps?resourceVersion=0",
    // Questions with two answers.
    "/api/v1/namespaces/world/configmaps?watch=1;x=2&timeoutSeconds=1", "/api/v1/namespaces/world/configmaps?x;watch=1&timeoutSeconds=1", "/api/v1/namespaces/world/configmaps?watch=0&watch=1&timeoutSeconds=1", "/api/v1/namespaces/world/configmaps?watch=1&watch=0&timeoutSeconds=1", "/api/v1/namespaces/world/configmaps?%77atch=1&timeoutSeconds=1",
    "/api/v1/namespaces/world/configmaps?watch=False&resourceVersion=0", "/api/v1/namespaces/world/configmaps?watch=no&timeoutSeconds=1", "/api/v1/namespaces/world/configmaps?watch=%20&timeoutSeconds=1", "/api/v1/namespaces/world/configmaps?watch&timeoutSeconds=1", "/api/v1/namespaces/world/configmaps?Watch=1&resourceVersion=0", "/api/v1/namespaces/world/configmaps?watch%00=1&resourceVersion=0",
    "/api/v1/namespaces/world/configmaps?labelSelector=tier;x&resourceVersion=0", "/api/v1/namespaces/world/configmaps?resourceVersion=0;labelSelector=tier", "/api/v1/namespaces/world/configmaps?labelSelector=&labelSelector=tier&resourceVersion=0", "/api/v1/namespaces/world/configmaps?labelSelector=tier&labelSelector=&resourceVersion=0",
    "/api/v1/namespaces/world/configmaps?%6cabelSelector=tier&resourceVersion=0", "/api/v1/namespaces/world/configmaps?label+Selector=tier&resourceVersion=0", "/api/v1/namespaces/world/configmaps?labelselector=tier&resourceVersion=0", "/api/v1/namespaces/world/configmaps?labelSelector=tier%00&resourceVersion=0", "/api/v1/namespaces/world/configmaps?labelSelector=%ff&resourceVersion=0",
    "/api/v1/namespaces/world/configmaps?labelSelector=tier%3Dweb%2Cenv&resourceVersion=0", "/api/v1/namespaces/world/configmaps?labelSelector=tier=web,env&resourceVersion=0", "/api/v1/namespaces/world/configmaps?labelSelector=tier%253Dweb&resourceVersion=0", "/api/v1/namespaces/world/configmaps?labelSelector=tier%3Dweb%26limit%3D1&resourceVersion=0",
    "/api/v1/namespaces/world/configmaps?fieldSelector=metadata.name%3Dplain&fieldSelector=&resourceVersion=0", "/api/v1/namespaces/world/configmaps?fieldSelector=metadata.name%3Dplain,metadata.namespace%3Dother&resourceVersion=0", "/api/v1/namespaces/world/configmaps?fieldSelector=metadata.name%3Da%5C%2Cb&resourceVersion=0", "/api/v1/secrets?fieldSelector=metadata.namespace%3Dworld%00&resourceVersion=0",
    "/api/v1/namespaces/world/configmaps/plain?fieldSelector=metadata.name%3Dweb-prod&resourceVersion=0", "/api/v1/namespaces/world/configmaps/plain?watch=1&timeoutSeconds=1", "/api/v1/namespaces/world/configmaps/plain?labelSelector=tier&resourceVersion=0", "/api/v1/namespaces/world/configmaps?namespace=other&resourceVersion=0", "/api/v1/namespaces/world/configmaps?name=plain&resourceVersion=0",
    "/api/v1/namespaces/world/configmaps?resourceVersion=0&resourceVersion=x", "/api/v1/namespaces/world/configmaps?resourceVersion=00", "/api/v1/namespaces/world/configmaps?resourceVersion=%30", "/api/v1/namespaces/world/configmaps?resourceVersion=+0", "/api/v1/namespaces/world/configmaps?resourceVersion=-1", "/api/v1/namespaces/world/configmaps?resourceVersion=0x0", "/api/v1/namespaces/world/configmaps?resourceVersion=18446744073709551616",
    "/api/v1/namespaces/world/configmaps?limit=1&limit=2", "/api/v1/namespaces/world/configmaps?limit=+1&resourceVersion=0", "/api/v1/namespaces/world/configmaps?limit=%2B1&resourceVersion=0", "/api/v1/namespaces/world/configmaps?limit=1e0&resourceVersion=0", "/api/v1/namespaces/world/configmaps?limit=99999999999999999999&resourceVersion=0", "/api/v1/namespaces/world/configmaps?timeoutSeconds=x&watch=1",
    "/api/v1/namespaces/world/configmaps?", "/api/v1/namespaces/world/configmaps?&&resourceVersion=0&&", "/api/v1/namespaces/world/configmaps?=1&resourceVersion=0", "/api/v1/namespaces/world/configmaps?a=%zz&resourceVersion=0", "/api/v1/namespaces/world/configmaps/%zz", "/api/v1/namespaces/world/configmaps?%=1",
    "/api/v1/namespaces/world/configmaps?pretty=%0d%0ainjected:1&resourceVersion=0", "/api/v1/namespaces/world/configmaps?continue=%00", "/api/v1/namespaces/world/configmaps?dryRun=All&resourceVersion=0",
];

#[rustfmt::skip]
const HEADERS: &[&str] = &[
    "X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE", "X-Original-URL: /api/v1/namespaces/world/secrets", "X-Rewrite-URL: /api/v1/namespaces/world/secrets", "X-Forwarded-Prefix: /api/v1/namespaces/other", "X-Forwarded-Host: elsewhere", "X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1",
    "X-Remote-User: nobody", "X-Remote-Group: system:masters", "X-Remote-Extra-Scopes: none", "X-Remote-Uid: 0", "User-Agent: kubelet/v1.34.4", "User-Agent: ../../../../etc/passwd", "Impersonate-User: nobody", "Impersonate-User: nobody\r\nImpersonate-Group: system:masters", "Impersonate-Group: system:masters", "Impersonate-Uid: 0", "impersonate-extra-x: y",
    "Connection: authorization", "Connection: impersonate-user\r\nImpersonate-User: nobody", "Connection: close, Impersonate-Group\r\nImpersonate-User: nobody\r\nImpersonate-Group: system:masters", "Connection: host", "Connection: accept", "Connection: te, x-remote-user\r\nX-Remote-User: nobody", "Host: elsewhere", "Host: elsewhere\r\nHost: third", "Host:", "Transfer-Encoding: chunked", "Content-Length: 0", "Expect: 100-continue", "Range: bytes=0-1", "If-None-Match: *", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    "Authorization: Bearer garbage", "Cookie: a=b", "Accept: text/html", "Accept: */*;q=0", "Accept: application/json;as=Table;g=meta.k8s.io;v=v1", "Accept-Encoding: gzip;q=0", "Accept-Encoding: br", "Content-Type: application/apply-patch+yaml",
];

const METHODS: &[&str] = &["HEAD", "OPTIONS", "TRACE", "get", "Get", "FOO", "M-SEARCH"];

/// Straight and through the hub, whose mirrors hold what a wrong reading would show; then cut off.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn no_request_is_read_in_another_way_than_the_server_reads_it() {
    let site = Site::start_with(ClusterConfig::default()).await;
    world::make(&site.direct).await.unwrap();
    warm(&site).await;
    let (cloud, hub) = (site.cluster.endpoint(), site.endpoint());
    let asked: Vec<String> = questions();

    let mut online = Checks::new("tricks online");
    let mut truths = Vec::new();
    for question in &asked {
        let truth = ask(&cloud, question).await.unwrap();
        let answer = ask(&hub, question).await.unwrap();
        let holds = agree(&truth, &answer) || is_refused(&answer);
        online.that(question, holds, || both(&truth, &answer));
        truths.push(truth);
    }
    site.cut(Cut::Refuse, "/api/v1/namespaces/world/configmaps")
        .await;
    let mut offline = Checks::new("tricks offline");
    for (question, truth) in asked.iter().zip(&truths) {
        let answer = ask(&hub, question).await.unwrap();
        // Cut off it may know less, and says so; it never knows something else.
        let is_honest = matches!(code(&answer), 0 | 403 | 406 | 503) || is_refused(&answer);
        let is_old = agree(truth, &answer) || (code(&answer) == 404 && code(truth) == 404);
        offline.that(question, is_honest || is_old, || both(truth, &answer));
    }
    finish_all(vec![online, offline]);
}

/// Sizes that the server refuses are refused by the hub in the same words.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn a_body_too_long_is_refused_in_the_servers_words() {
    let site = Site::start().await;
    let mut checks = Checks::new("long bodies");
    for size in [3_145_729, 4 << 20] {
        let object = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"long"}},"data":{{"k":"{}"}}}}"#,
            "x".repeat(size)
        );
        let path = "/api/v1/namespaces/default/configmaps";
        let json = [("content-type", "application/json")];
        let post = async |client: &testbed::client::Client| {
            client
                .send(http::Method::POST, path, &json, &object)
                .await
                .unwrap()
        };
        let (truth, answer) = (post(&site.direct).await, post(&site.hub).await);
        checks.equal(
            &size.to_string(),
            (truth.code, truth.text()),
            (answer.code, answer.text()),
        );
    }
    checks.finish();
}

fn questions() -> Vec<String> {
    let map = "/api/v1/namespaces/world/configmaps/plain";
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\n");
    let targets = TARGETS.iter().map(|target| get(target));
    let headers = HEADERS.iter().flat_map(|header| {
        [map, "/api/v1/namespaces/world/configmaps?resourceVersion=0"]
            .map(|target| format!("{}{header}\r\n", get(target)))
    });
    let methods = METHODS
        .iter()
        .map(|method| format!("{method} {map} HTTP/1.1\r\n"));
    targets.chain(headers).chain(methods).collect()
}

/// Asks with the administrator's token unless the question says otherwise.
async fn ask(endpoint: &Endpoint, question: &str) -> Result<Option<Answer>, Error> {
    let lower = question.to_ascii_lowercase();
    let mut request = question.to_owned();
    if !lower.contains("\r\nhost:") {
        request.push_str("Host: server\r\n");
    }
    if !lower.contains("\r\nauthorization:") {
        let token = &endpoint.admin_token;
        request.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    if !lower.contains("\r\naccept:") {
        request.push_str("Accept: application/json\r\n");
    }
    request.push_str("Connection: close\r\n\r\n");
    if lower.contains("transfer-encoding") {
        request.push_str("0\r\n\r\n");
    }
    let said = raw::say(endpoint, None, request.as_bytes()).await?;
    Ok(raw::parse(&said).ok())
}

fn code(answer: &Option<Answer>) -> u16 {
    answer.as_ref().map_or(0, |answer| answer.code)
}

/// The hub may be stricter: it refuses, and nobody gets anything.
fn is_refused(answer: &Option<Answer>) -> bool {
    answer.as_ref().is_none_or(|answer| {
        let is_own = answer.header("x-yurt-served-from") != "cloud";
        is_own && matches!(answer.code, 400 | 405)
    })
}

fn agree(truth: &Option<Answer>, answer: &Option<Answer>) -> bool {
    code(truth) == code(answer) && (code(truth) != 200 || essence(truth) == essence(answer))
}

/// What is told: the kind and the names.
fn essence(answer: &Option<Answer>) -> BTreeSet<String> {
    let Some(answer) = answer else {
        return BTreeSet::new();
    };
    let mut told = BTreeSet::new();
    for line in answer.text().lines() {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        if value["type"] == "BOOKMARK" {
            continue;
        }
        let object = value.get("object").unwrap_or(&value);
        told.insert(format!("{} {}", value["type"], object["kind"]));
        let items = object["items"].as_array().or(object["rows"].as_array());
        for item in items.into_iter().flatten().chain([object]) {
            let metadata = match item["object"]["metadata"] {
                Value::Null => &item["metadata"],
                _ => &item["object"]["metadata"],
            };
            told.insert(format!("{}/{}", metadata["namespace"], metadata["name"]));
        }
    }
    told
}

fn both(truth: &Option<Answer>, answer: &Option<Answer>) -> String {
    let tell = |answer: &Option<Answer>| {
        let text = answer.as_ref().map_or_else(String::new, Answer::text);
        format!("{} {}", code(answer), cut(&text))
    };
    format!("server {}\n         hub    {}", tell(truth), tell(answer))
}
