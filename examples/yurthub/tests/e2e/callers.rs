//! Who may see what: the hub shows nobody more than the server does, whatever others have read through it.

use serde_json::json;
use testbed::{
    client::{Answer, Client},
    link::Cut,
};

use crate::{
    checks::{Checks, cut, difference, finish_all, same},
    hub::NODE,
    reading::warm,
    rows::{METADATA_LIST, TABLE},
    site::Site,
    world,
};

const JSON: &str = "application/json";
const NOT_A_TOKEN: &str = "garbage";

/// What the server tells everybody.
const PUBLIC: [&str; 2] = ["/version", "/healthz"];

#[rustfmt::skip]
const QUESTIONS: &[(&str, &str)] = &[
    (JSON, "/api/v1/namespaces/world/configmaps"), (JSON, "/api/v1/namespaces/world/configmaps?resourceVersion=0"),
    (JSON, "/api/v1/namespaces/world/configmaps/plain"), (JSON, "/api/v1/namespaces/world/configmaps/plain?resourceVersion=0"),
    (JSON, "/api/v1/namespaces/world/configmaps/absent"), (TABLE, "/api/v1/namespaces/world/configmaps"),
    (METADATA_LIST, "/api/v1/namespaces/world/configmaps?resourceVersion=0"), (JSON, "/api/v1/namespaces/world/configmaps?labelSelector=tier"),
    (JSON, "/api/v1/namespaces/world/configmaps?watch=1&timeoutSeconds=1&resourceVersion=0&labelSelector=size"),
    (JSON, "/api/v1/configmaps"), (JSON, "/api/v1/configmaps?resourceVersion=0"), (JSON, "/api/v1/configmaps?watch=1&timeoutSeconds=1&resourceVersion=0"),
    (JSON, "/api/v1/configmaps?fieldSelector=metadata.namespace%3Dworld"), (JSON, "/api/v1/namespaces/other/configmaps?resourceVersion=0"),
    (JSON, "/api/v1/namespaces/other/configmaps/lonely"), (JSON, "/api/v1/namespaces/other/configmaps/lonely?resourceVersion=0"), (JSON, "/api/v1/namespaces/other/configmaps/absent"),
    (JSON, "/api/v1/namespaces/world/secrets"), (JSON, "/api/v1/namespaces/world/secrets?resourceVersion=0"), (JSON, "/api/v1/namespaces/world/secrets/opaque"),
    (JSON, "/api/v1/namespaces/world/secrets/opaque?resourceVersion=0"), (JSON, "/api/v1/namespaces/world/secrets/absent"), (JSON, "/api/v1/namespaces/world/secrets/theirs"),
    (JSON, "/api/v1/namespaces/other/secrets/theirs"), (JSON, "/api/v1/secrets?resourceVersion=0"), (JSON, "/api/v1/secrets?watch=1&timeoutSeconds=1&resourceVersion=0"),
    (TABLE, "/api/v1/namespaces/world/secrets"), (METADATA_LIST, "/api/v1/namespaces/world/secrets?resourceVersion=0"),
    (JSON, "/api/v1/namespaces/world/secrets?fieldSelector=metadata.name%3Dopaque&resourceVersion=0"),
    (JSON, "/api/v1/namespaces/world/secrets?fieldSelector=metadata.name%3Dbasic&resourceVersion=0"),
    (JSON, "/api/v1/namespaces/world/secrets?watch=1&timeoutSeconds=1&resourceVersion=0"),
    (JSON, "/api/v1/nodes?resourceVersion=0"), (JSON, "/api/v1/nodes/edge-1?resourceVersion=0"), (JSON, "/api/v1/nodes/edge-2?resourceVersion=0"), (JSON, "/api/v1/nodes?fieldSelector=metadata.name%3Dedge-1&resourceVersion=0"),
    (JSON, "/api/v1/pods?resourceVersion=0"), (JSON, "/api/v1/pods?fieldSelector=spec.nodeName%3Dedge-1&resourceVersion=0"), (JSON, "/api/v1/pods?fieldSelector=spec.nodeName%3Dedge-2&resourceVersion=0"),
    (JSON, "/api/v1/pods?fieldSelector=spec.nodeName%3Dedge-1"), (JSON, "/api/v1/namespaces/world/pods/running"), (JSON, "/api/v1/namespaces/world/pods/elsewhere"), (JSON, "/api/v1/namespaces/world/pods/elsewhere?resourceVersion=0"),
    (JSON, "/api/v1/namespaces/world/pods/running/status"), (JSON, "/api/v1/services?resourceVersion=0"), (JSON, "/apis/apps/v1/namespaces/world/deployments?resourceVersion=0"),
    (JSON, "/apis/desert.example.com/v1/cacti?resourceVersion=0"), (JSON, "/apis/rbac.authorization.k8s.io/v1/clusterroles?resourceVersion=0"), (JSON, "/apis/coordination.k8s.io/v1/namespaces/world/leases?resourceVersion=0"),
    (JSON, "/apis/nonsense.example.com/v1/things"), (JSON, "/api/v1/nonsense"), (JSON, "/api"), (JSON, "/apis"), (JSON, "/version"), (JSON, "/openapi/v2"), (JSON, "/metrics"), (JSON, "/api/v1"), (JSON, "/healthz"),
    (JSON, "/api/v1/namespaces/world/../other/configmaps"), (JSON, "/api/v1/namespaces/world/configmaps/../secrets"), (JSON, "/api/v1/namespaces/world/configmaps/..%2fsecrets%2fopaque"), (JSON, "/api/v1/namespaces/world%2f..%2fother/secrets?resourceVersion=0"),
];

