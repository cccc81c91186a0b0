//! Objects in other forms: tables, metadata, other encodings.

use serde_json::Value;

use super::{
    client::Client,
    place::{Outcome, Place, names, next, revision},
};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
const ONE: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";

fn column(table: &Value, name: &str) -> Option<usize> {
    let columns = table["columnDefinitions"].as_array()?;
    columns.iter().position(|column| column["name"] == name)
}

/// A list as a table has a row per object, with its metadata.
pub async fn a_list_is_shown_as_a_table(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "mine=1").await?;
    place.config_map("b", "mine=1").await?;
    let path = place.core("configmaps?labelSelector=mine");
    let table = client.get_as(&path, TABLE).await?.expect(200);
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["apiVersion"], "meta.k8s.io/v1");
    assert!(revision(&table) > 0);
    let at = column(&table, "Name").unwrap_or(usize::MAX);
    assert!(column(&table, "Age").is_some(), "{table}");
    let rows = table["rows"].as_array().cloned().unwrap_or_default();
    let shown: Vec<&Value> = rows.iter().map(|row| &row["cells"][at]).collect();
    assert_eq!(shown, ["a", "b"]);
    for row in &rows {
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
        assert!(row["object"]["metadata"]["uid"].is_string());
        assert!(row["object"]["data"].is_null());
    }
    Ok(())
}

/// A table carries whole objects, or none, when asked.
pub async fn a_table_includes_what_is_asked_for(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "").await?;
    let path = |include: &str| place.core(&format!("configmaps/a?includeObject={include}"));
    let whole = client.get_as(&path("Object"), TABLE).await?.expect(200);
    assert_eq!(whole["rows"][0]["object"]["data"]["k"], "v");
    assert_eq!(whole["rows"][0]["object"]["kind"], "ConfigMap");
    let none = client.get_as(&path("None"), TABLE).await?.expect(200);
    assert!(none["rows"][0]["object"].is_null(), "{none}");
    client
        .get_as(&path("Some"), TABLE)
        .await?
        .expect_status(400, "BadRequest");
    Ok(())
}

/// Metadata alone: of one object and of a list.
pub async fn metadata_is_shown_alone(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let created = place.config_map("a", "mine=1").await?;
    let one = client
        .get_as(&place.core("configmaps/a"), ONE)
        .await?
        .expect(200);
    assert_eq!(one["kind"], "PartialObjectMetadata");
    assert_eq!(one["metadata"], created["metadata"]);
    assert!(one["data"].is_null());
    let path = place.core("configmaps?labelSelector=mine");
    let list = client.get_as(&path, LIST).await?.expect(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(names(&list), ["a"]);
    assert!(list["items"][0]["data"].is_null());
    Ok(())
}

/// A watch shows metadata alone, too.
pub async fn a_watch_of_metadata_shows_nothing_else(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let created = place.config_map("a", "mine=1").await?;
    let path = format!(
        "configmaps?watch=1&labelSelector=mine&resourceVersion={}",
        revision(&created) - 1
    );
    let mut watch = client.watch_as(&place.core(&path), ONE).await?;
    let event = next(&mut watch).await?;
    assert_eq!(event.kind, "ADDED");
    assert_eq!(event.object["kind"], "PartialObjectMetadata");
    assert_eq!(event.object["metadata"], created["metadata"]);
    assert!(event.object["data"].is_null());
    Ok(())
}

/// A form that nobody knows is not acceptable; the first known one is taken.
pub async fn an_unknown_form_is_not_acceptable(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "").await?;
    let path = place.core("configmaps/a");
    for accept in ["image/png", "application/json;as=Nope;v=v1;g=meta.k8s.io"] {
        client
            .get_as(&path, accept)
            .await?
            .expect_status(406, "NotAcceptable");
    }
    let both = client
        .get_as(&path, "image/png, application/json")
        .await?
        .expect(200);
    assert_eq!(both["kind"], "ConfigMap");
    Ok(())
}

/// A large answer is compressed for who can read it, a small one is not.
pub async fn a_large_list_is_compressed(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let body = serde_json::json!({"metadata": {"name": "big"}, "data": {"k": "x".repeat(200_000)}});
    client
        .post(&place.core("configmaps"), &body)
        .await?
        .expect(201);
    let gzip = [("accept-encoding", "gzip")];
    let get = http::Method::GET;
    let large = client
        .send(get.clone(), &place.core("configmaps"), &gzip, "")
        .await?;
    assert_eq!(large.header("content-encoding"), "gzip");
    assert!(large.body.len() < 100_000, "{}", large.body.len());
    let small = client
        .send(get.clone(), &place.core("secrets"), &gzip, "")
        .await?;
    assert_eq!(small.header("content-encoding"), "");
    let plain = client.send(get, &place.core("configmaps"), &[], "").await?;
    assert_eq!(plain.header("content-encoding"), "");
    Ok(())
}

/// The form of a list is none for an object, and the other way round.
pub async fn a_form_of_another_number_is_not_acceptable(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "").await?;
    let one = client.get_as(&place.core("configmaps/a"), LIST).await?;
    one.expect_status(406, "NotAcceptable");
    let list = client.get_as(&place.core("configmaps"), ONE).await?;
    list.expect_status(406, "NotAcceptable");
    Ok(())
}
