//! The real cluster itself: it starts, serves its callers as who they are, and leaves nothing behind.

use testbed::cluster::{Cluster, ClusterConfig, Error, Kubectl, Token, shared};

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn a_cluster_serves_each_caller_as_who_they_are_and_ends_with_its_value() {
    let config = ClusterConfig {
        tokens: vec![Token {
            token: "reader-token".to_owned(),
            user: "reader".to_owned(),
            groups: vec!["a".to_owned(), "b".to_owned()],
        }],
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();

    let version = cluster
        .kubectl()
        .run(&["get", "--raw=/version"])
        .await
        .unwrap();
    assert!(version.contains("\"v1.34."), "{version}");
    let metrics = cluster.metrics().await.unwrap();
    assert!(metrics.contains("apiserver_request_total"));

    let mut reader = cluster.endpoint();
    reader.admin_token = "reader-token".to_owned();
    let reader = Kubectl::new(&reader).unwrap();
    let who = reader
        .run(&["auth", "whoami", "-o", "jsonpath={.status.userInfo}"])
        .await
        .unwrap();
    assert!(
        who.contains(r#""groups":["a","b","system:authenticated"]"#),
        "{who}"
    );
    assert!(who.contains(r#""username":"reader""#), "{who}");
    let refused = reader.run(&["get", "secrets"]).await.unwrap_err();
    assert!(matches!(&refused, Error::Kubectl { stderr, .. } if stderr.contains("Forbidden")));

    let admin = Kubectl::new(&cluster.endpoint()).unwrap();
    drop(cluster);
    let gone = admin.run(&["get", "--raw=/readyz"]).await.unwrap_err();
    assert!(gone.to_string().contains("refused"), "{gone}");
}

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn two_clusters_run_at_once_and_know_nothing_of_each_other() {
    let start = || Cluster::start(ClusterConfig::default());
    let (one, other) = tokio::try_join!(start(), start()).unwrap();
    let make = ["create", "configmap", "only-in-one"];
    one.kubectl().run(&make).await.unwrap();
    let get = ["get", "configmap", "only-in-one"];
    one.kubectl().run(&get).await.unwrap();
    let absent = other.kubectl().run(&get).await.unwrap_err();
    assert!(absent.to_string().contains("NotFound"), "{absent}");
}

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn a_wrong_argument_is_told_in_the_servers_own_words() {
    let config = ClusterConfig {
        arguments: vec!["--no-such-flag".to_owned()],
        ..ClusterConfig::default()
    };
    let error = Cluster::start(config).await.unwrap_err();
    assert!(
        error.to_string().contains("unknown flag: --no-such-flag"),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn the_tests_of_a_run_share_one_cluster() {
    let (one, other) = tokio::try_join!(shared(), shared()).unwrap();
    assert_eq!(one.url, other.url);
}
