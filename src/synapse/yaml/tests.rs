//! Our reader against `PyYAML`'s own word: `tests/fixtures/yaml_cases.json`, written by the script beside it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::{Kind, Value, parse};

fn encode(value: &Value) -> Json {
    match &value.kind {
        Kind::Null => json!(["null"]),
        Kind::Bool(_) => json!(["bool", value.python_str()]),
        Kind::Int(_) => json!(["int", value.python_str()]),
        Kind::Float(_) => json!(["float", value.python_str()]),
        Kind::Text(text) => json!(["text", text]),
        Kind::Binary(bytes) => json!(["binary", hex::encode(bytes)]),
        Kind::Date(_) => json!(["date", value.python_str()]),
        Kind::List(items) => json!(["list", items.iter().map(encode).collect::<Vec<_>>()]),
        Kind::Map(map) => json!([
            "map",
            map.iter()
                .map(|(key, value)| json!([encode(key), encode(value)]))
                .collect::<Vec<_>>()
        ]),
    }
}

/// Where the parser of events is kinder than `PyYAML`: Synapse does not start with these, so nothing depends on them.
const KINDER: &[&str] = &["[::1]", "[:]", "[:x]", "a: \u{2028}x\n", "a: [x?y, z]\n", "a: [::1, b]\n"];

/// Oddities of `PyYAML` 6 that we do not follow: no separation before a comment, `-`, `?` and `&x:` at odd places, the
/// line breaks of 1.1, a map that merges itself. Most are refused here, none can be met by accident.
const STRANGER: &[&str] = &[
    "v: 'a'#b",
    "[-]",
    "[?]",
    "[?x]",
    "&x: v",
    "a: 'x\u{85}y'\n",
    "&a {<<: *a}\n",
    "a: [-, b]\n",
];

#[test]
fn every_text_means_what_pyyaml_says() {
    let cases: Vec<Json> = serde_json::from_str(include_str!("../../../tests/fixtures/yaml_cases.json")).unwrap();
    assert!(cases.len() > 500);
    let mut wrong = String::new();
    for case in cases {
        let text = case["yaml"].as_str().unwrap();
        let ours = parse(text.as_bytes()).map_or(Json::Null, |value| encode(&value));
        let known = STRANGER.contains(&text) || (KINDER.contains(&text) && case["value"].is_null());
        if (ours != case["value"]) != known {
            writeln!(wrong, "{text:?}: we say {ours}, PyYAML says {}", case["value"]).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn an_alias_bomb_is_refused_before_it_takes_memory() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        writeln!(text, "a{level}: &a{level} [{}]", vec![alias; 10].join(", ")).unwrap();
    }
    assert!(parse(text.as_bytes()).unwrap_err().message.contains("aliases"));
    let mut text = format!("a0: &a0 {{k: {}}}\n", "x".repeat(100_000));
    for level in 1..40 {
        writeln!(text, "a{level}: &a{level} {{<<: [*a{0}, *a{0}]}}", level - 1).unwrap();
    }
    assert!(parse(text.as_bytes()).unwrap_err().message.contains("aliases"));
}

#[test]
fn deep_nesting_is_refused_and_not_a_stack_overflow() {
    for text in [
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "{a: ".repeat(100_000),
        "&a [*a]".into(),
        "? ".repeat(100_000),
    ] {
        parse(text.as_bytes()).unwrap_err();
    }
}

#[test]
fn an_error_names_the_place_and_never_the_text() {
    let cases = [
        ("a: 1\npassword: !hunter2\n", "2:11"),
        ("a: 1\n  password:\thunter2\n", "2"),
        ("password: 2024-13-01\n", "1:11"),
        ("a:\n  - [hunter2\n", "2:5"),
        ("ok: 1\nbad: \u{7}hunter2\n", "2:6"),
        ("a: 1\n---\nhunter2: 1\n", "2:1"),
        ("password: *hunter2\n", "1:11"),
    ];
    for (text, place) in cases {
        let error = parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(place), "{text:?}: {error}");
        assert!(!error.contains("hunter2"), "{text:?}: {error}");
    }
    assert_eq!(parse(b"a: 1\nb: \xff\n").unwrap_err().to_string(), "2:4: the file is not UTF-8");
}

#[test]
fn neither_values_nor_maps_show_their_text_when_debugged() {
    let value = parse(b"password: hunter2\n").unwrap();
    let map = value.as_map().unwrap();
    for shown in [
        format!("{value:?}"),
        format!("{map:?}"),
        format!("{:?}", map.get("password").unwrap()),
        format!("{:?}", value.kind),
    ] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn a_value_knows_where_it_stands() {
    let value = parse("a: 1\nbc:\n  - é: x\n".as_bytes()).unwrap();
    let list = value.as_map().unwrap().get("bc").unwrap().as_list().unwrap();
    assert_eq!(list[0].as_map().unwrap().get("é").unwrap().at.to_string(), "3:8");
}
