use proptest::prelude::*;

use super::*;

type Events = Result<Vec<(EventType, String)>, WatchError>;

fn read(chunks: &[&[u8]], limit: usize) -> Events {
    let mut lines = EventLines::new(limit);
    let mut events = Vec::new();
    for chunk in chunks {
        lines.push::<WatchError>(chunk, &mut |kind, object| {
            events.push((
                kind,
                String::from_utf8(object.to_vec()).expect("objects are UTF-8"),
            ));
            Ok(())
        })?;
    }
    lines.finish()?;
    Ok(events)
}

fn read_whole(text: &str) -> Events {
    read(&[text.as_bytes()], 1000)
}

const STREAM: &str = r#"{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"]}\"{"},"n":1.10}}
{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"9"}}}
  {"object" : {"a":"é"} , "more":[], "type": "DELETED"}{"ty\u0070e":"ERROR","object":{}}
"#;

#[test]
fn events_are_read_in_any_layout() {
    let events = read_whole(STREAM).unwrap();
    let expected = [
        (
            EventType::Added,
            r#"{"kind":"Pod","metadata":{"name":"]}\"{"},"n":1.10}"#,
        ),
        (
            EventType::Bookmark,
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"9"}}"#,
        ),
        (EventType::Deleted, r#"{"a":"é"}"#),
        (EventType::Error, "{}"),
    ];
    assert_eq!(
        events,
        expected.map(|(kind, object)| (kind, object.to_owned()))
    );
    assert_eq!(read(&[b" \n ", b""], 10).unwrap(), []);
}

#[test]
fn hostile_streams_are_refused() {
    let deep = format!(r#"{{"type":"ADDED","object":{}"#, "[".repeat(100_000));
    let mismatched = r#"{"type":"ADDED","object":{"a":[}}}"#;
    let table: &[&[u8]] = &[
        b"x",
        b"[]",
        b"{}",
        br#"{"type":"ADDED"}"#,
        br#"{"object":{}}"#,
        br#"{"type":"added","object":{}}"#,
        br#"{"type":"PATCHED","object":{}}"#,
        br#"{"type":1,"object":{}}"#,
        br#"{"type":"ADDED","object":null}"#,
        br#"{"type":"ADDED","object":[]}"#,
        br#"{"type":"ADDED","object":{},"object":{}}"#,
        br#"{"type":"ADDED","object":{}},"#,
        br#"{"type":"ADDED","object":{}"#,
        br#"{"type":"ADDED","object":{"a":"}"#,
        b"{\"type\":\"ADDED\",\"object\":{\"a\":\"\xff\"}}",
        b"{\"type\":\"ADDED\",\"object\":{},\"x\":\"\xff\"}",
        mismatched.as_bytes(),
        deep.as_bytes(),
    ];
    for stream in table {
        let text = String::from_utf8_lossy(&stream[..stream.len().min(80)]);
        assert!(read(&[stream], 1_000_000).is_err(), "{text}");
        assert!(
            read(&stream.chunks(1).collect::<Vec<_>>(), 1_000_000).is_err(),
            "{text}"
        );
    }
}

#[test]
fn a_cut_within_an_event_is_told_from_one_between_events() {
    for cut in 0..STREAM.len() {
        let is_between = read(&[&STREAM.as_bytes()[..cut]], 1000).is_ok();
        let before = STREAM[..].as_bytes()[..cut].trim_ascii_end();
        let ends_an_event = [
            STREAM.find("}\n{").unwrap() + 1,
            STREAM.find("}\n ").unwrap() + 1,
            STREAM.find("}{").unwrap() + 1,
        ]
        .contains(&before.len());
        assert_eq!(
            is_between,
            before.is_empty() || ends_an_event || before.len() == STREAM.trim_ascii_end().len(),
            "{cut}"
        );
    }
}

#[test]
fn an_event_without_end_is_bounded() {
    let mut lines = EventLines::new(100);
    let ignore = &mut |_, _: &[u8]| Ok::<_, WatchError>(());
    lines
        .push(br#"{"type":"ADDED","object":{"a":""#, ignore)
        .unwrap();
    let error = (0..100).find_map(|_| lines.push(b"xxxxxxxxxx", ignore).err());
    assert!(matches!(error, Some(WatchError::TooLarge { limit: 100 })));
    assert!(lines.push(b" ", ignore).is_err());
}

#[test]
fn a_framed_event_is_read_back() {
    let mut stream = BytesMut::new();
    let object = bookmark("v1", "ConfigMap", 225, true);
    frame(EventType::Bookmark, &object, &mut stream);
    // As kube-apiserver 1.34.4 writes it.
    let server = r#"{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"225","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
    assert_eq!(stream, format!("{server}\n").as_bytes());
    let text = String::from_utf8(object.to_vec()).unwrap();
    assert_eq!(
        read(&[&stream], 1000).unwrap(),
        [(EventType::Bookmark, text)]
    );
}

#[test]
fn only_a_marked_bookmark_ends_the_initial_events() {
    assert!(is_initial_events_end(&bookmark("v1", "Pod", 1, true)));
    assert!(!is_initial_events_end(&bookmark("v1", "Pod", 1, false)));
    for object in [
        "",
        "{}",
        r#"{"metadata":{"annotations":{"k8s.io/initial-events-end":"false"}}}"#,
    ] {
        assert!(!is_initial_events_end(object.as_bytes()), "{object}");
    }
}

proptest! {
    #[test]
    fn every_chunking_gives_the_same_events(cuts in prop::collection::vec(0..STREAM.len(), 0..12)) {
        let mut cuts = cuts;
        cuts.extend([0, STREAM.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &STREAM.as_bytes()[pair[0]..pair[1]]).collect();
        prop_assert_eq!(read(&chunks, 1000).unwrap(), read_whole(STREAM).unwrap());
    }

    #[test]
    fn no_bytes_panic(text in prop::collection::vec(prop::sample::select(&b"{}[]\",:\\ \n\xff1"[..]), 0..60)) {
        let stream = [br#"{"type":"ADDED","object":"#, text.as_slice()].concat();
        let whole = read(&[&stream], 70);
        prop_assert_eq!(whole.is_ok(), read(&stream.chunks(1).collect::<Vec<_>>(), 70).is_ok());
    }
}
