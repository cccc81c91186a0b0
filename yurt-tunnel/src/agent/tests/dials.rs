//! What becomes of a stream that a server wants. The targets are real sockets of this machine, so the time is real.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use yurt_core::testing::transport::{memory_pair, node, server};
use yurt_core::transport::{Acceptor, Error, ErrorKind, Open, Opener, Stream, Target};

use super::world::{Cloud, NODE, Running, World, at, open};
use crate::agent::dial::Dialer;
use crate::agent::memory::Remembered;
use crate::agent::{Config, Shared};

const LIMIT: Duration = Duration::from_secs(10);

/// A session with an agent that may dial a listener of this machine.
struct Site {
    session: Arc<dyn Opener>,
    listener: TcpListener,
    target: SocketAddr,
    _agent: Running,
    _cloud: Cloud,
    _world: World,
}

impl Site {
    async fn new() -> Self {
        let world = World::new();
        let cloud = Cloud::new(&world.udp, at(1)).await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = listener.local_addr().unwrap();
        let mut config = world.config(&[at(1)]);
        config.allow = vec![target.to_string().parse().unwrap()];
        let agent = world.run(config);
        Self {
            session: cloud.next().await,
            listener,
            target,
            _agent: agent,
            _cloud: cloud,
            _world: world,
        }
    }

    async fn dial(&self, host: &str, port: u16) -> Result<Box<dyn Stream>, Error> {
        open(&self.session, Target::dial(host, port).unwrap()).await
    }

    /// Returns both ends of a dial.
    async fn connected(&self) -> (Box<dyn Stream>, TcpStream) {
        let ends = tokio::join!(
            self.dial("127.0.0.1", self.target.port()),
            self.listener.accept()
        );
        (ends.0.unwrap(), ends.1.unwrap().0)
    }
}

async fn kind(dialled: Result<Box<dyn Stream>, Error>) -> (ErrorKind, String) {
    let error = dialled.unwrap_err();
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn a_request_that_ends_gets_its_whole_answer() {
    let site = Site::new().await;
    let (mut stream, mut target) = site.connected().await;
    stream.write_all(b"a question").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut question = String::new();
    target.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "a question");
    let answer = vec![7; 1 << 20];
    let sent = async {
        target.write_all(&answer).await.unwrap();
        target.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (_, read) = tokio::join!(sent, stream.read_to_end(&mut received));
    read.unwrap();
    assert_eq!(received, answer);
}

#[tokio::test]
async fn an_answer_that_ends_first_leaves_the_request_open() {
    let site = Site::new().await;
    let (mut stream, mut target) = site.connected().await;
    target.write_all(b"all I say").await.unwrap();
    target.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "all I say");
    stream.write_all(b"still asking").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut question = String::new();
    target.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "still asking");
}

/// Writes until nothing more is taken for a while.
async fn fill(end: &mut (impl AsyncWrite + Unpin)) {
    let (piece, quiet) = (vec![7; 64 << 10], Duration::from_millis(30));
    while let Ok(written) = timeout(quiet, end.write(&piece)).await {
        written.unwrap();
    }
}

