//! Writes through the hub: online they are the server's, cut off they are refused and nothing of them is left.

use http::Method;
use serde_json::{Value, json};
use testbed::{
    client::{Answer, Client},
    link::Cut,
};

use crate::{
    checks::{Checks, cut, difference, finish_all},
    reading::warm,
    site::Site,
    world::{self, ODD},
};

/// A write in a namespace that is called `{ns}`.
struct Write {
    method: Method,
    path: &'static str,
    content_type: &'static str,
    body: String,
}

const JSON: &str = "application/json";

#[rustfmt::skip]
fn writes() -> Vec<Write> {
    let maps = "/api/v1/namespaces/{ns}/configmaps";
    let write = |method, path, content_type, body: Value| Write { method, path, content_type, body: if body.is_null() { String::new() } else { body.to_string() } };
    let (post, put, patch, delete) = (Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
    let one = "/api/v1/namespaces/{ns}/configmaps/a";
    let cacti = "/apis/desert.example.com/v1/namespaces/{ns}/cacti";
    let cactus = "/apis/desert.example.com/v1/namespaces/{ns}/cacti/odd";
    vec![
        write(post.clone(), maps, JSON, json!({"metadata": {"name": "a", "labels": {"l": "1"}}, "data": {"k": "grüße 🌵"}})),
        write(post.clone(), maps, JSON, json!({"metadata": {"name": "a"}})),
        write(post.clone(), maps, JSON, json!({"metadata": {"generateName": "g-"}})),
        write(post.clone(), maps, JSON, json!({"metadata": {"name": "Not Valid"}})),
        write(post.clone(), maps, JSON, json!({"metadata": {"name": "x", "namespace": "default"}})),
        write(post.clone(), maps, JSON, json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x"}})),
        write(post.clone(), "/api/v1/namespaces/{ns}/configmaps?dryRun=All", JSON, json!({"metadata": {"name": "dry"}})),
        write(post.clone(), "/api/v1/namespaces/{ns}/configmaps?dryRun=Some", JSON, json!({"metadata": {"name": "dry"}})),
        write(post.clone(), "/api/v1/namespaces/{ns}/configmaps?fieldValidation=Strict", JSON, json!({"metadata": {"name": "strict"}, "nonsense": 1})),
        write(post.clone(), "/api/v1/namespaces/{ns}/configmaps?fieldValidation=Warn&fieldManager=me", JSON, json!({"metadata": {"name": "warned"}, "nonsense": 1})),
        write(post.clone(), maps, "application/yaml", json!({"metadata": {"name": "yaml"}})),
        write(post.clone(), maps, "text/plain", json!({"metadata": {"name": "text"}})),
        write(post.clone(), maps, JSON, json!("no object")),
        write(put.clone(), one, JSON, json!({"metadata": {"name": "a"}, "data": {"k": "put"}})),
        write(put.clone(), one, JSON, json!({"metadata": {"name": "a", "resourceVersion": "1"}, "data": {"k": "late"}})),
        write(put.clone(), one, JSON, json!({"metadata": {"name": "b"}})),
        write(put.clone(), "/api/v1/namespaces/{ns}/configmaps/absent", JSON, json!({"metadata": {"name": "absent"}})),
        write(patch.clone(), one, "application/merge-patch+json", json!({"data": {"merged": "1"}})),
        write(patch.clone(), one, "application/json-patch+json", json!([{"op": "add", "path": "/data/json", "value": "1"}])),
        write(patch.clone(), one, "application/json-patch+json", json!([{"op": "test", "path": "/data/json", "value": "2"}])),
        write(patch.clone(), one, "application/strategic-merge-patch+json", json!({"metadata": {"labels": {"$patch": "replace", "only": "1"}}})),
        write(patch.clone(), "/api/v1/namespaces/{ns}/configmaps/a?fieldManager=me", "application/apply-patch+yaml", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "mine"}})),
        write(patch.clone(), "/api/v1/namespaces/{ns}/configmaps/a?fieldManager=me&force=true", "application/apply-patch+yaml", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "mine"}})),
        write(patch.clone(), "/api/v1/namespaces/{ns}/configmaps/new?fieldManager=me", "application/apply-patch+yaml", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}})),
        write(patch.clone(), one, "application/nonsense-patch+json", json!({})),
        write(patch.clone(), one, JSON, json!({})),
        write(patch.clone(), "/api/v1/namespaces/{ns}/configmaps/absent", "application/merge-patch+json", json!({})),
        Write { method: post.clone(), path: cacti, content_type: JSON, body: ODD.replace("\"namespace\":\"world\",", "") },
        write(patch.clone(), cactus, "application/merge-patch+json", json!({"spec": {"more": [1, {"a": null}]}})),
        write(patch.clone(), cactus, "application/strategic-merge-patch+json", json!({})),
        write(patch.clone(), "/apis/desert.example.com/v1/namespaces/{ns}/cacti/odd/status", "application/merge-patch+json", json!({"status": {"a": 1}, "spec": {"ignored": true}})),
        write(post.clone(), "/api/v1/namespaces/{ns}/pods", JSON, json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})),
        write(post.clone(), "/api/v1/namespaces/{ns}/pods/p/binding", JSON, json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "edge-1"}})),
        write(patch.clone(), "/api/v1/namespaces/{ns}/pods/p/status", "application/strategic-merge-patch+json", json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})),
        write(post.clone(), "/api/v1/namespaces/{ns}/pods/p/eviction", JSON, json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": {"dryRun": ["All"]}})),
        write(post.clone(), "/api/v1/namespaces/{ns}/serviceaccounts", JSON, json!({"metadata": {"name": "sa"}})),
        write(post.clone(), "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", JSON, json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}})),
        write(delete.clone(), "/api/v1/namespaces/{ns}/configmaps/a?dryRun=All", JSON, Value::Null),
        write(delete.clone(), one, JSON, json!({"preconditions": {"uid": "wrong"}})),
        write(delete.clone(), one, JSON, Value::Null),
        write(delete.clone(), one, JSON, Value::Null),
        write(delete.clone(), "/api/v1/namespaces/{ns}/configmaps?labelSelector=absent", JSON, Value::Null),
        write(delete.clone(), "/api/v1/namespaces/{ns}/configmaps?fieldSelector=metadata.name%3Dnew", JSON, Value::Null),
        write(delete, "/api/v1/namespaces/{ns}/pods/p?gracePeriodSeconds=0", JSON, Value::Null),
        write(Method::HEAD, one, JSON, Value::Null),
        write(Method::OPTIONS, one, JSON, Value::Null),
        write(Method::TRACE, one, JSON, Value::Null),
        write(post, one, JSON, json!({})),
        write(put, maps, JSON, json!({})),
        write("PURGE".parse().expect("a method"), one, JSON, Value::Null),
    ]
}

