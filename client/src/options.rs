//! The DSN: one string with all options of a publisher, so that options can be added without a new ABI.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::path::{SocketPathError, socket_path};

/// The part of a call's time that is reserved for the spool, if the message may go there, and its upper limit.
const SPOOL_PART: u32 = 5;
const SPOOL_TIME: Duration = Duration::from_secs(1);

/// How to publish: `unix:[PATH][?timeout_ms=500&dir=/dev/shm&key=PREFIX&spool=DIR]`, or nothing for the defaults.
/// In the path and in values `%XX` is the byte with that hexadecimal number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The daemon's socket; `None` leaves it to [`socket_path`].
    pub socket: Option<PathBuf>,
    /// Longest time that one call may take, over connecting, sending and waiting for the answer: 1 ms to 60 s,
    /// by default 500 ms.
    pub timeout: Duration,
    /// Where [`crate::Directory`] touches and writes files; by default `/dev/shm`.
    pub dir: PathBuf,
    /// Prefix of idempotency keys, at most 64 bytes. Each message without a key gets a key with this prefix. If the
    /// acknowledgement is lost, the client then sends the message again, and the message is still published once.
    pub key: Option<String>,
    /// Whether messages are stored in the spool while no daemon runs.
    pub spool: SpoolUse,
}

/// Which messages may go to the spool, and its directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SpoolUse {
    /// Messages of calls that ask for it, such as [`crate::Client::publish_or_spool`].
    #[default]
    Asked,
    /// No message, even if a call asks for it.
    Off,
    /// All messages, to the spool beside the socket.
    On,
    /// All messages, to this directory.
    In(PathBuf),
}

/// Why a DSN was refused. The text fits after "invalid DSN: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The DSN is not UTF-8.
    #[error("DSN is not UTF-8")]
    NotUtf8,
    /// The scheme is not `unix:`.
    #[error("DSN must start with \"unix:\", as in unix:/run/comet/comet.sock?timeout_ms=200")]
    Scheme,
    /// An option has no value, or is unknown.
    #[error("unknown option {0:?} (known: timeout_ms, dir, key, spool)")]
    Unknown(String),
    /// An option is set twice.
    #[error("option {0} is given twice")]
    Twice(&'static str),
    /// A `%` is not followed by two hexadecimal digits, or the decoded text is not UTF-8.
    #[error("{0:?} has a % that is not followed by two hexadecimal digits of a UTF-8 byte")]
    Percent(String),
    /// The value is not a number, or out of bounds.
    #[error("timeout_ms must be a number from 1 to 60000, not {0:?}")]
    Timeout(String),
    /// The directory is a relative path.
    #[error("dir must be an absolute path, not {0:?}")]
    Dir(String),
    /// The key is empty or too long.
    #[error("key must have 1 to 64 bytes")]
    Key,
    /// The value of `spool` is invalid.
    #[error("spool must be on, off or an absolute path, not {0:?}")]
    Spool(String),
    /// The socket path is invalid.
    #[error(transparent)]
    Socket(#[from] SocketPathError),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            socket: None,
            timeout: Duration::from_millis(500),
            dir: "/dev/shm".into(),
            key: None,
            spool: SpoolUse::default(),
        }
    }
}

