//! Channel names, and the rules for them.

use std::{borrow::Borrow, fmt, ops::Deref, slice, sync::Arc};

/// Maximum number of channels of one subscription, and of one message.
pub const MAX_CHANNELS: usize = 100;

/// A valid channel name: 1 to 200 bytes of `A–Z a–z 0–9 _ . : = + @ ~ -`, not starting with a dot.
/// `NAME.comet` is the channel's file. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// The beginning of the internal channels of presence messages.
const PRESENCE: &str = ".presence.";

/// Why a channel name was refused. The text fits after "invalid channel: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelNameError {
    /// The name is empty.
    #[error("channel name may not be empty")]
    Empty,
    /// The name is longer than [`ChannelName::MAX_LEN`].
    #[error("channel name of {0} bytes is over the limit of {max}", max = ChannelName::MAX_LEN)]
    TooLong(usize),
    /// The name begins with a dot, so its file would be hidden.
    #[error("channel name may not start with a dot")]
    LeadingDot,
    /// The name of an internal channel begins without a dot.
    #[error("name of an internal channel must start with a dot")]
    NoDot,
    /// A character is not allowed in names.
    #[error("channel name may not contain {0:?} (allowed: A-Z a-z 0-9 _ . : = + @ ~ -)")]
    Character(char),
    /// The bytes are not UTF-8.
    #[error("channel name is not UTF-8")]
    NotUtf8,
}

impl ChannelName {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 200;

    /// Longest name of an internal channel in bytes: 32 more, so that it can contain a channel's name.
    pub const MAX_INTERNAL_LEN: usize = Self::MAX_LEN + 32;

    /// Checks `name`.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn parse(name: &str) -> Result<Self, ChannelNameError> {
        check(name).map(|()| Self(name.into()))
    }

    /// The name of an internal channel, such as `.presence.news`: a dot, and then 1 to 231 bytes of a channel name's
    /// alphabet. Every parser of outside data refuses such a name, so only the daemon itself uses internal channels.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn internal(name: &str) -> Result<Self, ChannelNameError> {
        let rest = name.strip_prefix('.').ok_or(ChannelNameError::NoDot)?;
        check_length(rest, Self::MAX_INTERNAL_LEN - 1)?;
        check_characters(rest).map(|()| Self(name.into()))
    }

    /// Checks a name that this daemon or an earlier one has written to its log: a channel of clients or an internal one.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn from_log(name: &str) -> Result<Self, ChannelNameError> {
        match name.starts_with('.') {
            true => Self::internal(name),
            false => Self::parse(name),
        }
    }

    /// Whether the channel is an internal one, so that no client may know of it.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.0.starts_with('.')
    }

    /// The internal channel of this channel's presence messages. `None`: this channel is an internal one itself.
    #[must_use]
    pub fn presence(&self) -> Option<Self> {
        (!self.is_internal()).then(|| Self(format!("{PRESENCE}{self}").into()))
    }

    /// If this is the internal channel of a channel's presence messages: the name of that channel.
    #[must_use]
    pub fn presence_of(&self) -> Option<&str> {
        self.0.strip_prefix(PRESENCE)
    }

    /// Like [`ChannelName::parse`], for names that arrive as bytes.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn parse_bytes(name: &[u8]) -> Result<Self, ChannelNameError> {
        if name.len() > Self::MAX_LEN {
            return Err(ChannelNameError::TooLong(name.len()));
        }
        Self::parse(str::from_utf8(name).map_err(|_| ChannelNameError::NotUtf8)?)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(name: &str) -> Result<(), ChannelNameError> {
    check_length(name, ChannelName::MAX_LEN)?;
    if name.starts_with('.') {
        return Err(ChannelNameError::LeadingDot);
    }
    check_characters(name)
}

fn check_length(name: &str, max: usize) -> Result<(), ChannelNameError> {
    match name.len() {
        0 => Err(ChannelNameError::Empty),
        len if len > max => Err(ChannelNameError::TooLong(len)),
        _ => Ok(()),
    }
}

fn check_characters(name: &str) -> Result<(), ChannelNameError> {
    match name
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !"_.:=+@~-".contains(*c))
    {
        Some(c) => Err(ChannelNameError::Character(c)),
        None => Ok(()),
    }
}

