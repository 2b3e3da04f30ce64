//! What pages send: JSON objects with an event, its data, and for events of the page the channel.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A text of a page.
#[derive(Debug)]
pub(crate) enum PageRequest<'a> {
    Ping,
    /// The answer to our ping, or something else that asks for nothing.
    Nothing,
    Subscribe(Subscribe),
    /// The channel to leave.
    Unsubscribe(String),
    SignIn(SignIn),
    /// An event for the other pages of a channel.
    ClientEvent(ClientEvent<'a>),
}

/// The data of `pusher:subscribe`.
#[derive(Debug, Deserialize)]
pub(crate) struct Subscribe {
    pub(crate) channel: String,
    /// The key and the signature with a colon between them; empty for public channels.
    #[serde(default)]
    pub(crate) auth: String,
    /// Signed as it is: JSON with the user's id and info.
    pub(crate) channel_data: Option<String>,
}

/// The data of `pusher:signin`.
#[derive(Debug, Deserialize)]
pub(crate) struct SignIn {
    pub(crate) auth: String,
    /// Signed as it is: JSON with the user's id.
    pub(crate) user_data: String,
}

/// An event of a page.
#[derive(Debug)]
pub(crate) struct ClientEvent<'a> {
    pub(crate) event: String,
    pub(crate) channel: String,
    /// JSON, as it was sent.
    pub(crate) data: &'a str,
}

/// A user, as the application's server describes the user in `channel_data` or `user_data`.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) info: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    channel: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Why a text is refused. The text fits after "invalid message: ".
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("it must be a JSON object with the text field \"event\": {0}")]
    Json(serde_json::Error),
    #[error("data of {event}: {error}")]
    Data {
        event: String,
        error: serde_json::Error,
    },
    #[error("{0} needs a channel")]
    NoChannel(String),
    #[error(
        "unknown event {0:?} (known: pusher:ping, pusher:pong, pusher:subscribe, pusher:unsubscribe, pusher:signin, client-…)"
    )]
    Event(String),
}

impl<'a> PageRequest<'a> {
    /// Reads a text of a page. Pusher's documentation, "WebSocket protocol".
    pub(crate) fn parse(text: &'a str) -> Result<Self, RequestError> {
        let Envelope {
            event,
            channel,
            data,
        } = serde_json::from_str(text).map_err(RequestError::Json)?;
        Ok(match &*event {
            "pusher:ping" => Self::Ping,
            "pusher:pong" => Self::Nothing,
            "pusher:subscribe" => Self::Subscribe(fields(&event, data)?),
            "pusher:unsubscribe" => {
                let Subscribe { channel, .. } = fields(&event, data)?;
                Self::Unsubscribe(channel)
            }
            "pusher:signin" => Self::SignIn(fields(&event, data)?),
            name if name.starts_with("client-") => {
                let event = event.into_owned();
                let Some(channel) = channel else {
                    return Err(RequestError::NoChannel(event));
                };
                let data = data.map_or("null", RawValue::get);
                Self::ClientEvent(ClientEvent {
                    event,
                    channel,
                    data,
                })
            }
            name => return Err(RequestError::Event(name.chars().take(64).collect())),
        })
    }
}

/// Reads the data of an event: an object, or a text with an object in it.
fn fields<T: for<'de> Deserialize<'de>>(
    event: &str,
    data: Option<&RawValue>,
) -> Result<T, RequestError> {
    let data = data.map_or("null", RawValue::get);
    let inner = serde_json::from_str::<String>(data);
    let json = inner.as_deref().unwrap_or(data);
    serde_json::from_str(json).map_err(|error| RequestError::Data {
        event: event.to_owned(),
        error,
    })
}

impl User {
    /// Reads `channel_data`. The id may be a number. `None`: there is no id.
    pub(crate) fn of_channel_data(json: &str) -> Option<Self> {
        Self::parse(json, "user_id", "user_info")
    }

    /// Reads `user_data`.
    pub(crate) fn of_user_data(json: &str) -> Option<Self> {
        Self::parse(json, "id", "user_info")
    }

    fn parse(json: &str, id: &str, info: &str) -> Option<Self> {
        let mut fields: serde_json::Map<_, _> = serde_json::from_str(json).ok()?;
        let id = match fields.remove(id)? {
            serde_json::Value::String(id) => id,
            serde_json::Value::Number(id) => id.to_string(),
            _ => return None,
        };
        let info = fields.remove(info);
        (!id.is_empty()).then_some(Self { id, info })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_pages_send() {
        let subscribe = r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"orders"}}"#;
        let as_text =
            r#"{"event":"pusher:subscribe","data":"{\"auth\":\"\",\"channel\":\"orders\"}"}"#;
        for text in [subscribe, as_text] {
            let Ok(PageRequest::Subscribe(subscribe)) = PageRequest::parse(text) else {
                panic!("{text}");
            };
            assert_eq!((&*subscribe.channel, &*subscribe.auth), ("orders", ""));
        }
        let event = r#"{"event":"client-typing","channel":"private-1","data":{"a": [1, 2.0]}}"#;
        let Ok(PageRequest::ClientEvent(event)) = PageRequest::parse(event) else {
            panic!("{event}");
        };
        assert_eq!(event.data, r#"{"a": [1, 2.0]}"#);
        assert!(matches!(
            PageRequest::parse(r#"{"event":"pusher:ping","data":{}}"#),
            Ok(PageRequest::Ping)
        ));
    }

    #[test]
    fn says_what_is_wrong_with_a_text() {
        for (text, expected) in [
            ("", "\"event\""),
            ("[]", "\"event\""),
            ("{}", "missing field `event`"),
            (r#"{"event":1}"#, "expected a string"),
            (
                r#"{"event":"pusher:subscribe"}"#,
                "data of pusher:subscribe",
            ),
            (
                r#"{"event":"client-a","data":1}"#,
                "client-a needs a channel",
            ),
            (
                r#"{"event":"pusher:nonsense"}"#,
                "unknown event \"pusher:nonsense\"",
            ),
        ] {
            let error = PageRequest::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_id_of_a_user_may_be_a_number() {
        let id = |json| User::of_channel_data(json).map(|user| user.id);
        assert_eq!(id(r#"{"user_id":10}"#), Some("10".into()));
        assert_eq!(id(r#"{"user_id":"10","user_info":{}}"#), Some("10".into()));
        for json in [
            "",
            "{}",
            r#"{"user_id":""}"#,
            r#"{"user_id":null}"#,
            r#"[1]"#,
        ] {
            assert_eq!(id(json), None, "{json}");
        }
        let signed_in = User::of_user_data(r#"{"id":"7","user_info":{"name":"Ann"}}"#).unwrap();
        assert_eq!(signed_in.info.unwrap()["name"], "Ann");
    }
}