impl Options {
    /// Parses a DSN.
    ///
    /// # Errors
    /// Names the option and the rule that it breaks.
    pub fn parse(dsn: &str) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        if dsn.is_empty() {
            return Ok(options);
        }
        let rest = dsn.strip_prefix("unix:").ok_or(OptionsError::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.is_empty() {
            options.socket = Some(socket_path(Some(Path::new(&decode(path)?)))?);
        }
        let mut seen: Vec<&'static str> = Vec::new();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let name = options.set(option)?;
            if seen.contains(&name) {
                return Err(OptionsError::Twice(name));
            }
            seen.push(name);
        }
        Ok(options)
    }

    /// Whether a message may go to the spool. `asked`: the call asks for it.
    pub(crate) fn spools(&self, asked: bool) -> bool {
        match self.spool {
            SpoolUse::Asked => asked,
            SpoolUse::Off => false,
            SpoolUse::On | SpoolUse::In(_) => true,
        }
    }

    /// How long a call may wait for the daemon. If the message may go to the spool, some time is reserved for the spool. `spool`:
    /// the call asks for the spool.
    #[must_use]
    pub fn time_for_daemon(&self, spool: bool) -> Duration {
        if self.spools(spool) {
            self.timeout - (self.timeout / SPOOL_PART).min(SPOOL_TIME)
        } else {
            self.timeout
        }
    }

    fn set(&mut self, option: &str) -> Result<&'static str, OptionsError> {
        let unknown = || OptionsError::Unknown(option.to_owned());
        let (name, value) = option.split_once('=').ok_or_else(unknown)?;
        let value = decode(value)?;
        match name {
            "timeout_ms" => {
                let ms = value.parse().ok().filter(|ms| (1..=60_000).contains(ms));
                self.timeout = Duration::from_millis(ms.ok_or(OptionsError::Timeout(value))?);
                Ok("timeout_ms")
            }
            "dir" if is_path(&value) => {
                self.dir = value.into();
                Ok("dir")
            }
            "dir" => Err(OptionsError::Dir(value)),
            "key" if (1..=64).contains(&value.len()) => {
                self.key = Some(value);
                Ok("key")
            }
            "key" => Err(OptionsError::Key),
            "spool" => {
                self.spool = match value.as_str() {
                    "on" => SpoolUse::On,
                    "off" => SpoolUse::Off,
                    path if is_path(path) => SpoolUse::In(path.into()),
                    _ => return Err(OptionsError::Spool(value)),
                };
                Ok("spool")
            }
            _ => Err(OptionsError::Unknown(name.to_owned())),
        }
    }
}

/// Checks for an absolute path.
fn is_path(value: &str) -> bool {
    value.starts_with('/') && !value.contains('\0')
}

fn decode(text: &str) -> Result<String, OptionsError> {
    let error = || OptionsError::Percent(text.to_owned());
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let hex = part.get(..2).ok_or_else(error)?;
        if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(error());
        }
        bytes.push(u8::from_str_radix(hex, 16).map_err(|_| error())?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_option() {
        let dsn =
            "unix:/tmp/a%3Fb.sock?timeout_ms=200&dir=/srv/my%20files&key=shop&spool=/srv/a%26b";
        let options = Options {
            socket: Some("/tmp/a?b.sock".into()),
            timeout: Duration::from_millis(200),
            dir: "/srv/my files".into(),
            key: Some("shop".into()),
            spool: SpoolUse::In("/srv/a&b".into()),
        };
        assert_eq!(Options::parse(dsn), Ok(options));
    }

    #[test]
    fn the_spool_is_on_off_or_a_directory() {
        let spool = |dsn| Options::parse(dsn).unwrap().spool;
        assert_eq!(spool("unix:"), SpoolUse::Asked);
        assert_eq!(spool("unix:?spool=on"), SpoolUse::On);
        assert_eq!(spool("unix:?spool=off"), SpoolUse::Off);
    }

    #[test]
    fn an_empty_dsn_means_the_defaults() {
        for dsn in ["", "unix:", "unix:?"] {
            assert_eq!(Options::parse(dsn), Ok(Options::default()), "{dsn:?}");
        }
    }

    #[test]
    fn names_the_option_and_the_rule() {
        use OptionsError as E;
        let cases = [
            ("/run/comet.sock", E::Scheme),
            ("tcp:127.0.0.1", E::Scheme),
            ("unix:a\0b", E::Socket(SocketPathError::Nul)),
            ("unix:?timeout=5", E::Unknown("timeout".into())),
            ("unix:?dir", E::Unknown("dir".into())),
            ("unix:?timeout_ms=0", E::Timeout("0".into())),
            ("unix:?timeout_ms=60001", E::Timeout("60001".into())),
            ("unix:?timeout_ms=-1", E::Timeout("-1".into())),
            ("unix:?dir=here", E::Dir("here".into())),
            ("unix:?dir=/a%00", E::Dir("/a\0".into())),
            ("unix:?spool=yes", E::Spool("yes".into())),
            ("unix:?key=", E::Key),
            ("unix:?key=a&key=b", E::Twice("key")),
            ("unix:?dir=/%", E::Percent("/%".into())),
            ("unix:?dir=/%+1", E::Percent("/%+1".into())),
            ("unix:?dir=/%ff", E::Percent("/%ff".into())),
            ("unix:?dir=/%é", E::Percent("/%é".into())),
        ];
        for (dsn, error) in cases {
            assert_eq!(Options::parse(dsn), Err(error), "{dsn:?}");
        }
    }
}
