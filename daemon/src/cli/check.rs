//! `comet check`: reports mistakes in a configuration before the daemon is started with it.

use std::path::{Path, PathBuf};

use comet_daemon::{access::Rights, config::Config, run::check_compat};
use nix::sys::stat::Mode;

use super::{
    access,
    daemon::read_config,
    output::{print, warn},
};

/// Check a configuration file for mistakes
///
/// Reads the file as `comet serve` would, but starts nothing. An error names the file, the line, the key, and
/// a correct value. Users and groups are looked up on this machine. The command also checks whether the user who runs the
/// command can write to the directories and read the keys. So run it as the service's user: `runuser -u comet -- comet check …`.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  comet check --config /etc/comet.toml
  comet check --config /etc/comet.toml && systemctl restart comet")]
pub(super) struct Arguments {
    /// Configuration file (TOML); without it the defaults are checked
    #[arg(
        long,
        value_name = "FILE",
        env = "COMET_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
}

/// The file that the shipped service reads.
const SYSTEM_FILE: &str = "/etc/comet.toml";

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = read_config(arguments.config.as_deref())?;
    config.check()?;
    let mut notes = warnings(&config);
    for key in &config.auth.keys {
        for path in [&key.secret_file, &key.public_key_file]
            .into_iter()
            .flatten()
        {
            access::can_read(&format!("auth.key {:?}", key.kid), path)?;
            notes.extend(access::root_alone(
                path,
                Mode::S_IRGRP | Mode::S_IROTH,
                "read",
            ));
        }
    }
    Rights::new(&config)?;
    check_compat(&config)?;
    for (key, path) in access::configured(&config) {
        match access::can_write(key, path) {
            // systemd may create the socket and pass it.
            Err(error) if key == "socket.path" => notes.push(error.to_string()),
            written => written?,
        }
        notes.extend(access::root_alone(
            path,
            Mode::S_IWGRP | Mode::S_IWOTH,
            "write to",
        ));
    }
    notes.extend(access::defaults(&config));
    for note in notes {
        warn(&format!("warning: {note}"));
    }
    let checked = checked(arguments.config.as_deref(), Path::new(SYSTEM_FILE).exists());
    print(format!("{checked}\n").as_bytes())
}

/// The last line of output: which configuration was checked, and a hint if the system's file was not read.
fn checked(file: Option<&Path>, has_system_file: bool) -> String {
    match file {
        Some(file) => format!("{}: ok", file.display()),
        None if has_system_file => format!(
            "the default configuration: ok; {SYSTEM_FILE} was not read: use --config {SYSTEM_FILE} to check it"
        ),
        None => "the default configuration: ok".into(),
    }
}

/// Settings that are allowed but probably a mistake.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if !config.dir.is_dir() {
        let dir = config.dir.display();
        warnings.push(format!("dir: {dir} is not a directory at present"));
    }
    if config.demo && !config.listen.ip().is_loopback() {
        let listen = config.listen;
        warnings.push(format!(
            "demo: everyone who can reach {listen} can use the demo pages"
        ));
    }
    if config.http.publish == Some(true) && !config.listen.ip().is_loopback() {
        let listen = config.listen;
        warnings.push(format!(
            "http.publish: everyone who can reach {listen} may publish"
        ));
    }
    warnings.extend(config.too_much_memory());
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_not_read_is_named() {
        let file = Path::new("/x/comet.toml");
        assert_eq!(checked(Some(file), true), "/x/comet.toml: ok");
        assert_eq!(checked(None, false), "the default configuration: ok");
        assert!(checked(None, true).contains("/etc/comet.toml was not read"));
    }
}
