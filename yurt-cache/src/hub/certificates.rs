//! The hub's own certificates: what it presents to its clients, and the one with which it goes to the API servers
//! where it has one of its own. Both may change while it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use yurt_core::credentials::Identity;

use super::{Config, Error, ServingSigner};
use crate::certificate::{self, CLIENT_FILE, CLIENT_KEY, Enrolment, Purpose, ServingCertificate};
use crate::identity::ClientCa;
use crate::tasks::{Children, Panicked, blocking};
use crate::tls::Presented;
use crate::upstream::{Need, Upstream};

/// How often the certificate of the hub's own CA is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(12 * 3_600);

/// How often the operator's files are read again.
const REREAD_EVERY: Duration = Duration::from_secs(30);

/// What is presented now, and where it comes from.
#[derive(Debug)]
pub(super) struct Certificates {
    presented: Arc<Presented>,
    authority: Option<PathBuf>,
    names: Vec<String>,
}

impl Certificates {
    /// Takes what is configured, else what the cluster has signed, else makes one. Blocks on the disk.
    pub(super) fn open(
        config: &Config,
        names: Vec<String>,
        now: jiff::Timestamp,
    ) -> Result<Self, Error> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| Error::Certificate(error);
        let serving = match (&config.serving_certificate, &config.serving_key) {
            (Some(certificate), Some(key)) => ServingCertificate::load(certificate, key),
            _ => ServingCertificate::load_or_make(&config.data_dir, &names, now),
        };
        let serving = serving.map_err(|error| failed(error.into()))?;
        let authority = serving.authority_file().map(Path::to_owned);
        let signed = (authority.is_some() && config.serving_signer == ServingSigner::Cluster)
            .then(|| certificate::load(&config.data_dir, &Purpose::Serving(names.clone())))
            .flatten();
        let identity = signed.unwrap_or_else(|| serving.identity().clone());
        let presented = Presented::new(&identity).map_err(|error| failed(error.into()))?;
        Ok(Self {
            presented: Arc::new(presented),
            authority,
            names,
        })
    }

    pub(super) fn presented(&self) -> Arc<Presented> {
        self.presented.clone()
    }

    /// The CA file to hand to clients, if the CA is the hub's own.
    pub(super) fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// What the operator's files say later.
    pub(super) fn reread(&self, config: &Config, client_ca: &Arc<ClientCa>) -> Rereading {
        let configured = config
            .serving_certificate
            .clone()
            .zip(config.serving_key.clone());
        Rereading {
            client_ca: client_ca.clone(),
            serving: configured,
            presented: self.presented(),
        }
    }

    /// Keeps them fresh until `stop`.
    pub(super) fn start(
        &self,
        config: &Config,
        upstream: &Upstream,
        children: &mut Children,
        stop: &CancellationToken,
    ) {
        let enrolment = |purpose, token_file, taken| Enrolment {
            node: config.node_name.clone(),
            purpose,
            dir: config.data_dir.clone(),
            token_file,
            clock: config.clock,
            taken,
        };
        if config.bootstrap_token_file.is_some() {
            let reloaded = upstream.clone();
            let taken = Box::new(move |_: Identity| reloaded.reload());
            let client = enrolment(Purpose::Client, config.bootstrap_token_file.clone(), taken);
            let client = client.run(upstream.clone(), stop.clone());
            children.spawn("client certificate", client);
        }
        if self.authority.is_none() {
            return;
        }
        match config.serving_signer {
            ServingSigner::Own => {
                let (dir, names) = (config.data_dir.clone(), self.names.clone());
                let look = look_after(self.presented(), dir, names, config.clock);
                let stop = stop.clone();
                children.spawn("serving certificate", async move {
                    stop.run_until_cancelled(look).await;
                });
            }
            ServingSigner::Cluster => {
                let presented = self.presented();
                let taken = Box::new(move |identity: Identity| present(&presented, &identity));
                let serving = enrolment(Purpose::Serving(self.names.clone()), None, taken);
                let serving = serving.run(upstream.clone(), stop.clone());
                children.spawn("serving certificate", serving);
            }
        }
    }
}

/// Reads the files again that the operator may change: the CA of the clients, and what is presented.
pub(super) struct Rereading {
    client_ca: Arc<ClientCa>,
    /// Certificate and key, unless they are the hub's own.
    serving: Option<(PathBuf, PathBuf)>,
    presented: Arc<Presented>,
}

impl Rereading {
    pub(super) async fn run(self, stop: CancellationToken) {
        let reading = Arc::new(self);
        loop {
            let pause = tokio::time::sleep(REREAD_EVERY);
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
            let reading = reading.clone();
            let read = blocking(move || {
                reading.read();
                Ok::<(), Panicked>(())
            });
            // A panic is told already, and the next look may be a better one.
            let _told = read.await;
        }
    }

    fn read(&self) {
        self.client_ca.refresh();
        let Some((certificate, key)) = &self.serving else {
            return;
        };
        match Identity::read(certificate, key) {
            Ok(identity) => present(&self.presented, &identity),
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, "the serving certificate is not read again");
            }
        }
    }
}

/// Sets up the way to the API servers: with the hub's own certificate, which may still be to come, where it is
/// to have one.
pub(super) fn upstream(config: &Config) -> Result<Upstream, Error> {
    let mut upstream = config.upstream.clone();
    let mut need = Need::Required;
    if config.bootstrap_token_file.is_some() {
        upstream.client_certificate = Some(config.data_dir.join(CLIENT_FILE));
        upstream.client_key = Some(config.data_dir.join(CLIENT_KEY));
        need = Need::ToCome;
    }
    Upstream::new(upstream, need).map_err(|error| Error::Upstream(error.into()))
}

/// Renews the certificate of the hub's own CA while the hub runs.
async fn look_after(
    presented: Arc<Presented>,
    dir: PathBuf,
    names: Vec<String>,
    clock: fn() -> jiff::Timestamp,
) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (presented, dir, names) = (presented.clone(), dir.clone(), names.clone());
        let looked = blocking(move || {
            match ServingCertificate::load_or_make(&dir, &names, clock()) {
                Ok(serving) => present(&presented, serving.identity()),
                Err(error) => {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::warn!(error, "the serving certificate is not renewed");
                }
            }
            Ok::<(), Panicked>(())
        });
        // A panic is told already, and the next look may be a better one.
        let _told = looked.await;
    }
}

fn present(presented: &Presented, identity: &Identity) {
    if let Err(error) = presented.replace(identity) {
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(error, "the new serving certificate cannot be used");
    }
}
