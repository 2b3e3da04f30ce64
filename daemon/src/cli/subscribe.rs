//! `comet subscribe`: prints messages when they are published, until its standard output is closed.
//!
//! This file prints and reconnects. `socket` and `http` receive the messages.

mod http;
mod printer;
mod socket;

use std::{convert::Infallible, os::fd::AsFd};

use anyhow::Context;
use comet_proto::{ChannelName, ChannelNames, MAX_CHANNELS, Since};
use tokio::{io::Interest, net::unix::pipe, time::sleep};

use self::printer::{ConnectionEnd, FIRST_PAUSE, LONGEST_PAUSE, Printer};
use super::{
    daemon::SocketArgument,
    output::{ClosedPipe, warn},
};

/// Print messages when they are published
///
/// Prints one JSON object per line: {"channel":"news","id":1763690000123456,"name":"","data":"…"}. Data that is not UTF-8 is
/// base64, with "encoding":"base64". Characters that control a terminal or change the direction of text are
/// JSON escapes, which programs read as the same text. After a lost connection the command connects again with its cursor, so it
/// misses no message that the daemon still keeps. If older messages are gone, it prints a gap on standard error.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  comet subscribe news
  comet subscribe news chat --since 0                   everything that is kept, then new messages
  comet subscribe news --since 2026-01-31T12:00:00Z
  comet subscribe news | while read -r message; do …; done
  comet subscribe news --url http://127.0.0.1:2061      over HTTP, as a browser would")]
pub(super) struct Arguments {
    /// Channels
    #[arg(value_name = "CHANNEL", required = true, num_args = 1..=MAX_CHANNELS, value_parser = ChannelName::parse)]
    channels: Vec<ChannelName>,
    /// Begin after this message id, 0 (everything that is kept), or RFC 3339 time; without it: from now on
    #[arg(long, value_name = "CURSOR", value_parser = Since::parse)]
    since: Option<Since>,
    /// Subscribe over HTTP, by long-polling, instead of the Unix socket
    #[arg(long, value_name = "URL", value_parser = http::parse_url)]
    url: Option<http::Url>,
    /// Token, for channels that need one; only with --url
    ///
    /// The environment variable is safer, because other users can see a program's arguments.
    #[arg(long, value_name = "TOKEN", env = "COMET_TOKEN", hide_env_values = true, value_parser = http::parse_token)]
    token: Option<http::Token>,
    #[command(flatten)]
    socket: SocketArgument,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut printer = Printer {
        channels: ChannelNames::parse(arguments.channels.iter().map(ChannelName::as_str))?,
        cursor: arguments.since,
        connected: false,
        retry: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("cannot start")?;
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = reader_gone() => Err(ClosedPipe.into()),
            ended = subscribe(arguments.url, arguments.token, arguments.socket, &mut printer) => ended.map(|never| match never {}),
        }
    })
}

async fn subscribe(
    url: Option<http::Url>,
    token: Option<http::Token>,
    socket: SocketArgument,
    printer: &mut Printer,
) -> anyhow::Result<Infallible> {
    match url {
        Some(url) => {
            let server = http::Server { url, token };
            follow(printer, async |printer| http::run(&server, printer).await).await
        }
        None => {
            let path = comet_client::socket_path(socket.socket.as_deref())?;
            follow(printer, async |printer| socket::run(&path, printer).await).await
        }
    }
}

/// Waits until no process reads our standard output any more. So `comet subscribe … | head -1` ends at once, and not only
/// with the next message.
async fn reader_gone() {
    // The pipe is only watched, never written to here, so its flags, which other processes may share, stay unchanged. A
    // file is not watched: it always has a reader.
    let output = std::io::stdout().as_fd().try_clone_to_owned();
    if let Ok(output) = output.and_then(pipe::Sender::from_owned_fd_unchecked) {
        // pipe(7): the write end has an error condition once all read ends are closed.
        if output.ready(Interest::ERROR).await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

/// Connects again each time the connection is lost. If the first connection fails, returns the error: the cause is more likely
/// a wrong argument than a restart of the daemon.
async fn follow(
    printer: &mut Printer,
    mut connection: impl AsyncFnMut(&mut Printer) -> Result<Infallible, ConnectionEnd>,
) -> anyhow::Result<Infallible> {
    let mut ever_connected = false;
    let mut pause = FIRST_PAUSE;
    loop {
        printer.connected = false;
        let error = match connection(printer).await {
            Ok(never) => match never {},
            Err(ConnectionEnd::Final(error)) => return Err(error),
            Err(ConnectionEnd::Lost(error)) => error,
        };
        if printer.connected {
            pause = FIRST_PAUSE;
            ever_connected = true;
            warn(&format!("{error:#}; connecting again"));
        } else if !ever_connected {
            return Err(error);
        }
        // A daemon that stops says when to come back.
        if let Some(retry) = printer.retry.take() {
            sleep(retry).await;
            continue;
        }
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}