/// The same writes, in one namespace straight and in another through the hub.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn every_write_is_the_servers_or_refused() {
    let site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    for name in ["straight", "through"] {
        world::post(
            &site.direct,
            "/api/v1/namespaces",
            json!({"metadata": {"name": name}}),
        )
        .await
        .unwrap();
    }
    let mut checks = Checks::new("write online");
    for (at, write) in writes().iter().enumerate() {
        let truth = send(&site.direct, write, "straight").await;
        let got = send(&site.hub, write, "through").await;
        checks.check(&write.called(at), same(&truth, &got));
    }
    for path in [
        "/api/v1/namespaces/{ns}/configmaps",
        "/api/v1/namespaces/{ns}/pods",
        "/apis/desert.example.com/v1/namespaces/{ns}/cacti",
    ] {
        let read = async |ns| site.direct.get(&path.replace("{ns}", ns)).await.unwrap();
        let (truth, got) = (read("straight").await, read("through").await);
        checks.check(&format!("{path} in the end"), same(&truth, &got));
    }
    // What the hub wrote for one client, it reads to the next.
    let list = site
        .hub
        .get("/api/v1/namespaces/through/configmaps")
        .await
        .unwrap()
        .expect(200);
    let direct = site
        .direct
        .get("/api/v1/namespaces/through/configmaps")
        .await
        .unwrap()
        .expect(200);
    checks.equal(
        "a list sees the writes before it",
        direct["items"].clone(),
        list["items"].clone(),
    );
    let mut groups = vec![checks];

    for (group, how) in [
        ("write refused", Cut::Refuse),
        ("write silent", Cut::Silent),
    ] {
        warm(&site).await;
        let before = everything(&site.direct).await;
        site.cut(how, "/api/v1/namespaces/world/configmaps").await;
        let mut checks = Checks::new(group);
        for (at, write) in writes().iter().enumerate() {
            let got = send(&site.hub, write, "world").await;
            checks.check(&write.called(at), refused(write, &got));
        }
        site.mend().await;
        warm(&site).await;
        checks.equal(
            "nothing is applied later",
            before,
            everything(&site.direct).await,
        );
        groups.push(checks);
    }
    finish_all(groups);
}

