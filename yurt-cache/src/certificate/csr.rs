//! A certificate asked of the cluster: a CertificateSigningRequest, posted and waited for until somebody has
//! approved and signed it, or has said no.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Response, StatusCode};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};
use yurt_core::credentials::{CredentialsError, Identity, Pem};
use yurt_core::name::NodeName;

use crate::body::{self, Body};
use crate::identity::Caller;
use crate::identity::subject::{peer_node_name, peer_public_key};
use crate::upstream::client::{Content, JSON, outcome};
use crate::upstream::{SendError, Upstream};

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// How long a request waits for somebody to approve it, before another takes its place: kube-controller-manager
/// forgets one that is pending after a day, and a hub that has restarted meanwhile has lost its key.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// How often it is looked at, at first and later.
const FIRST_LOOK: Duration = Duration::from_millis(500);
const LATER_LOOK: Duration = Duration::from_secs(15);

/// The longest answer: a certificate and what was asked.
const LIMIT: usize = 256 << 10;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SigningError {
    #[error("make a key and a request")]
    Make(#[source] rcgen::Error),
    #[error("send the certificate signing request")]
    Send(#[source] SendError),
    #[error("the certificate signing request has no name that a path could have")]
    Name(#[source] http::Error),
    #[error("read the answer to the certificate signing request")]
    Read(#[source] body::BoxError),
    #[error("the certificate signing request is refused with {0}: {1}")]
    Refused(StatusCode, String),
    #[error("parse the certificate signing request")]
    Parse(#[source] serde_json::Error),
    #[error("the certificate signing request {name} is {verdict}: {message}")]
    Denied {
        name: String,
        verdict: String,
        message: String,
    },
    #[error("nobody has signed the certificate signing request {0} in an hour")]
    Unsigned(String),
    #[error("use what was signed")]
    Use(#[source] CredentialsError),
    #[error("what was signed is not what was asked for")]
    Other,
}

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The node shows it to the API server.
    Client,
    /// The hub shows it to its clients, under these names and addresses.
    Serving(Vec<String>),
}

/// A certificate and its key.
pub(crate) struct Signed {
    pub(crate) identity: Identity,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

#[derive(Deserialize)]
struct Posted {
    metadata: Metadata,
    #[serde(default)]
    status: PostedStatus,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PostedStatus {
    certificate: Option<String>,
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    #[serde(default)]
    message: String,
}

/// Asks for a certificate as the caller and waits for it.
pub(crate) async fn ask(
    upstream: &Upstream,
    caller: &Caller,
    node: &NodeName,
    purpose: &Purpose,
) -> Result<Signed, SigningError> {
    let key = KeyPair::generate().map_err(SigningError::Make)?;
    let request = purpose.request(node, &key).map_err(SigningError::Make)?;
    let body = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "yurthub-"},
        "spec": {
            "request": STANDARD.encode(request),
            "signerName": purpose.signer(),
            "usages": purpose.usages(),
        },
    });
    let client = caller.client(upstream);
    let posted = read(client.post(PATH, Content::json(&body)).await).await?;
    let name = posted.metadata.name;
    tracing::info!(name, signer = purpose.signer(), "asked for a certificate");
    let path = format!("{PATH}/{name}");
    let began = Instant::now();
    let mut pause = FIRST_LOOK;
    while began.elapsed() < PATIENCE {
        sleep(pause).await;
        pause = (pause * 2).min(LATER_LOOK);
        let seen = match read(client.get(&path, JSON).await).await {
            Ok(seen) => seen,
            // The link may break while people make up their minds.
            Err(SigningError::Send(_) | SigningError::Read(_)) => continue,
            Err(error) => return Err(error),
        };
        if let Some(no) = seen.status.refusal(&name) {
            return Err(no);
        }
        if let Some(certificate) = seen.status.certificate {
            return purpose.take(node, &certificate, &key);
        }
    }
    Err(SigningError::Unsigned(name))
}

async fn read(sent: Result<Response<Body>, SendError>) -> Result<Posted, SigningError> {
    let response = sent.map_err(|error| match error {
        SendError::Request(source) => SigningError::Name(source),
        error => SigningError::Send(error),
    })?;
    let answer = outcome(response, LIMIT).await.map_err(SigningError::Read)?;
    let text = answer.map_err(|status| SigningError::Refused(status.code, status.message))?;
    serde_json::from_slice(&text).map_err(SigningError::Parse)
}

impl PostedStatus {
    fn refusal(&self, name: &str) -> Option<SigningError> {
        let no = self
            .conditions
            .iter()
            .find(|condition| matches!(condition.r#type.as_str(), "Denied" | "Failed"))?;
        Some(SigningError::Denied {
            name: name.to_owned(),
            verdict: no.r#type.to_lowercase(),
            message: no.message.clone(),
        })
    }
}

impl Purpose {
    fn signer(&self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving(_) => "kubernetes.io/kubelet-serving",
        }
    }

    fn usages(&self) -> [&'static str; 2] {
        match self {
            Self::Client => ["digital signature", "client auth"],
            Self::Serving(_) => ["digital signature", "server auth"],
        }
    }

    /// Makes a request as both signers want it: `system:node:<name>` of `system:nodes`.
    fn request(&self, node: &NodeName, key: &KeyPair) -> Result<String, rcgen::Error> {
        let mut params = match self {
            Self::Client => CertificateParams::default(),
            Self::Serving(names) => CertificateParams::new(names.clone())?,
        };
        params.distinguished_name = DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, "system:nodes");
        name.push(DnType::CommonName, format!("system:node:{node}"));
        params.serialize_request(key)?.pem()
    }

    /// Takes what was signed, if it is what was asked for.
    fn take(
        &self,
        node: &NodeName,
        certificate: &str,
        key: &KeyPair,
    ) -> Result<Signed, SigningError> {
        let pem = STANDARD
            .decode(certificate)
            .map_err(|_| SigningError::Other)?;
        let pem = String::from_utf8(pem).map_err(|_| SigningError::Other)?;
        let key_pem = key.serialize_pem();
        let named = |pem: &str| Pem::new("status.certificate", pem);
        let identity =
            Identity::parse(&named(&pem), &named(&key_pem)).map_err(SigningError::Use)?;
        let leaf = identity.leaf();
        let is_ours =
            peer_public_key(leaf).is_some_and(|signed| signed == key.subject_public_key_info());
        let is_named = *self != Self::Client || peer_node_name(leaf).as_ref() == Some(node);
        if !is_ours || !is_named {
            return Err(SigningError::Other);
        }
        Ok(Signed {
            identity,
            certificate_pem: pem,
            key_pem,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(node: &str, key: &KeyPair) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, "system:nodes");
        name.push(DnType::CommonName, format!("system:node:{node}"));
        STANDARD.encode(params.self_signed(key).unwrap().pem())
    }

    #[test]
    fn only_what_was_asked_for_is_taken() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let node: NodeName = "n1".parse().unwrap();
        let take = |certificate: &str| Purpose::Client.take(&node, certificate, &key);
        assert!(take(&sign("n1", &key)).is_ok());
        for (certificate, what) in [
            (sign("n1", &other), "another key"),
            (sign("n2", &key), "another node"),
            ("!".to_owned(), "no base64"),
            (STANDARD.encode("no PEM"), "no certificate"),
            (STANDARD.encode([0xff]), "no text"),
        ] {
            assert!(take(&certificate).is_err(), "{what}");
        }
    }

    #[test]
    fn a_request_is_as_both_signers_want_it() {
        let key = KeyPair::generate().unwrap();
        let names = vec![
            "kubernetes.default.svc".to_owned(),
            "169.254.2.1".to_owned(),
        ];
        for purpose in [Purpose::Client, Purpose::Serving(names)] {
            let pem = purpose.request(&"n1".parse().unwrap(), &key).unwrap();
            assert!(pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
            assert_eq!(purpose.usages()[0], "digital signature");
        }
    }
}
