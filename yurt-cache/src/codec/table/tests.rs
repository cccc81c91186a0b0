use super::*;

fn now() -> Timestamp {
    "2026-11-23T19:31:10Z".parse().expect("a time")
}

fn printer(kind: &str, json_path: &str) -> PrinterColumn {
    PrinterColumn {
        name: "X".into(),
        kind: kind.into(),
        json_path: json_path.into(),
        ..PrinterColumn::default()
    }
}

fn row(columns: &[Column], object: &str, include: IncludeObject) -> String {
    let meta = ObjectMeta::parse(object.as_bytes()).expect("an object");
    let row = table_row(columns, object.as_bytes(), &meta, include, now());
    String::from_utf8(row.to_vec()).expect("text")
}

#[test]
fn durations_read_as_kubectl_prints_them() {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 3600;
    const DAY: i64 = 86_400;
    let table = [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (5, "5s"),
        (119, "119s"),
        (2 * MINUTE, "2m"),
        (3 * MINUTE + 20, "3m20s"),
        (10 * MINUTE - 1, "9m59s"),
        (10 * MINUTE + 1, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (4 * HOUR + 12 * MINUTE, "4h12m"),
        (8 * HOUR + 12 * MINUTE, "8h"),
        (2 * DAY - 1, "47h"),
        (2 * DAY + 3 * HOUR, "2d3h"),
        (7 * DAY, "7d"),
        (8 * DAY + 3 * HOUR, "8d"),
        (45 * DAY, "45d"),
        (730 * DAY - 1, "729d"),
        (740 * DAY, "2y10d"),
        (730 * DAY, "2y"),
        (8 * 365 * DAY + 5, "8y"),
    ];
    for (seconds, text) in table {
        assert_eq!(
            human_duration(SignedDuration::from_secs(seconds)),
            text,
            "{seconds}"
        );
    }
}

/// The cells were read from kube-apiserver 1.34.4.
#[test]
fn cells_are_converted_as_the_server_does() {
    let object = r#"{"metadata":{"name":"h"},"spec":{"a.b":"dot","nul":null,"f":2.5,"big":1e25,"b":true,"i":7,"d":"","d2":"2020-01-01T00:00:00.123+02:00","d3":"2030-01-01T00:00:00Z","d4":"notadate","c":[{"type":"Ready"},{"type":"Ready","status":"T"}],"o":{"a":1,"b":"\u003cx\u003e"},"l":"red \u0026\n"}}"#;
    let table = [
        ("string", r".spec['a\.b']", r#""dot""#),
        ("string", ".spec.nul", r#""\u003cno value\u003e""#),
        ("string", ".spec.f", r#""2.5""#),
        ("string", ".spec.b", r#""true""#),
        ("string", ".spec.l", r#""red \u0026\n""#),
        ("string", ".spec.none", "null"),
        (
            "string",
            ".spec.o",
            r#""{\"a\":1,\"b\":\"\\u003cx\\u003e\"}""#,
        ),
        ("string", r#".spec.c[?(@.type=="Ready")].status"#, r#""T""#),
        ("string", ".spec..c", "null"),
        ("integer", ".spec.f", "2"),
        ("integer", ".spec.i", "7"),
        ("integer", ".spec.big", "null"),
        ("integer", ".spec.l", "null"),
        ("number", ".spec.i", "7"),
        ("number", ".spec.f", "2.5"),
        ("number", ".spec.l", "null"),
        ("boolean", ".spec.b", "true"),
        ("boolean", ".spec.i", "null"),
        ("date", ".spec.d", r#""\u003cunknown\u003e""#),
        ("date", ".spec.d2", r#""6y328d""#),
        ("date", ".spec.d3", r#""\u003cinvalid\u003e""#),
        ("date", ".spec.d4", r#""\u003cinvalid\u003e""#),
        ("date", ".spec.i", "null"),
        ("other", ".spec.i", "null"),
    ];
    for (kind, path, cell) in table {
        let columns = Column::custom(vec![printer(kind, path)]);
        let expected = format!(r#"{{"cells":["h",{cell}],"object":null}}"#);
        assert_eq!(
            row(&columns, object, IncludeObject::None),
            expected,
            "{kind} {path}"
        );
    }
}

#[test]
fn a_row_includes_what_was_asked_for() {
    let object = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","creationTimestamp":"2026-11-23T19:31:09Z"},"spec":{}}"#;
    let partial = r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"p","creationTimestamp":"2026-11-23T19:31:09Z"}}"#;
    let columns = Column::defaults();
    for (include, included) in [
        ("", partial),
        ("Metadata", partial),
        ("Object", object),
        ("None", "null"),
    ] {
        let expected = format!(r#"{{"cells":["p","1s"],"object":{included}}}"#);
        assert_eq!(
            row(
                &columns,
                object,
                IncludeObject::parse(include).expect(include)
            ),
            expected
        );
    }
    assert_eq!(IncludeObject::parse("Foo"), None);
    assert_eq!(partial_object(object.as_bytes()), partial.as_bytes());
}

#[test]
fn hostile_objects_make_empty_rows() {
    let columns = Column::custom(vec![
        printer("integer", ".spec.n"),
        printer("date", ".spec"),
    ]);
    for object in [
        &b""[..],
        b"{",
        b"[]",
        b"{\"metadata\":\"\xff\"}",
        b"{\"spec\":{\"n\":1e400}}",
    ] {
        let row = table_row(
            &columns,
            object,
            &ObjectMeta::default(),
            IncludeObject::Metadata,
            now(),
        );
        let cells = br#"{"cells":["",null,null],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{}}}"#;
        assert_eq!(row, &cells[..]);
    }
}

#[test]
fn heads_are_opened_as_the_server_does() {
    let column = PrinterColumn {
        format: "int32".into(),
        priority: 1,
        ..printer("integer", ".spec.age")
    };
    let columns = Column::custom(vec![column]);
    let head = String::from_utf8(table_head(&columns, r#"{"resourceVersion":"82"}"#).to_vec())
        .expect("text");
    assert!(head.starts_with(r#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"82"},"columnDefinitions":[{"name":"Name","type":"string","format":"name","description":"Name must be "#));
    assert!(head.ends_with(r#"#names","priority":0},{"name":"X","type":"integer","format":"int32","description":"Custom resource definition column (in JSONPath format): .spec.age","priority":1}],"rows":["#));
    let later = br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"9"},"columnDefinitions":null,"rows":["#;
    assert_eq!(table_head(&[], r#"{"resourceVersion":"9"}"#), &later[..]);
    assert_eq!(Column::custom(Vec::new()), Column::defaults());
}