impl Write {
    fn called(&self, at: usize) -> String {
        format!("{at} {} {} {}", self.method, self.path, self.content_type)
    }
}

async fn send(client: &Client, write: &Write, namespace: &str) -> Answer {
    let path = write.path.replace("{ns}", namespace);
    let headers = [("content-type", write.content_type)];
    let answer = client
        .send(write.method.clone(), &path, &headers, &write.body)
        .await;
    answer.unwrap_or_else(|error| Answer {
        code: 0,
        headers: http::HeaderMap::new(),
        body: format!("{error:?}").into(),
    })
}

fn refused(write: &Write, got: &Answer) -> Result<(), String> {
    let body = got.json();
    if got.code == 503 {
        let is_status = body["kind"] == "Status"
            && body["reason"] == "ServiceUnavailable"
            && body["code"] == 503;
        let is_dated = got.header("retry-after").parse::<u64>().is_ok();
        let is_head = write.method == Method::HEAD;
        return if is_dated && (is_status || is_head) {
            Ok(())
        } else {
            Err(format!(
                "retry-after {:?}: {}",
                got.header("retry-after"),
                cut(&got.text())
            ))
        };
    }
    // What the server never allows may be refused as it does.
    if (400..=499).contains(&got.code)
        && ["HEAD", "OPTIONS", "TRACE", "PURGE"].contains(&write.method.as_str())
    {
        return Ok(());
    }
    Err(format!(
        "expected 503, got {}: {}",
        got.code,
        cut(&got.text())
    ))
}

async fn everything(client: &Client) -> Vec<String> {
    let mut all = Vec::new();
    for collection in world::COLLECTIONS {
        let list = client.get(&collection.all()).await.unwrap().expect(200);
        for item in list["items"].as_array().into_iter().flatten() {
            if item["metadata"]["namespace"] != "kube-system" {
                let (name, version) = (
                    &item["metadata"]["name"],
                    &item["metadata"]["resourceVersion"],
                );
                all.push(format!(
                    "{} {} {name} {version}",
                    collection.plural, item["metadata"]["namespace"]
                ));
            }
        }
    }
    all
}

fn same(truth: &Answer, got: &Answer) -> Result<(), String> {
    if truth.code != got.code {
        return Err(format!(
            "expected {}, got {}: {}",
            truth.code,
            got.code,
            cut(&got.text())
        ));
    }
    for name in ["content-type", "warning", "allow", "retry-after"] {
        if truth.header(name) != got.header(name) {
            return Err(format!(
                "{name}: expected {:?}, got {:?}",
                truth.header(name),
                got.header(name)
            ));
        }
    }
    match difference(&settled(truth), &settled(got), "") {
        None => Ok(()),
        Some(place) => Err(place),
    }
}

/// An answer without what is of its own in every namespace.
fn settled(answer: &Answer) -> Value {
    let text = answer
        .text()
        .replace("straight", "NS")
        .replace("through", "NS");
    let mut value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    settle(&mut value);
    value
}

fn settle(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in [
                "uid",
                "resourceVersion",
                "creationTimestamp",
                "time",
                "continue",
                "startTime",
                "deletionTimestamp",
            ] {
                fields.remove(name);
            }
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "name" && text.starts_with("g-") => {
                        *text = "g-".to_owned()
                    }
                    // A message may quote a uid or a revision.
                    Value::String(text) if name == "message" => {
                        *text = text
                            .split("UID in record")
                            .next()
                            .unwrap_or_default()
                            .to_owned()
                    }
                    field => settle(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        _ => {}
    }
}
