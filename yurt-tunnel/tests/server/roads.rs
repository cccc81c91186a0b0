//! Which of several roads is taken, and what makes a road one.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use yurt_core::testing::transport::server;
use yurt_core::transport::{Peer, State, Transport};
use yurt_tunnel::dial::Dialled;

use crate::world::{Agent, Manner, SOON, World, at, is_alive};

#[tokio::test(start_paused = true)]
async fn servers_without_the_agent_are_passed_over_at_once_beside_a_silent_session() {
    let world = World::new();
    let asked = world.alone().await;
    let mut others = Vec::new();
    // The newest is asked first: the one that has the agent comes last.
    for (number, manner) in [Manner::Echoes, Manner::Lacks, Manner::Lacks, Manner::Lacks]
        .into_iter()
        .enumerate()
    {
        let peer = server(&format!("192.0.2.{}", number + 2));
        let session = world.connect(peer, asked.address).await.unwrap();
        others.push(Agent::serve(session, manner));
    }
    let _silent = world.agent("edge-1", &asked, Manner::Hangs).await;
    let began = Instant::now();
    let mut dialled = asked.dial("edge-1:10250").await.unwrap();
    assert!(is_alive(&mut dialled).await);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(others.iter().all(|other| other.dialled().len() == 1));
}

#[tokio::test]
async fn a_cloud_node_that_is_asked_for_by_its_name_is_dialled_at_its_address() {
    let world = World::new();
    let server = world.alone().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    // No resolver knows the name.
    let dialled = server.dial(&format!("cloud-1:{port}")).await.unwrap();
    let Dialled::Direct(socket) = dialled else {
        panic!("it is no edge node");
    };
    let (_, from) = target.accept().await.unwrap();
    assert_eq!(socket.tcp().local_addr().unwrap(), from);
}

#[tokio::test]
async fn who_answers_in_a_servers_place_without_a_servers_certificate_asks_for_nothing() {
    let world = World::new();
    let impostor = Peer {
        groups: vec!["system:nodes".to_owned()],
        ..server("192.0.2.9")
    };
    let listener = world.network.transport(impostor);
    let listener = listener.listen(at(9)).await.unwrap();
    let linking = world.server(at(1), |config| config.peers = vec![at(9).into()]);
    let (linking, session) = tokio::join!(linking, listener.accept());
    let mut state = session.unwrap().unwrap().state();
    let closed = state.wait_for(|state| matches!(state, State::Closed { .. }));
    let closed = timeout(SOON, closed).await.expect("it is sent away");
    let State::Closed { reason, .. } = closed.unwrap().clone() else {
        unreachable!("it was waited for");
    };
    assert_eq!(reason, "only tunnel servers may ask for nodes");
    let refusals = r#"yurt_tunnel_server_refusals_total{reason="unauthorized"}"#;
    assert!(linking.metric(refusals).await >= 1.0);
}
