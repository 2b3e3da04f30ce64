//! The content of presence messages.

use std::fmt::Write;

use comet_proto::{ChannelName, Message};
use serde::Deserialize;
use serde_json::Value;

use super::Member;

/// What a presence message says about a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceChange {
    /// A member has joined.
    Joined(Member),
    /// A member has left.
    Left(Member),
    /// Members may have joined and left: there are many of them, or the daemon has restarted.
    Counted,
}

impl PresenceChange {
    /// The data of the message. `count`: the number of members after the change.
    pub(super) fn data(&self, channel: &ChannelName, count: usize) -> Box<[u8]> {
        let mut out = format!("{{\"channel\":\"{channel}\"");
        let (what, member) = match self {
            Self::Joined(member) => ("joined", Some(member)),
            Self::Left(member) => ("left", Some(member)),
            Self::Counted => ("", None),
        };
        if let Some(member) = member {
            write!(out, ",\"{what}\":{{").expect("a String takes it");
            member.write_fields(&mut out);
            out.push('}');
        }
        write!(out, ",\"count\":{count}}}").expect("a String takes it");
        out.into_bytes().into()
    }

    /// Reads a presence message: the change, and the number of members after it. `None`: this is another message. For
    /// protocols that have words of their own for the change.
    pub fn of(message: &Message) -> Option<(Self, usize)> {
        #[derive(Deserialize)]
        struct Fields {
            joined: Option<MemberFields>,
            left: Option<MemberFields>,
            count: usize,
        }
        #[derive(Deserialize)]
        struct MemberFields {
            id: String,
            info: Option<Value>,
        }
        message.channels[0].presence_of()?;
        let Fields {
            joined,
            left,
            count,
        } = serde_json::from_slice(&message.data).ok()?;
        let member = |fields: MemberFields| Member::new(&fields.id, fields.info.as_ref()).ok();
        let change = match (joined, left) {
            (Some(joined), _) => Self::Joined(member(joined)?),
            (None, Some(left)) => Self::Left(member(left)?),
            (None, None) => Self::Counted,
        };
        Some((change, count))
    }
}
