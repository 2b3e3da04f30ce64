//! The fields of a request, and the check which of them its operation needs.

use std::{borrow::Cow, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

use super::{LineError, PresenceRequest, Publish, Reference, Request, parse_key};
use crate::{Attributes, ChannelName, ChannelNames, Cursor, EventName, Since};

/// All fields of a line, before the check which of them the operation needs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields<'a> {
    #[serde(borrow)]
    pub(super) op: Text<'a>,
    #[serde(rename = "ref")]
    pub(super) reference: Option<Reference>,
    #[serde(borrow)]
    token: Option<Text<'a>>,
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
    #[serde(borrow)]
    attributes: Option<Pairs<'a>>,
    #[serde(borrow)]
    after: Option<Text<'a>>,
    presence: Option<bool>,
    #[serde(borrow)]
    member: Option<Text<'a>>,
}

impl<'a> Fields<'a> {
    pub(super) fn publish(self) -> Result<Publish<'a>, LineError> {
        let op = "publish";
        self.refuse(
            op,
            [
                ("since", self.since.is_some()),
                ("token", self.token.is_some()),
                ("after", self.after.is_some()),
                ("presence", self.presence.is_some()),
                ("member", self.member.is_some()),
            ],
        )?;
        let channels = match (self.channel, self.channels) {
            (Some(name), None) => ChannelName::parse(&name.0)?.into(),
            (None, Some(names)) => ChannelNames::parse(names.iter().map(|name| &*name.0))?,
            (Some(_), Some(_)) => return Err(LineError::TwoChannels),
            (None, None) => {
                let field = "channel";
                return Err(LineError::Missing { op, field });
            }
        };
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
        let attributes = self.attributes.map(|pairs| Attributes::parse(&pairs.0));
        Ok(Publish {
            channels,
            name: EventName::parse(self.name.as_ref().map_or("", |name| &name.0))?,
            data,
            attributes: attributes.transpose()?.flatten(),
            key,
        })
    }

    pub(super) fn subscription(
        self,
        op: &'static str,
    ) -> Result<(ChannelNames, Option<Since>), LineError> {
        self.refuse(
            op,
            [
                ("channel", self.channel.is_some()),
                ("data", self.data.is_some() || self.data_base64.is_some()),
                ("name", self.name.is_some()),
                ("key", self.key.is_some()),
                ("attributes", self.attributes.is_some()),
                ("token", self.token.is_some()),
                ("after", self.after.is_some()),
                ("presence", self.presence.is_some()),
                ("member", self.member.is_some()),
            ],
        )?;
        let field = "channels";
        let names = self.channels.ok_or(LineError::Missing { op, field })?;
        let channels = ChannelNames::parse(names.iter().map(|name| &*name.0))?;
        let since = match self.since {
            None => None,
            Some(NumberOrText::Number(id)) => Some(Since::Id(Cursor(id))),
            Some(NumberOrText::Text(text)) => Some(Since::parse(&text)?),
        };
        Ok((channels, since))
    }

    pub(super) fn subscribe(mut self) -> Result<Request<'a>, LineError> {
        let op = "subscribe";
        let wants_presence = self.presence.take() == Some(true);
        if !wants_presence {
            self.refuse(op, [("member", self.member.is_some())])?;
        }
        let member = self.member.take().map(|member| member.0);
        let (channels, since) = self.subscription(op)?;
        Ok(Request::Subscribe {
            channels,
            since,
            presence: wants_presence.then_some(PresenceRequest { member }),
        })
    }

    pub(super) fn unsubscription(self) -> Result<ChannelNames, LineError> {
        let op = "unsubscribe";
        self.refuse(op, [("since", self.since.is_some())])?;
        let (channels, _) = self.subscription(op)?;
        Ok(channels)
    }

    pub(super) fn token(mut self) -> Result<Cow<'a, str>, LineError> {
        let (op, field) = ("token", "token");
        let token = self.token.take();
        self.bare(op)?;
        token
            .map(|token| token.0)
            .ok_or(LineError::Missing { op, field })
    }

    pub(super) fn presence(mut self) -> Result<(ChannelName, Option<Cow<'a, str>>), LineError> {
        let op = "presence";
        let (channel, after) = (self.channel.take(), self.after.take());
        self.bare(op)?;
        let field = "channel";
        let channel = channel.ok_or(LineError::Missing { op, field })?;
        Ok((ChannelName::parse(&channel.0)?, after.map(|after| after.0)))
    }

    pub(super) fn bare(self, op: &'static str) -> Result<(), LineError> {
        self.refuse(
            op,
            [
                ("channel", self.channel.is_some()),
                ("channels", self.channels.is_some()),
                ("data", self.data.is_some() || self.data_base64.is_some()),
                ("name", self.name.is_some()),
                ("key", self.key.is_some()),
                ("attributes", self.attributes.is_some()),
                ("since", self.since.is_some()),
                ("token", self.token.is_some()),
                ("after", self.after.is_some()),
                ("presence", self.presence.is_some()),
                ("member", self.member.is_some()),
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

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Text that borrows from the line unless JSON escapes force a copy (serde copies an `Option<Cow<str>>` always).
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

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

/// The pairs of a JSON object of strings, in the order of the line. A map would hide a key that is there twice.
struct Pairs<'a>(Vec<(Text<'a>, Text<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
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
