//! APIs that another server answers for the kube-apiserver may show each caller something else: nobody is shown what
//! another was. What a definition makes is the same for all, and is mirrored once.

use testbed::client::Client;

use super::cloud::{Asked, Cloud, Say};
use super::site::names;

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
