use proptest::prelude::*;

use super::*;

#[test]
fn equal_selectors_have_equal_text() {
    let table = [
        ("", ""),
        (",", ""),
        ("=", ""),
        ("!=", ""),
        ("a=b", "a=b"),
        ("a==b", "a=b"),
        ("a!=b", "a!=b"),
        ("b=1,a=2,,b=1,", "a=2,b=1"),
        ("a=", "a="),
        ("=a", "=a"),
        ("a= b", "a= b"),
        (r"a=\,\=\\", r"a=\,\=\\"),
        ("a!b=c", "a!b=c"),
    ];
    for (text, expected) in table {
        let selector = FieldSelector::parse(text).expect(text);
        assert_eq!(selector.to_string(), expected, "{text}");
        assert_eq!(selector.is_everything(), expected.is_empty());
        assert_eq!(FieldSelector::parse(expected), Ok(selector));
    }
}

/// Each message was read from kube-apiserver 1.34.4.
#[test]
fn errors_are_the_servers_own() {
    let table = [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        (
            "metadata.name!a",
            "invalid selector: 'metadata.name!a'; can't understand 'metadata.name!a'",
        ),
        (
            "metadata.name=a,b",
            "invalid selector: 'metadata.name=a,b'; can't understand 'b'",
        ),
        (
            "a=b=c",
            "invalid field selector: unescaped character in value: 61",
        ),
        (
            r"a=a\b",
            r"invalid field selector: invalid escape sequence: \b",
        ),
        (
            r"a=a\",
            r"invalid field selector: invalid escape sequence: \",
        ),
    ];
    for (text, message) in table {
        assert_eq!(
            FieldSelector::parse(text).expect_err(text).to_string(),
            message
        );
    }
}

#[test]
fn values_are_compared_as_text_and_an_unknown_field_is_empty() {
    let value = |field: &str| (field == "a").then_some(Cow::Borrowed("b,c"));
    for (text, is_selected) in [
        ("", true),
        (r"a=b\,c", true),
        ("a=b", false),
        ("a!=b", true),
        (r"a!=b\,c", false),
        ("x=", true),
        ("x!=", false),
        (r"a=b\,c,x=1", false),
    ] {
        assert_eq!(
            FieldSelector::parse(text).expect(text).matches(&value),
            is_selected,
            "{text}"
        );
    }
}

#[test]
fn an_exact_value_is_one_that_must_be_equal() {
    let selector = FieldSelector::parse("metadata.name=a,spec.nodeName!=b").expect("a selector");
    assert_eq!(selector.exact("metadata.name"), Some("a"));
    assert_eq!(selector.exact("spec.nodeName"), None);
    assert_eq!(selector.terms().count(), 2);
}

proptest! {
    #[test]
    fn the_canonical_text_is_read_back(text in r"[ab!=,\\]{0,24}") {
        if let Ok(selector) = FieldSelector::parse(&text) {
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector));
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = FieldSelector::parse(&text);
    }
}
