//! The quickstart from outside: what it says, what it leaves, and that it tells the truth.
#![expect(clippy::unwrap_used, reason = "what cannot be had here fails the test")]

use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::api::{ApiConfig, ApiServer, Authorizer};
use testbed::client::Client;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

/// The story takes 15 s when nobody else needs the processor.
const PATIENCE: Duration = Duration::from_secs(150);

fn quickstart(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    command
        .args(arguments)
        .current_dir(folder)
        // Everything temporary lands where it can be looked for.
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn run(folder: &Path, arguments: &[&str]) -> Output {
    let output = quickstart(folder, arguments).output();
    timeout(PATIENCE, output).await.unwrap().unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The promises with this outcome.
fn promises<'a>(report: &'a Value, outcome: &str) -> Vec<&'a str> {
    let promises = report["promises"].as_array().unwrap();
    let of = promises
        .iter()
        .filter(|promise| promise["outcome"] == outcome);
    of.map(|promise| promise["promise"].as_str().unwrap())
        .collect()
}

fn left_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's file need not survive a crash"
)]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

/// A kubeconfig with a token for a server of ours.
fn kubeconfig(folder: &Path, url: &str, ca_pem: &str, token: &str) {
    write(&folder.join("ca.pem"), ca_pem);
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": url, "certificate-authority": "ca.pem"}}],
        "users": [{"name": "it", "user": {"token": token}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    });
    write(&folder.join("kubeconfig"), &config.to_string());
}

/// Starts a cluster with a kubeconfig for it.
async fn cluster(folder: &Path, config: ApiConfig) -> Arc<ApiServer> {
    let server = ApiServer::start(config).await.unwrap();
    let endpoint = server.endpoint();
    kubeconfig(
        folder,
        &endpoint.url,
        &endpoint.ca_pem,
        &endpoint.admin_token,
    );
    Arc::new(server)
}

/// Checks that a cluster has nothing of the quickstart but a namespace that is going.
async fn assert_clean(server: &ApiServer) {
    let client = Client::new(&server.endpoint()).unwrap();
    let namespaces = client.get("/api/v1/namespaces").await.unwrap().json();
    let items = namespaces["items"].as_array().unwrap();
    let ours: Vec<&Value> = items
        .iter()
        .filter(|item| {
            item["metadata"]["name"]
                .as_str()
                .unwrap()
                .starts_with("yurt-quickstart-")
        })
        .collect();
    assert_eq!(ours.len(), 1);
    assert_eq!(ours[0]["status"]["phase"], "Terminating");
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definitions = client.get(path).await.unwrap().json();
    assert_eq!(definitions["items"], json!([]));
}

#[tokio::test]
async fn every_promise_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["--json", "report.json"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("All 11 promises kept"), "{text}");
    assert!(text.contains("NAME      HONK      AGE"), "{text}");
    assert!(!text.contains('\x1b'), "colour without a terminal");
    assert!(
        text.lines().all(|line| line.chars().count() <= 90),
        "{text}"
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    let report = read(&folder.path().join("report.json"));
    assert_eq!(report["isKept"], true);
    assert_eq!(promises(&report, "kept").len(), 11);
    assert_eq!(report["steps"].as_array().unwrap().len(), 6);
    let facts = report["steps"][1]["facts"].as_array().unwrap();
    assert!(
        facts[0]["linkBytes"].as_u64().unwrap() > 100_000,
        "{facts:?}"
    );
    assert!(facts[0]["millis"].as_f64().unwrap() > 0.0);
    assert_eq!(left_in(folder.path()), ["report.json"]);
}

/// A server that remembers two changes cannot tell what happened in a cut of three.
#[tokio::test]
async fn a_promise_that_is_broken_is_named_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let config = ApiConfig {
        history: 2,
        ..ApiConfig::default()
    };
    let server = cluster(folder.path(), config).await;
    let arguments = ["--kubeconfig", "kubeconfig", "--json", "report.json"];
    let output = run(folder.path(), &arguments).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let report = read(&folder.path().join("report.json"));
    assert_eq!(
        promises(&report, "broken"),
        ["and costs the difference, not a list"],
        "{text}"
    );
    assert_eq!(promises(&report, "kept").len(), 10);
    assert!(
        text.contains(" ✗ and costs the difference, not a list"),
        "{text}"
    );
    assert!(text.contains("1 of 11 promises broken, in"), "{text}");
    assert_clean(&server).await;
}

