//! Reading objects and lists back, and what a revision means to a reader.

use super::{
    client::Client,
    place::{Outcome, Place, names, revision},
};

/// What was posted comes back, with what the server added.
pub async fn an_object_is_read_as_it_was_written(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let created = place.config_map("a", "x=1").await?;
    let read = client.get(&place.core("configmaps/a")).await?.expect(200);
    assert_eq!(read, created);
    assert_eq!(read["kind"], "ConfigMap");
    assert_eq!(read["apiVersion"], "v1");
    assert_eq!(read["data"]["k"], "v");
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        assert!(read["metadata"][field].is_string(), "{field}: {read}");
    }
    Ok(())
}

/// The items of a typed list do not repeat the kind that the list has said.
pub async fn a_typed_list_names_its_kind_once(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "").await?;
    let list = client.get(&place.core("configmaps")).await?.expect(200);
    assert_eq!(list["kind"], "ConfigMapList");
    assert_eq!(list["apiVersion"], "v1");
    assert!(list["items"][0]["kind"].is_null(), "{list}");
    assert!(list["items"][0]["apiVersion"].is_null(), "{list}");
    Ok(())
}

/// An empty list has no items, and says so.
pub async fn an_empty_list_has_an_empty_array(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let list = client.get(&place.core("secrets")).await?.expect(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(0), "{list}");
    Ok(())
}

/// A list comes in the order of names.
pub async fn a_list_is_ordered_by_name(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    for name in ["b", "a.c", "a", "a-b", "c0"] {
        place.config_map(name, "mine=1").await?;
    }
    let path = place.core("configmaps?labelSelector=mine");
    let list = client.get(&path).await?.expect(200);
    assert_eq!(names(&list), ["a", "a-b", "a.c", "b", "c0"]);
    Ok(())
}

/// A list's revision is the server's, not its newest item's.
pub async fn a_lists_revision_is_global(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "").await?;
    let path = place.core("configmaps");
    let first = revision(&client.get(&path).await?.expect(200));
    let secret = serde_json::json!({"metadata": {"name": "other"}});
    let other = client
        .post(&place.core("secrets"), &secret)
        .await?
        .expect(201);
    let second = revision(&client.get(&path).await?.expect(200));
    assert!(second > first, "{second} after {first}");
    assert!(second >= revision(&other));
    Ok(())
}

/// Every write raises the revision that a list shows.
pub async fn a_read_sees_the_write_before_it(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    for name in ["a", "b", "c"] {
        let created = place.config_map(name, "mine=1").await?;
        let path = place.core("configmaps?labelSelector=mine");
        let list = client.get(&path).await?.expect(200);
        assert!(names(&list).contains(&name), "{list}");
        assert!(revision(&list) >= revision(&created));
    }
    Ok(())
}

/// Revision 0 is answered at once with what is at hand.
pub async fn revision_zero_is_whatever_is_at_hand(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let created = place.config_map("a", "").await?;
    // A barrier: from here on the server's cache has the object too.
    let path = format!("configmaps?resourceVersion={}", revision(&created));
    client.get(&place.core(&path)).await?.expect(200);
    let list = client
        .get(&place.core("configmaps?resourceVersion=0"))
        .await?
        .expect(200);
    assert!(names(&list).contains(&"a"), "{list}");
    client
        .get(&place.core("configmaps/a?resourceVersion=0"))
        .await?
        .expect(200);
    Ok(())
}

/// A page size means nothing to a reader who takes whatever is at hand.
pub async fn revision_zero_ignores_the_limit(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let mut last = 0;
    for name in ["a", "b", "c"] {
        last = revision(&place.config_map(name, "mine=1").await?);
    }
    client
        .get(&place.core(&format!("configmaps?resourceVersion={last}")))
        .await?
        .expect(200);
    let path = place.core("configmaps?labelSelector=mine&limit=1&resourceVersion=0");
    let list = client.get(&path).await?.expect(200);
    assert_eq!(names(&list).len(), 3);
    assert!(list["metadata"]["continue"].is_null(), "{list}");
    Ok(())
}

/// A list at least as new as a revision may be newer, and says how new it is.
pub async fn not_older_than_is_at_least_that_new(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let first = revision(&place.config_map("a", "mine=1").await?);
    place.config_map("b", "mine=1").await?;
    for suffix in ["", "&resourceVersionMatch=NotOlderThan"] {
        let path = format!("configmaps?labelSelector=mine&resourceVersion={first}{suffix}");
        let list = client.get(&place.core(&path)).await?.expect(200);
        assert!(revision(&list) >= first);
        assert!(names(&list).contains(&"a"), "{list}");
    }
    Ok(())
}

/// An exact list shows the past.
pub async fn exact_is_as_it_was(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let then = revision(&place.config_map("a", "mine=1").await?);
    place.config_map("b", "mine=1").await?;
    client
        .delete(&place.core("configmaps/a"), None)
        .await?
        .expect(200);
    let path =
        format!("configmaps?labelSelector=mine&resourceVersion={then}&resourceVersionMatch=Exact");
    let list = client.get(&place.core(&path)).await?.expect(200);
    assert_eq!(names(&list), ["a"]);
    assert_eq!(revision(&list), then);
    Ok(())
}

/// A revision of the future is waited for, and then refused in a way that can be told apart.
pub async fn a_revision_of_the_future_times_out(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "").await?;
    let future = u64::from(u32::MAX);
    for path in [
        "configmaps?",
        "configmaps/a?",
        "configmaps?resourceVersionMatch=Exact&",
    ] {
        let path = place.core(&format!("{path}resourceVersion={future}"));
        let answer = client.get(&path).await?;
        let status = answer.expect_status(504, "Timeout");
        let cause = &status["details"]["causes"][0]["reason"];
        assert_eq!(cause, "ResourceVersionTooLarge", "{status}");
        let message = status["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("Too large resource version: 4294967295, current: "),
            "{message}"
        );
        assert_eq!(status["details"]["retryAfterSeconds"], 1);
        assert_eq!(answer.header("retry-after"), "1");
    }
    Ok(())
}

/// A revision that was promised is waited for.
pub async fn a_revision_that_comes_soon_is_waited_for(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let now = revision(&place.config_map("a", "mine=1").await?);
    let path = place.core(&format!(
        "configmaps?labelSelector=mine&resourceVersion={}",
        now + 1
    ));
    let (list, _) = tokio::try_join!(client.get(&path), place.config_map("b", "mine=1"))?;
    assert!(revision(&list.expect(200)) > now);
    Ok(())
}
