//! The five messages of rtnetlink(7) that the hub speaks, over one socket.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
    sockopt,
};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const ERROR: u16 = 2;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const LINK_NAME: u16 = 3;
const LINK_DESCRIPTION: u16 = 18;
const LINK_KIND: u16 = 1;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;

const UP: u32 = 1;
const HOST_SCOPE: u8 = 254;
/// An address of IPv6 is to be there at once, not after it was asked for among the neighbours.
const NO_DETECTION: u8 = 0x02;

const INET: u8 = 2;
const INET6: u8 = 10;

/// The header of a message: length, type, flags, sequence number, port.
const HEADER: usize = 16;

/// The kernel answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// The index of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(pub(super) u32);

/// A socket to the kernel.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    pub(super) fn open() -> Result<Self, Errno> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is the protocol of number 0.
            None,
        )?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Returns the interface of a name.
    pub(super) fn link(&self, name: &str) -> Result<Option<Link>, Errno> {
        let mut message = Message::new(GET_LINK, REQUEST);
        message.link_head(0, 0);
        message.text(LINK_NAME, name);
        match self.ask(message) {
            Ok(answer) => Ok(answer.link()),
            Err(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes an interface that goes nowhere, up.
    pub(super) fn make_dummy(&self, name: &str) -> Result<(), Errno> {
        let mut message = Message::new(NEW_LINK, REQUEST | ACKNOWLEDGE | CREATE | EXCLUSIVE);
        message.link_head(0, UP);
        message.text(LINK_NAME, name);
        let mut kind = Message::default();
        kind.text(LINK_KIND, "dummy");
        message.attribute(LINK_DESCRIPTION, &kind.0);
        self.ask(message).map(drop)
    }

    pub(super) fn remove_link(&self, link: Link) -> Result<(), Errno> {
        let mut message = Message::new(DELETE_LINK, REQUEST | ACKNOWLEDGE);
        message.link_head(link.0, 0);
        match self.ask(message) {
            Ok(_) | Err(Errno::NODEV) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Adds an address; one that is there stays.
    pub(super) fn add_address(&self, link: Link, address: IpAddr) -> Result<(), Errno> {
        let flags = REQUEST | ACKNOWLEDGE | CREATE | REPLACE;
        let mut message = Message::new(NEW_ADDRESS, flags);
        message.address(link, address);
        self.ask(message).map(drop)
    }

    /// Removes an address; one that is not there is none.
    pub(super) fn remove_address(&self, link: Link, address: IpAddr) -> Result<(), Errno> {
        let mut message = Message::new(DELETE_ADDRESS, REQUEST | ACKNOWLEDGE);
        message.address(link, address);
        match self.ask(message) {
            Ok(_) | Err(Errno::ADDRNOTAVAIL) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn ask(&self, message: Message) -> Result<Answer, Errno> {
        send(&self.0, &message.finish(), SendFlags::empty())?;
        let mut bytes = vec![0; 8 << 10];
        let (length, _) = recv(&self.0, &mut bytes[..], RecvFlags::empty())?;
        bytes.truncate(length);
        Answer::read(bytes)
    }
}

/// A message in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self(vec![0; 4]);
        message.0.extend(kind.to_ne_bytes());
        message.0.extend(flags.to_ne_bytes());
        // One question at a time: its number and our port are the kernel's affair.
        message.0.extend([0; 8]);
        message
    }

    /// `struct ifinfomsg`.
    fn link_head(&mut self, index: u32, flags: u32) {
        self.0.extend([0; 4]);
        for part in [index, flags, flags] {
            self.0.extend(part.to_ne_bytes());
        }
    }

    /// `struct ifaddrmsg` and the address, for this host alone.
    fn address(&mut self, link: Link, address: IpAddr) {
        let (family, prefix, flags, octets) = match address {
            IpAddr::V4(address) => (INET, 32, 0, address.octets().to_vec()),
            IpAddr::V6(address) => (INET6, 128, NO_DETECTION, address.octets().to_vec()),
        };
        self.0.extend([family, prefix, flags, HOST_SCOPE]);
        self.0.extend(link.0.to_ne_bytes());
        self.attribute(LOCAL, &octets);
        self.attribute(ADDRESS, &octets);
    }

    fn text(&mut self, kind: u16, text: &str) {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("our attributes are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("our messages are short");
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// What the kernel said.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    kind: u16,
    body: Vec<u8>,
}

impl Answer {
    fn read(bytes: Vec<u8>) -> Result<Self, Errno> {
        let (Some(kind), Some(body)) = (bytes.get(4..6), bytes.get(HEADER..)) else {
            return Err(Errno::BADMSG);
        };
        let kind = u16::from_ne_bytes([kind[0], kind[1]]);
        if kind == ERROR {
            let code = body.first_chunk::<4>().ok_or(Errno::BADMSG)?;
            let code = i32::from_ne_bytes(*code);
            match code.saturating_neg() {
                0 => {}
                // As far as the kernel's own go.
                code @ 1..4_096 => return Err(Errno::from_raw_os_error(code)),
                _ => return Err(Errno::BADMSG),
            }
        }
        Ok(Self {
            kind,
            body: body.to_vec(),
        })
    }

    fn link(&self) -> Option<Link> {
        let index = self.body.get(4..8)?.first_chunk::<4>()?;
        (self.kind == NEW_LINK).then(|| Link(u32::from_ne_bytes(*index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn an_address_is_told_as_the_kernel_reads_it() {
        let mut message = Message::new(NEW_ADDRESS, REQUEST | ACKNOWLEDGE);
        message.address(Link(7), "169.254.2.1".parse().unwrap());
        let expected = [
            &[40, 0, 0, 0, 20, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[2, 32, 0, 254, 7, 0, 0, 0],
            &[8, 0, 2, 0, 169, 254, 2, 1],
            &[8, 0, 1, 0, 169, 254, 2, 1],
        ];
        assert_eq!(message.finish(), expected.concat());
    }

    #[test]
    fn attributes_begin_at_multiples_of_four() {
        let mut message = Message::default();
        message.text(LINK_NAME, "lo");
        message.text(LINK_NAME, "yurthub0");
        assert_eq!(message.0.len(), 8 + 16);
        assert_eq!(&message.0[4..7], b"lo\0");
    }

    #[test]
    fn an_answer_is_an_error_a_link_or_neither() {
        let answer = |kind: u16, body: &[u8]| {
            let mut bytes = vec![0; 4];
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(body);
            Answer::read(bytes)
        };
        let code = (-19i32).to_ne_bytes();
        assert_eq!(answer(ERROR, &code), Err(Errno::NODEV));
        assert!(answer(ERROR, &[0; 4]).unwrap().link().is_none());
        let mut link = vec![0; 4];
        link.extend(5u32.to_ne_bytes());
        assert_eq!(answer(NEW_LINK, &link).unwrap().link(), Some(Link(5)));
        assert_eq!(answer(NEW_LINK, &[1]).unwrap().link(), None);
        assert_eq!(answer(ERROR, &[1]), Err(Errno::BADMSG));
        assert_eq!(Answer::read(vec![0; 5]), Err(Errno::BADMSG));
        for odd in [i32::MIN, -4_096, 1] {
            let code = odd.to_ne_bytes();
            assert_eq!(answer(ERROR, &code), Err(Errno::BADMSG));
        }
    }
}
