//! An entry of a directory that others may write to: opening it safely, and checking that it is the file's only name.

use std::{
    ffi::OsStr,
    fmt,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    sync::LazyLock,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::{FileStat, Mode, fstatat},
};
use rustix::fs::RawDir;
use tracing::warn;

/// Opens the entry itself, without following links or mounts (`EXDEV`), without waiting, and without any effect on the
/// file. The caller must check the opened file.
pub(in crate::source) fn open_entry(
    directory: impl AsFd,
    name: &OsStr,
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    open_by(*HAS_OPENAT2, directory, name, flags, mode)
}

/// Whether openat2 is available: since Linux 5.6, unless a sandbox forbids it.
static HAS_OPENAT2: LazyLock<bool> = LazyLock::new(|| {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    match openat2(AT_FDCWD, "/", how) {
        Ok(_) => true,
        Err(errno) => {
            warn!(
                "openat2: {}; files are opened with openat, which refuses links but not mounts over a file",
                errno.desc()
            );
            false
        }
    }
});

fn open_by(
    has_openat2: bool,
    directory: impl AsFd,
    name: &OsStr,
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    if !has_openat2 {
        return openat(directory, name, flags, mode);
    }
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    let how = OpenHow::new().flags(flags).mode(mode).resolve(resolve);
    openat2(directory, name, how)
}

/// Identifies one version of the file with a name: a state between two changes. It includes the time of the last change, because some file systems reuse inode numbers at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) struct FileVersion {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Nanoseconds since the epoch.
    pub(super) changed: i64,
}

/// The version as an idempotency key. Other publishers cannot guess it, because it contains the nanosecond of the change.
impl fmt::Display for FileVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (device, inode, changed) = (self.device, self.inode, self.changed);
        write!(f, "{device:x} {inode:x} {changed:x}")
    }
}

impl FileVersion {
    pub(super) fn is_on(&self, device: u64) -> bool {
        self.device == device
    }

    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl From<&FileStat> for FileVersion {
    fn from(stat: &FileStat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// Nanoseconds since the epoch; until the year 2262.
pub(super) fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// The number of attempts for a file that changes all the time.
const TRIES: usize = 4;

/// The result of [`sole_name`].
pub(in crate::source) enum NameCheck<S> {
    /// The file has this name; and no other name if its link count is 1.
    Sole(S),
    /// The file has this name, but changes all the time. This is its latest state.
    Changing(S),
    /// The file no longer has this name.
    Other,
}

/// Checks that the entry is the file that `look` sees, and its only name.
///
/// The link count alone does not prove it. When a rename replaces a hard link, the kernel decreases the link count of the replaced
/// file before the name leads to the new one. In between, a file with another name elsewhere looks like a file with only this name,
/// to `openat`, `fstat` and `fstatat`. Reading the directory and renaming take the same lock, so no rename is unfinished
/// while the directory is read. A link that is made afterwards changes the file's change time. Before Linux 6.13 the change time
/// does not change within one tick of its clock (4 ms), so a race of three precise moments remains there.
pub(in crate::source) fn sole_name<S, E: From<Errno>>(
    directory: &OwnedFd,
    name: &OsStr,
    look: impl Fn() -> Result<S, E>,
    version: impl Fn(&S) -> FileVersion,
) -> Result<NameCheck<S>, E> {
    let mut latest = None;
    for _ in 0..TRIES {
        let state = look()?;
        await_renames(directory);
        let now = match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(NameCheck::Other),
            now => FileVersion::from(&now?),
        };
        let seen = version(&state);
        if now == seen {
            return Ok(NameCheck::Sole(state));
        }
        if !now.is_same_file(&seen) {
            return Ok(NameCheck::Other);
        }
        latest = Some(state);
    }
    Ok(latest.map_or(NameCheck::Other, NameCheck::Changing))
}

/// Waits until every rename in the directory that had begun is finished.
fn await_renames(directory: &OwnedFd) {
    // The result does not matter: reading takes the lock in any case.
    let mut buffer = [MaybeUninit::uninit(); 64];
    let _ = RawDir::new(directory, &mut buffer).next();
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::symlink,
    };

    use super::*;

    #[test]
    fn opens_no_link_with_and_without_openat2() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("folder/file"), "x").unwrap();
        fs::write(at("file"), "x").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("/proc/self/fd/0", at("magic")).unwrap();
        symlink("folder", at("component")).unwrap();
        let directory = File::open(root.path()).unwrap();
        let open = |has_openat2, name: &str| {
            open_by(
                has_openat2,
                &directory,
                name.as_ref(),
                OFlag::O_RDONLY,
                Mode::empty(),
            )
        };
        for has_openat2 in [true, false] {
            assert!(open(has_openat2, "file").is_ok());
            assert_eq!(open(has_openat2, "link").err(), Some(Errno::ELOOP));
            assert_eq!(open(has_openat2, "magic").err(), Some(Errno::ELOOP));
            assert_eq!(open(has_openat2, "none").err(), Some(Errno::ENOENT));
        }
        // Channel names contain no slash. These flags additionally prevent leaving the directory, or following a link.
        assert_eq!(open(true, "component/file").err(), Some(Errno::ELOOP));
        assert_eq!(open(true, "/etc/hostname").err(), Some(Errno::EXDEV));
        assert_eq!(open(true, "../x").err(), Some(Errno::EXDEV));
    }

    #[test]
    fn makes_a_file_with_and_without_openat2() {
        let root = tempfile::tempdir().unwrap();
        let directory = File::open(root.path()).unwrap();
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        for (has_openat2, name) in [(true, "a"), (false, "b")] {
            let make = || open_by(has_openat2, &directory, name.as_ref(), flags, mode);
            assert!(make().is_ok(), "{name}");
            assert_eq!(make().err(), Some(Errno::EEXIST), "{name}");
        }
    }
}
