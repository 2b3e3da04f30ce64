//! `comet check`: what is wrong in a configuration, before the daemon says it.

use std::path::PathBuf;

use comet_daemon::{config::Config, http::Rights};

/// Say what is wrong in a configuration file
///
/// Reads the file as `comet serve` would, without starting anything: one line names the file, the line, the key, and
/// what would be right. Users and groups are looked up on this machine.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  comet check --config /etc/comet.toml
  comet check --config /etc/comet.toml && systemctl restart comet")]
pub(super) struct Arguments {
    /// Configuration file (TOML); without one the defaults are checked
    #[arg(
        long,
        value_name = "FILE",
        env = "COMET_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = super::read_config(arguments.config.as_deref())?;
    config.check_readers()?;
    Rights::new(&config)?;
    for warning in warnings(&config) {
        super::warn(&format!("warning: {warning}"));
    }
    let checked = match &arguments.config {
        Some(path) => path.display().to_string(),
        None => "the default configuration".into(),
    };
    super::print(format!("{checked}: ok\n").as_bytes())
}

/// What is allowed and probably not meant.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if !config.dir.is_dir() {
        let dir = config.dir.display();
        warnings.push(format!("dir: {dir} is no directory now"));
    }
    if config.demo && !config.listen.ip().is_loopback() {
        let listen = config.listen;
        warnings.push(format!(
            "demo: the demo pages are for everyone who reaches {listen}"
        ));
    }
    if config.http.publish == Some(true) && !config.listen.ip().is_loopback() {
        let listen = config.listen;
        warnings.push(format!(
            "http.publish: everyone who reaches {listen} may publish"
        ));
    }
    warnings.extend(config.too_much_memory());
    warnings
}
