//! Watches: where they begin, what they say, how they end.

use serde_json::json;

use super::{
    client::Client,
    place::{MOMENT, Outcome, Place, SOON, expect, next, revision},
};

/// Everything that happens is told, in order, with rising revisions.
pub async fn changes_are_told_in_order(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let list = client.get(&place.core("secrets")).await?.expect(200);
    let path = place.core(&format!(
        "secrets?watch=1&resourceVersion={}",
        revision(&list)
    ));
    let mut watch = place.watch(&path).await?;
    let body = json!({"metadata": {"name": "a"}});
    client
        .post(&place.core("secrets"), &body)
        .await?
        .expect(201);
    let labels = json!({"metadata": {"labels": {"x": "1"}}});
    let changed = client
        .patch(&place.core("secrets/a"), "merge", &labels)
        .await?
        .expect(200);
    client
        .delete(&place.core("secrets/a"), None)
        .await?
        .expect(200);

    let added = expect(&mut watch, "ADDED", "a").await?;
    let modified = expect(&mut watch, "MODIFIED", "a").await?;
    let deleted = expect(&mut watch, "DELETED", "a").await?;
    assert_eq!(modified, changed);
    assert_eq!(deleted["metadata"]["labels"]["x"], "1");
    assert!(revision(&added) < revision(&modified));
    assert!(revision(&modified) < revision(&deleted));
    assert_eq!(added["kind"], "Secret");
    assert_eq!(added["apiVersion"], "v1");
    Ok(())
}

/// A watch without a revision, or from 0, begins with what is there.
pub async fn a_watch_from_nowhere_begins_with_the_state(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let created = place.config_map("a", "mine=1").await?;
    client
        .get(&place.core(&format!(
            "configmaps?resourceVersion={}",
            revision(&created)
        )))
        .await?
        .expect(200);
    for suffix in ["", "&resourceVersion=0", "&resourceVersion="] {
        let path = format!("configmaps?watch=true&labelSelector=mine{suffix}");
        let mut watch = place.watch(&place.core(&path)).await?;
        let added = expect(&mut watch, "ADDED", "a").await?;
        assert_eq!(added, created);
    }
    Ok(())
}

/// A watch from a revision tells what came after it, and not what came before.
pub async fn a_watch_from_a_revision_tells_what_came_after(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let first = place.config_map("a", "mine=1").await?;
    place.config_map("b", "mine=1").await?;
    let path = format!(
        "configmaps?watch=1&labelSelector=mine&resourceVersion={}",
        revision(&first)
    );
    let mut watch = place.watch(&place.core(&path)).await?;
    expect(&mut watch, "ADDED", "b").await?;
    Ok(())
}

/// A watch from the future is open and says nothing.
pub async fn a_watch_from_the_future_is_silent(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let future = u64::from(u32::MAX);
    let path = place.core(&format!("configmaps?watch=1&resourceVersion={future}"));
    let mut watch = place.watch(&path).await?;
    place.config_map("a", "").await?;
    assert!(watch.is_silent(MOMENT).await?);
    Ok(())
}

/// The headers of a watch do not wait for its first event.
pub async fn a_silent_watch_sends_its_headers(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let list = client.get(&place.core("secrets")).await?.expect(200);
    let path = place.core(&format!(
        "secrets?watch=1&resourceVersion={}",
        revision(&list)
    ));
    let mut watch = place.watch(&path).await?;
    let kind = watch.headers["content-type"].to_str().unwrap_or_default();
    assert_eq!(kind, "application/json");
    assert!(watch.is_silent(MOMENT).await?);
    Ok(())
}

/// An object that leaves a selection is deleted for its watch, at the revision of that write.
pub async fn leaving_a_selection_is_a_deletion(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let created = place.config_map("a", "app=web").await?;
    let path = format!(
        "configmaps?watch=1&labelSelector=app%3Dweb&resourceVersion={}",
        revision(&created)
    );
    let mut watch = place.watch(&place.core(&path)).await?;
    let label = |value: &str| json!({"metadata": {"labels": {"app": value}}});
    let object = place.core("configmaps/a");
    let left = client
        .patch(&object, "merge", &label("db"))
        .await?
        .expect(200);
    client
        .patch(&object, "merge", &json!({"data": {"k": "unseen"}}))
        .await?
        .expect(200);
    let back = client
        .patch(&object, "merge", &label("web"))
        .await?
        .expect(200);

    let deleted = expect(&mut watch, "DELETED", "a").await?;
    assert_eq!(revision(&deleted), revision(&left));
    assert_eq!(
        deleted["metadata"]["labels"]["app"], "web",
        "the last state that was selected"
    );
    let added = expect(&mut watch, "ADDED", "a").await?;
    assert_eq!(added, back);
    Ok(())
}

/// A watch of one name hears of no other.
pub async fn a_watch_of_one_name_hears_of_no_other(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let list = client.get(&place.core("configmaps")).await?.expect(200);
    let path = format!(
        "configmaps?watch=1&fieldSelector=metadata.name%3Db&resourceVersion={}",
        revision(&list)
    );
    let mut watch = place.watch(&place.core(&path)).await?;
    place.config_map("a", "").await?;
    place.config_map("b", "").await?;
    expect(&mut watch, "ADDED", "b").await?;
    Ok(())
}

