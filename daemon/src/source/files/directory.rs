//! The directory and its files. Nothing in it is trusted: whoever may create files there may plant links, FIFOs
//! and devices, and swap them at any moment.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    dir::{Dir, OwningIter},
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag, open, openat},
    sys::stat::{Mode, SFlag, fstat, fstatat},
    unistd::geteuid,
};

use super::{refusal::Refusal, rules::State};
use crate::{auth::Allow, config::FilesConfig};

/// Memory that is reserved before anything was read, in bytes.
const READ_AHEAD: u64 = 64 << 10;

/// Which files are read.
pub(super) struct Terms {
    own_user: u32,
    allow: Allow,
    allow_any: bool,
    max_bytes: usize,
}

/// Whether to leave a file to those who write it or hold its lock ([`Unread::Busy`]), or to take it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Some,
    None,
}

/// Why a file was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// No file has that name any more.
    Gone,
    /// Somebody writes it, or holds its lock.
    Busy,
    Refused(Refusal),
}

impl From<Refusal> for Unread {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A directory that was opened; what has its path later may be another.
pub(super) struct Directory {
    fd: OwnedFd,
    device_and_inode: (u64, u64),
    mode: Mode,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = open(path, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        Ok(Self {
            fd,
            device_and_inode: (stat.st_dev, stat.st_ino),
            mode: Mode::from_bits_truncate(stat.st_mode),
        })
    }

    /// Whether the path still leads here: not when the directory was removed, moved, replaced or mounted over.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        fstatat(AT_FDCWD, path, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.device_and_inode)
    }

    /// Anybody may delete and rename anybody's files.
    pub(super) fn is_open_to_all(&self) -> bool {
        self.mode.contains(Mode::S_IWOTH) && !self.mode.contains(Mode::S_ISVTX)
    }