/// Somebody who asks, straight and through the hub.
struct Caller {
    who: &'static str,
    direct: Client,
    hub: Client,
    /// Whether the hub can forward as this caller.
    is_forwarded: bool,
}

/// What the administrator has read through the hub is there; nobody else sees more of it than the server shows.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn nobody_sees_more_through_the_hub() {
    let mut site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    warm(&site).await;
    for (_, path) in QUESTIONS {
        site.hub.get(path).await.unwrap();
    }
    let token = token(&site.direct).await;
    let mut callers = vec![
        caller("reader", holder(&site, &token), true),
        caller("garbage", holder(&site, NOT_A_TOKEN), true),
        caller("nobody", nobody(&site), true),
        caller(
            "node",
            certified(&site, &format!("system:node:{NODE}"), &["system:nodes"]),
            true,
        ),
        caller(
            "other node",
            certified(&site, "system:node:edge-2", &["system:nodes"]),
            false,
        ),
        caller(
            "administrator's certificate",
            certified(&site, "admin", &["system:masters"]),
            false,
        ),
    ];
    let mut groups = Vec::new();
    let mut truths = Vec::new();
    for caller in &callers {
        let mut checks = Checks::new(named("online", caller.who));
        let mut truth = Vec::new();
        for (accept, path) in QUESTIONS {
            let direct = ask(&caller.direct, accept, path).await;
            let got = ask(&caller.hub, accept, path).await;
            checks.check(
                &called(accept, path),
                if caller.is_forwarded || PUBLIC.contains(path) {
                    as_the_server(caller.who, &direct, &got)
                } else {
                    shut(&got)
                },
            );
            truth.push(direct);
        }
        groups.push(checks);
        truths.push(truth);
    }
    site.cut(Cut::Refuse, "/api/v1/namespaces/world/configmaps")
        .await;
    for round in ["cut off", "restarted"] {
        if round == "restarted" {
            site.kill_hub();
            site.start_hub().await;
            for caller in &mut callers {
                caller.hub = match caller.who {
                    "reader" => holder(&site, &token).1,
                    "garbage" => holder(&site, NOT_A_TOKEN).1,
                    "nobody" => nobody(&site).1,
                    "node" => certified(&site, &format!("system:node:{NODE}"), &["system:nodes"]).1,
                    "other node" => certified(&site, "system:node:edge-2", &["system:nodes"]).1,
                    _ => certified(&site, "admin", &["system:masters"]).1,
                };
            }
        }
        for (caller, truth) in callers.iter().zip(&truths) {
            let mut checks = Checks::new(named(round, caller.who));
            for ((accept, path), truth) in QUESTIONS.iter().zip(truth) {
                let got = ask(&caller.hub, accept, path).await;
                checks.check(
                    &called(accept, path),
                    if caller.is_forwarded || PUBLIC.contains(path) {
                        no_more(caller.who, path, truth, &got)
                    } else {
                        shut(&got)
                    },
                );
            }
            groups.push(checks);
        }
    }
    // Who was never seen is not known, whatever the token is.
    let mut checks = Checks::new("strangers cut off");
    let stranger = holder(&site, "never-seen").1;
    for (accept, path) in QUESTIONS {
        checks.check(
            &called(accept, path),
            shut(&ask(&stranger, accept, path).await),
        );
    }
    groups.push(checks);
    finish_all(groups);
}

