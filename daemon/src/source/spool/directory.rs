//! The spool's directory. Whoever may add files to it is not trusted any further: what is read is checked by
//! descriptor after it was opened.

use std::{
    ffi::OsStr,
    fs::File,
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use comet_client::{SpoolError, SpoolLimits, make_spool, take_away, write_spool_limits};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag},
    sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat},
    unistd::geteuid,
};
use notify::{
    Config, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use rustix::fs::{RenameFlags, renameat_with};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::{
    Refusal,
    listing::{self, REFUSED, Tidied},
};
use crate::source::{
    files::entry::{Entry, Key, open_entry, sole_name},
    socket::peer::user_name,
};

/// Locked by the daemon that takes messages out.
pub(super) const LOCK: &str = ".lock";

/// How often a name that others take first is tried.
const TRIES: usize = 8;

/// Why the spool cannot be opened. The text fits after "cannot take messages from the spool: ".
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is not there and cannot be made, or is not ours.
    #[error(transparent)]
    Directory(#[from] SpoolError),
    /// Another daemon has it.
    #[error("{}: another daemon takes them", .0.display())]
    Locked(PathBuf),
    /// The system refused.
    #[error("{}: {}", path.display(), cause.desc())]
    System {
        /// The spool.
        path: PathBuf,
        /// What the system said.
        cause: Errno,
    },
}

/// An opened spool, ours alone.
pub(super) struct Directory {
    fd: OwnedFd,
    device_and_inode: (u64, u64),
    lock: Flock<File>,
    /// `None` before [`Directory::watch`], and while the system has no means left for it.
    watcher: Option<RecommendedWatcher>,
    /// That it cannot be watched was logged.
    told: bool,
}

impl Directory {
    /// Opens the spool, makes it if need be, and says in it what it may hold.
    pub(super) fn open(path: &Path, limits: SpoolLimits) -> Result<Self, OpenError> {
        let system = |cause| OpenError::System {
            path: path.into(),
            cause,
        };
        let fd = make_spool(path)?;
        let stat = fstat(&fd).map_err(system)?;
        protect(path, &fd, &stat);
        let Some(lock) = lock(&fd, stat.st_uid).map_err(system)? else {
            return Err(OpenError::Locked(path.into()));
        };
        if let Err(errno) = write_spool_limits(&fd, limits) {
            // Publishers keep to the default limits then; that is no reason to leave their messages there.
            let path = path.display();
            warn!("cannot write the limits into {path}: {}", errno.desc());
        }
        Ok(Self {
            fd,
            device_and_inode: (stat.st_dev, stat.st_ino),
            lock,
            watcher: None,
            told: false,
        })
    }

    /// Begins to watch, or tries again where that failed. `changed` is notified when a file has appeared or was written
    /// to its end. Without a watcher the directory has to be read from time to time.
    pub(super) fn watch(&mut self, changed: &Arc<Notify>) {
        if self.watcher.is_some() {
            return;
        }
        match watch(&self.fd, changed) {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                changed.notify_one(); // for files that came before
                if std::mem::take(&mut self.told) {
                    info!("watching the spool");
                }
            }
            Err(error) if !self.told => {
                self.told = true;
                warn!("cannot watch the spool: {error}; looking into it every second");
            }
            Err(_) => {}
        }
    }

    /// Whether the path still leads here, and the lock has its name.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let is = |found: Result<FileStat, Errno>, expected: (u64, u64)| {
            found.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == expected)
        };
        let look = |name| fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let directory = fstatat(AT_FDCWD, path, AtFlags::AT_SYMLINK_NOFOLLOW);
        let lock = fstat(&*self.lock).map(|stat| (stat.st_dev, stat.st_ino));
        is(directory, self.device_and_inode) && lock.is_ok_and(|lock| is(look(LOCK), lock))
    }

    /// As [`listing::messages`].
    pub(super) fn messages(&self) -> Result<Vec<listing::Entry>, Errno> {
        listing::messages(&self.fd)
    }

    /// As [`listing::tidy`].
    pub(super) fn tidy(&self) -> Result<Tidied, Errno> {
        listing::tidy(&self.fd)
    }

    /// The content and its owner; `None` when it was taken out.
    pub(super) fn read(&self, name: &OsStr, max: usize) -> Result<Option<(Vec<u8>, u32)>, Refusal> {
        let by_name = match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(None),
            stat => stat?,
        };
        check(&by_name, max)?;
        let file = match open_entry(&self.fd, name, OFlag::O_RDONLY, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => return Err(Refusal::Kind("a symbolic link")),
            file => File::from(file?),
        };
        let look = || {
            let stat = fstat(&file)?;
            check(&stat, max)?;
            Ok::<_, Refusal>(stat)
        };
        let stat = match sole_name(&self.fd, name, look, |stat| Key::from(stat))? {
            Entry::Sole(stat) => stat,
            // Nobody changes what he has put here.
            Entry::Changing(_) | Entry::Other => return Err(Refusal::Swapped),
        };
        let mut content = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or_default());
        let read = file.take(max as u64 + 1).read_to_end(&mut content);
        read.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()))?;
        if content.len() > max {
            let size = content.len() as u64;
            return Err(Refusal::TooLarge { size, max });
        }
        Ok(Some((content, stat.st_uid)))
    }

    pub(super) fn remove(&self, name: &OsStr) -> bool {
        matches!(listing::remove(&self.fd, name), Ok(()) | Err(Errno::ENOENT))
    }

    /// Keeps a refused file for somebody to look at, out of the way of the others. False: it stays where it is.
    pub(super) fn move_aside(&self, name: &OsStr) -> bool {
        let mut aside = name.to_owned();
        aside.push(REFUSED);
        // That name may be too long, or taken by an entry of another user, which must not be replaced.
        renameat_with(&self.fd, name, &self.fd, &*aside, RenameFlags::NOREPLACE).is_ok()
            || take_away(&self.fd, name, REFUSED).is_ok()
            || self.remove(name)
    }
}

