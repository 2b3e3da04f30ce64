//! Reads the configuration file. The file is TOML, and an unknown key is an error.

use std::{
    fmt, fs,
    io::{self, Read},
    ops::Range,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::OFlag;
use serde::{Deserialize, Deserializer, de};
use toml::de::{DeTable, DeValue};

use super::{Config, value};
use crate::hub::{HistoryConfig, Limits};

/// Why a configuration file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The content breaks a rule.
    #[error("{}:{mistake}", path.display())]
    Mistake {
        /// The file.
        path: PathBuf,
        /// The place and the reason.
        mistake: Mistake,
    },
}

/// The first mistake in a file.
#[derive(Debug)]
pub struct Mistake {
    line: usize,
    column: usize,
    /// The full key, such as `socket.idle`; empty when the text is not TOML.
    key: String,
    reason: String,
    /// The text of the line.
    text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = (self.line, self.column);
        write!(f, "{line}:{column}: ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.reason)?;
        if !self.text.trim().is_empty() {
            write!(f, "\n  {line} | {}", self.text)?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads a file. Settings that are not in the file have their defaults.
    ///
    /// # Errors
    /// Names the line, the key, and a correct value.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read_regular(path).map_err(|cause| ConfigError::Read {
            path: path.into(),
            cause,
        })?;
        Self::parse(&text).map_err(|mistake| ConfigError::Mistake {
            path: path.into(),
            mistake,
        })
    }

    /// Like [`Config::read`], but parses a text.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        toml::from_str(text).map_err(|error| Mistake::new(text, &error))
    }
}

