//! Opening an entry of a directory that others may write to.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, OwnedFd},
    sync::LazyLock,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::Mode,
};
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
