//! What the server inside the process can do that the suite of semantics cannot ask of every server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use testbed::{
    api::{ApiConfig, ApiServer, Authorizer, User},
    client::{Client, Error},
    link::{Cut, Link},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SOON: Duration = Duration::from_secs(10);

async fn start() -> (ApiServer, Client) {
    let server = ApiServer::start(ApiConfig::default())
        .await
        .expect("a free port");
    let client = Client::new(&server.endpoint()).expect("the CA is PEM");
    (server, client)
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

#[tokio::test]
async fn compacted_history_is_gone_for_watches_lists_and_pages() -> Result<(), Error> {
    let (server, client) = start().await;
    for name in ["a", "b", "c"] {
        client.post(CONFIG_MAPS, &named(name)).await?.expect(201);
    }
    let page = client
        .get(&format!("{CONFIG_MAPS}?limit=1"))
        .await?
        .expect(200);
    let then = page["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    client.post(CONFIG_MAPS, &named("d")).await?.expect(201);
    server.compact();

    let mut watch = client
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={then}"))
        .await?;
    let event = watch.next(SOON).await?.unwrap();
    assert_eq!(
        (event.kind.as_str(), &event.object["code"]),
        ("ERROR", &json!(410))
    );

    let exact = format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=Exact");
    client.get(&exact).await?.expect_status(410, "Expired");

    let rest = client
        .get(&format!("{CONFIG_MAPS}?limit=1&continue={token}"))
        .await?;
    let status = rest.expect_status(410, "Expired");
    let fresh = status["metadata"]["continue"].as_str().unwrap();
    let rest = client
        .get(&format!("{CONFIG_MAPS}?continue={fresh}"))
        .await?
        .expect(200);
    let names: Vec<&Value> = rest["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["metadata"]["name"])
        .collect();
    assert_eq!(names, ["b", "c", "d", "kube-root-ca.crt"]);
    Ok(())
}

#[tokio::test]
async fn requests_are_counted_and_remembered() -> Result<(), Error> {
    let (server, client) = start().await;
    client
        .get(&format!("{CONFIG_MAPS}?limit=5"))
        .await?
        .expect(200);
    let _watch = client.watch(&format!("{CONFIG_MAPS}?watch=1")).await?;
    client
        .get(&format!("{CONFIG_MAPS}/none"))
        .await?
        .expect(404);
    assert_eq!(server.count("list", "configmaps"), 1);
    assert_eq!(server.count("watch", "configmaps"), 1);
    let requests = server.requests();
    let list = requests
        .iter()
        .find(|request| request.verb == "list")
        .unwrap();
    assert_eq!(
        (list.query.as_str(), list.user.as_str(), list.code),
        ("limit=5", "admin", Some(200))
    );
    assert_eq!(requests.last().unwrap().code, Some(404));
    server.forget_requests();
    assert_eq!(server.count("list", "configmaps"), 0);
    Ok(())
}

#[tokio::test]
async fn callers_are_known_by_token_or_certificate_and_the_hook_decides() -> Result<(), Error> {
    let config = ApiConfig {
        tokens: BTreeMap::from([("t".to_owned(), User::new("reader", &["readers"]))]),
        authorizer: Authorizer::new(|user, asked| {
            user.groups.iter().any(|group| group == "system:nodes") || asked.verb == "get"
        }),
        ..ApiConfig::default()
    };
    let server = ApiServer::start(config).await.unwrap();
    let endpoint = server.endpoint();

    let (certificate, key) = server.pki().client("system:node:n1", &["system:nodes"]);
    let node = Client::with_certificate(&endpoint, &certificate, &key)?;
    node.get("/api/v1/pods").await?.expect(200);
    assert_eq!(server.requests().last().unwrap().user, "system:node:n1");

    let reader = Client::with_token(&endpoint, "t")?;
    reader
        .get(&format!("{CONFIG_MAPS}/kube-root-ca.crt"))
        .await?
        .expect(200);
    let status = reader
        .get("/api/v1/namespaces/default/pods")
        .await?
        .expect_status(403, "Forbidden");
    let message = "pods is forbidden: User \"reader\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!(status["message"], message);
    // Without rights 403 comes before 404.
    reader
        .get("/apis/none.example.com/v1/things")
        .await?
        .expect_status(403, "Forbidden");

    let review = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for (client, is_allowed) in [(&node, true), (&Client::new(&endpoint)?, true)] {
        let answer = client.post(path, &review).await?.expect(201);
        assert_eq!(answer["status"]["allowed"], is_allowed);
    }
    let stranger = Client::anonymous(&endpoint)?;
    stranger
        .get("/api/v1/pods")
        .await?
        .expect_status(401, "Unauthorized");
    assert_eq!(stranger.get("/readyz").await?.text(), "ok");
    Ok(())
}

#[tokio::test]
async fn a_requested_token_is_its_service_accounts() -> Result<(), Error> {
    let (server, client) = start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    client.post(accounts, &named("sa")).await?.expect(201);
    let request = json!({"spec": {"audiences": ["https://kubernetes.default.svc"], "expirationSeconds": 3600}});
    let answer = client
        .post(&format!("{accounts}/sa/token"), &request)
        .await?
        .expect(201);
    let token = answer["status"]["token"].as_str().unwrap();
    assert_eq!(token.split('.').count(), 3);
    let pod = Client::with_token(&server.endpoint(), token)?;
    pod.get("/api/v1/pods").await?.expect(200);
    assert_eq!(
        server.requests().last().unwrap().user,
        "system:serviceaccount:default:sa"
    );
    Ok(())
}

#[tokio::test]
async fn runs_are_the_same_each_time() -> Result<(), Error> {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (_server, client) = start().await;
        let body = json!({"metadata": {"generateName": "x-"}});
        let created = client.post(CONFIG_MAPS, &body).await?.expect(201);
        let metadata = &created["metadata"];
        seen.push(
            [
                &metadata["name"],
                &metadata["uid"],
                &metadata["resourceVersion"],
            ]
            .map(Clone::clone),
        );
    }
    assert_eq!(seen[0], seen[1]);
    Ok(())
}

#[tokio::test]
async fn a_stopped_server_leaves_nothing() -> Result<(), Error> {
    let (server, client) = start().await;
    let mut watch = client
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=999"))
        .await?;
    let addr = server.addr();
    tokio::time::timeout(SOON, server.stop())
        .await
        .expect("every task ends");
    assert!(watch.next(SOON).await.is_err(), "the connection is gone");
    TcpStream::connect(addr).await.unwrap_err();
    Ok(())
}

#[tokio::test]
async fn a_cut_link_stands_between_client_and_server() -> Result<(), Error> {
    let (server, _) = start().await;
    let link = Link::start(server.addr()).unwrap();
    let client = Client::new(&server.endpoint().through(link.addr()))?;
    client.get(CONFIG_MAPS).await?.expect(200);
    assert!(link.bytes_up() > 0 && link.bytes_down() > 0);
    assert_eq!(link.connections(), 1);
    link.cut(Cut::Refuse).await;
    client.get(CONFIG_MAPS).await.unwrap_err();
    link.mend().await.unwrap();
    client.get(CONFIG_MAPS).await?.expect(200);
    Ok(())
}

// === Upgrades ===

async fn tls(server: &ApiServer) -> TlsStream<TcpStream> {
    let authority = CertificateDer::from_pem_slice(server.pki().ca_pem().as_bytes())
        .expect("the authority writes PEM");
    let mut roots = RootCertStore::empty();
    roots.add(authority).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.addr()).await.expect("it listens");
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    connector
        .connect(name, stream)
        .await
        .expect("it speaks TLS")
}

#[tokio::test]
async fn an_upgraded_stream_is_echoed_and_half_closed() -> Result<(), Error> {
    let (server, client) = start().await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    client
        .post("/api/v1/namespaces/default/pods", &pod)
        .await?
        .expect(201);
    let stream = TokioIo::new(tls(&server).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { connection.with_upgrades().await.unwrap() });
    let request = Request::builder()
        .method("POST")
        .version(Version::HTTP_11)
        .uri("/api/v1/namespaces/default/pods/p/exec?command=sh&stdin=true")
        .header("host", "localhost")
        .header("authorization", "Bearer admin-token")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", "v4.channel.k8s.io")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
    assert_eq!(
        response.headers()["x-stream-protocol-version"],
        "v4.channel.k8s.io"
    );
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    // Our half is closed; the other still speaks.
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "end\n");
    Ok(())
}

#[tokio::test]
async fn logs_are_read_and_followed() -> Result<(), Error> {
    let (_server, client) = start().await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    client
        .post("/api/v1/namespaces/default/pods", &pod)
        .await?
        .expect(201);
    let path = "/api/v1/namespaces/default/pods/p/log";
    assert!(client.get(path).await?.text().starts_with("first line\n"));
    let mut followed = client
        .watch_as(&format!("{path}?follow=true"), "*/*")
        .await?;
    assert!(
        matches!(followed.next(SOON).await, Err(Error::Malformed(_))),
        "a line that is no event"
    );
    Ok(())
}