/// Reads a whole regular file. Other kinds of files are refused at once, because opening a FIFO would wait for a writer, and
/// reading a device may never end.
pub(crate) fn read_regular(path: &Path) -> io::Result<String> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let mut options = fs::OpenOptions::new();
    let mut file = options.read(true).custom_flags(flags.bits()).open(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() {
        let what = match () {
            () if kind.is_dir() => "a directory",
            () if kind.is_fifo() => "a FIFO or pipe",
            () => "a device",
        };
        return Err(io::Error::other(format!(
            "it is {what}, not a regular file"
        )));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

impl Mistake {
    fn new(text: &str, error: &toml::de::Error) -> Self {
        let span = error.span().unwrap_or(0..0);
        let before = text.get(..span.start).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let table = DeTable::parse(text).ok();
        let key = table
            .as_ref()
            .and_then(|table| find_key(table.get_ref(), &span));
        Self {
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            key: key.unwrap_or_default().join("."),
            reason: in_words_of_toml(error.message(), text.get(span).unwrap_or_default()),
            text: text[start..].lines().next().unwrap_or_default().into(),
        }
    }
}

/// The message of the parser in the words of TOML. The parser calls a table a "map", and a list or a table with two brackets
/// a "sequence".
fn in_words_of_toml(message: &str, place: &str) -> String {
    let message = message.trim_end().replace('\n', ", ");
    let Some(found) = message.strip_suffix(", expected a sequence") else {
        return message;
    };
    let place = place.lines().next().unwrap_or_default();
    let expected = match place.starts_with('[') {
        true => format!("a table with two brackets: [{place}]"),
        false => format!("a list, such as [{place}]"),
    };
    let found = found.replace("type: map", "type: table");
    format!("{found}, expected {expected}")
}

/// The keys that lead to the value with the error, outermost first.
fn find_key<'a>(table: &'a DeTable<'_>, place: &Range<usize>) -> Option<Vec<&'a str>> {
    let within = |span: Range<usize>| span.start <= place.start && place.end <= span.end;
    table.iter().find_map(|(name, value)| {
        let inner = match value.get_ref() {
            DeValue::Table(table) => find_key(table, place),
            DeValue::Array(items) => items
                .iter()
                .find_map(|item| find_key(item.get_ref().as_table()?, place)),
            _ => None,
        };
        let here = || (within(name.span()) || within(value.span())).then(Vec::new);
        let mut keys = inner.or_else(here)?;
        keys.insert(0, name.get_ref());
        Some(keys)
    })
}

/// `[history]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table [history]")]
struct HistoryTable {
    messages: usize,
    #[serde(deserialize_with = "value::size::<_, 0>")]
    bytes: usize,
    #[serde(deserialize_with = "value::duration::<_, 1000>")]
    age: Duration,
    #[serde(deserialize_with = "value::size::<_, 65536>")]
    total: usize,
    prefix: Vec<PrefixTable>,
}

/// `[[history.prefix]]`. Limits that are not set have the value of `[history]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [[history.prefix]]")]
struct PrefixTable {
    #[serde(deserialize_with = "value::prefix")]
    prefix: String,
    messages: Option<usize>,
    #[serde(default, deserialize_with = "value::some_size::<_, 0>")]
    bytes: Option<usize>,
    #[serde(default, deserialize_with = "value::some_duration::<_, 1000>")]
    age: Option<Duration>,
}

impl Default for HistoryTable {
    fn default() -> Self {
        let config = HistoryConfig::default();
        Self {
            messages: config.default.messages,
            bytes: config.default.bytes,
            age: config.default.age,
            total: super::default_total(),
            prefix: Vec::new(),
        }
    }
}

pub(super) fn history<'de, D: Deserializer<'de>>(d: D) -> Result<HistoryConfig, D::Error> {
    let table = HistoryTable::deserialize(d)?;
    let default = Limits {
        messages: table.messages,
        bytes: table.bytes,
        age: table.age,
    };
    let mut prefixes: Vec<(String, Limits)> = Vec::new();
    for own in table.prefix {
        if prefixes.iter().any(|(prefix, _)| *prefix == own.prefix) {
            let prefix = own.prefix;
            return Err(de::Error::custom(format!("prefix {prefix:?} is set twice")));
        }
        let limits = Limits {
            messages: own.messages.unwrap_or(default.messages),
            bytes: own.bytes.unwrap_or(default.bytes),
            age: own.age.unwrap_or(default.age),
        };
        prefixes.push((own.prefix, limits));
    }
    Ok(HistoryConfig {
        default,
        prefixes,
        total_bytes: table.total,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../docs/comet.toml");

    /// The example file, with the settings that it shows as comments (`#key = …`, `#[[table]]`) switched on.
    fn with_optional_settings() -> String {
        let active = |line: &str| {
            let is_setting =
                |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
            let rest = line.strip_prefix('#').filter(|rest| is_setting(rest));
            rest.unwrap_or(line).to_owned() + "\n"
        };
        EXAMPLE.lines().map(active).collect()
    }

    #[test]
    fn the_example_shows_the_defaults() {
        assert_eq!(Config::parse(EXAMPLE).unwrap(), Config::default());
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn the_optional_settings_of_the_example_are_right() {
        let config = Config::parse(&with_optional_settings()).unwrap();
        assert_eq!(config.history.prefixes.len(), 1);
        assert!(config.workers.is_some() && config.socket.path.is_some());
        assert!(config.spool.dir.is_some());
    }

    #[test]
    fn the_example_shows_the_defaults_of_push_stream() {
        let config = Config::parse(&with_optional_settings()).unwrap();
        let shown = config.compat.push_stream.unwrap();
        let expected = crate::config::PushStreamConfig {
            stream_header: shown.stream_header.clone(),
            ..Default::default()
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_example_has_every_key() {
        let text = with_optional_settings();
        let example: toml::Table = text.parse().unwrap();
        for table in [
            "", "history", "auth", "files", "socket", "spool", "http", "compat",
        ] {
            let shown = if table.is_empty() {
                &example
            } else {
                example[table].as_table().unwrap()
            };
            let header = if table.is_empty() {
                String::new()
            } else {
                format!("[{table}]\n")
            };
            let refusal = Config::parse(&format!("{header}no_such_key = 1")).unwrap_err();
            assert!(refusal.reason.contains("unknown field"), "{refusal}");
            // `unknown field `x`, expected one of `a`, `b`…`
            let known: Vec<&str> = refusal.reason.split('`').skip(3).step_by(2).collect();
            assert!(known.len() > 1, "{refusal}");
            for key in known {
                assert!(shown.contains_key(key), "[{table}] lacks {key}");
            }
        }
        let compat = example["compat"].as_table().unwrap();
        for (name, shown) in compat.iter().filter(|(_, shown)| shown.is_table()) {
            let refusal = Config::parse(&format!("[compat.{name}]\nno_such_key = 1")).unwrap_err();
            let known = refusal.reason.split('`').skip(3).step_by(2);
            assert!(known.clone().count() > 1, "{refusal}");
            for key in known {
                assert!(shown.get(key).is_some(), "[compat.{name}] lacks {key}");
            }
        }
        let key = example["auth"]["key"][0].as_table().unwrap();
        let refusal = Config::parse("[[auth.key]]\nno_such_key = 1").unwrap_err();
        let known = refusal.reason.split('`').skip(3).step_by(2);
        assert!(known.clone().count() == 6, "{refusal}");
        for name in known {
            assert!(key.contains_key(name), "[[auth.key]] lacks {name}");
        }
    }

    #[test]
    fn a_prefix_takes_from_history_what_it_does_not_set() {
        let text = "[history]\nage = \"1h\"\nbytes = \"1MiB\"\n[[history.prefix]]\nprefix = \"chat:\"\nmessages = 7\nage = 90\n";
        let history = Config::parse(text).unwrap().history;
        let limits = Limits {
            messages: 7,
            bytes: 1 << 20,
            age: Duration::from_secs(90),
        };
        assert_eq!(history.prefixes, [("chat:".to_owned(), limits)]);
        assert_eq!(history.default.age, Duration::from_secs(3600));
    }

    #[test]
    fn mistakes_name_line_key_and_what_would_be_right() {
        let cases = [
            ("x", "1:2: ", "expected"),
            ("dir = \"a\"\ndir = \"b\"", "2:1: ", "duplicate key"),
            (
                "lissten = \"\"",
                "1:1: lissten: ",
                "expected one of `dir`, `listen`",
            ),
            ("dir = 5", "1:7: dir: ", "expected a string"),
            ("dir = \"\"", "1:7: dir: ", "may not be empty"),
            (
                "listen = \"localhost\"",
                "1:10: listen: ",
                "IP:PORT, such as 127.0.0.1:2061",
            ),
            ("\nworkers = 0", "2:11: workers: ", "1 to 63"),
            ("demo = \"yes\"", "1:8: demo: ", "a boolean"),
            (
                "grace = \"5 minutes\"",
                "1:9: grace: ",
                "such as \"500ms\" or \"10m\"",
            ),
            ("grace = 1.5", "1:9: grace: ", "a number, or a text"),
            ("grace = -1", "1:9: grace: ", "a number, or a text"),
            (
                "grace = \"99999999999999999999d\"",
                "1:9: grace: ",
                "is not a duration",
            ),
            ("grace = \"367d\"", "1:9: grace: ", "at most 366d"),
            (
                "socket = \"/run/x\"",
                "1:10: socket: ",
                "[socket], with its `path`",
            ),
            ("[socket]\nidle = 0", "2:8: socket.idle: ", "at least 1 ms"),
            (
                "[socket]\nmax_line = \"1k\"",
                "2:12: socket.max_line: ",
                "B, KiB, MiB or GiB",
            ),
            (
                "[socket]\nmax_line = 10",
                "2:12: socket.max_line: ",
                "at least 1024",
            ),
            (
                "[socket]\nmax_connections = 0",
                "2:19: socket.max_connections: ",
                "at least 1",
            ),
            (
                "[socket]\nallow = [\n  \"any\",\n  \"www-data\",\n]",
                "2:9: socket.allow: ",
                "\"user:NAME\"",
            ),
            (
                "[files]\nallow = [\"user:no-such\"]",
                "2:9: files.allow: ",
                "no such user",
            ),
            (
                "[history]\nage = \"10ms\"",
                "2:7: history.age: ",
                "at least 1000 ms",
            ),
            (
                "[[history.prefix]]\nmessages = 1",
                "1:1: history.prefix: ",
                "missing field `prefix`",
            ),
            (
                "[[history.prefix]]\nprefix = \"a/b\"",
                "2:10: history.prefix.prefix: ",
                "may not contain '/'",
            ),
            (
                "[http]\nhosts = \"example.org\"",
                "2:9: http.hosts: ",
                "expected a list, such as [\"example.org\"]",
            ),
            (
                "[channel]\nprefix = \"\"",
                "1:1: channel: ",
                "type: table, expected a table with two brackets: [[channel]]",
            ),
            (
                "[history.prefix]\nprefix = \"\"",
                "1:1: history.prefix: ",
                "two brackets: [[history.prefix]]",
            ),
            (
                "[http]\norigins = [\"https://a.org/\"]",
                "2:11: http.origins: ",
                "no slash at the end",
            ),
            (
                "[http]\nhosts = [\"https://a.org\"]",
                "2:9: http.hosts: ",
                "no scheme, no port",
            ),
            (
                "[compat]\nnovcomet = \"comet.php\"",
                "2:12: compat.novcomet: ",
                "starts with a slash",
            ),
            (
                "[compat]\nzeitoun_channel = \"\"",
                "2:19: compat.zeitoun_channel: ",
                "may not be empty",
            ),
        ];
        for (text, place, reason) in cases {
            let mistake = Config::parse(text).expect_err(text).to_string();
            assert!(mistake.starts_with(place), "{text:?}: {mistake}");
            assert!(mistake.contains(reason), "{text:?}: {mistake}");
        }
    }
}
