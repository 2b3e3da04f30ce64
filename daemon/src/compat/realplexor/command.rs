//! The commands of the IN line: ONLINE, WATCH and STATS.

use super::online::Prefixes;

/// A command of a publisher.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    Online(Vec<&'a str>),
    Watch {
        cursor: &'a str,
        prefixes: Vec<&'a str>,
    },
    Stats,
}

impl<'a> Command<'a> {
    /// Parses a command word, in any case, and its arguments. `None`: the text does not begin with a command word.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let word = text.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        let (word, rest) = text.split_at(word);
        if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
            return None;
        }
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        // Ids are ASCII, so an argument that is no text is the prefix of no id.
        let arguments = rest
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        let mut arguments = arguments.map(|word| str::from_utf8(word).unwrap_or("?"));
        Some(match () {
            () if is("online") => Self::Online(arguments.collect()),
            () if is("watch") => Self::Watch {
                cursor: arguments.next().unwrap_or_default(),
                prefixes: arguments.collect(),
            },
            () if is("stats") => Self::Stats,
            () => return None,
        })
    }
}

/// The ids that a command may show. `login`: the name of the publisher, who only sees ids that begin with this name.
pub(crate) fn shown<'a>(login: Option<&str>, mut prefixes: Vec<&'a str>) -> Prefixes<'a> {
    if let Some(login) = login {
        prefixes.retain(|prefix| is_own(login, prefix));
        return Prefixes::Of(prefixes);
    }
    match prefixes.is_empty() {
        true => Prefixes::All,
        false => Prefixes::Of(prefixes),
    }
}

/// Whether the id belongs to the publisher with this name.
pub(crate) fn is_own(login: &str, id: &str) -> bool {
    let rest = id.strip_prefix(login);
    rest.is_some_and(|rest| rest.starts_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_words_with_arguments() {
        let parse = |text: &'static str| Command::parse(text.as_bytes());
        assert_eq!(parse("online"), Some(Command::Online(vec![])));
        assert_eq!(
            parse("ONLINE  a_\tb_\r\n"),
            Some(Command::Online(vec!["a_", "b_"]))
        );
        let watch = |cursor, prefixes| Some(Command::Watch { cursor, prefixes });
        assert_eq!(parse("Watch 10 a_\n"), watch("10", vec!["a_"]));
        assert_eq!(parse("watch\n"), watch("", vec![]));
        assert_eq!(parse("stats\n"), Some(Command::Stats));
        for text in [
            "",
            "onlin",
            "onlines",
            "online,a",
            "\nonline",
            "\"online\"",
            "POST / HTTP/1.1",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_publisher_with_a_login_sees_its_own_ids_only() {
        assert_eq!(shown(None, vec![]), Prefixes::All);
        assert_eq!(shown(None, vec!["a"]), Prefixes::Of(vec!["a"]));
        assert_eq!(shown(Some("me"), vec![]), Prefixes::Of(vec![]));
        assert_eq!(
            shown(Some("me"), vec!["a", "me", "me_", "me_x", "menu_"]),
            Prefixes::Of(vec!["me_", "me_x"])
        );
    }
}
