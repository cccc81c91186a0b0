//! Clients that know nothing of a hub: kube's reflectors and controllers, ten at a time, and through cuts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, future::join_all};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{
        Controller, WatchStreamExt,
        controller::Action,
        reflector::{self, Store},
        watcher,
    },
};
use serde_json::json;
use testbed::link::Cut;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    checks::Checks,
    site::{PATIENCE, Site},
    world,
};

const CACTI: &str = "/apis/desert.example.com/v1/cacti";
const MAPS: &str = "/api/v1/namespaces/world/configmaps";
const CLIENTS: usize = 10;

/// Ten clients that begin at once, on a hub that knows nothing: the cloud serves one list and one watch.
/// As client-go's informers ask. With a page size kube leaves `resourceVersion=0` out, and a list of what is
/// there now is the cloud's to answer.
fn any_revision() -> watcher::Config {
    watcher::Config {
        page_size: None,
        ..watcher::Config::default().any_semantic()
    }
}

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn ten_clients_cost_the_cloud_one_list_and_one_watch() {
    let site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    for number in 0..150 {
        let body = json!({"apiVersion": "desert.example.com/v1", "kind": "Cactus", "metadata": {"name": format!("many-{number}")},
            "spec": {"noise": noise(number)}});
        world::post(
            &site.direct,
            "/apis/desert.example.com/v1/namespaces/world/cacti",
            body,
        )
        .await
        .unwrap();
    }
    let once = site.direct.get(CACTI).await.unwrap();
    let wanted = once.expect(200)["items"]
        .as_array()
        .map(Vec::len)
        .unwrap_or_default();
    let (before, lists, bytes) = (
        watches(&site).await,
        total(&site, "LIST").await,
        site.link.bytes_down(),
    );

    let mut owner = JoinSet::new();
    let readers = join_all((0..CLIENTS).map(|_| client(&site))).await;
    let readers: Vec<_> = readers
        .into_iter()
        .map(|client| {
            let cacti = ApiResource::from_gvk_with_plural(
                &GroupVersionKind::gvk("desert.example.com", "v1", "Cactus"),
                "cacti",
            );
            let api: Api<DynamicObject> = Api::all_with(client, &cacti);
            let writer = reflector::store::Writer::new(cacti);
            let reader = writer.as_reader();
            owner.spawn(drain(
                reflector::reflector(writer, watcher(api, any_revision())).default_backoff(),
            ));
            reader
        })
        .collect();
    for reader in &readers {
        timeout(PATIENCE, reader.wait_until_ready())
            .await
            .expect("a reflector in time")
            .unwrap();
    }
    let mut checks = Checks::new("ten clients");
    for (at, reader) in readers.iter().enumerate() {
        checks.equal(
            &format!("client {at} holds all"),
            wanted,
            reader.state().len(),
        );
    }
    // An event reaches all of them, over the one watch.
    let body = json!({"apiVersion": "desert.example.com/v1", "kind": "Cactus", "metadata": {"name": "last"}, "spec": {}});
    world::post(
        &site.direct,
        "/apis/desert.example.com/v1/namespaces/world/cacti",
        body,
    )
    .await
    .unwrap();
    for (at, reader) in readers.iter().enumerate() {
        let holds = holds(reader, |names| names.contains("last")).await;
        checks.that(&format!("client {at} hears of the last"), holds, || {
            "it does not".to_owned()
        });
    }
    let bytes = site.link.bytes_down() - bytes;
    let (watches, lists) = (
        watches(&site).await - before,
        total(&site, "LIST").await - lists,
    );
    println!(
        "ten clients: {lists} lists, {watches} watches, {bytes} bytes; one list has {}",
        once.body.len()
    );
    checks.equal("watches at the cloud", 1, watches);
    checks.that("lists at the cloud", lists <= 1, || format!("{lists}"));
    let limit = u64::try_from(once.body.len()).unwrap() * 3 / 2;
    checks.that("bytes from the cloud", bytes < limit, || {
        format!("{bytes}, one list has {}", once.body.len())
    });
    owner.shutdown().await;
    checks.finish();
}

