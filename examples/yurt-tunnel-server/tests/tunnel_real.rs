//! kubectl and a real API server reach a real node that nobody can dial, through two servers.

#![expect(
    clippy::unwrap_used,
    reason = "what a test takes for granted fails the test"
)]

#[path = "tunnel_real/site.rs"]
mod site;

use std::process::Stdio;
use std::time::Duration;

use testbed::cluster::Version;
use testbed::node::eventually;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::{Instant, timeout};

use self::site::{PATIENCE, Site, Which};

/// Twice 64 MiB pass here in some seconds.
const COPIED: usize = 64 << 20;

/// Logs that are followed go on arriving.
async fn logs_follow(site: &Site) {
    let mut child = site
        .kubectl(&["logs", "-f", &site.pod])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(line.unwrap(), "started");
    // The container's first process prints what comes later, too.
    let say = "echo later > /proc/1/fd/1";
    site.run(&["exec", &site.pod, "--", "sh", "-c", say]).await;
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(line.unwrap(), "later");
    child.kill().await.unwrap();
}

/// What is piped in comes out, and the end of it ends the command.
async fn exec_with_stdin(site: &Site) {
    let arguments = ["exec", "-i", &site.pod, "--", "sh", "-c", "cat; echo end"];
    let mut child = piped(site, &arguments);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"typed\n").await.unwrap();
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "typed\nend\n");
    assert!(output.status.success());
    let failed = site
        .kubectl(&["exec", &site.pod, "--", "sh", "-c", "exit 7"])
        .output();
    let failed = timeout(PATIENCE, failed).await.unwrap().unwrap();
    assert_eq!(failed.status.code(), Some(7), "the exit code comes back");
}

fn piped(site: &Site, arguments: &[&str]) -> Child {
    let mut command = site.kubectl(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// What was copied there and back is what it was.
#[expect(clippy::disallowed_methods, reason = "a test sets up its files")]
async fn copies(site: &Site) {
    let mut bytes = vec![0; COPIED];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    let (there, back) = (
        site.folder.path().join("there"),
        site.folder.path().join("back"),
    );
    std::fs::write(&there, &bytes).unwrap();
    let inside = format!("{}:/tmp/copied", site.pod);
    site.run(&["cp", there.to_str().unwrap(), &inside]).await;
    let sum = site
        .run(&["exec", &site.pod, "--", "sha256sum", "/tmp/copied"])
        .await;
    let own = std::process::Command::new("sha256sum")
        .arg(&there)
        .output()
        .unwrap();
    let own = String::from_utf8(own.stdout).unwrap();
    assert_eq!(sum.split(' ').next(), own.split(' ').next(), "there");
    site.run(&["cp", &inside, back.to_str().unwrap()]).await;
    assert!(std::fs::read(&back).unwrap() == bytes, "and back");
}

/// A port of the pod is here.
async fn port_forward(site: &Site) {
    let mut command = site.kubectl(&["port-forward", &site.pod, ":8080"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let port = line
        .split("127.0.0.1:")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port.parse().unwrap()))
            .await
            .unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.starts_with("HTTP/1."), "{answer}");
    }
    child.kill().await.unwrap();
}

/// Who attaches sees what the container prints from then on.
async fn attach(site: &Site) {
    let mut command = site.kubectl(&["attach", &site.pod]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let say = [
        "exec",
        &site.pod,
        "--",
        "sh",
        "-c",
        "echo attached > /proc/1/fd/1",
    ];
    // It is told only what is printed after it has attached.
    let until = Instant::now() + PATIENCE;
    let seen = loop {
        assert!(Instant::now() < until, "nothing is seen");
        site.run(&say).await;
        if let Ok(line) = timeout(Duration::from_millis(500), lines.next_line()).await {
            break line.unwrap().unwrap();
        }
    };
    assert_eq!(seen, "attached");
    child.kill().await.unwrap();
}

async fn everything(site: &Site) {
    logs_follow(site).await;
    exec_with_stdin(site).await;
    copies(site).await;
    port_forward(site).await;
    attach(site).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn kubectl_reaches_a_node_that_nobody_can_dial() {
    let site = Site::start(Version::Oldest, "auto", &[Which::First, Which::Second]).await;
    everything(&site).await;
    let check = site.check().await;
    assert!(check.contains("[+] TLS works"), "{check}");
    assert!(!check.contains("[-]"), "{check}");
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn kubectl_reaches_it_by_http_2_as_well() {
    let site = Site::start(Version::Newest, "h2", &[Which::First, Which::Second]).await;
    everything(&site).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_server_without_the_link_asks_the_one_that_has_it_and_goes_on_when_that_is_killed() {
    let mut site = Site::start(Version::Newest, "auto", &[Which::Second]).await;
    // kube-apiserver asks the first, the agent is linked to the second only.
    logs_follow(&site).await;
    exec_with_stdin(&site).await;
    // The agent has heard of both from the second by now; what it has lost it replaces.
    eventually("a link to the first server", PATIENCE, async || {
        let check = site.check().await;
        check
            .contains("the agent is connected from")
            .then_some(())
            .ok_or(check)
    })
    .await
    .unwrap();
    site.kill(Which::Second);
    let began = Instant::now();
    exec_with_stdin(&site).await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    // The first is killed too, and both come back: the agent finds them again.
    site.kill(Which::First);
    site.start_server(Which::First).await;
    eventually("an answer after a restart", PATIENCE, async || {
        let logs = site.kubectl(&["logs", &site.pod]).output().await.unwrap();
        logs.status
            .success()
            .then_some(())
            .ok_or(String::from_utf8_lossy(&logs.stderr).into_owned())
    })
    .await
    .unwrap();
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn top_shows_what_metrics_server_has_scraped_through_the_connect_door() {
    let mut site = Site::start(Version::Newest, "auto", &[Which::First, Which::Second]).await;
    site.start_metrics_server().await;
    let top = eventually("figures of the node", PATIENCE, async || {
        let top = site
            .kubectl(&["top", "node", "--no-headers"])
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&top.stdout).into_owned();
        if top.status.success() && said.starts_with("edge-1") {
            return Ok(said);
        }
        Err(format!("{said}{}", String::from_utf8_lossy(&top.stderr)))
    });
    let top = top.await.unwrap();
    assert!(!top.contains("<unknown>"), "{top}");
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn an_agent_that_was_stopped_for_a_while_loses_nothing() {
    let site = Site::start(Version::Newest, "auto", &[Which::First]).await;
    let arguments = ["exec", "-i", &site.pod, "--", "sh", "-c", "cat; echo end"];
    let mut child = piped(&site, &arguments);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"before\n").await.unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, out.next_line()).await.unwrap().unwrap();
    assert_eq!(line.unwrap(), "before");
    site.freeze_agent();
    tokio::time::sleep(Duration::from_secs(5)).await;
    stdin.write_all(b"during\n").await.unwrap();
    site.thaw_agent();
    let line = timeout(PATIENCE, out.next_line()).await.unwrap().unwrap();
    assert_eq!(line.unwrap(), "during");
    drop(stdin);
    let line = timeout(PATIENCE, out.next_line()).await.unwrap().unwrap();
    assert_eq!(line.unwrap(), "end");
}
