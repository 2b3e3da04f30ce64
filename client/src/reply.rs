//! Reads the daemon's replies: one line each, without its line end.

use comet_proto::{Cursor, line::PublishReply};

use crate::error::Error;

/// The refusal of the connection itself, if the reply is one. Such a reply answers no line that was sent.
pub(crate) fn connection_refusal(reply: &[u8]) -> Option<Error> {
    // Every refusal begins like this, so that other replies need not be parsed.
    if !reply.starts_with(b"{\"ok\":false") {
        return None;
    }
    published_id(reply)
        .err()
        .filter(|error| matches!(error, Error::Refused { code, .. } if code.ends_connection()))
}

/// The id in the reply to a publish.
pub(crate) fn published_id(reply: &[u8]) -> Result<u64, Error> {
    match PublishReply::parse(reply) {
        Ok(PublishReply::Id(id)) => Ok(id),
        Ok(PublishReply::Refused { code, message }) => Err(Error::Refused { code, message }),
        Err(_) => Err(unexpected(reply)),
    }
}

/// The cursor in the reply to `cursor` or `history`. Only the start is parsed, because the rest may be long.
pub(crate) fn cursor(reply: &[u8]) -> Result<Cursor, Error> {
    let rest = reply.strip_prefix(b"{\"ok\":true,\"cursor\":\"");
    let digits = rest.and_then(|rest| rest.split(|byte| *byte == b'"').next());
    match digits.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok()) {
        Some(id) => Ok(Cursor(id)),
        None => Err(published_id(reply)
            .err()
            .unwrap_or_else(|| unexpected(reply))),
    }
}

/// The error for a reply that the protocol does not have, with the first 80 bytes of that reply.
pub(crate) fn unexpected(reply: &[u8]) -> Error {
    let start = &reply[..reply.len().min(80)];
    Error::Protocol(String::from_utf8_lossy(start).into_owned())
}
