//! The form in which pages get a message: a template with placeholders such as `~text~`.
//!
//! The original server inserts values without escapes. Its publishers know this: those of pushstream.js percent-encode their
//! text, and others escape their text for JSON. So a text that a page can read as it is stays as it is. Only a text that would
//! break the page's parser is encoded.

use std::{borrow::Cow, io::Write};

/// A template, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
    /// Pages decode the text with `decodeURIComponent`.
    pages_decode: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Value {
        placeholder: Placeholder,
        /// The placeholder stands between quotation marks, so its value is part of a string of JSON or JavaScript.
        is_quoted: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Id,
    Channel,
    Text,
    Size,
    Time,
    Tag,
    EventId,
    EventType,
}

const PLACEHOLDERS: [(&str, Placeholder); 8] = [
    ("~id~", Placeholder::Id),
    ("~channel~", Placeholder::Channel),
    ("~text~", Placeholder::Text),
    ("~size~", Placeholder::Size),
    ("~time~", Placeholder::Time),
    ("~tag~", Placeholder::Tag),
    ("~event-id~", Placeholder::EventId),
    ("~event-type~", Placeholder::EventType),
];

/// The values of one message.
pub(crate) struct Values<'a> {
    /// Negative for what is no message of a publisher, such as a heartbeat.
    pub(crate) id: i64,
    pub(crate) channel: &'a [u8],
    pub(crate) text: &'a [u8],
    /// An HTTP date.
    pub(crate) time: &'a str,
    pub(crate) tag: u64,
    pub(crate) event_id: &'a str,
    pub(crate) event_type: &'a str,
}

impl Template {
    /// Reads a template. Any text is a template: what is no placeholder stays as it is.
    pub(crate) fn parse(template: &str, pages_decode: bool) -> Self {
        let (mut parts, mut literal, mut quotes) = (Vec::new(), String::new(), Quotes::default());
        let mut rest = template;
        while let Some(c) = rest.chars().next() {
            if let Some((placeholder, length)) = placeholder(rest) {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Value {
                    placeholder,
                    is_quoted: quotes.open.is_some(),
                });
                rest = &rest[length..];
                continue;
            }
            quotes.pass(c);
            literal.push(c);
            rest = &rest[c.len_utf8()..];
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Self {
            parts,
            pages_decode,
        }
    }

    /// Appends the template with these values.
    pub(crate) fn write(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Value {
                    placeholder,
                    is_quoted,
                } => self.write_value(*placeholder, *is_quoted, values, out),
            }
        }
    }

    fn write_value(
        &self,
        placeholder: Placeholder,
        is_quoted: bool,
        values: &Values<'_>,
        out: &mut Vec<u8>,
    ) {
        let number = |number: &dyn std::fmt::Display, out: &mut Vec<u8>| {
            let _ = write!(out, "{number}"); // writing to a Vec cannot fail
        };
        let bytes = match placeholder {
            Placeholder::Id => return number(&values.id, out),
            Placeholder::Tag => return number(&values.tag, out),
            Placeholder::Size => return number(&values.text.len(), out),
            Placeholder::Text if is_quoted => {
                return write_text(values.text, self.pages_decode, out);
            }
            Placeholder::Text => values.text,
            Placeholder::Channel => values.channel,
            Placeholder::Time => values.time.as_bytes(),
            Placeholder::EventId => values.event_id.as_bytes(),
            Placeholder::EventType => values.event_type.as_bytes(),
        };
        match is_quoted {
            true => write_escaped(&String::from_utf8_lossy(bytes), true, out),
            false => out.extend_from_slice(bytes),
        }
    }
}

/// The placeholder at the beginning of `text`, in any case, and its length.
fn placeholder(text: &str) -> Option<(Placeholder, usize)> {
    if !text.starts_with('~') {
        return None;
    }
    let begins_with = |word: &str| {
        let begin = text.get(..word.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(word))
    };
    let found = PLACEHOLDERS.iter().find(|(word, _)| begins_with(word));
    found.map(|(word, placeholder)| (*placeholder, word.len()))
}

/// Whether the end of the text so far is inside a string of JSON or JavaScript.
#[derive(Default)]
struct Quotes {
    /// The quotation mark that has begun the string.
    open: Option<char>,
    is_escaped: bool,
}

impl Quotes {
    fn pass(&mut self, c: char) {
        match self.open {
            _ if self.is_escaped => self.is_escaped = false,
            Some(_) if c == '\\' => self.is_escaped = true,
            Some(mark) if c == mark => self.open = None,
            None if c == '"' || c == '\'' => self.open = Some(c),
            _ => {}
        }
    }
}

/// Appends the text of a message as a part of a string. If the page would read the text as it is without an error, it stays as
/// it is. Otherwise the page gets exactly the text.
fn write_text(text: &[u8], pages_decode: bool, out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(text);
    if stands(&text, pages_decode) {
        return write_escaped(&text, false, out);
    }
    let text: Cow<'_, str> = match pages_decode && text.contains('%') {
        true => text.replace('%', "%25").into(),
        false => text,
    };
    write_escaped(&text, true, out);
}

/// Whether the text is the content of a string of JSON that the page can decode.
fn stands(text: &str, pages_decode: bool) -> bool {
    let is_plain = |byte: u8| byte >= b' ' && !b"\"\\%".contains(&byte);
    if text.bytes().all(is_plain) {
        return true;
    }
    let content: Result<String, _> = serde_json::from_str(&format!("\"{text}\""));
    content.is_ok_and(|content| !pages_decode || is_decodable(&content))
}

