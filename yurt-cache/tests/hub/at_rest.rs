//! What lies on the node's disk: for its owner alone, without tokens, Secrets sealed where a key is given.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use serde_json::{Value, json};
use testbed::api::ApiConfig;
use testbed::pki::Pki;
use yurt_cache::hub::Error;
use yurt_cache::store::MemoryStore;
use yurt_core::store::{Store, StoreExt};

use super::site::{Bed, SOON, Site, eventually};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/till/token";

/// A bed whose hub keeps all on the disk, and has read a Secret with this text and asked for a token of a pod.
async fn bed(text: &str, adjust: impl FnOnce(&mut Site)) -> (Bed, String) {
    let bed = Bed::with(ApiConfig::default(), |site| {
        let mut site = site.on_disk();
        adjust(&mut site);
        site
    })
    .await;
    let cloud = bed.cloud();
    let account = json!({"metadata": {"name": "till"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cloud.post(accounts, &account).await.unwrap().expect(201);
    let pod = json!({
        "metadata": {"name": "till-1"},
        "spec": {"nodeName": "n1", "serviceAccountName": "till", "containers": [{"name": "c", "image": "i"}]},
    });
    let pods = "/api/v1/namespaces/default/pods";
    let pod = cloud.post(pods, &pod).await.unwrap().expect(201);
    let secret =
        json!({"metadata": {"name": "s"}, "stringData": {"k": text}, "data": {"plain": text}});
    cloud.post(SECRETS, &secret).await.unwrap().expect(201);
    let node = bed.site.node();
    for path in [SECRETS, pods] {
        let path = format!("{path}?resourceVersion=0");
        node.get(&path).await.unwrap().expect(200);
    }
    let asked = request(&pod);
    let given = node.post(TOKEN, &asked).await.unwrap().expect(201);
    let token = given["status"]["token"].as_str().unwrap().to_owned();
    eventually("the Secret is in the store", async || {
        !files_with(&bed.site.log_dir(), "default/s").is_empty()
    })
    .await;
    (bed, token)
}

/// Returns a request for a token of a pod.
fn request(pod: &Value) -> Value {
    json!({"spec": {"boundObjectRef": {
        "kind": "Pod", "apiVersion": "v1", "name": "till-1", "uid": pod["metadata"]["uid"],
    }}})
}

/// Returns the same request, of the pod as the hub has it.
async fn asked(bed: &Bed) -> Value {
    let pod = "/api/v1/namespaces/default/pods/till-1";
    request(&bed.site.node().get(pod).await.unwrap().expect(200))
}

/// Returns everything below a folder, and the folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Returns the files below a folder in which a text is.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let files = below(folder).into_iter().filter(|path| path.is_file());
    files
        .filter(|path| {
            let bytes = std::fs::read(path).unwrap();
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        })
        .collect()
}

#[track_caller]
fn is_for_its_owner_alone(folder: &Path) {
    for path in below(folder) {
        let mode = std::fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has {mode:03o}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_reads_what_the_hub_keeps_nor_what_an_earlier_one_left_open() {
    let (mut bed, _) = bed("hunter2", |_| {}).await;
    let folders = [bed.site.data_dir(), bed.site.log_dir()];
    folders
        .iter()
        .for_each(|folder| is_for_its_owner_alone(folder));
    bed.site.stop(SOON).await.expect("it ends").unwrap();
    for path in folders.iter().flat_map(|folder| below(folder)) {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    bed.site.start();
    bed.site.sees_the_cloud(true).await;
    folders
        .iter()
        .for_each(|folder| is_for_its_owner_alone(folder));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_no_token_is_on_the_disk() {
    let (mut bed, token) = bed("hunter2", |_| {}).await;
    bed.site.stop(SOON).await.expect("it ends").unwrap();
    for folder in [bed.site.data_dir(), bed.site.log_dir()] {
        assert_eq!(files_with(&folder, &token), [] as [PathBuf; 0]);
    }
}

/// Writes a file of keys, each made of one byte; the first seals.
fn write_keys(path: &Path, bytes: &[u8]) {
    let lines: Vec<String> = bytes
        .iter()
        .map(|byte| base64::engine::general_purpose::STANDARD.encode([*byte; 32]))
        .collect();
    yurt_core::files::replace(
        path.parent().unwrap(),
        &[(
            path.file_name().unwrap().to_str().unwrap(),
            lines.join("\n"),
            0o600,
        )],
    )
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_key_secrets_and_tokens_are_sealed_and_read_after_a_restart_and_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("seal-keys");
    write_keys(&keys, &[1]);
    let text = "hunter2hunter2hunter2";
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    let file = keys.clone();
    let (mut bed, token) = bed(text, move |site| {
        site.adjust(move |config| config.seal_key_file = Some(file.clone()));
    })
    .await;
    let read = format!("{SECRETS}/s");
    let seen = bed.site.node().get(&read).await.unwrap().expect(200);
    assert_eq!(seen["data"]["k"], encoded);
    bed.cut().await;
    for round in [&[1][..], &[2, 1], &[2]] {
        bed.site.stop(SOON).await.expect("it ends").unwrap();
        write_keys(&keys, round);
        for secret in [&token, &encoded] {
            assert_eq!(files_with(&bed.site.log_dir(), secret), [] as [PathBuf; 0]);
        }
        bed.site.start();
        bed.site.sees_the_cloud(false).await;
        let node = bed.site.node();
        let secret = node.get(&read).await.unwrap().expect(200);
        assert_eq!(secret["data"]["k"], encoded, "{round:?}");
        let given = node
            .post(TOKEN, &asked(&bed).await)
            .await
            .unwrap()
            .expect(201);
        assert_eq!(given["status"]["token"], token, "{round:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_key_sealed_is_refused_while_cut_off_and_fetched_anew() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("seal-keys");
    write_keys(&keys, &[1]);
    let file = keys.clone();
    let (mut bed, _) = bed("hunter2", move |site| {
        site.adjust(move |config| config.seal_key_file = Some(file.clone()));
    })
    .await;
    bed.cut().await;
    bed.site.stop(SOON).await.expect("it ends").unwrap();
    write_keys(&keys, &[2]);
    bed.site.start();
    bed.site.sees_the_cloud(false).await;
    let node = bed.site.node();
    let (one, all) = (
        format!("{SECRETS}/s"),
        format!("{SECRETS}?resourceVersion=0"),
    );
    for path in [&one, &all] {
        node.get(path).await.unwrap().expect(503);
    }
    let pods = "/api/v1/namespaces/default/pods?resourceVersion=0";
    node.get(pods).await.unwrap().expect(200);
    bed.mend().await;
    eventually("the Secrets are fetched anew", async || {
        let listed = node.get(&all).await.unwrap();
        listed.code == 200 && listed.header("x-yurt-served-from") == "mirror"
    })
    .await;
    bed.cut().await;
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    bed.site.node().get(&all).await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_a_newer_hub_is_refused_in_words_and_left_as_it_is() {
    let store = Arc::new(MemoryStore::new());
    for (key, value) in [("l/layout", "3"), ("s/00000001", "of the future")] {
        store.put(key, value).unwrap();
    }
    let cloud = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let mut site = Site::new(Arc::new(Pki::new()), vec![cloud]).with_store(store.clone());
    site.start();
    let ended = site.ended(SOON).await.expect("it ends by itself");
    let Err(error @ Error::Store(_)) = ended else {
        panic!("{ended:?}");
    };
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(
        why,
        "the store has layout 3, and this hub knows up to 2: use the hub that wrote it or another folder"
    );
    let kept = store.get(b"s/00000001").unwrap();
    assert_eq!(kept.as_deref(), Some(&b"of the future"[..]));
}
