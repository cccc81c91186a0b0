//! The most verbose log, the metrics and the probes hold no token, no part of one and no private key, whatever
//! is asked of the hub and however badly.

#![expect(
    clippy::unwrap_used,
    reason = "what a test takes for granted fails the test"
)]

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use http::Method;
use serde_json::json;
use testbed::{
    api::{ApiConfig, ApiServer, User},
    client::{Client, raw},
    endpoint::Endpoint,
    link::{Cut, Link},
    pki::Pki,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(20);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Tokens of the form that the API server gives out, one known and one not.
const KNOWN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6Imtub3duIn0.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6a25vd24ifQ.c2lnbmF0dXJlLW9mLXRoZS1rbm93bi10b2tlbg";
const UNKNOWN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InVua25vd24ifQ.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6dW5rbm93biJ9.c2lnbmF0dXJlLW9mLXRoZS11bmtub3duLXRva2Vu";

#[tokio::test]
async fn no_token_and_no_key_is_ever_shown() {
    let pki = Arc::new(Pki::new());
    let config = ApiConfig {
        pki: Some(pki.clone()),
        tokens: BTreeMap::from([(KNOWN.to_owned(), User::new("known", &[]))]),
        ..ApiConfig::default()
    };
    let cloud = ApiServer::start(config).await.unwrap();
    let link = Link::start(cloud.addr()).unwrap();
    let mut program = Program::start(&pki, link.addr());
    let endpoint = program.endpoint(&cloud).await;

    let node = pki.client("system:node:n1", &["system:nodes"]);
    let foreign = pki.client("system:node:n2", &["system:nodes"]);
    let callers = [
        Client::with_certificate(&endpoint, &node.0, &node.1).unwrap(),
        Client::with_certificate(&endpoint, &foreign.0, &foreign.1).unwrap(),
        Client::with_token(&endpoint, KNOWN).unwrap(),
        Client::with_token(&endpoint, UNKNOWN).unwrap(),
        Client::anonymous(&endpoint).unwrap(),
    ];
    for caller in &callers {
        ask_everything(caller).await;
    }
    say_it_badly(&endpoint).await;
    link.cut(Cut::Refuse).await;
    program.until("the API server is down").await;
    for caller in &callers {
        ask_everything(caller).await;
    }
    link.mend().await.unwrap();
    program.kill();
    link.cut(Cut::Silent).await;
    program.run();
    let endpoint = program.endpoint(&cloud).await;
    let known = Client::with_token(&endpoint, KNOWN).unwrap();
    ask_everything(&known).await;

    let mut shown = program.log();
    assert!(
        shown.contains("TRACE") && shown.contains("h2::"),
        "it is the most verbose"
    );
    for page in ["/metrics", "/readyz", "/healthz"] {
        shown.push_str(&program.page(page).await);
    }
    let secrets = secrets(&program.data(), [&node.1, &foreign.1]);
    assert!(secrets.len() > 15, "tokens, their parts, and lines of keys");
    for secret in secrets {
        let at = shown.find(&secret);
        let line = at.and_then(|at| shown[at.saturating_sub(200)..].lines().next());
        assert_eq!(line, None, "{secret} is shown");
    }
}

/// Asks in all ways that end by themselves; what is answered is another test's affair.
async fn ask_everything(caller: &Client) {
    let map = json!({"metadata": {"name": "m"}, "data": {"k": "v"}});
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [], "boundObjectRef": null}});
    for path in [
        "/version".to_owned(),
        "/api/v1".to_owned(),
        MAPS.to_owned(),
        format!("{MAPS}?resourceVersion=0"),
        format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion=0"),
        format!("{MAPS}/m"),
        format!("{PODS}/p/log"),
        format!("{MAPS}/../secrets"),
        format!("{MAPS}?labelSelector=!!"),
    ] {
        drop(caller.get(&path).await);
    }
    drop(
        caller
            .get_as(MAPS, "application/json;as=Table;v=v1;g=meta.k8s.io")
            .await,
    );
    drop(caller.post(MAPS, &map).await);
    drop(caller.put(&format!("{MAPS}/m"), &map).await);
    drop(caller.patch(&format!("{MAPS}/m"), "merge", &map).await);
    drop(caller.post(PODS, &pod).await);
    let account = "/api/v1/namespaces/default/serviceaccounts";
    drop(
        caller
            .post(account, &json!({"metadata": {"name": "default"}}))
            .await,
    );
    drop(
        caller
            .post(&format!("{account}/default/token"), &request)
            .await,
    );
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": KNOWN}});
    drop(
        caller
            .post("/apis/authentication.k8s.io/v1/tokenreviews", &review)
            .await,
    );
    let forged = [
        ("impersonate-user", "admin"),
        ("x-remote-user", "admin"),
        ("user-agent", KNOWN),
    ];
    drop(caller.send(Method::GET, MAPS, &forged, "").await);
    let huge = "x".repeat(4 << 20);
    drop(caller.send(Method::POST, MAPS, &[], &huge).await);
    drop(caller.delete(&format!("{MAPS}/m"), None).await);
}

