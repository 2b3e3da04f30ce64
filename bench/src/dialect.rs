//! The requests and responses of each server: a poll, and a publish over HTTP.
//!
//! A response gives messages and a cursor. The next poll sends this cursor, so that no message is lost between two
//! polls.

use std::io::Write;

use serde::Deserialize;

use crate::{answer::Answer, kind::Kind};

/// Headers that a browser sends beside the request line and `Host`. Only their size matters here.
const HEADERS: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: application/json, text/plain;q=0.9, */*;q=0.8\r\nAccept-Language: en-GB,en;q=0.8,de;q=0.5,fr;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://www.example.org/dashboard/orders/open\r\n\
    Cookie: session=0f8fad5bd9cb469fa16570867728950e; theme=dark; consent=necessary\r\nDNT: 1\r\n\
    Connection: keep-alive\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\n\
    Priority: u=4\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n";

/// The position of the last message that a client saw, in the server's own format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// The id of a message. Ids only grow.
    Id(u64),
    /// HTTP validators: the `Last-Modified` date and the `ETag`.
    Validators(String, String),
    /// The text that the PHP script returned.
    Text(String),
}

/// The content of a response to a poll.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Cursor for the next poll. `None`: the server has no cursors, and messages between two polls are lost.
    pub(crate) cursor: Option<Cursor>,
    /// The messages. Empty: nothing was published before the server's time-out.
    pub(crate) messages: Vec<PolledMessage>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PolledMessage {
    /// The channel, if the server names it.
    pub(crate) channel: Option<String>,
    /// The id, if the server gives one.
    pub(crate) id: Option<u64>,
    pub(crate) data: String,
}

/// Writes the request of a poll.
pub(crate) fn poll(
    kind: Kind,
    host: impl std::fmt::Display,
    channel: &str,
    cursor: Option<&Cursor>,
    request: &mut Vec<u8>,
) {
    let path = match kind {
        Kind::Comet | Kind::Floor => format!("/ch/{channel}?wait=60"),
        Kind::Nchan => format!("/sub/{channel}"),
        Kind::Pushpin => format!("/poll/{channel}"),
        Kind::Php => format!("/poll.php?channel={channel}"),
    };
    let (since, validators) = match cursor {
        None => (String::new(), String::new()),
        Some(Cursor::Id(id)) => (format!("&since={id}"), String::new()),
        Some(Cursor::Text(text)) => (format!("&since={text}"), String::new()),
        Some(Cursor::Validators(modified, tag)) => (
            String::new(),
            format!("If-Modified-Since: {modified}\r\nIf-None-Match: {tag}\r\n"),
        ),
    };
    text(
        request,
        format_args!("GET {path}{since} HTTP/1.1\r\nHost: {host}\r\n{HEADERS}{validators}\r\n"),
    );
}

/// Writes the request of a publish.
pub(crate) fn post(
    kind: Kind,
    host: impl std::fmt::Display,
    channel: &str,
    data: &str,
    request: &mut Vec<u8>,
) {
    let (path, body) = match kind {
        Kind::Nchan => (format!("/pub/{channel}"), data.to_owned()),
        Kind::Pushpin => ("/publish/".to_owned(), pushpin_items(channel, data)),
        Kind::Comet | Kind::Floor | Kind::Php => (format!("/ch/{channel}"), data.to_owned()),
    };
    text(
        request,
        format_args!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
}

fn text(request: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = request.write_fmt(text);
}

/// The JSON that Pushpin's publish needs, for long-polls and for streams. The bench's messages need no escapes in JSON.
fn pushpin_items(channel: &str, data: &str) -> String {
    format!(
        "{{\"items\":[{{\"channel\":\"{channel}\",\"formats\":{{\
         \"http-response\":{{\"body\":\"{data}\"}},\
         \"http-stream\":{{\"content\":\"data: {data}\\n\\n\"}}}}}}]}}"
    )
}

/// Reads the id from Comet's reply to a publish.
pub(crate) fn published(body: &[u8]) -> Option<u64> {
    let digits = body
        .trim_ascii()
        .strip_prefix(b"{\"id\":")?
        .strip_suffix(b"}")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Reads the content of a response to a poll. The error text says what is wrong with the response.
pub(crate) fn received(kind: Kind, answer: &Answer<'_>) -> Result<Received, String> {
    let said = || {
        format!(
            "{} {}",
            answer.status,
            String::from_utf8_lossy(answer.body).trim_end()
        )
    };
    let read = match (answer.status, kind) {
        (200, Kind::Comet | Kind::Floor) => comet(answer.body),
        (200, Kind::Nchan) => nchan(answer),
        (200, Kind::Pushpin) => pushpin(answer.body),
        (200, Kind::Php) => php(answer.body),
        // These statuses mean that nothing was published before the time-out.
        (304 | 408, Kind::Nchan) | (204, Kind::Pushpin) => Some(Received {
            cursor: None,
            messages: Vec::new(),
        }),
        _ => None,
    };
    read.ok_or_else(said)
}

fn comet(body: &[u8]) -> Option<Received> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body<'a> {
        cursor: &'a str,
        gap: bool,
        messages: Vec<Item>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        channel: String,
        id: u64,
        #[expect(dead_code, reason = "an answer without it would not be one")]
        name: String,
        data: String,
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    if body.gap {
        return None;
    }
    let message = |item: Item| PolledMessage {
        channel: Some(item.channel),
        id: Some(item.id),
        data: item.data,
    };
    Some(Received {
        cursor: Some(Cursor::Id(body.cursor.parse().ok()?)),
        messages: body.messages.into_iter().map(message).collect(),
    })
}

fn nchan(answer: &Answer<'_>) -> Option<Received> {
    let modified = answer.field("last-modified")?.to_owned();
    let tag = answer.field("etag")?.to_owned();
    Some(Received {
        cursor: Some(Cursor::Validators(modified, tag)),
        messages: vec![plain(answer.body)?],
    })
}

fn pushpin(body: &[u8]) -> Option<Received> {
    Some(Received {
        cursor: None,
        messages: vec![plain(body)?],
    })
}

fn php(body: &[u8]) -> Option<Received> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        cursor: String,
        /// Absent or null: nothing was published.
        data: Option<String>,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let message = |data| PolledMessage {
        channel: None,
        id: None,
        data,
    };
    Some(Received {
        cursor: Some(Cursor::Text(body.cursor)),
        messages: body.data.map(message).into_iter().collect(),
    })
}

fn plain(body: &[u8]) -> Option<PolledMessage> {
    Some(PolledMessage {
        channel: None,
        id: None,
        data: str::from_utf8(body).ok()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(head: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        format!("HTTP/1.1 {head}Content-Length: {length}\r\n\r\n{body}").into_bytes()
    }

    fn check(kind: Kind, bytes: &[u8]) -> Result<Received, String> {
        received(kind, &Answer::read(bytes).unwrap().unwrap())
    }

    fn request(kind: Kind, cursor: &Cursor) -> String {
        let mut request = Vec::new();
        poll(kind, "host", "news", Some(cursor), &mut request);
        String::from_utf8(request).unwrap()
    }

    #[test]
    fn an_answers_cursor_is_in_the_next_poll() {
        let body = r#"{"cursor":"9","gap":false,"messages":[{"channel":"news","id":9,"name":"","data":"hi"}]}"#;
        let comet = check(Kind::Comet, &answer("200 OK\r\n", body)).unwrap();
        assert_eq!(comet.messages[0].id, Some(9));
        let next = request(Kind::Comet, &comet.cursor.unwrap());
        assert!(next.starts_with("GET /ch/news?wait=60&since=9 HTTP/1.1\r\n"));

        let head = "200 OK\r\nLast-Modified: Mon\r\nEtag: 3\r\n";
        let nchan = check(Kind::Nchan, &answer(head, "hi")).unwrap();
        assert_eq!(nchan.messages, [plain(b"hi").unwrap()]);
        let next = request(Kind::Nchan, &nchan.cursor.unwrap());
        assert!(next.contains("\r\nIf-Modified-Since: Mon\r\nIf-None-Match: 3\r\n"));

        let php = check(
            Kind::Php,
            &answer("200 OK\r\n", r#"{"cursor":"5","data":"hi"}"#),
        );
        let next = request(Kind::Php, &php.unwrap().cursor.unwrap());
        assert!(next.starts_with("GET /poll.php?channel=news&since=5 HTTP/1.1\r\n"));
    }

    #[test]
    fn a_wait_that_is_over_is_no_message_and_no_error() {
        for (kind, bytes) in [
            (
                Kind::Comet,
                answer("200 OK\r\n", r#"{"cursor":"9","gap":false,"messages":[]}"#),
            ),
            (Kind::Nchan, answer("408 Request Timeout\r\n", "")),
            (
                Kind::Php,
                answer("200 OK\r\n", r#"{"cursor":"5","data":null}"#),
            ),
        ] {
            assert_eq!(check(kind, &bytes).unwrap().messages, []);
        }
    }

    #[test]
    fn refusals_and_gaps_are_errors() {
        let gap = r#"{"cursor":"9","gap":true,"messages":[]}"#;
        check(Kind::Comet, &answer("200 OK\r\n", gap)).unwrap_err();
        let refused = check(Kind::Pushpin, &answer("502 Bad Gateway\r\n", "no")).unwrap_err();
        assert_eq!(refused, "502 no");
    }

    #[test]
    fn a_publish_says_how_long_it_is() {
        for kind in [Kind::Comet, Kind::Nchan, Kind::Pushpin] {
            let mut request = Vec::new();
            post(kind, "host", "news", "hi", &mut request);
            let request = String::from_utf8(request).unwrap();
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
            assert!(body.contains("hi"));
        }
        assert_eq!(
            published(b"{\"id\":1763690000123456}\n"),
            Some(1_763_690_000_123_456)
        );
        assert_eq!(published(b"{\"error\":\"forbidden\"}"), None);
    }
}
