//! The suite of API semantics on the server inside the process.

use std::time::Duration;

use testbed::{
    api::{ApiConfig, ApiServer},
    client::{Client, Error},
    endpoint::Endpoint,
};

async fn open() -> (Endpoint, ApiServer) {
    // The real patience is three seconds; the suite only asks that there is an end to it.
    let config = ApiConfig {
        too_large_wait: Duration::from_millis(300),
        ..ApiConfig::default()
    };
    let server = ApiServer::start(config).await.expect("a free port");
    (server.endpoint(), server)
}

testbed::api_semantics!(super::open);

/// Not of the suite: who stands beside the client need not compress.
#[tokio::test]
async fn a_large_list_is_compressed() -> Result<(), Error> {
    let (endpoint, _guard) = open().await;
    testbed::semantics::forms::a_large_list_is_compressed(&Client::new(&endpoint)?).await
}
