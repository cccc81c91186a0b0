//! Who may come in by which door.

use testbed::pki::Pki;
use tokio::io::AsyncWriteExt;

use super::bed::{Bed, answer, client, rest, shake, soon, until};
use super::targets::Target;

const REQUEST: &[u8] = b"CONNECT edge-1:10250 HTTP/1.1\r\n\r\n";

#[tokio::test]
async fn a_certificate_opens_its_own_door_only() {
    let bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    for (user, groups, listener, connect) in [
        ("kube-apiserver", &[][..], "200", "403"),
        (
            "kube-apiserver-kubelet-client",
            &["system:masters"],
            "200",
            "403",
        ),
        ("prometheus", &[], "403", "200"),
        ("admin", &["system:masters"], "403", "403"),
        ("system:node:edge-1", &["system:nodes"], "403", "403"),
    ] {
        for (address, code) in [(bed.listen, listener), (bed.connect, connect)] {
            let asked = bed.roads.asked.lock().len();
            let mut stream = shake(&bed.client(user, groups), address).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            let head = answer(&mut stream).await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {code} ")),
                "{user}: {head}"
            );
            if code == "403" {
                let why = rest(&mut stream).await;
                assert!(why.contains(user), "{why}");
                assert_eq!(
                    bed.roads.asked.lock().len(),
                    asked,
                    "nothing is dialled for {user}"
                );
            }
        }
    }
}

#[tokio::test]
async fn without_a_certificate_of_the_authority_nobody_comes_in() {
    let bed = Bed::open();
    let foreign = Pki::new();
    let (certificate, key) = foreign.client("prometheus", &[]);
    let unknown = client(&bed.pki, Some((&certificate, &key)), rustls::ALL_VERSIONS);
    let (certificate, key) = bed.pki.server(&["prometheus"]);
    let wrong_usage = client(&bed.pki, Some((&certificate, &key)), rustls::ALL_VERSIONS);
    let past = testbed::pki::Validity {
        not_before: "2020-01-01T00:00:00Z".parse().unwrap(),
        not_after: "2020-01-02T00:00:00Z".parse().unwrap(),
    };
    let (certificate, key) = bed.pki.client_for("prometheus", &[], past);
    let expired = client(&bed.pki, Some((&certificate, &key)), rustls::ALL_VERSIONS);
    let none = client(&bed.pki, None, rustls::ALL_VERSIONS);
    for (config, reason) in [
        (none, "no_certificate"),
        (unknown, "unknown_authority"),
        (wrong_usage, "wrong_usage"),
        (expired, "expired"),
    ] {
        for address in [bed.listen, bed.connect] {
            // In TLS 1.3 a client learns of it when it reads.
            if let Ok(mut stream) = shake(&config, address).await {
                drop(stream.write_all(REQUEST).await);
                let read = soon(tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 16])).await;
                assert!(!matches!(read, Ok(1..)), "{reason}");
            }
        }
        let line = |door| format!("door_refusals_total{{door=\"{door}\",reason=\"{reason}\"}} 1");
        until("it is counted", || {
            let lines = bed.counted("door_refusals_total");
            ["egress", "connect"]
                .iter()
                .all(|door| lines.contains(&line(door)))
        })
        .await;
    }
    assert_eq!(*bed.roads.asked.lock(), []);
}

#[tokio::test]
async fn clients_of_both_versions_of_tls_come_in() {
    let bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    let (certificate, key) = bed.pki.client("kube-apiserver", &[]);
    for version in rustls::ALL_VERSIONS {
        let config = client(&bed.pki, Some((&certificate, &key)), &[version]);
        let mut stream = shake(&config, bed.listen).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
    }
}
