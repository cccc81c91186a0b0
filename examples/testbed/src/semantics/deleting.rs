//! Deleting: at once, held by finalizers, with preconditions, many at a time.

use serde_json::json;

use super::{
    client::Client,
    place::{Outcome, Place, expect, names, revision},
};

/// A deletion says what was deleted, and then it is gone.
pub async fn a_deletion_says_what_is_gone(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let created = place.config_map("a", "").await?;
    let path = place.core("configmaps/a");
    let status = client.delete(&path, None).await?.expect(200);
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["status"], "Success");
    let details = json!({"name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"]});
    assert_eq!(status["details"], details);
    client.get(&path).await?.expect_status(404, "NotFound");
    client
        .delete(&path, None)
        .await?
        .expect_status(404, "NotFound");
    Ok(())
}

/// A finalizer holds a deleted object until it is removed.
pub async fn a_finalizer_holds_what_is_deleted(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let body = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}});
    let created = client
        .post(&place.core("configmaps"), &body)
        .await?
        .expect(201);
    let path = place.core("configmaps/a");
    let watch = format!(
        "configmaps?watch=1&fieldSelector=metadata.name%3Da&resourceVersion={}",
        revision(&created)
    );
    let mut watch = place.watch(&place.core(&watch)).await?;

    let marked = client.delete(&path, None).await?.expect(200);
    assert_eq!(
        marked["kind"], "ConfigMap",
        "the object, because it is still there"
    );
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let again = client.delete(&path, None).await?.expect(200);
    assert_eq!(revision(&again), revision(&marked));
    expect(&mut watch, "MODIFIED", "a").await?;

    let patch = json!({"metadata": {"finalizers": null}});
    client.patch(&path, "merge", &patch).await?.expect(200);
    client.get(&path).await?.expect_status(404, "NotFound");
    expect(&mut watch, "DELETED", "a").await?;
    Ok(())
}

/// A deletion with a precondition that does not hold is a conflict.
pub async fn a_deletion_honours_its_preconditions(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let created = place.config_map("a", "").await?;
    let path = place.core("configmaps/a");
    for precondition in [json!({"uid": "another"}), json!({"resourceVersion": "1"})] {
        let options =
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": precondition});
        let status = client
            .delete(&path, Some(&options))
            .await?
            .expect_status(409, "Conflict");
        let message = status["message"].as_str().unwrap_or_default();
        assert!(message.contains("in the precondition"), "{message}");
    }
    let metadata = &created["metadata"];
    let options = json!({"preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}});
    client.delete(&path, Some(&options)).await?.expect(200);
    Ok(())
}

/// A collection is deleted by selector, and the answer lists what was in it.
pub async fn a_collection_is_deleted_by_selector(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    for (name, labels) in [("a", "app=web"), ("b", "app=web"), ("c", "app=db")] {
        place.config_map(name, labels).await?;
    }
    let path = place.core("configmaps?labelSelector=app%3Dweb");
    let deleted = client.delete(&path, None).await?.expect(200);
    assert_eq!(deleted["kind"], "ConfigMapList");
    assert_eq!(names(&deleted), ["a", "b"]);
    let list = client
        .get(&place.core("configmaps?labelSelector=app"))
        .await?
        .expect(200);
    assert_eq!(names(&list), ["c"]);
    Ok(())
}

/// A pod on a node is given time to end, a pod on none is not.
pub async fn a_pod_on_a_node_is_given_time(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let mut placed = pod("placed");
    placed["spec"]["nodeName"] = "n1".into();
    for body in [&placed, &pod("free")] {
        client.post(&place.core("pods"), body).await?.expect(201);
    }
    let marked = client
        .delete(&place.core("pods/placed"), None)
        .await?
        .expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    client.get(&place.core("pods/placed")).await?.expect(200);
    let now = json!({"gracePeriodSeconds": 0});
    let last = client
        .delete(&place.core("pods/placed"), Some(&now))
        .await?
        .expect(200);
    assert_eq!(last["kind"], "Pod");
    client
        .get(&place.core("pods/placed"))
        .await?
        .expect_status(404, "NotFound");
    client
        .delete(&place.core("pods/free"), None)
        .await?
        .expect(200);
    client
        .get(&place.core("pods/free"))
        .await?
        .expect_status(404, "NotFound");
    Ok(())
}

/// Foreground deletion leaves the object to the garbage collector.
pub async fn a_foreground_deletion_waits_for_the_collector(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "").await?;
    let options = json!({"propagationPolicy": "Foreground"});
    let marked = client
        .delete(&place.core("configmaps/a"), Some(&options))
        .await?
        .expect(200);
    assert_eq!(
        marked["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    Ok(())
}

/// A deleted namespace takes nothing new, and stays until it is finalized.
pub async fn a_terminating_namespace_takes_nothing_new(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let path = format!("/api/v1/namespaces/{}", place.namespace);
    let marked = client.delete(&path, None).await?.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating", "{marked}");
    let body = json!({"metadata": {"name": "late"}});
    let refused = client.post(&place.core("secrets"), &body).await?;
    refused.expect_status(403, "Forbidden");
    let mut namespace = client.get(&path).await?.expect(200);
    namespace["spec"]["finalizers"] = json!([]);
    client
        .put(&format!("{path}/finalize"), &namespace)
        .await?
        .expect(200);
    client.get(&path).await?.expect_status(404, "NotFound");
    Ok(())
}

/// The later propagation policy takes the place of the earlier.
pub async fn a_later_propagation_policy_wins(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "").await?;
    let path = place.core("configmaps/a");
    let options = json!({"propagationPolicy": "Orphan"});
    let orphaned = client.delete(&path, Some(&options)).await?.expect(200);
    assert_eq!(orphaned["metadata"]["finalizers"], json!(["orphan"]));
    let path = format!("{path}?propagationPolicy=Foreground");
    let waiting = client.delete(&path, None).await?.expect(200);
    assert_eq!(
        waiting["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    Ok(())
}

/// A pod is bound to a node once, and evicted from it.
pub async fn a_pod_is_bound_and_evicted(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    client.post(&place.core("pods"), &pod).await?.expect(201);
    let binding = json!({
        "kind": "Binding",
        "apiVersion": "v1",
        "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "n1"},
    });
    client
        .post(&place.core("pods/p/binding"), &binding)
        .await?
        .expect(201);
    let bound = client.get(&place.core("pods/p")).await?.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["metadata"]["generation"], 1);
    client
        .post(&place.core("pods/p/binding"), &binding)
        .await?
        .expect_status(409, "Conflict");
    let eviction =
        json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "p"}});
    client
        .post(&place.core("pods/p/eviction"), &eviction)
        .await?
        .expect(201);
    let leaving = client.get(&place.core("pods/p")).await?;
    assert!(leaving.code == 404 || leaving.json()["metadata"]["deletionTimestamp"].is_string());
    Ok(())
}
