//! Several servers, and agents that are connected to some of them.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout};
use yurt_core::testing::transport::server;
use yurt_core::transport::{ErrorKind, Open, State, Target, Transport};

use crate::world::{Manner, SOON, World, at, echoes, is_alive};

#[tokio::test]
async fn a_server_without_the_agent_asks_the_one_that_has_it() {
    let world = World::new();
    let [first, second] = world.two().await;
    let agent = world.agent("edge-1", &second, Manner::Echoes).await;
    let mut dialled = first.reaches("edge-1:10250").await;
    echoes(&mut dialled).await;
    assert_eq!(agent.dialled().last().unwrap(), "10.1.0.1:10250");
}

#[tokio::test]
async fn a_reset_passes_through_both_servers() {
    let world = World::new();
    let [first, second] = world.two().await;
    let agent = world.agent("edge-1", &second, Manner::Echoes).await;
    let mut dialled = first.reaches("edge-1:10250").await;
    assert!(is_alive(&mut dialled).await);
    agent.session.close("it is gone").await;
    let mut rest = Vec::new();
    let read = timeout(SOON, dialled.read_to_end(&mut rest)).await;
    read.expect("it ends").expect_err("and not cleanly");
    let streams = "yurt_tunnel_server_streams";
    let mut left = f64::MAX;
    while left > 0.0 {
        left = first.metric(streams).await + second.metric(streams).await;
    }
}

#[tokio::test]
async fn what_the_agent_says_passes_through_both_servers() {
    let world = World::new();
    let [first, second] = world.two().await;
    let _agent = world.agent("edge-1", &second, Manner::Refuses).await;
    let told = async {
        loop {
            let error = first.dial("edge-1:10250").await.unwrap_err();
            if error.kind() != ErrorKind::NoPeer {
                return error;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let error = timeout(SOON, told).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(
        error.to_string(),
        "dial 10.1.0.1:10250: the connection is refused"
    );
}

#[tokio::test]
async fn a_node_that_is_connected_nowhere_is_named_and_nobody_asks_in_circles() {
    let world = World::new();
    let [first, second] = world.two().await;
    let linked = "yurt_tunnel_server_peers";
    while first.metric(linked).await < 1.0 || second.metric(linked).await < 1.0 {}
    let error = first.dial("edge-1:10250").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoPeer);
    let expected = "no agent of node edge-1 is connected, here or to the other server";
    assert_eq!(error.to_string(), expected);
    // One open, of the first at the second; the second has asked nobody.
    let opened = "yurt_tunnel_server_streams_opened_total";
    assert!(second.metric(opened).await < 1.0);
}

#[tokio::test]
async fn a_server_asks_another_for_nodes_alone() {
    let world = World::new();
    let other = world.network.transport(server("192.0.2.9"));
    let listener = other.listen(at(9)).await.unwrap();
    let asked = world.server(at(1), |config| config.peers = vec![at(9).into()]);
    let (_asked, session) = tokio::join!(asked, listener.accept());
    let session = session.unwrap().unwrap();
    for target in [
        Target::Echo,
        Target::Servers,
        Target::dial("127.0.0.1", 22).unwrap(),
    ] {
        let open = session.open(Open::new(target, Duration::from_secs(5)));
        assert_eq!(open.await.unwrap_err().kind(), ErrorKind::Forbidden);
    }
}

#[tokio::test(start_paused = true)]
async fn when_one_of_two_servers_is_killed_dials_go_on_through_the_other_at_once() {
    let world = World::new();
    let [first, second] = world.two().await;
    let on_first = world.agent("edge-1", &first, Manner::Echoes).await;
    let on_second = world.agent("edge-1", &second, Manner::Echoes).await;
    let mut kept = first.reaches("edge-1:10250").await;
    second.kill(&world.network).await;
    let began = Instant::now();
    let mut dialled = first.dial("edge-1:10250").await.unwrap();
    assert!(is_alive(&mut dialled).await && is_alive(&mut kept).await);
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(matches!(
        *on_second.session.state().borrow(),
        State::Closed { .. }
    ));
    assert_eq!(*on_first.session.state().borrow(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_session_elsewhere_that_is_dead_without_knowing_holds_a_dial_up_for_half_a_second() {
    let world = World::new();
    let [first, second] = world.two().await;
    let _alive = world.agent("edge-1", &second, Manner::Echoes).await;
    let _dead = world.agent("edge-1", &second, Manner::Hangs).await;
    while first.metric("yurt_tunnel_server_peers").await < 1.0 {}
    let began = Instant::now();
    let mut dialled = first.dial("edge-1:10250").await.unwrap();
    assert!(is_alive(&mut dialled).await);
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_killed_is_linked_again_when_it_is_back() {
    let world = World::new();
    let [first, second] = world.two().await;
    first.kill(&world.network).await;
    world.network.mend(at(1));
    let first = world
        .server(at(1), |config| config.peers = vec![at(2).into()])
        .await;
    let _agent = world.agent("edge-1", &first, Manner::Echoes).await;
    let began = Instant::now();
    echoes(&mut second.reaches("edge-1:10250").await).await;
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn an_agent_on_both_servers_is_asked_by_each_over_its_own_session() {
    let world = World::new();
    let [first, second] = world.two().await;
    let on_first = world.agent("edge-1", &first, Manner::Echoes).await;
    let on_second = world.agent("edge-1", &second, Manner::Echoes).await;
    for server in [&first, &second, &first, &second] {
        echoes(&mut server.dial("edge-1:10250").await.unwrap()).await;
    }
    assert_eq!(
        (on_first.dialled().len(), on_second.dialled().len()),
        (2, 2)
    );
    for agent in [&on_first, &on_second] {
        assert_eq!(*agent.session.state().borrow(), State::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lets_nobody_stay_is_not_hammered() {
    let world = World::new();
    let other = world.network.transport(server("192.0.2.9"));
    let listener = other.listen(at(9)).await.unwrap();
    let _server = world
        .server(at(1), |config| config.peers = vec![at(9).into()])
        .await;
    let mut links = 0;
    let count = async {
        while let Some(Ok(session)) = listener.accept().await {
            links += 1;
            session.close("who are you?").await;
        }
    };
    timeout(Duration::from_secs(60), count).await.unwrap_err();
    assert!((2..60).contains(&links), "{links} links in a minute");
}

#[tokio::test]
async fn a_server_does_not_link_to_itself() {
    let world = World::new();
    let itself =
        |config: &mut yurt_tunnel::server::Config| config.peers = vec![at(1).into(), at(2).into()];
    let first = world.server(at(1), itself).await;
    let second = world.server(at(2), itself).await;
    for server in [&first, &second] {
        while server.metric("yurt_tunnel_server_peers").await < 1.0 {}
    }
    let _agent = world.agent("edge-1", &first, Manner::Echoes).await;
    echoes(&mut second.reaches("edge-1:10250").await).await;
    assert!(first.metric("yurt_tunnel_server_peers").await < 2.0);
}
