//! The daemon's replies: how the daemon writes them, and how a client reads the reply to a publish.

use std::{io::Write, time::Duration};

use serde::{Deserialize, Serialize};

use super::ErrorCode;
use crate::Cursor;

/// The reply to a publish, as a client reads it.
#[derive(Debug, PartialEq, Eq)]
pub enum PublishReply {
    /// Published under this id.
    Id(u64),
    /// Refused.
    Refused {
        /// The code of the error: the wrong field or the exceeded limit.
        code: ErrorCode,
        /// The error text for people.
        message: String,
    },
}

impl PublishReply {
    /// Parses the daemon's reply to a publish.
    ///
    /// # Errors
    /// The line is not such a reply.
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
                code: ErrorCode::parse(&fields.error),
                message: fields.message,
            }
        })
    }
}

/// Appends `{"ok":true,"id":…}` as a line.
pub fn write_receipt(id: u64, out: &mut Vec<u8>) {
    for part in [
        "{\"ok\":true,\"id\":",
        itoa::Buffer::new().format(id),
        "}\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Appends `{"ok":true,"cursor":"…"}` as a line.
pub fn write_cursor(cursor: Cursor, out: &mut Vec<u8>) {
    writeln!(out, r#"{{"ok":true,"cursor":"{cursor}"}}"#).expect("a Vec takes it");
}

/// Appends `{"ok":true,"members":[…],…}` as a line. `fields` are the fields from `members` on, as JSON.
pub fn write_members(fields: &str, out: &mut Vec<u8>) {
    writeln!(out, r#"{{"ok":true,{fields}}}"#).expect("a Vec takes it");
}

/// Appends `{"ok":true}` as a line.
pub fn write_ok(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"ok\":true}\n");
}

/// Appends `{"gap":true,"cursor":"…"}` as a line: messages up to the cursor may be missing, and messages after
/// it are complete.
pub fn write_gap(cursor: Cursor, out: &mut Vec<u8>) {
    writeln!(out, r#"{{"gap":true,"cursor":"{cursor}"}}"#).expect("a Vec takes it");
}

/// Appends `{"retry":…}` as a line: the daemon stops, and the subscriber should come back after this many milliseconds.
pub fn write_retry(retry: Duration, out: &mut Vec<u8>) {
    writeln!(out, r#"{{"retry":{}}}"#, retry.as_millis()).expect("a Vec takes it");
}

/// Appends the start of the reply to a history request. The caller then appends the messages as JSON, separated by commas, and
/// calls [`write_history_end`].
pub fn write_history_start(cursor: Cursor, out: &mut Vec<u8>) {
    write!(out, r#"{{"ok":true,"cursor":"{cursor}","messages":["#).expect("a Vec takes it");
}

/// Ends the reply that [`write_history_start`] began. Only at the end the daemon knows whether messages were dropped meanwhile.
pub fn write_history_end(gap: bool, out: &mut Vec<u8>) {
    writeln!(out, r#"],"gap":{gap}}}"#).expect("a Vec takes it");
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
pub fn write_error(code: &ErrorCode, message: &str, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Fields<'a> {
        ok: bool,
        error: &'a str,
        message: &'a str,
    }
    let fields = Fields {
        ok: false,
        error: code.as_str(),
        message,
    };
    serde_json::to_writer(&mut *out, &fields).expect("text has a JSON form and a Vec takes it");
    out.push(b'\n');
}
