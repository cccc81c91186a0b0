//! What many agents cost a server.

use std::sync::Arc;

use tokio::task::JoinSet;
use yurt_core::transport::{Acceptor, Transport};
use yurt_tunnel::identity::Credentials;
use yurt_tunnel::link::Config;
use yurt_tunnel::transport::h2::H2Transport;
use yurt_tunnel::transport::quic::QuicTransport;

use crate::process;
use crate::rows::row;
use crate::setup::{Fault, Setup, Way};

/// How many agents there are.
const AGENTS: usize = 1000;

pub(crate) async fn rows(setup: &Setup) -> Result<(), Fault> {
    let server = setup.server.id();
    let mut agents = Vec::new();
    connect(setup, 0..100, &mut agents).await?;
    let before = (process::memory(server)?, process::cpu(server)?);
    connect(setup, 100..100 + AGENTS, &mut agents).await?;
    let each = (process::memory(server)? - before.0) / AGENTS as f64;
    let cpu = (process::cpu(server)? - before.1) * 1e6 / AGENTS as f64;
    let figure = format!("{each:.1} KiB, {cpu:.0} µs CPU");
    row(
        setup.way,
        "an idle agent, at the server",
        &figure,
        "<= 20 KiB (konnectivity 80)",
    );
    drop(agents);
    Ok(())
}

async fn connect(
    setup: &Setup,
    numbers: std::ops::Range<usize>,
    agents: &mut Vec<Arc<dyn Acceptor>>,
) -> Result<(), Fault> {
    let mut connecting = JoinSet::new();
    for number in numbers {
        let name = format!("many-{number}");
        let transport = transport(setup.way, setup.site.node(&name, &name)?);
        let listen = setup.listen;
        connecting.spawn(async move {
            let session = transport.connect(listen, "127.0.0.1").await?;
            // The list of servers is the first stream.
            session.accept().await?.accept().await?;
            Ok::<_, Fault>(session)
        });
        while connecting.len() >= 16 {
            agents.extend(connecting.join_next().await.transpose()?.transpose()?);
        }
    }
    while let Some(connected) = connecting.join_next().await {
        agents.push(connected??);
    }
    Ok(())
}

/// The way in which an agent in this process connects.
pub(crate) fn transport(way: Way, credentials: Credentials) -> Arc<dyn Transport> {
    match way {
        Way::Quic => Arc::new(QuicTransport::new(credentials, Config::default())),
        Way::H2 | Way::Floor => Arc::new(H2Transport::new(credentials, Config::default())),
    }
}
