//! The lines of the Unix socket: one JSON object a line each way (`docs/protocol.md`, "Socket").
//!
//! A request borrows from its line where it can, so that reading a publish allocates only what is kept.

use std::{borrow::Cow, fmt, io::Write, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Visitor},
};

use crate::{
    ChannelName, ChannelNameError, ChannelNames, ChannelNamesError, Cursor, CursorError, EventName,
    EventNameError,
};

/// Longest idempotency key in bytes.
pub const MAX_KEY: usize = 128;

/// What a client asks for with one line.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Publish one message.
    Publish(Publish<'a>),
    /// Answer `{"ok":true}` and then each message from `since` on, for as long as the connection lasts.
    Subscribe {
        /// Where.
        channels: ChannelNames,
        /// What was seen last; `None` is from now on.
        since: Option<Cursor>,
    },
    /// Answer once with what is kept after `since`.
    History {
        /// Where.
        channels: ChannelNames,
        /// What was seen last; without one, all that is kept.
        since: Cursor,
    },
    /// Answer with the daemon's figures.
    Status,
    /// Answer `{"ok":true}`.
    Ping,
}

/// One message to publish.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Where.
    pub channel: ChannelName,
    /// Its label.
    pub name: EventName,
    /// Its content.
    pub data: Cow<'a, [u8]>,
    /// Idempotency key: the same key on the same channel gives the first id back.
    pub key: Option<Cow<'a, str>>,
}

