//! Whether a node can be reached, step by step, and which step fails.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use yurt_core::name::NodeName;
use yurt_core::transport::Target;

use super::registry::Member;
use super::{Shared, connect, router};
use crate::dial::{Address, Dialled};
use crate::identity::{Credentials, Protocol};
use crate::nodes::{Found, Node};

/// How long one step may take.
const STEP_LIMIT: Duration = Duration::from_secs(5);

/// The steps, each with whether it succeeded.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<(bool, String)>);

impl Report {
    /// Whether every step succeeded.
    pub(super) fn is_ok(&self) -> bool {
        self.0.iter().all(|(is_ok, _)| *is_ok)
    }

    fn good(&mut self, said: impl Into<String>) {
        self.0.push((true, said.into()));
    }

    fn bad(&mut self, said: impl Into<String>) {
        self.0.push((false, said.into()));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (is_ok, said) in &self.0 {
            writeln!(f, "[{}] {said}", if *is_ok { '+' } else { '-' })?;
        }
        Ok(())
    }
}

/// Tries every step to a node's kubelet; stops at the first that fails.
pub(super) async fn check(
    shared: &Arc<Shared>,
    credentials: &Credentials,
    name: &NodeName,
) -> Report {
    let mut report = Report::default();
    let nodes = shared.router.nodes.borrow().clone();
    let Found::Node(node) = nodes.find(name.as_str()) else {
        report.bad(format!(
            "node {name} is unknown: it is neither a Node object nor in the file of nodes"
        ));
        return report;
    };
    let addresses = match node.addresses.as_slice() {
        [] => "without an address".to_owned(),
        addresses => format!("at {}", addresses.join(", ")),
    };
    let place = if node.edge { "at" } else { "not at" };
    report.good(format!(
        "node {name} is known, {place} the edge, {addresses}, kubelet port {}",
        node.kubelet_port
    ));
    let kubelet = Address {
        host: node.dialled(name.as_str()).to_owned(),
        port: node.kubelet_port,
    };
    let dialled = if node.edge {
        by_agent(shared, name, &kubelet, &mut report).await
    } else {
        directly(&kubelet, &mut report).await
    };
    if let Some(connection) = dialled {
        tls(credentials, node, &kubelet.host, connection, &mut report).await;
    }
    report
}

/// Dials the kubelet directly.
async fn directly(kubelet: &Address, report: &mut Report) -> Option<Dialled> {
    let began = Instant::now();
    match connect::direct(kubelet, STEP_LIMIT).await {
        Ok(socket) => {
            let took = millis(began);
            report.good(format!("{kubelet} is dialled directly in {took:.1} ms"));
            Some(Dialled::Direct(socket.into()))
        }
        Err(error) => {
            report.bad(error.to_string());
            None
        }
    }
}

/// Dials the kubelet through the node's agent.
async fn by_agent(
    shared: &Arc<Shared>,
    node: &NodeName,
    kubelet: &Address,
    report: &mut Report,
) -> Option<Dialled> {
    if !connected(shared, node, report).await {
        return None;
    }
    let target = Target::Dial {
        node: Some(node.clone()),
        host: kubelet.host.clone(),
        port: kubelet.port,
    };
    let began = Instant::now();
    match shared.router.open_stream(node, target, STEP_LIMIT).await {
        Ok(stream) => {
            let took = millis(began);
            report.good(format!("the agent has dialled {kubelet} in {took:.1} ms"));
            Some(Dialled::Stream(stream, None))
        }
        Err(error) => {
            report.bad(error.to_string());
            None
        }
    }
}

/// Whether the agent is connected, here or to another server.
async fn connected(shared: &Arc<Shared>, name: &NodeName, report: &mut Report) -> bool {
    let sessions = shared.registry.open_sessions(&Member::Agent(name.clone()));
    if sessions.is_empty() {
        let peers = shared.registry.open_sessions(&Member::Peer).len();
        if peers == 0 {
            report.bad(format!(
                "the agent of {name} is not connected, and there is no other server"
            ));
            return false;
        }
        let asked = match peers {
            1 => "the other server is asked".to_owned(),
            peers => format!("{peers} other servers are asked"),
        };
        report.good(format!(
            "the agent of {name} is not connected here; {asked}"
        ));
        return true;
    }
    let mut is_alive = false;
    for session in sessions {
        let remote = session.remote();
        match router::echo(&session, STEP_LIMIT).await {
            Ok(trip) => {
                let trip = trip.as_secs_f64() * 1000.0;
                report.good(format!(
                    "the agent is connected from {remote}; bytes come back in {trip:.1} ms"
                ));
                is_alive = true;
            }
            Err(error) => report.bad(format!("the agent is connected from {remote}: {error}")),
        }
    }
    is_alive
}

/// Whether the target speaks TLS, whichever certificates it trusts.
async fn tls(
    credentials: &Credentials,
    node: &Node,
    host: &str,
    connection: Dialled,
    report: &mut Report,
) {
    let name = ServerName::try_from(host.to_owned())
        .or_else(|_| ServerName::try_from(node.name.as_str().to_owned()));
    let Ok(name) = name else {
        return report.bad(format!("{host} is not a name for TLS"));
    };
    let connector = TlsConnector::from(credentials.client(Protocol::Door));
    let shaken = timeout(STEP_LIMIT, connector.connect(name, connection)).await;
    match shaken {
        Ok(Ok(_)) => report.good("TLS works, with a certificate of our authority"),
        Ok(Err(error)) => match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(rustls::Error::InvalidCertificate(why)) => report.good(format!(
                "TLS works; the certificate is not of our authority ({why})"
            )),
            Some(rustls::Error::AlertReceived(alert)) => {
                report.good(format!("TLS works; our certificate is refused ({alert:?})"));
            }
            _ => report.bad(format!("the TLS handshake failed: {error}")),
        },
        Err(_) => report.bad(format!(
            "the TLS handshake took longer than {} s",
            STEP_LIMIT.as_secs()
        )),
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
