//! `comet subscribe`: prints messages as they come, for as long as somebody reads them.
//!
//! Here: what is printed, and coming back. How messages arrive is in `socket` and `http`.

mod http;
mod socket;

use std::{convert::Infallible, os::fd::AsFd, time::Duration};

use anyhow::{Context, anyhow};
use comet_proto::{ChannelName, ChannelNames, Cursor, MAX_CHANNELS, Since};
use tokio::{io::Interest, net::unix::pipe, time::sleep};

/// Pauses before connecting again: doubled each time it fails.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The daemon asks for a minute or so; whatever is said, nobody stays away for longer than that.
const LONGEST_ABSENCE: Duration = Duration::from_secs(300);

/// Print messages as they come
///
/// One JSON object a line: {"channel":"news","id":1763690000123456,"name":"","data":"…"}; data that is no text is
/// base64, with "encoding":"base64". Characters that steer a terminal or turn the direction of text are
/// escaped as JSON does it, which changes nothing for programs. When the connection is lost it comes back with its cursor, so nothing is missed
/// that the daemon still keeps; what it no longer keeps is told as a gap on standard error.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  comet subscribe news
  comet subscribe news chat --since 0                   all that is kept, then what comes
  comet subscribe news --since 2026-01-31T12:00:00Z
  comet subscribe news | while read -r message; do …; done
  comet subscribe news --url http://127.0.0.1:2061      over HTTP, as a browser would")]
pub(super) struct Arguments {
    /// Channels
    #[arg(value_name = "CHANNEL", required = true, num_args = 1..=MAX_CHANNELS, value_parser = ChannelName::parse)]
    channels: Vec<ChannelName>,
    /// Begin after this message id, 0 (all that is kept), or RFC 3339 time; without it: from now on
    #[arg(long, value_name = "CURSOR", value_parser = Since::parse)]
    since: Option<Since>,
    /// Subscribe over HTTP, by long-polling, instead of the Unix socket
    #[arg(long, value_name = "URL", value_parser = http::parse_url)]
    url: Option<http::Url>,
    /// Token, for channels that are read with one; with --url
    ///
    /// Better by the environment: other users see the arguments of a program.
    #[arg(long, value_name = "TOKEN", env = "COMET_TOKEN", hide_env_values = true, value_parser = http::parse_token)]
    token: Option<http::Token>,
    #[command(flatten)]
    socket: super::SocketArgument,
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
            () = reader_gone() => Err(super::ClosedPipe.into()),
            ended = subscribe(arguments.url, arguments.token, arguments.socket, &mut printer) => ended.map(|never| match never {}),
        }
    })
}

async fn subscribe(
    url: Option<http::Url>,
    token: Option<http::Token>,
    socket: super::SocketArgument,
    printer: &mut Printer,
) -> anyhow::Result<Infallible> {
    match url {
        Some(url) => {
            let way = http::Way { url, token };
            follow(printer, async |printer| http::run(&way, printer).await).await
        }
        None => {
            let path = comet_client::socket_path(socket.socket.as_deref())?;
            follow(printer, async |printer| socket::run(&path, printer).await).await
        }
    }
}

/// Waits until nobody reads our standard output any more: `comet subscribe … | head -1` ends at once, not with the
/// next message.
async fn reader_gone() {
    // Only watched, never written to: the descriptor that others may share stays as it is. A file is not
    // watched: its writes cannot end so.
    let output = std::io::stdout().as_fd().try_clone_to_owned();
    if let Ok(output) = output.and_then(pipe::Sender::from_owned_fd_unchecked) {
        // pipe(7): the write end has an error condition once all read ends are closed.
        if output.ready(Interest::ERROR).await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

/// Why there are no more messages from a connection.
enum End {
    /// It was lost: another may go on where it ended.
    Lost(anyhow::Error),
    /// There is no point in another.
    Final(anyhow::Error),
}

impl End {
    fn lost(error: impl Into<anyhow::Error>) -> Self {
        Self::Lost(error.into())
    }
}

/// Connects again and again. That the first connection fails is final: it is more likely a mistake than a restart.
async fn follow(
    printer: &mut Printer,
    mut connection: impl AsyncFnMut(&mut Printer) -> Result<Infallible, End>,
) -> anyhow::Result<Infallible> {
    let mut ever_connected = false;
    let mut pause = FIRST_PAUSE;
    loop {
        printer.connected = false;
        let error = match connection(printer).await {
            Ok(never) => match never {},
            Err(End::Final(error)) => return Err(error),
            Err(End::Lost(error)) => error,
        };
        if printer.connected {
            pause = FIRST_PAUSE;
            ever_connected = true;
            super::warn(&format!("{error:#}; connecting again"));
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

/// What is subscribed to, and how far it is printed.
struct Printer {
    channels: ChannelNames,
    cursor: Option<Since>,
    /// The connection in use was accepted.
    connected: bool,
    /// The daemon has ended the subscription, and asks to come back after so long.
    retry: Option<Duration>,
}

impl Printer {
    fn message(&mut self, json: &[u8], id: u64) -> Result<(), End> {
        let json = str::from_utf8(json).map_err(End::lost)?;
        let line = format!(
            "{}
",
            super::visible(json)
        );
        super::print(line.as_bytes()).map_err(End::Final)?;
        self.cursor = Some(Since::Id(Cursor(id)));
        Ok(())
    }

    /// The daemon is stopping, or has new settings by which the subscription is judged anew.
    fn leave(&mut self, retry_ms: u64) -> End {
        self.retry = Some(Duration::from_millis(retry_ms).min(LONGEST_ABSENCE));
        End::Lost(anyhow!(
            "the daemon has ended the subscription for now: it stops, or its settings have changed"
        ))
    }

    fn gap(&self, cursor: &str) {
        super::warn(&format!(
            "gap: messages up to {cursor} may be missing, they are no longer kept"
        ));
    }
}
