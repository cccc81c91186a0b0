//! The end of a hub: in time, and nothing is left.

use std::time::Duration;

use testbed::api::ApiConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use yurt_cache::store::{LogConfig, LogStore};

use super::site::{Bed, SOON, Site};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The drain time of the tests' hubs and a little.
const IN_TIME: Duration = Duration::from_millis(3_500);

async fn exec(bed: &Bed) -> tokio_rustls::client::TlsStream<TcpStream> {
    let pod = serde_json::json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let path = "/api/v1/namespaces/default/pods";
    bed.cloud().post(path, &pod).await.unwrap().expect(201);
    let mut stream = bed.site.raw_node().await;
    let request = format!(
        "POST {path}/p/exec?command=cat&stdin=1 HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_ends_within_its_drain_time_and_leaves_nothing() {
    let mut bed = Bed::with(ApiConfig::default(), Site::on_disk).await;
    let (hub, admin) = (bed.site.hub(), bed.site.admin());
    let node = bed.site.node();
    let mut watch = node.watch(&format!("{MAPS}?watch=1")).await.unwrap();
    let mut log = exec(&bed).await;
    log.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    log.read_exact(&mut echoed).await.unwrap();
    // One that never finishes its handshake, and one that never finishes its request.
    let _handshake = TcpStream::connect(hub).await.unwrap();
    let mut half = bed.site.raw_node().await;
    half.write_all(b"GET /version HT").await.unwrap();
    let ended = bed.site.stop(IN_TIME).await.expect("in time");
    ended.unwrap();
    while watch.next(SOON).await.is_ok_and(|event| event.is_some()) {}
    drop(
        tokio::time::timeout(SOON, log.read(&mut [0; 1]))
            .await
            .expect("the stream ends"),
    );
    for addr in [hub, admin] {
        TcpStream::connect(addr).await.unwrap_err();
    }
    LogStore::open(bed.site.log_dir(), LogConfig::default()).expect("the store is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_without_clients_ends_at_once() {
    let mut bed = Bed::start().await;
    let node = bed.site.node();
    let mut watch = node.watch(&format!("{MAPS}?watch=1")).await.unwrap();
    let began = Instant::now();
    bed.site.stop(SOON).await.expect("in time").unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    while let Ok(Some(_)) = watch.next(SOON).await {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_is_dropped_ends_at_once_also_for_its_clients() {
    let mut bed = Bed::with(ApiConfig::default(), Site::on_disk).await;
    let node = bed.site.node();
    let mut watch = node.watch(&format!("{MAPS}?watch=1")).await.unwrap();
    let mut stream = exec(&bed).await;
    let hub = bed.site.hub();
    // Waits until the store is free, with the clients still there.
    bed.site.crash().await;
    TcpStream::connect(hub).await.unwrap_err();
    while let Ok(Some(_)) = watch.next(SOON).await {}
    drop(
        tokio::time::timeout(SOON, stream.read(&mut [0; 1]))
            .await
            .expect("the stream ends"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_under_way_is_answered_before_the_end() {
    let mut bed = Bed::start().await;
    let mut stream = bed.site.raw_node().await;
    let body = r#"{"metadata":{"name":"late"}}"#;
    let head = format!(
        "POST {MAPS} HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body.as_bytes()[..5]).await.unwrap();
    let before = bed.api.requests().len();
    super::site::eventually("the request is under way", async || {
        bed.api
            .requests()
            .iter()
            .skip(before.saturating_sub(20))
            .any(|one| one.verb == "create" && one.resource == "configmaps")
    })
    .await;
    let finish = async {
        tokio::task::yield_now().await;
        stream.write_all(&body.as_bytes()[5..]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (ended, answer) = tokio::join!(bed.site.stop(IN_TIME), finish);
    ended.expect("in time").unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}
