//! A byte there and back.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use yurt_core::transport::{Open, Target};
use yurt_tunnel::link::Config;

use crate::site::{Site, Way};

async fn there_and_back(way: Way) {
    let site = Site::new();
    let met = site.meet(way, Config::default()).await;
    assert_eq!(met.opener.peer().node().unwrap().as_str(), "edge-1");
    let open = Open::new(
        Target::dial("192.0.2.7", 10250).unwrap(),
        Duration::from_secs(5),
    );
    let acceptor = met.acceptor.clone();
    let edge = async {
        let incoming = acceptor.accept().await.unwrap();
        assert_eq!(incoming.request().target, open.target);
        let mut stream = incoming.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream.shutdown().await.unwrap();
        all.len()
    };
    let cloud = async {
        let mut stream = met.opener.open(open.clone()).await.unwrap();
        let bytes = vec![7; 3 << 20];
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, bytes);
    };
    let (count, ()) = tokio::join!(edge, cloud);
    assert_eq!(count, 3 << 20);
    assert!(met.opener.ping().await.unwrap() < Duration::from_secs(1));
    println!("{:?}", met.opener.stats());
    met.acceptor.close("done").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic() {
    there_and_back(Way::Quic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2() {
    there_and_back(Way::H2).await;
}
