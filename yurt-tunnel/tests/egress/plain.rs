//! Targets without TLS, as clients ask a proxy for them: by their whole address.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bed::{Bed, DOORS, Door, Road, answer, rest, shake, soon, until};
use super::targets::Target;

const REQUEST: &str =
    "GET http://edge-1:9100/metrics HTTP/1.1\r\nHost: edge-1:9100\r\nAccept: */*\r\n\r\n";
const TOLD: &str =
    "GET /metrics HTTP/1.1\r\nHost: edge-1:9100\r\nAccept: */*\r\nConnection: close\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nup 1\n";

#[tokio::test]
async fn a_target_without_tls_is_asked_and_its_answer_comes_back_to_the_end() {
    let bed = Bed::open();
    let (target, mut taken) = Target::held().await;
    bed.roads.lead("edge-1", Road::To(target.address));
    for door in DOORS {
        let mut stream = bed.knock(door).await;
        stream.write_all(REQUEST.as_bytes()).await.unwrap();
        let mut at_target = soon(taken.recv()).await.unwrap();
        assert_eq!(answer(&mut at_target).await, TOLD, "{door:?}");
        at_target.write_all(ANSWER.as_bytes()).await.unwrap();
        drop(at_target);
        assert_eq!(rest(&mut stream).await, ANSWER, "{door:?}");
        stream.shutdown().await.unwrap();
    }
    let asked = std::mem::take(&mut *bed.roads.asked.lock());
    assert!(asked.iter().all(|(_, to)| to.to_string() == "edge-1:9100"));
    until("the tunnels have ended", || {
        let open = bed.counted("door_tunnels{");
        open.iter().all(|line| line.ends_with(" 0"))
    })
    .await;
    let broken = bed.counted("door_aborted_total");
    assert!(broken.iter().all(|line| line.ends_with(" 0")), "{broken:?}");
}

#[tokio::test]
async fn a_second_request_of_the_connection_does_not_reach_the_target_of_the_first() {
    let bed = Bed::open();
    let (target, mut taken) = Target::held().await;
    bed.roads.lead("edge-1", Road::To(target.address));
    let mut stream = bed.knock(Door::Connect).await;
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    let mut at_target = soon(taken.recv()).await.unwrap();
    assert_eq!(answer(&mut at_target).await, TOLD);
    let other = "GET http://edge-2:9100/ HTTP/1.1\r\n\r\n";
    stream.write_all(other.as_bytes()).await.unwrap();
    let mut more = Vec::new();
    soon(at_target.read_to_end(&mut more)).await.unwrap_err();
    assert_eq!(more, b"");
    assert_eq!(bed.roads.asked.lock().len(), 1);
}

#[tokio::test]
async fn who_has_no_rule_gets_nothing_of_a_target_without_tls() {
    let bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    let mut stream = shake(&bed.client("somebody", &[]), bed.connect)
        .await
        .unwrap();
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    let refused = answer(&mut stream).await;
    assert!(refused.starts_with("HTTP/1.1 403 Forbidden: "), "{refused}");
    assert_eq!(*bed.roads.asked.lock(), []);
}
