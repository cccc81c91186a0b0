//! Label and field selectors.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::{
    client::Client,
    place::{Outcome, Place, names},
};

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Every operator of label selectors selects what the documentation says.
pub async fn every_label_operator_selects(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("web", "mine=1,app=web,n=5").await?;
    place.config_map("db", "mine=1,app=db,n=7").await?;
    place.config_map("bare", "mine=1").await?;
    for (selector, expected) in [
        ("app", vec!["db", "web"]),
        ("!app", vec!["bare"]),
        ("app=web", vec!["web"]),
        ("app==web", vec!["web"]),
        ("app!=web", vec!["bare", "db"]),
        ("app in (web,db)", vec!["db", "web"]),
        ("app in (web), n in (7)", vec![]),
        ("app notin (web)", vec!["bare", "db"]),
        ("n>5", vec!["db"]),
        ("n<6", vec!["web"]),
        ("app=db,n=7", vec!["db"]),
    ] {
        let path = format!(
            "configmaps?labelSelector={}",
            encoded(&format!("mine=1,{selector}"))
        );
        let list = client.get(&place.core(&path)).await?.expect(200);
        assert_eq!(names(&list), expected, "{selector}");
    }
    Ok(())
}

/// Name and namespace are selectable for every kind.
pub async fn objects_are_selected_by_name(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "mine=1").await?;
    place.config_map("b", "mine=1").await?;
    for (selector, expected) in [
        ("metadata.name=a", vec!["a"]),
        ("metadata.name==a", vec!["a"]),
        ("metadata.name!=a", vec!["b"]),
        (
            &format!("metadata.name=a,metadata.namespace={}", place.namespace),
            vec!["a"],
        ),
        ("metadata.namespace=elsewhere", vec![]),
    ] {
        let path = format!(
            "configmaps?labelSelector=mine&fieldSelector={}",
            encoded(selector)
        );
        let list = client.get(&place.core(&path)).await?.expect(200);
        assert_eq!(names(&list), expected, "{selector}");
    }
    Ok(())
}

/// Pods are selected by the node they are on, and by their phase.
pub async fn pods_are_selected_by_node_and_phase(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    for (name, node) in [("one", "n1"), ("two", "n2"), ("none", "")] {
        let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        if !node.is_empty() {
            pod["spec"]["nodeName"] = node.into();
        }
        client.post(&place.core("pods"), &pod).await?.expect(201);
    }
    for (selector, expected) in [
        ("spec.nodeName=n1", vec!["one"]),
        ("spec.nodeName=", vec!["none"]),
        (
            "spec.nodeName!=n1,status.phase=Pending",
            vec!["none", "two"],
        ),
        ("status.phase=Running", vec![]),
        (
            "spec.restartPolicy=Always,spec.schedulerName=default-scheduler",
            vec!["none", "one", "two"],
        ),
    ] {
        let path = format!("pods?fieldSelector={}", encoded(selector));
        let list = client.get(&place.core(&path)).await?.expect(200);
        assert_eq!(names(&list), expected, "{selector}");
    }
    Ok(())
}

/// Secrets are selected by type, events by what they are about.
pub async fn secrets_and_events_have_fields_of_their_own(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    for (name, kind) in [("a", "Opaque"), ("b", "example.com/own")] {
        let secret = json!({"metadata": {"name": name}, "type": kind});
        client
            .post(&place.core("secrets"), &secret)
            .await?
            .expect(201);
        let event = json!({
            "metadata": {"name": name},
            "involvedObject": {"kind": "Pod", "name": name, "namespace": place.namespace},
            "reason": "Tested",
            "type": "Normal",
        });
        client
            .post(&place.core("events"), &event)
            .await?
            .expect(201);
    }
    let list = client
        .get(&place.core("secrets?fieldSelector=type%3Dexample.com/own"))
        .await?
        .expect(200);
    assert_eq!(names(&list), ["b"]);
    let path =
        "events?fieldSelector=involvedObject.name%3Da,reason%3DTested,involvedObject.kind%3DPod";
    let list = client.get(&place.core(path)).await?.expect(200);
    assert_eq!(names(&list), ["a"]);
    Ok(())
}

/// A field that cannot be selected, and a selector that is none, are refused.
pub async fn a_selector_that_means_nothing_is_refused(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    for (path, message) in [
        (
            place.core("configmaps?fieldSelector=data.k%3Dv"),
            "\"data.k\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        (
            place.core("pods?fieldSelector=spec.foo%3Dv"),
            "field label not supported: spec.foo",
        ),
        (
            place.group("batch/v1", "jobs?fieldSelector=spec.foo%3Dv"),
            "field label \"spec.foo\" not supported for Job",
        ),
    ] {
        let status = client.get(&path).await?.expect_status(400, "BadRequest");
        assert_eq!(status["message"], message);
    }
    for selector in ["a b c", "a in b", "a in (b"] {
        let path = format!("configmaps?labelSelector={}", encoded(selector));
        client
            .get(&place.core(&path))
            .await?
            .expect_status(400, "BadRequest");
    }
    Ok(())
}
