//! What servers tell of their like, and what is remembered of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use yurt_core::transport::{Opener, Target};

use super::world::{Cloud, World, at, open};
use crate::dial::Address;
use crate::servers;

/// Tells a list; returns the name that the agent's process answers, if it takes the list to its end.
async fn tell(session: &Arc<dyn Opener>, bytes: &[u8]) -> Option<String> {
    let mut stream = open(session, Target::Servers).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // The agent has read it when its own direction ends; a list that is too long is not read to its end.
    let _ = stream.read_to_end(&mut answer).await;
    servers::decode_answer(&answer)
}

fn list(lasts: &[u8]) -> Vec<u8> {
    let servers: Vec<Address> = lasts.iter().map(|&last| at(last).into()).collect();
    servers::encode(&servers)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_another_tells_of_is_linked_and_remembered() {
    let world = World::new();
    let first = Cloud::new(&world.udp, at(1)).await;
    let second = Cloud::new(&world.udp, at(2)).await;
    let mut agent = world.run(world.config(&[at(1)]));
    let session = first.next().await;
    tell(&session, &list(&[1, 2])).await;
    let _second = second.next().await;
    agent.stop();
    agent.ended().await;

    // The first is gone for good, and nobody else knows of the second.
    drop((session, first));
    let _agent = world.run(world.config(&[at(1)]));
    let _session = second.next().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_nobody_tells_of_any_more_is_left() {
    let world = World::new();
    let first = Cloud::new(&world.udp, at(1)).await;
    let second = Cloud::new(&world.udp, at(2)).await;
    let _agent = world.run(world.config(&[at(1)]));
    let session = first.next().await;
    tell(&session, &list(&[1, 2])).await;
    let left = second.next().await;
    tell(&session, &list(&[1])).await;
    super::world::reached(&left, super::world::is_over).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_none_changes_nothing() {
    let world = World::new();
    let first = Cloud::new(&world.udp, at(1)).await;
    let second = Cloud::new(&world.udp, at(2)).await;
    let _agent = world.run(world.config(&[at(1)]));
    let session = first.next().await;
    let long = vec![b' '; servers::MAX_BYTES + 1];
    for bytes in [&b"{}"[..], b"", b"\xff", &long] {
        tell(&session, bytes).await;
    }
    assert!(!second.is_called_within(Duration::from_secs(60)).await);
    tell(&session, &list(&[2])).await;
    let _second = second.next().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_elsewhere_than_the_configured_ones_is_neither_dialled_nor_remembered() {
    let world = World::new();
    let first = Cloud::new(&world.udp, at(1)).await;
    let elsewhere = SocketAddr::from(([127, 2, 0, 1], 443));
    let second = Cloud::new(&world.udp, elsewhere).await;
    let mut agent = world.run(world.config(&[at(1)]));
    let session = first.next().await;
    tell(
        &session,
        &servers::encode(&[at(1).into(), elsewhere.into()]),
    )
    .await;
    assert!(!second.is_called_within(Duration::from_secs(60)).await);
    agent.stop();
    agent.ended().await;
    let remembered = std::fs::read_to_string(world.folder().join("servers.json")).unwrap();
    assert!(!remembered.contains("127.2.0.1"), "{remembered}");
}

#[tokio::test(start_paused = true)]
async fn a_process_has_one_name_at_all_servers_and_another_process_another() {
    let world = World::new();
    let first = Cloud::new(&world.udp, at(1)).await;
    let second = Cloud::new(&world.udp, at(2)).await;
    let mut names = Vec::new();
    for _ in 0..2 {
        let mut agent = world.run(world.config(&[at(1), at(2)]));
        for cloud in [&first, &second] {
            let session = cloud.next().await;
            names.push(tell(&session, &list(&[1, 2])).await.unwrap());
        }
        agent.stop();
        agent.ended().await;
    }
    assert_eq!([&names[0], &names[2]], [&names[1], &names[3]]);
    assert_ne!(names[0], names[2]);
}
