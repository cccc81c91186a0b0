//! The outsider's transport keeps the contract.

use std::net::{Ipv4Addr, SocketAddr};

use vendor::{LIMIT, TcpTransport};
use yurt_core::testing::transport::{Pair, node, server};
use yurt_core::transport::Transport;

async fn pair() -> Pair {
    let (server, node) = (server("cloud"), node("gateway-7"));
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpTransport::new(server.clone()).listen(anywhere).await;
    let listener = listener.expect("loopback has a free port");
    let edge = TcpTransport::new(node.clone());
    let (acceptor, opener) =
        tokio::join!(edge.connect(listener.address(), "cloud"), listener.accept());
    Pair {
        opener: opener.expect("the listener lives").expect("the node calls"),
        acceptor: acceptor.expect("somebody listens"),
        server,
        node,
        limit: LIMIT,
        keep: Box::new(listener),
    }
}

yurt_core::transport_conformance!(pair);
