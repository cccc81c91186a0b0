//! The file of the unix socket.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

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
    assert_eq!(file_mode(&bed.socket), 0o660);
}

fn file_mode(path: &Path) -> u32 {
    let file = std::fs::symlink_metadata(path).unwrap();
    file.permissions().mode() & 0o7777
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
    let (link, folder) = (bed.folder.path().join("link"), bed.folder.path().join("in"));
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&bed.socket, &link).unwrap();
    for path in [file.as_path(), &link, &folder] {
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
async fn another_takes_the_socket_over_from_one_that_is_about_to_end_and_keeps_it() {
    let mut bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    let tunnel = bed.dial(Door::Socket, "edge-1:10250").await.unwrap();
    bed.shutdown.cancel();
    let inode = || std::fs::symlink_metadata(&bed.socket).map(|file| file.ino());
    let before = inode().unwrap();
    let mut next = open(&bed, &bed.socket);
    while matches!(next, Err(Error::Socket(SocketError::Served(_)))) {
        bed.dial(Door::Socket, "edge-1:10250").await.unwrap();
        next = open(&bed, &bed.socket);
    }
    let next = next.unwrap();
    let after = inode().unwrap();
    assert_ne!(after, before);
    assert_eq!(file_mode(&bed.socket), 0o660);
    drop(tunnel);
    soon(bed.running.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let inode = || std::fs::symlink_metadata(&bed.socket).map(|file| file.ino());
    assert_eq!(inode().unwrap(), after, "the end of the first leaves it");
    let taken = open(&bed, &bed.socket).unwrap_err();
    assert!(matches!(taken, Error::Socket(SocketError::Served(_))));
    drop(next);
    assert!(!bed.socket.exists());
}

#[tokio::test]
async fn what_a_killed_server_had_made_and_not_put_in_place_is_no_obstacle() {
    let bed = Bed::open();
    let path = bed.folder.path().join("next.sock");
    drop(UnixListener::bind(bed.folder.path().join("next.sock~")).unwrap());
    let _doors = open(&bed, &path).unwrap();
    UnixStream::connect(&path).unwrap();
    assert!(!bed.folder.path().join("next.sock~").exists());
}

#[tokio::test]
async fn who_may_only_read_the_folder_cannot_keep_the_server_from_starting() {
    let bed = Bed::open();
    let folder = bed.folder.path().join("run");
    std::fs::create_dir(&folder).unwrap();
    // What a local user can do who may list the folder.
    let reader = std::fs::File::open(&folder).unwrap();
    rustix::fs::flock(&reader, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let doors = open(&bed, &folder.join("egress.sock")).unwrap();
    drop(doors);
    let others = std::fs::metadata(folder.join("egress.sock.lock"));
    assert_eq!(others.unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_folder_in_which_anybody_can_put_another_file_in_the_sockets_place_is_refused() {
    let bed = Bed::open();
    let folder = bed.folder.path().join("run");
    std::fs::create_dir(&folder).unwrap();
    for (mode, is_refused) in [(0o777, true), (0o1777, true), (0o775, false)] {
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
        match open(&bed, &folder.join("egress.sock")) {
            Err(Error::Socket(SocketError::Exposed(path))) => {
                assert!(is_refused && path == folder, "{mode:o}");
            }
            opened => assert!(opened.is_ok() && !is_refused, "{mode:o}: {opened:?}"),
        }
    }
}
