//! The real node itself: what a stock one does, that the levers do what they say, and that nothing is left.

#![expect(
    clippy::unwrap_used,
    reason = "what a test takes for granted fails the test"
)]
#![expect(clippy::print_stdout, reason = "how a killed test says what it leaves")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

#[cfg(target_arch = "x86_64")]
use jiff::{SignedDuration, Timestamp};
use testbed::{
    cluster::{Cluster, ClusterConfig, Controllers, Kubectl, Version},
    node::{Cut, Error, Network, Node, NodeConfig, eventually},
    workload::Workload,
};

/// Beyond what any step takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tells a test that it is to be killed, in a process of its own.
const VICTIM: &str = "YURT_TESTBED_VICTIM";

async fn start(version: Version) -> (Arc<Network>, Cluster, Node) {
    let network = Network::new().unwrap();
    let config = ClusterConfig {
        version,
        address: network.address(),
        controllers: Some(Controllers::default()),
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    let node = Node::start(&network, &cluster, NodeConfig::new("edge-1"));
    let node = node.await.unwrap();
    (network, cluster, node)
}

async fn run(kubectl: &Kubectl, line: &str) -> String {
    let arguments: Vec<&str> = line.split(' ').collect();
    kubectl.run(&arguments).await.unwrap()
}

/// Deploys it and returns its cluster IP, when it has answered there.
async fn deploy(workload: &Workload, cluster: &Cluster, node: &Node) -> String {
    let kubectl = cluster.kubectl();
    kubectl.apply(&workload.manifest()).await.unwrap();
    let address = workload.cluster_ip(kubectl).await.unwrap();
    answered(workload, node, &address).await;
    address
}

async fn answered(workload: &Workload, node: &Node, address: &str) -> String {
    eventually("an answer of the Service", PATIENCE, async || {
        let asked = workload.ask(node, address).await;
        asked.map_err(|error| error.to_string())
    })
    .await
    .unwrap()
}

async fn runs_what_a_user_deploys(version: Version) {
    let (_network, cluster, node) = start(version).await;
    let kubectl = cluster.kubectl();
    cluster.install_dns().await.unwrap();
    let workload = Workload::new("shop");
    let address = deploy(&workload, &cluster, &node).await;
    for deployment in [
        "deployment/shop",
        "--namespace=kube-system deployment/coredns",
    ] {
        let arguments = format!("rollout status --timeout=90s {deployment}");
        run(kubectl, &arguments).await;
    }

    // The cluster IP leads to both pods.
    let pods = workload.pods(kubectl).await.unwrap();
    assert_eq!(pods.len(), 2, "{pods:?}");
    for pod in &pods {
        eventually(
            &format!("an answer of {pod}"),
            PATIENCE,
            async || match workload.ask(&node, &address).await {
                Ok(answered) if answered == *pod => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await
        .unwrap();
    }

    // kubectl reaches the pods through the API server and the kubelet.
    assert_eq!(
        run(kubectl, &format!("logs {}", pods[0])).await,
        "started\n"
    );
    let name = "shop.default.svc.cluster.local";
    let found = run(kubectl, &format!("exec {} -- nslookup {name}", pods[0])).await;
    assert!(found.contains(&format!("Address: {address}\n")), "{found}");

    // The token is the pod's own, and good for what its role allows.
    let print = ["cat", Workload::TOKEN_FILE];
    let token = node.exec("default", &pods[1], &print).await.unwrap();
    let own = node.kubectl(&token).unwrap();
    let who = run(&own, "auth whoami -o jsonpath={.status.userInfo.username}").await;
    assert_eq!(who, "system:serviceaccount:default:shop");
    run(&own, "get configmap shop").await;
    let refused = own.run(&["get", "secret", "shop"]).await.unwrap_err();
    assert!(refused.to_string().contains("Forbidden"), "{refused}");
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn the_oldest_stock_node_runs_what_a_user_deploys() {
    runs_what_a_user_deploys(Version::Oldest).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn the_newest_stock_node_runs_what_a_user_deploys() {
    runs_what_a_user_deploys(Version::Newest).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_cut_link_carries_nothing_until_it_is_mended_and_outlives_a_power_cut() {
    let (_network, cluster, mut node) = start(Version::Oldest).await;
    let ready = format!("{}/readyz", cluster.endpoint().url);
    let reach = async |node: &Node| {
        let fetch = ["curl", "-sk", "--max-time", "1", "-o", "/dev/null", &ready];
        node.run(&fetch).await.map(drop)
    };
    reach(&node).await.unwrap();
    for cut in [Cut::Silent, Cut::Unplugged] {
        node.cut(cut).unwrap();
        reach(&node).await.unwrap_err();
        node.power_off();
        node.power_on_bare().await.unwrap();
        reach(&node).await.unwrap_err();
        node.mend().unwrap();
        eventually("an answer", PATIENCE, async || {
            reach(&node).await.map_err(|error| error.to_string())
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_power_cut_takes_all_that_a_reboot_clears_and_the_pods_come_back() {
    let (_network, cluster, mut node) = start(Version::Newest).await;
    let workload = Workload::new("shop");
    let address = deploy(&workload, &cluster, &node).await;
    let before = node.containers().await.unwrap();
    let boot = "/proc/sys/kernel/random/boot_id";
    let boot_before = node.run(&["cat", boot]).await.unwrap();

    node.power_off();
    let off = node.run(&["true"]).await.unwrap_err();
    assert!(matches!(off, Error::Power { is_on: false, .. }), "{off}");
    assert_eq!(node.kill_containers(), 0);
    node.power_on_bare().await.unwrap();
    assert_ne!(node.run(&["cat", boot]).await.unwrap(), boot_before);
    assert_eq!(node.run(&["nft", "list", "ruleset"]).await.unwrap(), "");
    let mounts = node.run(&["cat", "/proc/mounts"]).await.unwrap();
    assert!(!mounts.contains("/var/lib/kubelet/pods/"), "{mounts}");
    assert_eq!(node.run(&["ls", "/run/netns"]).await.unwrap(), "");

    for program in node.programs() {
        node.start_program(program).await.unwrap();
    }
    let came_back = eventually("both pods", PATIENCE, async || {
        let now = node.containers().await.map_err(|error| error.to_string())?;
        let count = now.iter().filter(|found| found.name == "web").count();
        if count == 2 {
            Ok(now)
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await
    .unwrap();
    assert!(came_back.iter().all(|now| !before.contains(now)));
    answered(&workload, &node, &address).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn programs_and_containers_are_killed_one_by_one_and_started_again() {
    let (_network, cluster, mut node) = start(Version::Oldest).await;
    let workload = Workload::new("shop");
    let address = deploy(&workload, &cluster, &node).await;
    for program in node.programs() {
        let before = node.pid(program).unwrap();
        let memory = node.memory(program).unwrap();
        assert!(
            memory.peak >= memory.now && memory.now > 1 << 20,
            "{memory:?}"
        );
        node.kill(program).unwrap();
        let state = fs::read_to_string(format!("/proc/{before}/status")).unwrap_or_default();
        assert!(
            state.is_empty() || state.contains("zombie"),
            "{program}: {state}"
        );
        assert_eq!(node.memory(program), None);
        node.kill(program).unwrap_err();
        // Containers need none of them.
        workload.ask(&node, &address).await.unwrap();
        node.start_program(program).await.unwrap();
        node.start_program(program).await.unwrap_err();
    }
    let before = node.containers().await.unwrap();
    assert!(node.kill_containers() >= 4, "two pods, and their sandboxes");
    // containerd hears of a death a moment later, and the kubelet may have started others by then.
    eventually("those of before are gone", PATIENCE, async || {
        let now = node.containers().await.map_err(|error| error.to_string())?;
        if now.iter().any(|one| before.contains(one)) {
            Err(format!("{now:?}"))
        } else {
            Ok(())
        }
    })
    .await
    .unwrap();
    answered(&workload, &node, &address).await;
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_wrong_clock_is_that_of_the_nodes_programs_alone() {
    let (_network, cluster, mut node) = start(Version::Newest).await;
    let lease = "get lease edge-1 --namespace=kube-node-lease -o jsonpath={.spec.renewTime}";
    let lease: Vec<&str> = lease.split(' ').collect();
    let off = async |hours: i64| {
        eventually(&format!("{hours} h off"), PATIENCE, async || {
            let renewed = cluster.kubectl().run(&lease).await;
            let renewed: Timestamp = renewed
                .map_err(|error| error.to_string())?
                .parse()
                .map_err(|error| format!("{error}"))?;
            let off = renewed.duration_since(Timestamp::now());
            let distance = (off - SignedDuration::from_hours(hours)).abs();
            if distance < SignedDuration::from_secs(30) {
                Ok(())
            } else {
                Err(format!("{off:#}"))
            }
        })
        .await
        .unwrap();
    };
    off(0).await;
    for hours in [1, -1] {
        node.set_clock(SignedDuration::from_hours(hours));
        node.power_off();
        node.power_on().await.unwrap();
        off(hours).await;
    }
    let inside = node.run(&["date", "+%s"]).await.unwrap();
    let inside: i64 = inside.trim().parse().unwrap();
    assert!((inside - Timestamp::now().as_second()).abs() < 30);
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_killed_test_leaves_no_node() {
    if std::env::var_os(VICTIM).is_some() {
        let (network, _cluster, _node) = start(Version::Oldest).await;
        println!("\nthe network is {}", network.name());
        std::future::pending::<()>().await;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "a_killed_test_leaves_no_node",
            "--nocapture",
        ])
        .env(VICTIM, "yes")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let mut names =
        lines.filter_map(|line| Some(line.ok()?.strip_prefix("the network is ")?.to_owned()));
    let name = names.next().expect("the victim says its network's name");
    assert!(Path::new("/sys/class/net").join(&name).exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("the end of the node", PATIENCE, async || {
        let left = left_of(&name);
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await
    .unwrap();
}

/// What is there of a network and its nodes.
fn left_of(name: &str) -> String {
    let addresses = name.replace("yurt", "198.18.");
    let script = format!(
        "ls -d /sys/class/net/{name} /sys/class/net/{name}-* /var/lib/yurt-testbed/{name}; \
         find /sys/fs/cgroup -maxdepth 2 -name '{name}-*'; \
         nft list tables netdev | grep -w {name}-1; ps ax -o args | grep -- '--node-ip={addresses}[.]'"
    );
    let found = Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8_lossy(&found.stdout).into_owned()
}
