//! One end of the network: a namespace with one interface, and the ways into it.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    os::{fd::AsFd, unix::process::CommandExt},
    panic::resume_unwind,
    process::{Child, Command, Stdio},
    thread,
};

use parking_lot::Mutex;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::Error;
use crate::system::{run, spawn_error};

const HOLD: &str = include_str!("side.sh");
const DEVICE: &str = "wan0";
/// Packets that wait for the relay when it is late; the network's own queue is not here.
const BACKLOG: u32 = 20_000;

/// One end of the network.
#[derive(Debug)]
pub struct Side {
    name: &'static str,
    /// Keeps the namespace, and clears it when its stdin ends.
    holder: Child,
    namespace: File,
    address: Mutex<Ipv4Addr>,
}

impl Side {
    pub(super) fn new(name: &'static str, address: Ipv4Addr) -> Result<Self, Error> {
        let mut command = Command::new("unshare");
        command
            .args(["--net", "sh", "-c", HOLD, name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A signal to the test's group must not end it before it has cleared the namespace.
            .process_group(0);
        let mut holder = command
            .spawn()
            .map_err(|source| spawn_error(&command, source))?;
        match open(&mut holder) {
            Ok(namespace) => Ok(Self {
                name,
                holder,
                namespace,
                address: Mutex::new(address),
            }),
            Err(source) => {
                _ = holder.kill();
                _ = holder.wait();
                Err(Error::Enter { side: name, source })
            }
        }
    }

    /// Its address, and that of its interface: the edge's may change, and behind a router the cloud sees another.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        *self.address.lock()
    }

    /// Returns a program that will run inside; it is killed with the network, if it has not ended.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let namespace = format!("--net=/proc/{}/ns/net", self.holder.id());
        command.args([&namespace, "--"]).arg(program);
        command
    }

    /// Runs a closure on a thread inside: the sockets that it makes stay inside wherever they are used.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let entered = thread::scope(|scope| {
            let entering = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.namespace.as_fd(), kind)?;
                Ok(inside())
            });
            entering.join()
        });
        let entered: rustix::io::Result<T> = entered.unwrap_or_else(|panic| resume_unwind(panic));
        entered.map_err(|error| Error::Enter {
            side: self.name,
            source: error.into(),
        })
    }

    /// Makes the interface inside.
    pub(super) fn device(&self) -> Result<SyncDevice, Error> {
        let made = self.enter(|| {
            let builder = DeviceBuilder::new().name(DEVICE).packet_information(false);
            let device = builder.build_sync()?;
            device.set_nonblocking(true)?;
            Ok(device)
        })?;
        made.map_err(|source| Error::Device {
            side: self.name,
            source,
        })
    }

    /// Gives the interface its address, and sends everything there.
    pub(super) fn connect(&self) -> Result<(), Error> {
        self.ip(&format!("address add {}/32 dev {DEVICE}", self.address()))?;
        self.ip(&format!("link set {DEVICE} txqueuelen {BACKLOG} up"))?;
        self.ip(&format!("route add default dev {DEVICE}"))
    }

    pub(super) fn set_address(&self, address: Ipv4Addr) -> Result<(), Error> {
        let mut current = self.address.lock();
        self.ip(&format!("address add {address}/32 dev {DEVICE}"))?;
        self.ip(&format!("address delete {current}/32 dev {DEVICE}"))?;
        *current = address;
        Ok(())
    }

    fn ip(&self, line: &str) -> Result<(), Error> {
        run(self.command("ip").args(line.split(' ')))?;
        Ok(())
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // The end of its stdin is what it waits for.
        drop(self.holder.stdin.take());
        if let Err(error) = self.holder.wait() {
            tracing::warn!(%error, side = self.name, "a namespace is left");
        }
    }
}

/// Opens the namespace of a process when it says that it is there.
fn open(holder: &mut Child) -> std::io::Result<File> {
    let stdout = holder.stdout.take().expect("stdout is piped");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() != "ready" {
        return Err(std::io::Error::other("the kernel makes no namespace"));
    }
    File::open(format!("/proc/{}/ns/net", holder.id()))
}
