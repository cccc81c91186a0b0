//! The suite of API semantics on the real server: what it says here is what the others have to say.

use testbed::{
    client::{Client, Error},
    cluster::shared,
    endpoint::Endpoint,
};

async fn open() -> (Endpoint, ()) {
    (shared().await.expect("`make assets` was run"), ())
}

testbed::api_semantics!(super::open, ignore = "needs kube-apiserver");

/// Not of the suite: who stands beside the client need not compress.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn a_large_list_is_compressed() -> Result<(), Error> {
    let (endpoint, _guard) = open().await;
    testbed::semantics::forms::a_large_list_is_compressed(&Client::new(&endpoint)?).await
}
