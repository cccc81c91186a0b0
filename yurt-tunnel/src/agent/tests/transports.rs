//! Which way of connecting is taken, and how a session is succeeded by a better one.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use testbed::pki::Pki;
use tokio::time::Instant;
use yurt_core::testing::transport::server;
use yurt_core::transport::{Chain, Opener, Peer, State, Target, Transport};

use super::starving::Starving;
use super::world::{Cloud, NODE, Running, World, at, is_alive, is_over, open, reached};
use crate::agent::Agent;
use crate::identity::{Credentials, Files};

async fn ends(world: &World) -> (Cloud, Cloud) {
    let quic = Cloud::new(&world.udp, at(1)).await;
    let h2 = Cloud::new(&world.tcp, at(1)).await;
    (quic, h2)
}

/// Waits until a session is drained, and shows that its stream goes on and that it ends with it.
async fn is_succeeded(
    session: &Arc<dyn Opener>,
    mut stream: Box<dyn yurt_core::transport::Stream>,
) {
    reached(session, |state| *state == State::Draining).await;
    assert!(is_alive(&mut stream).await);
    drop(stream);
    reached(session, is_over).await;
}

#[tokio::test(start_paused = true)]
async fn the_preferred_way_is_taken_when_both_are_open() {
    let world = World::new();
    let (quic, h2) = ends(&world).await;
    let _agent = world.run(world.config(&[at(1)]));
    let _session = quic.next().await;
    assert!(!h2.is_called_within(Duration::from_secs(120)).await);
}

#[tokio::test(start_paused = true)]
async fn where_udp_is_closed_tcp_is_taken_and_udp_again_when_it_opens() {
    let world = World::new();
    let (quic, h2) = ends(&world).await;
    world.udp.cut(at(1));
    let began = Instant::now();
    let _agent = world.run(world.config(&[at(1)]));
    let session = h2.next().await;
    assert!(
        began.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        began.elapsed()
    );
    let stream = open(&session, Target::Echo).await.unwrap();

    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*session.state().borrow(), State::Open);
    world.udp.mend(at(1));
    let began = Instant::now();
    let _better = quic.next().await;
    assert!(
        began.elapsed() <= Duration::from_secs(3 * 60),
        "{:?}",
        began.elapsed()
    );
    is_succeeded(&session, stream).await;
}

#[tokio::test(start_paused = true)]
async fn a_way_that_carries_handshakes_and_starves_what_follows_is_left_and_tried_later_and_later()
{
    let world = World::new();
    let (quic, h2) = ends(&world).await;
    let transports = world.starved(Starving::Pings);
    let _agent = Running::new(Agent::new(world.config(&[at(1)]), transports));
    let mut called = Vec::new();
    let _starved = quic.next().await;
    for _ in 0..3 {
        let began = Instant::now();
        let session = h2.next().await;
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{:?}",
            began.elapsed()
        );
        assert!(open(&session, Target::Echo).await.is_ok());
        let began = Instant::now();
        let _starved = quic.next().await;
        called.push(began.elapsed().as_secs());
    }
    for (seconds, minutes) in called.iter().zip([2, 4, 8]) {
        let period = minutes * 60;
        assert!(
            (period / 2 - 1..=period * 3 / 2 + 1).contains(seconds),
            "{called:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_way_that_loses_most_of_what_is_sent_is_left_for_another_if_there_is_one() {
    let world = World::new();
    let (quic, h2) = ends(&world).await;
    world.tcp.cut(at(1));
    let transports = world.starved(Starving::Packets);
    let _agent = Running::new(Agent::new(world.config(&[at(1)]), transports));
    let session = quic.next().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*session.state().borrow(), State::Open, "there is no other");
    assert!(open(&session, Target::Echo).await.is_ok());
    assert!(
        !quic.is_called_within(Duration::from_secs(60)).await,
        "nor a second"
    );

    world.tcp.mend(at(1));
    let stream = open(&session, Target::Echo).await.unwrap();
    let _better = h2.next().await;
    is_succeeded(&session, stream).await;
}

