//! What the codec makes of odd objects that a server accepts all the same: deep ones, large ones, escaped ones.

use jiff::Timestamp;
use proptest::prelude::*;

use super::json::MAX_DEPTH;
use super::*;

/// As an object of a custom resource, `depth` levels deep: 1 is an object without anything inside.
fn deep(depth: usize, is_list: impl Fn(usize) -> bool) -> String {
    let levels = 1..depth;
    let open = |level| if is_list(level) { "[" } else { r#"{"a":"# };
    let close = |level| if is_list(level) { "]" } else { "}" };
    let opened: String = levels.clone().map(open).collect();
    let closed: String = levels.rev().map(close).collect();
    let inner = opened.strip_suffix(r#""a":"#).unwrap_or(&opened);
    format!(
        r#"{{"apiVersion":"try.test/v1","kind":"Deep","metadata":{{"labels":{{"l":"v"}},"name":"deep","resourceVersion":"7"}},"spec":{inner}{closed},"status":{{"phase":"Up"}}}}"#
    )
}

fn list_of(items: &[&str]) -> String {
    let items = items.join(",");
    format!(
        r#"{{"apiVersion":"try.test/v1","items":[{items}],"kind":"DeepList","metadata":{{"resourceVersion":"9"}}}}"#
    )
}

fn split(list: &str, limit: usize, step: usize) -> Result<Vec<String>, ListError> {
    let mut splitter = ListSplitter::new(limit);
    let mut items = Vec::new();
    for chunk in list.as_bytes().chunks(step) {
        splitter.push(chunk, &mut |item| {
            items.push(String::from_utf8_lossy(item).into_owned());
            Ok::<(), ListError>(())
        })?;
    }
    splitter.finish()?;
    Ok(items)
}

fn events(stream: &[u8], limit: usize, step: usize) -> Result<Vec<String>, WatchError> {
    let mut lines = EventLines::new(limit);
    let mut objects = Vec::new();
    for chunk in stream.chunks(step) {
        lines.push(chunk, &mut |_, object| {
            objects.push(String::from_utf8_lossy(object).into_owned());
            Ok::<(), WatchError>(())
        })?;
    }
    lines.finish()?;
    Ok(objects)
}

fn event_of(object: &str) -> bytes::BytesMut {
    let mut line = bytes::BytesMut::new();
    frame(EventType::Added, object.as_bytes(), &mut line);
    line
}

/// Does everything with an object that the hub does with one.
fn handle(object: &str) {
    let meta = ObjectMeta::parse(object.as_bytes()).unwrap();
    assert_eq!((meta.name.as_str(), meta.resource_version), ("deep", 7));
    let again = with_resource_version(object.as_bytes(), 8).unwrap();
    assert_eq!(ObjectMeta::parse(&again).unwrap().resource_version, 8);
    let changed = with_field(object.as_bytes(), "status", b"{}").unwrap();
    assert_eq!(
        field(str::from_utf8(&changed).unwrap(), "status").map(|raw| raw.get()),
        Some("{}")
    );
    assert!(compact(&format!("{object}\n").into()).starts_with(object.as_bytes()));
    let partial = partial_object(object.as_bytes());
    assert!(partial.ends_with(br#""resourceVersion":"7"}}"#));
    let column = PrinterColumn {
        name: "Phase".into(),
        kind: "string".into(),
        json_path: ".status.phase".into(),
        ..PrinterColumn::default()
    };
    let columns = Column::custom(vec![column]);
    let now = Timestamp::UNIX_EPOCH;
    let row = table_row(
        &columns,
        object.as_bytes(),
        &meta,
        IncludeObject::Metadata,
        now,
    );
    assert!(row.starts_with(br#"{"cells":["deep","Up"]"#), "{row:?}");
}

#[test]
fn an_object_may_be_as_deep_as_the_server_reads_any() {
    for depth in [2, 128, 140, MAX_DEPTH] {
        let object = deep(depth, |_| false);
        handle(&object);
        let items = split(&list_of(&[&object, &object]), 1 << 20, 997).unwrap();
        assert_eq!(items, [object.clone(), object.clone()]);
        assert_eq!(
            events(&event_of(&object), 1 << 20, 997).unwrap(),
            [object.as_str()]
        );
    }
}

#[test]
fn what_no_server_would_have_accepted_is_refused_and_not_followed() {
    for depth in [MAX_DEPTH + 2, 20 * MAX_DEPTH] {
        let object = deep(depth, |_| true);
        assert!(split(&list_of(&[&object]), 10 << 20, 4_096).is_err());
        assert!(events(&event_of(&object), 10 << 20, 4_096).is_err());
        // Whatever reaches these, they do not use the stack up.
        let _meta = ObjectMeta::parse(object.as_bytes());
        let _partial = partial_object(object.as_bytes());
    }
}

#[test]
fn an_object_that_etcd_takes_is_within_the_limit_however_it_is_escaped() {
    // etcd's `--max-request-bytes`, each byte one that Go's encoder writes as six.
    let escaped = r"\u003c".repeat(1_536 << 10);
    let object = format!(r#"{{"metadata":{{"name":"a"}},"data":{{"k":"{escaped}"}}}}"#);
    assert_eq!(
        split(&list_of(&[&object]), OBJECT_LIMIT, 16 << 10).unwrap(),
        [object.as_str()]
    );
    assert_eq!(
        events(&event_of(&object), OBJECT_LIMIT, 16 << 10).unwrap(),
        [object.as_str()]
    );
}

#[test]
fn the_largest_object_and_its_neighbours_fit_into_the_store() {
    // What the mirror writes beside an object: its version and its key.
    const BESIDE: usize = 8 << 10;
    const { assert!(OBJECT_LIMIT + BESIDE <= yurt_core::store::MAX_VALUE_LEN) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn objects_of_any_depth_and_build_are_handled(depth in 2..MAX_DEPTH, build: u64, step in 1..9_000usize) {
        let object = deep(depth, |level| build >> (level % 64) & 1 == 1);
        handle(&object);
        prop_assert_eq!(split(&list_of(&[&object]), 1 << 20, step).unwrap(), [object.clone()]);
        prop_assert_eq!(events(&event_of(&object), 1 << 20, step).unwrap(), [object]);
    }
}
