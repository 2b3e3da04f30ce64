//! What the HTTP push protocols of nchan and of nginx push stream have in common: a cursor in the headers of caches.
//!
//! The cursor is a pair: a second, and a tag that tells the messages of this second apart. `Last-Modified` and `Etag` of an
//! answer are the pair of its message, and the client sends them back as `If-Modified-Since` and `If-None-Match`. Here the pair
//! is the message's id, which is a number of microseconds: its whole seconds, and the microseconds within the second. So a
//! pair always means the same message, and two messages never have the same pair, also when the clock is set back
//! and after a restart (ADR 19). Clients must not interpret the tag, which the other servers count from 0.

use std::time::{Duration, UNIX_EPOCH};

use comet_proto::{Cursor, Message, Since};
use httpdate::HttpDate;

use crate::{api::entity_tag, http::request::Request};

/// The attribute with the media type of a message's data.
pub(crate) const CONTENT_TYPE: &str = "content-type";

const MICROS: u64 = 1_000_000;

/// The last second that a date can have in HTTP: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// The last message that a client has received, as far as its request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Nothing,
    /// The cursor before this second. The request has no tag: a proxy may have removed the header.
    Second(Cursor),
    Message(Cursor),
}

impl Seen {
    /// Reads `If-Modified-Since` and `If-None-Match`. A date that is malformed counts as none. With a tag that is malformed, the
    /// client gets all messages of the second again.
    pub(crate) fn in_headers(request: &Request<'_>) -> Self {
        let date = request.texts("if-modified-since").next();
        Self::of(date, request.texts("if-none-match").next())
    }

    /// Reads the two values, wherever the request has them.
    pub(crate) fn of(date: Option<&str>, tag: Option<&str>) -> Self {
        let time = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok());
        let Some(second) = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) else {
            return Self::Nothing;
        };
        let second = second.as_secs().saturating_mul(MICROS);
        let before = Cursor(second.saturating_sub(1));
        match tag.map(tag_in) {
            None => Self::Second(before),
            Some(None) => Self::Message(before),
            Some(Some(tag)) => Self::Message(Cursor(second.saturating_add(tag))),
        }
    }
}

/// Reads a cursor as `SECONDS:TAG`, as clients of nchan send it. `None`: the text is malformed.
pub(crate) fn parse_pair(text: &str) -> Option<Cursor> {
    let text = percent_encoding::percent_decode_str(text.trim());
    let text = text.decode_utf8().ok()?;
    let (second, tag) = text.split_once(':')?;
    let is_number = second.bytes().all(|byte| byte.is_ascii_digit());
    let second: u64 = second.parse().ok().filter(|_| is_number)?;
    let id = second.checked_mul(MICROS)?.checked_add(tag_in(tag)?)?;
    Some(Cursor(id))
}

/// The tag in a header or a pair. It may be weak, quoted, and marked by proxies. nchan's tags of several channels are a list such
/// as `[5],3,-`, whose tag in brackets is the last message's. If no tag is in brackets, the lowest tag counts, so that no message
/// is lost.
fn tag_in(text: &str) -> Option<u64> {
    let number = |tag: &str| match entity_tag::of_tag(tag.trim())? {
        Since::Id(Cursor(tag)) => (tag < MICROS).then_some(tag),
        Since::Time(_) => None,
    };
    if let Some((_, rest)) = text.split_once('[') {
        let (marked, _) = rest.split_once(']')?;
        return number(marked);
    }
    text.split(',').filter_map(number).min()
}

/// The cursor's second as a date of HTTP (RFC 9110, section 5.6.7).
pub(crate) fn date(cursor: Cursor) -> String {
    let second = (cursor.0 / MICROS).min(LAST_SECOND);
    HttpDate::from(UNIX_EPOCH + Duration::from_secs(second)).to_string()
}

/// The cursor's tag.
pub(crate) fn tag(cursor: Cursor) -> u64 {
    cursor.0 % MICROS
}

/// The cursor as `SECONDS:TAG`.
pub(crate) fn pair(cursor: Cursor) -> String {
    format!("{}:{}", cursor.0 / MICROS, tag(cursor))
}

