//! One cluster for all the tests of a run, since starting one takes longer than most tests.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{Cluster, ClusterConfig, Error, Owner, write};
use crate::endpoint::Endpoint;

/// Returns the API server that the tests of this run share, started by whoever comes first.
///
/// Within one process that is a static. cargo-nextest runs each test in a process of its own: the first
/// one starts the cluster under a lock, and it ends when nextest does.
///
/// # Errors
///
/// As [`Cluster::start`], and when the place to share it by cannot be used.
///
/// # Cancel safety
///
/// A dropped future leaves no cluster behind, and the next caller starts one.
pub async fn shared() -> Result<Endpoint, Error> {
    static OF_PROCESS: OnceCell<Cluster> = OnceCell::const_new();
    match env::var("NEXTEST_RUN_ID") {
        Ok(run) => shared_by_processes(env::temp_dir().join(format!("yurt-testbed-{run}"))).await,
        Err(_) => {
            let start = || Cluster::start(ClusterConfig::default());
            Ok(OF_PROCESS.get_or_try_init(start).await?.endpoint())
        }
    }
}

async fn shared_by_processes(folder: PathBuf) -> Result<Endpoint, Error> {
    let path = folder.join("lock");
    let lock = tokio::task::spawn_blocking(move || lock(&path));
    let _lock = lock.await.expect("taking a lock does not panic")?;
    let path = folder.join("endpoint.json");
    if path.exists() {
        return read(&path);
    }
    let owner = Owner::ParentProcess {
        shared: folder.clone(),
    };
    let cluster = Cluster::start_in(&folder, &owner, &ClusterConfig::default()).await?;
    let endpoint = cluster.endpoint();
    // Nobody reads before the lock is free.
    let shared = json!({"url": endpoint.url, "ca": endpoint.ca_pem, "token": endpoint.admin_token});
    write(path, &shared.to_string())?;
    cluster.servers.release();
    Ok(endpoint)
}

/// Waits until no other process starts the cluster; dropping the file frees the lock.
fn lock(path: &Path) -> Result<File, Error> {
    let locked = || {
        fs::create_dir_all(path.parent().expect("the lock is in a folder"))?;
        let file = File::create(path)?;
        file.lock()?;
        Ok(file)
    };
    locked().map_err(|source| Error::Share {
        path: path.to_owned(),
        source,
    })
}

fn read(path: &Path) -> Result<Endpoint, Error> {
    let parsed = || {
        let shared: Value = serde_json::from_slice(&fs::read(path)?)?;
        let text = |name: &str| shared[name].as_str().map(str::to_owned);
        let missing = || io::Error::other("a field is missing");
        Ok(Endpoint {
            url: text("url").ok_or_else(missing)?,
            ca_pem: text("ca").ok_or_else(missing)?,
            admin_token: text("token").ok_or_else(missing)?,
        })
    };
    parsed().map_err(|source: io::Error| Error::Share {
        path: path.to_owned(),
        source,
    })
}
