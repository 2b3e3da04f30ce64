//! `[[channel]]`: the rights and the presence of channels whose name begins with a prefix.

use std::{net::SocketAddr, time::Duration};

use comet_proto::{ChannelName, ChannelNameError};
use serde::{Deserialize, Deserializer, de};

use super::{Config, value::some_duration};
use crate::users::AllowList;

/// Who may read or publish by HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Everyone who can reach the address.
    Public,
    /// Clients with a token that grants it.
    Token,
    /// Nobody.
    Closed,
}

/// Who can be a member of a channel's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// The subject of a token.
    Token,
    /// Also any client, with an id of its choice.
    Anyone,
}

/// The rules of all tables, for each key apart. Of the prefixes that match a channel and set a key, the longest one decides.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChannelRules {
    /// Who may read by HTTP.
    pub read: ByPrefix<Access>,
    /// Who may publish by HTTP.
    pub publish: ByPrefix<Access>,
    /// Who may publish over the Unix socket.
    pub socket: ByPrefix<AllowList>,
    /// The owners whose files are published.
    pub files: ByPrefix<AllowList>,
    /// Who can be a member.
    pub presence: ByPrefix<Identity>,
    /// How long a member stays without a connection.
    pub presence_grace: ByPrefix<Duration>,
    /// Whether a table has the prefix "".
    pub has_general: bool,
}

/// The values of one key, by prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct ByPrefix<T>(Vec<(String, T)>);

impl<T> Default for ByPrefix<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByPrefix<T> {
    /// The value of the longest matching prefix that sets this key.
    #[must_use]
    pub fn get(&self, channel: &str) -> Option<&T> {
        self.find(channel).map(|(_, value)| value)
    }

    /// Like [`ByPrefix::get`], and returns the prefix, too.
    pub(crate) fn find(&self, channel: &str) -> Option<(&str, &T)> {
        let found = self
            .0
            .iter()
            .find(|(prefix, _)| channel.starts_with(prefix));
        found.map(|(prefix, value)| (&**prefix, value))
    }

    /// Whether no rule sets this key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a rule sets this key to `value`.
    #[must_use]
    pub fn any(&self, value: T) -> bool
    where
        T: PartialEq,
    {
        self.0.iter().any(|(_, set)| *set == value)
    }

    fn add(&mut self, prefix: &str, value: Option<T>) {
        if let Some(value) = value {
            self.0.push((prefix.to_owned(), value));
            self.0
                .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        }
    }
}

/// One `[[channel]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [[channel]]")]
struct ChannelTable {
    #[serde(deserialize_with = "prefix")]
    prefix: String,
    read: Option<Access>,
    publish: Option<Access>,
    socket: Option<AllowList>,
    files: Option<AllowList>,
    presence: Option<Identity>,
    #[serde(default, deserialize_with = "some_duration::<_, 0>")]
    presence_grace: Option<Duration>,
}

pub(super) fn rules<'de, D: Deserializer<'de>>(d: D) -> Result<ChannelRules, D::Error> {
    let tables: Vec<ChannelTable> = Vec::deserialize(d)?;
    let mut rules = ChannelRules::default();
    let mut seen: Vec<String> = Vec::new();
    for table in tables {
        let prefix = table.prefix;
        if seen.contains(&prefix) {
            let twice = format!("prefix {prefix:?} is set twice");
            return Err(de::Error::custom(twice));
        }
        rules.read.add(&prefix, table.read);
        rules.publish.add(&prefix, table.publish);
        rules.socket.add(&prefix, table.socket);
        rules.files.add(&prefix, table.files);
        rules.presence.add(&prefix, table.presence);
        rules.presence_grace.add(&prefix, table.presence_grace);
        rules.has_general |= prefix.is_empty();
        seen.push(prefix);
    }
    Ok(rules)
}

/// Parses a prefix of channel names. An empty prefix matches all names.
fn prefix<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let prefix = String::deserialize(d)?;
    match ChannelName::parse(&prefix) {
        Ok(_) | Err(ChannelNameError::Empty) => Ok(prefix),
        Err(e) => Err(de::Error::custom(e)),
    }
}

