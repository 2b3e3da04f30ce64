//! Which channels a token is about: a name, the start of one with `*` behind it, or `*` for all.

use comet_proto::{ChannelName, ChannelNameError};

#[derive(Debug, PartialEq)]
pub(super) enum Pattern {
    Name(ChannelName),
    Start(Box<str>),
}

impl Pattern {
    /// What stands before a `*` ends in a separator: `user.4*` would let `user.42` in by mistake.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let Some(start) = text.strip_suffix('*') else {
            return ChannelName::parse(text).ok().map(Self::Name);
        };
        let is_start = match ChannelName::parse(start) {
            Ok(_) => start.ends_with(|c: char| !c.is_ascii_alphanumeric()),
            Err(e) => e == ChannelNameError::Empty,
        };
        is_start.then(|| Self::Start(start.into()))
    }

    pub(super) fn matches(&self, channel: &ChannelName) -> bool {
        match self {
            Self::Name(name) => name == channel,
            Self::Start(start) => channel.as_str().starts_with(&**start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_the_rest_of_a_name() {
        let cases = [
            ("*", "anything", true),
            ("user.42.*", "user.42.mail", true),
            ("user.42.*", "user.42.", true),
            ("user.42.*", "user.42", false),
            ("user.42.*", "user.421", false),
            ("news", "news", true),
            ("news", "news.1", false),
            ("chat:*", "chat:7", true),
        ];
        for (pattern, name, matches) in cases {
            let parsed = Pattern::parse(pattern).unwrap();
            let name = ChannelName::parse(name).unwrap();
            assert_eq!(parsed.matches(&name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn a_star_stands_nowhere_else() {
        let long = "a".repeat(201);
        for text in [
            "",
            "user.4*",
            "*.mail",
            "user.*.mail",
            "**",
            "a.**",
            ".*",
            "a/b",
            "a b*",
            &long,
        ] {
            assert_eq!(Pattern::parse(text), None, "{text:?}");
        }
    }
}