/// An attribute of the message.
pub(crate) fn attribute<'a>(message: &'a Message, key: &str) -> Option<&'a str> {
    let mut pairs = message.attributes.as_deref()?.iter();
    pairs.find_map(|(known, value)| (known == key).then_some(value))
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::Arc};

    use comet_proto::ChannelName;
    use httparse::Header;
    use hyper::Method;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        hub::{HistoryConfig, Hub, Limits, LogSettings, NewMessage},
        store::{Durability, OnError, fake::FakeDisk},
    };

    const DATE: &str = "Sun, 20 Sep 2026 13:50:45 GMT";
    const SECOND: u64 = 1_789_912_245;

    /// What a request with these headers says. An empty text stands for no header.
    fn seen(date: &str, tag: &str) -> Seen {
        let headers = [("If-Modified-Since", date), ("IF-NONE-MATCH", tag)];
        let headers = headers.into_iter().filter(|(_, value)| !value.is_empty());
        let lines: Vec<_> = headers
            .map(|(name, value)| Header {
                name,
                value: value.as_bytes(),
            })
            .collect();
        Seen::in_headers(&Request::new(Method::GET, "/", &lines))
    }

    #[test]
    fn a_tag_is_read_whatever_proxies_made_of_it() {
        let message = Seen::Message(Cursor(SECOND * MICROS + 183_701));
        for tag in [
            "183701",
            "\"183701\"",
            "W/183701",
            "W/\"183701\"",
            "w/\"183701-gzip\"",
            " \"183701;gzip\" ",
            "[183701],-",
            "\"-,[183701],900000\"",
            "183701,900000",
            "-,183701",
        ] {
            assert_eq!(seen(DATE, tag), message, "{tag}");
        }
    }

    #[test]
    fn a_malformed_tag_repeats_the_second_and_a_malformed_date_is_none() {
        let before = Cursor(SECOND * MICROS - 1);
        for tag in ["null", "x", "-", "\"\"", "1000000", "[", "[x]", "[1", "*"] {
            assert_eq!(seen(DATE, tag), Seen::Message(before), "{tag}");
        }
        assert_eq!(seen(DATE, ""), Seen::Second(before));
        for date in [
            "",
            "null",
            "0",
            "yesterday",
            "Sun, 20 Sep 1926 13:50:45 GMT",
        ] {
            assert_eq!(seen(date, "0"), Seen::Nothing, "{date}");
        }
        let old = "Thu, 01 Jan 1970 00:00:00 GMT";
        assert_eq!(seen(old, "x"), Seen::Message(Cursor(0)));
    }

    #[test]
    fn pairs_are_read_also_with_escapes() {
        let cursor = Some(Cursor(SECOND * MICROS + 7));
        for text in [
            "1789912245:7",
            "1789912245%3A7",
            "1789912245:%5B7%5D,-",
            "1789912245:[7],-",
            " 1789912245:\"7\"",
        ] {
            assert_eq!(parse_pair(text), cursor, "{text}");
        }
        for text in [
            "",
            ":",
            "7",
            "garbage",
            "x:1",
            "1:",
            "1:x",
            "+1:2",
            "1:1000000",
            "18446744073709551615:0",
            "%FF:1",
        ] {
            assert_eq!(parse_pair(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_cursor_comes_back_from_what_is_written(id in 0..=LAST_SECOND * MICROS) {
            let cursor = Cursor(id);
            prop_assert_eq!(seen(&date(cursor), &tag(cursor).to_string()), Seen::Message(cursor));
            prop_assert_eq!(parse_pair(&pair(cursor)), Some(cursor));
        }

        #[test]
        fn nothing_from_outside_panics(text in ".*", id in any::<u64>()) {
            let _ = (seen(&text, &text), parse_pair(&text), date(Cursor(id)), pair(Cursor(id)));
        }

        /// Steps: publish after this many microseconds (negative: the clock is set back), poll, or restart.
        #[test]
        fn polls_get_every_message_once_in_order(
            steps in prop::collection::vec(
                prop_oneof![
                    4 => (-2_000_000_i64..2_000_000).prop_map(Some),
                    4 => Just(Some(0)),
                    3 => Just(None),
                ],
                0..60,
            ),
            restarts in prop::collection::vec(0..60_usize, 0..3),
        ) {
            thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });
            NOW.set(SECOND * MICROS);
            let (disk, name) = (FakeDisk::default(), ChannelName::parse("a").unwrap());
            let open = || {
                let settings = LogSettings {
                    durability: Durability::Process,
                    on_error: OnError::Refuse,
                    rewrite_bytes: 1 << 40,
                    boot: 1,
                };
                let forever = Duration::from_secs(1 << 20);
                let limits = Limits { messages: 1000, age: forever, ..Limits::default() };
                let config = HistoryConfig { default: limits, ..HistoryConfig::default() };
                let disk = Arc::new(disk.clone());
                Hub::open_with_clock(config, 1, disk, &settings, || NOW.get()).unwrap().0
            };
            let mut hub = open();
            let (mut published, mut received) = (0_u32, 0_u32);
            let mut headers = (String::new(), String::new());
            let mut poll = |hub: &Hub, received: &mut u32| {
                let since = match seen(&headers.0, &headers.1) {
                    Seen::Nothing => Cursor(0),
                    Seen::Second(cursor) | Seen::Message(cursor) => cursor,
                };
                let backlog = hub.since(std::slice::from_ref(&name), since);
                let Some(message) = backlog.messages.first() else { return false };
                assert_eq!(message.data[..], received.to_le_bytes());
                let cursor = Cursor(message.id);
                headers = (date(cursor), tag(cursor).to_string());
                *received += 1;
                true
            };
            for (at, step) in steps.into_iter().enumerate() {
                if restarts.contains(&at) {
                    let last = hub.last().0;
                    prop_assert!(published == 0 || hub.try_kept(last).unwrap().is_ok());
                    hub = open();
                }
                match step {
                    None => { poll(&hub, &mut received); }
                    Some(step) => {
                        NOW.set(NOW.get().saturating_add_signed(step));
                        hub.publish(NewMessage {
                            channels: name.clone().into(),
                            name: Default::default(),
                            data: published.to_le_bytes().into(),
                            attributes: None,
                            key: None,
                        });
                        published += 1;
                    }
                }
            }
            while poll(&hub, &mut received) {}
            prop_assert_eq!(received, published);
        }
    }
}