/// Others may add files, and must not be able to remove those of somebody else.
fn protect(path: &Path, directory: &OwnedFd, stat: &FileStat) {
    let mode = Mode::from_bits_truncate(stat.st_mode);
    let mut wanted = mode | Mode::S_IRWXU;
    if mode.intersects(Mode::S_IWGRP | Mode::S_IWOTH) {
        wanted |= Mode::S_ISVTX;
    }
    if stat.st_uid != geteuid().as_raw() && !geteuid().is_root() {
        let (path, owner) = (path.display(), user_name(stat.st_uid));
        warn!(
            "the spool {path} belongs to {owner}: published messages of others cannot be removed there; give it to the \
             daemon's user (chown)"
        );
    } else if wanted != mode && fchmod(directory, wanted).is_ok() {
        let (path, wanted) = (path.display(), wanted.bits());
        warn!(
            "{path} had a mode by which others could remove messages, or the daemon none; it is {wanted:o} now"
        );
    }
}

fn check(stat: &FileStat, max: usize) -> Result<(), Refusal> {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => {}
        SFlag::S_IFLNK => return Err(Refusal::Kind("a symbolic link")),
        SFlag::S_IFSOCK => return Err(Refusal::Kind("a socket")),
        SFlag::S_IFDIR => return Err(Refusal::Kind("a directory")),
        SFlag::S_IFIFO => return Err(Refusal::Kind("a FIFO")),
        _ => return Err(Refusal::Kind("a device")),
    }
    // A link to somebody's file, which whoever made it could perhaps not read.
    if stat.st_nlink != 1 {
        return Err(Refusal::Links(stat.st_nlink));
    }
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    if size > max as u64 {
        return Err(Refusal::TooLarge { size, max });
    }
    Ok(())
}

/// Only one daemon takes messages out, or two would publish each. `None`: another one does. What others have put at
/// the lock's name is taken away: whoever holds a lock of his own there would keep every daemon from the spool.
fn lock(directory: &OwnedFd, owner: u32) -> Result<Option<Flock<File>>, Errno> {
    let create = OFlag::O_CREAT | OFlag::O_EXCL;
    let owner_alone = Mode::S_IRUSR | Mode::S_IWUSR; // nobody else can hold it
    for _ in 0..TRIES {
        let (flags, mode) = match fstatat(directory, LOCK, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => (create, owner_alone),
            Ok(stat) if is_lock(&stat, owner) => (OFlag::empty(), Mode::empty()),
            Ok(stat) => {
                let user = user_name(stat.st_uid);
                warn!(
                    "what {user} has put at {LOCK} in the spool is no lock of a daemon; it is taken away"
                );
                take_away(directory, LOCK.as_ref(), REFUSED)?;
                continue;
            }
            Err(errno) => return Err(errno),
        };
        match open_entry(directory, LOCK.as_ref(), OFlag::O_RDWR | flags, mode) {
            Ok(file) if is_lock(&fstat(&file)?, owner) => return hold(File::from(file)),
            // Somebody else was faster.
            Ok(_) | Err(Errno::EEXIST | Errno::ENOENT | Errno::ELOOP | Errno::EISDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EBUSY)
}

/// Made by a daemon of this user, or of the directory's owner.
fn is_lock(stat: &FileStat, owner: u32) -> bool {
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let is_trusted = stat.st_uid == geteuid().as_raw() || stat.st_uid == owner;
    kind == SFlag::S_IFREG && is_trusted && stat.st_nlink == 1
}

fn hold(file: File) -> Result<Option<Flock<File>>, Errno> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            // Who holds it, for people; nothing depends on it.
            let _ = lock.set_len(0);
            let _ = lock.write_at(format!("{}\n", std::process::id()).as_bytes(), 0);
            Ok(Some(lock))
        }
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno),
    }
}

fn watch(directory: &OwnedFd, changed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    // notify panics when the system has no thread for it. A thread that ends at once shows that there is one.
    let probe = thread::Builder::new().name("spool-probe".into());
    let _ = probe.spawn(|| {}).map_err(notify::Error::io)?.join();
    let changed = changed.clone();
    let handler = move |event: notify::Result<notify::Event>| {
        let is_noise = event.is_ok_and(|event| !event.need_rescan() && !is_complete(event.kind));
        if !is_noise {
            changed.notify_one();
        }
    };
    let mut watcher = RecommendedWatcher::new(handler, Config::default())?;
    // The directory that was opened, also when another one has its name by now.
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    watcher.watch(&path, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// A file was moved into the directory, or a writer has closed it.
fn is_complete(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Modify(ModifyKind::Name(RenameMode::To))
            | EventKind::Access(AccessKind::Close(AccessMode::Write))
    )
}
