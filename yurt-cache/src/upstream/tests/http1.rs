//! Against API servers that do not speak HTTP/2.

use super::*;

/// One that says so, and one that says nothing.
async fn servers(authority: &Authority) -> [ApiServer; 2] {
    [
        ApiServer::of_http1(authority).await,
        ApiServer::without_alpn(authority).await,
    ]
}

#[tokio::test]
async fn requests_share_connections_one_after_the_other() {
    let authority = Authority::new();
    for server in servers(&authority).await {
        let running = Running::start(config(&authority, &[server.addr]));
        running.online().await;
        for _ in 0..20 {
            assert_eq!(running.get("/whoami").await.unwrap(), "system:node:n1");
            let write = Request::post("/echo").body(body::full("once")).unwrap();
            let sent = running.upstream.send(Credential::Bearer, write).await;
            assert_eq!(text(sent.unwrap().into_body()).await, "once");
        }
        assert_eq!(server.seen.connections.load(Ordering::Relaxed), 2);
        let named = running.get("/host").await.unwrap();
        assert_eq!(named, format!("nobody and {}", server.addr));
    }
}

#[tokio::test]
async fn each_watch_has_a_connection_and_blocks_nobody() {
    let authority = Authority::new();
    let server = ApiServer::of_http1(&authority).await;
    let running = Running::start(config(&authority, &[server.addr]));
    running.online().await;
    let mut opening = JoinSet::new();
    for _ in 0..100 {
        let upstream = running.upstream.clone();
        opening.spawn(async move {
            let response = upstream.send(Credential::Node, get("/watch")).await;
            let mut body = response.unwrap().into_body();
            body.frame().await.unwrap().unwrap();
            body
        });
    }
    let watches = timeout(PATIENCE, opening.join_all()).await.unwrap();
    assert!(server.seen.connections.load(Ordering::Relaxed) >= 100);
    running.get("/whoami").await.unwrap();
    drop(watches);
    assert_eq!(running.get("/whoami").await.unwrap(), "system:node:n1");
}

#[tokio::test]
async fn a_stream_is_upgraded() {
    let authority = Authority::new();
    for server in servers(&authority).await {
        let running = Running::start(config(&authority, &[server.addr]));
        let request = Request::post("/upgrade")
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(body::empty())
            .unwrap();
        let upgraded = running.upstream.upgrade(Credential::Node, request).await;
        let mut stream = TokioIo::new(upgraded.unwrap().1.unwrap());
        stream.write_all(b"said").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        let read = timeout(PATIENCE, stream.read_to_string(&mut heard));
        read.await.unwrap().unwrap();
        assert_eq!(heard, "said");
    }
}

#[tokio::test]
async fn a_silent_cut_is_noticed_while_nobody_asks() {
    let authority = Authority::new();
    let server = ApiServer::of_http1(&authority).await;
    let relay = Relay::to(server.addr).await;
    let running = Running::start(config(&authority, &[relay.addr]));
    running.online().await;
    // Its pulse is felt over one connection.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(server.seen.connections.load(Ordering::Relaxed), 1);
    relay.set(Link::Silent);
    let limit = Duration::from_millis(300 + 200 + 500 + 200);
    timeout(limit, running.cut_off()).await.unwrap();
    relay.set(Link::Whole);
    running.online().await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_to_its_end_costs_its_connection_alone() {
    let authority = Authority::new();
    let server = ApiServer::of_http1(&authority).await;
    let running = Running::start(config(&authority, &[server.addr]));
    running.online().await;
    for _ in 0..5 {
        let watch = running.upstream.send(Credential::Node, get("/watch")).await;
        drop(watch.unwrap());
        assert_eq!(running.get("/whoami").await.unwrap(), "system:node:n1");
    }
    assert_eq!(running.upstream.servers()[0].failures, 0);
}
