//! The lines of the Unix socket: each request and reply is one JSON object on one line (`docs/protocol.md`, "Socket").
//!
//! A request borrows from its line where it can, so that parsing a publish allocates only memory that the hub keeps.

mod code;
mod fields;
mod reference;
mod reply;

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

pub use self::code::ErrorCode;
use self::fields::Fields;
pub use self::reference::Reference;
pub use self::reply::{
    PublishReply, write_cursor, write_error, write_gap, write_history_end, write_history_start,
    write_members, write_ok, write_receipt, write_retry, write_status,
};

use crate::{
    Attributes, AttributesError, ChannelName, ChannelNameError, ChannelNames, ChannelNamesError,
    Cursor, CursorError, EventName, EventNameError, Since,
};

/// Longest idempotency key in bytes.
pub const MAX_KEY: usize = 128;

/// Longest reference in bytes.
pub const MAX_REFERENCE: usize = 64;

/// The request in one line.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Publish one message.
    Publish(Publish<'a>),
    /// Answer `{"ok":true}` and then each message after `since`, until the connection ends. Adds the channels to the channels to
    /// which the connection has already subscribed.
    Subscribe {
        /// The channels.
        channels: ChannelNames,
        /// The last id that the client has received. `None`: from now on.
        since: Option<Since>,
        /// Also deliver the presence messages of the channels. In a session the client also becomes a member of them.
        presence: Option<PresenceRequest<'a>>,
    },
    /// Answer `{"ok":true}`, and deliver no more messages of these channels.
    Unsubscribe {
        /// The channels.
        channels: ChannelNames,
    },
    /// Answer once with the messages that are kept after `since`.
    History {
        /// The channels.
        channels: ChannelNames,
        /// The last id that the client has received. `None`: all messages that are kept.
        since: Since,
    },
    /// Answer with the members of a channel.
    Presence {
        /// The channel.
        channel: ChannelName,
        /// The id behind which the members are listed. `None`: from the first member on.
        after: Option<Cow<'a, str>>,
    },
    /// Answer with the id of the newest message of all channels.
    Cursor,
    /// Answer with the daemon's figures.
    Status,
    /// Answer `{"ok":true}`.
    Ping,
    /// Replace the token. Only a session has a token.
    Token(Cow<'a, str>),
}

/// A client that subscribes wants to be a member of its channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceRequest<'a> {
    /// The id that the client has chosen.
    pub member: Option<Cow<'a, str>>,
}

/// One message to publish.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The channels: one message for all of them.
    pub channels: ChannelNames,
    /// The label.
    pub name: EventName,
    /// The content.
    pub data: Cow<'a, [u8]>,
    /// Further pairs of a key and a text.
    pub attributes: Option<Box<Attributes>>,
    /// The idempotency key. A repetition by the same publisher with the same key on a common channel gets the id of the first
    /// message.
    pub key: Option<Cow<'a, str>>,
}

/// Why a line was refused. The connection stays open.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The line is not JSON, or a field is missing, unknown or has the wrong type.
    #[error("not a request: {0}")]
    Json(#[from] serde_json::Error),
    /// The operation does not exist.
    #[error(
        "unknown op {0:?} (known: publish, subscribe, unsubscribe, history, presence, cursor, ping, on the socket status, in a session token)"
    )]
    Op(String),
    /// A required field is missing.
    #[error("op {op} needs the field {field:?}")]
    Missing {
        /// The operation.
        op: &'static str,
        /// The missing field.
        field: &'static str,
    },
    /// The operation does not have this field.
    #[error("op {op} has no field {field:?}")]
    Unexpected {
        /// The operation.
        op: &'static str,
        /// The extra field.
        field: &'static str,
    },
    /// The reference is too long.
    #[error("ref of {0} bytes is over the limit of {MAX_REFERENCE}")]
    Reference(usize),
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
    /// `data_base64` is not base64.
    #[error("data_base64 is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// Both forms of the channels are set.
    #[error("only one of channel and channels may be set")]
    TwoChannels,
    /// Invalid attributes.
    #[error("{0}")]
    Attributes(#[from] AttributesError),
    /// Both forms of the content are set.
    #[error("only one of data and data_base64 may be set")]
    TwoData,
    /// An invalid key.
    #[error("{0}")]
    Key(#[from] KeyError),
}

/// Why an idempotency key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key is longer than [`MAX_KEY`].
    #[error("key of {0} bytes is over the limit of {MAX_KEY}")]
    TooLong(usize),
    /// The bytes are not UTF-8.
    #[error("key is not UTF-8")]
    NotUtf8,
}

