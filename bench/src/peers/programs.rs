//! Finds the installed programs and their versions.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Debian's package of the nchan module.
pub(super) const NCHAN: &str = "libnginx-mod-nchan";
/// Name of php-fpm. Debian appends the version to it.
pub(super) const FPM: &str = "php-fpm";

/// Finds a program by its name, or a file by its absolute path.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let mut found = dirs().into_iter().map(|dir| dir.join(name));
    let found = found.find(|path| path.is_file());
    if name == FPM {
        found.or_else(fpm)
    } else {
        found
    }
}

/// Directories of programs. Servers are in sbin, which only root has in `PATH`.
fn dirs() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs
}

/// The newest installed php-fpm.
fn fpm() -> Option<PathBuf> {
    let entries = dirs().into_iter().filter_map(|dir| fs::read_dir(dir).ok());
    let paths = entries.flatten().flatten().map(|entry| entry.path());
    let known = paths.filter_map(|path| Some((fpm_version(&path)?, path)));
    known.max().map(|(_, path)| path)
}

/// Reads the version from a name such as `php-fpm8.2`.
fn fpm_version(path: &Path) -> Option<(u32, u32)> {
    let version = path.file_name()?.to_str()?.strip_prefix(FPM)?;
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Returns nginx's version, for example `nginx/1.22.1`.
pub(super) fn nginx() -> Option<String> {
    let line = said("nginx", &["-v"])?;
    Some(line.rsplit(' ').next()?.to_owned())
}

/// Returns PHP's version, for example `PHP 8.2.35 (fpm-fcgi)`.
pub(super) fn php() -> Option<String> {
    let line = said(FPM, &["-v"])?;
    Some(line.split(" (built").next()?.to_owned())
}

/// Returns the output of `--version`, which begins with the program's name.
pub(super) fn version(program: &str) -> Option<String> {
    said(program, &["--version"])
}

/// Returns a package and its version, for example `libnginx-mod-nchan 1:1.3.6+dfsg-2`.
pub(super) fn package(name: &str) -> Option<String> {
    said("dpkg-query", &["-W", "-f", "${Package} ${Version}\n", name])
}

/// The first line that a program prints to standard output or standard error.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(find(program)?).args(arguments).output().ok()?;
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next()?.trim();
    output.status.success().then(|| line.to_owned())
}
