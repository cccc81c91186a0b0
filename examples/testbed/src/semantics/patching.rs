//! The four kinds of patches.

use serde_json::{Value, json};

use super::{
    client::Client,
    place::{Outcome, Place, revision},
};

fn pod() -> Value {
    json!({
        "metadata": {"name": "p", "labels": {"a": "1", "b": "2"}},
        "spec": {"containers": [
            {"name": "one", "image": "i1"},
            {"name": "two", "image": "i2"},
        ]},
    })
}

/// A JSON patch does its operations in order, all or none.
pub async fn a_json_patch_is_all_or_nothing(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "").await?;
    let path = place.core("configmaps/a");
    let patch = json!([
        {"op": "test", "path": "/data/k", "value": "v"},
        {"op": "add", "path": "/data/a~1b", "value": "new"},
        {"op": "replace", "path": "/data/k", "value": "w"},
        {"op": "copy", "from": "/data/k", "path": "/data/copied"},
    ]);
    let patched = client
        .send(
            http::Method::PATCH,
            &path,
            &[("content-type", "application/json-patch+json")],
            &patch.to_string(),
        )
        .await?;
    // A key with a slash is no key of a ConfigMap: validation comes after the patch.
    assert!(matches!(patched.code, 200 | 422), "{}", patched.text());
    let patch = json!([
        {"op": "add", "path": "/data/x", "value": "1"},
        {"op": "test", "path": "/data/x", "value": "2"},
    ]);
    client
        .patch(&path, "json", &patch)
        .await?
        .expect_status(422, "Invalid");
    assert!(client.get(&path).await?.expect(200)["data"]["x"].is_null());
    let missing = json!([{"op": "remove", "path": "/data/zz"}]);
    client
        .patch(&path, "json", &missing)
        .await?
        .expect_status(422, "Invalid");
    client
        .patch(&path, "json", &json!({"a": 1}))
        .await?
        .expect_status(400, "BadRequest");
    Ok(())
}

/// A merge patch merges maps, replaces lists, and removes what is null.
pub async fn a_merge_patch_removes_with_null(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    client.post(&place.core("pods"), &pod()).await?.expect(201);
    let patch = json!({"metadata": {"labels": {"a": null, "c": "3"}}});
    let patched = client
        .patch(&place.core("pods/p"), "merge", &patch)
        .await?
        .expect(200);
    assert_eq!(patched["metadata"]["labels"], json!({"b": "2", "c": "3"}));
    Ok(())
}