/// Whether `decodeURIComponent` of JavaScript accepts the text.
fn is_decodable(text: &str) -> bool {
    let mut escapes = text.split('%').skip(1).map(|rest| rest.as_bytes().get(..2));
    let is_whole = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    escapes.all(|escape| escape.is_some_and(is_whole))
        && percent_encoding::percent_decode_str(text)
            .decode_utf8()
            .is_ok()
}

/// Appends a text so that it can end neither the string of JSON or JavaScript in which it stands, nor an HTML script.
/// `is_exact`: the reader gets the quotation marks and backslashes of the text. Otherwise the text has its own escapes.
///
/// A brace that follows another brace is escaped, too: pushstream.js splits the answer of a long-poll at `}{`.
fn write_escaped(text: &str, is_exact: bool, out: &mut Vec<u8>) {
    let mut before = None;
    for c in text.chars() {
        let escape = match c {
            '<' | '\'' | '\u{2028}' | '\u{2029}' => true,
            '{' => before == Some('}'),
            '"' | '\\' => is_exact,
            _ => c.is_control() && c.is_ascii(),
        };
        match escape {
            true => {
                let _ = write!(out, "\\u{:04x}", u32::from(c)); // writing to a Vec cannot fail
            }
            false => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        before = Some(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "{\"id\":~id~,\"text\":\"~text~\"}";

    fn values(text: &[u8]) -> Values<'_> {
        Values {
            id: 7,
            channel: b"it's",
            text,
            time: "Thu, 20 Nov 2025 00:00:00 GMT",
            tag: 3,
            event_id: "a\"b",
            event_type: "t",
        }
    }

    fn written(template: &str, text: &[u8]) -> String {
        let mut out = Vec::new();
        Template::parse(template, true).write(&values(text), &mut out);
        String::from_utf8(out).unwrap()
    }

    /// The text that a page reads with `JSON.parse` and `decodeURIComponent`.
    fn read(text: &str) -> String {
        let json: serde_json::Value =
            serde_json::from_str(&written(JSON, text.as_bytes())).unwrap();
        let text = json["text"].as_str().unwrap();
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
        decoded.unwrap().into_owned()
    }

    #[test]
    fn placeholders_are_replaced_in_any_case() {
        let all = "~id~|~CHANNEL~|~text~|~Size~|~time~|~tag~|~event-id~|~event-type~|~x~|~";
        assert_eq!(
            written(all, b"\"hi\""),
            "7|it's|\"hi\"|4|Thu, 20 Nov 2025 00:00:00 GMT|3|a\"b|t|~x~|~"
        );
        assert_eq!(written("", b"hi"), "");
    }

    #[test]
    fn a_value_between_quotation_marks_cannot_end_the_string() {
        assert_eq!(
            written(
                "p('~channel~', \"~event-id~\", \"\\\"~event-id~\", ~event-id~)",
                b""
            ),
            "p('it\\u0027s', \"a\\u0022b\", \"\\\"a\\u0022b\", a\"b)"
        );
        assert_eq!(
            written(
                "<script>p('~text~')</script>",
                "</script>\u{2028}".as_bytes()
            ),
            "<script>p('\\u003c/script>\\u2028')</script>"
        );
    }

    #[test]
    fn a_text_that_pages_can_read_stays_as_it_is() {
        for (text, expected) in [
            ("plain text, ünïcode {} }", "plain text, ünïcode {} }"),
            ("it%27s%20100%25", "it's 100%"),
            ("h%C3%A9llo %e2%82%ac", "héllo €"),
            ("He said \\\"hi\\\"\\n", "He said \"hi\"\n"),
        ] {
            assert!(written(JSON, text.as_bytes()).contains(text), "{text}");
            assert_eq!(read(text), expected);
        }
    }

    #[test]
    fn any_other_text_arrives_exactly() {
        for text in [
            "say \"hi\"",
            "{\"a\":{\"b\":\"c\\nd\"}}",
            "100% sure",
            "100%\u{fe}",
            "%C3é",
            "%",
            "%zz \\n",
            "\\u0025zz",
            "C:\\dir",
            "line\r\nline\ttab\0",
            "say \"50%25\"",
        ] {
            assert_eq!(read(text), text);
        }
    }

    #[test]
    fn two_messages_can_be_split_where_braces_meet() {
        let texts = ["}{", "a}{{\"b\":1}{}", "\\}{"];
        for text in texts {
            let written = written(JSON, text.as_bytes());
            assert!(!written.contains("}{"), "{written}");
            assert_eq!(read(text), text);
        }
    }

    #[test]
    fn percent_signs_stay_where_pages_do_not_decode() {
        let mut out = Vec::new();
        Template::parse(JSON, false).write(&values(b"100% \"sure\""), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"id\":7,\"text\":\"100% \\u0022sure\\u0022\"}"
        );
    }

    #[test]
    fn a_text_outside_of_quotation_marks_is_inserted_as_it_is() {
        assert_eq!(written("~text~", b"\"a\"}{%\n"), "\"a\"}{%\n");
        assert_eq!(
            written("{\"text\":~text~}", b"{\"a\":1}"),
            "{\"text\":{\"a\":1}}"
        );
        let mut out = Vec::new();
        Template::parse("~text~", true).write(&values(b"\xff"), &mut out);
        assert_eq!(out, b"\xff");
    }
}
