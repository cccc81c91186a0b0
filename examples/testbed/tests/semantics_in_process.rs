//! The suite of API semantics on the server inside the process.

use testbed::{
    api::{ApiConfig, ApiServer},
    endpoint::Endpoint,
};

async fn open() -> (Endpoint, ApiServer) {
    let server = ApiServer::start(ApiConfig::default())
        .await
        .expect("a free port");
    (server.endpoint(), server)
}

testbed::api_semantics!(super::open);
