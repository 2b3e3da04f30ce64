//! Pipes: the channels that comet-server.ru's clients use. A pipe is the channel of the same name.

use std::sync::Arc;

use comet_proto::{ChannelName, Message};

use super::{SENDER, Users};

/// The most messages of one answer about a pipe's history.
pub(crate) const MOST_SAVED: usize = 99;

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

impl Users<'_> {
    /// The saved messages of a pipe, oldest first: the newest [`MOST_SAVED`].
    pub(crate) fn pipe_log(&self, pipe: &ChannelName) -> Vec<Arc<Message>> {
        let mut saved = self.all(pipe);
        saved.drain(..saved.len().saturating_sub(MOST_SAVED));
        saved
    }
}
