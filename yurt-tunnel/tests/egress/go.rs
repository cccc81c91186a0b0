//! kube-apiserver's own code at both of its doors: the egress selector of `k8s.io/apiserver`.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use testbed::cluster::{Binaries, Version};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::bed::{Bed, soon, write};
use super::targets::{Target, noise};

const WORDS: &str = "220 the server speaks first\r\n";

/// The dialer, and a configuration for each door.
struct Dialer {
    program: PathBuf,
    configs: [PathBuf; 2],
}

impl Dialer {
    /// Returns it, or says that there is none.
    fn of(bed: &Bed) -> Option<Self> {
        let program =
            Binaries::find(Version::default()).and_then(|binaries| binaries.egress_dialer());
        let program = match program {
            Ok(program) => program,
            Err(error) => {
                skipped(&error);
                return None;
            }
        };
        let (certificate, key) = bed.pki.client("kube-apiserver-kubelet-client", &[]);
        let folder = bed.folder.path();
        let transports = [
            format!("uds: {{udsName: {}}}", bed.socket.display()),
            format!(
                "tcp: {{url: \"https://{}\", tlsConfig: {{caBundle: {}, clientCert: {}, clientKey: {}}}}}",
                bed.listen,
                folder.join("ca.crt").display(),
                write(folder, "egress.crt", &certificate).display(),
                write(folder, "egress.key", &key).display(),
            ),
        ];
        let config = |transport: &String| {
            format!(
                "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n\
                 - {{name: cluster, connection: {{proxyProtocol: HTTPConnect, transport: {{{transport}}}}}}}\n"
            )
        };
        let [uds, tcp] = transports.each_ref().map(config);
        Some(Self {
            program,
            configs: [
                write(folder, "uds.yaml", &uds),
                write(folder, "tcp.yaml", &tcp),
            ],
        })
    }

    async fn run(&self, config: &Path, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(&self.program)
            .arg(config)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writing = async {
            drop(stdin.write_all(input).await);
            drop(stdin);
        };
        let (ended, ()) = soon(async { tokio::join!(child.wait_with_output(), writing) }).await;
        ended.unwrap()
    }
}

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn its_dials_to_a_server_that_speaks_first_all_succeed() {
    let bed = Bed::open();
    let Some(dialer) = Dialer::of(&bed) else {
        return;
    };
    bed.lead("edge-1", Target::first(WORDS).await);
    let length = WORDS.len().to_string();
    for config in &dialer.configs {
        let mut arguments = vec!["dial"];
        arguments.resize(1_001, "edge-1:25");
        let ended = dialer.run(config, &arguments, b"").await;
        assert!(
            ended.status.success(),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
        let ended = dialer
            .run(config, &["first", &length, "edge-1:25"], b"")
            .await;
        assert_eq!(
            ended.stdout,
            WORDS.as_bytes(),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
}

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn it_gets_everything_back_after_it_has_ended_its_direction() {
    let bed = Bed::open();
    let Some(dialer) = Dialer::of(&bed) else {
        return;
    };
    bed.lead("2001:db8::7", Target::echo().await);
    let sent = noise(1 << 20);
    for config in &dialer.configs {
        let ended = dialer
            .run(config, &["echo", "[2001:db8::7]:10250"], &sent)
            .await;
        assert!(
            ended.status.success(),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
        assert!(ended.stdout == sent);
    }
}

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn it_tells_why_there_is_no_connection() {
    let bed = Bed::open();
    let Some(dialer) = Dialer::of(&bed) else {
        return;
    };
    for config in &dialer.configs {
        let ended = dialer.run(config, &["dial", "edge-9:10250"], b"").await;
        let told = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{told}");
        assert!(
            told.contains("502 Bad Gateway: no road to edge-9:10250"),
            "{told}"
        );
    }
}

#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
fn skipped(why: &testbed::cluster::Error) {
    eprintln!("skipped: {why}");
}