#[tokio::test(start_paused = true)]
async fn the_winner_of_a_network_has_the_head_start_after_a_restart() {
    let world = World::new();
    let (quic, h2) = ends(&world).await;
    world.udp.cut(at(1));
    let mut agent = world.run(world.config(&[at(1)]));
    let session = h2.next().await;
    drop(open(&session, Target::Echo).await.unwrap());
    agent.stop();
    agent.ended().await;
    drop(session);

    world.udp.mend(at(1));
    let _agent = world.run(world.config(&[at(1)]));
    let _session = h2.next().await;
    assert!(!quic.is_called_within(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_new_certificate_gives_each_session_its_successor() {
    let world = World::new();
    let (quic, _h2) = ends(&world).await;
    let files = files(&world);
    let pki = Pki::new();
    put(&files.ca, pki.ca_pem());
    let renew = || {
        let (certificate, key) = pki.client(&format!("system:node:{NODE}"), &["system:nodes"]);
        put(&files.certificate, &certificate);
        put(&files.key, &key);
    };
    renew();
    let credentials = Credentials::load(files.clone()).unwrap();
    let agent = world.agent(world.config(&[at(1)]));
    let _agent = Running::new(agent.with_credentials(credentials));
    let session = quic.next().await;
    let stream = open(&session, Target::Echo).await.unwrap();
    assert!(!quic.is_called_within(Duration::from_secs(60)).await);

    renew();
    let began = Instant::now();
    let _successor = quic.next().await;
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    is_succeeded(&session, stream).await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_without_its_key_leaves_the_session_as_it_is() {
    let world = World::new();
    let (quic, _h2) = ends(&world).await;
    let files = files(&world);
    let pki = Pki::new();
    let (certificate, key) = pki.client(&format!("system:node:{NODE}"), &["system:nodes"]);
    put(&files.ca, pki.ca_pem());
    put(&files.certificate, &certificate);
    put(&files.key, &key);
    let credentials = Credentials::load(files.clone()).unwrap();
    let agent = world.agent(world.config(&[at(1)]));
    let _agent = Running::new(agent.with_credentials(credentials));
    let session = quic.next().await;
    put(&files.certificate, "-----BEGIN CERTIFICATE-----\nMII");
    assert!(!quic.is_called_within(Duration::from_secs(60)).await);
    assert_eq!(*session.state().borrow(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_authority_is_believed_no_more_is_left() {
    let world = World::new();
    let files = files(&world);
    let pki = Pki::new();
    let (certificate, key) = pki.client(&format!("system:node:{NODE}"), &["system:nodes"]);
    put(&files.ca, pki.ca_pem());
    put(&files.certificate, &certificate);
    put(&files.key, &key);
    let name = at(1).ip().to_string();
    let (shown, _) = pki.server(&[&name]);
    let shown = CertificateDer::from_pem_slice(shown.as_bytes()).unwrap();
    let peer = Peer {
        chain: Chain([shown.as_ref().into()].into()),
        ..server(&name)
    };
    let listener = world.udp.transport(peer).listen(at(1)).await.unwrap();
    let agent = world.agent(world.config(&[at(1)]));
    let credentials = Credentials::load(files.clone()).unwrap();
    let _agent = Running::new(agent.with_credentials(credentials));
    let session = listener.accept().await.unwrap().unwrap();
    // A session that is only succeeded would wait for it.
    let _stream = open(&session, Target::Echo).await.unwrap();

    put(&files.ca, Pki::new().ca_pem());
    let State::Closed { reason, .. } = reached(&session, is_over).await else {
        unreachable!("it was waited for");
    };
    assert_eq!(reason, "it has a certificate of an unknown authority");
}

fn files(world: &World) -> Files {
    let at = |name: &str| world.folder().join(name);
    Files {
        ca: at("ca.pem"),
        certificate: at("node.pem"),
        key: at("node.key"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's file need not survive a crash"
)]
fn put(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_has_a_servers_name_and_not_a_servers_certificate_is_no_server() {
    let world = World::new();
    let name = at(1).ip().to_string();
    let impostor = Peer {
        groups: vec!["system:masters".to_owned()],
        ..server(&name)
    };
    let mut listeners = Vec::new();
    for network in [&world.udp, &world.tcp] {
        let listener = network.transport(impostor.clone()).listen(at(1)).await;
        listeners.push(listener.unwrap());
    }
    let _agent = world.run(world.config(&[at(1)]));
    for listener in &listeners {
        let session = listener.accept().await.unwrap().unwrap();
        let asked = open(&session, Target::Echo).await;
        asked.expect_err("it is served");
        reached(&session, is_over).await;
    }
}
