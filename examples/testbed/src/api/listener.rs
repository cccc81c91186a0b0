//! The door: TCP, TLS with optional client certificates, HTTP/1.1 and HTTP/2.

use std::{io, net::SocketAddr, sync::Arc};

use hyper::service::service_fn;
use hyper_util::{rt::TokioIo, server::conn::auto};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{auth, serve::Server};
use crate::pki::Pki;

/// Makes the TLS side: a certificate for every loopback name, client certificates of the same authority.
pub(super) fn tls(pki: &Pki) -> TlsAcceptor {
    let (certificate, key) = pki.server(&[
        "127.0.0.1",
        "::1",
        "localhost",
        "kubernetes",
        "kubernetes.default.svc",
    ]);
    let certificate =
        CertificateDer::from_pem_slice(certificate.as_bytes()).expect("the authority writes PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("the authority writes PEM");
    let authority =
        CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).expect("the authority writes PEM");
    let mut roots = RootCertStore::empty();
    roots.add(authority).expect("the authority is an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .expect("the roots are not empty");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows the default versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .expect("certificate and key were made together");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Binds a free port and accepts until the server's tasks are cancelled.
pub(super) async fn listen(server: &Arc<Server>, tls: TlsAcceptor) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let addr = listener.local_addr()?;
    let accepting = server.clone();
    server.tasks.spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely: the next accept may do better.
                tokio::task::yield_now().await;
                continue;
            };
            let connection = serve(accepting.clone(), tls.clone(), stream);
            accepting.tasks.spawn(connection);
        }
    });
    Ok(addr)
}

async fn serve(server: Arc<Server>, tls: TlsAcceptor, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let stream = match tls.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "TLS handshake"),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let user = certificates.and_then(|chain| auth::user_of(chain.first()?));
    let max_streams = server.config.max_streams;
    let tasks = server.tasks.clone();
    let service = service_fn(move |request| server.clone().handle(request, user.clone()));
    let mut builder = auto::Builder::new(tasks);
    // Heads as kube-apiserver takes them: 1 MiB.
    builder
        .http2()
        .max_concurrent_streams(max_streams)
        .max_header_list_size(1 << 20);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection");
    }
}
