//! What of a kubeconfig the quickstart needs: the server, its CA, and a token or a client certificate.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Uri;
use rustls::pki_types::ServerName;
use serde::Deserialize;

use crate::bridge::{Certificate, Server};

/// How to reach a cluster.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) context: String,
    pub(crate) url: String,
    pub(crate) server: Server,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) token: Option<String>,
}

/// What is wrong with a kubeconfig; each is one clear line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// The file, or one that it names, cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no kubeconfig.
    #[error("{path} is no kubeconfig: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The first mistake.
        message: String,
    },
    /// A name leads nowhere.
    #[error("the kubeconfig has no {kind} {name:?}")]
    Absent {
        /// `context`, `cluster` or `user`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The server's URL cannot be used.
    #[error("server {0:?} is not https://host:port")]
    Url(String),
    /// Something that only kubectl can do.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Something is not base64.
    #[error("{key} is not base64")]
    Decode {
        /// The key in the file.
        key: &'static str,
        /// Where.
        source: base64::DecodeError,
    },
    /// Something is not text.
    #[error("{0} is not PEM")]
    Text(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
}

impl Access {
    /// Reads the current context of a kubeconfig.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = read(path)?;
        let file: File = serde_saphyr::from_str(&text).map_err(|error| Error::Parse {
            path: path.to_owned(),
            message: first_line(error),
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        file.access(folder)
    }
}

impl File {
    fn access(mut self, folder: &Path) -> Result<Access, Error> {
        let absent = |kind, name: &str| Error::Absent {
            kind,
            name: name.to_owned(),
        };
        let name = std::mem::take(&mut self.current_context);
        let context = self.contexts.into_iter().find(|entry| entry.name == name);
        let context = context.ok_or_else(|| absent("context", &name))?.context;
        let mut clusters = self.clusters.into_iter();
        let cluster = clusters
            .find(|entry| entry.name == context.cluster)
            .ok_or_else(|| absent("cluster", &context.cluster))?
            .cluster;
        let mut users = self.users.into_iter();
        let user = users
            .find(|entry| entry.name == context.user)
            .ok_or_else(|| absent("user", &context.user))?
            .user;
        let (token, certificate) = (user.token(folder)?, user.certificate(folder)?);
        if token.is_none() && certificate.is_none() {
            return Err(Error::Unsupported(
                "the user has neither a token nor a client certificate in the kubeconfig (plug-ins are not run): \
                 try one with a token from `kubectl create token`",
            ));
        }
        Ok(Access {
            context: name,
            url: cluster.server.clone(),
            server: cluster.server(folder)?,
            certificate,
            token,
        })
    }
}

impl Cluster {
    fn server(self, folder: &Path) -> Result<Server, Error> {
        if self.proxy_url.is_some() {
            return Err(Error::Unsupported("a proxy-url is not supported"));
        }
        let wrong = || Error::Url(self.server.clone());
        let uri: Uri = self.server.parse().map_err(|_| wrong())?;
        let has_path = uri.path_and_query().is_some_and(|path| path != "/");
        if uri.scheme_str() != Some("https") || has_path {
            return Err(wrong());
        }
        let host = uri
            .host()
            .ok_or_else(wrong)?
            .trim_matches(['[', ']'])
            .to_owned();
        let name = self.tls_server_name.clone().unwrap_or_else(|| host.clone());
        let name = ServerName::try_from(name).map_err(|_| wrong())?;
        let data = pem(
            folder,
            "certificate-authority-data",
            self.certificate_authority_data.as_deref(),
            self.certificate_authority.as_deref(),
        )?;
        Ok(Server {
            port: uri.port_u16().unwrap_or(443),
            host,
            name,
            ca_pem: data.ok_or(Error::Unsupported(
                "the cluster has no certificate-authority in the kubeconfig, and nobody is trusted without",
            ))?,
        })
    }
}

impl User {
    fn token(&self, folder: &Path) -> Result<Option<String>, Error> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => read(&folder.join(file))?,
            (None, None) => return Ok(None),
        };
        let token = token.trim().to_owned();
        Ok((!token.is_empty()).then_some(token))
    }

    fn certificate(&self, folder: &Path) -> Result<Option<Certificate>, Error> {
        let chain = pem(
            folder,
            "client-certificate-data",
            self.client_certificate_data.as_deref(),
            self.client_certificate.as_deref(),
        )?;
        let key = pem(
            folder,
            "client-key-data",
            self.client_key_data.as_deref(),
            self.client_key.as_deref(),
        )?;
        match (chain, key) {
            (Some(chain_pem), Some(key_pem)) => Ok(Some(Certificate { chain_pem, key_pem })),
            (None, None) => Ok(None),
            _ => Err(Error::Unsupported(
                "the user has a client certificate or a client key, not both",
            )),
        }
    }
}

