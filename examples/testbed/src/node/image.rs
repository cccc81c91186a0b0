//! Images for pods, made here of programs that are here: no registry is asked.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::json;

use super::{Error, files::write};
use crate::system::{run, words};

/// The sandbox of every pod.
pub const PAUSE: &str = "testbed.local/pause:1";
/// A shell with the usual tools, among them `httpd`, `wget` and `nslookup`.
pub const BUSYBOX: &str = "testbed.local/busybox:1";
/// The cluster's DNS server.
pub const COREDNS: &str = "testbed.local/coredns:1";

/// An image with one static program.
pub(super) struct Image<'a> {
    pub(super) name: &'static str,
    pub(super) program: &'a Path,
    /// Names of the program in `/bin`, as links.
    pub(super) links: &'a [&'a str],
    pub(super) entrypoint: &'a [&'a str],
}

impl Image<'_> {
    /// Writes the image as `docker save` would, in a folder that is there for it alone.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let root = folder.join("root");
        for inner in ["bin", "etc", "tmp", "var/run", "root"] {
            let path = root.join(inner);
            fs::create_dir_all(&path).map_err(|source| failed("make", &path, source))?;
        }
        write(&root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        let program = root.join("bin").join(self.file_name());
        fs::copy(self.program, &program)
            .and_then(|_| fs::set_permissions(&program, fs::Permissions::from_mode(0o755)))
            .map_err(|source| failed("copy", self.program, source))?;
        for link in self.links {
            let path = root.join("bin").join(link);
            std::os::unix::fs::symlink(self.file_name(), &path)
                .map_err(|source| failed("link", &path, source))?;
        }
        let here = folder.display();
        let owned = "--owner=0 --group=0 --numeric-owner --mtime=@0 --sort=name";
        run(&mut words(&format!(
            "tar --create --file={here}/layer.tar {owned} --directory={here}/root ."
        )))?;
        let sum = run(&mut words(&format!("sha256sum {here}/layer.tar")))?;
        let sum = sum.split(' ').next().unwrap_or_default();
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
        });
        write(&folder.join("config.json"), &config.to_string())?;
        let manifest = json!([
            {"Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"]}
        ]);
        write(&folder.join("manifest.json"), &manifest.to_string())?;
        run(&mut words(&format!(
            "tar --create --file={here}/image.tar --directory={here} manifest.json config.json layer.tar"
        )))?;
        Ok(())
    }

    fn file_name(&self) -> &std::ffi::OsStr {
        self.program.file_name().unwrap_or_default()
    }
}

fn failed(step: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File {
        step,
        path: path.to_owned(),
        source,
    }
}

/// The machine's architecture in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