/// A watch of all namespaces hears of each.
pub async fn a_watch_of_all_namespaces_hears_of_each(client: &Client) -> Outcome {
    let (one, two) = (Place::new(client).await?, Place::new(client).await?);
    let label = format!("who={}", one.namespace);
    let list = client
        .get(&format!("/api/v1/configmaps?labelSelector={label}"))
        .await?
        .expect(200);
    let path = format!(
        "/api/v1/configmaps?watch=1&labelSelector={label}&resourceVersion={}",
        revision(&list)
    );
    let mut watch = one.watch(&path).await?;
    one.config_map("a", &label).await?;
    two.config_map("b", &label).await?;
    expect(&mut watch, "ADDED", "a").await?;
    expect(&mut watch, "ADDED", "b").await?;
    Ok(())
}

/// A watch ends when its time is up, and says goodbye with a bookmark.
pub async fn a_bookmark_comes_before_the_end(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let list = client.get(&place.core("configmaps")).await?.expect(200);
    let path = format!(
        "configmaps?watch=1&allowWatchBookmarks=true&timeoutSeconds=4&resourceVersion={}",
        revision(&list)
    );
    let mut watch = place.watch(&place.core(&path)).await?;
    let created = place.config_map("a", "").await?;
    expect(&mut watch, "ADDED", "a").await?;
    let bookmark = next(&mut watch).await?;
    assert_eq!(bookmark.kind, "BOOKMARK");
    assert_eq!(bookmark.object["kind"], "ConfigMap");
    assert!(revision(&bookmark.object) >= revision(&created));
    while let Some(more) = watch.next(SOON).await? {
        assert_eq!(more.kind, "BOOKMARK", "nothing else happened");
    }
    Ok(())
}

/// Who asks for no bookmarks gets none.
pub async fn bookmarks_come_only_when_asked_for(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let list = client.get(&place.core("secrets")).await?.expect(200);
    let path = format!(
        "secrets?watch=1&timeoutSeconds=3&resourceVersion={}",
        revision(&list)
    );
    let mut watch = place.watch(&place.core(&path)).await?;
    assert!(watch.next(SOON).await?.is_none());
    Ok(())
}

/// A streamed list is the state, a bookmark that ends it, and then what changes.
pub async fn a_streamed_list_ends_with_a_bookmark(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "mine=1").await?;
    let last = place.config_map("b", "mine=1").await?;
    let path = "configmaps?watch=1&labelSelector=mine&sendInitialEvents=true\
                &resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion=";
    let mut watch = place.watch(&place.core(path)).await?;
    expect(&mut watch, "ADDED", "a").await?;
    expect(&mut watch, "ADDED", "b").await?;
    let end = next(&mut watch).await?;
    assert_eq!(end.kind, "BOOKMARK");
    let mark = &end.object["metadata"]["annotations"]["k8s.io/initial-events-end"];
    assert_eq!(mark, "true", "{}", end.object);
    assert!(revision(&end.object) >= revision(&last));
    place.config_map("c", "mine=1").await?;
    expect(&mut watch, "ADDED", "c").await?;
    Ok(())
}

/// Who wants no initial events gets only what comes.
pub async fn a_watch_without_initial_events_begins_now(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "mine=1").await?;
    let path = "configmaps?watch=1&labelSelector=mine&sendInitialEvents=false\
                &resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = place.watch(&place.core(path)).await?;
    assert!(watch.is_silent(MOMENT).await?);
    place.config_map("b", "mine=1").await?;
    expect(&mut watch, "ADDED", "b").await?;
    Ok(())
}

/// Options of a watch that contradict each other are refused.
pub async fn contradicting_watch_options_are_refused(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    for query in [
        "sendInitialEvents=true",
        "sendInitialEvents=true&resourceVersionMatch=Exact",
        "resourceVersionMatch=NotOlderThan",
    ] {
        let answer = client
            .get(&place.core(&format!("configmaps?watch=1&{query}")))
            .await?;
        let status = answer.expect_status(422, "Invalid");
        assert_eq!(status["details"]["kind"], "ListOptions", "{query}");
    }
    Ok(())
}

/// A streamed list from the future is open, and then says that it cannot be.
pub async fn a_streamed_list_of_the_future_fails_as_an_event(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let path = "configmaps?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                &resourceVersion=4294967295";
    let mut watch = place.watch(&place.core(path)).await?;
    let event = next(&mut watch).await?;
    assert_eq!(event.kind, "ERROR");
    assert_eq!(event.object["code"], 504);
    assert_eq!(
        event.object["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
    assert!(watch.next(SOON).await?.is_none(), "nothing after the error");
    Ok(())
}

/// A watch from a revision that is none fails before it is open.
pub async fn a_watch_from_nonsense_is_refused(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let answer = client
        .get(&place.core("configmaps?watch=1&resourceVersion=abc"))
        .await?;
    let message = "resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax";
    assert_eq!(answer.expect(500)["message"], message);
    for query in [
        "labelSelector=a%20b",
        "fieldSelector=data.k%3D1",
        "timeoutSeconds=abc",
    ] {
        let answer = client
            .get(&place.core(&format!("configmaps?watch=1&{query}")))
            .await?;
        answer.expect_status(400, "BadRequest");
    }
    Ok(())
}
