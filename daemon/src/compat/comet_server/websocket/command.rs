//! The commands of a page: a name and arguments, one on each line.

use std::collections::BTreeSet;

use comet_proto::ChannelName;

use super::super::{UserId, pipes};

/// Maximum number of pipes that a page subscribes to.
pub(crate) const MAX_PIPES: usize = 32;

/// A command of a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// The complete new list of pipes.
    Subscribe(PipeList),
    Publish(WebMessage<'a>),
    Log {
        pipe: ChannelName,
    },
    Count {
        pipe: ChannelName,
        marker: &'a str,
    },
    Members {
        pipe: ChannelName,
        marker: &'a str,
    },
    UserData {
        marker: &'a str,
        user: UserId,
    },
    UserStatus(UserId),
    /// What the script reports about itself. It is not used.
    Statistics,
}

/// The pipes of a list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PipeList {
    /// At most [`MAX_PIPES`].
    pub(crate) pipes: BTreeSet<ChannelName>,
    /// The list has more pipes than that.
    pub(crate) is_cut: bool,
    /// A name in the list is too long.
    pub(crate) has_long_name: bool,
}

/// A message that a page publishes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WebMessage<'a> {
    pub(crate) pipe: ChannelName,
    pub(crate) event: &'a str,
    pub(crate) payload: &'a str,
    /// The message says which user has sent it.
    pub(crate) is_signed: bool,
}

/// Why a command is refused. The texts of the first errors are those of the original server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("[pipe_msg2] Invalid channel name. The channel should begin with web_")]
    NotWeb,
    #[error(
        "[webauth_pipe_msg2] Invalid user auth. In to channel with name like webauth_* can not send messages anonim users"
    )]
    Anonymous,
    #[error("[pipe_count] Invalid channel name. The channel should start with web_")]
    NotCounted,
    #[error("[track_pipe_users] Invalid channel name. The channel should start with track_")]
    NotTracked,
    #[error("Invalid channel name.")]
    Pipe,
    #[error("Invalid event name")]
    Event,
    #[error("Invalid marker value.")]
    Marker,
    #[error("Invalid user id")]
    User,
    #[error("Invalid value auth_type")]
    AuthType,
    #[error("this server has no command {0:?}")]
    Unknown(String),
    /// The client may not do this, for a reason in words.
    #[error("{0}")]
    Refused(String),
}

type Parsed<T> = Result<T, CommandError>;

/// The pipes to which pages may publish.
const WEB: [&str; 2] = ["web_", "webauth_"];

/// The pipes whose subscribers see who joins and leaves.
pub(crate) const TRACK: &str = "track_";

impl<'a> Command<'a> {
    pub(crate) fn parse(text: &'a str) -> Parsed<Self> {
        let (name, rest) = text.split_once('\n').unwrap_or((text, ""));
        Ok(match name {
            "subscription" => Self::Subscribe(PipeList::parse(rest)),
            "web_pipe2" => Self::Publish(WebMessage::parse(rest)?),
            "pipe_log" => {
                let (pipe, rest) = pipe(rest)?;
                marker(rest)?;
                Self::Log { pipe }
            }
            "pipe_count" => {
                let (pipe, rest) = pipe(rest)?;
                if !pipe.starts_with("web_") && !pipe.starts_with(TRACK) {
                    return Err(CommandError::NotCounted);
                }
                let marker = marker(rest)?.0;
                Self::Count { pipe, marker }
            }
            "track_pipe_users" => {
                let (pipe, rest) = pipe(rest)?;
                if !pipe.starts_with(TRACK) {
                    return Err(CommandError::NotTracked);
                }
                let marker = marker(rest)?.0;
                Self::Members { pipe, marker }
            }
            "user_data" => {
                let (marker, rest) = marker(rest)?;
                let user = user(rest)?;
                Self::UserData { marker, user }
            }
            "user_status" => Self::UserStatus(user(rest)?),
            "statistics" => Self::Statistics,
            other => {
                let other = other.chars().take(32).collect();
                return Err(CommandError::Unknown(other));
            }
        })
    }
}

