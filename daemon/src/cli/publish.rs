//! `comet publish`: publishes one message over the Unix socket.

use std::{
    borrow::Cow,
    ffi::OsString,
    io::{self, Read},
    os::{fd::AsFd, unix::ffi::OsStringExt},
    path::PathBuf,
};

use anyhow::{Context, anyhow, bail};
use comet_client::{Acknowledge, Client, Options, Outcome, SpoolUse};
use comet_proto::{
    ChannelNames, ChannelNamesError, EventName,
    line::{KeyError, Publish, parse_key},
};
use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::stat::{SFlag, fstat},
};

use super::{
    daemon::{SocketArgument, options},
    output::{print, warn},
};

/// Maximum number of bytes that are read from standard input. No daemon accepts a larger message.
const MAX_INPUT: u64 = 64 << 20;

/// Publish one message and print its id
///
/// Returns when the daemon has given the message an id and kept it.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  comet publish news 'It works'
  date | comet publish clock -              the output of `date`, with its line end
  comet publish orders '{\"id\":7}' --name paid
  date | comet publish clock                the same: data from a pipe or a file is read
  comet publish news                        an empty message: only a signal, like a touch
  comet publish news </dev/null             the same, in a loop that reads standard input
  comet publish news,chat.7 'It works'      one message for two channels
  comet publish orders paid --key order-7   published once, however often you retry
  comet publish orders paid --spool         works while the daemon restarts, too
  comet publish news -- -5                  data that begins with a dash")]
pub(super) struct Arguments {
    /// Channel: 1 to 200 of A-Z a-z 0-9 _ . : = + @ ~ -, not starting with a dot; several are separated by commas
    #[arg(value_name = "CHANNEL", value_parser = channels)]
    channels: ChannelNames,
    /// Content, any bytes; `-` reads standard input to its end
    ///
    /// Without DATA, standard input is read if it is a file, or a pipe with data within a second. An empty pipe,
    /// a terminal, /dev/null and a closed input give an empty message.
    #[arg(value_name = "DATA")]
    data: Option<OsString>,
    /// Label of the message, which subscribers get together with the content
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, value_parser = EventName::parse)]
    name: EventName,
    /// Idempotency key, 128 bytes at most: within ten minutes a message with the same key on the same channel is published once
    ///
    /// A repetition prints the id of the first message. For scripts that retry.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true, value_parser = check_key)]
    key: String,
    /// If no daemon runs, store the message in the spool; the next daemon publishes it once
    ///
    /// The command then prints `spooled` instead of the id, and its exit code is 0. Without DIR the spool is beside the socket,
    /// where the daemon looks for it, such as /run/comet/comet.spool.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    spool: Option<Option<PathBuf>>,
    #[command(flatten)]
    socket: SocketArgument,
}

fn channels(names: &str) -> Result<ChannelNames, ChannelNamesError> {
    ChannelNames::parse(names.split(','))
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let data = match arguments.data {
        None if is_offered()? => read_input()?,
        None => Vec::new(),
        Some(data) if data == "-" => read_input()?,
        Some(data) => data.into_vec(),
    };
    let publish = Publish {
        channels: arguments.channels,
        name: arguments.name,
        data: data.into(),
        attributes: None,
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
    // The client's errors already contain their causes.
    match published.map_err(|error| anyhow!("cannot publish: {error}"))? {
        Outcome::Published(id) => print(format!("{id}\n").as_bytes()),
        Outcome::OnItsWay | Outcome::Spooled => print(b"spooled\n"),
    }
}

fn check_key(key: &str) -> Result<String, KeyError> {
    Ok(parse_key(key.as_bytes())?.unwrap_or_default().to_owned())
}

/// Whether standard input is a file, or a pipe or socket that has data or has ended.
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
                warn(
                    "standard input is a pipe without data: the message is empty; use `-` to wait for data, or \
                     </dev/null to publish an empty message",
                );
            }
            Ok(ready > 0)
        }
        _ => Ok(false),
    }
}

/// Time limit for the first data in a pipe, in milliseconds. Programs often give their children a pipe that never has data.
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
