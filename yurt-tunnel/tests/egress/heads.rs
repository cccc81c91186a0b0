//! The head of an answer is never read together with the target's first bytes.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::bed::{Bed, Door, ESTABLISHED, Io, Road, client, soon};
use super::sniffed::{Sniffed, records};
use super::targets::Target;

const WORDS: &str = "220 the server speaks first\r\n";
const REQUEST: &[u8] = b"CONNECT edge-1:25 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

#[tokio::test]
async fn one_read_of_the_socket_returns_the_head_alone_though_the_target_has_spoken() {
    const DIALS: usize = 10_240;
    const AT_ONCE: usize = 64;
    let bed = Arc::new(Bed::open());
    let target = Target::first(WORDS).await;
    bed.roads.lead("edge-1", Road::To(target.address));
    let mut dialling = JoinSet::new();
    for _ in 0..AT_ONCE {
        let bed = bed.clone();
        dialling.spawn(async move {
            for _ in 0..DIALS / AT_ONCE {
                let mut stream = UnixStream::connect(&bed.socket).await.unwrap();
                stream.write_all(REQUEST).await.unwrap();
                // Time for the target's words to come, if they may.
                tokio::time::sleep(Duration::from_millis(2)).await;
                let mut buffer = [0; 4096];
                let length = soon(stream.read(&mut buffer)).await.unwrap();
                assert_eq!(&buffer[..length], ESTABLISHED.as_bytes());
                let length = soon(stream.read(&mut buffer)).await.unwrap();
                assert_eq!(&buffer[..length], WORDS.as_bytes());
            }
        });
    }
    dialling.join_all().await;
}

/// What kube-apiserver does (k8s.io/apiserver, `tunnelHTTPConnect`): it reads the head through a buffer, and
/// gives up when anything is in it afterwards.
async fn dial_like_kube_apiserver(
    mut stream: Box<dyn Io>,
    target: &str,
) -> Result<Box<dyn Io>, String> {
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reader = BufReader::with_capacity(4096, stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).await.unwrap() == 0 {
            return Err(head);
        }
    }
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(head);
    }
    match reader.buffer().len() {
        0 => Ok(reader.into_inner()),
        more => Err(format!("unexpected {more} bytes of buffered data")),
    }
}

#[tokio::test]
async fn kube_apiserver_reaches_a_kubelet_by_tls_through_its_doors() {
    let bed = Bed::open();
    let (certificate, key) = bed.pki.server(&["localhost"]);
    let acceptor = TlsAcceptor::from(Arc::new(server(&certificate, &key)));
    let kubelet = Target::serving(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = BufReader::new(acceptor.accept(stream).await?);
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                stream.read_line(&mut request).await?;
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await?;
            stream.shutdown().await
        }
    })
    .await;
    bed.roads.lead("10.0.0.7", Road::To(kubelet.address));
    let tls = TlsConnector::from(client(&bed.pki, None, rustls::ALL_VERSIONS));
    for door in [Door::Socket, Door::Listener] {
        let stream = soon(dial_like_kube_apiserver(
            bed.knock(door).await,
            "10.0.0.7:10250",
        ))
        .await;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = soon(tls.connect(name, stream.unwrap())).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    }
}

#[tokio::test]
async fn kube_apiserver_reaches_a_server_that_speaks_first_through_its_doors() {
    let bed = Bed::open();
    let target = Target::first(WORDS).await;
    bed.roads.lead("edge-1", Road::To(target.address));
    for _ in 0..200 {
        // Over TLS this client reads records together, as Go's does not.
        let mut stream = soon(dial_like_kube_apiserver(
            bed.knock(Door::Socket).await,
            "edge-1:25",
        ))
        .await
        .unwrap();
        let mut words = vec![0; WORDS.len()];
        soon(stream.read_exact(&mut words)).await.unwrap();
        assert_eq!(words, WORDS.as_bytes());
    }
}

#[tokio::test]
async fn kube_apiserver_reads_why_there_is_no_connection() {
    let bed = Bed::open();
    for door in [Door::Socket, Door::Listener] {
        let why = soon(dial_like_kube_apiserver(
            bed.knock(door).await,
            "edge-9:10250",
        ))
        .await;
        let why = why.unwrap_err();
        assert!(
            why.starts_with("HTTP/1.1 502 Bad Gateway: no road to edge-9:10250\r\n"),
            "{why}"
        );
    }
}

/// The records of a TLS connection as they come by the wire.
#[tokio::test]
async fn over_tls_the_head_has_a_record_of_its_own() {
    let bed = Bed::open();
    let target = Target::first(WORDS).await;
    bed.roads.lead("edge-1", Road::To(target.address));
    for (door, user) in [(bed.listen, "kube-apiserver"), (bed.connect, "prometheus")] {
        let (certificate, key) = bed.pki.client(user, &[]);
        let shown = Some((certificate.as_str(), key.as_str()));
        let config = client(&bed.pki, shown, &[&rustls::version::TLS12]);
        let (sniffed, wire) = Sniffed::new(tokio::net::TcpStream::connect(door).await.unwrap());
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = soon(TlsConnector::from(config).connect(name, sniffed))
            .await
            .unwrap();
        wire.lock().clear();
        stream.write_all(REQUEST).await.unwrap();
        let mut both = vec![0; ESTABLISHED.len() + WORDS.len()];
        soon(stream.read_exact(&mut both)).await.unwrap();
        assert_eq!(both, [ESTABLISHED.as_bytes(), WORDS.as_bytes()].concat());
        // AES-GCM of TLS 1.2 adds 8 bytes of nonce and 16 of tag, ChaCha20 the tag alone.
        let lengths = records(&wire.lock());
        let overhead = lengths[0] - ESTABLISHED.len();
        assert!([16, 24].contains(&overhead), "{lengths:?}");
        assert_eq!(
            lengths,
            [ESTABLISHED.len() + overhead, WORDS.len() + overhead]
        );
    }
}

fn server(certificate: &str, key: &str) -> rustls::ServerConfig {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap()
}
