//! Creating and updating.

use serde_json::json;

use super::{
    client::Client,
    place::{Outcome, Place, revision},
};

/// A generated name begins as asked, and each is another.
pub async fn a_name_is_generated(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let body = json!({"metadata": {"generateName": "job-"}});
    let mut seen = Vec::new();
    for _ in 0..3 {
        let created = client
            .post(&place.core("configmaps"), &body)
            .await?
            .expect(201);
        let name = created["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(name.len() == 9 && name.starts_with("job-"), "{name}");
        assert!(!seen.contains(&name), "{name} again");
        seen.push(name);
    }
    Ok(())
}

/// A name can be taken once.
pub async fn a_taken_name_is_a_conflict(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "").await?;
    let body = json!({"metadata": {"name": "a"}});
    let again = client.post(&place.core("configmaps"), &body).await?;
    let status = again.expect_status(409, "AlreadyExists");
    assert_eq!(status["message"], "configmaps \"a\" already exists");
    assert_eq!(
        status["details"],
        json!({"name": "a", "kind": "configmaps"})
    );
    Ok(())
}

/// What the server owns is not the client's to choose.
pub async fn a_client_does_not_choose_what_the_server_owns(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let metadata = json!({
        "name": "a",
        "uid": "mine",
        "creationTimestamp": "2001-01-01T00:00:00Z",
        "generation": 7,
    });
    let created = client
        .post(&place.core("configmaps"), &json!({"metadata": metadata}))
        .await?
        .expect(201);
    assert_ne!(created["metadata"]["uid"], "mine");
    assert_ne!(
        created["metadata"]["creationTimestamp"],
        "2001-01-01T00:00:00Z"
    );
    assert_eq!(created["metadata"]["namespace"], place.namespace.as_str());
    Ok(())
}

/// An update against an old revision is a conflict; against the last one it is not.
pub async fn an_update_of_an_old_revision_is_a_conflict(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let old = place.config_map("a", "").await?;
    let path = place.core("configmaps/a");
    let mut new = old.clone();
    new["data"]["k"] = "w".into();
    let updated = client.put(&path, &new).await?.expect(200);
    assert!(revision(&updated) > revision(&old));
    new["data"]["k"] = "late".into();
    let status = client
        .put(&path, &new)
        .await?
        .expect_status(409, "Conflict");
    let message = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; \
                   please apply your changes to the latest version and try again";
    assert_eq!(status["message"], message);
    assert_eq!(client.get(&path).await?.expect(200)["data"]["k"], "w");
    Ok(())
}

/// An update without a revision overwrites, for most built-in kinds.
pub async fn an_update_without_a_revision_overwrites(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let old = place.config_map("a", "x=1").await?;
    let body = json!({"metadata": {"name": "a"}, "data": {"k": "w"}});
    let updated = client
        .put(&place.core("configmaps/a"), &body)
        .await?
        .expect(200);
    assert_eq!(updated["data"]["k"], "w");
    assert!(updated["metadata"]["labels"].is_null(), "{updated}");
    assert_eq!(updated["metadata"]["uid"], old["metadata"]["uid"]);
    assert_eq!(
        updated["metadata"]["creationTimestamp"],
        old["metadata"]["creationTimestamp"]
    );
    Ok(())
}

/// An update of another incarnation is a conflict.
pub async fn an_update_of_another_uid_is_a_conflict(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "").await?;
    let body = json!({"metadata": {"name": "a", "uid": "another"}});
    let status = client
        .put(&place.core("configmaps/a"), &body)
        .await?
        .expect_status(409, "Conflict");
    let message = status["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("Precondition failed: UID in precondition: another"),
        "{message}"
    );
    Ok(())
}

/// An update that changes nothing is no write.
pub async fn an_update_that_changes_nothing_is_no_write(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let old = place.config_map("a", "x=1").await?;
    let updated = client
        .put(&place.core("configmaps/a"), &old)
        .await?
        .expect(200);
    assert_eq!(revision(&updated), revision(&old));
    let patch = json!({"data": {"k": "v"}});
    let patched = client
        .patch(&place.core("configmaps/a"), "merge", &patch)
        .await?
        .expect(200);
    assert_eq!(revision(&patched), revision(&old));
    Ok(())
}

