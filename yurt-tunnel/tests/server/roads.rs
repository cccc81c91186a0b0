//! Which of several roads is taken, and what makes a road one.

use tokio::net::TcpListener;
use yurt_tunnel::server::Dialled;

use crate::world::World;

#[tokio::test]
async fn a_cloud_node_that_is_asked_for_by_its_name_is_dialled_at_its_address() {
    let world = World::new();
    let server = world.alone().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    // No resolver knows the name.
    let dialled = server.dial(&format!("cloud-1:{port}")).await.unwrap();
    let Dialled::Direct(socket) = dialled else {
        panic!("it is no edge node");
    };
    let (_, from) = target.accept().await.unwrap();
    assert_eq!(socket.local_addr().unwrap(), from);
}
