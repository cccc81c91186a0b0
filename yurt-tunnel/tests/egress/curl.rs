//! curl, as the people use it who try a door.

use std::process::Output;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::bed::{Bed, soon, write};
use super::targets::Target;

/// Runs curl through the CONNECT door as a user; `None` where there is no curl.
async fn curl(bed: &Bed, user: &str, url: &str) -> Option<Output> {
    curl_with(bed, user, &["--proxytunnel", url]).await
}

async fn curl_with(bed: &Bed, user: &str, arguments: &[&str]) -> Option<Output> {
    let (certificate, key) = bed.pki.client(user, &[]);
    let file = |name: &str, text: &str| write(bed.folder.path(), name, text);
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--fail", "--max-time", "15"])
        .arg("--proxy")
        .arg(format!("https://localhost:{}", bed.connect.port()))
        .arg("--proxy-cacert")
        .arg(file("curl-ca.crt", bed.pki.ca_pem()))
        .arg("--proxy-cert")
        .arg(file("curl.crt", &certificate))
        .arg("--proxy-key")
        .arg(file("curl.key", &key))
        .args(["--noproxy", "", "--resolve"])
        .arg(format!("localhost:{}:127.0.0.1", bed.connect.port()))
        .args(arguments)
        .kill_on_drop(true);
    match soon(command.output()).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        ended => Some(ended.unwrap()),
    }
}

async fn kubelet() -> Target {
    Target::serving(async |mut stream: TcpStream| {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await?);
        }
        let body = "kubelet_running_pods 7\n";
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await
    })
    .await
}

#[tokio::test]
async fn curl_reads_a_nodes_metrics_through_the_door() {
    let bed = Bed::open();
    bed.lead("edge-1", kubelet().await);
    let Some(ended) = curl(&bed, "prometheus", "http://edge-1:10250/metrics").await else {
        return skipped();
    };
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{told}");
    assert_eq!(ended.stdout, b"kubelet_running_pods 7\n");
}

#[tokio::test]
async fn curl_reads_metrics_without_tls_as_of_any_proxy() {
    let bed = Bed::open();
    bed.lead("edge-1", kubelet().await);
    let twice = ["http://edge-1:9100/metrics", "http://edge-1:9100/metrics"];
    let Some(ended) = curl_with(&bed, "prometheus", &twice).await else {
        return skipped();
    };
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{told}");
    let pods = "kubelet_running_pods 7\n";
    assert_eq!(ended.stdout, [pods, pods].concat().as_bytes());
}

#[tokio::test]
async fn curl_tells_why_there_is_no_tunnel() {
    let bed = Bed::open();
    for (user, code) in [("prometheus", 502), ("somebody", 403)] {
        let Some(ended) = curl(&bed, user, "http://edge-9:10250/metrics").await else {
            return skipped();
        };
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success());
        assert!(told.contains(&code.to_string()), "{told}");
    }
}

#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
fn skipped() {
    eprintln!("skipped: there is no curl");
}
