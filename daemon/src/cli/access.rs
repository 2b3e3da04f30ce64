//! Checks for `comet check` whether this user can write to the configured directories and read the keys.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::bail;
use comet_daemon::{
    config::Config,
    store::{self, Durability},
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat::Mode,
    unistd::{AccessFlags, Gid, Group, Uid, User, access, geteuid},
};

/// The directories in the configuration that the daemon must write to.
pub(super) fn configured(config: &Config) -> Vec<(&'static str, &Path)> {
    let uses_store = config.store.durability != Durability::Memory;
    let store = config.store.dir.as_deref().filter(|_| uses_store);
    let socket = config.socket.path.as_deref().and_then(Path::parent);
    let socket = socket.filter(|directory| !directory.as_os_str().is_empty());
    let all = [
        ("store.dir", store),
        ("spool.dir", config.spool.dir.as_deref()),
        ("socket.path", socket),
    ];
    let all = all.into_iter();
    all.filter_map(|(key, path)| Some((key, path?))).collect()
}

/// Problems with the default directories that the configuration does not set, and with the watched directory. They are
/// only warnings: the daemon may run as another user, who has other default directories.
pub(super) fn defaults(config: &Config) -> Vec<String> {
    let mut all = vec![("dir", config.dir.clone())];
    if config.store.dir.is_none() && config.store.durability != Durability::Memory {
        all.extend(store::directory(None).ok().map(|path| ("store.dir", path)));
    }
    let socket = comet_client::socket_path(None).ok();
    if let (None, Some(Some(path))) = (&config.socket.path, socket.as_deref().map(Path::parent)) {
        all.push(("socket.path", path.into()));
    }
    let is_there = |(key, path): &(&str, PathBuf)| *key != "dir" || path.is_dir();
    let problems = all.iter().filter(|place| is_there(place));
    problems
        .filter_map(|(key, path)| can_write(key, path).err())
        .map(|error| error.to_string())
        .collect()
}

/// Checks by a temporary file whether this user can write to a directory, or to its nearest existing parent.
pub(super) fn can_write(key: &str, path: &Path) -> anyhow::Result<()> {
    let place = path.ancestors().find(|place| place.exists());
    let place = place.unwrap_or(Path::new("."));
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let written = match open(place, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
        // The file system does not support unnamed files.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => {
            access(place, AccessFlags::W_OK | AccessFlags::X_OK)
        }
        opened => opened.map(drop),
    };
    let Err(errno) = written else {
        return Ok(());
    };
    let advice = match errno {
        Errno::EROFS => {
            "; for a systemd service, list the directory in ReadWritePaths= of the unit"
        }
        _ => "",
    };
    let missing = match path.exists() {
        true => String::new(),
        false => format!("; {} does not exist", path.display()),
    };
    bail!(
        "{key}: {}{missing}{advice}",
        cannot("write to", place, errno)
    )
}

/// Checks whether this user can read a key.
pub(super) fn can_read(key: &str, path: &Path) -> anyhow::Result<()> {
    match access(path, AccessFlags::R_OK) {
        Err(errno) => bail!("{key}: {}", cannot("read", path, errno)),
        Ok(()) => Ok(()),
    }
}

/// A warning about a path that only root can use. Root may use every path, so a check that root runs proves nothing about the
/// service's user.
pub(super) fn root_alone(path: &Path, others: Mode, act: &str) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    let of_root = found.uid() == 0 && geteuid().is_root();
    let is_shared = found.mode() & others.bits() != 0;
    (of_root && !is_shared).then(|| {
        format!(
            "only root can {act} {}{}; a daemon that runs as another user (comet.service has User=comet) cannot",
            path.display(),
            owner(path)
        )
    })
}

fn cannot(act: &str, path: &Path, errno: Errno) -> String {
    let user = user_name(geteuid());
    let path = (path.display(), owner(path));
    format!(
        "user {user} cannot {act} {}{}: {}; run this check as the daemon's user, because only that user needs access",
        path.0,
        path.1,
        errno.desc()
    )
}

/// Owner and mode of a path, such as ` (owned by comet:www-data, mode 2770)`.
fn owner(path: &Path) -> String {
    let Ok(found) = fs::metadata(path) else {
        return String::new();
    };
    let group = Group::from_gid(Gid::from_raw(found.gid())).ok().flatten();
    let group = group.map_or_else(|| found.gid().to_string(), |group| group.name);
    let (user, mode) = (user_name(Uid::from_raw(found.uid())), found.mode() & 0o7777);
    format!(" (owned by {user}:{group}, mode {mode:04o})")
}

fn user_name(uid: Uid) -> String {
    let user = User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}
