//! The suite of API semantics on the real server: what it says here is what the others have to say.

use testbed::{cluster::shared, endpoint::Endpoint};

async fn open() -> (Endpoint, ()) {
    (shared().await.expect("`make assets` was run"), ())
}

testbed::api_semantics!(super::open, ignore = "needs kube-apiserver");
