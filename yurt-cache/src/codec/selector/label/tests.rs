use proptest::prelude::*;

use super::*;

const NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn canonical(text: &str) -> String {
    LabelSelector::parse(text).map_or_else(
        |error| panic!("{text}: {error}"),
        |selector| selector.to_string(),
    )
}

#[test]
fn equal_selectors_have_equal_text() {
    let table = [
        ("", ""),
        (" \t", ""),
        ("a", "a"),
        (" b , a ", "a,b"),
        ("!a", "!a"),
        ("! in", "!in"),
        ("a=b", "a=b"),
        ("a==b", "a=b"),
        ("a in (b)", "a=b"),
        ("a in(c, b,b)", "a in (b,c)"),
        ("a in ()", "a="),
        ("a in (,b)", "a in (,b)"),
        ("a in (b,)", "a in (,b)"),
        ("a in (b,,c)", "a in (,b,c)"),
        ("a in (in, notin)", "a in (in,notin)"),
        ("a!=b", "a!=b"),
        ("a notin (b)", "a!=b"),
        ("notin in (in)", "notin=in"),
        ("in=in", "in=in"),
        ("a=", "a="),
        ("a=,b", "a=,b"),
        ("a!=", "a!="),
        ("a>01,a<5", "a>1,a<5"),
        ("b=1,a=2,b=1", "a=2,b=1"),
        ("example.com/A_b.c-d=x", "example.com/A_b.c-d=x"),
        ("a\0b", "a"),
    ];
    for (text, expected) in table {
        assert_eq!(canonical(text), expected, "{text:?}");
        assert_eq!(canonical(expected), expected);
    }
}

/// Each message was read from kube-apiserver 1.34.4.
#[test]
fn errors_are_the_servers_own() {
    let long = "a".repeat(64);
    let unable = |fault: &str| format!("unable to parse requirement: {fault}");
    let table: Vec<(String, String)> = [
        ("a b", unable("found 'b', expected: in, notin, =, ==, !=, gt, lt")),
        ("a gt 1", unable("found 'gt', expected: in, notin, =, ==, !=, gt, lt")),
        ("a)", unable("found ')', expected: in, notin, =, ==, !=, gt, lt")),
        ("a!in (b)", unable("found '!', expected: in, notin, =, ==, !=, gt, lt")),
        ("a===", unable("found '=', expected: identifier")),
        ("a=>b", unable("found '>', expected: identifier")),
        ("a=(b)", unable("found '(', expected: identifier")),
        ("!", unable("found '', expected: identifier")),
        ("!!a", unable("found '!', expected: identifier")),
        ("a in", unable("found '' expected: '('")),
        ("a notin b", unable("found 'b' expected: '('")),
        ("a in (", unable("found '', expected: ',', ')' or identifier")),
        ("a in (b", unable("found '', expected: ',' or ')'")),
        ("a in (b c)", unable("found 'c', expected: ',' or ')'")),
        ("!a=b", "found '=', expected: ',' or 'end of string'".into()),
        ("a=b c", "found 'c', expected: ',' or 'end of string'".into()),
        ("a = in (b)", "found '(', expected: ',' or 'end of string'".into()),
        (",a", "found ',', expected: !, identifier, or 'end of string'".into()),
        ("(a)", "found '(', expected: !, identifier, or 'end of string'".into()),
        ("a,", "found '', expected: identifier after ','".into()),
        ("a,,b", "found ',', expected: identifier after ','".into()),
        ("a>b", unable("values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer")),
        ("a<", unable("values[0]: Invalid value: \"\": for 'Gt', 'Lt' operators, the value must be an integer")),
        ("a>99999999999999999999", unable("values[0]: Invalid value: \"99999999999999999999\": for 'Gt', 'Lt' operators, the value must be an integer")),
        ("a > -1", unable(&format!("values[0][a]: Invalid value: \"-1\": {VALUE}"))),
        ("a in (-b)", unable(&format!("values[0][a]: Invalid value: \"-b\": {VALUE}"))),
        ("a=é", unable(&format!("values[0][a]: Invalid value: \"é\": {VALUE}"))),
        ("-a", unable(&format!("<nil>: Invalid value: \"-a\": name part {NAME}"))),
        ("a\"b", unable(&format!("<nil>: Invalid value: \"a\\\"b\": name part {NAME}"))),
        ("/a", unable("<nil>: Invalid value: \"/a\": prefix part must be non-empty")),
        ("a/", unable(&format!("<nil>: Invalid value: \"a/\": name part must be non-empty; name part {NAME}"))),
        ("A/b/c", unable(&format!("<nil>: Invalid value: \"A/b/c\": a qualified name {NAME} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"))),
        ("A/b", unable("<nil>: Invalid value: \"A/b\": prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')")),
        (long.as_str(), unable(&format!("<nil>: Invalid value: \"{long}\": name part must be no more than 63 characters"))),
    ]
    .map(|(text, message)| (text.to_owned(), message))
    .into();
    for (text, message) in table {
        assert_eq!(
            LabelSelector::parse(&text).expect_err(&text).to_string(),
            message,
            "{text}"
        );
    }
}

#[test]
fn matching_is_the_servers() {
    let labels =
        [("a", ""), ("b", "1"), ("n", "07")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let selected = [
        "",
        "a",
        "a=",
        "a in ()",
        "a in (,x)",
        "!q",
        "q!=x",
        "q notin (x)",
        "n>6",
        "n<8",
        "n=07",
        "b==1",
        "b in (0,1),a",
        "b!=2",
    ];
    let left_out = [
        "a!=",
        "a notin ()",
        "!a",
        "q",
        "q=",
        "q in (x)",
        "n>7",
        "n=7",
        "a>0",
        "q>0",
        "b<1",
        "b=1,b=2",
        "b notin (1)",
    ];
    for text in selected {
        assert!(
            LabelSelector::parse(text).unwrap().matches(&labels),
            "{text}"
        );
    }
    for text in left_out {
        assert!(
            !LabelSelector::parse(text).unwrap().matches(&labels),
            "{text}"
        );
    }
    assert!(LabelSelector::default().is_everything() && LabelSelector::default().matches(&[]));
}

proptest! {
    #[test]
    fn the_canonical_text_is_read_back(text in "[ab!=(),<>10 in]{0,24}") {
        if let Ok(selector) = LabelSelector::parse(&text) {
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = LabelSelector::parse(&text);
    }
}
