use proptest::prelude::*;

use super::*;

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"n","uid":"u-1","resourceVersion":"105","creationTimestamp":"2026-11-23T19:31:09Z","labels":{"z":"1","b":"é\n","a":""}},"spec":{"metadata":{"resourceVersion":"9"},"n":1e400,"x":[1.10,{"y":null}]}}"#;

#[test]
fn the_metadata_is_read_and_the_rest_is_skipped() {
    let meta = ObjectMeta::parse(POD.as_bytes()).unwrap();
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        meta,
        ObjectMeta {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: "n".into(),
            name: "a".into(),
            uid: "u-1".into(),
            resource_version: 105,
            creation_timestamp: Some("2026-11-23T19:31:09Z".into()),
            labels: vec![label("a", ""), label("b", "é\n"), label("z", "1")],
        }
    );
}

#[test]
fn absent_and_null_parts_are_empty() {
    let empty = [
        "{}",
        r#"{"metadata":null}"#,
        r#"{"metadata":{}}"#,
        r#"{"metadata":{"labels":null,"name":null,"resourceVersion":"x"}}"#,
    ];
    for text in empty {
        assert_eq!(
            ObjectMeta::parse(text.as_bytes()).unwrap(),
            ObjectMeta::default(),
            "{text}"
        );
    }
}

#[test]
fn escaped_keys_are_the_same_keys_and_the_last_equal_label_counts() {
    let meta = ObjectMeta::parse(br#"{"meta\u0064ata":{"labels":{"a":"1","b":"2","\u0061":"3"}}}"#)
        .unwrap();
    assert_eq!(
        meta.labels,
        [("a".into(), "3".into()), ("b".into(), "2".into())]
    );
}

#[test]
fn what_is_not_an_object_is_refused() {
    let deep = format!(r#"{{"metadata":{}"#, "[".repeat(100_000));
    let table: &[&[u8]] = &[
        b"",
        b"1",
        b"[",
        b"{",
        b"{} x",
        br#"{"metadata":{"name":"a"},"metadata":{"name":"b"}}"#,
        br#"{"metadata":{"name":"a","n\u0061me":"b"}}"#,
        br#"{"metadata":{"name":1}}"#,
        br#"{"metadata":{"labels":[]}}"#,
        br#"{"metadata":{"resourceVersion":1}}"#,
        br#"{"x":01}"#,
        br#"{"x":"\q"}"#,
        b"{\"x\":\"\xff\"}",
        deep.as_bytes(),
    ];
    for object in table {
        let text = String::from_utf8_lossy(&object[..object.len().min(80)]);
        assert!(ObjectMeta::parse(object).is_err(), "{text}");
        let _ = with_resource_version(object, 1);
    }
}

#[test]
fn an_object_survives_losing_and_regaining_its_type() {
    let bare = strip_type(POD.as_bytes(), "v1", "Pod").unwrap();
    let bare = [b"{", bare].concat();
    assert_eq!(with_type(&bare, "v1", "Pod"), POD.as_bytes());
    for (api_version, kind) in [("v1", "Po"), ("v", "Pod"), ("v1", "Node"), ("v1\"", "Pod")] {
        assert_eq!(strip_type(POD.as_bytes(), api_version, kind), None);
    }
    assert_eq!(
        strip_type(br#"{"apiVersion":"v1","kind":"Pod","x":1}"#, "v1", "Pod"),
        None
    );
    assert_eq!(
        strip_type(br#"{"kind":"Pod","apiVersion":"v1"}"#, "v1", "Pod"),
        None
    );
    for empty in ["{}", " { }"] {
        let typed = with_type(empty.as_bytes(), "v1", "Pod");
        assert_eq!(
            ObjectMeta::parse(&typed).unwrap().kind.as_deref(),
            Some("Pod"),
            "{empty}"
        );
    }
}

#[test]
fn only_the_own_revision_is_replaced() {
    let changed = with_resource_version(POD.as_bytes(), 7).unwrap();
    let expected = POD.replacen(r#""resourceVersion":"105""#, r#""resourceVersion":"7""#, 1);
    assert_eq!(changed, expected.as_bytes());

    let table = [
        (
            r#"{"metadata":{}}"#,
            r#"{"metadata":{"resourceVersion":"7"}}"#,
        ),
        (
            r#"{"metadata": { "name":"a"} }"#,
            r#"{"metadata": {"resourceVersion":"7", "name":"a"} }"#,
        ),
        (
            r#"{"metadata":{"resource\u0056ersion": "1" }}"#,
            r#"{"metadata":{"resource\u0056ersion": "7" }}"#,
        ),
        (
            r#"{"spec":{"metadata":{"resourceVersion":"1"}},"metadata":{"resourceVersion":""}}"#,
            r#"{"spec":{"metadata":{"resourceVersion":"1"}},"metadata":{"resourceVersion":"7"}}"#,
        ),
    ];
    for (object, expected) in table {
        assert_eq!(
            with_resource_version(object.as_bytes(), 7).unwrap(),
            expected.as_bytes()
        );
    }
    for object in [
        "{}",
        r#"{"metadata":null}"#,
        r#"{"metadata":[]}"#,
        r#"{"metadata":"x"}"#,
    ] {
        assert!(
            with_resource_version(object.as_bytes(), 7).is_err(),
            "{object}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(text in prop::collection::vec(prop::sample::select(&b"{}[]\",:\\ metadata\xff\n1"[..]), 0..60)) {
        let object = [b"{\"metadata\":", text.as_slice()].concat();
        if let Ok(changed) = with_resource_version(&object, 3) {
            prop_assert_eq!(ObjectMeta::parse(&changed).unwrap().resource_version, 3);
        }
    }
}

#[test]
fn a_field_is_replaced_where_it_is_or_comes_last() {
    for (object, name, expected) in [
        (
            r#"{"a":1,"status":{"x":[1]},"b":2}"#,
            "status",
            r#"{"a":1,"status":null,"b":2}"#,
        ),
        (r#"{"a":1}"#, "status", r#"{"a":1,"status":null}"#),
        ("{}", "status", r#"{"status":null}"#),
    ] {
        let changed = with_field(object.as_bytes(), name, b"null").unwrap();
        assert_eq!(changed, expected);
    }
    assert!(with_field(b"[1]", "status", b"null").is_err());
}
