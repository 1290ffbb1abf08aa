//! Kubernetes objects in texts, read as kubectl and the kubelet read them and print them.

pub(crate) mod large;

use granit_parser::{Event, Parser, ScalarStyle};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::Error;

/// The text of a file: UTF-8, or UTF-16 with its mark, as PowerShell's `>` writes it.
///
/// # Errors
/// Where it is neither: what it is, and on which line.
pub fn decode(bytes: Vec<u8>) -> Result<String, String> {
    let wide = |pair: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes[2..].as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|unit| pair(*unit)).collect();
        let text = String::from_utf16(&units).ok().filter(|_| rest.is_empty());
        text.ok_or_else(|| "it begins like UTF-16 and is not: save it as UTF-8".to_owned())
    };
    match bytes[..] {
        [0xff, 0xfe, ..] => return wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => return wide(u16::from_be_bytes),
        _ => {}
    }
    String::from_utf8(bytes).map(unmarked).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("line {line} is not UTF-8: save it as UTF-8")
    })
}

/// Whether a text begins as UTF-16 does.
pub fn is_wide(bytes: &[u8]) -> bool {
    matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..])
}

/// The bytes without the mark that some editors put before UTF-8.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

/// Without the mark that some editors put before UTF-8.
fn unmarked(text: String) -> String {
    match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}

/// The documents of a YAML text.
///
/// # Errors
/// Where it is no YAML.
pub fn yaml(text: &str) -> Result<Vec<Value>, Error> {
    yaml_as(text, false)
}

/// The same as another type. `strict` takes for texts only what can be nothing else, as kubectl does.
fn yaml_as<T: DeserializeOwned>(text: &str, strict: bool) -> Result<Vec<T>, Error> {
    let options = || {
        let mut options = options();
        options.no_schema = strict;
        options
    };
    match serde_saphyr::from_multiple_with_options(text, options()) {
        Err(Error::NonFiniteFloat { .. }) => {
            serde_saphyr::from_multiple_with_options(&with_quotes(text), options())
        }
        read => read,
    }
}

/// The first document of a YAML text, which is all that a kubelet reads of a manifest.
///
/// # Errors
/// Where it is no YAML, or holds nothing.
pub fn first(text: &str) -> Result<Value, String> {
    let documents = yaml(text).map_err(|error| format!("it is no YAML: {error}"))?;
    documents.into_iter().next().ok_or_else(|| "it is empty".to_owned())
}

/// Puts quotes around what looks like a number and is out of the range of all numbers, such as a
/// commit that happens to be `12e5678`. To kubectl's YAML library that is a text, so it prints it
/// without quotes.
fn with_quotes(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    let mut done = 0;
    for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
        let Event::Scalar(value, ScalarStyle::Plain, ..) = event else { continue };
        let digits = value.ends_with(|last: char| last.is_ascii_digit());
        let out_of_range = digits && value.parse().is_ok_and(f64::is_infinite);
        if let Some(at) = span.byte_range().filter(|at| out_of_range && at.start >= done) {
            out.push_str(&text[done..at.start]);
            out.push_str(&format!("\"{value}\""));
            done = at.end;
        }
    }
    out.push_str(&text[done..]);
    out
}

/// The library's limits are for configuration files; a dump of thousands of nodes is larger. What
/// a small file can blow up to (aliases, depth) stays limited.
fn options() -> serde_saphyr::Options {
    // The macro gives an option already.
    let budget = serde_saphyr::budget! {
        max_reader_input_bytes: None,
        max_events: usize::MAX,
        max_nodes: usize::MAX,
        max_documents: usize::MAX,
        max_total_scalar_bytes: usize::MAX,
        max_total_comment_bytes: usize::MAX,
    };
    serde_saphyr::options! {
        budget: budget,
        with_snippet: false,
        // Otherwise a node named n is one named false.
        strict_booleans: true,
        // What kubectl leaves unquoted because YAML 1.1 does not take it for a number is a text.
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_that_look_like_numbers() {
        for (text, expected) in [
            ("a: 12e5678", json!("12e5678")),
            ("a: [-1e400, 1.5e999 , 'x']", json!(["-1e400", "1.5e999", "x"])),
            ("a: {b: 123e456, c: 1e3}", json!({"b": "123e456", "c": 1000.0})),
            ("a: 'ä' \nb: 9e999", json!("ä")),
            ("a: nan", json!("nan")),
            ("a: inf", json!("inf")),
            ("a: 0x1p4", json!("0x1p4")),
            ("a: 1.2.3", json!("1.2.3")),
            ("a: 0123", json!("0123")),
            ("a: 1_000", json!("1_000")),
            ("a: n", json!("n")),
        ] {
            assert_eq!(first(text).unwrap()["a"], expected, "{text}");
        }
        assert!(first("a: .inf").is_err(), "kubectl refuses it, too");
    }

    #[test]
    fn encodings() {
        let wide = |mark: u16, unit: fn(u16) -> [u8; 2], text: &str| {
            std::iter::once(mark).chain(text.encode_utf16()).flat_map(unit).collect::<Vec<u8>>()
        };
        for bytes in [
            "ä: 1".as_bytes().to_vec(),
            "\u{feff}ä: 1".as_bytes().to_vec(),
            wide(0xfeff, u16::to_le_bytes, "ä: 1"),
            wide(0xfeff, u16::to_be_bytes, "ä: 1"),
        ] {
            assert_eq!(decode(bytes).as_deref(), Ok("ä: 1"));
        }
        assert_eq!(
            decode(b"a: 1\nb: \xe4\n".to_vec()),
            Err("line 2 is not UTF-8: save it as UTF-8".to_owned())
        );
        assert!(decode(b"\xff\xfea".to_vec()).is_err());
    }
}
