//! The answer to the question who is on a channel.

use std::{fmt::Write, sync::Arc};

use comet_proto::Cursor;
use serde_json::Value;

use super::Member;

/// The members of a channel at one moment, or a part of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// In the order of their ids.
    pub list: Vec<PresentMember>,
    /// The number of all members.
    pub count: usize,
    /// Set if there are more members: the id to ask behind.
    pub next: Option<Arc<str>>,
    /// Changes up to this id are contained.
    pub cursor: Cursor,
}

/// A member, and the number of its connections to the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentMember {
    /// The member.
    pub member: Member,
    /// 0: the member has left, and may come back within its grace time.
    pub connections: u32,
}

impl Members {
    /// The most members in one answer.
    pub const MAX: usize = 1000;

    /// The fields of a JSON object: `"members":[…],"count":1,"cursor":"…"`.
    #[must_use]
    pub fn json_fields(&self) -> String {
        let mut out = String::from("\"members\":[");
        for (number, present) in self.list.iter().enumerate() {
            out.push_str(if number == 0 { "{" } else { ",{" });
            present.member.write_fields(&mut out);
            write!(out, ",\"connections\":{}}}", present.connections).expect("a String takes it");
        }
        let (count, cursor) = (self.count, self.cursor);
        write!(out, "],\"count\":{count},\"cursor\":\"{cursor}\"").expect("a String takes it");
        if let Some(next) = &self.next {
            out.push_str(",\"next\":");
            out.push_str(&Value::from(&**next).to_string());
        }
        out
    }
}