/// Some kinds are created by an update, most are not.
pub async fn a_lease_is_created_by_an_update(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let lease = json!({
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": "a"},
        "spec": {"holderIdentity": "me"},
    });
    let path = place.group("coordination.k8s.io/v1", "leases/a");
    client.put(&path, &lease).await?.expect(201);
    let body = json!({"metadata": {"name": "zz"}});
    client
        .put(&place.core("configmaps/zz"), &body)
        .await?
        .expect_status(404, "NotFound");
    Ok(())
}

/// The generation counts changes of the spec, and no others.
pub async fn the_generation_counts_changes_of_the_spec(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let deployment = json!({
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    });
    let created = client
        .post(&place.group("apps/v1", "deployments"), &deployment)
        .await?
        .expect(201);
    assert_eq!(created["metadata"]["generation"], 1);
    let path = place.group("apps/v1", "deployments/d");
    for (patch, expected) in [
        (json!({"spec": {"replicas": 2}}), 2),
        (json!({"metadata": {"labels": {"x": "1"}}}), 2),
        (json!({"spec": {"replicas": 2}}), 2),
        (json!({"spec": {"replicas": 3}}), 3),
    ] {
        let patched = client.patch(&path, "merge", &patch).await?.expect(200);
        assert_eq!(patched["metadata"]["generation"], expected, "{patch}");
    }
    Ok(())
}

/// The status is written through its own door, and nothing else is.
pub async fn the_status_has_a_door_of_its_own(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running"},
    });
    let created = client.post(&place.core("pods"), &pod).await?.expect(201);
    assert_eq!(created["status"]["phase"], "Pending");
    let both = json!({"spec": {"activeDeadlineSeconds": 5}, "status": {"phase": "Running"}});
    let through_status = client
        .patch(&place.core("pods/p/status"), "merge", &both)
        .await?
        .expect(200);
    assert_eq!(through_status["status"]["phase"], "Running");
    assert!(through_status["spec"]["activeDeadlineSeconds"].is_null());
    let both = json!({"metadata": {"labels": {"x": "1"}}, "status": {"phase": "Failed"}});
    let through_main = client
        .patch(&place.core("pods/p"), "merge", &both)
        .await?
        .expect(200);
    assert_eq!(through_main["status"]["phase"], "Running");
    assert_eq!(through_main["metadata"]["labels"]["x"], "1");
    Ok(())
}

/// A rehearsal answers like the deed, and leaves no trace.
pub async fn a_dry_run_leaves_no_trace(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let old = place.config_map("a", "").await?;
    let body = json!({"metadata": {"name": "dry"}});
    let created = client
        .post(&place.core("configmaps?dryRun=All"), &body)
        .await?
        .expect(201);
    assert!(created["metadata"]["uid"].is_string());
    assert!(
        created["metadata"]["resourceVersion"].is_null(),
        "{created}"
    );
    client
        .get(&place.core("configmaps/dry"))
        .await?
        .expect_status(404, "NotFound");
    let patch = json!({"data": {"k": "w"}});
    let patched = client
        .patch(&place.core("configmaps/a?dryRun=All"), "merge", &patch)
        .await?
        .expect(200);
    assert_eq!(patched["data"]["k"], "w");
    client
        .delete(&place.core("configmaps/a?dryRun=All"), None)
        .await?
        .expect(200);
    assert_eq!(
        client.get(&place.core("configmaps/a")).await?.expect(200),
        old
    );
    let bad = client
        .post(&place.core("configmaps?dryRun=Some"), &body)
        .await?;
    bad.expect_status(422, "Invalid");
    Ok(())
}

/// Plain text of a Secret is kept encoded, and not twice.
pub async fn a_secrets_plain_text_is_encoded(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let body = json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}});
    let created = client
        .post(&place.core("secrets"), &body)
        .await?
        .expect(201);
    assert_eq!(created["data"]["k"], "dg==");
    assert!(created["stringData"].is_null());
    assert_eq!(created["type"], "Opaque");
    Ok(())
}
