//! The suite of API semantics through the hub: every case passes on the API server itself.

use testbed::{cluster::shared, endpoint::Endpoint};

use crate::hub::Hub;

/// A hub of its own for every case, before the cluster that all cases share.
async fn open() -> (Endpoint, Hub) {
    let cloud = shared().await.expect("`make assets` was run");
    let hub = Hub::start(cloud, None, &[]).await;
    (hub.endpoint(), hub)
}

testbed::api_semantics!(super::open, ignore = "needs kube-apiserver");
