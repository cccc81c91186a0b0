//! The network between an API server and its nodes: a bridge in the machine's own namespace, with a name and an
//! address range that no other network on this machine has.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use super::Error;
use crate::system::{self, run, spawn_error, words};

/// Where the locks and the files of all networks are; only root gets in.
const BASE: &str = "/var/lib/yurt-testbed";
/// More than fit on a machine.
const SLOTS: u8 = 64;
const PROGRAMS: [&str; 12] = [
    "containerd",
    "runc",
    "ctr",
    "ip",
    "nft",
    "iptables",
    "conntrack",
    "busybox",
    "unshare",
    "nsenter",
    "mkfs.ext4",
    "tar",
];
const CLEAN: &str = include_str!("clean.sh");
// What holds the network's lock beside this process, as its stdout: the name is free when the cleaning is done.
const WATCHDOG: &str = "read -r _; ";

/// A bridge with the API server's address; nodes are plugged into it.
///
/// It goes when it and its nodes are dropped. When the process is killed, a watchdog removes all that it made;
/// when that is killed too, whoever takes the name next does.
#[derive(Debug)]
pub struct Network {
    slot: u8,
    folder: PathBuf,
    watchdog: Child,
    plugged: AtomicU8,
    _lock: File,
}

impl Network {
    /// Makes a network that nobody else has.
    ///
    /// # Errors
    ///
    /// When this process is not root's, a program of the system is missing, or too many networks exist.
    pub fn new() -> Result<Arc<Self>, Error> {
        system::require(&PROGRAMS, &[super::files::CNI_PLUGINS])?;
        fs::create_dir_all(BASE).map_err(|source| Error::File {
            step: "make",
            path: BASE.into(),
            source,
        })?;
        let (slot, lock) = free_slot()?;
        let name = slot_name(slot);
        let folder = Path::new(BASE).join(&name);
        clean(&name, &folder)?;
        let network = Self {
            slot,
            watchdog: watchdog(&name, &folder, &lock)?,
            folder,
            plugged: AtomicU8::new(0),
            _lock: lock,
        };
        network.set_up()?;
        Ok(Arc::new(network))
    }

    /// Its address on the bridge: where an API server has to listen for the nodes.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.host(1)
    }

    /// The name of the bridge; those of nodes' links begin with it.
    #[must_use]
    pub fn name(&self) -> String {
        slot_name(self.slot)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the number of the next node.
    pub(super) fn plug(&self) -> u8 {
        self.plugged.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the address of a node.
    pub(super) fn node_address(&self, number: u8) -> Ipv4Addr {
        self.host(number + 1)
    }

    /// Returns the first two bytes of the addresses of pods.
    pub(super) fn pod_prefix(&self) -> String {
        format!("10.{}", 128 + self.slot)
    }

    // 198.18.0.0/15 is for tests of networks.
    fn host(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.slot, number)
    }

    fn set_up(&self) -> Result<(), Error> {
        let (name, address) = (self.name(), self.address());
        run(&mut words(&format!("ip link add {name} type bridge")))?;
        run(&mut words(&format!(
            "ip address add {address}/24 dev {name}"
        )))?;
        run(&mut words(&format!("ip link set {name} up")))?;
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The watchdog would do the same, but beside us.
        _ = self.watchdog.kill();
        _ = self.watchdog.wait();
        if let Err(error) = clean(&self.name(), &self.folder) {
            tracing::warn!(%error, "a network is left");
        }
    }
}

fn slot_name(slot: u8) -> String {
    format!("yurt{slot}")
}

/// Takes the first name whose lock is free; the lock is free when its holder has ended, in whatever way.
fn free_slot() -> Result<(u8, File), Error> {
    for slot in 0..SLOTS {
        let path = Path::new(BASE).join(format!("{}.lock", slot_name(slot)));
        let lock = File::create(&path).map_err(|source| Error::File {
            step: "open",
            path,
            source,
        })?;
        if lock.try_lock().is_ok() {
            return Ok((slot, lock));
        }
    }
    Err(Error::NoSlot(SLOTS))
}

fn clean(name: &str, folder: &Path) -> Result<(), Error> {
    let mut command = Command::new("sh");
    command.args(["-c", CLEAN, "clean", name]).arg(folder);
    run(&mut command)?;
    Ok(())
}

fn watchdog(name: &str, folder: &Path, lock: &File) -> Result<Child, Error> {
    let lock = lock.try_clone().map_err(|source| Error::File {
        step: "share the lock of",
        path: folder.to_owned(),
        source,
    })?;
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{WATCHDOG}{CLEAN}"), "watchdog", name])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(lock)
        .stderr(Stdio::null())
        // A signal to the test's group must not end the watchdog.
        .process_group(0);
    let spawned = command.spawn();
    Ok(spawned.map_err(|source| spawn_error(&command, source))?)
}