    /// All entries.
    pub(super) fn entries(&self) -> Result<OwningIter, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Dir::openat(&self.fd, ".", flags, Mode::empty()).map(Dir::into_iter)
    }

    /// What the name stands for, without following links; `None` when it stands for nothing.
    pub(super) fn state(&self, file: &OsStr) -> Result<Option<State>, Refusal> {
        match fstatat(&self.fd, file, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(State::from(&stat))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Refusal::Unreadable(errno)),
        }
    }

    /// The content, and a state whose changes it holds. `written`: it may be empty only because a writer has cut
    /// it off and goes on.
    pub(super) fn read(
        &self,
        file: &OsStr,
        terms: &Terms,
        written: bool,
        patience: Patience,
    ) -> Result<(Box<[u8]>, State), Unread> {
        let state = self.state(file)?.ok_or(Unread::Gone)?;
        terms.check(&state)?;
        let is_empty = state.size == 0;
        if is_empty && !written {
            return Ok((Box::default(), state));
        }
        // The name may stand for something else by now: O_NOFOLLOW and O_NONBLOCK make sure that opening it has no
        // effect, and what was opened is checked again.
        let flags = OFlag::O_RDONLY
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC;
        let opened = match openat(&self.fd, file, flags, Mode::empty()) {
            Ok(opened) => File::from(opened),
            Err(Errno::ENOENT) => return Err(Unread::Gone),
            Err(Errno::ELOOP) => return Err(Refusal::Kind("a symbolic link").into()),
            Err(Errno::EACCES) if is_empty => return Ok((Box::default(), state)),
            Err(errno) => return Err(Refusal::Unreadable(errno).into()),
        };
        terms.check(&state_of(&opened)?)?;
        // PHP's LOCK_EX and flock(1): such a writer is never read halfway.
        match Flock::lock(opened, FlockArg::LockSharedNonblock) {
            Ok(locked) => read_stable(&locked, terms, patience),
            Err((_, Errno::EWOULDBLOCK)) if patience == Patience::Some => Err(Unread::Busy),
            Err((unlocked, _)) => read_stable(&unlocked, terms, patience),
        }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Two states around the reading tell whether somebody wrote in between.
fn read_stable(
    mut file: &File,
    terms: &Terms,
    patience: Patience,
) -> Result<(Box<[u8]>, State), Unread> {
    let before = state_of(file)?;
    terms.check(&before)?;
    // What the file has, not what it says to have: a sparse file costs its owner nothing.
    let expected = before.size.min(READ_AHEAD) as usize;
    let mut content = Vec::with_capacity(expected + 1);
    let limit = (terms.max_bytes as u64).saturating_add(1);
    file.by_ref()
        .take(limit)
        .read_to_end(&mut content)
        .map_err(unreadable)?;
    let after = state_of(file)?;
    if patience == Patience::Some && (before != after || content.len() as u64 != after.size) {
        return Err(Unread::Busy);
    }
    content.truncate(terms.max_bytes);
    // The earlier one: what came after it may not be in the content, and must not count as told.
    Ok((content.into(), before))
}

fn state_of(file: &File) -> Result<State, Refusal> {
    fstat(file)
        .map(|stat| State::from(&stat))
        .map_err(Refusal::Unreadable)
}

fn unreadable(error: io::Error) -> Refusal {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    Refusal::Unreadable(errno)
}

impl Terms {
    pub(super) fn new(config: FilesConfig, allow_any: bool) -> Self {
        Self {
            own_user: geteuid().as_raw(),
            allow: config.allow,
            allow_any,
            max_bytes: config.max_bytes,
        }
    }

    fn check(&self, state: &State) -> Result<(), Refusal> {
        state.check_is_file()?;
        if !self.takes_files_of(state.uid) {
            return Err(Refusal::Owner(state.uid));
        }
        if state.size > 0 && state.links != 1 {
            return Err(Refusal::Links(state.links));
        }
        if state.size > self.max_bytes as u64 {
            return Err(Refusal::TooLarge {
                size: state.size,
                max: self.max_bytes,
            });
        }
        Ok(())
    }

    fn takes_files_of(&self, uid: u32) -> bool {
        // The group of a file does not say who wrote it: in a directory with the set-group-ID bit it is the
        // directory's. So groups count by the owner's membership; this number is nobody's.
        const NO_GROUP: u32 = u32::MAX;
        uid == self.own_user || uid == 0 || self.allow_any || self.allow.permits(uid, NO_GROUP)
    }
}

impl State {
    /// Refuses all but regular files.
    pub(super) fn check_is_file(&self) -> Result<(), Refusal> {
        let kind = match SFlag::from_bits_truncate(self.mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => return Ok(()),
            SFlag::S_IFLNK => "a symbolic link",
            SFlag::S_IFDIR => "a directory",
            SFlag::S_IFIFO => "a FIFO",
            SFlag::S_IFSOCK => "a socket",
            _ => "a device",
        };
        Err(Refusal::Kind(kind))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use nix::{sys::stat::mknod, unistd::mkfifo};

    use super::*;

    struct Fixture {
        root: tempfile::TempDir,
        directory: Directory,
        terms: Terms,
    }

    fn fixture() -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let config = FilesConfig {
            allow: Allow::default(),
            max_bytes: 10,
        };
        Fixture {
            directory: Directory::open(root.path()).unwrap(),
            terms: Terms::new(config, false),
            root,
        }
    }

    impl Fixture {
        fn read(&self, file: &str) -> Result<Box<[u8]>, Unread> {
            let read = self
                .directory
                .read(OsStr::new(file), &self.terms, false, Patience::Some);
            read.map(|(content, _)| content)
        }

        fn path(&self, file: &str) -> std::path::PathBuf {
            self.root.path().join(file)
        }
    }

    #[test]
    fn reads_up_to_the_limit() {
        let f = fixture();
        for content in ["", "x", "0123456789"] {
            fs::write(f.path("a"), content).unwrap();
            assert_eq!(&*f.read("a").unwrap(), content.as_bytes());
        }
        fs::write(f.path("a"), "0123456789+").unwrap();
        let too_large = Refusal::TooLarge { size: 11, max: 10 };
        assert_eq!(f.read("a"), Err(Unread::Refused(too_large)));
        assert_eq!(f.read("b"), Err(Unread::Gone));
    }

    #[test]
    fn refuses_what_is_no_regular_file_without_opening_it() {
        let f = fixture();
        fs::write(f.path("target"), "secret").unwrap();
        symlink(f.path("target"), f.path("link")).unwrap();
        symlink(f.path("nowhere"), f.path("dangling")).unwrap();
        fs::create_dir(f.path("folder")).unwrap();
        mkfifo(&f.path("fifo"), Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(f.path("socket")).unwrap();
        for (file, kind) in [
            ("link", "a symbolic link"),
            ("dangling", "a symbolic link"),
            ("folder", "a directory"),
            ("fifo", "a FIFO"),
            ("socket", "a socket"),
        ] {
            assert_eq!(
                f.read(file),
                Err(Unread::Refused(Refusal::Kind(kind))),
                "{file}"
            );
        }
        match mknod(
            &f.path("null"),
            SFlag::S_IFCHR,
            Mode::S_IRWXU,
            nix::sys::stat::makedev(1, 3),
        ) {
            Ok(()) => assert_eq!(
                f.read("null"),
                Err(Unread::Refused(Refusal::Kind("a device")))
            ),
            Err(_) => println!("skipped the device: only root may make one"),
        }
    }

    #[test]
    fn reads_no_content_under_a_second_name() {
        let f = fixture();
        fs::write(f.path("a"), "x").unwrap();
        fs::hard_link(f.path("a"), f.path("b")).unwrap();
        assert_eq!(f.read("b"), Err(Unread::Refused(Refusal::Links(2))));
        fs::write(f.path("a"), "").unwrap();
        assert_eq!(
            &*f.read("b").unwrap(),
            b"",
            "a signal without content tells nothing"
        );
    }

    #[test]
    fn waits_for_a_writer_that_holds_the_lock_unless_told_otherwise() {
        let f = fixture();
        fs::write(f.path("a"), "x").unwrap();
        let writer = File::options().write(true).open(f.path("a")).unwrap();
        let lock = Flock::lock(writer, FlockArg::LockExclusive).unwrap();
        assert_eq!(f.read("a"), Err(Unread::Busy));
        let impatient = f
            .directory
            .read(OsStr::new("a"), &f.terms, true, Patience::None);
        assert_eq!(&*impatient.unwrap().0, b"x");
        drop(lock);
        assert_eq!(&*f.read("a").unwrap(), b"x");
    }

    #[test]
    fn an_empty_file_is_left_to_its_writer_but_not_to_a_lock_after_a_touch() {
        let f = fixture();
        let file = File::create(f.path("a")).unwrap();
        let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
        let read = |written| {
            let a = OsStr::new("a");
            f.directory
                .read(a, &f.terms, written, Patience::Some)
                .map(|(content, _)| content)
        };
        assert_eq!(read(true), Err(Unread::Busy));
        assert_eq!(read(false), Ok(Box::default()));
        drop(lock);
        assert_eq!(read(true), Ok(Box::default()));
    }

    #[test]
    fn takes_files_of_root_its_own_user_and_those_allowed() {
        let mut terms = fixture().terms;
        terms.own_user = 7;
        assert_eq!(
            [0, 7, 8].map(|uid| terms.takes_files_of(uid)),
            [true, true, false]
        );
        terms.allow = Allow::parse(["user:8"]).unwrap();
        assert_eq!([8, 9].map(|uid| terms.takes_files_of(uid)), [true, false]);
        terms.allow_any = true;
        assert!(terms.takes_files_of(9));
    }

    #[test]
    fn follows_no_link_to_a_directory_and_notices_another_one() {
        let f = fixture();
        let (real, link) = (f.path("real"), f.path("link"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        assert!(Directory::open(&link).is_err());
        let directory = Directory::open(&real).unwrap();
        assert!(directory.is_at(&real));
        fs::rename(&real, f.path("moved")).unwrap();
        assert!(!directory.is_at(&real));
        fs::create_dir(&real).unwrap();
        assert!(!directory.is_at(&real));
    }
}