/// Why a line was refused. The connection stays open.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Not JSON, or a field is missing, unknown or of the wrong type.
    #[error("not a request: {0}")]
    Json(#[from] serde_json::Error),
    /// No such operation.
    #[error("unknown op {0:?} (known: publish, subscribe, history, status, ping)")]
    Op(String),
    /// A field that the operation needs.
    #[error("op {op} needs the field {field:?}")]
    Missing {
        /// The operation.
        op: &'static str,
        /// What it lacks.
        field: &'static str,
    },
    /// A field that the operation has no use for.
    #[error("op {op} has no field {field:?}")]
    Unexpected {
        /// The operation.
        op: &'static str,
        /// What it was given.
        field: &'static str,
    },
    /// An invalid channel name.
    #[error("{0}")]
    Channel(#[from] ChannelNameError),
    /// An invalid list of channels.
    #[error("{0}")]
    Channels(#[from] ChannelNamesError),
    /// An invalid event name.
    #[error("{0}")]
    Name(#[from] EventNameError),
    /// An invalid cursor.
    #[error("{0}")]
    Since(#[from] CursorError),
    /// `data_base64` that is no base64.
    #[error("data_base64 is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// Both forms of the content at once.
    #[error("data and data_base64 exclude each other")]
    TwoData,
    /// An invalid key.
    #[error("{0}")]
    Key(#[from] KeyError),
}

/// Why an idempotency key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Longer than [`MAX_KEY`].
    #[error("key of {0} bytes is over the limit of {MAX_KEY}")]
    TooLong(usize),
    /// Bytes that are no text.
    #[error("key is not UTF-8")]
    NotUtf8,
}

/// An idempotency key as it arrives in bytes: any text of at most [`MAX_KEY`] bytes; an empty one is none.
///
/// # Errors
/// Says which rule the key breaks.
pub fn parse_key(key: &[u8]) -> Result<Option<&str>, KeyError> {
    if key.len() > MAX_KEY {
        return Err(KeyError::TooLong(key.len()));
    }
    let key = str::from_utf8(key).map_err(|_| KeyError::NotUtf8)?;
    Ok((!key.is_empty()).then_some(key))
}

impl LineError {
    /// The code that goes into the `error` field of the reply: the name of the field that was wrong.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Json(_) => "line",
            Self::Op(_) => "op",
            Self::Missing { field, .. } | Self::Unexpected { field, .. } => field,
            Self::Channel(_) => "channel",
            Self::Channels(_) => "channels",
            Self::Name(_) => "name",
            Self::Since(_) => "since",
            Self::Base64(_) | Self::TwoData => "data",
            Self::Key(_) => "key",
        }
    }
}

/// The line as JSON has it, before the operation says which fields it needs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    op: Text<'a>,
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    #[serde(borrow)]
    channels: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    data: Option<Text<'a>>,
    #[serde(borrow)]
    data_base64: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    since: Option<NumberOrText<'a>>,
}

impl<'a> Request<'a> {
    /// Parses one line (with or without its line end).
    ///
    /// # Errors
    /// Names the field and the rule that it breaks.
    pub fn parse(line: &'a [u8]) -> Result<Self, LineError> {
        let fields: Fields<'a> = serde_json::from_slice(line)?;
        match &*fields.op.0 {
            "publish" => fields.publish().map(Self::Publish),
            "subscribe" => {
                let (channels, since) = fields.subscription("subscribe")?;
                Ok(Self::Subscribe { channels, since })
            }
            "history" => {
                let (channels, since) = fields.subscription("history")?;
                Ok(Self::History {
                    channels,
                    since: since.unwrap_or_default(),
                })
            }
            "status" => fields.bare("status").map(|()| Self::Status),
            "ping" => fields.bare("ping").map(|()| Self::Ping),
            other => Err(LineError::Op(other.chars().take(32).collect())),
        }
    }
}

impl<'a> Fields<'a> {
    fn publish(self) -> Result<Publish<'a>, LineError> {
        let op = "publish";
        self.refuse(
            op,
            [
                ("channels", self.channels.is_some()),
                ("since", self.since.is_some()),
            ],
        )?;
        let field = "channel";
        let channel = self.channel.ok_or(LineError::Missing { op, field })?;
        let data = match (self.data, self.data_base64) {
            (Some(_), Some(_)) => return Err(LineError::TwoData),
            (None, None) => Cow::Borrowed(&[][..]),
            (Some(Text(Cow::Borrowed(text))), None) => Cow::Borrowed(text.as_bytes()),
            (Some(Text(Cow::Owned(text))), None) => Cow::Owned(text.into_bytes()),
            (None, Some(text)) => Cow::Owned(STANDARD.decode(text.0.as_bytes())?),
        };
        let key = self.key.map(|key| key.0).filter(|key| !key.is_empty());
        if let Some(key) = &key {
            parse_key(key.as_bytes())?;
        }
        Ok(Publish {
            channel: ChannelName::parse(&channel.0)?,
            name: EventName::parse(self.name.as_ref().map_or("", |name| &name.0))?,
            data,
            key,
        })
    }

    fn subscription(self, op: &'static str) -> Result<(ChannelNames, Option<Cursor>), LineError> {
        self.refuse(
            op,
            [
                ("channel", self.channel.is_some()),
                ("data", self.data.is_some() || self.data_base64.is_some()),
                ("name", self.name.is_some()),
                ("key", self.key.is_some()),
            ],
        )?;
        let field = "channels";
        let names = self.channels.ok_or(LineError::Missing { op, field })?;
        let channels = ChannelNames::parse(names.iter().map(|name| &*name.0))?;
        let since = match self.since {
            None => None,
            Some(NumberOrText::Number(id)) => Some(Cursor(id)),
            Some(NumberOrText::Text(text)) => Some(Cursor::parse(&text)?),
        };
        Ok((channels, since))
    }

    fn bare(self, op: &'static str) -> Result<(), LineError> {
        self.refuse(
            op,
            [
                ("channel", self.channel.is_some()),
                ("channels", self.channels.is_some()),
                ("data", self.data.is_some() || self.data_base64.is_some()),
                ("name", self.name.is_some()),
                ("key", self.key.is_some()),
                ("since", self.since.is_some()),
            ],
        )
    }

    fn refuse<const N: usize>(
        &self,
        op: &'static str,
        present: [(&'static str, bool); N],
    ) -> Result<(), LineError> {
        match present.into_iter().find(|(_, present)| *present) {
            Some((field, _)) => Err(LineError::Unexpected { op, field }),
            None => Ok(()),
        }
    }
}

/// Text that borrows from the line unless JSON escapes force a copy (serde copies an `Option<Cow<str>>` always).
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

enum NumberOrText<'a> {
    Number(u64),
    Text(Cow<'a, str>),
}

impl<'de: 'a, 'a> Deserialize<'de> for NumberOrText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SinceVisitor;
        impl<'de> Visitor<'de> for SinceVisitor {
            type Value = NumberOrText<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message id, 0, or an RFC 3339 time")
            }
            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Self::Value, E> {
                Ok(NumberOrText::Number(id))
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(NumberOrText::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(NumberOrText::Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_any(SinceVisitor)
    }
}

/// Appends a publish request as a line, with its line end.
pub fn write_publish(publish: &Publish<'_>, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Fields<'a> {
        op: &'static str,
        channel: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        data_base64: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<&'a str>,
    }
    let text = str::from_utf8(&publish.data).ok();
    let fields = Fields {
        op: "publish",
        channel: &publish.channel,
        name: publish.name.as_str(),
        data: text,
        data_base64: text.is_none().then(|| STANDARD.encode(&publish.data)),
        key: publish.key.as_deref(),
    };
    serde_json::to_writer(&mut *out, &fields).expect("text has a JSON form and a Vec takes it");
    out.push(b'\n');
}

/// The reply to a publish, as a client reads it.
#[derive(Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Published under this id.
    Id(u64),
    /// Refused.
    Refused {
        /// The field or limit that was broken.
        code: String,
        /// What was wrong, for people.
        message: String,
    },
}

impl Receipt {
    /// Parses the daemon's reply to a publish.
    ///
    /// # Errors
    /// When the line is none.
    pub fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Fields {
            ok: bool,
            #[serde(default)]
            id: u64,
            #[serde(default)]
            error: String,
            #[serde(default)]
            message: String,
        }
        let fields: Fields = serde_json::from_slice(line)?;
        Ok(if fields.ok {
            Self::Id(fields.id)
        } else {
            Self::Refused {
                code: fields.error,
                message: fields.message,
            }
        })
    }
}

/// Appends `{"ok":true,"id":…}` as a line.
pub fn write_receipt(id: u64, out: &mut Vec<u8>) {
    writeln!(out, r#"{{"ok":true,"id":{id}}}"#).expect("a Vec takes it");
}

/// Appends `{"ok":true}` as a line.
pub fn write_ok(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"ok\":true}\n");
}

/// Appends `{"gap":true,"cursor":"…"}` as a line: messages up to the cursor may be missing, what follows is
/// complete.
pub fn write_gap(cursor: Cursor, out: &mut Vec<u8>) {
    writeln!(out, r#"{{"gap":true,"cursor":"{cursor}"}}"#).expect("a Vec takes it");
}

/// Appends `{"retry":…}` as a line: the daemon stops, and the subscriber should come back after so many milliseconds.
pub fn write_retry(retry: Duration, out: &mut Vec<u8>) {
    writeln!(out, r#"{{"retry":{}}}"#, retry.as_millis()).expect("a Vec takes it");
}

/// Appends the reply to a history up to its messages; they follow as JSON with commas in between, and then
/// [`write_history_end`].
pub fn write_history_start(cursor: Cursor, gap: bool, out: &mut Vec<u8>) {
    write!(
        out,
        r#"{{"ok":true,"cursor":"{cursor}","gap":{gap},"messages":["#
    )
    .expect("a Vec takes it");
}

/// Ends what [`write_history_start`] began.
pub fn write_history_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"]}\n");
}

/// Appends the reply to a status as a line: `"ok":true` and the fields of `status`, which must be a structure.
pub fn write_status(status: &impl Serialize, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Fields<'a, S> {
        ok: bool,
        #[serde(flatten)]
        status: &'a S,
    }
    let fields = Fields { ok: true, status };
    serde_json::to_writer(&mut *out, &fields).expect("a structure's fields have a JSON form");
    out.push(b'\n');
}