/// Parses an idempotency key: any text of at most [`MAX_KEY`] bytes. An empty text means no key.
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
    /// The code for the `error` field of the reply: the name of the wrong field.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Json(_) => ErrorCode::Line,
            Self::Op(_) => ErrorCode::Op,
            Self::Reference(_) => ErrorCode::parse("ref"),
            Self::Missing { field, .. } | Self::Unexpected { field, .. } => ErrorCode::parse(field),
            Self::Channel(_) => ErrorCode::Channel,
            Self::Channels(_) | Self::TwoChannels => ErrorCode::Channels,
            Self::Attributes(_) => ErrorCode::Attributes,
            Self::Name(_) => ErrorCode::Name,
            Self::Since(_) => ErrorCode::Since,
            Self::Base64(_) | Self::TwoData => ErrorCode::Data,
            Self::Key(_) => ErrorCode::Key,
        }
    }
}

impl<'a> Request<'a> {
    /// Parses one line (with or without its line end).
    ///
    /// # Errors
    /// Names the field and the rule that it breaks.
    pub fn parse(line: &'a [u8]) -> Result<Self, LineError> {
        Self::parse_with_reference(line).1
    }

    /// Like [`Request::parse`]. Also returns the reference that the reply must repeat.
    pub fn parse_with_reference(line: &'a [u8]) -> (Option<Reference>, Result<Self, LineError>) {
        let mut fields: Fields<'a> = match serde_json::from_slice(line) {
            Ok(fields) => fields,
            Err(error) => return (None, Err(error.into())),
        };
        match fields.reference.take().map(Reference::check).transpose() {
            Ok(reference) => (reference, Self::of(fields)),
            Err(error) => (None, Err(error)),
        }
    }

    fn of(fields: Fields<'a>) -> Result<Self, LineError> {
        match &*fields.op.0 {
            "publish" => fields.publish().map(Self::Publish),
            "subscribe" => fields.subscribe(),
            "unsubscribe" => {
                let channels = fields.unsubscription()?;
                Ok(Self::Unsubscribe { channels })
            }
            "history" => {
                let (channels, since) = fields.subscription("history")?;
                Ok(Self::History {
                    channels,
                    since: since.unwrap_or(Since::Id(Cursor(0))),
                })
            }
            "presence" => {
                let (channel, after) = fields.presence()?;
                Ok(Self::Presence { channel, after })
            }
            "cursor" => fields.bare("cursor").map(|()| Self::Cursor),
            "status" => fields.bare("status").map(|()| Self::Status),
            "ping" => fields.bare("ping").map(|()| Self::Ping),
            "token" => fields.token().map(Self::Token),
            other => Err(LineError::Op(other.chars().take(32).collect())),
        }
    }
}

/// Appends a history request as a line, with its line end.
pub fn write_history(channels: &ChannelNames, since: Cursor, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Fields<'a> {
        op: &'static str,
        channels: Vec<&'a str>,
        since: u64,
    }
    let fields = Fields {
        op: "history",
        channels: channels.iter().map(|name| &**name).collect(),
        since: since.0,
    };
    serde_json::to_writer(&mut *out, &fields).expect("text has a JSON form and a Vec takes it");
    out.push(b'\n');
}

/// Appends a publish request as a line, with its line end.
pub fn write_publish(publish: &Publish<'_>, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Fields<'a> {
        op: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        channel: Option<&'a str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        channels: Vec<&'a str>,
        #[serde(skip_serializing_if = "str::is_empty")]
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        data_base64: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        attributes: Option<&'a Attributes>,
    }
    let text = str::from_utf8(&publish.data).ok();
    // A daemon of an earlier version understands only one channel, so a single channel is written in the same way as then.
    let (channel, channels) = match &*publish.channels {
        [channel] => (Some(&**channel), Vec::new()),
        several => (None, several.iter().map(|name| &**name).collect()),
    };
    let fields = Fields {
        op: "publish",
        channel,
        channels,
        name: publish.name.as_str(),
        data: text,
        data_base64: text.is_none().then(|| STANDARD.encode(&publish.data)),
        key: publish.key.as_deref(),
        attributes: publish.attributes.as_deref(),
    };
    serde_json::to_writer(&mut *out, &fields).expect("text has a JSON form and a Vec takes it");
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
