//! `comet serve`: reads settings from flags, environment and file, and runs the daemon.

use std::{
    env,
    io::{self, IsTerminal},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::builder::BoolishValueParser;
use comet_daemon::{
    config::{self, Config},
    run::Reread,
};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{
    allocator,
    daemon::{SocketArgument, read_config},
    journal::{self, Journal},
};

/// Run the daemon
///
/// Watches a directory of *.comet files and a Unix socket, and pushes messages that are published there to subscribed
/// browsers. Prints one line on standard output when it is ready. Logs to standard error. Stops cleanly on SIGTERM and
/// SIGINT, and reads its configuration file again on SIGHUP.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  comet serve --demo                        try it: open the printed address
  touch /dev/shm/news.comet                 publish to `news` from another shell
  comet serve --config /etc/comet.toml      as a service
  comet serve --dir ~/events --listen 127.0.0.1:0 --socket ~/comet.sock

A flag beats its environment variable, and a variable beats the configuration file. `comet check` checks such a file.
COMET_LOG sets the log level: error, warn, info (the default), debug, or trace. It applies to the daemon. Of the libraries
inside only errors are logged, unless you name them: COMET_LOG=info,h2=debug.")]
pub(super) struct Arguments {
    /// Directory whose *.comet files are watched [default: /dev/shm]
    #[arg(long, value_name = "DIR", env = "COMET_DIR", hide_env_values = true)]
    dir: Option<PathBuf>,
    /// Address of the HTTP server, IP:PORT; port 0 takes a free port [default: 127.0.0.1:2061]
    #[arg(long, value_name = "ADDR", env = "COMET_LISTEN", hide_env_values = true, value_parser = config::parse_addr)]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    socket: SocketArgument,
    /// Directory in which history survives restarts
    ///
    /// [default: /var/lib/comet where it can be used, else comet in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR", env = "COMET_STORE", hide_env_values = true)]
    store: Option<PathBuf>,
    /// Configuration file (TOML)
    #[arg(
        long,
        value_name = "FILE",
        env = "COMET_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    /// Demo pages, publishing from the browser, and files of any owner
    ///
    /// Only for a first look, and not on a machine with other users.
    #[arg(
        long,
        env = "COMET_DEMO",
        hide_env_values = true,
        value_name = "BOOL",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    demo: Option<bool>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    allocator::give_memory_back();
    start_log()?;
    let file = arguments.config.clone();
    let settings = arguments.settings()?;
    let reread: Option<Reread> = match file {
        Some(_) => Some(Arc::new(move || arguments.settings())),
        None => None,
    };
    comet_daemon::run::serve(settings, file, reread)
}

impl Arguments {
    fn settings(&self) -> anyhow::Result<Config> {
        let mut config = read_config(self.config.as_deref())?;
        if let Some(dir) = &self.dir {
            config.dir.clone_from(dir);
        }
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        if let Some(path) = &self.socket.socket {
            config.socket.path = Some(path.clone());
        }
        if let Some(store) = &self.store {
            config.store.dir = Some(store.clone());
        }
        if let Some(demo) = self.demo {
            config.demo = demo;
        }
        Ok(config)
    }
}

fn start_log() -> anyhow::Result<()> {
    let setting = env::var("COMET_LOG").unwrap_or_default();
    let colours = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt().with_env_filter(log_filter(&setting)?);
    match journal::is_connected() {
        true => log
            .with_writer(Journal)
            .with_ansi(false)
            .without_time()
            .with_level(false)
            .init(),
        false => log.with_writer(io::stderr).with_ansi(colours).init(),
    }
    Ok(())
}

/// Parses `COMET_LOG`: a level, or directives such as `info,comet_daemon::source=debug`. A level without a name applies to
/// our own crates. Libraries log only errors unless they are named, because clients could otherwise cause any number of lines.
fn log_filter(setting: &str) -> anyhow::Result<EnvFilter> {
    let default = [format!("{}", LevelFilter::INFO)];
    let parts: Vec<String> = match setting.trim() {
        "" => default.into(),
        setting => setting
            .split(',')
            .map(|part| part.trim().to_owned())
            .collect(),
    };
    let level_of = |part: &String| part.parse::<LevelFilter>().ok();
    // The filter would take a single word that is not a level for a module name, and log nothing.
    if !setting.contains('=') && !parts.iter().all(|part| level_of(part).is_some()) {
        bail!("COMET_LOG: {setting:?} is not one of off, error, warn, info, debug, trace");
    }
    let directives = parts.iter().map(|part| match level_of(part) {
        // The names of our crates begin with `comet`.
        Some(level) => format!("{},comet={level}", level.min(LevelFilter::ERROR)),
        None => part.clone(),
    });
    let directives: Vec<String> = directives.collect();
    EnvFilter::try_new(format!("error,{}", directives.join(",")))
        .with_context(|| format!("COMET_LOG: {setting:?}"))
}
