//! A TCP relay that a test can cut: loudly, or so that nobody notices.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

use crate::api::tasks::Tasks;

/// A relay on a free port of 127.0.0.1 that counts what passes; dropping it ends it.
#[derive(Debug)]
pub struct Link {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Keeps the port while nothing listens on it.
    _placeholder: TcpSocket,
    /// The listener and the connections of the time since the last mend.
    era: Mutex<Era>,
}

/// How a link is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// New connections are refused, open ones are reset: everybody knows at once.
    Refuse,
    /// Nothing passes any more; connections stay open, and new ones open: nobody is told.
    Silent,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    up: AtomicU64,
    down: AtomicU64,
    open: AtomicUsize,
    accepted: AtomicUsize,
}

#[derive(Debug)]
struct Era {
    tasks: Tasks,
    is_silent: watch::Sender<bool>,
}

impl Link {
    /// Starts a relay to a target.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        let placeholder = bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let addr = placeholder.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
        });
        let era = Mutex::new(Era::begin(addr, &shared)?);
        Ok(Self {
            addr,
            shared,
            _placeholder: placeholder,
            era,
        })
    }

    /// Returns where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Cuts the link; when this returns, it is cut.
    pub async fn cut(&self, how: Cut) {
        let tasks = {
            let era = self.era.lock();
            match how {
                Cut::Silent => {
                    era.is_silent.send_replace(true);
                    return;
                }
                Cut::Refuse => era.tasks.clone(),
            }
        };
        tasks.cancel();
        tasks.ended().await;
    }

    /// Mends the link, on the same port; connections from before are reset.
    ///
    /// # Errors
    ///
    /// When the port cannot be bound again.
    pub async fn mend(&self) -> io::Result<()> {
        self.cut(Cut::Refuse).await;
        *self.era.lock() = Era::begin(self.addr, &self.shared)?;
        Ok(())
    }

    /// Counts the bytes that passed from clients to the target.
    pub fn bytes_up(&self) -> u64 {
        self.shared.up.load(Ordering::Relaxed)
    }

    /// Counts the bytes that passed from the target to clients.
    pub fn bytes_down(&self) -> u64 {
        self.shared.down.load(Ordering::Relaxed)
    }

    /// Counts the connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Counts the connections that were ever accepted.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.era.lock().tasks.cancel();
    }
}

impl Era {
    fn begin(addr: SocketAddr, shared: &Arc<Shared>) -> io::Result<Self> {
        let listener = bind(addr)?.listen(1024)?;
        let (tasks, is_silent) = (Tasks::default(), watch::Sender::new(false));
        tasks.spawn(accept(
            listener,
            shared.clone(),
            tasks.clone(),
            is_silent.subscribe(),
        ));
        Ok(Self { tasks, is_silent })
    }
}

/// Binds with SO_REUSEADDR, so that the placeholder and a listener share the port.
fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    tasks: Tasks,
    is_silent: watch::Receiver<bool>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        tasks.spawn(relay(client, shared.clone(), is_silent.clone()));
    }
}

/// Relays one connection; both ends are reset when this ends half-way.
async fn relay(client: TcpStream, shared: Arc<Shared>, mut is_silent: watch::Receiver<bool>) {
    let _open = Open::new(&shared);
    // Both live here, so that a silent cut closes neither.
    let (mut client, mut server) = (End::new(client), None);
    tokio::select! {
        biased;
        // A cut is decided before the next byte; only the end of this era ends the silence.
        turned = is_silent.wait_for(|is_silent| *is_silent) => drop(turned),
        () = exchange(&mut client, &mut server, &shared) => return,
    }
    std::future::pending().await
}

