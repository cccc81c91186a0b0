//! Refusals: which code, which reason, which words.

use http::Method;
use serde_json::json;

use super::{
    client::Client,
    place::{Outcome, Place},
};

/// What is not there is named.
pub async fn an_absent_object_is_named(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let status = client
        .get(&place.core("configmaps/none"))
        .await?
        .expect_status(404, "NotFound");
    assert_eq!(status["message"], "configmaps \"none\" not found");
    assert_eq!(
        status["details"],
        json!({"name": "none", "kind": "configmaps"})
    );
    let path = place.group("apps/v1", "deployments/none");
    let status = client.get(&path).await?.expect_status(404, "NotFound");
    assert_eq!(status["message"], "deployments.apps \"none\" not found");
    assert_eq!(
        status["details"],
        json!({"name": "none", "group": "apps", "kind": "deployments"})
    );
    Ok(())
}

/// A group or a path that nobody serves is plain text.
pub async fn an_unknown_group_is_plain_text(client: &Client) -> Outcome {
    for path in ["/apis/none.example.com/v1/things", "/none"] {
        let answer = client.get(path).await?;
        assert_eq!(
            (answer.code, answer.text().as_str()),
            (404, "404 page not found\n"),
            "{path}"
        );
        assert!(
            answer.header("content-type").starts_with("text/plain"),
            "{path}"
        );
    }
    Ok(())
}

/// A resource or a version that a built-in group does not have is a Status.
pub async fn an_unknown_resource_is_a_status(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "").await?;
    for path in [
        place.core("things"),
        place.core("configmaps/a/status"),
        "/apis/apps/v1/things".into(),
        "/apis/apps/v99/deployments".into(),
    ] {
        let status = client.get(&path).await?.expect_status(404, "NotFound");
        assert_eq!(
            status["message"], "the server could not find the requested resource",
            "{path}"
        );
    }
    Ok(())
}

/// A method that the path does not have is 405; HEAD and OPTIONS are none of them.
pub async fn a_wrong_method_is_not_allowed(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let object = json!({"metadata": {"name": "a"}}).to_string();
    for (method, path, body) in [
        (Method::PUT, place.core("configmaps"), object.as_str()),
        (Method::POST, place.core("configmaps/a"), &object),
        (Method::POST, "/api/v1/configmaps".into(), &object),
        (Method::OPTIONS, place.core("configmaps"), ""),
    ] {
        let answer = client.send(method, &path, &[], body).await?;
        let status = answer.expect_status(405, "MethodNotAllowed");
        assert_eq!(
            status["message"],
            "the server does not allow this method on the requested resource"
        );
    }
    let head = client
        .send(Method::HEAD, &place.core("configmaps"), &[], "")
        .await?;
    assert_eq!((head.code, head.body.len()), (405, 0));
    Ok(())
}

/// A body of another kind, of another name, of another place, or of none is refused.
pub async fn a_wrong_body_is_refused(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    place.config_map("a", "").await?;
    let path = place.core("configmaps");
    for body in [
        json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x"}}),
        json!({"metadata": {"name": "x", "namespace": "elsewhere"}}),
        json!([]),
    ] {
        client
            .post(&path, &body)
            .await?
            .expect_status(400, "BadRequest");
    }
    let broken = client
        .send(Method::POST, &path, &[], "{\"metadata\":")
        .await?;
    broken.expect_status(400, "BadRequest");
    let other = json!({"metadata": {"name": "b"}});
    let status = client
        .put(&place.core("configmaps/a"), &other)
        .await?
        .expect_status(400, "BadRequest");
    let message = "the name of the object (b) does not match the name on the URL (a)";
    assert_eq!(status["message"], message);
    let versioned = json!({"metadata": {"name": "x", "resourceVersion": "5"}});
    let refused = client.post(&path, &versioned).await?.expect(500);
    assert_eq!(
        refused["message"],
        "resourceVersion should not be set on objects to be created"
    );
    Ok(())
}

/// A body in a language that nobody speaks is 415.
pub async fn an_unknown_media_type_is_refused(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let body = json!({"metadata": {"name": "a"}}).to_string();
    let headers = [("content-type", "text/plain")];
    let answer = client
        .send(Method::POST, &place.core("configmaps"), &headers, &body)
        .await?;
    answer.expect_status(415, "UnsupportedMediaType");
    Ok(())
}

/// A name that is none is invalid, and the field is named.
pub async fn an_invalid_name_is_refused(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    for (metadata, reason) in [
        (json!({"name": "X_"}), "FieldValueInvalid"),
        (json!({}), "FieldValueRequired"),
    ] {
        let answer = client
            .post(&place.core("configmaps"), &json!({"metadata": metadata}))
            .await?;
        let status = answer.expect_status(422, "Invalid");
        let cause = &status["details"]["causes"][0];
        assert_eq!(
            (&cause["field"], &cause["reason"]),
            (&"metadata.name".into(), &reason.into())
        );
        assert_eq!(status["details"]["kind"], "ConfigMap");
    }
    Ok(())
}

/// A namespace that is not there takes nothing, and is listed as empty.
pub async fn an_absent_namespace_takes_nothing(client: &Client) -> Outcome {
    let path = "/api/v1/namespaces/there-is-none/configmaps";
    let body = json!({"metadata": {"name": "a"}});
    let status = client
        .post(path, &body)
        .await?
        .expect_status(404, "NotFound");
    assert_eq!(status["message"], "namespaces \"there-is-none\" not found");
    let list = client.get(path).await?.expect(200);
    assert_eq!(list["items"], json!([]));
    Ok(())
}

/// Options of a list that contradict each other are refused.
pub async fn contradicting_list_options_are_refused(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    for (query, code, reason) in [
        ("resourceVersionMatch=Exact", 422, "Invalid"),
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            422,
            "Invalid",
        ),
        (
            "resourceVersion=1&resourceVersionMatch=Nearly",
            422,
            "Invalid",
        ),
        ("sendInitialEvents=true", 422, "Invalid"),
        ("resourceVersion=abc", 400, "BadRequest"),
        ("resourceVersion=-1", 400, "BadRequest"),
        ("limit=abc", 400, "BadRequest"),
    ] {
        let path = place.core(&format!("configmaps?{query}"));
        client.get(&path).await?.expect_status(code, reason);
    }
    Ok(())
}

/// Who says nothing about himself, or the wrong thing, is nobody.
pub async fn a_stranger_is_unauthorized(client: &Client) -> Outcome {
    let endpoint = client.endpoint();
    let wrong = Client::with_token(endpoint, "there-is-no-such-token")?;
    let status = wrong
        .get("/api/v1/configmaps")
        .await?
        .expect_status(401, "Unauthorized");
    assert_eq!(status["message"], "Unauthorized");
    Ok(())
}
