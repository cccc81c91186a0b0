use super::*;

fn subject<'a>(group: &'a str, resource: &'a str, name: &'a str) -> Subject<'a> {
    Subject {
        group,
        resource,
        name,
    }
}

fn cause(reason: &'static str, message: &str, field: &str) -> Cause {
    Cause {
        reason: reason.into(),
        message: message.into(),
        field: field.into(),
    }
}

/// Each body was read from kube-apiserver 1.34.4.
#[test]
fn bodies_are_the_servers_byte_for_byte() {
    let required =
        "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
    let for_list = "Forbidden: sendInitialEvents is forbidden for list";
    let table = [
        (
            Status::bad_request("field label not supported: zz"),
            r#""message":"field label not supported: zz","reason":"BadRequest","code":400"#,
        ),
        (
            Status::unauthorized(),
            r#""message":"Unauthorized","reason":"Unauthorized","code":401"#,
        ),
        (
            Status::forbidden(
                subject("", "pods", ""),
                r#"User "bob" cannot list resource "pods" in API group "" at the cluster scope"#,
            ),
            r#""message":"pods is forbidden: User \"bob\" cannot list resource \"pods\" in API group \"\" at the cluster scope","reason":"Forbidden","details":{"kind":"pods"},"code":403"#,
        ),
        (
            Status::forbidden(
                subject("apps", "deployments", "x"),
                r#"User "bob" cannot get resource "deployments" in API group "apps" in the namespace "default""#,
            ),
            r#""message":"deployments.apps \"x\" is forbidden: User \"bob\" cannot get resource \"deployments\" in API group \"apps\" in the namespace \"default\"","reason":"Forbidden","details":{"name":"x","group":"apps","kind":"deployments"},"code":403"#,
        ),
        (
            Status::not_found(subject("", "configmaps", "none")),
            r#""message":"configmaps \"none\" not found","reason":"NotFound","details":{"name":"none","kind":"configmaps"},"code":404"#,
        ),
        (
            Status::not_found(subject("farm.io", "oxen", "none")),
            r#""message":"oxen.farm.io \"none\" not found","reason":"NotFound","details":{"name":"none","group":"farm.io","kind":"oxen"},"code":404"#,
        ),
        (
            Status::method_not_allowed(),
            r#""message":"the server does not allow this method on the requested resource","reason":"MethodNotAllowed","details":{},"code":405"#,
        ),
        (
            Status::not_acceptable(&[
                "application/json",
                "application/yaml",
                "application/vnd.kubernetes.protobuf",
            ]),
            r#""message":"only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf","reason":"NotAcceptable","code":406"#,
        ),
        (
            Status::expired_list(),
            r#""message":"The resourceVersion for the provided list is too old.","reason":"Expired","code":410"#,
        ),
        (
            Status::expired_watch(5, 79),
            r#""message":"too old resource version: 5 (79)","reason":"Expired","code":410"#,
        ),
        (
            Status::invalid_list_options(vec![cause(
                "FieldValueForbidden",
                required,
                "resourceVersionMatch",
            )]),
            r#""message":"ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided","reason":"Invalid","details":{"group":"meta.k8s.io","kind":"ListOptions","causes":[{"reason":"FieldValueForbidden","message":"Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided","field":"resourceVersionMatch"}]},"code":422"#,
        ),
        (
            Status::invalid_list_options(vec![
                cause("FieldValueForbidden", required, "resourceVersionMatch"),
                cause("FieldValueForbidden", for_list, "sendInitialEvents"),
            ]),
            r#""message":"ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided, sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list]","reason":"Invalid","details":{"group":"meta.k8s.io","kind":"ListOptions","causes":[{"reason":"FieldValueForbidden","message":"Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided","field":"resourceVersionMatch"},{"reason":"FieldValueForbidden","message":"Forbidden: sendInitialEvents is forbidden for list","field":"sendInitialEvents"}]},"code":422"#,
        ),
        (
            Status::invalid(
                "",
                "ConfigMap",
                "",
                vec![cause(
                    "FieldValueRequired",
                    "Required value: name or generateName is required",
                    "metadata.name",
                )],
            ),
            r#""message":"ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required","reason":"Invalid","details":{"kind":"ConfigMap","causes":[{"reason":"FieldValueRequired","message":"Required value: name or generateName is required","field":"metadata.name"}]},"code":422"#,
        ),
        (
            Status::too_large_resource_version(99999999, 105),
            r#""message":"Timeout: Too large resource version: 99999999, current: 105","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1},"code":504"#,
        ),
    ];
    for (status, rest) in table {
        let expected = format!(
            r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure",{rest}}}"#
        );
        assert_eq!(
            status.object(),
            expected.as_bytes(),
            "{}",
            String::from_utf8_lossy(&status.object())
        );
        assert_eq!(status.body(), format!("{expected}\n").as_bytes());
    }
}

#[test]
fn what_the_server_seldom_says_has_its_shape_too() {
    let text = |status: &Status| String::from_utf8(status.object().to_vec()).expect("text");
    let unavailable =
        Status::unavailable("cut off <since> noon", Some(Duration::from_millis(1500)));
    assert_eq!(
        text(&unavailable),
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"cut off \u003csince\u003e noon","reason":"ServiceUnavailable","details":{"retryAfterSeconds":2},"code":503}"#
    );
    assert_eq!(unavailable.retry_after_seconds(), Some(2));
    assert_eq!(Status::unavailable("x", None).retry_after_seconds(), None);
    assert!(
        text(&Status::expired_continue("abc".into()))
            .contains(r#""metadata":{"continue":"abc"},"status""#)
    );
    assert!(text(&Status::internal("x")).contains(
        r#""message":"Internal error occurred: x","reason":"InternalError","details":{"causes":[{"message":"x"}]},"code":500"#
    ));
}
