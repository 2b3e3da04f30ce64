//! Why a call failed.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use comet_proto::{
    ChannelNameError, ChannelNamesError, EventNameError,
    line::{ErrorCode, KeyError},
};
use nix::{
    errno::Errno,
    unistd::{Gid, Group, Uid, User, geteuid},
};

use crate::{files::FileError, options::OptionsError, path::SocketPathError, spool::SpoolError};

/// Why a call failed. The text fits after "cannot publish: ".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The DSN breaks a rule.
    #[error("{0}")]
    Options(#[from] OptionsError),
    /// `COMET_SOCKET` breaks a rule.
    #[error("{0}")]
    SocketPath(#[from] SocketPathError),
    /// The channel name breaks a rule.
    #[error("{0}")]
    Channel(#[from] ChannelNameError),
    /// The list of channels breaks a rule.
    #[error("{0}")]
    Channels(#[from] ChannelNamesError),
    /// The event name breaks a rule.
    #[error("{0}")]
    Name(#[from] EventNameError),
    /// The idempotency key breaks a rule.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The request contains a line end, so it is more than one line.
    #[error("request may not contain a line end")]
    Line,
    /// No connection; nothing was published.
    #[error("cannot connect to {}: {}{}", path.display(), source.desc(), hint(path, *source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: Errno,
    },
    /// The call took too long. Messages that were sent may still have been published.
    #[error("no answer within {} ms{}", after.as_millis(), doubt(*pending))]
    Timeout {
        /// The limit.
        after: Duration,
        /// Messages that were sent, at least in part, and not acknowledged.
        pending: usize,
    },
    /// The connection was lost after sending. The messages may or may not have been published.
    #[error("connection lost before the acknowledgement{}", doubt(*pending))]
    Unknown {
        /// Messages that were sent, at least in part, and not acknowledged.
        pending: usize,
    },
    /// The daemon refused the message, and did not publish it.
    #[error("the daemon refused: {message}")]
    Refused {
        /// The field or limit that was broken.
        code: ErrorCode,
        /// What was wrong, for people.
        message: String,
    },
    /// The daemon cannot be reached, and the messages could not be stored in the spool.
    #[error("{away}, and {} cannot be spooled: {cause}", messages(*lost))]
    Spool {
        /// Why the daemon cannot be reached.
        away: Box<Error>,
        /// Why the messages could not be stored in the spool.
        cause: SpoolError,
        /// The number of messages that are not in the spool.
        lost: usize,
    },
    /// The daemon's answer is longer than this limit in bytes.
    #[error(
        "the answer is longer than {} MiB: ask for fewer channels, or for messages after a later cursor", .0 >> 20
    )]
    TooLong(usize),
    /// The answer does not come from a Comet daemon.
    #[error("the answer is not from a Comet daemon: {0:?}")]
    Protocol(String),
    /// The file could not be touched or written.
    #[error("{0}")]
    File(#[from] FileError),
}

fn hint(path: &Path, error: Errno) -> String {
    match error {
        Errno::EACCES => {
            let user = User::from_uid(geteuid()).ok().flatten();
            join_group(geteuid(), user.map(|user| user.name), group_of(path))
        }
        Errno::ENOENT | Errno::ECONNREFUSED => " (does the daemon run?)".into(),
        _ => String::new(),
    }
}

/// How this user gets access to the socket.
fn join_group(uid: Uid, user: Option<String>, group: Option<String>) -> String {
    let Some(user) = user else {
        return format!(
            " (only its owner and group may use the socket; user number {uid} has no name on this machine and cannot be \
             added to a group: connect as another user)"
        );
    };
    // The daemon's usual group, where the socket's group cannot be read.
    let group = group.unwrap_or_else(|| "comet".into());
    format!(
        " (only its owner and group may use the socket: add this user to the group with usermod -aG {} {}, then restart \
         the programs of this user, such as php-fpm)",
        shell_word(&group),
        shell_word(&user)
    )
}

/// The group of the socket, or of its directory if the socket cannot be seen. Never the group of root.
fn group_of(path: &Path) -> Option<String> {
    let found = [path, path.parent()?]
        .into_iter()
        .find_map(|path| fs::metadata(path).ok())?;
    let gid = Gid::from_raw(found.gid());
    let group = Group::from_gid(gid).ok().flatten();
    group.filter(|_| gid.as_raw() != 0).map(|group| group.name)
}

/// Quotes a text so that a shell reads it as one word.
fn shell_word(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    match text.bytes().all(is_plain) && !text.is_empty() {
        true => text.into(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

impl Error {
    /// Whether the daemon cannot be reached or is overloaded. If so, the message may be stored in the spool and published later.
    pub(crate) fn is_away(&self) -> bool {
        match self {
            Self::Connect { source, .. } => GONE.contains(source),
            Self::Refused { code, .. } => *code == ErrorCode::Connections,
            Self::Timeout { .. } | Self::Unknown { .. } => true,
            _ => false,
        }
    }
}

/// Errors of `connect` when no daemon runs, when it has no room, or when this process lacks descriptors or memory.
const GONE: [Errno; 9] = [
    Errno::ENOENT,
    Errno::ECONNREFUSED,
    Errno::ECONNRESET,
    Errno::EPIPE,
    Errno::EAGAIN,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::ENOBUFS,
    Errno::ENOMEM,
];

fn messages(lost: usize) -> String {
    match lost {
        1 => String::from("the message"),
        n => format!("{n} messages"),
    }
}

fn doubt(pending: usize) -> String {
    match pending {
        0 => String::from("; nothing was published"),
        1 => String::from("; the message may have been published"),
        n => format!("; {n} messages may have been published"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_says_how_to_get_access() {
        let path = PathBuf::from("/run/comet/comet.sock");
        let source = Errno::EACCES;
        let text = Error::Connect { path, source }.to_string();
        let user = User::from_uid(geteuid()).unwrap().unwrap().name;
        assert!(
            text.starts_with("cannot connect to /run/comet/comet.sock: Permission denied"),
            "{text}"
        );
        assert!(
            text.contains("usermod -aG ") && text.contains(&user),
            "{text}"
        );
    }

    #[test]
    fn the_advice_names_the_user_and_quotes_special_characters() {
        let says = |user: Option<&str>, group: Option<&str>| {
            join_group(
                Uid::from_raw(4711),
                user.map(Into::into),
                group.map(Into::into),
            )
        };
        let cases = [
            (Some("www-data"), None, "usermod -aG comet www-data,"),
            (Some("deploy"), Some("push"), "usermod -aG push deploy,"),
            (
                Some("CORP\\jo"),
                Some("domain users"),
                r"usermod -aG 'domain users' 'CORP\jo',",
            ),
            (Some("o'neil"), None, r"usermod -aG comet 'o'\''neil',"),
        ];
        for (user, group, command) in cases {
            let text = says(user, group);
            assert!(text.contains(command), "{text}");
        }
        let nameless = says(None, Some("comet"));
        assert!(
            nameless.contains("user number 4711 has no name"),
            "{nameless}"
        );
        assert!(!nameless.contains("usermod"), "{nameless}");
    }

    #[test]
    fn a_timeout_says_whether_messages_may_have_been_published() {
        let text = |pending| {
            let after = Duration::from_millis(200);
            Error::Timeout { after, pending }.to_string()
        };
        assert_eq!(text(0), "no answer within 200 ms; nothing was published");
        assert!(text(2).ends_with("; 2 messages may have been published"));
    }
}
