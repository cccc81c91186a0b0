//! The road to what is dialled.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use yurt_core::testing::transport::node;
use yurt_core::transport::ErrorKind;
use yurt_tunnel::dial::{Caller, Dialled};

use crate::world::{Agent, DIAL, Manner, World, echoes, eventually, is_alive};

#[tokio::test]
async fn an_edge_node_is_reached_by_name_and_by_address_through_its_agent() {
    let world = World::new();
    let server = world.alone().await;
    let agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let other = world.agent("edge-2", &server, Manner::Echoes).await;
    for to in ["edge-1:10250", "10.1.0.1:9100", "[::ffff:10.1.0.1]:10250"] {
        echoes(&mut server.dial(to).await.unwrap()).await;
    }
    let expected = ["10.1.0.1:10250", "10.1.0.1:9100", "[::ffff:10.1.0.1]:10250"];
    assert_eq!(agent.dialled(), expected);
    assert!(other.dialled().is_empty());
}

#[tokio::test]
async fn what_is_not_at_the_edge_is_dialled_directly() {
    let world = World::new();
    let server = world.alone().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = target.local_addr().unwrap();
    // A cloud node, by its address; and nobody's name.
    for to in [address.to_string(), format!("localhost:{}", address.port())] {
        let dialled = server.dial(&to).await.unwrap();
        assert!(matches!(dialled, Dialled::Direct(_)), "{to}");
        let (mut far, _) = target.accept().await.unwrap();
        let Dialled::Direct(mut near) = dialled else {
            unreachable!("it was looked at above");
        };
        near.write_all(b"x").await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'x');
    }
    drop(target);
    let refused = server.dial(&address.to_string()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert_eq!(
        refused.to_string(),
        format!("{address} refuses the connection")
    );
}

#[tokio::test]
async fn a_node_without_an_agent_is_named_in_the_answer() {
    let world = World::new();
    let alone = world.alone().await;
    let error = alone.dial("edge-1:10250").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoPeer);
    assert_eq!(error.to_string(), "no agent of node edge-1 is connected");
    let dials = r#"yurt_tunnel_server_dials_total{route="agent",result="no_agent"}"#;
    assert!((alone.metric(dials).await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn what_the_agent_says_of_the_target_is_the_answer() {
    let world = World::new();
    let server = world.alone().await;
    let _agent = world.agent("edge-1", &server, Manner::Refuses).await;
    let error = server.dial("edge-1:10250").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(
        error.to_string(),
        "dial 10.1.0.1:10250: the connection is refused"
    );
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_says_nothing_costs_the_deadline_and_no_more() {
    let world = World::new();
    let server = world.alone().await;
    let agent = world.agent("edge-1", &server, Manner::Hangs).await;
    let began = Instant::now();
    let error = server.dial("edge-1:10250").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let took = began.elapsed();
    assert!(
        took >= DIAL && took < DIAL + Duration::from_secs(1),
        "{took:?}"
    );
    eventually(|| agent.session.stats().streams == 0).await;
}

#[tokio::test]
async fn a_dial_that_is_dropped_leaves_nothing_at_the_agent() {
    let world = World::new();
    let server = world.alone().await;
    let agent = world.agent("edge-1", &server, Manner::Hangs).await;
    let to = "edge-1:10250".parse().unwrap();
    {
        let dial = server.dial.dial(&Caller::ApiServer, &to, DIAL);
        tokio::pin!(dial);
        let asked = eventually(|| !agent.dialled().is_empty());
        tokio::select! {
            _ = &mut dial => panic!("nobody answers"),
            () = asked => {}
        }
    }
    eventually(|| agent.session.stats().streams == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_dead_without_knowing_holds_a_dial_up_for_half_a_second() {
    let world = World::new();
    let server = world.alone().await;
    let _alive = world.agent("edge-1", &server, Manner::Echoes).await;
    let _dead = world.agent("edge-1", &server, Manner::Hangs).await;
    let began = Instant::now();
    let mut dialled = server.dial("edge-1:10250").await.unwrap();
    assert!(is_alive(&mut dialled).await);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn of_two_sessions_of_one_agent_the_newer_is_used_and_the_older_keeps_its_streams() {
    let world = World::new();
    let server = world.alone().await;
    let old = world.agent("edge-1", &server, Manner::Echoes).await;
    let mut before = server.dial("edge-1:10250").await.unwrap();
    let new = world.agent("edge-1", &server, Manner::Echoes).await;
    let mut after = server.dial("edge-1:10250").await.unwrap();
    assert!(is_alive(&mut before).await && is_alive(&mut after).await);
    assert_eq!((old.dialled().len(), new.dialled().len()), (1, 1));
    new.session.close("it goes").await;
    let mut again = server.reaches("edge-1:10250").await;
    assert!(is_alive(&mut before).await && is_alive(&mut again).await);
}

#[tokio::test]
async fn an_agent_is_the_node_of_its_certificate_whatever_is_dialled() {
    let world = World::new();
    let server = world.alone().await;
    // A node that the cluster does not know is let in, and nothing leads to it.
    let session = world.connect(node("edge-9"), server.address).await.unwrap();
    let agent = Agent::serve(session, Manner::Echoes);
    eventually(|| !agent.servers().is_empty()).await;
    let error = server.dial("edge-1:10250").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoPeer);
    assert!(agent.dialled().is_empty());
}
