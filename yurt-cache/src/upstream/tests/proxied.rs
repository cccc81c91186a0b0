//! Through the HTTP proxy of a site.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Uri;
use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::cloud::API_NAME;
use super::*;
use crate::upstream::HttpProxy;

/// A proxy that leads to one server, and the heads of what it was asked.
struct Proxy {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Answers with this status line, and carries what is sent if it is a 200.
    async fn to(server: SocketAddr, status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let mut near = listener.accept().await.unwrap().0;
                let heard = heard.clone();
                connections.spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = near.read_u8().await else {
                            return;
                        };
                        head.push(byte);
                    }
                    heard.lock().push(String::from_utf8(head).unwrap());
                    let answer = format!("HTTP/1.1 {status}\r\n\r\n");
                    near.write_all(answer.as_bytes()).await.unwrap();
                    if status.starts_with("200") {
                        let mut far = TcpStream::connect(server).await.unwrap();
                        let _ended = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Self {
            addr,
            asked,
            _tasks: tasks,
        }
    }

    fn config(&self, authority: &Authority, no_proxy: &'static str) -> UpstreamConfig {
        let url = format!("http://user:secret@{}", self.addr);
        let proxy = HttpProxy::from_environment(|name| match name {
            "HTTPS_PROXY" => Some(url.clone()),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            _ => None,
        });
        let server: Uri = format!("https://{API_NAME}:6443").parse().unwrap();
        UpstreamConfig {
            servers: vec![server],
            proxy: proxy.unwrap(),
            ..config(authority, &[self.addr])
        }
    }
}

#[tokio::test]
async fn an_api_server_is_reached_through_the_proxy_for_requests_and_upgrades() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let proxy = Proxy::to(server.addr, "200 Connection established").await;
    let running = Running::start(proxy.config(&authority, "10.0.0.0/8,.example"));
    running.online().await;
    assert_eq!(running.get("/whoami").await.unwrap(), "system:node:n1");
    let upgraded = running.upstream.upgrade(Credential::Node, get("/host"));
    let answer = text(upgraded.await.unwrap().0.into_body()).await;
    assert_eq!(answer, format!("nobody and {API_NAME}:6443"));
    let asked = proxy.asked.lock();
    assert_eq!(asked.len(), 2);
    for head in asked.iter() {
        assert!(
            head.starts_with("CONNECT api.invalid:6443 HTTP/1.1\r\n"),
            "{head}"
        );
        // user:secret
        let authorization = "proxy-authorization: Basic dXNlcjpzZWNyZXQ=\r\n";
        assert!(head.contains(authorization), "{head}");
    }
}

#[tokio::test]
async fn who_is_excepted_is_not_reached_through_the_proxy() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let proxy = Proxy::to(server.addr, "200 OK").await;
    let running = Running::start(proxy.config(&authority, "invalid"));
    running.cut_off().await;
    assert!(proxy.asked.lock().is_empty());
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_without_its_password() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let proxy = Proxy::to(server.addr, "407 Proxy Authentication Required").await;
    let config = proxy.config(&authority, "");
    let upstream = Upstream::new(config, Need::Required).unwrap();
    let epoch = CancellationToken::new();
    let dialled = upstream.0.dial(0, Credential::Node, &epoch, PATIENCE).await;
    let refused = yurt_core::error::Chain(&dialled.unwrap_err()).to_string();
    let wanted = format!("the proxy http://{} says 407", proxy.addr);
    assert!(
        refused.contains(&wanted) && !refused.contains("secret"),
        "{refused}"
    );
}