/// Appends `{"ok":false,"error":"code","message":"…"}` as a line.
pub fn write_error(code: &str, message: &str, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Fields<'a> {
        ok: bool,
        error: &'a str,
        message: &'a str,
    }
    let fields = Fields {
        ok: false,
        error: code,
        message,
    };
    serde_json::to_writer(&mut *out, &fields).expect("text has a JSON form and a Vec takes it");
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_publish_borrows_its_data() {
        let line = br#"{"op":"publish","channel":"news","data":"hi","name":"n","key":"k"}"#;
        let Request::Publish(publish) = Request::parse(line).unwrap() else {
            panic!("a publish")
        };
        assert!(matches!(publish.data, Cow::Borrowed(b"hi")));
        assert_eq!(
            (publish.name.as_str(), publish.key.as_deref()),
            ("n", Some("k"))
        );
    }

    #[test]
    fn what_a_client_writes_is_what_the_daemon_reads() {
        for data in [&b"hi \"there\"\n"[..], b"\xff\x00", b""] {
            let publish = Publish {
                channel: ChannelName::parse("news").unwrap(),
                name: EventName::default(),
                data: data.into(),
                key: Some("k1".into()),
            };
            let mut line = Vec::new();
            write_publish(&publish, &mut line);
            assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            assert_eq!(Request::parse(&line).unwrap(), Request::Publish(publish));
        }
    }

    #[test]
    fn subscriptions_take_numbers_and_times() {
        let line = br#"{"op":"subscribe","channels":["a","b"],"since":"1970-01-01T00:00:01Z"}"#;
        let Request::Subscribe { channels, since } = Request::parse(line).unwrap() else {
            panic!("a subscribe")
        };
        assert_eq!((channels.len(), since), (2, Some(Cursor(1_000_000))));
        assert!(matches!(
            Request::parse(br#"{"op":"history","channels":["a"],"since":7}"#),
            Ok(Request::History {
                since: Cursor(7),
                ..
            })
        ));
    }

    #[test]
    fn refusals_name_the_field() {
        let cases = [
            (
                r#"{"op":"publish"}"#,
                "channel",
                "op publish needs the field \"channel\"",
            ),
            (
                r#"{"op":"publish","channel":"a/b"}"#,
                "channel",
                "channel name may not contain '/'",
            ),
            (
                r#"{"op":"publish","channel":"a","data":1}"#,
                "line",
                "invalid type: integer `1`",
            ),
            (
                r#"{"op":"publish","chanel":"a"}"#,
                "line",
                "unknown field `chanel`",
            ),
            (
                r#"{"op":"publish","channel":"a","data_base64":"?"}"#,
                "data",
                "not base64",
            ),
            (
                r#"{"op":"publish","channel":"a","data":"","data_base64":""}"#,
                "data",
                "exclude",
            ),
            (
                r#"{"op":"publish","channel":"a","name":"\n"}"#,
                "name",
                "may not contain '\\n'",
            ),
            (r#"{"op":"subscribe"}"#, "channels", "needs the field"),
            (
                r#"{"op":"subscribe","channels":[]}"#,
                "channels",
                "at least one",
            ),
            (
                r#"{"op":"subscribe","channels":["a"],"since":-1}"#,
                "line",
                "invalid type",
            ),
            (
                r#"{"op":"subscribe","channels":["a"],"since":"x"}"#,
                "since",
                "RFC 3339",
            ),
            (
                r#"{"op":"ping","channel":"a"}"#,
                "channel",
                "op ping has no field \"channel\"",
            ),
            (r#"{"op":"dance"}"#, "op", "unknown op \"dance\""),
            ("hello", "line", "not a request"),
            ("", "line", "not a request"),
        ];
        for (line, code, text) in cases {
            let error = Request::parse(line.as_bytes()).expect_err(line);
            assert_eq!(error.code(), code, "{line}");
            assert!(error.to_string().contains(text), "{line}: {error}");
        }
    }

    #[test]
    fn a_client_reads_what_the_daemon_replies() {
        let mut out = Vec::new();
        write_receipt(7, &mut out);
        assert_eq!(Receipt::parse(&out).unwrap(), Receipt::Id(7));
        out.clear();
        write_error("channel", "a \"b\"", &mut out);
        let refused = Receipt::Refused {
            code: "channel".into(),
            message: "a \"b\"".into(),
        };
        assert_eq!(Receipt::parse(&out).unwrap(), refused);
    }
}
