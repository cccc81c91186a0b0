//! Who comes in, and what it is told.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, timeout};
use yurt_core::testing::transport::node;
use yurt_core::transport::{Peer, State};

use crate::world::{Agent, Manner, World, at, ended, eventually, is_alive};

#[tokio::test]
async fn a_peer_that_is_neither_a_node_nor_a_server_is_sent_away_and_counted() {
    let world = World::new();
    let server = world.alone().await;
    let stranger = Peer {
        user: "system:node:edge-1".to_owned(),
        groups: vec!["developers".to_owned()],
        ..node("edge-1")
    };
    let session = world.connect(stranger, server.address).await.unwrap();
    let reason = ended(&*session).await;
    assert_eq!(reason, "only nodes and tunnel servers may connect");
    let refusals = r#"yurt_tunnel_server_refusals_total{reason="unauthorized"}"#;
    assert!((server.metric(refusals).await - 1.0).abs() < f64::EPSILON);
    assert!(server.metric("yurt_tunnel_server_agents").await < 1.0);
}

#[tokio::test]
async fn an_agent_is_told_of_this_server_and_of_the_others() {
    let world = World::new();
    let server = world.server(at(1), |config| {
        config.advertise = vec!["tunnel.example:443".parse().unwrap()];
        config.peers = vec![at(2).into(), "[2001:db8::7]:443".parse().unwrap()];
    });
    let server = server.await;
    let agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let expected = r#"{"servers":["tunnel.example:443","192.0.2.2:443","[2001:db8::7]:443"]}"#;
    assert_eq!(agent.servers(), [expected]);
}

#[tokio::test]
async fn of_too_many_sessions_of_one_agent_the_oldest_goes() {
    let world = World::new();
    let server = world.alone().await;
    let mut agents = Vec::new();
    for _ in 0..9 {
        agents.push(world.agent("edge-1", &server, Manner::Echoes).await);
    }
    let is_closed = |agent: &Agent| matches!(*agent.session.state().borrow(), State::Closed { .. });
    eventually(|| is_closed(&agents[0])).await;
    assert!(!agents[1..].iter().any(is_closed));
    let _other = world.agent("edge-2", &server, Manner::Echoes).await;
    assert!(!agents[1..].iter().any(is_closed));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_read_the_list_is_served_all_the_same() {
    let world = World::new();
    let server = world.alone().await;
    let session = world.connect(node("edge-1"), server.address).await.unwrap();
    // It takes the stream of the list, and no more.
    let list = session.accept().await.unwrap().accept().await.unwrap();
    let agent = Agent::serve(session, Manner::Echoes);
    server.dial("edge-1:10250").await.unwrap();
    server.shut_down();
    let mut state = agent.session.state();
    let drained = state.wait_for(|state| *state == State::Draining);
    timeout(Duration::from_secs(1), drained)
        .await
        .expect("it hears of the drain at once")
        .unwrap();
    drop(list);
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_certificate_expires_is_sent_away_and_counted() {
    let world = World::new();
    let server = world.alone().await;
    let expired = Peer {
        expires: SystemTime::UNIX_EPOCH,
        ..node("edge-1")
    };
    let session = world.connect(expired, server.address).await.unwrap();
    let other = world.agent("edge-2", &server, Manner::Echoes).await;
    assert_eq!(ended(&*session).await, "it has an expired certificate");
    let refusals = r#"yurt_tunnel_server_refusals_total{reason="expired"}"#;
    assert!((server.metric(refusals).await - 1.0).abs() < f64::EPSILON);
    assert_eq!(*other.session.state().borrow(), State::Open);
}

/// Two sessions of one node, the older of which answers no ping any more: whether that has ended soon.
async fn older_one_ends(old: Option<&str>, new: Option<&str>, is_frozen: bool) -> bool {
    let world = World::new();
    let server = world.alone().await;
    let connect = async |process| {
        let session = world.connect(node("edge-1"), server.address).await.unwrap();
        let agent = Agent::serve_as(session, Manner::Echoes, process);
        eventually(|| !agent.servers().is_empty()).await;
        agent
    };
    let old = connect(old).await;
    let mut stream = server.dial("edge-1:10250").await.unwrap();
    assert!(is_alive(&mut stream).await);
    if is_frozen {
        world.network.freeze(server.address);
    }
    let new = connect(new).await;
    let ended = timeout(Duration::from_secs(2), ended(&*old.session)).await;
    assert_eq!(is_alive(&mut stream).await, ended.is_err());
    assert_eq!(*new.session.state().borrow(), State::Open);
    ended.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_new_process_of_a_node_ends_the_sessions_of_one_that_does_not_answer() {
    assert!(older_one_ends(Some("a"), Some("b"), true).await);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_may_only_be_slow_is_left_to_its_liveness() {
    // The same process, in a blackout; one that says no name; another one that lives.
    assert!(!older_one_ends(Some("a"), Some("a"), true).await);
    assert!(!older_one_ends(None, Some("b"), true).await);
    assert!(!older_one_ends(Some("a"), None, true).await);
    assert!(!older_one_ends(Some("a"), Some("b"), false).await);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_closed_is_gone_at_once_whatever_its_process_has_left_behind() {
    let world = World::new();
    let server = world.alone().await;
    let connect = async |process| {
        let session = world.connect(node("edge-1"), server.address).await.unwrap();
        let agent = Agent::serve_as(session, Manner::Echoes, Some(process));
        eventually(|| !agent.servers().is_empty()).await;
        agent
    };
    let _old = connect("a").await;
    world.network.freeze(server.address);
    let new = connect("b").await;
    assert!(server.metric("yurt_tunnel_server_agents").await > 1.0);
    let closed = Instant::now();
    new.session.close("it goes").await;
    while server.metric("yurt_tunnel_server_agents").await > 1.0 {
        sleep(Duration::from_millis(1)).await;
    }
    let took = closed.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
}
