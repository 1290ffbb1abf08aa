use std::collections::BTreeMap;

use serde_json::json;

use super::*;

/// Each piece as `document item what`; what is looked for are maps of texts.
fn pieces(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let read = read::<BTreeMap<String, String>>(text.as_bytes(), |place, piece| {
        let item = place.item.map_or("-".to_owned(), |item| item.to_string());
        let what = match piece {
            Piece::Known(known) => format!("known {}", json!(known)),
            Piece::Other(value) => format!("other {value}"),
            Piece::List(value) => format!("list {value}"),
            Piece::Syntax(why) => format!("syntax {why}"),
        };
        all.push(format!("{} {item} {what}", place.document));
    });
    all.extend(read.err().map(|error| error.to_string()));
    all
}

#[test]
fn json_lists_and_objects() {
    for (text, expected) in [
        (r#"{"a":"b"}"#, &[r#"1 - known {"a":"b"}"#][..]),
        (
            r#" {"kind":"List","items":[{"a":"}]\"{"}, {"b":{"c":[1,2]}},7],"x":{}} {"d":1}"#,
            &[
                r#"1 0 known {"a":"}]\"{"}"#,
                r#"1 1 other {"b":{"c":[1,2]}}"#,
                "1 2 other 7",
                r#"1 - list {"kind":"List","x":{}}"#,
                r#"2 - other {"d":1}"#,
            ],
        ),
        (r#"{"items":[],"a":"b"}"#, &[r#"1 - list {"a":"b"}"#]),
        (
            "{\"items\":[{},\n{\"a\" 1}]}",
            &["1 0 known {}", "1 1 syntax expected `:` at line 2", "1 - list {}"],
        ),
        (r#"{"items":[{}"#, &["1 0 known {}", "a list that does not end at line 1"]),
        (r#"{"items":[{"a"#, &["a text that does not end at line 1"]),
        ("{\n\"a\" \"b\"}", &["a key without a colon at line 2"]),
        ("{,}", &["no JSON at line 1"]),
    ] {
        assert_eq!(pieces(text), expected, "{text}");
    }
}

#[test]
fn yaml_lists_and_objects() {
    for (text, expected) in [
        ("a: b\n", &[r#"1 - known {"a":"b"}"#][..]),
        ("---\n# nothing\n---\na: {b: c}\n---\n", &[r#"1 - other {"a":{"b":"c"}}"#]),
        (
            "x: y\nitems:\n- a: b\n- a: |\n    - no item\n\n    items:\n# a word\n- b:\n  - c\n- 7\nkind: List\n---\nd: e",
            &[
                r#"1 0 known {"a":"b"}"#,
                r#"1 1 known {"a":"- no item\n\nitems:\n"}"#,
                r#"1 2 other {"b":["c"]}"#,
                "1 3 other 7",
                r#"1 - list {"items":null,"kind":"List","x":"y"}"#,
                r#"2 - known {"d":"e"}"#,
            ],
        ),
        // Texts that only look like something else are texts to kubectl, too.
        (
            "items:\n- a: '1'\n- a: 1\n- a: true\n",
            &[
                r#"1 0 known {"a":"1"}"#,
                r#"1 1 other {"a":1}"#,
                r#"1 2 other {"a":true}"#,
                r#"1 - list {"items":null}"#,
            ],
        ),
        // What is indented is a document like any other.
        ("items:\n  - a: b\n", &[r#"1 - other {"items":[{"a":"b"}]}"#]),
        ("{\"a\": \"b\"}\n---\nc: d\n", &[r#"1 - known {"a":"b"}"#, r#"2 - known {"c":"d"}"#]),
    ] {
        assert_eq!(pieces(text), expected, "{text}");
    }
    let wrong = pieces("items:\n- a: b\n- a: [\n- c: d\n");
    assert!(wrong[1].starts_with("1 1 syntax ") && wrong[1].ends_with("from line 3"), "{wrong:?}");
    assert_eq!(wrong[2], r#"1 2 known {"c":"d"}"#, "one hides no other");
    let two = pieces("a: b\n...\nc: d\n");
    assert!(two[0].starts_with("1 - syntax "), "none is left out: {two:?}");
}
