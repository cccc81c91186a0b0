//! The assembly: opens what the settings name, runs it, and drains it at a signal.

use std::error::Error;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use yurt_tunnel::egress::{self, Doors};
use yurt_tunnel::link;
use yurt_tunnel::nodes::{NodeSource, NodeTable, NodesFile};
use yurt_tunnel::server::{self, Server};
use yurt_tunnel::transport::NamedTransport;
use yurt_tunnel::transport::h2::H2Transport;
use yurt_tunnel::transport::quic::QuicTransport;

use crate::certificates;
use crate::config::{NodesFrom, Settings};
use crate::nodes::KubeNodes;

/// Serves until a signal, then drains; a second signal ends it at once.
pub(crate) async fn serve(settings: Settings) -> Result<(), Box<dyn Error>> {
    let mut signals = Signals::new()?;
    let credentials = settings.credentials;
    let nodes = open(settings.nodes).await?;
    let link = link::Config {
        buffers: settings.buffers.clone(),
        ..link::Config::default()
    };
    let quic = QuicTransport::new(credentials.clone(), link.clone());
    let h2 = H2Transport::new(credentials.clone(), link);
    let transports = vec![
        NamedTransport::new("quic", quic),
        NamedTransport::new("h2", h2),
    ];
    let config = server::Config {
        listen: settings.listen,
        peers: settings.peers,
        advertise: settings.advertise,
        policy: settings.policy.clone(),
        denied_nodes: settings.denied_nodes,
        admin_listen: Some(settings.admin_listen),
        drain: settings.drain,
        buffers: settings.buffers,
    };
    let server = Server::open(config, credentials.clone(), transports, nodes).await?;
    let mut limits = egress::Limits::default();
    limits.drain = settings.drain;
    let config = egress::Config {
        socket: settings.egress_socket,
        listen: settings.egress_listen,
        connect: settings.connect_listen,
        policy: settings.policy,
        limits,
    };
    let socket = config.socket.clone();
    let doors = Doors::open(config, credentials.clone(), server.dial())?;
    if let Some(path) = socket {
        info!(path = %path.display(), "listening for kube-apiserver");
    }
    if let Some(address) = doors.listen_addr() {
        info!(%address, "listening for kube-apiserver");
    }
    if let Some(address) = doors.connect_addr() {
        info!(%address, "listening for clients");
    }
    if let Some(address) = server.admin_address() {
        info!(%address, "health and metrics are served");
    }

    let shutdown = CancellationToken::new();
    let serving = async {
        let (figures, token) = (doors.metrics(), shutdown.clone());
        let work = server.work();
        let doors = async {
            let ended = doors.run(token.clone(), work).await;
            // Without its doors the server is of no use.
            token.cancel();
            ended
        };
        let server = server.run(figures, shutdown.clone());
        let (served, ended, ()) = tokio::join!(
            server,
            doors,
            certificates::run(credentials, shutdown.clone())
        );
        served?;
        Ok(ended?)
    };
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended,
        () = signals.next() => info!("draining"),
    }
    shutdown.cancel();
    tokio::select! {
        ended = serving => ended,
        () = signals.next() => Err("a second signal ended the drain; streams were still open".into()),
    }
}

async fn open(from: NodesFrom) -> Result<(Box<dyn NodeSource>, NodeTable), Box<dyn Error>> {
    Ok(match from {
        NodesFrom::File(path) => {
            let (source, table) = NodesFile::open(&path)?;
            (Box::new(source), table)
        }
        NodesFrom::Cluster(cluster, folder, grants) => {
            let (source, table) = KubeNodes::open(cluster.config().await?, folder, grants)?;
            (Box::new(source), table)
        }
    })
}

/// The signals that end the program.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