/// A strategic merge patch merges known lists by their keys.
pub async fn a_strategic_merge_patch_merges_lists_by_key(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    client.post(&place.core("pods"), &pod()).await?.expect(201);
    let patch = json!({"spec": {"containers": [{"name": "two", "image": "i3"}]}});
    let patched = client
        .patch(&place.core("pods/p"), "strategic-merge", &patch)
        .await?
        .expect(200);
    let images: Vec<&Value> = patched["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| &c["image"])
        .collect();
    assert_eq!(images, ["i1", "i3"]);

    let status = |kind: &str, value: &str| json!({"status": {"conditions": [{"type": kind, "status": value}]}});
    let path = place.core("pods/p/status");
    for (kind, value) in [
        ("Ready", "False"),
        ("Initialized", "True"),
        ("Ready", "True"),
    ] {
        client
            .patch(&path, "strategic-merge", &status(kind, value))
            .await?
            .expect(200);
    }
    let conditions =
        client.get(&place.core("pods/p")).await?.expect(200)["status"]["conditions"].clone();
    let found: Vec<_> = conditions
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| {
            (
                c["type"].as_str().unwrap_or_default(),
                c["status"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(found.len(), 2, "{conditions}");
    assert!(found.contains(&("Ready", "True")) && found.contains(&("Initialized", "True")));
    Ok(())
}

/// A strategic merge patch removes an item by its key.
pub async fn a_strategic_merge_patch_deletes_by_key(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let service = json!({
        "metadata": {"name": "s", "finalizers": ["example.com/a"]},
        "spec": {"ports": [{"name": "x", "port": 80}, {"name": "y", "port": 81}]},
    });
    client
        .post(&place.core("services"), &service)
        .await?
        .expect(201);
    let patch = json!({
        "metadata": {"finalizers": ["example.com/b"]},
        "spec": {"ports": [{"port": 80, "$patch": "delete"}]},
    });
    let path = place.core("services/s");
    let patched = client
        .patch(&path, "strategic-merge", &patch)
        .await?
        .expect(200);
    assert_eq!(
        patched["spec"]["ports"].as_array().map(Vec::len),
        Some(1),
        "{patched}"
    );
    assert_eq!(patched["spec"]["ports"][0]["port"], 81);
    assert_eq!(
        patched["metadata"]["finalizers"].as_array().map(Vec::len),
        Some(2),
        "{patched}"
    );
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/a", "example.com/b"]}});
    let patched = client
        .patch(&path, "strategic-merge", &patch)
        .await?
        .expect(200);
    assert!(patched["metadata"]["finalizers"].is_null(), "{patched}");
    Ok(())
}

/// A patch that names an old revision is a conflict.
pub async fn a_patch_of_an_old_revision_is_a_conflict(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let old = place.config_map("a", "").await?;
    let path = place.core("configmaps/a");
    client
        .patch(&path, "merge", &json!({"data": {"k": "w"}}))
        .await?
        .expect(200);
    let version = &old["metadata"]["resourceVersion"];
    let late = json!({"metadata": {"resourceVersion": version}, "data": {"k": "late"}});
    client
        .patch(&path, "merge", &late)
        .await?
        .expect_status(409, "Conflict");
    Ok(())
}

/// A patch of what is not there is 404; so is one of another kind of body 415.
pub async fn a_patch_needs_an_object_and_a_known_type(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let patch = json!({"data": {"k": "w"}});
    let absent = client
        .patch(&place.core("configmaps/none"), "merge", &patch)
        .await?;
    absent.expect_status(404, "NotFound");
    place.config_map("a", "").await?;
    let strange = client
        .patch(&place.core("configmaps/a"), "strange", &patch)
        .await?;
    strange.expect_status(415, "UnsupportedMediaType");
    let broken = client
        .send(
            http::Method::PATCH,
            &place.core("configmaps/a"),
            &[("content-type", "application/merge-patch+json")],
            "[1",
        )
        .await?;
    broken.expect_status(400, "BadRequest");
    Ok(())
}

/// Server-side apply creates, owns, and takes back what it owned.
pub async fn apply_creates_and_takes_back(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let path = place.core("configmaps/a?fieldManager=one");
    let applied = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
    let created = client
        .patch(&path, "apply", &applied(json!({"a": "1", "b": "2"})))
        .await?
        .expect(201);
    let entry = &created["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["manager"], &entry["operation"]),
        (&"one".into(), &"Apply".into())
    );
    let again = client
        .patch(&path, "apply", &applied(json!({"a": "1", "b": "2"})))
        .await?
        .expect(200);
    assert_eq!(revision(&again), revision(&created));
    let smaller = client
        .patch(&path, "apply", &applied(json!({"a": "1"})))
        .await?
        .expect(200);
    assert_eq!(smaller["data"], json!({"a": "1"}));
    Ok(())
}

/// Server-side apply over another's field is a conflict, unless forced.
pub async fn apply_over_anothers_field_is_a_conflict(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let applied = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}});
    let path = |query: &str| place.core(&format!("configmaps/a?{query}"));
    client
        .patch(&path("fieldManager=one"), "apply", &applied("1"))
        .await?
        .expect(201);
    let refused = client
        .patch(&path("fieldManager=two"), "apply", &applied("2"))
        .await?;
    let status = refused.expect_status(409, "Conflict");
    assert_eq!(
        status["details"]["causes"][0]["reason"], "FieldManagerConflict",
        "{status}"
    );
    assert_eq!(
        status["details"]["causes"][0]["field"], ".data.k",
        "{status}"
    );
    let forced = client
        .patch(&path("fieldManager=two&force=true"), "apply", &applied("2"))
        .await?
        .expect(200);
    assert_eq!(forced["data"]["k"], "2");
    let nobody = client
        .patch(&place.core("configmaps/a"), "apply", &applied("2"))
        .await?;
    nobody.expect_status(422, "Invalid");
    Ok(())
}

/// New items of a merged list come where the patch puts them, the others keep their places.
pub async fn a_strategic_merge_patch_keeps_the_order(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    client.post(&place.core("pods"), &pod()).await?.expect(201);
    let path = place.core("pods/p/status");
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    let order = |pod: &Value| -> Vec<String> {
        let list = pod["status"]["conditions"].as_array();
        let kinds = list
            .into_iter()
            .flatten()
            .filter_map(|c| c["type"].as_str());
        kinds.map(str::to_owned).collect()
    };
    let patch = json!({"status": {"conditions": [condition("A"), condition("B")]}});
    let first = client
        .patch(&path, "strategic-merge", &patch)
        .await?
        .expect(200);
    assert_eq!(order(&first), ["A", "B"]);
    let patch = json!({"status": {"conditions": [condition("C")]}});
    let second = client
        .patch(&path, "strategic-merge", &patch)
        .await?
        .expect(200);
    assert_eq!(order(&second), ["C", "A", "B"]);
    let patch = json!({"status": {
        "$setElementOrder/conditions": [{"type": "A"}, {"type": "B"}, {"type": "C"}, {"type": "D"}],
        "conditions": [condition("D")],
    }});
    let third = client
        .patch(&path, "strategic-merge", &patch)
        .await?
        .expect(200);
    assert_eq!(order(&third), ["A", "B", "C", "D"]);
    Ok(())
}

/// No patch changes who an object is, or what holds it once it is deleted.
pub async fn a_patch_does_not_change_identity(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let body = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}});
    client
        .post(&place.core("configmaps"), &body)
        .await?
        .expect(201);
    let path = place.core("configmaps/a");
    for (metadata, code) in [
        (json!({"uid": "another"}), 422),
        (json!({"name": "another"}), 400),
        (json!({"namespace": "another"}), 400),
        (json!({"deletionTimestamp": "2020-01-01T00:00:00Z"}), 422),
    ] {
        let patch = json!({"metadata": metadata});
        client.patch(&path, "merge", &patch).await?.expect(code);
    }
    client.delete(&path, None).await?.expect(200);
    let patch = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    let status = client
        .patch(&path, "merge", &patch)
        .await?
        .expect_status(422, "Invalid");
    assert_eq!(
        status["details"]["causes"][0]["field"],
        "metadata.finalizers"
    );
    Ok(())
}