impl PipeList {
    /// Reads names that are separated by any character that is not in a name. Names of one character are left out, and
    /// so are the two names that are no pipes.
    fn parse(text: &str) -> Self {
        let mut list = Self::default();
        let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let names = text.split(|c| !in_name(c)).filter(|name| name.len() > 1);
        for name in names.filter(|name| !["msg", "sys"].contains(name)) {
            let Some(pipe) = ChannelName::parse(name).ok().filter(|_| name.len() <= 64) else {
                list.has_long_name = true;
                continue;
            };
            match list.pipes.len() < MAX_PIPES || list.pipes.contains(&pipe) {
                true => _ = list.pipes.insert(pipe),
                false => list.is_cut = true,
            }
        }
        list
    }
}

impl<'a> WebMessage<'a> {
    fn parse(rest: &'a str) -> Parsed<Self> {
        let unsigned = rest.strip_prefix('@');
        let unsigned = unsigned.filter(|rest| rest.starts_with(WEB[0]));
        let rest_of = unsigned.unwrap_or(rest);
        if !WEB.iter().any(|prefix| rest_of.starts_with(prefix)) {
            return Err(CommandError::NotWeb);
        }
        let (pipe, rest_of) = pipe(rest_of)?;
        let (event, rest_of) = rest_of.split_once('\n').ok_or(CommandError::Event)?;
        pipes::check_event(event).map_err(|_| CommandError::Event)?;
        let payload = rest_of.strip_prefix("*\n").ok_or(CommandError::AuthType)?;
        Ok(Self {
            pipe,
            event,
            payload,
            is_signed: unsigned.is_none(),
        })
    }

    /// Whether only pages of a user may publish to this pipe.
    pub(crate) fn needs_user(&self) -> bool {
        self.pipe.starts_with(WEB[1])
    }
}

/// The pipe on the first line, and the other lines.
fn pipe(text: &str) -> Parsed<(ChannelName, &str)> {
    let (name, rest) = text.split_once('\n').unwrap_or((text, ""));
    let pipe = pipes::pipe(name).map_err(|_| CommandError::Pipe)?;
    Ok((pipe, rest))
}

/// The marker on the first line, and the other lines. The answer repeats the marker.
fn marker(text: &str) -> Parsed<(&str, &str)> {
    let (marker, rest) = text.split_once('\n').unwrap_or((text, ""));
    let checked = pipes::check_event(marker);
    checked.map_err(|_| CommandError::Marker)?;
    match marker.is_empty() {
        true => Err(CommandError::Marker),
        false => Ok((marker, rest)),
    }
}

