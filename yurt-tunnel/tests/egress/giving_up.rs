//! Clients that go between their request and the answer.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bed::{Bed, DOORS, Door, Road, soon, until};
use super::targets::{Target, noise};

const REQUEST: &[u8] = b"CONNECT edge-1:10250 HTTP/1.1\r\n\r\n";

/// Doors whose dials nothing else ends.
fn patient() -> Bed {
    Bed::with(|config| config.limits.dial = Duration::from_secs(3_600))
}

#[tokio::test]
async fn a_client_that_gives_up_frees_the_target_at_once() {
    let bed = patient();
    let (target, mut taken) = Target::held().await;
    bed.roads.lead("edge-1", Road::Late(target.address));
    for door in DOORS {
        let mut stream = bed.knock(door).await;
        stream.write_all(REQUEST).await.unwrap();
        let mut at_target = soon(taken.recv()).await.unwrap();
        drop(stream);
        let read = soon(at_target.read(&mut [0; 8])).await;
        assert_eq!(read.unwrap_or(0), 0, "{door:?}");
        until("the dial is dropped", || bed.roads.running() == 0).await;
    }
    until("they are counted", || {
        bed.counted("door_gave_up_total").len() == 3
    })
    .await;
}

#[tokio::test]
async fn a_client_that_gives_up_is_noticed_behind_bytes_that_nobody_reads() {
    let bed = patient();
    let (target, mut taken) = Target::held().await;
    bed.roads.lead("edge-1", Road::Late(target.address));
    for door in DOORS {
        let mut stream = bed.knock(door).await;
        stream.write_all(REQUEST).await.unwrap();
        let mut at_target = soon(taken.recv()).await.unwrap();
        stream.write_all(&noise(50_000)).await.unwrap();
        stream.flush().await.unwrap();
        drop(stream);
        assert_eq!(
            soon(at_target.read(&mut [0; 8])).await.unwrap_or(0),
            0,
            "{door:?}"
        );
    }
}

#[tokio::test]
async fn a_thousand_that_give_up_leave_nothing() {
    let bed = patient();
    bed.roads.lead("edge-1", Road::Never);
    for _ in 0..1_000 {
        let mut stream = bed.knock(Door::Socket).await;
        stream.write_all(REQUEST).await.unwrap();
    }
    let gave_up = "door_gave_up_total{door=\"egress_socket\"} 1000";
    until("all are gone", || {
        bed.counted("door_gave_up_total") == [gave_up]
    })
    .await;
    assert_eq!(bed.roads.running(), 0);
    assert_eq!(
        bed.counted("door_tunnels{"),
        ["door_tunnels{door=\"egress_socket\"} 0"]
    );
}

#[tokio::test]
async fn one_who_waits_while_others_give_up_gets_the_tunnel() {
    let bed = Bed::open();
    bed.roads.lead("edge-1", Road::Never);
    bed.lead("edge-2", Target::echo().await);
    for door in DOORS {
        let mut stream = bed.knock(door).await;
        stream.write_all(REQUEST).await.unwrap();
        drop(stream);
        soon(bed.dial(door, "edge-2:10250")).await.unwrap();
    }
}
