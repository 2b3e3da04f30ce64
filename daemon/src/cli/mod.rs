//! The command line and its help texts. Each command has its own file.
//!
//! Exit codes: 0 success, 1 failure, 2 wrong arguments.

mod access;
mod allocator;
mod check;
mod daemon;
mod journal;
mod output;
mod publish;
mod serve;
mod status;
mod subscribe;

use std::{env, ffi::OsStr};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable};

pub(crate) use self::output::{ClosedPipe, visible};

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

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
