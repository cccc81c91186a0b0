//! What happens in the cloud while somebody watches.

use serde_json::{Value, json};
use testbed::client::Client;

use crate::world;

const MAPS: &str = "/api/v1/namespaces/world/configmaps";

/// Whether changes are made that cannot be made a second time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Once {
    Yes,
    No,
}

/// Objects that come, change, enter and leave selections, go, and come again; the last is called `end`.
pub(crate) async fn changes(client: &Client, once: Once) {
    let merge = async |path: &str, body: Value| {
        client
            .patch(path, "merge", &body)
            .await
            .unwrap()
            .expect(200);
    };
    let one = |name: &str| format!("{MAPS}/{name}");
    let make = async |name: &str, labels: Value| {
        let body = json!({"metadata": {"name": name, "labels": labels}, "data": {"n": "1"}});
        world::post(client, MAPS, body).await.unwrap();
    };
    make("moving", json!({})).await;
    merge(
        &one("moving"),
        json!({"metadata": {"labels": {"tier": "web", "env": "prod"}}}),
    )
    .await;
    merge(&one("moving"), json!({"data": {"n": "2"}})).await;
    merge(
        &one("moving"),
        json!({"metadata": {"labels": {"tier": "db"}}}),
    )
    .await;
    merge(
        &one("moving"),
        json!({"metadata": {"labels": {"tier": null}}}),
    )
    .await;
    merge(
        &one("moving"),
        json!({"metadata": {"labels": {"tier": "web"}}}),
    )
    .await;
    client
        .delete(&one("moving"), None)
        .await
        .unwrap()
        .expect(200);
    make("moving", json!({"tier": "web"})).await;
    // Nothing changes: nothing is told.
    merge(
        &one("moving"),
        json!({"metadata": {"labels": {"tier": "web"}}}),
    )
    .await;
    merge(
        &one("plain"),
        json!({"metadata": {"annotations": {"a": "é"}, "finalizers": ["example.com/wait"]}}),
    )
    .await;
    client
        .delete(&one("plain"), None)
        .await
        .unwrap()
        .expect(200);
    merge(&one("plain"), json!({"metadata": {"finalizers": null}})).await;
    if once == Once::Yes {
        changes_for_once(client).await;
    }
    make("end", json!({"tier": "web", "env": "prod"})).await;
}

async fn changes_for_once(client: &Client) {
    let merge = async |path: &str, body: Value| {
        client
            .patch(path, "merge", &body)
            .await
            .unwrap()
            .expect(200);
    };
    let path = "/api/v1/namespaces/world/pods/waiting/status";
    merge(path, json!({"status": {"phase": "Running"}})).await;
    let bind =
        json!({"metadata": {"name": "waiting"}, "target": {"kind": "Node", "name": "edge-1"}});
    client
        .post("/api/v1/namespaces/world/pods/waiting/binding", &bind)
        .await
        .unwrap()
        .expect(201);
    merge(path, json!({"status": {"phase": "Failed"}})).await;
    let path = "/apis/desert.example.com/v1/namespaces/world/cacti/cholla";
    merge(path, json!({"spec": {"colour": "green"}})).await;
    merge(path, json!({"spec": {"colour": "brown"}})).await;
    merge(&format!("{path}/status"), json!({"status": {"size": 1.50}})).await;
    client.delete(path, None).await.unwrap().expect(200);
    client
        .delete(
            "/api/v1/namespaces/other/configmaps?labelSelector=env",
            None,
        )
        .await
        .unwrap()
        .expect(200);
}
