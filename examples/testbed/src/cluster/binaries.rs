//! Where the real servers' programs are: in `KUBEBUILDER_ASSETS`, or built by `make assets`.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::Error;

/// The programs that a cluster is made of.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The store of the API server.
    pub etcd: PathBuf,
    /// The API server.
    pub kube_apiserver: PathBuf,
    /// The command line client.
    pub kubectl: PathBuf,
}

impl Binaries {
    /// Finds the programs as `make assets` does: by `KUBEBUILDER_ASSETS`, else in the cache folder.
    ///
    /// # Errors
    ///
    /// [`Error::FindBinary`] for the first program that is not there.
    pub fn find() -> Result<Self, Error> {
        Self::find_in(|name| env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn find_in(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let (etcd, kubernetes) = match variable("KUBEBUILDER_ASSETS") {
            Some(assets) => (PathBuf::from(&assets), PathBuf::from(assets)),
            None => {
                let bin = cache(&variable).join("bin");
                let etcd = required_version(
                    include_str!("../../servers/etcd/go.mod"),
                    "go.etcd.io/etcd/server/v3",
                );
                let kubernetes = required_version(
                    include_str!("../../servers/kubernetes-1.34/go.mod"),
                    "k8s.io/kubernetes",
                );
                (
                    bin.join(format!("etcd-{etcd}")),
                    bin.join(format!("kubernetes-{kubernetes}")),
                )
            }
        };
        Ok(Self {
            etcd: existing(&etcd, "etcd")?,
            kube_apiserver: existing(&kubernetes, "kube-apiserver")?,
            kubectl: existing(&kubernetes, "kubectl")?,
        })
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
            let error = Binaries::find_in(|name| {
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