/// Says what no client library would, each with a token.
async fn say_it_badly(endpoint: &Endpoint) {
    let heads = [
        format!("GET {MAPS} HTTP/1.1\r\nHost: hub\r\nAuthorization: Basic {KNOWN}\r\n\r\n"),
        format!(
            "GET {MAPS} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {KNOWN} {UNKNOWN}\r\n\r\n"
        ),
        format!(
            "GET {MAPS} HTTP/1.1\r\nHost: hub\r\nConnection: authorization, close\r\nAuthorization: Bearer {KNOWN}\r\n\r\n"
        ),
        format!("GET {MAPS}/%zz HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {KNOWN}\r\n\r\n"),
        format!(
            "GET {MAPS} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {KNOWN}\r\nBad Header: {UNKNOWN}\r\n\r\n"
        ),
        format!("GET {MAPS} HTTP/9.9\r\nAuthorization: Bearer {KNOWN}\r\n\r\n"),
        format!("{KNOWN}\r\n\r\n"),
        format!(
            "CONNECT hub:443 HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {KNOWN}\r\nConnection: close\r\n\r\n"
        ),
        format!(
            "GET {PODS}/p/exec?command=sh&stdin=true HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nAuthorization: Bearer {KNOWN}\r\n\r\n"
        ),
    ];
    for head in heads {
        // Some it answers and some it does not.
        drop(
            timeout(
                Duration::from_secs(2),
                raw::say(endpoint, None, head.as_bytes()),
            )
            .await,
        );
    }
}

/// Everything that must not be shown: tokens whole and in parts, and each line of the private keys.
fn secrets(data: &Path, keys: [&str; 2]) -> Vec<String> {
    let tokens = [KNOWN, UNKNOWN];
    let parts = tokens.iter().flat_map(|token| token.split('.'));
    let mut secrets: Vec<String> = tokens
        .iter()
        .copied()
        .chain(parts)
        .map(str::to_owned)
        .collect();
    let own = std::fs::read_dir(data).unwrap().filter_map(|file| {
        let text = std::fs::read_to_string(file.unwrap().path()).ok()?;
        text.contains("PRIVATE KEY").then_some(text)
    });
    let own: Vec<String> = own.collect();
    assert!(!own.is_empty(), "the hub made keys of its own");
    for key in keys.into_iter().chain(own.iter().map(String::as_str)) {
        let (_, private) = key.split_once("PRIVATE KEY-----").unwrap();
        let lines = private
            .lines()
            .map(str::trim)
            .filter(|line| line.len() > 8 && !line.contains("---"));
        secrets.extend(lines.map(str::to_owned));
    }
    secrets
}

/// The hub as a process, with its log in a file.
struct Program {
    folder: tempfile::TempDir,
    server: SocketAddr,
    child: Option<Child>,
    runs: usize,
}

impl Program {
    fn start(pki: &Pki, server: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = pki.client("system:node:n1", &["system:nodes"]);
        for (name, text) in [
            ("ca.pem", pki.ca_pem()),
            ("node.pem", &format!("{certificate}{key}")),
        ] {
            write(&folder.path().join(name), text);
        }
        let mut program = Self {
            folder,
            server,
            child: None,
            runs: 0,
        };
        program.run();
        program
    }

    fn run(&mut self) {
        self.runs += 1;
        let file = |name: &str| self.folder.path().join(name);
        let child = Command::new(env!("CARGO_BIN_EXE_yurthub"))
            .args(["--node-name", "n1", "--log", "trace"])
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--server", &format!("https://{}", self.server)])
            .arg("--ca-file")
            .arg(file("ca.pem"))
            .arg("--client-certificate")
            .arg(file("node.pem"))
            .arg("--data-dir")
            .arg(self.data())
            .stderr(File::create(self.log_file()).unwrap())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join(format!("log-{}", self.runs))
    }

    /// Everything that all its runs have logged.
    fn log(&self) -> String {
        let mut log = String::new();
        for run in 1..=self.runs {
            let mut file = File::open(self.folder.path().join(format!("log-{run}"))).unwrap();
            file.read_to_string(&mut log).unwrap();
        }
        log
    }

    /// Waits for a line of this run's log that has a text in it.
    async fn until(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read_to_string(self.log_file()).unwrap();
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(
                Instant::now() < deadline,
                "{text:?} is not in the log in time"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn address(&self, of: &str) -> SocketAddr {
        let line = self.until("the hub serves").await;
        let (_, rest) = line.split_once(&format!("{of}=")).unwrap();
        let rest = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = rest.find(|c: char| !c.is_ascii_digit() && !".:".contains(c));
        rest[..end.unwrap_or(rest.len())].parse().unwrap()
    }

    async fn endpoint(&self, cloud: &ApiServer) -> Endpoint {
        let url = format!("https://{}", self.address("clients").await);
        let ca_pem = std::fs::read_to_string(self.data().join("hub-ca.pem")).unwrap();
        Endpoint {
            url,
            ca_pem,
            ..cloud.endpoint()
        }
    }

    async fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address("admin").await)
            .await
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already is not an error.
            _ = child.kill();
            _ = child.wait();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's files need not survive a crash"
)]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
