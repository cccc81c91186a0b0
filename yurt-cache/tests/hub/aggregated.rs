//! APIs that another server answers for the kube-apiserver may show each caller something else: nobody is shown what
//! another was. What a definition makes is the same for all, and is mirrored once.

use std::sync::Arc;

use testbed::client::Client;
use testbed::link::{Cut, Link};
use testbed::pki::Pki;

use super::cloud::{Asked, Cloud, Say};
use super::site::{Site, names};

const THINGS: &str = "/apis/try.test/v1/namespaces/default/things";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.try.test";
const DESCRIPTION: &str = "/openapi/v3/apis/try.test/v1";

fn who(asked: &Asked) -> String {
    let token = asked.headers.get("authorization");
    let token = token.and_then(|token| token.to_str().ok()?.strip_prefix("Bearer "));
    token.unwrap_or("node").to_owned()
}

/// Things, of which each caller is shown its own.
fn things(asked: &Asked) -> Say {
    match (asked.path.as_str(), asked.is_watch()) {
        (THINGS, true) => Say::silence(),
        (THINGS, false) => {
            let name = format!("of-{}", who(asked));
            Say::json(
                200,
                format!(
                    r#"{{"kind":"ThingList","apiVersion":"try.test/v1","metadata":{{"resourceVersion":"5"}},"items":[{{"apiVersion":"try.test/v1","kind":"Thing","metadata":{{"name":"{name}","namespace":"default","resourceVersion":"4"}}}}]}}"#
                ),
            )
        }
        (path, _) if path.starts_with(THINGS) => Say::json(
            200,
            format!(
                r#"{{"apiVersion":"try.test/v1","kind":"Thing","metadata":{{"name":"t","namespace":"default","resourceVersion":"4","labels":{{"of":"{}"}}}}}}"#,
                who(asked)
            ),
        ),
        _ => Say::json(404, "{}"),
    }
}

fn titled(title: &str) -> Say {
    let text = format!(
        r#"{{"openapi":"3.0.0","info":{{"title":"{title}","version":"v0.1.0"}},"paths":{{}}}}"#
    );
    Say::json(200, text)
}

