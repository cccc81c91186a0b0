//! How soon everything goes on when a server is killed.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use yurt_tunnel::agent::{Agent, Config};
use yurt_tunnel::transport::NamedTransport;

use crate::agents::transport;
use crate::rows::{ask, median, row};
use crate::setup::{Fault, Way, reached};
use crate::site::{Site, free_port};
use crate::target::ECHO;

/// How many agents lose their server at once.
const AGENTS: usize = 1000;

/// How often each is killed; the median counts.
const ROUNDS: usize = 3;

/// Kills a server of a thousand agents and starts it again at once.
pub(crate) async fn restart(way: Way) -> Result<(), Fault> {
    let site = Site::new().await?;
    let (listen, admin) = (free_port()?, free_port()?);
    let mut server = site.server("server", listen, admin, &[])?;
    let shutdown = CancellationToken::new();
    let _guard = shutdown.clone().drop_guard();
    let mut agents = JoinSet::new();
    for number in 0..AGENTS {
        let name = format!("many-{number}");
        let credentials = site.node(&name, &name)?;
        let transports = vec![NamedTransport {
            name: way.label(),
            transport: transport(way, credentials.clone()),
            is_udp: false,
        }];
        let folder = site.folder.path().join(&name);
        let config = Config::new(name.parse()?, vec![listen.into()], folder);
        let agent = Agent::new(config, transports).with_credentials(credentials);
        agents.spawn(agent.run(shutdown.clone()));
    }
    connected(admin).await?;
    let mut seconds = Vec::new();
    for _ in 0..ROUNDS {
        drop(server);
        server = site.server("server", listen, admin, &[])?;
        let began = Instant::now();
        connected(admin).await?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    let figure = format!("{:.1} s", median(seconds));
    let what = format!("{AGENTS} agents are back after a kill -9");
    row(way, &what, &figure, "<= 5 s");
    Ok(())
}

/// Waits until the server has all agents.
async fn connected(admin: SocketAddr) -> Result<(), Fault> {
    let until = Instant::now() + Duration::from_secs(120);
    while Instant::now() < until {
        if agents(admin).await.is_ok_and(|count| count >= AGENTS) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(format!("{:?} agents of {AGENTS}", agents(admin).await).into())
}

async fn agents(admin: SocketAddr) -> Result<usize, Fault> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    let mut lines = page.lines();
    let count = lines.find_map(|line| line.strip_prefix("yurt_tunnel_server_agents "));
    Ok(count.ok_or("no such metric")?.trim().parse()?)
}

/// Dials by one of two servers while the other is killed.
pub(crate) async fn one_of_two(way: Way) -> Result<(), Fault> {
    let (mut longest, mut failed) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        let site = Site::new().await?;
        let (a, b) = (free_port()?, free_port()?);
        let killed = site.server("a", a, free_port()?, &[b])?;
        let _stays = site.server("b", b, free_port()?, &[a])?;
        let _agent = site.agent(way, &[a, b])?;
        let dialers = [site.dialer("a"), site.dialer("b")];
        for dialer in &dialers {
            reached(dialer).await?;
        }
        let mut killed = Some(killed);
        let (began, mut worst) = (Instant::now(), Duration::ZERO);
        while began.elapsed() < Duration::from_secs(12) {
            if began.elapsed() > Duration::from_secs(1) {
                killed = None;
            }
            let asked = Instant::now();
            let answered = async {
                let mut stream = dialers[1].dial(ECHO).await?;
                ask(&mut stream, 1).await
            };
            match timeout(Duration::from_secs(8), answered).await {
                Ok(Ok(_)) => worst = worst.max(asked.elapsed()),
                Ok(Err(_)) | Err(_) => failed += 1,
            }
            sleep(Duration::from_millis(10)).await;
        }
        drop(killed);
        longest.push(worst.as_secs_f64() * 1e3);
    }
    let figure = format!("{failed} fail, the longest {:.0} ms", median(longest));
    row(
        way,
        "dials while the other server is killed",
        &figure,
        "<= 1 s",
    );
    Ok(())
}
