//! Which servers are linked, and what happens when one goes.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use yurt_core::error::Chain;
use yurt_core::transport::{State, Target};

use super::world::{Cloud, NODE, World, at, is_alive, is_over, open, reached};
use crate::agent::pick;

/// Servers on the network that carries UDP, in the node's own order.
async fn clouds(world: &World, count: u8) -> Vec<Cloud> {
    let addresses = (1..=count).map(at);
    let mut clouds = Vec::new();
    for address in pick::order(&NODE.parse().unwrap(), addresses) {
        clouds.push(Cloud::new(&world.udp, address).await);
    }
    clouds
}

fn addresses(clouds: &[Cloud]) -> Vec<std::net::SocketAddr> {
    clouds.iter().map(|cloud| cloud.address).collect()
}

#[tokio::test(start_paused = true)]
async fn three_of_many_servers_are_linked_at_once_and_no_more() {
    let world = World::new();
    let clouds = clouds(&world, 5).await;
    let _agent = world.run(world.config(&addresses(&clouds)));
    let mut sessions = Vec::new();
    for cloud in &clouds[..3] {
        let session = cloud.next().await;
        assert_eq!(session.peer().node().unwrap().as_str(), NODE);
        sessions.push(session);
    }
    for cloud in &clouds[3..] {
        assert!(!cloud.is_called_within(Duration::from_secs(120)).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_server_is_replaced_at_once_and_gets_its_link_back() {
    let world = World::new();
    let clouds = clouds(&world, 4).await;
    let _agent = world.run(world.config(&addresses(&clouds)));
    let mut sessions = Vec::new();
    for cloud in &clouds[..3] {
        sessions.push(cloud.next().await);
    }
    world.udp.cut(clouds[1].address);
    let lost = Instant::now();
    let replacement = clouds[3].next().await;
    assert!(
        lost.elapsed() < Duration::from_millis(500),
        "{:?}",
        lost.elapsed()
    );
    let mut stream = open(&replacement, Target::Echo).await.unwrap();

    world.udp.mend(clouds[1].address);
    let back = Instant::now();
    let _session = clouds[1].next().await;
    assert!(
        back.elapsed() < Duration::from_secs(11),
        "{:?}",
        back.elapsed()
    );
    // The replacement leaves, but not under its stream.
    reached(&replacement, |state| *state == State::Draining).await;
    assert!(is_alive(&mut stream).await);
    drop(stream);
    reached(&replacement, is_over).await;
    for session in [&sessions[0], &sessions[2]] {
        assert_eq!(*session.state().borrow(), State::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_never_there_is_replaced() {
    let world = World::new();
    let mut clouds = clouds(&world, 4).await;
    let servers = addresses(&clouds);
    drop(clouds.remove(0));
    let _agent = world.run(world.config(&servers));
    let mut sessions = Vec::new();
    for cloud in &clouds {
        sessions.push(cloud.next().await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_is_left_and_its_streams_finish() {
    let world = World::new();
    let clouds = clouds(&world, 2).await;
    let mut config = world.config(&addresses(&clouds));
    config.links = 1;
    let _agent = world.run(config);
    let session = clouds[0].next().await;
    let mut stream = open(&session, Target::Echo).await.unwrap();
    session.drain();
    let began = Instant::now();
    let _other = clouds[1].next().await;
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(is_alive(&mut stream).await);
    drop(stream);
    reached(&session, is_over).await;
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_server_is_redialled_less_and_less_often_and_never_given_up() {
    let world = World::new();
    let _agent = world.run(world.config(&[at(1)]));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let cloud = Cloud::new(&world.udp, at(1)).await;
    let began = Instant::now();
    let _session = cloud.next().await;
    assert!(
        began.elapsed() <= Duration::from_secs(11),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_ends_lets_its_streams_finish_first() {
    let world = World::new();
    let cloud = Cloud::new(&world.udp, at(1)).await;
    let mut agent = world.run(world.config(&[at(1)]));
    let session = cloud.next().await;
    let mut stream = open(&session, Target::Echo).await.unwrap();
    agent.stop();
    reached(&session, |state| *state == State::Draining).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(is_alive(&mut stream).await);
    drop(stream);
    let began = Instant::now();
    agent.ended().await;
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
    reached(&session, is_over).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_ends_waits_for_no_stream_that_never_does() {
    let world = World::new();
    let cloud = Cloud::new(&world.udp, at(1)).await;
    let mut agent = world.run(world.config(&[at(1)]));
    let session = cloud.next().await;
    let _stream = open(&session, Target::Echo).await.unwrap();
    agent.stop();
    let began = Instant::now();
    agent.ended().await;
    let took = began.elapsed();
    assert!((30..32).contains(&took.as_secs()), "{took:?}");
    reached(&session, is_over).await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_agent_leaves_nothing() {
    let world = World::new();
    let cloud = Cloud::new(&world.udp, at(1)).await;
    let agent = world.run(world.config(&[at(1)]));
    let session = cloud.next().await;
    let _stream = open(&session, Target::Echo).await.unwrap();
    drop(agent);
    reached(&session, is_over).await;
    assert!(!cloud.is_called_within(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_loses_a_link_to_a_panic_ends_and_says_which_and_why() {
    let world = World::new();
    let cloud = Cloud::new(&world.udp, at(1)).await;
    let mut config = world.config(&[at(1)]);
    config.clock = || panic!("there is no clock");
    let run = world.agent(config).run(CancellationToken::new());
    let run = timeout(Duration::from_secs(60), run);
    let (ended, _session) = tokio::join!(run, cloud.next());
    let ended = ended.expect("it ends").unwrap_err();
    let said = Chain(&ended).to_string();
    let expected = "the link to 127.1.0.1:443 has ended: ";
    assert!(
        said.starts_with(expected) && said.contains("there is no clock"),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_and_cannot_be_reached_anew_is_replaced() {
    let world = World::new();
    let mut clouds = clouds(&world, 2).await;
    let mut config = world.config(&[at(1), at(2)]);
    config.links = 1;
    let _agent = world.run(config);
    let silent = clouds.remove(0);
    let session = silent.next().await;
    let address = silent.address;
    world.udp.freeze(address);
    drop(silent);
    let began = Instant::now();
    let _second = clouds[0].next().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(
        *session.state().borrow(),
        State::Open,
        "it may only be slow"
    );
}
