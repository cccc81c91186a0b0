//! The end of a server: agents go elsewhere, streams end in their time.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use yurt_core::transport::{ErrorKind, State, Transport};

use crate::world::{Manner, SOON, World, at, echoes, eventually, is_alive};

#[tokio::test(start_paused = true)]
async fn a_drain_tells_agents_at_once_and_waits_for_the_last_stream() {
    let world = World::new();
    let mut server = world.alone().await;
    let agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let mut stream = server.dial("edge-1:10250").await.unwrap();
    server.shut_down();
    let mut state = agent.session.state();
    let drained = timeout(SOON, state.wait_for(|state| *state == State::Draining));
    drained.await.expect("the agent is told").unwrap();
    let refused = server.dial("edge-1:10250").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoPeer);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(server.is_running() && is_alive(&mut stream).await);
    echoes(&mut stream).await;
    let began = Instant::now();
    server.ended().await;
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert!(matches!(*state.borrow(), State::Closed { .. }));
}

#[tokio::test(start_paused = true)]
async fn agents_without_a_stream_have_some_seconds_to_go_elsewhere() {
    let world = World::new();
    let mut server = world.alone().await;
    let agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let began = Instant::now();
    server.shut_down();
    server.ended().await;
    let took = began.elapsed();
    assert!((5..8).contains(&took.as_secs()), "{took:?}");
    drop(agent);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_goes_by_itself_is_not_waited_for() {
    let world = World::new();
    let mut server = world.alone().await;
    let agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let began = Instant::now();
    server.shut_down();
    agent.session.close("it has another server").await;
    server.ended().await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_end_is_ended_when_the_time_is_over() {
    let world = World::new();
    let short = Duration::from_secs(12);
    let mut server = world.server(at(1), |config| config.drain = short).await;
    let agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let mut stream = server.dial("edge-1:10250").await.unwrap();
    let began = Instant::now();
    server.shut_down();
    server.ended().await;
    assert!(began.elapsed() < short + Duration::from_secs(1));
    assert!(!is_alive(&mut stream).await);
    eventually(|| matches!(*agent.session.state().borrow(), State::Closed { .. })).await;
}

#[tokio::test(start_paused = true)]
async fn another_server_is_told_of_the_drain_and_keeps_what_it_passes_on() {
    let world = World::new();
    let [first, mut second] = world.two().await;
    let _agent = world.agent("edge-1", &second, Manner::Echoes).await;
    let mut stream = first.reaches("edge-1:10250").await;
    second.shut_down();
    let gone = async {
        while first.dial("edge-1:10250").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, gone).await.expect("nothing new is passed on");
    assert!(is_alive(&mut stream).await);
    echoes(&mut stream).await;
    second.ended().await;
}

#[tokio::test(start_paused = true)]
async fn another_server_hears_of_the_drain_at_once() {
    let world = World::new();
    let other = world
        .network
        .transport(yurt_core::testing::transport::server("192.0.2.9"));
    let listener = other.listen(at(9)).await.unwrap();
    let server = world.server(at(1), |config| config.peers = vec![at(9).into()]);
    let (server, session) = tokio::join!(server, listener.accept());
    let session = session.unwrap().unwrap();
    server.shut_down();
    let mut state = session.state();
    let told = timeout(
        Duration::from_secs(1),
        state.wait_for(|state| *state == State::Draining),
    );
    told.await.expect("it is told").unwrap();
}

#[tokio::test]
async fn a_server_that_drains_is_alive_and_not_ready() {
    let world = World::new();
    let server = world.alone().await;
    let _agent = world.agent("edge-1", &server, Manner::Echoes).await;
    assert_eq!(server.page("/readyz").await.0, 200);
    server.shut_down();
    let (code, said) = server.page("/readyz").await;
    assert_eq!(
        (code, said.as_str()),
        (503, "[-] the server is draining\nnot ready\n")
    );
    assert_eq!(server.page("/healthz").await.0, 200);
}
