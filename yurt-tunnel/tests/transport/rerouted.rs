//! A balancer before several servers that sends a packet of one's session to another.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use yurt_core::transport::State;
use yurt_tunnel::link::Config;

use crate::site::{Site, Way, loopback};

const PATIENCE: Duration = Duration::from_secs(20);

/// What is between an agent and the servers.
struct Balancer {
    address: SocketAddr,
    /// Where packets of the agent go, and how many have gone there.
    to: Arc<Mutex<(SocketAddr, usize)>>,
    _task: JoinSet<()>,
}

impl Balancer {
    async fn before(server: SocketAddr) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = front.local_addr().unwrap();
        let to = Arc::new(Mutex::new((server, 0)));
        let mut task = JoinSet::new();
        let way = to.clone();
        task.spawn(async move {
            let (mut up, mut down) = ([0; 2048], [0; 2048]);
            let mut agent = None;
            loop {
                tokio::select! {
                    Ok((length, from)) = front.recv_from(&mut up) => {
                        agent = Some(from);
                        let server = {
                            let mut way = way.lock();
                            way.1 += 1;
                            way.0
                        };
                        back.send_to(&up[..length], server).await.unwrap();
                    }
                    Ok((length, _)) = back.recv_from(&mut down) => if let Some(agent) = agent {
                        front.send_to(&down[..length], agent).await.unwrap();
                    },
                }
            }
        });
        Self {
            address,
            to,
            _task: task,
        }
    }

    fn lead(&self, server: SocketAddr) {
        *self.to.lock() = (server, 0);
    }

    fn packets(&self) -> usize {
        self.to.lock().1
    }
}

#[tokio::test]
async fn a_packet_that_reaches_another_server_of_the_same_certificate_ends_no_session() {
    let site = Site::new();
    let server = site.server();
    let listen = async || {
        let cloud = Way::Quic.transport(server.clone(), Config::default());
        cloud.listen(loopback()).await.unwrap()
    };
    let (one, other) = (listen().await, listen().await);
    let balancer = Balancer::before(one.address()).await;
    let edge = Way::Quic.transport(site.node("edge-1"), Config::default());
    let connect = edge.connect(balancer.address, "tunnel.test");
    let (acceptor, opener) = tokio::join!(connect, one.accept());
    let (acceptor, opener) = (acceptor.unwrap(), opener.unwrap().unwrap());
    acceptor.ping().await.unwrap();

    balancer.lead(other.address());
    let mut state = acceptor.state();
    let strayed = async {
        let pinged = acceptor.ping();
        let some = async {
            while balancer.packets() < 2 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            _ = pinged => {}
            () = some => {}
        }
    };
    timeout(PATIENCE, strayed).await.expect("it asks the other");
    balancer.lead(one.address());
    let answered = timeout(PATIENCE, acceptor.ping()).await;
    let state = state.borrow_and_update().clone();
    answered
        .expect("it is answered")
        .unwrap_or_else(|error| panic!("{error}: {state:?}"));
    assert_eq!(*opener.state().borrow(), State::Open);
}
