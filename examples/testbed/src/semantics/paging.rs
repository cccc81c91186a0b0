//! Lists in pages.

use super::{
    client::{Client, Error},
    place::{Outcome, Place, names, revision},
};

async fn fill(place: &Place<'_>) -> Result<(), Error> {
    for name in ["a", "b", "c", "d", "e"] {
        place.config_map(name, "mine=1").await?;
    }
    Ok(())
}

fn token(list: &serde_json::Value) -> &str {
    list["metadata"]["continue"].as_str().unwrap_or_default()
}

/// Pages together are the list: each once, in order, all at one revision.
pub async fn pages_are_one_list(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    fill(&place).await?;
    let (mut all, mut path) = (
        Vec::new(),
        "configmaps?labelSelector=mine&limit=2".to_owned(),
    );
    let mut revisions = Vec::new();
    loop {
        let list = client.get(&place.core(&path)).await?.expect(200);
        all.extend(names(&list).into_iter().map(str::to_owned));
        revisions.push(revision(&list));
        if token(&list).is_empty() {
            break;
        }
        assert_eq!(names(&list).len(), 2, "{list}");
        path = format!(
            "configmaps?labelSelector=mine&limit=2&continue={}",
            token(&list)
        );
    }
    assert_eq!(all, ["a", "b", "c", "d", "e"]);
    assert_eq!(revisions.len(), 3);
    assert!(
        revisions.windows(2).all(|pair| pair[0] == pair[1]),
        "{revisions:?}"
    );
    Ok(())
}

/// A page says how many items are left, where nothing but the namespace selects.
pub async fn a_page_counts_the_remaining_items(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    for name in ["a", "b", "c"] {
        let secret = serde_json::json!({"metadata": {"name": name, "labels": {"mine": "1"}}});
        client
            .post(&place.core("secrets"), &secret)
            .await?
            .expect(201);
    }
    let list = client
        .get(&place.core("secrets?limit=1"))
        .await?
        .expect(200);
    assert_eq!(list["metadata"]["remainingItemCount"], 2, "{list}");
    let selected = client
        .get(&place.core("secrets?limit=1&labelSelector=mine"))
        .await?
        .expect(200);
    assert!(!token(&selected).is_empty());
    assert!(
        selected["metadata"]["remainingItemCount"].is_null(),
        "{selected}"
    );
    Ok(())
}

/// What is written between two pages is not in the second.
pub async fn a_later_page_is_as_old_as_the_first(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    fill(&place).await?;
    let path = place.core("configmaps?labelSelector=mine&limit=3");
    let first = client.get(&path).await?.expect(200);
    place.config_map("dd", "mine=1").await?;
    client
        .delete(&place.core("configmaps/e"), None)
        .await?
        .expect(200);
    let path = format!(
        "configmaps?labelSelector=mine&limit=3&continue={}",
        token(&first)
    );
    let second = client.get(&place.core(&path)).await?.expect(200);
    assert_eq!(names(&second), ["d", "e"]);
    assert_eq!(revision(&second), revision(&first));
    Ok(())
}

/// A page over all namespaces goes on where it stopped.
pub async fn pages_cross_namespaces(client: &Client) -> Outcome {
    let (one, two) = (Place::new(client).await?, Place::new(client).await?);
    let label = format!("who={}", one.namespace);
    for place in [&one, &two] {
        for name in ["a", "b"] {
            place.config_map(name, &label).await?;
        }
    }
    let base = format!("/api/v1/configmaps?labelSelector={label}&limit=3");
    let first = client.get(&base).await?.expect(200);
    let second = client
        .get(&format!("{base}&continue={}", token(&first)))
        .await?
        .expect(200);
    assert_eq!((names(&first).len(), names(&second).len()), (3, 1));
    Ok(())
}

/// A token that is none is refused; so is one beside a revision.
pub async fn a_bad_token_is_refused(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    fill(&place).await?;
    let bad = client
        .get(&place.core("configmaps?limit=1&continue=abc"))
        .await?;
    bad.expect_status(400, "BadRequest");
    let first = client
        .get(&place.core("configmaps?limit=1"))
        .await?
        .expect(200);
    let path = format!(
        "configmaps?limit=1&resourceVersion=1&continue={}",
        token(&first)
    );
    client
        .get(&place.core(&path))
        .await?
        .expect_status(400, "BadRequest");
    Ok(())
}
