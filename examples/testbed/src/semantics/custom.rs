//! Custom resources.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use super::{
    client::{Client, Error},
    place::{Outcome, Place, SOON, expect, names, next, revision},
};

/// A custom resource of a group that nobody else uses, with an irregular plural.
struct Oxen<'a> {
    place: Place<'a>,
    group: String,
}

impl<'a> Oxen<'a> {
    async fn new(client: &'a Client) -> Result<Self, Error> {
        let place = Place::new(client).await?;
        let group = format!("{}.example.com", place.namespace);
        let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let mut spec = free.clone();
        spec["properties"] = json!({"color": {"type": "string"}});
        let version = json!({
            "name": "v1",
            "served": true,
            "storage": true,
            "subresources": {"status": {}},
            "selectableFields": [{"jsonPath": ".spec.color"}],
            "additionalPrinterColumns": [
                {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
                {"name": "Weight", "type": "integer", "jsonPath": ".spec.weight"},
            ],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": free}}},
        });
        let crd = json!({
            "kind": "CustomResourceDefinition",
            "apiVersion": "apiextensions.k8s.io/v1",
            "metadata": {"name": format!("oxen.{group}")},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": "oxen", "singular": "ox", "kind": "Ox", "shortNames": ["ox"]},
                "versions": [version],
            },
        });
        client
            .post(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
                &crd,
            )
            .await?
            .expect(201);
        let oxen = Self { place, group };
        oxen.wait_until_served().await?;
        Ok(oxen)
    }

    /// The real server takes a second, and says nowhere when the last of its parts is ready.
    async fn wait_until_served(&self) -> Result<(), Error> {
        let deadline = Instant::now() + SOON;
        let mut turns = interval(Duration::from_millis(100));
        while Instant::now() < deadline {
            turns.tick().await;
            if self.place.client.get(&self.path("")).await?.code == 200 {
                return Ok(());
            }
        }
        Err(Error::Silence("the custom resource".into()))
    }

    fn path(&self, rest: &str) -> String {
        self.place
            .group(&format!("{}/v1", self.group), &format!("oxen{rest}"))
    }

    fn body(&self, name: &str, color: &str) -> Value {
        json!({
            "kind": "Ox",
            "apiVersion": format!("{}/v1", self.group),
            "metadata": {"name": name},
            "spec": {"color": color, "weight": 700, "unknown": {"deep": [1, 2.5, "x"]}},
        })
    }

    async fn ox(&self, name: &str, color: &str) -> Result<Value, Error> {
        let body = self.body(name, color);
        Ok(self
            .place
            .client
            .post(&self.path(""), &body)
            .await?
            .expect(201))
    }
}

/// A custom resource is served under its own plural, however irregular, and keeps unknown fields.
pub async fn an_irregular_plural_is_served(client: &Client) -> Outcome {
    let oxen = Oxen::new(client).await?;
    oxen.ox("a", "red").await?;
    let read = client.get(&oxen.path("/a")).await?.expect(200);
    assert_eq!(read["spec"], oxen.body("a", "red")["spec"]);
    assert_eq!(read["metadata"]["generation"], 1);
    let list = client.get(&oxen.path("")).await?.expect(200);
    assert_eq!(list["kind"], "OxList");
    assert_eq!(
        list["items"][0]["kind"], "Ox",
        "a custom item keeps its kind"
    );
    let wrong = format!("/apis/{}/v1/oxs", oxen.group);
    assert_eq!(
        client.get(&wrong).await?.expect(404),
        Value::Null,
        "plain text"
    );
    Ok(())
}

/// The CRD says when it is established.
pub async fn a_crd_is_established(client: &Client) -> Outcome {
    let oxen = Oxen::new(client).await?;
    let path = format!(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/oxen.{}",
        oxen.group
    );
    let crd = client.get(&path).await?.expect(200);
    let conditions = crd["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let holds = |kind: &str| {
        conditions
            .iter()
            .any(|c| c["type"] == kind && c["status"] == "True")
    };
    assert!(holds("Established") && holds("NamesAccepted"), "{crd}");
    assert_eq!(crd["status"]["acceptedNames"]["listKind"], "OxList");
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
    Ok(())
}

/// An update of a custom resource names the revision it is based on.
pub async fn a_custom_update_needs_a_revision(client: &Client) -> Outcome {
    let oxen = Oxen::new(client).await?;
    oxen.ox("a", "red").await?;
    let status = client
        .put(&oxen.path("/a"), &oxen.body("a", "blue"))
        .await?
        .expect_status(422, "Invalid");
    let message = status["message"].as_str().unwrap_or_default();
    assert!(
        message.ends_with(
            "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
        ),
        "{message}"
    );
    let strategic = client
        .patch(&oxen.path("/a"), "strategic-merge", &json!({}))
        .await?;
    strategic.expect_status(415, "UnsupportedMediaType");
    let untyped = client
        .post(&oxen.path(""), &json!({"metadata": {"name": "b"}}))
        .await?;
    untyped.expect_status(400, "BadRequest");
    Ok(())
}

