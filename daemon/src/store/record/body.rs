//! The body of each kind of record.

use std::ops::RangeInclusive;

use super::{
    fields::{BodyReader, put, put_text},
    kinds::Record,
    message::MessageRecord,
};
use crate::store::Durability;

/// The numbers of the kinds.
pub(super) const KINDS: RangeInclusive<u8> = HEAD..=LENGTH;

const HEAD: u8 = 1;
const MESSAGE: u8 = 2;
const CHANNEL: u8 = 3;
const KEY: u8 = 4;
const START: u8 = 5;
const STOP: u8 = 6;
const FLOOR: u8 = 7;
const LOST: u8 = 8;
const MISSED: u8 = 9;
const FULL_MESSAGE: u8 = 10;
const SHARED: u8 = 11;
const LINK: u8 = 12;
const REMOVED: u8 = 13;
const LENGTH: u8 = 14;

/// The length of a channel's history that stands for the number in the settings.
const AS_CONFIGURED: u16 = u16::MAX;

impl Record<'_> {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Head { .. } => HEAD,
            Self::Message(message) if message.is_plain() => MESSAGE,
            Self::Message(_) => FULL_MESSAGE,
            Self::Shared(_) => SHARED,
            Self::Link { .. } => LINK,
            Self::Removed { .. } => REMOVED,
            Self::Length { .. } => LENGTH,
            Self::Channel { .. } => CHANNEL,
            Self::Key { .. } => KEY,
            Self::Start { .. } => START,
            Self::Stop { .. } => STOP,
            Self::Floor { .. } => FLOOR,
            Self::Lost { .. } => LOST,
            Self::Missed { .. } => MISSED,
        }
    }

    pub(super) fn write_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Head { number, base, last } => {
                put(out, &[*number, *last]);
                out.push(u8::from(*base));
            }
            Self::Message(message) if message.is_plain() => message.write_plain(out),
            Self::Message(message) | Self::Shared(message) => message.write_full(out),
            Self::Link { id, channel } => {
                put(out, &[*id]);
                put_text(out, channel);
            }
            Self::Removed {
                id,
                channel,
                message,
            } => {
                put(out, &[*id, *message]);
                put_text(out, channel);
            }
            Self::Length {
                id,
                channel,
                messages,
            } => {
                put(out, &[*id]);
                out.extend_from_slice(&messages.unwrap_or(AS_CONFIGURED).to_le_bytes());
                put_text(out, channel);
            }
            Self::Channel { name, trimmed } => {
                put(out, &[*trimmed]);
                put_text(out, name);
            }
            Self::Key { channel, key, id } => {
                put(out, &[*id]);
                put_text(out, channel);
                put_text(out, key);
            }
            Self::Start {
                id,
                after,
                boot,
                durability,
            } => {
                put(out, &[*id, *after]);
                out.extend_from_slice(&boot.to_le_bytes());
                out.push(match durability {
                    Durability::Memory => 0,
                    Durability::Process => 1,
                    Durability::Disk => 2,
                });
            }
            Self::Stop { id } | Self::Floor { id } => put(out, &[*id]),
            Self::Lost { after, before } => put(out, &[*after, *before]),
            Self::Missed { before } => put(out, &[*before]),
        }
    }
}

/// Parses the body of a record of this kind. `None`: no daemon would write such a body.
pub(super) fn read_body(kind: u8, body: &[u8]) -> Option<Record<'_>> {
    let mut body = BodyReader(body);
    let record = match kind {
        HEAD => Record::Head {
            number: body.number()?,
            last: body.number()?,
            base: body.take(1)? == [1],
        },
        MESSAGE => Record::Message(MessageRecord::read_plain(&mut body)?),
        FULL_MESSAGE => Record::Message(
            MessageRecord::read_full(&mut body).filter(|message| !message.is_plain())?,
        ),
        SHARED => Record::Shared(MessageRecord::read_full(&mut body)?),
        LINK => Record::Link {
            id: body.number()?,
            channel: body.channel()?,
        },
        REMOVED => Record::Removed {
            id: body.number()?,
            message: body.number()?,
            channel: body.channel()?,
        },
        LENGTH => Record::Length {
            id: body.number()?,
            messages: Some(u16::from_le_bytes(body.take(2)?.try_into().ok()?))
                .filter(|messages| *messages != AS_CONFIGURED),
            channel: body.channel()?,
        },
        CHANNEL => Record::Channel {
            trimmed: body.number()?,
            name: body.channel()?,
        },
        KEY => Record::Key {
            id: body.number()?,
            channel: body.channel()?,
            key: body.text()?,
        },
        START => Record::Start {
            id: body.number()?,
            after: body.number()?,
            boot: u128::from_le_bytes(body.take(16)?.try_into().ok()?),
            durability: match body.take(1)? {
                [0] => Durability::Memory,
                [1] => Durability::Process,
                [2] => Durability::Disk,
                _ => return None,
            },
        },
        STOP => Record::Stop { id: body.number()? },
        FLOOR => Record::Floor { id: body.number()? },
        LOST => Record::Lost {
            after: body.number()?,
            before: body.number()?,
        },
        MISSED => Record::Missed {
            before: body.number()?,
        },
        _ => return None,
    };
    body.0.is_empty().then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::fields::put_count;

    #[test]
    fn internal_channels_are_read_back() {
        let record = |name: &str| {
            let mut body = Vec::new();
            put(&mut body, &[7]);
            put_text(&mut body, name);
            read_body(CHANNEL, &body).is_some()
        };
        assert!(record(".presence.news") && record("news"));
        assert!(!record(".") && !record(".a/b"));
    }

    #[test]
    fn a_list_that_no_daemon_writes_is_damage() {
        let record = |channels: &[&str], pairs: &[(&str, &str)]| {
            let mut body = Vec::new();
            put(&mut body, &[7]);
            put_count(&mut body, channels.len());
            channels.iter().for_each(|name| put_text(&mut body, name));
            put_text(&mut body, "");
            put_text(&mut body, "");
            put_count(&mut body, pairs.len());
            for (key, value) in pairs {
                put_text(&mut body, key);
                put_text(&mut body, value);
            }
            read_body(FULL_MESSAGE, &body).is_some()
        };
        assert!(record(&["a", "b"], &[]) && record(&["a"], &[("k", "")]));
        assert!(!record(&["a"], &[]), "a plain message");
        assert!(!record(&[], &[("k", "")]));
        assert!(!record(&["a", "b", "a"], &[]));
        assert!(!record(&["a", "b"], &[("k", ""), ("j", "")]));
        assert!(!record(&["a", "b"], &[("k", ""), ("k", "")]));
    }
}
