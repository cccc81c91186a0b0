//! Health and metrics, and those who ask for them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, timeout};

use crate::world::{Manner, World, echoes, is_alive};

#[tokio::test]
async fn a_server_is_ready_without_agents_and_with_one_that_answers() {
    let world = World::new();
    let server = world.alone().await;
    let expected = (200, "[+] no agent is connected\nready\n".to_owned());
    assert_eq!(server.page("/readyz").await, expected);
    let _agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let (code, said) = server.page("/readyz").await;
    assert_eq!(code, 200);
    assert!(
        said.starts_with("[+] bytes come back from edge-1 in "),
        "{said}"
    );
}

#[tokio::test]
async fn a_server_is_not_ready_when_no_agent_answers_and_is_when_one_does() {
    let world = World::new();
    let server = world.alone().await;
    let _silent = world.agent("edge-1", &server, Manner::Hangs).await;
    let (code, said) = server.page("/readyz").await;
    assert_eq!(code, 503, "{said}");
    assert!(
        said.starts_with("[-] edge-1: ") && said.ends_with("not ready\n"),
        "{said}"
    );
    let _agent = world.agent("edge-2", &server, Manner::Echoes).await;
    let (code, said) = server.page("/readyz").await;
    assert_eq!(code, 200, "{said}");
}

#[tokio::test]
async fn a_server_whose_agent_has_all_the_streams_that_it_takes_is_ready() {
    let world = World::new();
    let server = world.alone().await;
    let _agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let mut streams = Vec::new();
    for _ in 0..512 {
        streams.push(server.dial("edge-1:10250").await.unwrap());
    }
    let (code, said) = server.page("/readyz").await;
    assert!(
        code == 200 && said.starts_with("[+] edge-1 is busy: "),
        "{said}"
    );
}

#[tokio::test]
async fn agents_that_are_away_do_not_hold_up_a_probe() {
    let world = World::new();
    let server = world.alone().await;
    let _away = world.agent("edge-1", &server, Manner::Hangs).await;
    let _agent = world.agent("edge-2", &server, Manner::Echoes).await;
    for _ in 0..10 {
        let began = Instant::now();
        let (code, said) = server.page("/readyz").await;
        assert_eq!(code, 200, "{said}");
        assert!(began.elapsed() < Duration::from_secs(2), "{said}");
    }
}

#[tokio::test]
async fn an_agent_that_goes_over_to_another_server_makes_this_one_no_less_ready() {
    let world = World::new();
    let server = world.alone().await;
    let agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let mut kept = server.dial("edge-1:10250").await.unwrap();
    agent.session.drain();
    let expected = (200, "[+] no agent is connected\nready\n".to_owned());
    let ready = async { while server.page("/readyz").await != expected {} };
    timeout(Duration::from_secs(5), ready)
        .await
        .expect("it is ready");
    assert!(is_alive(&mut kept).await);
}

#[tokio::test]
async fn a_server_that_knows_no_node_is_not_ready() {
    let world = World::new();
    let server = world.ignorant().await;
    let expected = (503, "[-] no node is known yet\nnot ready\n".to_owned());
    assert_eq!(server.page("/readyz").await, expected);
}

#[tokio::test]
async fn every_metric_that_is_promised_is_there() {
    let world = World::new();
    let server = world.alone().await;
    let _agent = world.agent("edge-1", &server, Manner::Echoes).await;
    echoes(&mut server.dial("edge-1:10250").await.unwrap()).await;
    let (code, page) = server.page("/metrics").await;
    assert_eq!(code, 200);
    for metric in [
        "agents 1",
        "peers 0",
        "streams 0",
        "credit_bytes ",
        "buffers_used_bytes 0",
        "buffers_limit_bytes 67108864",
        "resident_memory_bytes ",
        // The certificates of the tests expire in 2049.
        "certificate_expiry_timestamp_seconds 2493072000",
        "streams_opened_total ",
        "streams_reset_total 0",
        r#"sent_bytes_total{purpose="keep_alive",transport="memory"} "#,
        r#"received_bytes_total{purpose="control",transport="memory"} "#,
        r#"wire_sent_bytes_total{transport="memory"} "#,
        "credit_stalls_total 0",
        "lost_packets_total 0",
        "migrations_total 0",
        r#"dials_total{route="agent",result="connected"} 1"#,
        "dial_duration_seconds_count 1",
        r#"refusals_total{reason="expired"} 0"#,
        r#"refused_claims{reason="taken"} 0"#,
    ] {
        let line = format!("\nyurt_tunnel_server_{metric}");
        assert!(page.contains(&line), "{metric} is not in {page}");
    }
    assert!(page.ends_with("# EOF\n"), "{page}");
}

#[tokio::test]
async fn what_a_node_sends_and_gets_is_counted_after_its_session_is_over_too() {
    let world = World::new();
    let server = world.alone().await;
    let agent = world.agent("edge-1", &server, Manner::Echoes).await;
    echoes(&mut server.dial("edge-1:10250").await.unwrap()).await;
    let received =
        r#"yurt_tunnel_server_received_bytes_total{purpose="streams",transport="memory"}"#;
    let before = server.metric(received).await;
    assert!(before >= 20.0);
    agent.session.close("it goes").await;
    while server.metric("yurt_tunnel_server_agents").await > 0.0 {}
    assert!(server.metric(received).await >= before);
}

#[tokio::test]
async fn what_is_not_asked_for_as_it_should_be_has_an_answer_that_says_so() {
    let world = World::new();
    let server = world.alone().await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9 << 10));
    for (request, answer) in [
        (&b"POST /metrics HTTP/1.1\r\n\r\n"[..], "HTTP/1.1 405 "),
        (b"GET /secrets HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "),
        (b"GET /check HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        (b"GET /check?node=../a HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            "HTTP/1.1 400 ",
        ),
        (long.as_bytes(), "HTTP/1.1 400 "),
    ] {
        let said = server.ask(request).await;
        assert!(said.starts_with(answer), "{said:?} to {request:?}");
    }
}

#[tokio::test]
async fn clients_that_never_ask_keep_a_probe_out_for_some_seconds_at_most() {
    let world = World::new();
    let server = world.alone().await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(server.admin).await.unwrap();
        stream.write_all(b"GET /hea").await.unwrap();
        idle.push(stream);
    }
    let probe = timeout(Duration::from_secs(15), server.page("/healthz"));
    assert_eq!(probe.await.expect("a probe is answered").0, 200);
    let mut rest = Vec::new();
    let ended = timeout(Duration::from_secs(15), idle[0].read_to_end(&mut rest));
    let _ = ended.await.expect("who never asks is let go");
}