impl Deref for ChannelName {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

// Hash and Eq are those of the text, so that a map of names can be searched with a &str.
impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The channels of one subscription or of one message: 1 to [`MAX_CHANNELS`] names, each once, in the order in which they were
/// listed. A list of one name needs no allocation.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelNames(Names);

/// The second box makes the list as small as a name: both variants then fit into 16 bytes.
#[derive(Clone, PartialEq, Eq)]
enum Names {
    One(ChannelName),
    Several(Box<Box<[ChannelName]>>),
}

/// Why a list of channels was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelNamesError {
    /// One of the names is invalid.
    #[error(transparent)]
    Name(#[from] ChannelNameError),
    /// More than [`MAX_CHANNELS`].
    #[error("{0} channels are over the limit of {MAX_CHANNELS}")]
    TooMany(usize),
    /// The list is empty.
    #[error("at least one channel is needed")]
    None,
}

impl ChannelNames {
    /// Parses a list of names. A name that is listed twice counts once.
    ///
    /// # Errors
    /// Says which rule the first wrong name breaks.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, ChannelNamesError> {
        let mut list = Vec::new();
        let mut names = names.into_iter();
        for name in names.by_ref() {
            let name = ChannelName::parse(name)?;
            if !list.contains(&name) {
                list.push(name);
            }
            if list.len() > MAX_CHANNELS {
                return Err(ChannelNamesError::TooMany(list.len() + names.count()));
            }
        }
        match list.len() {
            0 => Err(ChannelNamesError::None),
            1 => Ok(list.remove(0).into()),
            _ => Ok(Self(Names::Several(Box::new(list.into())))),
        }
    }

    /// The same names, each replaced by what `replace` returns. `replace` must return an equal name.
    #[must_use]
    pub fn map(self, mut replace: impl FnMut(ChannelName) -> ChannelName) -> Self {
        Self(match self.0 {
            Names::One(name) => Names::One(replace(name)),
            Names::Several(names) => {
                Names::Several(Box::new(names.into_iter().map(replace).collect()))
            }
        })
    }
}

impl Deref for ChannelNames {
    type Target = [ChannelName];
    fn deref(&self) -> &[ChannelName] {
        match &self.0 {
            Names::One(name) => slice::from_ref(name),
            Names::Several(names) => names,
        }
    }
}

impl From<ChannelName> for ChannelNames {
    fn from(name: ChannelName) -> Self {
        Self(Names::One(name))
    }
}

impl fmt::Debug for ChannelNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_every_allowed_character_and_the_longest_name() {
        let all = "ABCXYZabcxyz0189_.:=+@~-";
        assert_eq!(ChannelName::parse(all).unwrap().as_str(), all);
        assert!(ChannelName::parse(&"x".repeat(200)).is_ok());
    }

    #[test]
    fn names_the_broken_rule() {
        use ChannelNameError as E;
        let cases = [
            ("", E::Empty),
            (".hidden", E::LeadingDot),
            ("..", E::LeadingDot),
            ("a/b", E::Character('/')),
            ("a\0b", E::Character('\0')),
            ("a b", E::Character(' ')),
            ("é", E::Character('é')),
            ("a,b", E::Character(',')),
        ];
        for (name, error) in cases {
            assert_eq!(ChannelName::parse(name), Err(error), "{name:?}");
        }
        assert_eq!(ChannelName::parse(&"x".repeat(201)), Err(E::TooLong(201)));
        assert_eq!(ChannelName::parse_bytes(b"\xff"), Err(E::NotUtf8));
    }

    #[test]
    fn only_the_daemon_can_name_an_internal_channel() {
        use ChannelNameError as E;
        let name = format!(".presence.{}", "x".repeat(200));
        let internal = ChannelName::internal(&name).unwrap();
        assert!(internal.is_internal());
        assert_eq!(ChannelName::from_log(&name), Ok(internal));
        assert_eq!(ChannelName::parse(".presence.news"), Err(E::LeadingDot));
        let news = ChannelName::parse("news").unwrap();
        assert!(!news.is_internal());
        assert_eq!(ChannelName::from_log("news"), Ok(news));
        for (name, error) in [
            ("presence.news", E::NoDot),
            (".", E::Empty),
            (".a/b", E::Character('/')),
            (&format!(".{}", "x".repeat(232)), E::TooLong(232)),
        ] {
            assert_eq!(ChannelName::internal(name), Err(error), "{name:?}");
        }
    }

    #[test]
    fn every_channel_of_clients_has_one_for_its_presence() {
        for name in ["news", &"x".repeat(ChannelName::MAX_LEN)] {
            let channel = ChannelName::parse(name).unwrap();
            let presence = channel.presence().unwrap();
            assert_eq!(ChannelName::internal(&presence), Ok(presence.clone()));
            assert_eq!(presence.presence_of(), Some(name));
            assert_eq!((channel.presence_of(), presence.presence()), (None, None));
        }
    }

    #[test]
    fn a_list_takes_no_more_room_than_a_name() {
        assert_eq!(size_of::<ChannelNames>(), size_of::<ChannelName>());
    }

    #[test]
    fn lists_count_each_name_once_and_at_most_a_hundred() {
        assert_eq!(ChannelNames::parse(["a", "b", "a"]).unwrap().len(), 2);
        assert_eq!(ChannelNames::parse(["a", "a"]).unwrap().len(), 1);
        assert_eq!(ChannelNames::parse([]), Err(ChannelNamesError::None));
        let many: Vec<String> = (0..10_000).map(|i| format!("c{i}")).collect();
        let refused = ChannelNames::parse(many.iter().map(String::as_str));
        assert_eq!(refused, Err(ChannelNamesError::TooMany(10_000)));
    }
}
