//! Pipes: the channels that comet-server.ru's clients use. A pipe is the channel of the same name.

use std::{slice, sync::Arc, time::Duration};

use comet_proto::{ChannelName, Cursor, Message};

use super::{SENDER, Users};

/// The most messages of one answer about a pipe's history.
pub(crate) const MOST_SAVED: usize = 99;

/// How long a pipe whose name starts with `trust_` shows a saved message.
const TRUST_AGE: Duration = Duration::from_secs(120);

/// Why a name is not the name of a pipe or an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameError {
    TooShort,
    TooLong,
    Character,
}

/// Parses the name of a pipe: 3 to 64 letters, digits, `_` and `-`.
pub(crate) fn pipe(name: &str) -> Result<ChannelName, NameError> {
    if name.len() < 3 {
        return Err(NameError::TooShort);
    }
    check(name)?;
    ChannelName::parse(name).map_err(|_| NameError::Character)
}

/// Checks the name of an event: up to 64 letters, digits, `_` and `-`.
pub(crate) fn check_event(name: &str) -> Result<(), NameError> {
    check(name)
}

fn check(name: &str) -> Result<(), NameError> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    match name {
        _ if name.len() > 64 => Err(NameError::TooLong),
        _ if !name.bytes().all(is_allowed) => Err(NameError::Character),
        _ => Ok(()),
    }
}

/// The number of the user who has sent a message from a browser, as text; else "0".
pub(crate) fn sender(message: &Message) -> &str {
    let mut pairs = message.attributes.iter().flat_map(|pairs| pairs.iter());
    pairs
        .find(|(key, _)| *key == SENDER)
        .map_or("0", |(_, user)| user)
}

/// The id of a message for clients. It contains the pipe, so that a client can name a message by its id alone.
pub(crate) fn message_id(pipe: &ChannelName, id: u64) -> String {
    format!("{id}-{pipe}")
}

/// Parses an id of [`message_id`].
pub(crate) fn parse_message_id(text: &str) -> Option<(ChannelName, u64)> {
    let (id, name) = text.split_once('-')?;
    Some((pipe(name).ok()?, id.parse().ok()?))
}

impl Users<'_> {
    /// The saved messages of a pipe, oldest first: the newest [`MOST_SAVED`]. A pipe shows what it has saved only if a length was
    /// set for it (`pipes_settings`), or for a while if its name starts with `trust_`.
    pub(crate) fn pipe_log(&self, pipe: &ChannelName) -> Vec<Arc<Message>> {
        let is_kept = self.hub.own_length(pipe).is_some_and(|length| length > 0);
        if !is_kept && !pipe.starts_with("trust_") {
            return Vec::new();
        }
        let mut saved = self.hub.newest(pipe, MOST_SAVED);
        if !is_kept {
            let pipes = slice::from_ref(pipe);
            let old = self.hub.newest_older(pipes, Cursor::default(), TRUST_AGE);
            saved.retain(|message| old.is_none_or(|old| message.id > old.0));
        }
        saved
    }
}
