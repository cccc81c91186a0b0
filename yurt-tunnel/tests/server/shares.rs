//! Many at once to one node: nobody takes it from the others, and a burst is no flood.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use yurt_core::transport::{Error, ErrorKind, Peer};
use yurt_tunnel::dial::{Caller, Dialled};
use yurt_tunnel::egress::{Nodes, Policy, Ports, Rule};
use yurt_tunnel::transport::NamedTransport;

use crate::letting_in::{NAME, WAYS, Way, agent};
use crate::world::{Agent, DIAL, Running, World, config, is_alive};

/// Dials at once of an API server that was restarted.
const BURST: usize = 500;

fn client(user: &str) -> Caller {
    Caller::Client(Peer::new([Some(user)], []).unwrap())
}

/// A server with an agent of edge-1, where clients may reach every node.
async fn site(way: Way, world: &World) -> (Running, Agent) {
    let credentials = world.credentials(NAME);
    let transport = way.transport(credentials.clone());
    let transports = vec![NamedTransport {
        name: "test",
        transport,
        is_udp: false,
    }];
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config = config(any);
    let users = ["prometheus", "another"].map(str::to_owned);
    config.policy = Policy {
        clients: vec![Rule {
            users: users.into(),
            nodes: Nodes::Every,
            ports: Ports::default(),
            ..Rule::default()
        }],
        ..Policy::default()
    };
    let server = Running::open(config, credentials, transports).await;
    let agent = agent(world, way, "edge-1", &world.pki, &server).await;
    server.reaches("edge-1:10250").await;
    (server, agent)
}

/// Dials so often at once.
async fn burst(server: &Running, caller: &Caller, times: usize) -> Vec<Result<Dialled, Error>> {
    let mut dialling = JoinSet::new();
    for _ in 0..times {
        let (dial, caller) = (Arc::clone(&server.dial), caller.clone());
        let address = "edge-1:10250".parse().unwrap();
        dialling.spawn(async move { dial.dial(&caller, &address, DIAL).await });
    }
    dialling.join_all().await
}

#[tokio::test]
async fn five_hundred_dials_at_once_to_one_node_all_pass() {
    let world = World::new();
    for way in WAYS {
        let (server, _agent) = site(way, &world).await;
        let dialled = burst(&server, &Caller::ApiServer, BURST).await;
        let refused: Vec<_> = dialled.iter().filter_map(|it| it.as_ref().err()).collect();
        assert!(
            refused.is_empty(),
            "{way:?}: {} of {BURST}: {:?}",
            refused.len(),
            refused[0]
        );
    }
}

#[tokio::test]
async fn one_client_takes_no_node_from_kube_apiserver_or_from_another() {
    let world = World::new();
    for way in WAYS {
        let (server, _agent) = site(way, &world).await;
        let mut greedy = Vec::new();
        for _ in 0..3 {
            greedy.extend(burst(&server, &client("prometheus"), 400).await);
        }
        let (mut streams, refused): (Vec<_>, Vec<_>) = greedy.into_iter().partition(Result::is_ok);
        assert!(!refused.is_empty(), "{way:?}: {} streams", streams.len());
        for refused in refused {
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused}");
            let expected = "prometheus has 256 streams to node edge-1, its share";
            assert_eq!(refused.to_string(), expected);
        }
        for other in [Caller::ApiServer, client("another")] {
            let dialled = timeout(Duration::from_secs(5), burst(&server, &other, 100));
            for dialled in dialled.await.expect("nobody waits") {
                let mut dialled = dialled.unwrap_or_else(|error| panic!("{other:?}: {error}"));
                assert!(is_alive(&mut dialled).await);
            }
        }
        assert_eq!(server.page("/readyz").await.0, 200);
        streams.truncate(100);
        for dialled in burst(&server, &client("prometheus"), 100).await {
            dialled.unwrap();
        }
    }
}