/// The status of a custom resource has its own door, and does not count as a generation.
pub async fn a_custom_status_has_a_door_of_its_own(client: &Client) -> Outcome {
    let oxen = Oxen::new(client).await?;
    let mut body = oxen.body("a", "red");
    body["status"] = json!({"fed": true});
    let created = client.post(&oxen.path(""), &body).await?.expect(201);
    assert!(created["status"].is_null(), "{created}");
    let patch = json!({"metadata": {"labels": {"x": "1"}}, "spec": {"color": "blue"}, "status": {"fed": true}});
    let fed = client
        .patch(&oxen.path("/a/status"), "merge", &patch)
        .await?
        .expect(200);
    assert_eq!(fed["status"], json!({"fed": true}));
    assert_eq!(fed["spec"]["color"], "red");
    assert!(fed["metadata"]["labels"].is_null());
    assert_eq!(fed["metadata"]["generation"], 1);
    let patch = json!({"spec": {"color": "blue"}, "status": {"fed": false}});
    let painted = client
        .patch(&oxen.path("/a"), "merge", &patch)
        .await?
        .expect(200);
    assert_eq!(painted["status"], json!({"fed": true}));
    assert_eq!(painted["metadata"]["generation"], 2);
    Ok(())
}

/// A CRD's own selectable fields select; others do not.
pub async fn a_selectable_field_selects(client: &Client) -> Outcome {
    let oxen = Oxen::new(client).await?;
    oxen.ox("a", "red").await?;
    oxen.ox("b", "blue").await?;
    let list = client
        .get(&oxen.path("?fieldSelector=spec.color%3Dblue"))
        .await?
        .expect(200);
    assert_eq!(names(&list), ["b"]);
    let other = client
        .get(&oxen.path("?fieldSelector=spec.weight%3D700"))
        .await?;
    let status = other.expect_status(400, "BadRequest");
    assert_eq!(status["message"], "field label not supported: spec.weight");
    let path = format!(
        "?watch=1&fieldSelector=spec.color%3Dblue&resourceVersion={}",
        revision(&list)
    );
    let mut watch = oxen.place.watch(&oxen.path(&path)).await?;
    client
        .patch(
            &oxen.path("/a"),
            "merge",
            &json!({"spec": {"color": "blue"}}),
        )
        .await?
        .expect(200);
    expect(&mut watch, "ADDED", "a").await?;
    Ok(())
}

/// A table of custom resources has the CRD's own columns.
pub async fn a_custom_table_has_the_crds_columns(client: &Client) -> Outcome {
    let oxen = Oxen::new(client).await?;
    oxen.ox("a", "red").await?;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = client.get_as(&oxen.path(""), accept).await?.expect(200);
    let columns = table["columnDefinitions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let titles: Vec<&Value> = columns.iter().map(|column| &column["name"]).collect();
    assert_eq!(titles, ["Name", "Color", "Weight"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", "red", 700]));
    Ok(())
}

/// A watch from before the resource existed is too old: 200, then an error, then the end.
pub async fn a_watch_from_too_long_ago_is_expired(client: &Client) -> Outcome {
    let oxen = Oxen::new(client).await?;
    let mut watch = oxen
        .place
        .watch(&oxen.path("?watch=1&resourceVersion=1"))
        .await?;
    let event = next(&mut watch).await?;
    assert_eq!(event.kind, "ERROR");
    assert_eq!(event.object["kind"], "Status");
    assert_eq!(event.object["code"], 410);
    assert_eq!(event.object["reason"], "Expired");
    let message = event.object["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("too old resource version: 1 ("),
        "{message}"
    );
    assert!(watch.next(SOON).await?.is_none(), "nothing after the error");
    Ok(())
}

/// Pages of a custom resource carry an empty token at the end.
pub async fn custom_pages_end_with_an_empty_token(client: &Client) -> Outcome {
    let oxen = Oxen::new(client).await?;
    oxen.ox("a", "red").await?;
    oxen.ox("b", "red").await?;
    let first = client.get(&oxen.path("?limit=1")).await?.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap_or_default();
    assert!(!token.is_empty());
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let second = client
        .get(&oxen.path(&format!("?limit=1&continue={token}")))
        .await?
        .expect(200);
    assert_eq!(names(&second), ["b"]);
    assert_eq!(second["metadata"]["continue"], "");
    Ok(())
}

/// A new resource shows up in discovery, and a deleted one goes.
pub async fn a_crd_comes_and_goes_in_discovery(client: &Client) -> Outcome {
    let oxen = Oxen::new(client).await?;
    let path = format!("/apis/{}/v1", oxen.group);
    let list = client.get(&path).await?.expect(200);
    let resources = list["resources"].as_array().cloned().unwrap_or_default();
    let ox = resources
        .iter()
        .find(|resource| resource["name"] == "oxen")
        .cloned()
        .unwrap_or_default();
    assert_eq!(ox["kind"], "Ox", "{list}");
    assert_eq!(ox["singularName"], "ox");
    assert_eq!(ox["namespaced"], true);
    assert!(
        resources
            .iter()
            .any(|resource| resource["name"] == "oxen/status"),
        "{list}"
    );

    oxen.ox("a", "red").await?;
    let crd = format!(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/oxen.{}",
        oxen.group
    );
    client.delete(&crd, None).await?.expect(200);
    let deadline = Instant::now() + SOON;
    let mut turns = interval(Duration::from_millis(100));
    while client.get(&oxen.path("")).await?.code != 404 {
        assert!(Instant::now() < deadline, "still served");
        turns.tick().await;
    }
    Ok(())
}