async fn exchange(client: &mut End, server: &mut Option<End>, shared: &Shared) {
    let server = match TcpStream::connect(shared.target).await {
        Ok(stream) => server.insert(End::new(stream)),
        Err(error) => return tracing::debug!(%error, "relay"),
    };
    let (client_read, client_write) = client.stream.split();
    let (server_read, server_write) = server.stream.split();
    let up = pump(client_read, server_write, &shared.up);
    let down = pump(server_read, client_write, &shared.down);
    match tokio::try_join!(up, down) {
        Ok(_) => {
            client.is_finished = true;
            server.is_finished = true;
        }
        Err(error) => tracing::debug!(%error, "relay"),
    }
}

/// One end of a connection: a relay has nothing of its own to say goodbye with, so what it drops
/// before both sides have finished is reset.
struct End {
    stream: TcpStream,
    is_finished: bool,
}

impl End {
    fn new(stream: TcpStream) -> Self {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        Self {
            stream,
            is_finished: false,
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        if let Err(error) = self.stream.set_zero_linger() {
            tracing::debug!(%error, "no reset");
        }
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    counter: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
        counter.fetch_add(u64::try_from(length).unwrap_or_default(), Ordering::Relaxed);
    }
}

/// Counts an open connection, however its task ends.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.open.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const MOMENT: Duration = Duration::from_millis(200);

    /// A server that gives every byte back.
    async fn echo() -> (SocketAddr, Tasks) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let tasks = Tasks::default();
        let owner = tasks.clone();
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                owner.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    drop(tokio::io::copy(&mut read, &mut write).await);
                    drop(write.shutdown().await);
                });
            }
        });
        (addr, tasks)
    }

    async fn say(stream: &mut TcpStream, text: &str) -> io::Result<String> {
        stream.write_all(text.as_bytes()).await?;
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).await?;
        Ok(String::from_utf8(heard).unwrap())
    }

    #[tokio::test]
    async fn bytes_pass_and_are_counted_both_ways() {
        let (target, _tasks) = echo().await;
        let link = Link::start(target).unwrap();
        let mut stream = TcpStream::connect(link.addr()).await.unwrap();
        assert_eq!(say(&mut stream, "hello").await.unwrap(), "hello");
        assert_eq!(
            (link.bytes_up(), link.connections(), link.accepted()),
            (5, 1, 1)
        );
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
        assert_eq!(link.bytes_down(), 5);
    }

    #[tokio::test]
    async fn a_refused_link_resets_what_is_open_and_refuses_what_comes() {
        let (target, _tasks) = echo().await;
        let link = Link::start(target).unwrap();
        let mut stream = TcpStream::connect(link.addr()).await.unwrap();
        say(&mut stream, "hello").await.unwrap();
        link.cut(Cut::Refuse).await;
        let read = tokio::time::timeout(SOON, stream.read(&mut [0; 8]))
            .await
            .unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let refused = TcpStream::connect(link.addr()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        link.mend().await.unwrap();
        let mut stream = TcpStream::connect(link.addr()).await.unwrap();
        assert_eq!(say(&mut stream, "again").await.unwrap(), "again");
    }

    #[tokio::test]
    async fn a_silent_link_tells_nobody() {
        let (target, _tasks) = echo().await;
        let link = Link::start(target).unwrap();
        let mut old = TcpStream::connect(link.addr()).await.unwrap();
        say(&mut old, "hello").await.unwrap();
        link.cut(Cut::Silent).await;
        let mut new = TcpStream::connect(link.addr()).await.unwrap();
        for stream in [&mut old, &mut new] {
            assert!(
                tokio::time::timeout(MOMENT, say(stream, "anybody?"))
                    .await
                    .is_err()
            );
        }
        assert_eq!(link.bytes_up(), 5);
        link.mend().await.unwrap();
        let broken = tokio::time::timeout(SOON, old.read(&mut [0; 8]))
            .await
            .unwrap();
        assert_eq!(broken.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let mut stream = TcpStream::connect(link.addr()).await.unwrap();
        assert_eq!(say(&mut stream, "again").await.unwrap(), "again");
    }
}