/// A reflector and a controller go through a silent cut, a power cut of the hub in it, and the return, without a word.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn a_reflector_and_a_controller_go_through_a_cut() {
    let mut site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    let mut owner = JoinSet::new();
    let api: Api<ConfigMap> = Api::namespaced(client(&site).await, "world");
    let writer = reflector::store::Writer::default();
    let reader = writer.as_reader();
    owner.spawn(drain(
        reflector::reflector(writer, watcher(api.clone(), watcher::Config::default()))
            .default_backoff(),
    ));
    let reconciled: Arc<Mutex<BTreeMap<String, Option<String>>>> = Arc::default();
    let controller = Controller::new(api, watcher::Config::default());
    owner.spawn(drain(controller.run(
        async |map: Arc<ConfigMap>, seen: Arc<Mutex<BTreeMap<String, Option<String>>>>| {
            seen.lock()
                .unwrap()
                .insert(map.name_any(), map.resource_version());
            Ok::<_, std::convert::Infallible>(Action::await_change())
        },
        |_, never: &std::convert::Infallible, _| match *never {},
        reconciled.clone(),
    )));
    timeout(PATIENCE, reader.wait_until_ready())
        .await
        .expect("a reflector in time")
        .unwrap();

    let mut checks = Checks::new("kube");
    let online = versions(&site).await;
    let is_there = until(|| held(&reader) == online).await;
    checks.that("online", is_there, || format!("{:?}", held(&reader)));
    site.cut(Cut::Silent, MAPS).await;
    for (name, change) in [
        ("plain", json!({"data": {"k": "new"}})),
        ("web-test", json!({"metadata": {"labels": {"tier": "db"}}})),
    ] {
        site.direct
            .patch(&format!("{MAPS}/{name}"), "merge", &change)
            .await
            .unwrap()
            .expect(200);
    }
    site.direct
        .delete(&format!("{MAPS}/db-prod"), None)
        .await
        .unwrap()
        .expect(200);
    world::make_more(&site.direct).await;
    checks.that("cut off nothing is lost", held(&reader) == online, || {
        format!("{:?}", held(&reader))
    });
    site.kill_hub();
    site.start_hub().await;
    checks.that("nor by the end of the hub", held(&reader) == online, || {
        format!("{:?}", held(&reader))
    });
    site.link.mend().await.unwrap();
    let start = Instant::now();
    let present = versions(&site).await;
    let is_there = until(|| held(&reader) == present).await;
    println!(
        "kube: the reflector is up to date {:?} after the link is back",
        start.elapsed()
    );
    checks.that("back, the reflector", is_there, || {
        format!("expected {present:?}\ngot {:?}", held(&reader))
    });
    let is_there = until(|| {
        let seen = reconciled.lock().unwrap();
        present
            .iter()
            .all(|(name, version)| seen.get(name) == Some(version))
    })
    .await;
    checks.that("back, the controller", is_there, || {
        format!("{:?}", reconciled.lock().unwrap())
    });
    owner.shutdown().await;
    checks.finish();
}

/// The client of a program that was told the hub's address.
async fn client(site: &Site) -> Client {
    let kubectl = site.kubectl();
    let kubeconfig = Kubeconfig::read_from(kubectl.config()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

async fn drain<T>(stream: impl futures_util::Stream<Item = T>) {
    stream.for_each(async |_| {}).await;
}

fn held(reader: &Store<ConfigMap>) -> BTreeMap<String, Option<String>> {
    reader
        .state()
        .iter()
        .map(|map| (map.name_any(), map.resource_version()))
        .collect()
}

async fn versions(site: &Site) -> BTreeMap<String, Option<String>> {
    let list = site.direct.get(MAPS).await.unwrap().expect(200);
    let items = list["items"].as_array().into_iter().flatten();
    items
        .map(|item| {
            (
                text(&item["metadata"]["name"]),
                Some(text(&item["metadata"]["resourceVersion"])),
            )
        })
        .collect()
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

async fn holds(reader: &Store<DynamicObject>, is_it: impl Fn(&BTreeSet<String>) -> bool) -> bool {
    until(|| {
        is_it(
            &reader
                .state()
                .iter()
                .map(|object| object.name_any())
                .collect(),
        )
    })
    .await
}

/// Waits until a condition holds.
async fn until(holds: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        sleep(Duration::from_millis(5)).await;
    }
    true
}

/// Text that gzip cannot make small.
fn noise(seed: u64) -> String {
    let mut state = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from((state >> 33) % 90).expect("below 90"))
    };
    std::iter::repeat_with(next)
        .filter(|c| *c != '"' && *c != '\\')
        .take(4_000)
        .collect()
}

/// How many lists or watches of cacti the API server has ended.
async fn total(site: &Site, verb: &str) -> u64 {
    sum(site, "apiserver_request_total", verb).await
}

/// How many watches of cacti the API server has served, those of now too.
async fn watches(site: &Site) -> u64 {
    total(site, "WATCH").await + sum(site, "apiserver_longrunning_requests", "WATCH").await
}

async fn sum(site: &Site, metric: &str, verb: &str) -> u64 {
    let metrics = site.cluster.metrics().await.unwrap();
    let verb = format!("verb=\"{verb}\"");
    let lines = metrics.lines().filter(|line| {
        line.starts_with(metric) && line.contains("resource=\"cacti\"") && line.contains(&verb)
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}
