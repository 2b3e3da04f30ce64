//! The data of blocks. A block's data stands as it is in the reply to a client, so the data must be one JSON value.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::de::IgnoredAny;

/// The deepest nesting of arrays and objects, as in PHP's `json_encode`. Deeper values can exhaust the stack of a browser.
const MAX_DEPTH: usize = 512;

/// Why a text is not accepted as the data of a block.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("it is empty")]
    Empty,
    #[error("it is not UTF-8")]
    Encoding,
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("{0}")]
    Syntax(#[from] serde_json::Error),
}

/// Checks that the bytes are one JSON value. Returns its text without white space around.
pub(crate) fn check(bytes: &[u8]) -> Result<&str, JsonError> {
    let text = str::from_utf8(bytes).map_err(|_| JsonError::Encoding)?;
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(JsonError::Empty);
    }
    let _: IgnoredAny = serde_json::from_str(text)?;
    match depth(text) <= MAX_DEPTH {
        true => Ok(text),
        false => Err(JsonError::TooDeep),
    }
}

/// The deepest nesting of a valid JSON value.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut is_text, mut is_escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_text = !is_text,
            _ if is_text => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Appends the data of any message as a JSON value. Data that is JSON stays as it is. Other text becomes a string, and other
/// bytes become a string in base64.
pub(crate) fn write(data: &[u8], out: &mut Vec<u8>) {
    let string = |text: &str| serde_json::to_string(text).expect("a string has a JSON form");
    match (check(data), str::from_utf8(data)) {
        (Ok(json), _) => write_lines(json, out),
        (Err(_), Ok(text)) => write_lines(&string(text), out),
        (Err(_), Err(_)) => out.extend_from_slice(string(&STANDARD.encode(data)).as_bytes()),
    }
}

/// Appends JSON without U+2028 and U+2029, which end a line in older JavaScript. JSON has them in strings only.
fn write_lines(json: &str, out: &mut Vec<u8>) {
    let mut rest = json;
    while let Some(at) = rest.find(['\u{2028}', '\u{2029}']) {
        let escape = match rest[at..].starts_with('\u{2028}') {
            true => "\\u2028",
            false => "\\u2029",
        };
        out.extend_from_slice(&rest.as_bytes()[..at]);
        out.extend_from_slice(escape.as_bytes());
        rest = &rest[at + '\u{2028}'.len_utf8()..];
    }
    out.extend_from_slice(rest.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_json_value_is_accepted() {
        for (bytes, text) in [
            ("\"hello\"", "\"hello\""),
            (" {\"x\":\n[1]}\r\n", "{\"x\":\n[1]}"),
            ("null", "null"),
            ("\"[[\\\"[[\"", "\"[[\\\"[[\""),
        ] {
            assert_eq!(check(bytes.as_bytes()).unwrap(), text);
        }
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(check(nested(512).as_bytes()).is_ok());
        assert!(matches!(
            check(nested(513).as_bytes()),
            Err(JsonError::TooDeep)
        ));
        assert!(matches!(
            check(nested(100_000).as_bytes()),
            Err(JsonError::TooDeep)
        ));
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [
            &b""[..],
            b" \r\n",
            b"hello",
            b"1 2",
            b"[1,]",
            b"{a:1}",
            b"\"\xff\"",
            b"\"a\nb\"",
        ] {
            assert!(check(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn data_of_other_sources_becomes_a_string() {
        let written = |data: &[u8]| {
            let mut out = Vec::new();
            write(data, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(b"{\"a\": 1}"), "{\"a\": 1}");
        assert_eq!(written(b""), "\"\"");
        assert_eq!(written(b"it's \"so\"\n"), r#""it's \"so\"\n""#);
        assert_eq!(written(b"\xff\x00"), "\"/wA=\"");
        assert_eq!(
            written("\"a\u{2028}b\u{2029}\"".as_bytes()),
            r#""a\u2028b\u2029""#
        );
    }
}