fn named(round: &str, who: &str) -> &'static str {
    format!("{who} {round}").leak()
}

fn caller(who: &'static str, (direct, hub): (Client, Client), is_forwarded: bool) -> Caller {
    Caller {
        who,
        direct,
        hub,
        is_forwarded,
    }
}

fn called(accept: &str, path: &str) -> String {
    match accept {
        JSON => path.to_owned(),
        TABLE => format!("{path} as Table"),
        _ => format!("{path} as metadata"),
    }
}

async fn token(client: &Client) -> String {
    let path = "/api/v1/namespaces/world/serviceaccounts/reader/token";
    let request = json!({"spec": {"audiences": [], "expirationSeconds": 3600}});
    let answer = client.post(path, &request).await.unwrap().expect(201);
    answer["status"]["token"].as_str().unwrap().to_owned()
}

async fn ask(client: &Client, accept: &str, path: &str) -> Answer {
    client
        .get_as(path, accept)
        .await
        .unwrap_or_else(|error| Answer {
            code: 0,
            headers: http::HeaderMap::new(),
            body: format!("{error:?}").into(),
        })
}

/// The server's own answer; who has not said who they are may be told so instead of being refused.
fn as_the_server(who: &str, truth: &Answer, got: &Answer) -> Result<(), String> {
    if who == "nobody" && got.code == 401 {
        return shut(got);
    }
    if truth.code == 200
        && got.header("content-type") == truth.header("content-type")
        && truth.text().contains("\"type\":\"")
    {
        // Watches begin in any order.
        let lines = |answer: &Answer| {
            let mut lines: Vec<String> = answer.text().lines().map(str::to_owned).collect();
            lines.sort();
            lines.len()
        };
        return if lines(truth) == lines(got) {
            Ok(())
        } else {
            Err(format!(
                "expected {} events, got {}",
                lines(truth),
                lines(got)
            ))
        };
    }
    if truth.code == 403 && got.code == 403 && truth.header("content-type") == "application/json" {
        // The hub does not know why, nor a token's name.
        let (truth, got) = (truth.json(), got.json());
        return difference(&truth["details"], &got["details"], ".details").map_or(Ok(()), Err);
    }
    same(truth, got)
}

/// Cut off: what the server showed, or a refusal; what the server did not show is not shown.
fn no_more(who: &str, path: &str, truth: &Answer, got: &Answer) -> Result<(), String> {
    if got.code != 200 {
        let is_status =
            got.json()["kind"] == "Status" || !got.header("content-type").contains("json");
        return if !is_status {
            Err(format!("no Status: {} {}", got.code, cut(&got.text())))
        } else if truth.code == 200
            && who == "reader"
            && path.contains("world/configmaps")
            && !path.contains("..")
        {
            Err(format!(
                "{} for what was shown before: {}",
                got.code,
                cut(&got.text())
            ))
        } else {
            Ok(())
        };
    }
    if truth.code != 200 {
        return Err(format!(
            "the server said {}, the hub shows {}",
            truth.code,
            cut(&got.text())
        ));
    }
    as_the_server(who, truth, got)
}

/// Nothing is shown: a Status, or no connection at all.
fn shut(got: &Answer) -> Result<(), String> {
    match got.code {
        0 => Ok(()),
        401 | 403 | 503 if got.json()["kind"] == "Status" => Ok(()),
        code => Err(format!(
            "expected a refusal, got {code}: {}",
            cut(&got.text())
        )),
    }
}

/// The holder of a token, straight and at the hub.
fn holder(site: &Site, token: &str) -> (Client, Client) {
    site.both(|endpoint| Client::with_token(endpoint, token).unwrap())
}

/// The holder of a certificate.
fn certified(site: &Site, user: &str, groups: &[&str]) -> (Client, Client) {
    let (certificate, key) = site.cluster.pki().client(user, groups);
    site.both(|endpoint| Client::with_certificate(endpoint, &certificate, &key).unwrap())
}

/// Somebody who says nothing about themselves.
fn nobody(site: &Site) -> (Client, Client) {
    site.both(|endpoint| Client::anonymous(endpoint).unwrap())
}
