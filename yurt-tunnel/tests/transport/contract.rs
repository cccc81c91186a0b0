//! Every clause of the contract, on each transport.

use tokio::task::JoinSet;
use yurt_core::testing::transport::Pair;
use yurt_tunnel::identity::Credentials;
use yurt_tunnel::link::Config;

use crate::site::{Site, Way};

/// Enough for the suite's unread streams, and few enough that it can open one too many.
const LIMIT: u32 = 300;

async fn pair(way: Way) -> Pair {
    let site = Site::new();
    let config = Config {
        streams: LIMIT.into(),
        backlog: 128,
        ..Config::default()
    };
    let met = site.meet(way, config).await;
    let listener = met.listener;
    let mut listening = JoinSet::new();
    // It takes the second connection of HTTP/2, and gives no other session.
    listening.spawn(async move { listener.accept().await.map(drop) });
    Pair {
        server: Credentials::own(&site.server()),
        node: site.node("edge-1").own(),
        opener: met.opener,
        acceptor: met.acceptor,
        limit: usize::try_from(LIMIT).unwrap(),
        keep: Box::new((site, listening)),
    }
}

mod quic {
    yurt_core::transport_conformance!(|| super::pair(super::Way::Quic));
}

mod h2 {
    yurt_core::transport_conformance!(|| super::pair(super::Way::H2));
}