#[tokio::test]
async fn whoever_resets_the_other_end_knows_whatever_is_stalled_or_has_ended() {
    for bits in 0..32 {
        let is = |bit: u8| bits & 1 << bit != 0;
        let [up_is_full, down_is_full, stream_has_ended, target_has_ended] =
            [is(0), is(1), is(2), is(3)];
        if stream_has_ended && (target_has_ended || up_is_full) || target_has_ended && down_is_full
        {
            continue; // an end like any other
        }
        let site = Site::new().await;
        let (mut stream, mut target) = site.connected().await;
        if stream_has_ended {
            stream.shutdown().await.unwrap();
            assert_eq!(target.read(&mut [0]).await.unwrap(), 0);
        }
        if target_has_ended {
            target.shutdown().await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        }
        if up_is_full {
            fill(&mut stream).await;
        }
        if down_is_full {
            fill(&mut target).await;
        }
        let case = format!("case {bits:05b}");
        if is(4) {
            stream.reset(7);
            let gone = async {
                while !target
                    .ready(Interest::WRITABLE)
                    .await
                    .unwrap()
                    .is_write_closed()
                {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(LIMIT, gone).await.expect(&case);
        } else {
            target.set_zero_linger().unwrap();
            drop(target);
            let reset = timeout(LIMIT, poll_fn(|cx| stream.poll_reset(cx))).await;
            let reset = reset.expect(&case);
            assert_eq!(
                Error::of(&reset).unwrap().kind(),
                ErrorKind::Reset(1),
                "{case}"
            );
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_is_no_clean_end_for_the_target() {
    let site = Site::new().await;
    let (mut stream, mut target) = site.connected().await;
    stream.write_all(b"half of a").await.unwrap();
    let mut half = [0; 9];
    target.read_exact(&mut half).await.unwrap();
    stream.reset(7);
    drop(stream);
    let read = timeout(LIMIT, target.read_to_end(&mut Vec::new()))
        .await
        .unwrap();
    assert_eq!(
        read.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn an_agent_that_ends_at_once_is_no_clean_end_for_its_targets() {
    let site = Site::new().await;
    let (mut stream, mut target) = site.connected().await;
    stream.write_all(b"half of a").await.unwrap();
    let mut half = [0; 9];
    target.read_exact(&mut half).await.unwrap();
    drop(site);
    let read = timeout(LIMIT, target.read_to_end(&mut Vec::new()))
        .await
        .unwrap();
    assert_eq!(
        read.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn a_target_that_breaks_off_is_no_clean_end_for_the_server() {
    let site = Site::new().await;
    let (mut stream, mut target) = site.connected().await;
    target.write_all(b"half of an").await.unwrap();
    let mut half = [0; 10];
    stream.read_exact(&mut half).await.unwrap();
    socket2::SockRef::from(&target)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(target);
    let read = timeout(LIMIT, stream.read_to_end(&mut Vec::new()))
        .await
        .unwrap();
    let error = read.unwrap_err();
    assert!(
        matches!(Error::of(&error).unwrap().kind(), ErrorKind::Reset(_)),
        "{error}"
    );
}

#[tokio::test]
async fn a_dial_to_a_closed_port_is_refused() {
    let mut site = Site::new().await;
    let port = site.target.port();
    site.listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (kind, message) = kind(site.dial("127.0.0.1", port).await).await;
    assert_eq!(kind, ErrorKind::Refused, "{message}");
    assert_eq!(
        message,
        format!("dial 127.0.0.1:{port}: the connection is refused")
    );
}

#[tokio::test]
async fn a_dial_that_no_rule_allows_is_forbidden_and_reaches_nobody() {
    let site = Site::new().await;
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = other.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost", "::ffff:127.0.0.1", "0.0.0.0"] {
        let (kind, message) = kind(site.dial(host, port).await).await;
        assert_eq!(kind, ErrorKind::Forbidden, "{host}: {message}");
    }
    let (kind, message) = kind(site.dial("127.1.0.1", 443).await).await;
    assert_eq!(
        (kind, message.contains("servers")),
        (ErrorKind::Forbidden, true),
        "{message}"
    );
    assert!(
        timeout(Duration::from_millis(100), other.accept())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_stream_for_another_node_is_forbidden() {
    let site = Site::new().await;
    let dial = |node: &str| Target::Dial {
        node: Some(node.parse().unwrap()),
        host: "127.0.0.1".to_owned(),
        port: site.target.port(),
    };
    let (kind, message) = kind(open(&site.session, dial("edge-2")).await).await;
    assert_eq!(kind, ErrorKind::Forbidden, "{message}");
    let (dialled, _) = tokio::join!(open(&site.session, dial("edge-1")), site.listener.accept());
    dialled.unwrap();
}

/// A listener that takes no more connections, so that connecting to it does not end.
struct Deaf {
    listener: socket2::Socket,
    _waiting: Vec<std::net::TcpStream>,
}

impl Deaf {
    fn new() -> Self {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let listener = listener.unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50));
        let waiting = std::iter::from_fn(|| connect().ok()).collect();
        Self {
            listener,
            _waiting: waiting,
        }
    }

    fn port(&self) -> u16 {
        self.listener
            .local_addr()
            .unwrap()
            .as_socket()
            .unwrap()
            .port()
    }
}

/// A session that the test answers by itself, with what the agent's parts share.
fn desk(dials: usize) -> (Arc<dyn Opener>, Arc<dyn Acceptor>, Arc<Shared>) {
    desk_with(|config| config.dials = dials)
}

fn desk_with(
    change: impl FnOnce(&mut Config),
) -> (Arc<dyn Opener>, Arc<dyn Acceptor>, Arc<Shared>) {
    let (opener, acceptor) = memory_pair(server("cloud"), node(NODE));
    let world = World::new();
    let mut config = world.config(&[]);
    config.allow = vec!["127.0.0.0/8:*".parse().unwrap()];
    change(&mut config);
    let shared = Shared::new(config, Vec::new(), Remembered::default());
    (opener, acceptor, Arc::new(shared))
}

#[tokio::test]
async fn a_dial_that_the_server_gives_up_is_given_up() {
    let deaf = Deaf::new();
    let (opener, acceptor, shared) = desk(8);
    let target = Target::dial("127.0.0.1", deaf.port()).unwrap();
    let dialer = Arc::new(Dialer::new(shared.clone(), at(1)));
    let opening = opener.open(Open::new(target, LIMIT));
    let incoming = tokio::select! {
        incoming = acceptor.accept() => incoming.unwrap(),
        _ = opening => unreachable!("nobody has answered"),
    };
    // The opening was dropped with the select.
    timeout(LIMIT / 4, dialer.answer(incoming)).await.unwrap();
    let metrics = shared.metrics.text();
    assert!(
        metrics.contains(r#"dials_total{result="cancelled"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_dial_that_nobody_answers_ends_at_its_deadline() {
    let deaf = Deaf::new();
    let (opener, acceptor, shared) = desk(8);
    let target = Target::dial("127.0.0.1", deaf.port()).unwrap();
    let dialer = Arc::new(Dialer::new(shared.clone(), at(1)));
    let answering = async { dialer.answer(acceptor.accept().await.unwrap()).await };
    // The opener's own deadline is later than that of the open.
    let deadline = Duration::from_millis(300);
    let (_, opened) = tokio::join!(answering, opener.open(Open::new(target, deadline)));
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Timeout);
    let metrics = shared.metrics.text();
    let is_counted =
        |result: &str| metrics.contains(&format!("dials_total{{result=\"{result}\"}} 1"));
    assert!(
        is_counted("timeout") || is_counted("cancelled"),
        "{metrics}"
    );
}

#[tokio::test]
async fn more_dials_than_the_agent_takes_wait_and_are_refused_as_overload_when_that_takes_too_long()
{
    let deaf = Deaf::new();
    let (opener, acceptor, shared) = desk(1);
    let dialer = Arc::new(Dialer::new(shared, at(1)));
    let mut answering = tokio::task::JoinSet::new();
    let mut open = async |port, limit| {
        let target = Target::dial("127.0.0.1", port).unwrap();
        let opener = opener.clone();
        let opening = tokio::task::JoinSet::from_iter([async move {
            opener.open(Open::new(target, limit)).await
        }]);
        answering.spawn(dialer.clone().answer(acceptor.accept().await.unwrap()));
        opening
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let first = open(deaf.port(), LIMIT).await;
    let mut second = open(port, LIMIT / 8).await;
    let mut third = open(port, LIMIT).await;
    let refused = second.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    drop(first);
    let third = timeout(LIMIT / 4, third.join_next()).await.unwrap();
    third.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn the_nodes_own_name_is_the_nodes_own_address() {
    let (opener, acceptor, shared) = desk(1);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = listener.local_addr().unwrap();
    let dialer = Arc::new(Dialer::new(shared, server));
    let answering = async { dialer.answer(acceptor.accept().await.unwrap()).await };
    let target = Target::dial(NODE.to_uppercase(), server.port()).unwrap();
    let opening = async { drop(opener.open(Open::new(target, LIMIT)).await.unwrap()) };
    let (_, _, accepted) = tokio::join!(answering, opening, listener.accept());
    assert_eq!(accepted.unwrap().1.ip(), Ipv4Addr::LOCALHOST);
}

#[tokio::test]
async fn an_address_of_the_node_that_no_interface_has_leads_to_its_kubelet_and_to_nothing_else() {
    const NAT: &str = "203.0.113.9";
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = listener.local_addr().unwrap();
    let (opener, acceptor, shared) = desk_with(|config| config.kubelet_port = server.port());
    let dialer = Arc::new(Dialer::new(shared, server));
    let dial = async |node: Option<&str>, port| {
        let target = Target::Dial {
            node: node.map(|node| node.parse().unwrap()),
            host: NAT.to_owned(),
            port,
        };
        let dialer = dialer.clone();
        let answering = async { dialer.answer(acceptor.accept().await.unwrap()).await };
        let opening = async { opener.open(Open::new(target, LIMIT)).await.map(drop) };
        tokio::join!(answering, opening).1
    };
    dial(Some(NODE), server.port()).await.unwrap();
    listener.accept().await.unwrap();
    for (node, port) in [(Some(NODE), 9100), (None, server.port())] {
        let refused = dial(node, port).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden);
        let said = refused.to_string();
        assert!(said.contains("on no interface of the node"), "{said}");
    }
}

#[tokio::test]
async fn what_is_sent_to_the_agent_itself_comes_back() {
    let site = Site::new().await;
    let mut stream = open(&site.session, Target::Echo).await.unwrap();
    stream.write_all(b"is anybody there?").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "is anybody there?");
}