#[tokio::test]
async fn a_story_that_cannot_go_on_fails_and_cleans_up() {
    let folder = tempfile::tempdir().unwrap();
    let config = ApiConfig {
        authorizer: Authorizer::new(|_, wanted| wanted.verb != "list"),
        ..ApiConfig::default()
    };
    let server = cluster(folder.path(), config).await;
    let arguments = ["--kubeconfig", "kubeconfig", "--json", "report.json"];
    let output = run(folder.path(), &arguments).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let report = read(&folder.path().join("report.json"));
    assert_eq!(
        promises(&report, "broken"),
        ["the hub answers what the cloud would"]
    );
    assert_eq!(promises(&report, "untried").len(), 10);
    assert!(
        text.contains("1 of 11 promises broken, 10 not tried"),
        "{text}"
    );
    assert!(
        text.contains("list the ConfigMaps: the hub says 403"),
        "{text}"
    );
    assert_clean(&server).await;
    assert_eq!(
        left_in(folder.path()),
        ["ca.pem", "kubeconfig", "report.json"]
    );
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = ApiServer::start(ApiConfig::default()).await.unwrap();
    let endpoint = server.endpoint();
    server.stop().await;
    kubeconfig(folder.path(), &endpoint.url, &endpoint.ca_pem, "token");
    let output = run(folder.path(), &["--kubeconfig", "kubeconfig"]).await;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = format!("quickstart: reach {}: connect to ", endpoint.url);
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[tokio::test]
async fn an_interruption_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = cluster(folder.path(), ApiConfig::default()).await;
    let mut child = quickstart(folder.path(), &["--kubeconfig", "kubeconfig"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut hub = None;
    while let Some(line) = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap() {
        let id = line.trim().strip_prefix("pid ").map(str::to_owned);
        hub = hub.or(id.and_then(|rest| rest.split(',').next().map(str::to_owned)));
        if line.starts_with("3 ") {
            break;
        }
    }
    let id = child.id().unwrap().to_string();
    let sent = Command::new("kill")
        .args(["-INT", &id])
        .status()
        .await
        .unwrap();
    assert!(sent.success());
    let ended = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(1));
    let mut last = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        last = line;
    }
    assert!(last.starts_with("Ended early after"), "{last}");
    assert!(
        !Path::new("/proc").join(hub.unwrap()).exists(),
        "the hub is still there"
    );
    assert_clean(&server).await;
    assert_eq!(left_in(folder.path()), ["ca.pem", "kubeconfig"]);
}

#[tokio::test]
async fn wrong_flags_are_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let table: [(&[&str], &str); 5] = [
        (
            &["--kubeconfg", "a"],
            "quickstart: unexpected argument '--kubeconfg' found (--help explains)\n",
        ),
        (
            &["--json"],
            "quickstart: a value is required for '--json <FILE>' but none was supplied (--help explains)\n",
        ),
        (
            &["--json", "no/where"],
            "quickstart: --json: create no/where: No such file or directory (os error 2)\n",
        ),
        (
            &["--kubeconfig", "none"],
            "quickstart: --kubeconfig: read none: No such file or directory (os error 2)\n",
        ),
        (
            &["now"],
            "quickstart: unexpected argument 'now' found (--help explains)\n",
        ),
    ];
    for (arguments, expected) in table {
        let output = run(folder.path(), arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    }
}

#[tokio::test]
async fn help_explains_what_the_readme_does() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["--help"]).await;
    assert!(output.status.success());
    let help = String::from_utf8_lossy(&output.stdout);
    for flag in ["--json <FILE>", "--kubeconfig <FILE>"] {
        assert!(help.contains(flag), "{help}");
        let name = flag.split(' ').next().unwrap();
        assert!(include_str!("../README.md").contains(name));
    }
    assert!(!help.contains("--be-the-hub"), "{help}");
}