/// Other machines can reach the address, and no rule says who may read. Without this error everyone could read every
/// channel.
#[derive(Debug, thiserror::Error)]
#[error(
    "listen: {listen} is not a loopback address, and no rule says who may read the channels; {}\n\n\
     or listen on a loopback address, such as 127.0.0.1:{port}", self.what_to_write(), port = .listen.port()
)]
pub struct NoReadRule {
    listen: SocketAddr,
    has_general: bool,
}

impl NoReadRule {
    fn what_to_write(&self) -> &'static str {
        match self.has_general {
            true => {
                "write into the table [[channel]] with prefix = \"\"\n\n\
                 \x20 read = \"public\"      # or \"closed\", and more tables for channels that only some may read"
            }
            false => {
                "write into the configuration\n\n\
                 \x20 [[channel]]\n  prefix = \"\"          # all channels\n  \
                 read = \"public\"      # or \"closed\", and more tables for channels that only some may read"
            }
        }
    }
}

impl Config {
    /// Checks settings that are each valid but do not fit together.
    ///
    /// # Errors
    /// Says what to write instead.
    pub fn check(&self) -> anyhow::Result<()> {
        self.check_readers()?;
        Ok(self.check_ports()?)
    }

    /// Checks that a rule says who may read if other machines can reach the address.
    ///
    /// # Errors
    /// Shows what to write.
    pub fn check_readers(&self) -> Result<(), NoReadRule> {
        if self.is_local() || !self.channels.read.is_empty() {
            return Ok(());
        }
        Err(NoReadRule {
            listen: self.listen,
            has_general: self.channels.has_general,
        })
    }

    /// Whether only this machine can reach the address.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ChannelName {
        ChannelName::parse(text).unwrap()
    }

    #[test]
    fn the_longest_prefix_that_sets_a_key_wins() {
        let text = "[[channel]]\nprefix = \"a\"\nread = \"closed\"\nfiles = [\"user:0\"]\n\
            [[channel]]\nprefix = \"a.b.\"\nread = \"public\"\n\
            [[channel]]\nprefix = \"\"\npublish = \"closed\"\nsocket = []\n";
        let rules = Config::parse(text).unwrap().channels;
        assert_eq!(rules.read.get(&name("a.b.c")), Some(&Access::Public));
        assert_eq!(rules.read.get(&name("a.b")), Some(&Access::Closed));
        assert_eq!(rules.read.get(&name("b")), None);
        assert_eq!(rules.publish.get(&name("a.b.c")), Some(&Access::Closed));
        assert!(rules.files.get(&name("a.b.c")).unwrap().permits(0, Some(0)));
        assert!(rules.files.get(&name("b")).is_none());
        assert!(!rules.socket.get(&name("b")).unwrap().permits(0, Some(0)));
    }

    #[test]
    fn an_address_that_others_reach_needs_a_rule_about_reading() {
        let refused = |text: &str| Config::parse(text).unwrap().check_readers().is_err();
        for local in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(!refused(&format!("listen = \"{local}\"")), "{local}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            let listen = format!("listen = \"{open}\"\n");
            assert!(refused(&listen), "{open}");
            assert!(refused(&format!(
                "{listen}[[channel]]\nprefix = \"\"\npublish = \"public\""
            )));
            assert!(!refused(&format!(
                "{listen}[[channel]]\nprefix = \"a\"\nread = \"closed\""
            )));
        }
    }

    /// The configuration that the message shows is enough.
    #[test]
    fn the_refusal_shows_what_is_right() {
        for before in [
            "",
            "[[channel]]\nprefix = \"\"\n",
            "[[channel]]\nprefix = \"\"\npublish = \"closed\"\n",
            "[[channel]]\nprefix = \"a\"\npublish = \"closed\"\n",
        ] {
            let text = format!("listen = \"0.0.0.0:1\"\n{before}");
            let config = Config::parse(&text).unwrap();
            let message = config.check_readers().unwrap_err().to_string();
            let shown: String = message.split("\n\n").nth(1).unwrap().into();
            let config = Config::parse(&(text + &shown)).unwrap();
            assert!(config.check_readers().is_ok(), "{message}");
        }
    }
}
