//! Runs the daemon: builds all parts, starts them, waits, and stops them in order.

mod daemon;
mod expiry;
mod history;
mod listeners;
mod manager;
mod settings;
mod signals;
mod sources;
mod status;
mod thread;
mod workers;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tracing::{info, warn};

use self::{
    daemon::{Daemon, Running},
    listeners::PassedSockets,
    manager::Manager,
    signals::Signals,
};
use crate::{compat, config::Config};

pub use self::{listeners::OpenSockets, settings::Reread};

/// Number of tasks that run before the runtime checks for new events. One task may run for [100 µs](crate::source::socket). With
/// tokio's default of 61 tasks, a new connection would wait for 6 ms.
const TASKS_BEFORE_EVENTS: u32 = 8;

/// Runs the daemon as a service until SIGTERM or SIGINT. On SIGHUP the daemon reads the settings again with `reread`. Without
/// `reread`, SIGHUP ends the daemon, too. `file` is the configuration file, for `comet status`.
///
/// # Errors
/// Something cannot be opened, a part has failed, or messages could not be kept.
pub fn serve(given: Config, file: Option<PathBuf>, reread: Option<Reread>) -> anyhow::Result<()> {
    let (passed, manager) = (PassedSockets::take()?, Manager::from_env());
    let config = effective(&given, &passed)?;
    let sockets = OpenSockets::open(passed, &config, compat::ports(&config.compat)?)?;
    let daemon = Daemon::build(sockets, config, given, file)?;
    local_runtime()?.block_on(async {
        let mut running = daemon.start().await?;
        // Signals are handled before the daemon reports that it is ready: whoever reads this report may stop the daemon at once.
        let signals = Signals::new()?;
        report_ready(&running, &manager);
        let stop = stop_signal(signals, reread, &running, &manager);
        running.wait(stop).await?;
        manager.stopping();
        running.stop().await
    })
}

/// Checks the files that the tables of other servers' protocols name.
///
/// # Errors
/// Names the setting, and says what is wrong with its file.
pub fn check_compat(config: &Config) -> anyhow::Result<()> {
    compat::ports(&config.compat).map(drop)
}

/// Runs the daemon on these sockets until `shutdown`, and then stops it in order. Handles no signals and notifies no service
/// manager. Needs a current-thread runtime with local tasks.
///
/// # Errors
/// Something cannot be opened, a part has failed, or messages could not be kept.
pub async fn run(
    sockets: OpenSockets,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut running = Daemon::build(sockets, config.clone(), config, None)?
        .start()
        .await?;
    running.wait(shutdown).await?;
    running.stop().await
}

/// The settings with the address of passed sockets, checked.
fn effective(given: &Config, passed: &PassedSockets) -> anyhow::Result<Config> {
    let mut config = given.clone();
    if let Some(addr) = passed.http_addr()? {
        config.listen = addr;
    }
    passed.warn_of_unused(given);
    config.check()?;
    if let Some(warning) = config.too_much_memory() {
        warn!("{warning}");
    }
    Ok(config)
}

/// Builds a current-thread runtime: tasks never move to another thread, so they need no locks.
fn local_runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_BEFORE_EVENTS)
        .build_local(LocalOptions::default())
}

/// Reports on standard output and to the service manager that the daemon is ready, and starts the watchdog.
fn report_ready(running: &Running, manager: &Manager) {
    let ready = &running.description;
    let _ = writeln!(io::stdout(), "comet: {ready}"); // if standard output is closed, the daemon runs anyway
    manager.ready(ready);
    let (tick_counts, drain) = (running.tick_counts.clone(), running.drain.clone());
    let manager = manager.clone();
    tokio::task::spawn_local(async move { manager.notify_watchdog(tick_counts, drain).await });
}

/// Waits for a signal that ends the daemon. On SIGHUP the settings are read again, if there is a file to read.
fn stop_signal<'a>(
    signals: Signals,
    reread: Option<Reread>,
    running: &Running,
    manager: &'a Manager,
) -> impl Future<Output = ()> + use<'a> {
    let (settings, ready) = (running.settings.clone(), running.description.clone());
    let reload = reread.map(|reread| {
        async move || {
            manager.reloading();
            let outcome = settings.reload(&reread).await;
            manager.ready(&format!("{outcome}; {ready}"));
        }
    });
    async move {
        let signal = signals.stop(reload).await;
        info!("{signal} received, stopping");
    }
}

#[cfg(test)]
mod tests;