fn user(text: &str) -> Parsed<UserId> {
    let line = text.lines().next().unwrap_or_default();
    UserId::parse(line).ok_or(CommandError::User)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name).unwrap()
    }

    fn list(text: &str) -> (Vec<String>, bool, bool) {
        match Command::parse(text).unwrap() {
            Command::Subscribe(list) => (
                list.pipes.iter().map(ToString::to_string).collect(),
                list.is_cut,
                list.has_long_name,
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_commands_of_the_scripts_are_read() {
        use Command as C;
        let user = UserId::parse("2").unwrap();
        for (text, command) in [
            (
                "pipe_count\nweb_x\n3411951255\n",
                C::Count {
                    pipe: channel("web_x"),
                    marker: "3411951255",
                },
            ),
            (
                "pipe_log\nweb_x\n2619602282\n",
                C::Log {
                    pipe: channel("web_x"),
                },
            ),
            (
                "track_pipe_users\ntrack_x\nm1",
                C::Members {
                    pipe: channel("track_x"),
                    marker: "m1",
                },
            ),
            ("user_data\nm2\n2", C::UserData { marker: "m2", user }),
            ("user_status\n2\n", C::UserStatus(user)),
            ("statistics\n{\"url\":1}", C::Statistics),
            ("statistics", C::Statistics),
        ] {
            assert_eq!(Command::parse(text), Ok(command), "{text}");
        }
    }

    #[test]
    fn a_list_of_pipes_is_complete_and_a_set() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        assert_eq!(
            list("subscription\nSimplePhpChat\nweb_x"),
            (names(&["SimplePhpChat", "web_x"]), false, false)
        );
        assert_eq!(
            list("subscription\na\n\nweb_x\r\nweb_x, b-_ msg sys"),
            (names(&["b-_", "web_x"]), false, false)
        );
        assert_eq!(list("subscription\n"), (vec![], false, false));
        let (long, longer) = ("x".repeat(64), "x".repeat(65));
        let given = format!("subscription\n{longer}\n{long}");
        assert_eq!(list(&given), (vec![long], false, true));
        let many: Vec<String> = (0..40).map(|number| format!("pipe{number:02}")).collect();
        let given = format!("subscription\n{}\npipe00", many.join("\n"));
        assert_eq!(list(&given), (many[..32].to_vec(), true, false));
    }

    #[test]
    fn a_published_message_is_read_with_its_whole_payload() {
        let message = |text| match Command::parse(text) {
            Ok(Command::Publish(message)) => message,
            other => panic!("{other:?}"),
        };
        let expected = WebMessage {
            pipe: channel("web_x"),
            event: "evt",
            payload: "{\"a\":\"it's\"}\n*\n",
            is_signed: true,
        };
        let read = message("web_pipe2\nweb_x\nevt\n*\n{\"a\":\"it's\"}\n*\n");
        assert!(!read.needs_user());
        assert_eq!(read, expected);
        let read = message("web_pipe2\n@web_x\n\n*\n");
        assert_eq!((read.event, read.payload, read.is_signed), ("", "", false));
        assert!(message("web_pipe2\nwebauth_x\n\n*\nx").needs_user());
    }

    #[test]
    fn errors_say_what_is_wrong() {
        use CommandError as E;
        let long = "x".repeat(65);
        for (text, error) in [
            ("web_pipe2\nnews\ne\n*\nx", E::NotWeb),
            ("web_pipe2\n@webauth_x\ne\n*\nx", E::NotWeb),
            ("web_pipe2\n@@web_x\ne\n*\nx", E::NotWeb),
            ("web_pipe2", E::NotWeb),
            ("web_pipe2\nweb_\u{e9}\ne\n*\nx", E::Pipe),
            ("web_pipe2\nweb_x", E::Event),
            ("web_pipe2\nweb_x\na b\n*\nx", E::Event),
            (&format!("web_pipe2\nweb_x\n{long}\n*\nx"), E::Event),
            ("web_pipe2\nweb_x\ne\nx", E::AuthType),
            ("web_pipe2\nweb_x\ne\n", E::AuthType),
            ("pipe_count\nnews\n1\n", E::NotCounted),
            ("pipe_count\nweb_x\n\n", E::Marker),
            ("pipe_count\nweb_x\na b\n", E::Marker),
            ("pipe_count\n", E::Pipe),
            (&format!("pipe_log\n{long}\n1"), E::Pipe),
            ("pipe_log\nweb_x", E::Marker),
            ("track_pipe_users\nweb_x\n1", E::NotTracked),
            ("user_data\n1\nx", E::User),
            ("user_data\n1\n0", E::User),
            ("user_status\n", E::User),
            ("", E::Unknown(String::new())),
            ("cgi_call\n1", E::Unknown("cgi_call".into())),
            ("CometQL_call\n1\n2", E::Unknown("CometQL_call".into())),
            (&"\u{e9}".repeat(99), E::Unknown("\u{e9}".repeat(32))),
        ] {
            assert_eq!(Command::parse(text), Err(error), "{text}");
        }
    }
}
