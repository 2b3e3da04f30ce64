//! The names of Pusher's channels, and what the beginning of a name means.

use comet_proto::ChannelName;

use super::app::App;

/// Longest name in bytes.
const MAX_NAME: usize = 200;

/// What the channel of the events for one signed-in user begins with.
pub(crate) const TO_USER: &str = "#server-to-user-";

/// A channel as an application names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PusherChannel<'a> {
    pub(crate) kind: ChannelKind,
    /// Whether a page that subscribes gets the last event.
    pub(crate) is_cache: bool,
    pub(crate) name: &'a str,
    pub(crate) channel: ChannelName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelKind {
    Public,
    /// Subscribing needs a signature.
    Private,
    /// Like a private channel, and the pages know of each other.
    Presence,
    /// The events for one user.
    ToUser,
}

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("channel name may not be empty")]
    Empty,
    #[error("channel name of {0} bytes is over the limit of {MAX_NAME}")]
    TooLong(usize),
    #[error("channel name may not contain {0:?} (allowed: A-Z a-z 0-9 _ - = @ , . ;)")]
    Character(char),
}

impl<'a> PusherChannel<'a> {
    /// Checks the name of a channel. Pusher's documentation, "Channels", section "Channel naming conventions".
    pub(crate) fn parse(app: &App, name: &'a str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        let (kind, rest) = kind_of(name);
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-=@,.;".contains(c);
        // The user of an application can have any id.
        if kind != ChannelKind::ToUser
            && let Some(c) = name.chars().find(|c| !is_allowed(*c))
        {
            return Err(NameError::Character(c));
        }
        let channel = app.channel(name).filter(|_| name.len() <= MAX_NAME);
        Ok(Self {
            kind,
            is_cache: rest.starts_with("cache-"),
            name,
            channel: channel.ok_or(NameError::TooLong(name.len()))?,
        })
    }
}

/// The kind of a channel, and the rest of its name.
fn kind_of(name: &str) -> (ChannelKind, &str) {
    let kinds = [
        ("private-encrypted-", ChannelKind::Private),
        ("private-", ChannelKind::Private),
        ("presence-", ChannelKind::Presence),
        (TO_USER, ChannelKind::ToUser),
    ];
    let mut found = kinds
        .into_iter()
        .filter_map(|(prefix, kind)| Some((kind, name.strip_prefix(prefix)?)));
    found.next().unwrap_or((ChannelKind::Public, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_beginning_of_a_name_says_what_the_channel_is() {
        let text = "[[compat.pusher.app]]\nid = \"1\"\nkey = \"a\"\nsecret = \"b\"\n";
        let apps = App::all(&Config::parse(text).unwrap().compat.pusher.unwrap());
        use ChannelKind as K;
        for (name, kind, is_cache) in [
            ("orders", K::Public, false),
            ("cache-orders", K::Public, true),
            ("my-private-x", K::Public, false),
            ("private-1", K::Private, false),
            ("private-cache-1", K::Private, true),
            ("private-encrypted-1", K::Private, false),
            ("private-encrypted-cache-1", K::Private, true),
            ("presence-room", K::Presence, false),
            ("presence-cache-room", K::Presence, true),
            ("#server-to-user-7 é", K::ToUser, false),
        ] {
            let channel = PusherChannel::parse(&apps[0], name).unwrap();
            assert_eq!((channel.kind, channel.is_cache), (kind, is_cache), "{name}");
        }
        for (name, error) in [
            ("", NameError::Empty),
            ("a:b", NameError::Character(':')),
            ("a b", NameError::Character(' ')),
            ("#x", NameError::Character('#')),
            (&"a".repeat(201), NameError::TooLong(201)),
            (&",".repeat(100), NameError::TooLong(100)),
        ] {
            assert_eq!(PusherChannel::parse(&apps[0], name), Err(error), "{name}");
        }
    }
}
