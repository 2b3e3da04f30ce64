//! The directory of the spool. Users who may add files to it are not trusted any further: a file is opened first, and
//! then checked through its descriptor.

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
    listing::{self, LOCK, REFUSED, Tidied},
    refusal::SpoolRefusal,
};
use crate::source::{
    files::entry::{FileVersion, NameCheck, open_entry, sole_name},
    socket::peer::user_name,
};

/// How often the lock is tried when other processes replace it meanwhile.
const TRIES: usize = 8;

/// Why the spool cannot be opened. The text fits after "cannot take messages from the spool: ".
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory does not exist and cannot be created, or must not be used.
    #[error(transparent)]
    SpoolDirectory(#[from] SpoolError),
    /// Another daemon has locked the spool.
    #[error("{}: another daemon takes them", .0.display())]
    Locked(PathBuf),
    /// The system refused.
    #[error("{}: {}", path.display(), cause.desc())]
    System {
        /// The spool.
        path: PathBuf,
        /// The error of the system.
        cause: Errno,
    },
}

/// An opened spool, which this daemon has locked.
pub(super) struct SpoolDirectory {
    fd: OwnedFd,
    device_and_inode: (u64, u64),
    lock: Flock<File>,
    /// `None` before [`SpoolDirectory::watch`], and while the system has no resources for a watcher.
    watcher: Option<RecommendedWatcher>,
    /// The failure to watch the directory was logged.
    failure_logged: bool,
}

impl SpoolDirectory {
    /// Opens the spool, creates it if necessary, and writes its limits into it.
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
            // Publishers then keep to the default limits. Their messages can still be taken out.
            let path = path.display();
            warn!("cannot write the limits into {path}: {}", errno.desc());
        }
        Ok(Self {
            fd,
            device_and_inode: (stat.st_dev, stat.st_ino),
            lock,
            watcher: None,
            failure_logged: false,
        })
    }

    /// Starts to watch the directory, or tries again if that failed before. `changed` is notified when a file has
    /// appeared or a writer has closed one. Without a watcher the directory must be read from time to time.
    pub(super) fn watch(&mut self, changed: &Arc<Notify>) {
        if self.watcher.is_some() {
            return;
        }
        match watch(&self.fd, changed) {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                changed.notify_one(); // for files that arrived before
                if std::mem::take(&mut self.failure_logged) {
                    info!("watching the spool");
                }
            }
            Err(error) if !self.failure_logged => {
                self.failure_logged = true;
                warn!("cannot watch the spool: {error}; looking into it every second");
            }
            Err(_) => {}
        }
    }

    /// Whether the path still leads to this directory, and the lock file still has its name.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let is = |found: Result<FileStat, Errno>, expected: (u64, u64)| {
            found.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == expected)
        };
        let look = |name| fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let directory = fstatat(AT_FDCWD, path, AtFlags::AT_SYMLINK_NOFOLLOW);
        let lock = fstat(&*self.lock).map(|stat| (stat.st_dev, stat.st_ino));
        is(directory, self.device_and_inode) && lock.is_ok_and(|lock| is(look(LOCK), lock))
    }

    /// See [`listing::messages`].
    pub(super) fn messages(&self) -> Result<Vec<listing::SpooledMessage>, Errno> {
        listing::messages(&self.fd)
    }

    /// See [`listing::tidy`].
    pub(super) fn tidy(&self) -> Result<Tidied, Errno> {
        listing::tidy(&self.fd)
    }

    /// Reads the content and the owner of a file. `None`: the file is gone.
    pub(super) fn read(
        &self,
        name: &OsStr,
        max: usize,
    ) -> Result<Option<(Vec<u8>, u32)>, SpoolRefusal> {
        let by_name = match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(None),
            stat => stat?,
        };
        check(&by_name, max)?;
        let file = match open_entry(&self.fd, name, OFlag::O_RDONLY, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => return Err(SpoolRefusal::Kind("a symbolic link")),
            file => File::from(file?),
        };
        let look = || {
            let stat = fstat(&file)?;
            check(&stat, max)?;
            Ok::<_, SpoolRefusal>(stat)
        };
        let stat = match sole_name(&self.fd, name, look, |stat| FileVersion::from(stat))? {
            NameCheck::Sole(stat) => stat,
            // A complete message file is not changed any more.
            NameCheck::Changing(_) | NameCheck::Other => return Err(SpoolRefusal::Swapped),
        };
        let mut content = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or_default());
        let read = file.take(max as u64 + 1).read_to_end(&mut content);
        read.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()))?;
        if content.len() > max {
            let size = content.len() as u64;
            return Err(SpoolRefusal::TooLarge { size, max });
        }
        Ok(Some((content, stat.st_uid)))
    }

    pub(super) fn remove(&self, name: &OsStr) -> bool {
        matches!(listing::remove(&self.fd, name), Ok(()) | Err(Errno::ENOENT))
    }

    /// Renames a refused file, so that a person can look at it and it is not read again. False: the file stays as it
    /// is.
    pub(super) fn move_aside(&self, name: &OsStr) -> bool {
        let mut aside = name.to_owned();
        aside.push(REFUSED);
        // The new name may be too long, or taken by an entry of another user, which must not be replaced.
        renameat_with(&self.fd, name, &self.fd, &*aside, RenameFlags::NOREPLACE).is_ok()
            || take_away(&self.fd, name, REFUSED).is_ok()
            || self.remove(name)
    }
}

