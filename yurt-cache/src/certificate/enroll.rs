//! Keeps a certificate that the cluster signs: asks for the first, renews it in time, keeps both halves on the
//! disk, and wipes what the node joined with. A failure is a warning and another attempt, never the end of anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use yurt_core::credentials::{Identity, read_file};
use yurt_core::files;
use yurt_core::name::NodeName;

use super::CertificateError;
use super::authority::is_for;
use super::csr::{Purpose, Signed, ask};
use super::renewal::{Attempt, Step, next};
use crate::identity::subject::{Validity, peer_validity};
use crate::identity::{Caller, Token};
use crate::tasks::{Panicked, blocking};
use crate::tls::is_pair;
use crate::upstream::{Reach, Upstream};

/// The node's own client certificate and its key, beside the data.
pub(crate) const CLIENT_FILE: &str = "node-client.pem";
pub(crate) const CLIENT_KEY: &str = "node-client.key";

/// The serving certificate that the cluster signed, and its key.
pub(crate) const SERVING_FILE: &str = "cluster-serving.pem";
pub(crate) const SERVING_KEY: &str = "cluster-serving.key";

/// What is done with a new certificate once it is on the disk.
pub(crate) type Taken = Box<dyn Fn(Identity) + Send + Sync>;

/// A certificate to keep.
pub(crate) struct Enrolment {
    pub(crate) node: NodeName,
    pub(crate) purpose: Purpose,
    pub(crate) dir: PathBuf,
    /// Holds the bootstrap token; wiped when there is a certificate.
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) clock: fn() -> Timestamp,
    pub(crate) taken: Taken,
}

/// A certificate on the disk.
struct Kept {
    validity: Validity,
    chance: u8,
}

impl Enrolment {
    /// Keeps it until `stop`.
    pub(crate) async fn run(self, upstream: Upstream, stop: CancellationToken) {
        let this = Arc::new(self);
        let keeping = async {
            let mut last = None;
            loop {
                let on_disk = this.clone();
                let kept = blocking(move || Ok::<_, Panicked>(on_disk.load()));
                let kept = kept.await.unwrap_or_default();
                let now = (this.clock)();
                let chance = kept.as_ref().map_or(0, |kept| kept.chance);
                let validity = kept.map(|kept| kept.validity);
                match next(now, validity, chance, last) {
                    Step::Wait(pause) => sleep(pause).await,
                    Step::Request => last = this.clone().attempt(&upstream, validity, last).await,
                }
            }
        };
        stop.run_until_cancelled(keeping).await;
    }

    /// Returns the failure, if it is one.
    async fn attempt(
        self: Arc<Self>,
        upstream: &Upstream,
        validity: Option<Validity>,
        last: Option<Attempt>,
    ) -> Option<Attempt> {
        let mut reach = upstream.reach();
        let is_online = |reach: &Reach| matches!(reach, Reach::Online);
        if reach.wait_for(is_online).await.is_err() {
            return last;
        }
        let now = (self.clock)();
        let caller = self.caller(now, validity).await;
        let asked = ask(upstream, &caller, &self.node, &self.purpose).await;
        let error: Box<dyn std::error::Error + Send + Sync> = match asked {
            Ok(signed) => match self.clone().take(signed).await {
                Ok(()) => return None,
                Err(error) => error.into(),
            },
            Err(error) => error.into(),
        };
        let error: &(dyn std::error::Error + 'static) = &*error;
        tracing::warn!(error, purpose = self.purpose.word(), "no certificate yet");
        Some(Attempt {
            at: now,
            failures: last.map_or(0, |last| last.failures).saturating_add(1),
        })
    }

    /// As whom to ask: the node while it has a certificate that is good, else who it was told to be.
    async fn caller(self: &Arc<Self>, now: Timestamp, validity: Option<Validity>) -> Caller {
        let is_client = self.purpose == Purpose::Client;
        if !is_client || validity.is_some_and(|validity| validity.not_after > now) {
            return Caller::Node;
        }
        let this = self.clone();
        let token = blocking(move || Ok::<_, Panicked>(this.read_token())).await;
        let token = token.unwrap_or_default();
        token.map_or(Caller::Node, |token| Caller::Token(Token::new(&token)))
    }

    fn read_token(&self) -> Option<String> {
        let path = self.token_file.as_ref()?;
        let text = read_file(path).ok()?;
        let token = find_token(std::str::from_utf8(&text).ok()?);
        if token.is_none() {
            tracing::warn!(path = %path.display(), "there is no bootstrap token in it");
        }
        token
    }

    async fn take(self: Arc<Self>, signed: Signed) -> Result<(), CertificateError> {
        let this = self.clone();
        blocking(move || {
            let (certificate, key) = this.purpose.files();
            files::replace(
                &this.dir,
                &[
                    (key, &signed.key_pem, 0o600),
                    (certificate, &signed.certificate_pem, 0o600),
                ],
            )?;
            tracing::info!(purpose = this.purpose.word(), "there is a new certificate");
            (this.taken)(signed.identity);
            this.wipe_token();
            Ok(())
        })
        .await
    }

    /// Who has joined needs no token to join any more, and nobody else shall find it.
    fn wipe_token(&self) {
        let Some(path) = &self.token_file else { return };
        match fs::remove_file(path) {
            Ok(()) => tracing::info!(path = %path.display(), "wiped the bootstrap token"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the bootstrap token is not wiped");
            }
        }
    }

    fn load(&self) -> Option<Kept> {
        let identity = load(&self.dir, &self.purpose)?;
        let digest = Sha256::digest(identity.leaf());
        Some(Kept {
            validity: peer_validity(identity.leaf())?,
            chance: digest[0],
        })
    }
}

/// Returns the certificate that an earlier run left, if both halves are there, belong together and are for the
/// names of today. Blocks on the
/// disk.
pub(crate) fn load(dir: &Path, purpose: &Purpose) -> Option<Identity> {
    let (certificate, key) = purpose.files();
    let identity = Identity::read(&dir.join(certificate), &dir.join(key)).ok()?;
    let is_wanted = match purpose {
        Purpose::Client => true,
        Purpose::Serving(names) => is_for(identity.leaf(), names),
    };
    (is_wanted && is_pair(&identity)).then_some(identity)
}

impl Purpose {
    pub(crate) fn files(&self) -> (&'static str, &'static str) {
        match self {
            Self::Client => (CLIENT_FILE, CLIENT_KEY),
            Self::Serving(_) => (SERVING_FILE, SERVING_KEY),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Serving(_) => "serving",
        }
    }
}

/// Finds a bootstrap token, alone in a file or in a bootstrap kubeconfig.
fn find_token(text: &str) -> Option<String> {
    let is_token = |word: &str| {
        let is_plain = |part: &str, length: usize| {
            part.len() == length
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        word.split_once('.')
            .is_some_and(|(id, secret)| is_plain(id, 6) && is_plain(secret, 16))
    };
    text.split(|one: char| one.is_whitespace() || matches!(one, '"' | '\'' | ','))
        .find(|word| is_token(word))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootstrap_token_is_found_alone_and_in_a_kubeconfig() {
        let token = "abcdef.0123456789abcdef";
        for text in [
            token.to_owned(),
            format!("{token}\n"),
            format!("users:\n- name: bootstrap\n  user:\n    token: {token}\n"),
            format!("user: {{\"token\": \"{token}\"}}"),
        ] {
            assert_eq!(find_token(&text).as_deref(), Some(token), "{text}");
        }
        for none in ["", "abcdef", "abcdef.0123", "ABCDEF.0123456789abcdef"] {
            assert_eq!(find_token(none), None, "{none}");
        }
    }
}
