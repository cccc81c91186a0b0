//! Where the real servers' programs are: in `KUBEBUILDER_ASSETS`, or built by `make assets`.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::Error;

/// A version of Kubernetes that is supported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// The oldest one.
    #[default]
    Oldest,
    /// The newest one.
    Newest,
}

/// The programs that a cluster and its nodes are made of.
#[derive(Clone, Debug)]
pub struct Binaries {
    etcd: PathBuf,
    kubernetes: PathBuf,
    coredns: PathBuf,
    metrics_server: PathBuf,
    egress_dialer: PathBuf,
}

impl Version {
    /// The version itself, such as `1.34.4`.
    #[must_use]
    pub fn number(self) -> &'static str {
        let go_mod = match self {
            Self::Oldest => include_str!("../../servers/kubernetes-1.34/go.mod"),
            Self::Newest => include_str!("../../servers/kubernetes-1.36/go.mod"),
        };
        required_version(go_mod, "k8s.io/kubernetes")
    }
}

impl Binaries {
    /// Finds the programs as `make assets` does: by `KUBEBUILDER_ASSETS`, else in the cache folder by version.
    ///
    /// # Errors
    ///
    /// [`Error::FindBinary`] when etcd, kube-apiserver or kubectl is not there.
    pub fn find(version: Version) -> Result<Self, Error> {
        Self::find_in(version, |name| {
            env::var_os(name).filter(|value| !value.is_empty())
        })
    }

    /// The store of the API server.
    ///
    /// # Errors
    ///
    /// [`Error::FindBinary`] when it is not there.
    pub fn etcd(&self) -> Result<PathBuf, Error> {
        existing(&self.etcd, "etcd")
    }

    /// A program of Kubernetes, by its name.
    ///
    /// # Errors
    ///
    /// [`Error::FindBinary`] when it is not there.
    pub fn kubernetes(&self, name: &'static str) -> Result<PathBuf, Error> {
        existing(&self.kubernetes, name)
    }

    /// The cluster's DNS server.
    ///
    /// # Errors
    ///
    /// [`Error::FindBinary`] when it is not there.
    pub fn coredns(&self) -> Result<PathBuf, Error> {
        existing(&self.coredns, "coredns")
    }

    /// The cluster's metrics server.
    ///
    /// # Errors
    ///
    /// [`Error::FindBinary`] when it is not there.
    pub fn metrics_server(&self) -> Result<PathBuf, Error> {
        existing(&self.metrics_server, "metrics-server")
    }

    /// A program that dials by the code of kube-apiserver's egress selector; `servers/egress-dialer/main.go` says
    /// how it is called.
    ///
    /// # Errors
    ///
    /// [`Error::FindBinary`] when it is not there.
    pub fn egress_dialer(&self) -> Result<PathBuf, Error> {
        existing(&self.egress_dialer, "egress-dialer")
    }

    fn find_in(
        version: Version,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let binaries = match variable("KUBEBUILDER_ASSETS").map(PathBuf::from) {
            Some(assets) => Self {
                etcd: assets.clone(),
                kubernetes: assets.clone(),
                coredns: assets.clone(),
                metrics_server: assets.clone(),
                egress_dialer: assets,
            },
            None => {
                let bin = cache(&variable).join("bin");
                let etcd = required_version(
                    include_str!("../../servers/etcd/go.mod"),
                    "go.etcd.io/etcd/server/v3",
                );
                let coredns = required_version(
                    include_str!("../../servers/coredns/go.mod"),
                    "github.com/coredns/coredns",
                );
                let metrics_server = required_version(
                    include_str!("../../servers/metrics-server/go.mod"),
                    "sigs.k8s.io/metrics-server",
                );
                let egress_dialer = required_version(
                    include_str!("../../servers/egress-dialer/go.mod"),
                    "k8s.io/apiserver",
                );
                Self {
                    etcd: bin.join(format!("etcd-{etcd}")),
                    kubernetes: bin.join(format!("kubernetes-{}", version.number())),
                    coredns: bin.join(format!("coredns-{coredns}")),
                    metrics_server: bin.join(format!("metrics-server-{metrics_server}")),
                    egress_dialer: bin.join(format!("egress-dialer-{egress_dialer}")),
                }
            }
        };
        binaries.etcd()?;
        binaries.kubernetes("kube-apiserver")?;
        binaries.kubernetes("kubectl")?;
        Ok(binaries)
    }
}

fn cache(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let folder = |name| variable(name).map(PathBuf::from);
    folder("YURT_CACHE").unwrap_or_else(|| {
        folder("XDG_CACHE_HOME")
            .unwrap_or_else(|| folder("HOME").unwrap_or_default().join(".cache"))
            .join("yurt")
    })
}

/// The version that a go.mod requires, without its `v`: the script that builds reads the same line.
fn required_version<'a>(go_mod: &'a str, module: &str) -> &'a str {
    go_mod
        .lines()
        .filter_map(|line| line.trim().strip_prefix(module)?.strip_prefix(" v"))
        .filter_map(|rest| rest.split_whitespace().next())
        .next()
        .expect("each go.mod of servers/ requires the module it builds")
}

fn existing(folder: &Path, name: &'static str) -> Result<PathBuf, Error> {
    let path = folder.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::FindBinary { name, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_the_place_where_it_was_sought() {
        let found = |variables: &'static [(&str, &str)]| {
            let error = Binaries::find_in(Version::Oldest, |name| {
                let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
                Some(OsString::from(value))
            })
            .unwrap_err();
            error.to_string()
        };
        let hint = "run `make assets`";
        for (variables, place) in [
            (
                &[("KUBEBUILDER_ASSETS", "/a"), ("YURT_CACHE", "/y")][..],
                "/a/etcd",
            ),
            (
                &[("YURT_CACHE", "/y"), ("HOME", "/h")],
                "/y/bin/etcd-3.6.7/etcd",
            ),
            (
                &[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")],
                "/x/yurt/bin/etcd-3.6.7/etcd",
            ),
            (&[("HOME", "/h")], "/h/.cache/yurt/bin/etcd-3.6.7/etcd"),
        ] {
            assert_eq!(found(variables), format!("no etcd at {place}: {hint}"));
        }
    }
}