async fn listed(client: &Client) -> (Vec<String>, String) {
    let answer = client
        .get(&format!("{THINGS}?resourceVersion=0"))
        .await
        .unwrap();
    assert_eq!(answer.code, 200, "{}", answer.text());
    let from = answer.header("x-yurt-served-from").to_owned();
    (
        names(&answer.json())
            .into_iter()
            .map(str::to_owned)
            .collect(),
        from,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_aggregated_api_each_caller_sees_its_own_and_nobody_anothers_while_cut_off() {
    for is_forbidden in [false, true] {
        let (cloud, site) = Cloud::with_hub(move |asked| match asked.path.as_str() {
            DEFINITION if is_forbidden => Say::json(403, "{}"),
            DESCRIPTION => titled("Things that are not yours"),
            _ => things(asked),
        })
        .await;
        for name in ["alice", "bob"] {
            let expected = (vec![format!("of-{name}")], "cloud".to_owned());
            assert_eq!(listed(&site.bearer(name)).await, expected);
        }
        let node = site.node();
        assert_eq!(listed(&node).await.0, ["of-node"]);
        assert_eq!(node.get(&format!("{THINGS}/t")).await.unwrap().code, 200);
        drop(cloud);
        site.sees_the_cloud(false).await;
        for path in ["", "?resourceVersion=0", "?watch=1&resourceVersion=0", "/t"] {
            let answer = node.get(&format!("{THINGS}{path}")).await.unwrap();
            assert_eq!(answer.code, 503, "{path}: {}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_of_which_nothing_can_be_learned_is_forwarded() {
    let (_cloud, site) = Cloud::with_hub(|asked| match asked.path.as_str() {
        DEFINITION | DESCRIPTION => Say::json(403, "{}"),
        _ => things(asked),
    })
    .await;
    for name in ["alice", "bob"] {
        let expected = (vec![format!("of-{name}")], "cloud".to_owned());
        assert_eq!(listed(&site.bearer(name)).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_definition_makes_is_mirrored_also_for_who_may_not_read_the_definition() {
    for can_read in [true, false] {
        let (cloud, site) = Cloud::with_hub(move |asked| match asked.path.as_str() {
            DEFINITION if can_read => {
                let text = r#"{"metadata":{"name":"things.try.test","resourceVersion":"2"},"spec":{"versions":[{"name":"v1"}]}}"#;
                Say::json(200, text)
            }
            DEFINITION => Say::json(403, "{}"),
            DESCRIPTION => titled("Kubernetes CRD Swagger"),
            _ => things(asked),
        })
        .await;
        let [alice, node] = [site.bearer("alice"), site.node()];
        for caller in [&alice, &node] {
            let (_, from) = listed(caller).await;
            assert_eq!(from, "mirror", "{can_read}");
        }
        let descriptions = cloud.count(DESCRIPTION, false);
        assert!(descriptions <= 1, "asked {descriptions} times");
        drop(cloud);
        site.sees_the_cloud(false).await;
        assert_eq!(listed(&node).await.1, "mirror");
    }
}

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

/// Metrics, of which each caller is shown its own: their group is named as one of the server's own.
fn metrics(asked: &Asked) -> Say {
    let group = r#""apiVersion":"metrics.k8s.io/v1beta1""#;
    let metadata = |labels: &str| {
        format!(r#""metadata":{{"name":"m","namespace":"default","resourceVersion":"4"{labels}}}"#)
    };
    match (asked.path.as_str(), asked.is_watch()) {
        (METRICS, true) => Say::silence(),
        (METRICS, false) => {
            let item = metadata("").replace("\"m\"", &format!("\"of-{}\"", who(asked)));
            Say::json(
                200,
                format!(
                    r#"{{"kind":"PodMetricsList",{group},"metadata":{{"resourceVersion":"5"}},"items":[{{"kind":"PodMetrics",{group},{item}}}]}}"#
                ),
            )
        }
        (path, _) if path.starts_with(METRICS) => {
            let labels = format!(r#","labels":{{"of":"{}"}}"#, who(asked));
            let text = format!(r#"{{"kind":"PodMetrics",{group},{}}}"#, metadata(&labels));
            Say::json(200, text)
        }
        ("/openapi/v3/apis/metrics.k8s.io/v1beta1", _) => titled("Kubernetes metrics-server"),
        _ => Say::json(404, "{}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregated_api_whose_group_is_named_as_the_servers_own_is_nobodys_but_the_callers() {
    let (cloud, site) = Cloud::with_hub(metrics).await;
    for name in ["alice", "bob"] {
        let path = format!("{METRICS}?resourceVersion=0");
        let list = site.bearer(name).get(&path).await.unwrap().expect(200);
        assert_eq!(names(&list), [format!("of-{name}")]);
    }
    let node = site.node();
    let shown = node.get(&format!("{METRICS}/m")).await.unwrap();
    assert_eq!(shown.expect(200)["metadata"]["labels"]["of"], "node");
    drop(cloud);
    site.sees_the_cloud(false).await;
    for path in ["?resourceVersion=0", "/m"] {
        let answer = node.get(&format!("{METRICS}{path}")).await.unwrap();
        assert_eq!(answer.code, 503, "{path}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_names_do_not_take_a_mirror_from_who_cannot_learn_whose_it_is() {
    let (_cloud, site) = Cloud::with_hub(|asked| match asked.path.as_str() {
        DEFINITION | DESCRIPTION if who(asked) == "bob" => Say::json(403, "{}"),
        DESCRIPTION => titled("Kubernetes CRD Swagger"),
        DEFINITION => Say::json(403, "{}"),
        _ => things(asked),
    })
    .await;
    let (node, bob) = (site.node(), site.bearer("bob"));
    for caller in [&node, &bob] {
        assert_eq!(listed(caller).await.1, "mirror");
    }
    let mallory = site.bearer("mallory");
    for number in 0..300 {
        let made_up = format!("/apis/made-up-{number}.test/v1/things");
        assert_eq!(mallory.get(&made_up).await.unwrap().code, 404);
    }
    assert_eq!(
        listed(&bob).await.1,
        "mirror",
        "what somebody else asks for changes nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_are_there_when_the_hub_starts_again_behind_a_link_that_says_nothing() {
    let pki = Arc::new(Pki::new());
    let cloud = Cloud::start(&pki, |asked| match asked.path.as_str() {
        DEFINITION => Say::json(403, "{}"),
        DESCRIPTION => titled("Kubernetes CRD Swagger"),
        "/api/v1/configmaps" if asked.is_watch() => Say::silence(),
        "/api/v1/configmaps" => Say::list(5, &[]),
        _ => things(asked),
    })
    .await;
    let link = Link::start(cloud.addr).unwrap();
    let mut site = Site::new(pki, vec![link.addr()]);
    site.start();
    site.sees_the_cloud(true).await;
    let paths = ["/api/v1/configmaps", THINGS].map(|path| format!("{path}?resourceVersion=0"));
    for path in &paths {
        site.node().get(path).await.unwrap().expect(200);
    }
    link.cut(Cut::Silent).await;
    site.sees_the_cloud(false).await;
    for path in &paths {
        site.crash().await;
        site.start();
        let answer = site.node().get(path).await.unwrap();
        assert_eq!(answer.code, 200, "{path}: {}", answer.text());
    }
}