fn pem(
    folder: &Path,
    key: &'static str,
    inline: Option<&str>,
    file: Option<&Path>,
) -> Result<Option<String>, Error> {
    match (inline, file) {
        (Some(inline), _) => {
            let bytes = BASE64_STANDARD.decode(inline.trim());
            let bytes = bytes.map_err(|source| Error::Decode { key, source })?;
            String::from_utf8(bytes)
                .map(Some)
                .map_err(|_| Error::Text(key))
        }
        (None, Some(file)) => read(&folder.join(file)).map(Some),
        (None, None) => Ok(None),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn first_line(error: serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    message.lines().next().unwrap_or_default().to_owned()
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("context", &self.context)
            .field("url", &self.url)
            .field("token", &"…")
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(cluster: &str, user: &str) -> Result<Access, String> {
        let text = format!(
            "{{current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}], \
             clusters: [{{name: k, cluster: {{{cluster}}}}}], users: [{{name: u, user: {{{user}}}}}]}}"
        );
        let file: File = serde_saphyr::from_str(&text).unwrap();
        file.access(Path::new("/nowhere"))
            .map_err(|error| error.to_string())
    }

    const CA: &str = "server: 'https://api.example:6443', certificate-authority-data: aGVsbG8=";

    #[test]
    fn a_token_and_a_certificate_are_found() {
        let found = access(CA, "token: secret").unwrap();
        assert_eq!(found.token.as_deref(), Some("secret"));
        assert_eq!(
            (found.server.host.as_str(), found.server.port),
            ("api.example", 6443)
        );
        assert_eq!(found.server.ca_pem, "hello");
        let user = "client-certificate-data: aGVsbG8=, client-key-data: d29ybGQ=";
        let certificate = access(CA, user).unwrap().certificate.unwrap();
        assert_eq!(
            (certificate.chain_pem.as_str(), certificate.key_pem.as_str()),
            ("hello", "world")
        );
        assert!(!format!("{:?}", access(CA, "token: secret")).contains("secret"));
    }

    #[test]
    fn what_cannot_work_is_said_in_one_line() {
        let no_ca = "server: 'https://a'";
        let table = [
            (
                CA,
                "exec: {}",
                "the user has neither a token nor a client certificate",
            ),
            (
                CA,
                "client-key-data: d29ybGQ=",
                "the user has a client certificate or a client key, not both",
            ),
            (
                CA,
                "token: t, client-key-data: '*'",
                "client-key-data is not base64",
            ),
            (CA, "tokenFile: t", "read /nowhere/t"),
            (
                no_ca,
                "token: t",
                "the cluster has no certificate-authority in the kubeconfig",
            ),
            (
                "server: 'http://a', certificate-authority-data: aGVsbG8=",
                "token: t",
                "server \"http://a\" is not https",
            ),
            (
                "server: 'https://a/b', certificate-authority-data: aGVsbG8=",
                "token: t",
                "server \"https://a/b\" is not",
            ),
        ];
        for (cluster, user, expected) in table {
            let error = access(cluster, user).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
