use super::*;

fn value_of(group: &str, resource: &str, name: &str, object: &str) -> Option<String> {
    let meta = ObjectMeta::parse(object.as_bytes()).expect("an object");
    value(group, resource, &[], name, object.as_bytes(), &meta).map(Cow::into_owned)
}

#[test]
fn absent_values_are_the_servers() {
    let bare = r#"{"metadata":{"name":"x","namespace":"n"}}"#;
    let table = [
        ("", "pods", "metadata.name", bare, Some("x")),
        ("", "pods", "metadata.namespace", bare, Some("n")),
        ("", "pods", "spec.hostNetwork", bare, Some("false")),
        (
            "",
            "pods",
            "spec.hostNetwork",
            r#"{"spec":{"hostNetwork":true}}"#,
            Some("true"),
        ),
        ("", "pods", "spec.nodeName", bare, Some("")),
        (
            "",
            "pods",
            "status.phase",
            r#"{"status":{"phase":"Pending"}}"#,
            Some("Pending"),
        ),
        (
            "",
            "pods",
            "status.podIPs",
            r#"{"status":{"podIP":"10.0.0.1"}}"#,
            Some("10.0.0.1"),
        ),
        ("", "pods", "spec.x", r#"{"spec":{"x":"1"}}"#, None),
        ("", "nodes", "spec.unschedulable", bare, Some("false")),
        (
            "",
            "nodes",
            "spec.unschedulable",
            r#"{"spec":{"unschedulable":true}}"#,
            Some("true"),
        ),
        (
            "",
            "secrets",
            "type",
            r#"{"type":"Opaque"}"#,
            Some("Opaque"),
        ),
        (
            "",
            "replicationcontrollers",
            "status.replicas",
            bare,
            Some("0"),
        ),
        ("batch", "jobs", "status.successful", bare, Some("0")),
        (
            "batch",
            "jobs",
            "status.successful",
            r#"{"status":{"succeeded":2}}"#,
            Some("2"),
        ),
        (
            "",
            "events",
            "source",
            r#"{"source":{},"reportingComponent":"rc"}"#,
            Some("rc"),
        ),
        (
            "",
            "events",
            "source",
            r#"{"source":{"component":"sc"},"reportingComponent":"rc"}"#,
            Some("sc"),
        ),
        (
            "",
            "events",
            "source",
            r#"{"source":{"component":""},"reportingComponent":"rc"}"#,
            Some("rc"),
        ),
        (
            "",
            "events",
            "involvedObject.kind",
            r#"{"involvedObject":{"name":"x"}}"#,
            Some(""),
        ),
        (
            "events.k8s.io",
            "events",
            "regarding.name",
            r#"{"regarding":{"name":"x"}}"#,
            Some("x"),
        ),
        ("", "configmaps", "type", r#"{"type":"x"}"#, None),
        (
            "",
            "services",
            "spec.clusterIP",
            r#"{"spec":"hostile"}"#,
            Some(""),
        ),
        (
            "",
            "services",
            "spec.clusterIP",
            r#"{"spec":{"clusterIP":{"a":[]}}}"#,
            Some(""),
        ),
    ];
    for (group, resource, name, object, expected) in table {
        assert_eq!(
            value_of(group, resource, name, object).as_deref(),
            expected,
            "{resource} {name} {object}"
        );
    }
}

#[test]
fn a_custom_resource_selects_by_its_own_fields() {
    let paths = ["spec.ok", "spec.age", "spec.color"]
        .map(|path| (path.to_owned(), JsonPath::parse(path).expect(path)));
    let object = br#"{"metadata":{"name":"x"},"spec":{"ok":true,"age":3}}"#;
    let meta = ObjectMeta::parse(object).expect("an object");
    let found = values("farm.io", "oxen", &paths, object, &meta);
    let expected = [
        ("metadata.name", "x"),
        ("metadata.namespace", ""),
        ("spec.ok", "true"),
        ("spec.age", "3"),
        ("spec.color", ""),
    ];
    assert_eq!(
        found,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

/// Each message was read from kube-apiserver 1.34.4.
#[test]
fn an_unsupported_field_is_refused_in_the_servers_words() {
    let none: &[(String, JsonPath)] = &[];
    let table = [
        (
            "",
            "configmaps",
            None,
            true,
            "zz=1",
            Some(
                r#""zz" is not a known field selector: only "metadata.name", "metadata.namespace""#,
            ),
        ),
        (
            "",
            "persistentvolumes",
            None,
            false,
            "metadata.namespace=a",
            None,
        ),
        (
            "",
            "configmaps",
            None,
            true,
            "metadata.name=a,metadata.namespace=b",
            None,
        ),
        (
            "",
            "pods",
            None,
            true,
            "zz=1",
            Some("field label not supported: zz"),
        ),
        ("", "pods", None, true, "spec.nodeName=a", None),
        (
            "",
            "nodes",
            None,
            false,
            "metadata.namespace=a",
            Some("field label not supported: metadata.namespace"),
        ),
        (
            "batch",
            "jobs",
            None,
            true,
            "zz=1",
            Some("field label \"zz\" not supported for Job"),
        ),
        (
            "resource.k8s.io",
            "resourceslices",
            None,
            false,
            "zz=1",
            Some("field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: zz"),
        ),
        (
            "apps",
            "replicasets",
            None,
            true,
            "status.replicas=1",
            Some(
                r#""status.replicas" is not a known field selector: only "metadata.name", "metadata.namespace""#,
            ),
        ),
        (
            "farm.io",
            "oxen",
            Some(none),
            true,
            "zz=1",
            Some("field label not supported: zz"),
        ),
        (
            "farm.io",
            "oxen",
            Some(none),
            true,
            "metadata.namespace=a",
            None,
        ),
        (
            "farm.io",
            "hens",
            Some(none),
            false,
            "metadata.namespace=a",
            Some("field label not supported: metadata.namespace"),
        ),
    ];
    for (group, resource, custom, is_namespaced, selector, message) in table {
        let selectable = Selectable {
            group,
            version: "v1",
            resource,
            is_namespaced,
            custom,
        };
        let result = check(
            &FieldSelector::parse(selector).expect(selector),
            &selectable,
        );
        assert_eq!(
            result.err().map(|error| error.to_string()).as_deref(),
            message,
            "{resource} {selector}"
        );
    }
}
