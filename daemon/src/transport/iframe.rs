//! Forever-iframe: an HTML document that never ends, with one `<script>` call per message.

use std::{sync::Arc, time::Duration};

use comet_proto::{Cursor, Message};

use super::{
    AddHeader, End, Format, Kind, Shape, Status, gap_cursor, write_expired, write_gap, write_retry,
    write_script_safe,
};
use crate::hub::Backlog;

pub(crate) struct Iframe {
    pub(crate) callback: Callback,
    pub(crate) heartbeat: Duration,
}

/// The function of the parent page that each script calls: names joined by dots, such as `comet.show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Callback(Box<str>);

/// Why a callback was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "callback must be JavaScript names joined by dots, such as comet.show, at most {} bytes",
    Callback::MAX_LEN
)]
pub(crate) struct CallbackError;

impl Callback {
    const MAX_LEN: usize = 128;

    pub(crate) fn parse(text: &str) -> Result<Self, CallbackError> {
        let is_name = |name: &str| {
            let mut chars = name.chars();
            let start = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '$';
            chars.next().is_some_and(start) && chars.all(|c| start(c) || c.is_ascii_digit())
        };
        let valid = text.len() <= Self::MAX_LEN && text.split('.').all(is_name);
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(CallbackError)
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Iframe {
    fn call(&self, json: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(format!("<script>parent.{}(", self.callback.0).as_bytes());
        write_script_safe(json, out);
        out.extend_from_slice(b")</script>\n");
    }
}

impl Format for Iframe {
    fn kind(&self) -> Kind {
        Kind {
            shape: Shape::Stream {
                heartbeat: self.heartbeat,
            },
            postpones_gap: false,
            form: None, // each client has a callback of its own
        }
    }

    fn headers(&self, _: Cursor, _: &[Arc<Message>], add: AddHeader<'_>) {
        add("content-type", b"text/html; charset=utf-8");
    }

    /// One kilobyte of padding, because some browsers render nothing before they have received a kilobyte.
    fn opening(&self, _cursor: Cursor, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"<!DOCTYPE html>\n<meta charset=\"utf-8\">\n<title>comet</title>\n<body>\n",
        );
        out.resize(out.len() + 1024, b' ');
        out.push(b'\n');
    }

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        let mut json = Vec::new();
        if backlog.gap {
            write_gap(gap_cursor(backlog), &mut json);
            self.call(&json, out);
        }
        for message in &backlog.messages {
            json.clear();
            message.write_json(&backlog.readable, &mut json);
            self.call(&json, out);
        }
    }

    fn nothing(&self, _cursor: Cursor, out: &mut Vec<u8>) -> Status {
        out.push(b'\n');
        Status::Ok
    }

    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        let mut json = Vec::new();
        match *end {
            End::Reconnect { backlog, retry } => {
                self.news(backlog, out);
                write_retry(retry, &mut json);
                self.call(&json, out);
            }
            End::HalfClosed { backlog } => {
                self.news(backlog, out);
                return self.nothing(backlog.cursor, out);
            }
            End::Expired { cursor } => {
                write_expired(cursor, &mut json);
                self.call(&json, out);
            }
        }
        Status::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_are_names_and_nothing_else() {
        for good in ["show", "comet.show", "$.a_1", "a.b.c"] {
            assert!(Callback::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "a.",
            "1a",
            "alert(1)",
            "a b",
            "a;b",
            "a[0]",
            "é",
            "</script>",
        ] {
            assert_eq!(Callback::parse(bad), Err(CallbackError), "{bad}");
        }
        assert!(Callback::parse(&"a".repeat(129)).is_err());
    }
}
