//! A runtime that ends while requests wait.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::cloud::{ApiServer, Authority};
use super::{Credential, PATIENCE, Running, config};
use crate::upstream::Purpose;

#[tokio::test]
async fn a_request_that_waits_for_a_connection_does_not_keep_its_runtime_from_ending() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let running = Running::start(config(&authority, &[server.addr]));
    running.online().await;
    let shared = running.upstream.0.clone();
    let ended = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = ended.handle().clone();
    ended.shutdown_background();
    let (tell, told) = oneshot::channel();
    // A worker of the runtime that comes to the request after the runtime has begun to end.
    std::thread::spawn(move || {
        let _entered = handle.enter();
        let acquiring = pin!(shared.acquire(0, Credential::Bearer, &Purpose::Request));
        let polled = acquiring.poll(&mut Context::from_waker(Waker::noop()));
        let _gone = tell.send(matches!(polled, Poll::Ready(Err(_))));
    });
    let gave_up = timeout(PATIENCE, told).await.expect("it leaves its thread");
    assert_eq!(gave_up, Ok(true));
}
