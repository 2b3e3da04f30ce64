//! Cursors: ids, times, and the headers that carry them.

use comet_proto::{Cursor, CursorError, Since};
use httparse::Header;
use hyper::{Method, header::HeaderValue};

use super::http::{entity_tag, last_event_id};
use crate::{compat::http_push, http::request::Request};

const MICROS: u64 = 1_000_000;
const DAY: u64 = 86_400;

/// The first second of the year 10000, which RFC 3339 cannot write.
const END_OF_TIME: u64 = 253_402_300_800;

pub(super) fn check(bytes: &[u8]) {
    if let Some(first) = bytes.first_chunk() {
        check_id(u64::from_le_bytes(*first));
    }
    if let Ok(text) = str::from_utf8(bytes) {
        check_text(text);
    }
    check_headers(bytes);
    check_http_push(bytes);
}

/// The cursor of nchan and push stream: a pair is written again as it was read, and proxies may quote or weaken its tag.
fn check_http_push(bytes: &[u8]) {
    let Some(cursor) = str::from_utf8(bytes).ok().and_then(http_push::parse_pair) else {
        return;
    };
    assert_eq!(
        http_push::parse_pair(&http_push::pair(cursor)),
        Some(cursor)
    );
    if cursor.0 >= END_OF_TIME * MICROS {
        return;
    }
    let (date, tag) = (http_push::date(cursor), http_push::tag(cursor));
    for tag in [
        tag.to_string(),
        format!("\"{tag}\""),
        format!("W/\"{tag}-gzip\""),
    ] {
        let line = |name, value| Header { name, value };
        let lines = [
            line("If-Modified-Since", date.as_bytes()),
            line("If-None-Match", tag.as_bytes()),
        ];
        let seen = http_push::Seen::in_headers(&Request::new(Method::GET, "/", &lines));
        assert_eq!(seen, http_push::Seen::Message(cursor));
    }
}

/// Every id is parsed from its decimal digits, and from the time that it stands for.
fn check_id(id: u64) {
    assert_eq!(Since::parse(&id.to_string()), Ok(Since::Id(Cursor(id))));
    let time = id % (END_OF_TIME * MICROS);
    assert_eq!(Since::parse(&rfc3339(time)), Ok(Since::Time(time)));
    // A plus sign in a URL's query is decoded as a space.
    for plus in ["+", " "] {
        let shifted = rfc3339(time).replace('Z', &format!("{plus}01:00"));
        let earlier = time.checked_sub(3600 * MICROS).map(Since::Time);
        let earlier = earlier.ok_or(CursorError::BeforeEpoch);
        assert_eq!(Since::parse(&shifted), earlier);
    }
}

fn check_text(text: &str) {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match (Since::parse(text), is_number) {
        (Ok(Since::Id(id)), true) => {
            assert_eq!(text.trim_start_matches('0').parse().unwrap_or(0), id.0)
        }
        (Err(error), true) => {
            assert_eq!(error, CursorError::TooLarge);
            assert!(text.trim_start_matches('0').len() >= u64::MAX.to_string().len());
        }
        (Ok(Since::Time(time)), false) => {
            assert!(time < END_OF_TIME * MICROS, "{time}");
            check_id(time);
        }
        (Err(error), false) => assert_ne!(error, CursorError::TooLarge),
        (Ok(since), _) => panic!("{text:?} is read as {since:?}"),
    }
}

fn check_headers(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let cursor = value.to_str().ok().and_then(|text| Since::parse(text).ok());
    let seen = |value: &[u8]| with("last-event-id", value, last_event_id);
    let tag = |value: &[u8]| with("if-none-match", value, entity_tag);

    if bytes.is_empty() {
        assert_eq!(seen(bytes), Ok(None));
        return;
    }
    assert_eq!(seen(bytes).ok().flatten(), cursor);
    let _ = tag(bytes); // must not panic
    if let Some(Since::Id(Cursor(id))) = cursor {
        for text in [
            format!("\"{id}\""),
            format!("W/\"{id}\""),
            format!("\"{id}-gzip\""),
        ] {
            assert_eq!(tag(text.as_bytes()), cursor);
        }
    }
}

/// Reads from a request with one header.
fn with<T>(name: &str, value: &[u8], read: impl Fn(&Request<'_>) -> T) -> T {
    read(&Request::new(Method::GET, "/", &[Header { name, value }]))
}

/// The time of an id by RFC 3339, section 5.6, in UTC with six decimals.
fn rfc3339(id: u64) -> String {
    let (seconds, micros) = (id / MICROS, id % MICROS);
    let (mut days, second) = (seconds / DAY, seconds % DAY);
    let mut year = 1970;
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    // Whole cycles of 400 years first: each has the same number of days.
    year += days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second, day) = (second / 3600, second / 60 % 60, second % 60, days + 1);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}
