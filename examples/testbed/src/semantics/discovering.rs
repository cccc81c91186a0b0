//! What is served, and whether the server is well.

use serde_json::{Value, json};

use super::{client::Client, place::Outcome};

/// The server says that it is alive, ready, and which version it is.
pub async fn the_server_says_how_it_is(client: &Client) -> Outcome {
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = client.get(path).await?;
        assert_eq!((answer.code, answer.text().as_str()), (200, "ok"), "{path}");
    }
    let version = client.get("/version").await?.expect(200);
    assert_eq!(version["major"], "1");
    assert!(
        version["gitVersion"]
            .as_str()
            .unwrap_or_default()
            .starts_with("v1.")
    );
    Ok(())
}

/// Legacy discovery goes from versions to groups to resources.
pub async fn legacy_discovery_lists_groups_and_resources(client: &Client) -> Outcome {
    let versions = client.get("/api").await?.expect(200);
    assert_eq!(versions["versions"], json!(["v1"]));
    let groups = client.get("/apis").await?.expect(200);
    assert_eq!(groups["kind"], "APIGroupList");
    let apps = groups["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|group| group["name"] == "apps");
    let preferred = apps.map(|group| &group["preferredVersion"]["groupVersion"]);
    assert_eq!(preferred, Some(&"apps/v1".into()));
    assert_eq!(
        client.get("/apis/apps").await?.expect(200)["kind"],
        "APIGroup"
    );
    let core = client.get("/api/v1").await?.expect(200);
    let find = |name: &str| {
        let all = core["resources"].as_array().into_iter().flatten();
        all.clone()
            .find(|resource| resource["name"] == name)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(find("pods")["kind"], "Pod");
    assert_eq!(find("pods")["namespaced"], true);
    assert_eq!(find("pods")["shortNames"], json!(["po"]));
    assert_eq!(find("nodes")["namespaced"], false);
    assert_eq!(find("pods/status")["kind"], "Pod");
    assert_eq!(find("pods/log")["verbs"], json!(["get"]));
    Ok(())
}

/// Aggregated discovery has it all in one answer.
pub async fn aggregated_discovery_is_one_answer(client: &Client) -> Outcome {
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let answer = client.get_as("/apis", accept).await?;
    assert!(
        answer
            .header("content-type")
            .contains("as=APIGroupDiscoveryList")
    );
    let list = answer.expect(200);
    assert_eq!(list["kind"], "APIGroupDiscoveryList");
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let apps = items
        .iter()
        .find(|item| item["metadata"]["name"] == "apps")
        .cloned()
        .unwrap_or_default();
    let resources = apps["versions"][0]["resources"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = resources
        .iter()
        .find(|r| r["resource"] == "deployments")
        .cloned()
        .unwrap_or_default();
    assert_eq!(found["responseKind"]["kind"], "Deployment");
    assert_eq!(found["scope"], "Namespaced");
    let of_status = |r: &Value| r["subresource"] == "status";
    assert!(
        found["subresources"]
            .as_array()
            .into_iter()
            .flatten()
            .any(of_status),
        "{found}"
    );
    Ok(())
}

/// The caller may ask what it may do.
pub async fn a_caller_asks_what_it_may_do(client: &Client) -> Outcome {
    let review = json!({
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = client.post(path, &review).await?.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    Ok(())
}

/// Every cluster has these namespaces.
pub async fn the_systems_namespaces_are_there(client: &Client) -> Outcome {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace = client
            .get(&format!("/api/v1/namespaces/{name}"))
            .await?
            .expect(200);
        assert_eq!(namespace["status"]["phase"], "Active");
        assert_eq!(
            namespace["metadata"]["labels"]["kubernetes.io/metadata.name"],
            name
        );
    }
    Ok(())
}

/// What discovery does not know is missing in the same way as a resource.
pub async fn an_unknown_version_is_missing_as_a_status(client: &Client) -> Outcome {
    for path in ["/apis/apps/v99", "/api/v2"] {
        client.get(path).await?.expect_status(404, "NotFound");
    }
    for path in ["/apis/none.example.com", "/apis/none.example.com/v1"] {
        assert_eq!(
            client.get(path).await?.text(),
            "404 page not found\n",
            "{path}"
        );
    }
    Ok(())
}
