//! Several API servers: one dies, and the readers do not notice.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use testbed::api::{ApiConfig, ApiServer};
use testbed::client::Client;
use testbed::link::{Cut, Link};
use testbed::pki::Pki;
use tokio::time::Instant;
use yurt_cache::hub::Order;

use super::site::{Site, eventually};

const ONE: &str = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt";

/// Reads twenty times, and returns how long the slowest took.
async fn slowest_of_twenty(node: &Client) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        node.get(ONE).await.unwrap().expect(200);
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

/// Two servers of one authority, each behind a link, and a hub in front.
async fn pair(order: Order) -> ([ApiServer; 2], [Link; 2], Site) {
    let pki = Arc::new(Pki::new());
    let server = || async {
        let config = ApiConfig {
            pki: Some(pki.clone()),
            ..ApiConfig::default()
        };
        ApiServer::start(config).await.unwrap()
    };
    let servers = [server().await, server().await];
    let links = [0, 1].map(|at| Link::start(servers[at].addr()).unwrap());
    let mut site = Site::new(pki, links.iter().map(Link::addr).collect());
    site.adjust(move |config| config.upstream.order = order);
    site.start();
    eventually("both servers are up", async || {
        site.metric("yurthub_server_up", "").await > 1.5
    })
    .await;
    (servers, links, site)
}

fn reads(server: &ApiServer) -> u64 {
    server.count("get", "configmaps")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_server_dies_reads_go_to_the_other_within_a_second() {
    for order in [Order::RoundRobin, Order::Priority] {
        let (servers, links, site) = pair(order).await;
        let node = site.node();
        if order == Order::RoundRobin {
            // What the hub asks for itself takes turns too.
            eventually("both are asked", async || {
                node.get(ONE).await.unwrap().expect(200);
                servers.iter().all(|server| reads(server) > 0)
            })
            .await;
        } else {
            for _ in 0..4 {
                node.get(ONE).await.unwrap().expect(200);
            }
            assert_eq!(reads(&servers[0]), 4);
        }
        // What a read costs on this machine, busy as it may be, is not the dead server's doing.
        let whole = slowest_of_twenty(&node).await;
        let before = reads(&servers[1]);
        links[0].cut(Cut::Refuse).await;
        let halved = slowest_of_twenty(&node).await;
        assert!(
            halved < whole + Duration::from_secs(1),
            "{halved:?}, and {whole:?} before"
        );
        assert!(reads(&servers[1]) >= before + 20);
        links[0].mend().await.unwrap();
        let before = reads(&servers[0]);
        eventually("the first one is asked again", async || {
            node.get(ONE).await.unwrap().expect(200);
            reads(&servers[0]) > before
        })
        .await;
        if order == Order::Priority {
            let second = reads(&servers[1]);
            for _ in 0..5 {
                node.get(ONE).await.unwrap().expect(200);
            }
            assert_eq!(
                reads(&servers[1]),
                second,
                "the first of the list is asked alone"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_never_sent_twice() {
    let (servers, links, site) = pair(Order::Priority).await;
    let node = site.node();
    links[0].cut(Cut::Refuse).await;
    let path = "/api/v1/namespaces/default/configmaps";
    let mut created = 0;
    for number in 0..10 {
        let body = json!({"metadata": {"name": format!("n{number}")}});
        let answer = node.post(path, &body).await.unwrap();
        assert!(matches!(answer.code, 201 | 503 | 504), "{answer:?}");
        created += u64::from(answer.code == 201);
    }
    assert!(created >= 8, "the other server takes them: {created}");
    assert_eq!(servers[1].count("create", "configmaps"), created);
    assert_eq!(servers[0].count("create", "configmaps"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_goes_on_when_its_server_dies() {
    let (servers, links, site) = pair(Order::Priority).await;
    let node = site.node();
    let path = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
    node.get(path).await.unwrap().expect(200);
    site.is_live("v1/configmaps in default").await;
    links[0].cut(Cut::Refuse).await;
    eventually("the other one is watched", async || {
        servers[1].count("watch", "configmaps") > 0
    })
    .await;
    let (_, metrics) = site.page("/metrics").await;
    assert!(
        metrics.contains("yurthub_cut_off_seconds 0"),
        "it was never cut off"
    );
}
