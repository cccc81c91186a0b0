//! A stream that the peer wants: accepted, it gets a connection of its own.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::time::timeout;
use yurt_core::transport::{Error, ErrorKind, Incoming, Open, Result, Stream};

use super::link::Link;
use super::message::{self, Message};
use super::stream::{DROPPED, Fate, TcpTunnelStream};
use super::{dial, lost};

#[derive(Debug)]
pub(super) struct TcpIncoming {
    pub(super) link: Arc<Link>,
    pub(super) id: u64,
    pub(super) open: Open,
    pub(super) fate: Arc<Fate>,
    pub(super) address: SocketAddr,
    pub(super) session: u64,
    pub(super) is_answered: bool,
}

impl TcpIncoming {
    async fn join(&self) -> io::Result<TcpStream> {
        let mut socket = dial(self.address).await?;
        let (session, stream) = (self.session, self.id);
        message::write(&mut socket, &Message::Join { session, stream }).await?;
        message::welcomed(&mut socket).await?;
        Ok(socket)
    }
}

#[async_trait]
impl Incoming for TcpIncoming {
    fn request(&self) -> &Open {
        &self.open
    }

    async fn cancelled(&mut self) {
        poll_fn(|cx| self.fate.poll_failed(cx)).await;
    }

    async fn accept(mut self: Box<Self>) -> Result<Box<dyn Stream>> {
        let step = || format!("join stream {}", self.id);
        let joined = tokio::select! {
            biased;
            kind = poll_fn(|cx| self.fate.poll_failed(cx)) => return Err(Error::new(kind, step())),
            joined = timeout(self.open.deadline, self.join()) => joined,
        };
        let socket = match joined {
            Ok(Ok(socket)) => socket,
            // A door that opens for no such stream.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Error::new(ErrorKind::Reset(DROPPED), step()));
            }
            Ok(Err(error)) => return Err(lost(step(), error)),
            Err(_) => return Err(Error::new(ErrorKind::Timeout, step())),
        };
        self.is_answered = true;
        self.link.counts.opened.fetch_add(1, Ordering::Relaxed);
        let (link, fate) = (Arc::clone(&self.link), Arc::clone(&self.fate));
        Ok(Box::new(TcpTunnelStream::new(self.id, link, fate, socket)))
    }

    fn reject(mut self: Box<Self>, why: Error) {
        self.is_answered = true;
        self.link.reject(self.id, &why);
    }
}

impl Drop for TcpIncoming {
    fn drop(&mut self) {
        if !self.is_answered {
            let why = Error::new(ErrorKind::Other, "nobody has answered the open");
            self.link.reject(self.id, &why);
        }
    }
}
