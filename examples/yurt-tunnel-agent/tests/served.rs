//! The program with a server: ready when it is connected, and stopped for a while.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use testbed::pki::Pki;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use yurt_core::transport::{Listener, Open, Opener, Target, Transport};
use yurt_tunnel::identity::{Credentials, Files};
use yurt_tunnel::link;
use yurt_tunnel::transport::{h2::H2Transport, quic::QuicTransport};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_connected_agent_is_ready_and_a_stop_of_five_seconds_costs_no_stream() {
    for transport in ["quic", "h2"] {
        let site = Site::new(transport).await;
        let agent = site.agent(transport);
        let accepted = timeout(LIMIT, site.listener.accept()).await;
        let session: Arc<dyn Opener> = accepted.unwrap().unwrap().unwrap();
        let mut stream = session.open(Open::new(Target::Echo, LIMIT)).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        let expected = format!("[+] {} by {transport}: answered", site.listener.address());
        let ready = async {
            loop {
                let said = ask(&agent.admin, "/readyz").await;
                if said.starts_with("HTTP/1.1 200 ") && said.contains(&expected) {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, ready)
            .await
            .expect("the server's first answer makes it ready");

        agent.signal("-STOP");
        stream.write_all(b"y").await.unwrap();
        stream.flush().await.unwrap();
        sleep(Duration::from_secs(5)).await;
        agent.signal("-CONT");
        let back = timeout(LIMIT, stream.read_u8()).await;
        assert_eq!(back.unwrap().unwrap(), b'y', "by {transport}");
    }
}

/// A server's listener and an agent's files.
struct Site {
    folder: TempDir,
    listener: Box<dyn Listener>,
}

/// A program that does not outlive its test.
struct Agent {
    program: Child,
    admin: String,
}

impl Site {
    async fn new(transport: &str) -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let pki = Pki::new();
        let path = |name: &str| folder.path().join(name);
        let (certificate, key) = pki.both(&["127.0.0.1"], "yurt:tunnel-servers");
        let (node, node_key) = pki.client("system:node:edge-1", &["system:nodes"]);
        for (name, text) in [
            ("ca.pem", pki.ca_pem()),
            ("server.pem", &certificate),
            ("server.key", &key),
            ("node.pem", &format!("{node}{node_key}")),
        ] {
            write(&path(name), text);
        }
        let files = Files {
            ca: path("ca.pem"),
            certificate: path("server.pem"),
            key: path("server.key"),
        };
        let credentials = Credentials::load(files).expect("the files are good");
        let config = link::Config::default();
        let cloud: Box<dyn Transport> = match transport {
            "quic" => Box::new(QuicTransport::new(credentials, config)),
            _ => Box::new(H2Transport::new(credentials, config)),
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = cloud.listen(any).await.expect("there is a free port");
        Self { folder, listener }
    }

    fn agent(&self, transport: &str) -> Agent {
        let path = |name: &str| self.folder.path().join(name);
        let mut program = Command::new(env!("CARGO_BIN_EXE_yurt-tunnel-agent"))
            .args(["--node-name", "edge-1", "--transport", transport])
            .args(["--server", &self.listener.address().to_string()])
            .args(["--admin-listen", "127.0.0.1:0"])
            .arg("--ca-file")
            .arg(path("ca.pem"))
            .arg("--certificate")
            .arg(path("node.pem"))
            .arg("--data-dir")
            .arg(path("data"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = program.stderr.take().expect("it is piped");
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("health and metrics are served"));
        let line = line.expect("the program says where");
        let admin = line.rsplit("address=").next().unwrap_or_default();
        let admin = admin.trim().to_owned();
        // Its log is read on, so that it does not wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        Agent { program, admin }
    }
}

impl Agent {
    fn signal(&self, signal: &str) {
        let arguments = [signal, &self.program.id().to_string()];
        let sent = Command::new("kill").args(arguments).status();
        assert!(sent.expect("kill is there").success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.program.kill(); // an error is a program that has ended
        let _ = self.program.wait();
    }
}

async fn ask(address: &str, path: &str) -> String {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    ask.await.expect("the program answers")
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's file need not survive a crash"
)]
fn write(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).expect("a new folder takes a file");
}
