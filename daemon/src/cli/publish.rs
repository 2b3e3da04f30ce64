//! `comet publish`: one message over the Unix socket.

use std::{
    borrow::Cow,
    ffi::OsString,
    io::{self, Read},
    os::{fd::AsFd, unix::ffi::OsStringExt},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use comet_client::{Acknowledge, Client, Options, Outcome, SpoolUse};
use comet_proto::{
    ChannelName, EventName,
    line::{KeyError, Publish, parse_key},
};
use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::stat::{SFlag, fstat},
};

/// A person or a cron job waits for so long; a busy machine may need some of it.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What is read from standard input at most: no daemon takes more in one message.
const MAX_INPUT: u64 = 64 << 20;

/// Publish one message and print its id
///
/// Returns when the daemon has numbered and kept the message.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  comet publish news 'It works'
  date | comet publish clock -              the message is what `date` prints, with its line end
  comet publish orders '{\"id\":7}' --name paid
  date | comet publish clock                the same: a pipe or a file that has something is read
  comet publish news                        an empty message: a mere signal, like a touch
  comet publish news </dev/null             the same within a loop that reads standard input
  comet publish orders paid --key order-7   once, however often it is tried
  comet publish orders paid --spool         also while the daemon restarts
  comet publish news -- -5                  data that begins with a dash")]
pub(super) struct Arguments {
    /// Channel: 1 to 128 of A-Z a-z 0-9 _ . : = + @ ~ -, not starting with a dot
    #[arg(value_name = "CHANNEL", value_parser = ChannelName::parse)]
    channel: ChannelName,
    /// Content, any bytes; `-` reads standard input to its end
    ///
    /// Without DATA standard input is read where it is a file, or a pipe that says something within a second; what has
    /// nothing, a terminal, /dev/null and a closed input give an empty message.
    #[arg(value_name = "DATA")]
    data: Option<OsString>,
    /// Label of the message, which subscribers may listen to
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, value_parser = EventName::parse)]
    name: EventName,
    /// Idempotency key, 128 bytes at most: within ten minutes the same key on the same channel publishes nothing more
    ///
    /// Prints the id of the message that was published first with it. For scripts that try again.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true, value_parser = check_key)]
    key: String,
    /// While the daemon is away, leave the message in the spool: it is published when the daemon is back, once
    ///
    /// Prints `spooled` in place of the id then; the exit code is 0, too. Without DIR the spool is beside the socket, as
    /// in /run/comet/comet.spool, where the daemon looks for it.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    spool: Option<Option<PathBuf>>,
    #[command(flatten)]
    socket: super::SocketArgument,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let data = match arguments.data {
        None if is_offered()? => read_input()?,
        None => Vec::new(),
        Some(data) if data == "-" => read_input()?,
        Some(data) => data.into_vec(),
    };
    let publish = Publish {
        channel: arguments.channel,
        name: arguments.name,
        data: data.into(),
        key: Some(arguments.key.into()).filter(|key: &Cow<str>| !key.is_empty()),
    };
    let mut client = Client::new(Options {
        spool: match arguments.spool {
            None => SpoolUse::Off,
            Some(None) => SpoolUse::On,
            Some(Some(directory)) => SpoolUse::In(directory),
        },
        ..options(arguments.socket)
    });
    let published = client.publish(publish, Acknowledge::Each);
    // The client's errors say all that they stand on.
    match published.map_err(|error| anyhow!("cannot publish: {error}"))? {
        Outcome::Published(id) => super::print(format!("{id}\n").as_bytes()),
        Outcome::OnItsWay | Outcome::Spooled => super::print(b"spooled\n"),
    }
}

fn check_key(key: &str) -> Result<String, KeyError> {
    Ok(parse_key(key.as_bytes())?.unwrap_or_default().to_owned())
}

/// A client that waits as long as a person would.
pub(super) fn client(socket: super::SocketArgument) -> Client {
    Client::new(options(socket))
}

fn options(socket: super::SocketArgument) -> Options {
    Options {
        socket: socket.socket,
        timeout: PATIENCE,
        ..Options::default()
    }
}

/// Standard input is a file, or a pipe or socket that has something to read or has ended.
fn is_offered() -> anyhow::Result<bool> {
    let input = io::stdin();
    let Ok(stat) = fstat(&input) else {
        return Ok(false); // it is closed
    };
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => Ok(true),
        SFlag::S_IFIFO | SFlag::S_IFSOCK => {
            let mut inputs = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut inputs, PIPE_PATIENCE).context("cannot poll standard input")?;
            if ready == 0 {
                super::warn(
                    "standard input is a pipe that says nothing: the message is empty; `-` waits for it, and \
                     </dev/null is no pipe",
                );
            }
            Ok(ready > 0)
        }
        _ => Ok(false),
    }
}

/// In milliseconds. Programs that run others often leave them a pipe that never says anything.
const PIPE_PATIENCE: u16 = 1000;

fn read_input() -> anyhow::Result<Vec<u8>> {
    let mut data = Vec::new();
    let input = io::stdin().lock();
    input
        .take(MAX_INPUT + 1)
        .read_to_end(&mut data)
        .context("cannot read standard input")?;
    if data.len() as u64 > MAX_INPUT {
        bail!("standard input is over the limit of {MAX_INPUT} bytes");
    }
    Ok(data)
}
