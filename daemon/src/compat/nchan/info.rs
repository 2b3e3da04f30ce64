//! The facts about a channel that a publisher gets with each answer.

use comet_proto::{ChannelName, Cursor};
use hyper::StatusCode;

use crate::{
    compat::http_push,
    http::{answer::Answer, request::Request},
    hub::{ChannelFacts, Hub},
};

/// The form of the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InfoForm {
    Plain,
    Json,
}

impl InfoForm {
    /// The first form that `Accept` lists, with any type before `json`. nchan's XML and YAML are not known here; like
    /// everything else, they get plain text.
    pub(super) fn of(request: &Request<'_>) -> Self {
        let known = request.list("accept").find_map(|range| {
            let media_type = range.split(';').next().unwrap_or_default().trim();
            match media_type.to_ascii_lowercase().as_str() {
                "application/json" | "text/json" => Some(Self::Json),
                "text/plain" => Some(Self::Plain),
                _ => None,
            }
        });
        known.unwrap_or(Self::Plain)
    }
}

/// The facts about a channel.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Info {
    messages: usize,
    pub(super) subscribers: usize,
    last: Cursor,
}

impl Info {
    /// `None`: the channel has neither messages nor subscribers.
    pub(super) fn of(hub: &Hub, channel: &ChannelName) -> Option<Self> {
        let ChannelFacts {
            messages,
            subscribers,
            newest,
            ..
        } = hub.channel_facts(channel)?;
        Some(Self {
            messages,
            subscribers,
            last: newest.unwrap_or_default(),
        })
    }

    pub(super) fn answer(self, status: StatusCode, form: InfoForm) -> Answer {
        let Self {
            messages,
            subscribers,
            last,
        } = self;
        let last = http_push::pair(last);
        // The hub does not remember when the last subscriber was there.
        let requested = if subscribers > 0 { 0 } else { -1 };
        match form {
            InfoForm::Json => {
                let body = format!(
                    "{{\"messages\": {messages}, \"requested\": {requested}, \"subscribers\": {subscribers}, \"last_message_id\": \"{last}\" }}"
                );
                Answer::new(status, "text/json", body)
            }
            InfoForm::Plain => {
                let body = format!(
                    "queued messages: {messages}\r\nlast requested: {requested} sec. ago\r\nactive subscribers: {subscribers}\r\nlast message id: {last}"
                );
                Answer::new(status, "text/plain", body)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use httparse::Header;
    use hyper::Method;

    use super::*;

    #[test]
    fn the_form_is_the_first_known_one() {
        for (accept, form) in [
            ("application/json", InfoForm::Json),
            ("text/json;q=0.5", InfoForm::Json),
            ("TEXT/JSON", InfoForm::Json),
            ("text/xml, application/json, text/plain", InfoForm::Json),
            ("text/plain, application/json", InfoForm::Plain),
            ("*/*", InfoForm::Plain),
            ("application/x-yaml", InfoForm::Plain),
            ("", InfoForm::Plain),
        ] {
            let lines = [Header {
                name: "Accept",
                value: accept.as_bytes(),
            }];
            let request = Request::new(Method::POST, "/", &lines);
            assert_eq!(InfoForm::of(&request), form, "{accept}");
        }
    }

    #[test]
    fn the_bytes_are_those_of_nchan() {
        let info = Info {
            messages: 2,
            subscribers: 0,
            last: Cursor(1_795_227_446_000_001),
        };
        let json = info.answer(StatusCode::OK, InfoForm::Json);
        assert_eq!(
            json.body,
            "{\"messages\": 2, \"requested\": -1, \"subscribers\": 0, \"last_message_id\": \"1795227446:1\" }"
        );
        let plain = info.answer(StatusCode::OK, InfoForm::Plain);
        assert_eq!(
            plain.body,
            "queued messages: 2\r\nlast requested: -1 sec. ago\r\nactive subscribers: 0\r\nlast message id: 1795227446:1"
        );
    }
}
