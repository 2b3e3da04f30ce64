//! The channels of a request: `ch1.b5/ch2` are the channels `ch1`, of which the last five messages are sent first, and `ch2`.

use comet_proto::{ChannelName, MAX_CHANNELS};

use crate::compat::names;

/// A channel of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestedChannel {
    pub(crate) channel: ChannelName,
    /// The name in the request, if the channel's own name is a hash of this name.
    pub(crate) hashed: Option<String>,
    /// The number of messages, the last ones that are kept, that a subscriber gets first.
    pub(crate) backtrack: usize,
}

/// Why the channels of a request are refused. The texts are those of the original server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("No channel id provided.")]
    NoChannel,
    /// `ALL` and names with `*` stand for several channels, and only in statistics.
    #[error("Channel id not authorized for this method.")]
    Pattern,
    #[error("Number of channels were exceeded.")]
    TooMany,
}

/// Parses a decoded path. Empty parts are left out. A channel that is listed twice counts once, with the larger number of
/// messages.
pub(crate) fn channels(path: &[u8]) -> Result<Vec<RequestedChannel>, PathError> {
    let mut requested: Vec<RequestedChannel> = Vec::new();
    for part in parts(path) {
        let (name, backtrack) = backtrack(part);
        if name == b"ALL" || name.contains(&b'*') {
            return Err(PathError::Pattern);
        }
        let Some(channel) = names::channel_of(name) else {
            continue;
        };
        let count = requested.len();
        match requested.iter_mut().find(|known| known.channel == channel) {
            Some(known) => known.backtrack = known.backtrack.max(backtrack),
            None if count == MAX_CHANNELS => return Err(PathError::TooMany),
            None => requested.push(RequestedChannel {
                hashed: names::is_hashed(&channel)
                    .then(|| String::from_utf8_lossy(name).into_owned()),
                channel,
                backtrack,
            }),
        }
    }
    match requested.is_empty() {
        true => Err(PathError::NoChannel),
        false => Ok(requested),
    }
}

/// What statistics are asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StatisticsOf {
    /// A summary of all channels.
    Summary,
    /// Each channel whose foreign name begins with this prefix.
    Prefix(Vec<u8>),
    Channels(Vec<ChannelName>),
}

/// Parses the channels of a request for statistics.
pub(crate) fn statistics(path: &[u8]) -> Result<StatisticsOf, PathError> {
    for name in parts(path).map(|part| backtrack(part).0) {
        if name == b"ALL" {
            return Ok(StatisticsOf::Prefix(Vec::new()));
        }
        if let Some(end) = name.iter().position(|&byte| byte == b'*') {
            return Ok(StatisticsOf::Prefix(name[..end].into()));
        }
    }
    match channels(path) {
        Ok(channels) => {
            let names = channels.into_iter().map(|requested| requested.channel);
            Ok(StatisticsOf::Channels(names.collect()))
        }
        Err(PathError::NoChannel) => Ok(StatisticsOf::Summary),
        Err(error) => Err(error),
    }
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
}

/// Splits `.bN` off a part of the path. A number that is too large counts as the largest one.
fn backtrack(part: &[u8]) -> (&[u8], usize) {
    let digits = part.iter().rev().take_while(|byte| byte.is_ascii_digit());
    let (name, number) = part.split_at(part.len() - digits.count());
    match name.strip_suffix(b".b") {
        Some(name) if !number.is_empty() => {
            let number = number.iter().fold(0usize, |number, digit| {
                let digit = usize::from(digit - b'0');
                number.saturating_mul(10).saturating_add(digit)
            });
            (name, number)
        }
        _ => (part, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Vec<(String, usize)> {
        let channels = channels(path.as_bytes()).unwrap().into_iter();
        channels
            .map(|requested| (requested.channel.to_string(), requested.backtrack))
            .collect()
    }

    fn one(name: &str, backtrack: usize) -> Vec<(String, usize)> {
        vec![(name.to_owned(), backtrack)]
    }

    #[test]
    fn each_channel_has_its_number_of_messages() {
        let both = [one("ch1", 5), one("ch2", 0)].concat();
        for path in [
            "ch1.b5/ch2",
            "/ch1.b5/ch2",
            "//ch1.b5//ch2/",
            "ch1.b05/ch2.b0",
        ] {
            assert_eq!(parsed(path), both, "{path}");
        }
        for (path, name, backtrack) in [
            ("ch1.b", "ch1.b", 0),
            ("ch1b5", "ch1b5", 0),
            ("ch1.b5x", "ch1.b5x", 0),
            ("ch1.b3.b2", "ch1.b3", 2),
            ("ch1.b-1", "ch1.b-1", 0),
            ("5", "5", 0),
            ("ch1.b99999999999999999999999", "ch1", usize::MAX),
            ("a b=c", "a=20b=3Dc", 0),
        ] {
            assert_eq!(parsed(path), one(name, backtrack), "{path}");
        }
    }

    #[test]
    fn a_channel_counts_once() {
        assert_eq!(parsed("a.b2/a/a.b3/a.b1"), one("a", 3));
    }

    #[test]
    fn the_rules_are_those_of_the_original_server() {
        let path = |count: usize| (0..count).map(|i| format!("/c{i}")).collect::<String>();
        for (path, error) in [
            (String::new(), PathError::NoChannel),
            ("/".to_owned(), PathError::NoChannel),
            (".b5".to_owned(), PathError::NoChannel),
            ("a/ALL".to_owned(), PathError::Pattern),
            ("ALL.b5".to_owned(), PathError::Pattern),
            ("a*".to_owned(), PathError::Pattern),
            (path(101), PathError::TooMany),
        ] {
            assert_eq!(channels(path.as_bytes()), Err(error), "{path}");
        }
        assert_eq!(parsed(&path(100)).len(), 100);
        assert_eq!(parsed(&(path(100) + "/c7.b1"))[7].1, 1);
    }

    #[test]
    fn statistics_are_of_all_some_or_by_prefix() {
        let names = |names: &[&str]| {
            let names = names.iter().map(|name| ChannelName::parse(name).unwrap());
            Ok(StatisticsOf::Channels(names.collect()))
        };
        let prefix = |prefix: &str| Ok(StatisticsOf::Prefix(prefix.as_bytes().into()));
        for (path, expected) in [
            ("", Ok(StatisticsOf::Summary)),
            ("/", Ok(StatisticsOf::Summary)),
            ("ALL", prefix("")),
            ("*", prefix("")),
            ("a/chan_*", prefix("chan_")),
            ("a/b", names(&["a", "b"])),
            ("all", names(&["all"])),
        ] {
            assert_eq!(statistics(path.as_bytes()), expected, "{path}");
        }
    }
}
