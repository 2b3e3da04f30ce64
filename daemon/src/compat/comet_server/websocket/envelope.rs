//! The messages to a page: one JSON object on one line in each frame.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::session::dialect::{Frames, SessionForm};

/// The form of messages, which depends on the major version of the page's script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For scripts older than version 4: with the event a second time, and with objects as text.
    Old,
    Current,
}

/// A message to a page. The keys are in alphabetical order, as those of the original server.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Envelope<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api_data: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) authorized: Option<Flag>,
    pub(crate) data: Data<'a>,
    pub(crate) event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_name: Option<&'a str>,
    /// The message was published before the page asked for it.
    #[serde(rename = "fromQueue", skip_serializing_if = "Option::is_none")]
    pub(crate) from_queue: Option<bool>,
    /// The message is from the history of a pipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) history: Option<bool>,
    /// The marker of the command that this message answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) marker: Option<&'a str>,
    /// In seconds since 1970.
    pub(crate) message_send_time: u64,
    pub(crate) pipe: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<&'static str>,
    /// The user who has sent the message from a browser; 0: another sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<u32>,
    /// The script drops a second message with the same text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uuid: Option<String>,
}

/// The payload of a message.
#[derive(Debug)]
pub(crate) enum Data<'a> {
    Text(&'a str),
    /// What the daemon says.
    Json(Value),
}

/// A truth value. Old scripts take no other value than the text `true` for true.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Flag {
    Bool(bool),
    Text(bool),
}

/// The pipe of private messages.
pub(crate) const PRIVATE: &str = "msg";

/// The pipe of what the server says about the connection.
pub(crate) const SYSTEM: &str = "sys";

impl Form {
    /// Under this number the bytes of a message are found that are the same for all pages of this form.
    pub(crate) fn session_form(self) -> SessionForm {
        match self {
            Self::Old => SessionForm::OldCometServer,
            Self::Current => SessionForm::CometServer,
        }
    }

    pub(crate) fn flag(self, value: bool) -> Flag {
        match self {
            Self::Old => Flag::Text(value),
            Self::Current => Flag::Bool(value),
        }
    }

    /// Appends a message as one frame.
    pub(crate) fn write(self, mut message: Envelope<'_>, out: &mut Frames) {
        if self == Self::Old {
            message.event_name = Some(message.event);
            message.api_data = Some("for scripts older than version 4");
            if let Data::Json(value) = &message.data
                && message.pipe != PRIVATE
            {
                message.data = Data::Json(value.to_string().into());
            }
        }
        out.text(line(&message).as_bytes());
    }
}

/// The message as JSON. Apostrophes are escaped, because the script replaces `\'` in the JSON by `'` before it parses the
/// JSON. The two line separators of Unicode are escaped, because old browsers end a line of a script there.
fn line(message: &Envelope<'_>) -> String {
    let json = serde_json::to_string(message).expect("texts and numbers");
    let special = ['\'', '\u{2028}', '\u{2029}'];
    if !json.contains(special) {
        return json;
    }
    let mut line = String::with_capacity(json.len() + 64);
    for character in json.chars() {
        match character {
            // These characters are only in texts, because the names of the keys are ours.
            _ if special.contains(&character) => {
                line.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => line.push(other),
        }
    }
    line
}

impl Default for Data<'_> {
    fn default() -> Self {
        Self::Text("")
    }
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Json(value) => value.serialize(serializer),
        }
    }
}

impl Serialize for Flag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Bool(value) => serializer.serialize_bool(value),
            Self::Text(value) => serializer.serialize_str(if value { "true" } else { "false" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(form: Form, message: Envelope<'_>) -> String {
        let mut out = Frames::default();
        form.write(message, &mut out);
        let bytes = out.into_bytes();
        let start = if bytes[1] < 126 { 2 } else { 4 };
        String::from_utf8(bytes[start..].to_vec()).unwrap()
    }

    fn message(data: Data<'_>) -> Envelope<'_> {
        Envelope {
            data,
            event: "e",
            message_send_time: 7,
            pipe: "news",
            ..Envelope::default()
        }
    }

    #[test]
    fn a_message_is_one_line_with_its_keys_in_order() {
        let all = Envelope {
            authorized: Some(Form::Current.flag(true)),
            from_queue: Some(true),
            history: Some(true),
            marker: Some("12"),
            server: Some("comet"),
            user_id: Some(5),
            uuid: Some("u".into()),
            ..message(Data::Text("a\nb\u{2028}"))
        };
        assert_eq!(
            written(Form::Current, all),
            r#"{"authorized":true,"data":"a\nb\u2028","event":"e","fromQueue":true,"history":true,"marker":"12","message_send_time":7,"pipe":"news","server":"comet","user_id":5,"uuid":"u"}"#
        );
        assert_eq!(
            written(Form::Current, message(Data::Text("hi"))),
            r#"{"data":"hi","event":"e","message_send_time":7,"pipe":"news"}"#
        );
    }

    #[test]
    fn old_scripts_get_the_event_twice_and_objects_as_text() {
        assert_eq!(
            written(Form::Old, message(Data::Json(json!({"n": 1})))),
            r#"{"api_data":"for scripts older than version 4","data":"{\"n\":1}","event":"e","event_name":"e","message_send_time":7,"pipe":"news"}"#
        );
        let private = Envelope {
            pipe: PRIVATE,
            ..message(Data::Json(json!([1])))
        };
        assert!(written(Form::Old, private).contains(r#""data":[1],"#));
        let current = written(Form::Current, message(Data::Json(json!({"n": 1}))));
        assert!(current.contains(r#""data":{"n":1},"#));
        let flags = [Form::Old, Form::Current]
            .map(|form| serde_json::to_string(&[form.flag(true), form.flag(false)]).unwrap());
        assert_eq!(flags, [r#"["true","false"]"#, "[true,false]"]);
    }

    /// The script replaces `\'` by `'` in the JSON before it parses the JSON.
    #[test]
    fn no_apostrophe_is_lost_in_the_script() {
        for data in ["it's", r"it\'s", r"\\'", "''", r#"{"a":"it's"}"#] {
            let line = written(Form::Current, message(Data::Text(data)));
            let seen = line.replace("\\'", "'");
            let parsed: Value = serde_json::from_str(&seen).unwrap();
            assert_eq!(parsed["data"], data);
        }
    }
}
