//! Servers that are restarted one after the other, under a client that dials all the time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use yurt_tunnel::egress::{self, Doors};
use yurt_tunnel::server::Config;

use crate::world::{Agent, Manner, Running, SOON, World, at, echoes, is_alive};

/// How often the client dials.
const EVERY: Duration = Duration::from_millis(100);

/// A door of a server, as long as this lives.
struct Door(JoinSet<Result<(), egress::Error>>);

impl Door {
    fn open(world: &World, socket: &Path, server: &Running) -> Self {
        let config = egress::Config {
            socket: Some(socket.to_owned()),
            ..egress::Config::default()
        };
        let credentials = world.credentials("192.0.2.1");
        let doors = Doors::open(config, credentials, server.dial.clone()).unwrap();
        let mut running = JoinSet::new();
        running.spawn(doors.run(server.shutdown.clone(), server.work.clone()));
        Self(running)
    }

    async fn ended(mut self) {
        let ended = timeout(SOON, self.0.join_next()).await;
        ended.expect("the door closes").unwrap().unwrap().unwrap();
    }
}

async fn dial(socket: &Path, target: &str) -> Result<UnixStream, String> {
    let failed = |error: std::io::Error| format!("{target}: {error}");
    let mut stream = UnixStream::connect(socket).await.map_err(failed)?;
    let head = format!("CONNECT {target} HTTP/1.1\r\n\r\n");
    stream.write_all(head.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.map_err(failed)?);
    }
    match String::from_utf8(answer).unwrap() {
        answer if answer.starts_with("HTTP/1.1 200 ") => Ok(stream),
        answer => Err(format!("{target}: {answer}")),
    }
}

/// Dials every target all the time until the count says stop; returns how often, and fails at the first dial that does.
async fn keep_dialling(socket: PathBuf, targets: [String; 2], stop: impl Fn() -> bool) -> usize {
    let mut dials = 0;
    while !stop() {
        for target in &targets {
            let mut stream = dial(&socket, target).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'x', "{target}");
            dials += 1;
        }
        sleep(EVERY).await;
    }
    dials
}

async fn leaves(agent: Agent) {
    agent.session.close("it has another server").await;
}

fn peer_of(peer: u8) -> impl FnOnce(&mut Config) {
    move |config| config.peers = vec![at(peer).into()]
}

#[tokio::test]
async fn no_dial_fails_while_two_servers_are_restarted_one_after_the_other() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("egress.sock");
    let webhook = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let direct = webhook.local_addr().unwrap().to_string();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = webhook.accept().await {
            connections.spawn(async move {
                let (mut read, mut write) = stream.split();
                drop(tokio::io::copy(&mut read, &mut write).await);
            });
            while connections.try_join_next().is_some() {}
        }
    });
    let [mut first, mut second] = world.two().await;
    let door = Door::open(&world, &socket, &first);
    let on_second = world.agent("edge-1", &second, Manner::Echoes).await;
    drop(first.reaches("edge-1:10250").await);
    let on_first = world.agent("edge-1", &first, Manner::Echoes).await;
    let mut follows = dial(&socket, "edge-1:10250").await.unwrap();
    let restarted = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = {
        let restarted = restarted.clone();
        move || restarted.load(std::sync::atomic::Ordering::Relaxed)
    };
    let mut client = JoinSet::new();
    let targets = ["edge-1:10250".to_owned(), direct];
    client.spawn(keep_dialling(socket.clone(), targets, stop));

    first.shut_down();
    sleep(10 * EVERY).await;
    assert!(first.is_running());
    let next = world.server(at(1), peer_of(2)).await;
    let on_next = world.agent("edge-1", &next, Manner::Echoes).await;
    let next_door = Door::open(&world, &socket, &next);
    sleep(5 * EVERY).await;
    follows.write_all(b"x").await.unwrap();
    assert_eq!(follows.read_u8().await.unwrap(), b'x', "it goes on");
    drop(follows);
    leaves(on_first).await;
    door.ended().await;
    first.ended().await;

    second.shut_down();
    leaves(on_second).await;
    second.ended().await;
    let _second = world.server(at(2), peer_of(1)).await;
    sleep(5 * EVERY).await;
    restarted.store(true, std::sync::atomic::Ordering::Relaxed);
    let dials = timeout(SOON, client.join_next()).await.unwrap().unwrap();
    let dials = dials.expect("no dial fails");
    assert!(dials > 40, "{dials}");
    drop((on_next, next_door));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_reaches_nodes_by_the_others_to_its_end() {
    let world = World::new();
    let [mut first, second] = world.two().await;
    let _elsewhere = world.agent("edge-1", &second, Manner::Echoes).await;
    drop(first.reaches("edge-1:10250").await);
    let here = world.agent("edge-2", &first, Manner::Echoes).await;
    let mut follows = first.dial("edge-2:10250").await.unwrap();
    first.shut_down();
    for _ in 0..200 {
        echoes(&mut first.dial("edge-1:10250").await.unwrap()).await;
        sleep(EVERY).await;
    }
    assert!(is_alive(&mut follows).await);
    drop(follows);
    here.session.close("it has another server").await;
    let began = Instant::now();
    first.ended().await;
    assert!(began.elapsed() < Duration::from_secs(2));
}