/// Corrects the mode of the directory: users who may add files must not be able to remove the files of other users.
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

fn check(stat: &FileStat, max: usize) -> Result<(), SpoolRefusal> {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => {}
        SFlag::S_IFLNK => return Err(SpoolRefusal::Kind("a symbolic link")),
        SFlag::S_IFSOCK => return Err(SpoolRefusal::Kind("a socket")),
        SFlag::S_IFDIR => return Err(SpoolRefusal::Kind("a directory")),
        SFlag::S_IFIFO => return Err(SpoolRefusal::Kind("a FIFO")),
        _ => return Err(SpoolRefusal::Kind("a device")),
    }
    // A second hard link may lead to a file that the user who made the link cannot read.
    if stat.st_nlink != 1 {
        return Err(SpoolRefusal::Links(stat.st_nlink));
    }
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    if size > max as u64 {
        return Err(SpoolRefusal::TooLarge { size, max });
    }
    Ok(())
}

/// Locks the spool, because two daemons would publish each message twice. `None`: another daemon holds the lock. An
/// entry of another user at the lock's name is renamed: by a lock of his own such a user could keep every daemon from
/// the spool.
fn lock(directory: &OwnedFd, owner: u32) -> Result<Option<Flock<File>>, Errno> {
    let create = OFlag::O_CREAT | OFlag::O_EXCL;
    let owner_alone = Mode::S_IRUSR | Mode::S_IWUSR; // no other user can open and lock it
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
            // Another process has created or replaced the entry meanwhile.
            Ok(_) | Err(Errno::EEXIST | Errno::ENOENT | Errno::ELOOP | Errno::EISDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EBUSY)
}

/// Whether the entry is a lock file made by a daemon of this user or of the directory's owner.
fn is_lock(stat: &FileStat, owner: u32) -> bool {
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let is_trusted = stat.st_uid == geteuid().as_raw() || stat.st_uid == owner;
    kind == SFlag::S_IFREG && is_trusted && stat.st_nlink == 1
}

fn hold(file: File) -> Result<Option<Flock<File>>, Errno> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            // The process id is for people. Nothing depends on it.
            let _ = lock.set_len(0);
            let _ = lock.write_at(format!("{}\n", std::process::id()).as_bytes(), 0);
            Ok(Some(lock))
        }
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno),
    }
}

fn watch(directory: &OwnedFd, changed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    // notify panics when the system has no thread left for it. A thread that ends at once shows that there is one.
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
    // This path leads to the directory that was opened, even if its name now belongs to another one.
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    watcher.watch(&path, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Whether a file was moved into the directory, or a writer has closed one.
fn is_complete(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Modify(ModifyKind::Name(RenameMode::To))
            | EventKind::Access(AccessKind::Close(AccessMode::Write))
    )
}
