//! An entry of a directory that others may write to: what it is, and that it is no second name of something else.

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

/// Opens the entry itself: no link, nothing that is mounted over it (`EXDEV`), and without waiting or any effect on
/// what it is. What was opened is for the caller to check.
pub(in crate::source) fn open_entry(
    directory: impl AsFd,
    name: &OsStr,
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    open_by(*HAS_OPENAT2, directory, name, flags, mode)
}

/// Since Linux 5.6, and where no sandbox hides it.
static HAS_OPENAT2: LazyLock<bool> = LazyLock::new(|| {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    match openat2(AT_FDCWD, "/", how) {
        Ok(_) => true,
        Err(errno) => {
            warn!(
                "openat2: {}; files are opened by openat, which refuses links but not what is mounted over a file",
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

/// What identifies a state of a name. Inode numbers are used again at once by some file systems, hence the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) struct Key {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Nanoseconds since the epoch.
    pub(super) changed: i64,
}

/// As an idempotency key. Who publishes with keys of their own cannot know it before the nanosecond of the change.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (device, inode, changed) = (self.device, self.inode, self.changed);
        write!(f, "{device:x} {inode:x} {changed:x}")
    }
}

impl Key {
    pub(super) fn is_on(&self, device: u64) -> bool {
        self.device == device
    }

    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl From<&FileStat> for Key {
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

/// How often a file is looked at that is changed all the while.
const TRIES: usize = 4;

/// What [`sole_name`] found out.
pub(in crate::source) enum Entry<S> {
    /// The file has that name, and no other one where its link count is 1.
    Sole(S),
    /// That name, but the file is changed all the while; the latest state of it.
    Changing(S),
    /// Not that name any more.
    Other,
}

/// Whether the entry is the file that `look` sees, and no second name of it.
///
/// The link count alone does not say so. A rename takes away the link of the file that it replaces before the name
/// leads elsewhere: in between a file that is somebody's hard link shows as one with this name alone, to `openat`,
/// `fstat` and `fstatat` alike. No rename is halfway while the directory is read, since both hold its lock. And
/// whoever makes such a link afterwards changes the time of the file's last change; before Linux 6.13 not within
/// one tick of its clock (4 ms), where a race of three precise moments remains.
pub(in crate::source) fn sole_name<S, E: From<Errno>>(
    directory: &OwnedFd,
    name: &OsStr,
    look: impl Fn() -> Result<S, E>,
    key: impl Fn(&S) -> Key,
) -> Result<Entry<S>, E> {
    let mut latest = None;
    for _ in 0..TRIES {
        let state = look()?;
        await_renames(directory);
        let now = match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(Entry::Other),
            now => Key::from(&now?),
        };
        let seen = key(&state);
        if now == seen {
            return Ok(Entry::Sole(state));
        }
        if !now.is_same_file(&seen) {
            return Ok(Entry::Other);
        }
        latest = Some(state);
    }
    Ok(latest.map_or(Entry::Other, Entry::Changing))
}

/// Returns when each rename in the directory that had begun has ended.
fn await_renames(directory: &OwnedFd) {
    // Whether an entry fits or is left does not matter: reading takes the lock in any case.
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
        // Names of channels hold no slash; even so nothing leads out, or through a link.
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
