//! kubectl through the hub, unchanged.

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use std::process::Stdio;

use testbed::{cluster::Kubectl, link::Cut};

use crate::{
    checks::{Checks, cut, finish_all},
    reading::warm,
    site::{PATIENCE, Site},
    world,
};

/// What the hub warns of when it answers by itself.
const AGED: &str = "Warning: the cloud is not reachable: this is what the node knew ";

/// What prints the same by anybody's hand; ages are left out.
#[rustfmt::skip]
const SAME: &[&[&str]] = &[
    &["get", "configmaps", "-n", "world", "-o", "name"], &["get", "cm", "-A", "-o", "name"], &["get", "cm", "-n", "world", "-l", "tier in (web,db)", "-o", "name"],
    &["get", "pods", "-A", "--field-selector", "spec.nodeName=edge-1", "-o", "name"], &["get", "pods", "-n", "world", "-o", "jsonpath={.items[*].status.phase}"],
    &["get", "cacti", "-A", "-o", "name"], &["get", "cc", "-n", "world", "saguaro", "-o", "yaml"], &["get", "cactus", "odd", "-n", "world", "-o", "json"],
    &["get", "cacti", "-A", "--field-selector", "spec.colour=green", "-o", "name"], &["get", "cacti", "-n", "world", "-o", "custom-columns=N:.metadata.name,C:.spec.colour"],
    &["get", "secret", "opaque", "-n", "world", "-o", "jsonpath={.data.password}"], &["get", "nodes", "-o", "name"], &["get", "deploy,svc,endpointslices", "-n", "world", "-o", "name"],
    &["get", "clusterrole", "world:reader:all", "-o", "yaml"], &["get", "ns", "world", "-o", "yaml"], &["api-resources", "--no-headers"], &["api-versions"], &["version", "-o", "json"],
    &["get", "--raw", "/api/v1/namespaces/world/configmaps/plain"], &["get", "cm", "absent", "-n", "world"], &["get", "nonsense"],
];

/// What prints a table: names and a kind's own columns are the same.
#[rustfmt::skip]
const TABLES: &[&[&str]] = &[
    &["get", "cm", "-n", "world"], &["get", "pods", "-A"], &["get", "cacti", "-A"], &["get", "cc", "-n", "world", "-o", "wide"], &["get", "nodes"], &["get", "svc", "-n", "world"], &["get", "deploy", "-n", "world"], &["get", "crd"], &["get", "secrets", "-n", "world"],
];

/// kubectl sees the same cluster online, cut off, and after a power cut of the hub.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn kubectl_sees_the_cluster_online_and_cut_off() {
    let mut site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    warm(&site).await;
    let direct = site.cluster.kubectl();
    let mut truth = Vec::new();
    for arguments in SAME.iter().chain(TABLES) {
        truth.push(printed(direct, arguments).await);
    }
    let described = printed(direct, &["describe", "pod", "running", "-n", "world"]).await;
    let hub = site.kubectl();
    let mut groups = vec![compared("kubectl online", &hub, &truth, &described).await];
    site.cut(Cut::Refuse, "/api/v1/namespaces/world/configmaps")
        .await;
    groups.push(compared("kubectl cut off", &hub, &truth, &described).await);
    site.kill_hub();
    site.start_hub().await;
    // A kubectl that has never asked before.
    let fresh = site.kubectl();
    let mut checks = compared("kubectl restarted", &fresh, &truth, &described).await;
    let refused = fresh
        .run(&["create", "configmap", "phantom", "-n", "world"])
        .await
        .unwrap_err()
        .to_string();
    checks.that(
        "a write is refused",
        refused.contains("ServiceUnavailable") || refused.contains("not reachable"),
        || refused,
    );
    groups.push(checks);
    finish_all(groups);
}

