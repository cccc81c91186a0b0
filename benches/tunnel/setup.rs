//! Server and agent, or the relays that show the floor, ready to be asked.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::Dialer;
use crate::process::{self, Process};
use crate::site::{Site, free_port};
use crate::{floor, target};

/// What ends a bench.
pub(crate) type Fault = Box<dyn Error + Send + Sync>;

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Quic,
    H2,
    Floor,
}

impl Way {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::H2 => "h2",
            Self::Floor => "floor",
        }
    }
}

/// Everything that is measured; ends with this value.
pub(crate) struct Setup {
    pub(crate) way: Way,
    pub(crate) server: Process,
    pub(crate) agent: Process,
    pub(crate) dialer: Dialer,
    pub(crate) site: Site,
    /// Where agents connect.
    pub(crate) listen: SocketAddr,
}

impl Setup {
    pub(crate) async fn start(way: Way) -> Result<Self, Fault> {
        let site = Site::new().await?;
        let listen = free_port()?;
        let dialer = site.dialer("server");
        let (server, agent) = match way {
            Way::Floor => floor_relays(site.folder.path(), listen, &dialer)?,
            Way::Quic | Way::H2 => (
                site.server("server", listen, free_port()?, &[])?,
                site.agent(way, &[listen])?,
            ),
        };
        let setup = Self {
            way,
            server,
            agent,
            dialer,
            site,
            listen,
        };
        reached(&setup.dialer).await.map_err(|error| {
            let log = fs::read_to_string(setup.site.folder.path().join("server.log"));
            format!("{error}\n{}", log.unwrap_or_default())
        })?;
        Ok(setup)
    }

    /// Processor seconds of server and agent.
    pub(crate) fn cpu(&self) -> Result<f64, Fault> {
        Ok(process::cpu(self.server.id())? + process::cpu(self.agent.id())?)
    }

    /// Resident KiB of server and agent.
    pub(crate) fn memory(&self) -> Result<[f64; 2], Fault> {
        Ok([
            process::memory(self.server.id())?,
            process::memory(self.agent.id())?,
        ])
    }
}

/// Waits until a dial gets through.
pub(crate) async fn reached(dialer: &Dialer) -> Result<(), Fault> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match dialer.dial(target::ECHO).await {
            Ok(_) => return Ok(()),
            Err(_) if Instant::now() < until => sleep(Duration::from_millis(50)).await,
            Err(error) => return Err(format!("no tunnel: {error}").into()),
        }
    }
}

fn floor_relays(
    folder: &Path,
    listen: SocketAddr,
    dialer: &Dialer,
) -> Result<(Process, Process), Fault> {
    let program = std::env::current_exe()?;
    let relay = |end: &str, here: String, there: String| {
        let folder_text = folder.display().to_string();
        let arguments = [
            floor::ROLE.to_owned(),
            end.to_owned(),
            here,
            there,
            folder_text,
        ];
        Process::start(&program, &arguments, &folder.join(format!("{end}.log")))
    };
    let far = relay("far", listen.to_string(), dialer.target.to_string())?;
    let near = relay(
        "near",
        dialer.socket.display().to_string(),
        listen.to_string(),
    )?;
    Ok((near, far))
}
