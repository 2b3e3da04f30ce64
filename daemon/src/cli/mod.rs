//! The command line and its help texts. Each command has its own file.
//!
//! Exit codes: 0 success, 1 failure, 2 wrong arguments.

mod access;
mod allocator;
mod check;
mod journal;
mod publish;
mod serve;
mod status;
mod subscribe;

use std::{
    borrow::Cow,
    env,
    ffi::OsStr,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable};

#[derive(Parser)]
#[command(
    name = "comet",
    version,
    arg_required_else_help = true,
    about = "Pushes events from PHP, cron and the shell to browsers",
    long_about = "Pushes events from PHP, cron and the shell to browsers: `touch /dev/shm/news.comet`, and every \
        browser that has subscribed to `news` gets an event within a millisecond.",
    after_help = "Exit codes: 0 success, 1 failure, 2 wrong arguments. `comet help COMMAND` shows examples."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Publish(publish::Arguments),
    Subscribe(subscribe::Arguments),
    Status(status::Arguments),
    Check(check::Arguments),
}

/// How to find the daemon.
#[derive(clap::Args)]
struct SocketArgument {
    /// Unix socket of the daemon
    ///
    /// [default: /run/comet/comet.sock where that directory can be used, else $XDG_RUNTIME_DIR/comet.sock]
    #[arg(
        long,
        value_name = "PATH",
        env = "COMET_SOCKET",
        hide_env_values = true
    )]
    socket: Option<PathBuf>,
}

/// Whoever read our standard output has closed it. The command ends; this is no error.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(crate) struct ClosedPipe;

/// Runs the command that the command line names.
pub(crate) fn run() -> anyhow::Result<()> {
    let matches = command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Publish(arguments) => publish::run(arguments),
        Command::Subscribe(arguments) => subscribe::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Check(arguments) => check::run(&arguments),
    }
}

/// The command line's definition. An empty environment variable counts as not set.
fn command() -> clap::Command {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    Cli::command().mut_subcommands(|command| {
        command.mut_args(|argument| {
            if argument.get_env().is_some_and(is_empty) {
                argument.env(Resettable::<clap::builder::OsStr>::Reset)
            } else {
                argument
            }
        })
    })
}

/// Writes to standard output and flushes it.
fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ClosedPipe.into()),
        written => {
            written.map_err(|error| anyhow::anyhow!("cannot write to standard output: {error}"))
        }
    }
}

/// Writes to standard error, which may be closed.
fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "comet: {}", visible(text));
}

/// Escapes characters that control a terminal or change the direction of text: control characters except line end and tab,
/// direction marks, and invisible characters. The escapes are those of JSON, so escaped JSON keeps its meaning.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_hidden(c) {
            true => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    shown.push_str(&format!("\\u{unit:04x}"));
                }
            }
            false => shown.push(c),
        }
    }
    shown.into()
}

fn is_hidden(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // Direction; line and paragraph separators; word joiner and invisible operators; byte order mark; annotations.
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => true,
        // Tags, and code points that are not characters.
        '\u{e0000}'..='\u{e007f}' | '\u{fffe}' | '\u{ffff}' => true,
        c => c.is_control(),
    }
}

/// Reads the configuration file, or returns the defaults if there is none.
fn read_config(path: Option<&Path>) -> anyhow::Result<comet_daemon::config::Config> {
    use comet_daemon::config::Config;
    Ok(path.map_or_else(|| Ok(Config::default()), Config::read)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        let cases = [
            ("a\tb\n", "a\tb\n"),
            ("hé 日本 👩\u{200d}💻", "hé 日本 👩\u{200d}💻"),
            ("\u{9b}31m", "\\u009b31m"),
            ("\u{1b}[2J\r", "\\u001b[2J\\u000d"),
            ("\u{7f}\u{85}", "\\u007f\\u0085"),
            (
                "\u{202e}\u{2066}\u{200f}\u{61c}",
                "\\u202e\\u2066\\u200f\\u061c",
            ),
            ("\u{2028}\u{feff}\u{e0041}", "\\u2028\\ufeff\\udb40\\udc41"),
        ];
        for (text, shown) in cases {
            assert_eq!(super::visible(text), shown);
            // The same text as JSON.
            let json = serde_json::to_string(text).unwrap();
            let read: String = serde_json::from_str(&super::visible(&json)).unwrap();
            assert_eq!(read, text);
        }
    }
}
