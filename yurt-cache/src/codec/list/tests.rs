use proptest::prelude::*;

use super::*;

/// Beyond the deepest object, so that its depth decides.
const LIMIT: usize = 100_000;

type Split = Result<(ListHead, Vec<String>), ListError>;

fn split(chunks: &[&[u8]], limit: usize) -> Split {
    let mut splitter = ListSplitter::new(limit);
    let mut items = Vec::new();
    for chunk in chunks {
        splitter.push::<ListError>(chunk, &mut |item| {
            items.push(String::from_utf8(item.to_vec()).expect("items are UTF-8"));
            Ok(())
        })?;
    }
    Ok((splitter.finish()?, items))
}

fn split_whole(text: &str) -> Split {
    split(&[text.as_bytes()], LIMIT)
}

fn byte_by_byte(text: &[u8]) -> Split {
    split(&text.chunks(1).collect::<Vec<_>>(), LIMIT)
}

const BUILT_IN: &str = r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"105","continue":"abc","remainingItemCount":3},"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"]}\"{"},"items":[{"items":[]}]}]}
"#;
const CUSTOM: &str = r#"{"apiVersion":"farm.io/v1","items":[{"apiVersion":"farm.io/v1","kind":"Ox","n":1.10}],"kind":"OxList","metadata":{"continue":"","resourceVersion":"237"}}"#;

#[test]
fn a_built_in_list_is_split_byte_for_byte() {
    let (head, items) = split_whole(BUILT_IN).unwrap();
    assert_eq!(
        (head.api_version.as_str(), head.kind.as_str()),
        ("v1", "PodList")
    );
    assert_eq!(
        (head.resource_version, head.continue_token.as_deref()),
        (105, Some("abc"))
    );
    assert_eq!(
        items,
        [
            r#"{"metadata":{"name":"a"}}"#,
            r#"{"metadata":{"name":"]}\"{"},"items":[{"items":[]}]}"#
        ]
    );
}

#[test]
fn items_may_come_before_metadata() {
    let (head, items) = split_whole(CUSTOM).unwrap();
    assert_eq!(
        (
            head.kind.as_str(),
            head.resource_version,
            head.continue_token
        ),
        ("OxList", 237, None)
    );
    assert_eq!(
        items,
        [r#"{"apiVersion":"farm.io/v1","kind":"Ox","n":1.10}"#]
    );
}

#[test]
fn lists_of_every_shape_are_understood() {
    let table: &[(&str, usize)] = &[
        (r#"{"items":[]}"#, 0),
        (r#"{"items":null,"metadata":null}"#, 0),
        (
            r#" { "items" : [ { } , {"a":[]} ] , "metadata" : { "x" : {"items":[{}]} } } "#,
            2,
        ),
        (r#"{"it\u0065ms":[{}]}"#, 1),
        (
            r#"{"x":"items","y":["items",[{"items":[1]}]],"items":[{}]}"#,
            1,
        ),
        (
            r#"{"metadata":{"items":[{}],"resourceVersion":"x"},"items":[{}]}"#,
            1,
        ),
    ];
    for (text, count) in table {
        let (head, items) = split_whole(text).unwrap();
        assert_eq!((items.len(), head.resource_version), (*count, 0), "{text}");
        assert_eq!(
            byte_by_byte(text.as_bytes()).unwrap(),
            (head, items),
            "{text}"
        );
    }
}

#[test]
fn hostile_bodies_are_refused() {
    let deep = format!(r#"{{"items":[{}"#, r#"{"a":"#.repeat(MAX_DEPTH + 1));
    let deep_head = format!(r#"{{"a":{}"#, "[".repeat(MAX_DEPTH + 1));
    let table: &[&str] = &[
        "",
        " ",
        "[]",
        "null",
        "{}",
        r#"{"kind":"PodList"}"#,
        r#"{"items":{}}"#,
        r#"{"items":"x"}"#,
        r#"{"items":[1]}"#,
        r#"{"items":[null]}"#,
        r#"{"items":[{},]}"#,
        r#"{"items":[,{}]}"#,
        r#"{"items":[{}{}]}"#,
        r#"{"items":[{}]"#,
        r#"{"items":[{}]]"#,
        r#"{"items":[{}],"items":[{}]}"#,
        r#"{"items":[{}],"it\u0065ms":null}"#,
        r#"{"items" [{}]}"#,
        r#"{"items":1[{}]}"#,
        r#"{"items":[{}]} x"#,
        r#"{"items":[{}]}{}"#,
        r#"{"items":[],}"#,
        r#"{"items":[],"metadata":"x"}"#,
        r#"{"items":[],"metadata":{"resourceVersion":1e400}}"#,
        r#"{"items":[{"a":"#,
        r#"{"items":[{"a":"\"#,
        &deep,
        &deep_head,
    ];
    for text in table {
        assert!(split_whole(text).is_err(), "{text}");
        assert!(byte_by_byte(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn invalid_utf8_is_refused_in_items_and_around_them() {
    for text in [
        &b"{\"items\":[{\"a\":\"\xff\"}]}"[..],
        b"{\"x\":\"\xff\",\"items\":[]}",
    ] {
        assert!(matches!(split(&[text], 1000), Err(ListError::Malformed(_))));
        assert!(matches!(byte_by_byte(text), Err(ListError::Malformed(_))));
    }
}

#[test]
fn one_item_and_the_head_are_bounded_and_the_list_is_not() {
    let item = format!(r#"{{"a":"{}"}}"#, "x".repeat(42));
    let many = format!(r#"{{"items":[{}]}}"#, vec![item.as_str(); 1000].join(" , "));
    assert_eq!(split(&[many.as_bytes()], 50).unwrap().1.len(), 1000);
    assert_eq!(
        split(&many.as_bytes().chunks(7).collect::<Vec<_>>(), 50)
            .unwrap()
            .1
            .len(),
        1000
    );
    assert!(matches!(
        split(&[many.as_bytes()], 49),
        Err(ListError::TooLarge { limit: 49 })
    ));
    let head = format!(r#"{{"x":"{}","items":[]}}"#, "x".repeat(100));
    assert!(matches!(
        split(&[head.as_bytes()], 50),
        Err(ListError::TooLarge { limit: 50 })
    ));
}

#[test]
fn after_an_error_nothing_is_accepted() {
    let mut splitter = ListSplitter::new(100);
    let refuse = &mut |_: &[u8]| Err(ListError::Truncated);
    assert!(splitter.push(b"{\"items\":[{}]}", refuse).is_err());
    assert!(
        splitter
            .push(b" ", &mut |_| Ok::<_, ListError>(()))
            .is_err()
    );
    assert!(matches!(splitter.finish(), Err(ListError::Malformed(_))));
}

proptest! {
    #[test]
    fn every_chunking_gives_the_same_list(cuts in prop::collection::vec(0..BUILT_IN.len(), 0..12), custom: bool) {
        let text = if custom { CUSTOM } else { BUILT_IN };
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
        prop_assert_eq!(split(&chunks, 1000).unwrap(), split_whole(text).unwrap());
    }

    #[test]
    fn no_bytes_panic(text in prop::collection::vec(prop::sample::select(&b"{}[]\",:\\ itemsu0065\xff\n1"[..]), 0..80)) {
        let body = [b"{\"items\":[", text.as_slice()].concat();
        prop_assert_eq!(split(&[&body], 60).is_ok(), split(&body.chunks(1).collect::<Vec<_>>(), 60).is_ok());
        prop_assert_eq!(split(&[&text], 60).is_ok(), split(&text.chunks(3).collect::<Vec<_>>(), 60).is_ok());
    }
}
