//! push stream: the channels of a URL, and the templates. A page reads every message, whatever the publisher has sent.

use serde_json::Value;

use super::render::assert_inert;
use crate::compat::{
    names,
    push_stream::{
        path::{self, PathError},
        template::{Template, Values},
    },
};

/// The input is a template, a path and a text, each on a line of its own; the text may have several lines.
pub(super) fn check(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (template, path, text) = (next(), next(), next());
    check_path(path);
    check_page(text);
    check_template(&String::from_utf8_lossy(template));
}

/// Accepted channels are written as a path again, which means the same.
fn check_path(path: &[u8]) {
    let _ = path::statistics(path);
    let channels = match path::channels(path) {
        Ok(channels) => channels,
        Err(PathError::Pattern) => return assert!(path.contains(&b'*') || contains(path, b"ALL")),
        Err(PathError::NoChannel) => {
            return assert!(path.len() < 4 || path.contains(&b'/') || contains(path, b".b"));
        }
        Err(PathError::TooMany) => return assert!(path.len() > 200),
    };
    assert!((1..=100).contains(&channels.len()));
    let mut again = Vec::new();
    for requested in &channels {
        let same = channels
            .iter()
            .filter(|known| known.channel == requested.channel);
        assert_eq!(same.count(), 1);
        if names::is_hashed(&requested.channel) {
            return;
        }
        again.extend_from_slice(&names::foreign_of(&requested.channel));
        again.extend_from_slice(format!(".b{}/", requested.backtrack).as_bytes());
    }
    assert_eq!(path::channels(&again).as_ref(), Ok(&channels));
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn values<'a>(text: &'a [u8], word: &'a str) -> Values<'a> {
    Values {
        id: -1,
        channel: text,
        text,
        time: "now",
        tag: 7,
        event_id: word,
        event_type: word,
    }
}

/// Two messages follow each other, as in the answer of a long-poll. pushstream.js splits them, and gets the text: exactly, or
/// as the publisher has encoded it.
fn check_page(text: &[u8]) {
    let template = r#"{"channel":"~channel~","text":"~text~","eventid":"~event-id~"}"#;
    let text_sent = String::from_utf8_lossy(text);
    let mut out = Vec::new();
    for _ in 0..2 {
        Template::parse(template, true).write(&values(text, &text_sent), &mut out);
    }
    assert_inert(&out);
    let out = String::from_utf8(out).expect("UTF-8");
    let messages: Vec<&str> = out.split("}{").collect();
    assert_eq!(messages.len(), 2);
    let json: Value = serde_json::from_str(&format!("{}}}", messages[0])).expect("JSON");
    assert_eq!(json["channel"], *text_sent);
    assert_eq!(json["eventid"], *text_sent);
    let got =
        decoded(json["text"].as_str().expect("a text")).expect("the page can decode the text");
    let unescaped = serde_json::from_str::<String>(&format!("\"{text_sent}\"")).ok();
    match unescaped.as_deref().and_then(decoded) {
        Some(encoded) => assert_eq!(got, encoded),
        None => assert_eq!(got, text_sent),
    }
}

/// `decodeURIComponent` of JavaScript.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = str::from_utf8(rest.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// Placeholders are replaced, and everything else stays as it is. The values need no escapes.
fn check_template(template: &str) {
    let mut out = Vec::new();
    Template::parse(template, true).write(&values(b"text", "word"), &mut out);
    let mut expected = String::new();
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        let known = [
            ("~id~", "-1"),
            ("~channel~", "text"),
            ("~text~", "text"),
            ("~size~", "4"),
            ("~time~", "now"),
            ("~tag~", "7"),
            ("~event-id~", "word"),
            ("~event-type~", "word"),
        ];
        let lower = rest.to_ascii_lowercase();
        let found = known
            .iter()
            .find(|(placeholder, _)| lower.starts_with(placeholder));
        let (written, length) = match found {
            Some((placeholder, value)) => ((*value).to_owned(), placeholder.len()),
            None => (c.to_string(), c.len_utf8()),
        };
        expected += &written;
        rest = &rest[length..];
    }
    assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
}