/// `kubectl get -w` stays through a cut and prints what happened meanwhile.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn kubectl_keeps_watching_through_a_cut() {
    let site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    warm(&site).await;
    let kubectl = site.kubectl();
    let mut child = kubectl
        .command(&["get", "cm", "-n", "world", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut next = async || {
        timeout(PATIENCE, lines.next_line())
            .await
            .expect("a line in time")
            .unwrap()
    };
    let mut checks = Checks::new("kubectl get -w");
    for name in ["a.b-c.d", "db-prod", "plain", "web-prod", "web-test"] {
        checks.equal("the state", Some(format!("configmap/{name}")), next().await);
    }
    site.cut(Cut::Refuse, "/api/v1/namespaces/world/configmaps")
        .await;
    let patch = serde_json::json!({"data": {"k": "new"}});
    site.direct
        .patch("/api/v1/namespaces/world/configmaps/plain", "merge", &patch)
        .await
        .unwrap()
        .expect(200);
    site.direct
        .delete("/api/v1/namespaces/world/configmaps/web-test", None)
        .await
        .unwrap()
        .expect(200);
    world::post(
        &site.direct,
        "/api/v1/namespaces/world/configmaps",
        serde_json::json!({"metadata": {"name": "zz"}}),
    )
    .await
    .unwrap();
    site.link.mend().await.unwrap();
    for name in ["plain", "web-test", "zz"] {
        checks.equal(
            "the meantime",
            Some(format!("configmap/{name}")),
            next().await,
        );
    }
    child.kill().await.unwrap();
    checks.finish();
}

async fn compared(group: &'static str, hub: &Kubectl, truth: &[String], described: &str) -> Checks {
    let mut checks = Checks::new(group);
    let is_online = group.ends_with("online");
    for (arguments, truth) in SAME.iter().zip(truth) {
        let got = printed(hub, arguments).await;
        checks.that(&arguments.join(" "), same_lines(truth, &got), || {
            format!("expected {}\n         got {}", cut(truth), cut(&got))
        });
    }
    for (arguments, truth) in TABLES.iter().zip(&truth[SAME.len()..]) {
        let got = printed(hub, arguments).await;
        let is_custom =
            arguments[1].starts_with('c') && arguments[1] != "cm" && arguments[1] != "crd";
        let is_same = if is_online || is_custom {
            rows(truth) == rows(&got)
        } else {
            names(truth) == names(&got)
        };
        checks.that(&arguments.join(" "), is_same, || {
            format!("expected {}\n         got {}", cut(truth), cut(&got))
        });
    }
    let got = printed(hub, &["describe", "pod", "running", "-n", "world"]).await;
    checks.that("describe", rows(described) == rows(&got), || {
        format!("expected {described}\n         got {got}")
    });
    checks
}

/// What kubectl prints, whether it likes the answer or not.
async fn printed(kubectl: &Kubectl, arguments: &[&str]) -> String {
    let output = timeout(PATIENCE, kubectl.command(arguments).output()).await;
    let Ok(output) = output else {
        return "kubectl does not end".to_owned();
    };
    let output = output.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors = errors.lines().filter(|line| !line.contains(AGED));
    let errors: String = errors.map(|line| format!("{line}\n")).collect();
    format!("{}{errors}", String::from_utf8_lossy(&output.stdout))
}

/// Discovery prints groups in the server's order: none of kubectl's business is lost by sorting.
fn same_lines(truth: &str, got: &str) -> bool {
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    sorted(truth) == sorted(got)
}

/// The rows of a table without their ages, which come last or before a last column.
fn rows(text: &str) -> Vec<Vec<String>> {
    let is_age = |word: &str| {
        word.ends_with(['s', 'm', 'h'])
            && word
                .chars()
                .all(|c| c.is_ascii_digit() || "smh".contains(c))
    };
    text.lines()
        .map(|line| {
            line.split_whitespace()
                .filter(|word| !is_age(word))
                .map(str::to_owned)
                .collect()
        })
        .collect()
}

fn names(text: &str) -> Vec<String> {
    let has_namespace = text.starts_with("NAMESPACE");
    let name = |line: &str| {
        line.split_whitespace()
            .nth(usize::from(has_namespace))
            .unwrap_or_default()
            .to_owned()
    };
    text.lines().map(name).collect()
}
