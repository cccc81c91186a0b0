//! The file of the unix socket.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use yurt_tunnel::egress::{Config, Doors, Error, SocketError};

use super::bed::{Bed, Door, Roads, credentials, soon};
use super::targets::Target;

fn open(bed: &Bed, socket: &Path) -> Result<Doors, Error> {
    let config = Config {
        socket: Some(socket.to_owned()),
        ..Config::default()
    };
    let roads = Arc::new(Roads::default());
    Doors::open(config, credentials(&bed.pki, bed.folder.path()), roads)
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_its_group() {
    let bed = Bed::open();
    let file = std::fs::symlink_metadata(&bed.socket).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o660);
}

#[tokio::test]
async fn a_socket_that_nobody_serves_is_replaced() {
    let bed = Bed::open();
    let path = bed.folder.path().join("stale.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let doors = open(&bed, &path).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(doors);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_somebody_serves_is_left_alone() {
    let bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    let inode = || std::fs::symlink_metadata(&bed.socket).unwrap().ino();
    let before = inode();
    let refused = open(&bed, &bed.socket).unwrap_err();
    assert!(matches!(refused, Error::Socket(SocketError::Served(path)) if path == bed.socket));
    assert_eq!(inode(), before);
    soon(bed.dial(Door::Socket, "edge-1:10250")).await.unwrap();
}

#[tokio::test]
async fn a_socket_whose_server_has_no_time_is_left_alone() {
    let bed = Bed::open();
    let path = bed.folder.path().join("busy.sock");
    let busy = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&busy, 0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    let refused = open(&bed, &path).unwrap_err();
    assert!(
        matches!(refused, Error::Socket(SocketError::Served(_))),
        "{refused:?}"
    );
    assert!(path.exists());
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let bed = Bed::open();
    let file = bed.folder.path().join("tls.key");
    let link = bed.folder.path().join("link");
    std::os::unix::fs::symlink(&bed.socket, &link).unwrap();
    for path in [file.as_path(), &link, bed.folder.path()] {
        let refused = open(&bed, path).unwrap_err();
        assert!(
            matches!(refused, Error::Socket(SocketError::Occupied(_))),
            "{refused:?}"
        );
        assert!(path.symlink_metadata().is_ok());
    }
}

#[tokio::test]
async fn a_path_that_cannot_be_is_an_error() {
    let bed = Bed::open();
    for path in [
        bed.folder.path().join("no/folder"),
        bed.folder.path().join("a".repeat(108)),
    ] {
        let refused = open(&bed, &path).unwrap_err();
        assert!(
            matches!(refused, Error::Socket(SocketError::System { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_socket_that_has_become_anothers_is_not_removed() {
    let mut bed = Bed::open();
    std::fs::remove_file(&bed.socket).unwrap();
    let _other = UnixListener::bind(&bed.socket).unwrap();
    bed.shutdown.cancel();
    soon(bed.running.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    UnixStream::connect(&bed.socket).unwrap();
}

#[tokio::test]
async fn another_may_serve_the_socket_while_tunnels_of_the_first_go_on() {
    let bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    let _tunnel = bed.dial(Door::Socket, "edge-1:10250").await.unwrap();
    bed.shutdown.cancel();
    super::bed::until("the socket is gone", || !bed.socket.exists()).await;
    let next = open(&bed, &bed.socket).unwrap();
    let shutdown = CancellationToken::new();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(next.run(shutdown.clone()));
    tokio::net::UnixStream::connect(&bed.socket).await.unwrap();
    shutdown.cancel();
    soon(running.join_next()).await.unwrap().unwrap().unwrap();
}
