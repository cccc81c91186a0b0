//! A bad network between a cloud and an edge: two network namespaces, joined by a relay in the test's own process
//! that delays, loses, throttles, reorders and doubles packets, hides the edge behind a router, and falls silent.
//!
//! All chance comes from a seed: the fate of the nth packet of a direction is the same in every run. When packets
//! come is not, since those who send them are real.
//!
//! ```no_run
//! use std::{net::TcpListener, time::Duration};
//!
//! use testbed::wan::{Blackhole, NatConfig, Shape, Wan, WanConfig};
//!
//! # fn drill() -> Result<(), Box<dyn std::error::Error>> {
//! let wan = Wan::new(WanConfig {
//!     seed: 7,
//!     link: Shape {
//!         delay: Duration::from_millis(20),
//!         loss: 0.01,
//!         rate: Some(50_000_000),
//!         ..Shape::default()
//!     },
//!     nat: Some(NatConfig::default()),
//! })?;
//! let address = wan.cloud().address();
//! let listener = wan.cloud().enter(|| TcpListener::bind((address, 0)))??;
//! let agent = wan.edge().command("yurt-tunnel-agent").spawn()?;
//! wan.blackhole(Blackhole::Udp);
//! wan.rebind();
//! wan.set_edge_address("10.0.0.3".parse()?)?;
//! println!("{:?}", wan.counts());
//! # Ok(())
//! # }
//! ```
//!
//! It needs root and `/dev/net/tun`. IPv4 only. Sockets keep the namespace in which they were made, so those of
//! [`Side::enter`] go to any runtime. The congestion control of a new namespace is the kernel's default and cannot
//! be changed for all of it: a socket that needs another one asks for `TCP_CONGESTION`.

mod lane;
mod nat;
mod packet;
mod path;
mod relay;
mod side;

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use parking_lot::Mutex;

pub use self::{lane::Traffic, nat::NatConfig, path::Way, side::Side};
use self::{path::Path, relay::Relay};
use crate::system;

/// From a range that is for documentation.
const CLOUD_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const EDGE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// What is between the cloud and the edge.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WanConfig {
    /// What all chance comes from.
    pub seed: u64,
    /// What happens to packets, in either direction.
    pub link: Shape,
    /// A router before the edge; without one both ends see each other's addresses.
    pub nat: Option<NatConfig>,
}

/// What happens to packets in one direction. By default nothing does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// How long each packet is on its way.
    pub delay: Duration,
    /// How much longer it may take, evenly spread; nobody overtakes.
    pub jitter: Duration,
    /// The share of packets that are lost.
    pub loss: f64,
    /// The share of packets that arrive twice.
    pub duplicate: f64,
    /// The share of packets that are held back, so that others overtake them.
    pub reorder: f64,
    /// For how long they are.
    pub reorder_by: Duration,
    /// Bits per second, IP headers counted; all that can be by default.
    pub rate: Option<u64>,
    /// How many bytes wait for a line of that rate, the one that it is sending included; others are dropped.
    pub queue: usize,
    /// The largest packet that arrives; larger ones vanish and nobody is told, as where ICMP is filtered. The ends
    /// themselves send up to 1500 bytes.
    pub mtu: Option<u16>,
}

/// Which packets vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blackhole {
    /// None does.
    None,
    /// All do, also those that are on their way.
    All,
    /// Those of UDP, as where a firewall knows TCP only.
    Udp,
}

/// What became of the packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// To the cloud.
    pub up: Traffic,
    /// To the edge.
    pub down: Traffic,
}

/// The network; it goes with everything in its namespaces when this value is dropped, or when the process ends, in
/// whatever way.
#[derive(Debug)]
pub struct Wan {
    path: Arc<Mutex<Path>>,
    /// Before the namespaces, so that it does not outlive its devices.
    _relay: Relay,
    cloud: Side,
    edge: Side,
}

/// Why there is no such network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine lacks something, or a command ended with an error.
    #[error(transparent)]
    System(#[from] system::Error),
    /// The network interface of a namespace could not be made.
    #[error("cannot make the interface of the {side}")]
    Device {
        /// Which one's.
        side: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A thread could not enter a namespace.
    #[error("cannot enter the namespace of the {side}")]
    Enter {
        /// Which one's.
        side: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The relay could not be started.
    #[error("cannot start the relay")]
    Relay(#[source] io::Error),
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(10),
            rate: None,
            queue: 256 << 10,
            mtu: None,
        }
    }
}

impl Wan {
    /// Makes the namespaces and joins them.
    ///
    /// # Errors
    ///
    /// When this process is not root's, a program of the system is missing, or the kernel makes no TUN device.
    pub fn new(config: WanConfig) -> Result<Self, Error> {
        system::require(&["ip", "nsenter", "unshare"], &["/dev/net/tun"])?;
        let cloud = Side::new("cloud", CLOUD_ADDRESS)?;
        let edge = Side::new("edge", EDGE_ADDRESS)?;
        let path = Arc::new(Mutex::new(Path::new(&config)));
        let relay = Relay::start(path.clone(), cloud.device()?, edge.device()?);
        let relay = relay.map_err(Error::Relay)?;
        // What the kernels say to each other by themselves, such as who is a router, is told before a test counts.
        cloud.connect()?;
        edge.connect()?;
        Ok(Self {
            path,
            _relay: relay,
            cloud,
            edge,
        })
    }

    /// The end where servers are.
    #[must_use]
    pub fn cloud(&self) -> &Side {
        &self.cloud
    }

    /// The end where agents are.
    #[must_use]
    pub fn edge(&self) -> &Side {
        &self.edge
    }

    /// Changes what becomes of packets that are sent from now on, in both directions.
    pub fn shape(&self, shape: Shape) {
        Way::BOTH.iter().for_each(|&way| self.shape_way(way, shape));
    }

    /// Changes what becomes of packets that are sent from now on in one direction.
    pub fn shape_way(&self, way: Way, shape: Shape) {
        self.path.lock().shape(way, shape);
    }

    /// Lets packets vanish, or no more.
    pub fn blackhole(&self, blackhole: Blackhole) {
        self.path.lock().blackhole(blackhole);
    }

    /// Lets the router forget who it has seen: what the edge goes on sending comes from other ports. Without a
    /// router it does nothing.
    pub fn rebind(&self) {
        self.path.lock().rebind();
    }

    /// Gives the edge another address instead of the one that it has, as another network does.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_edge_address(&self, address: Ipv4Addr) -> Result<(), Error> {
        self.edge.set_address(address)
    }

    /// Returns what became of the packets so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.path.lock().counts()
    }
}
