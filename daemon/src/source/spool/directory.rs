//! The spool's directory. Whoever may add files to it is not trusted any further: what is read is checked by
//! descriptor after it was opened.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use comet_client::{SPOOL_SUFFIX, SpoolError, SpoolLimits, make_spool, write_spool_limits};
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag, openat, renameat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};
use notify::{
    Config, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::Refusal;
use crate::source::files::entry::{Entry, Key, open_entry, sole_name};

/// Names that are read in one go; of more than that the first.
const MOST_NAMES: usize = 65_536;

/// What a refused file's name ends in from then on.
const REFUSED: &str = ".refused";

/// Refused files that stay for somebody to look at, the newest.
const KEPT_REFUSED: usize = 1000;

/// Of these, how many older ones are removed in one go.
const MOST_REMOVED: usize = 4096;

/// What is still being written after so long was left behind by a process that was killed.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

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
    _lock: Flock<File>,
    /// `None` where the system has no means left for it.
    watcher: Option<RecommendedWatcher>,
}

/// What is in the directory.
#[derive(Default)]
struct Names {
    /// Messages, sorted: as they were put.
    messages: Vec<OsString>,
    unfinished: Vec<OsString>,
    refused: Vec<OsString>,
}

impl Directory {
    /// Opens the spool, makes it if need be, and says in it what it may hold. `changed` is told when a file appears.
    pub(super) fn open(
        path: &Path,
        limits: SpoolLimits,
        changed: &Arc<Notify>,
    ) -> Result<Self, OpenError> {
        let system = |cause| OpenError::System {
            path: path.into(),
            cause,
        };
        let fd = make_spool(path)?;
        let lock = match lock(&fd).map_err(system)? {
            Some(lock) => lock,
            None => return Err(OpenError::Locked(path.into())),
        };
        write_spool_limits(&fd, limits).map_err(system)?;
        let stat = fstat(&fd).map_err(system)?;
        let watcher = watch(&fd, changed);
        if let Err(error) = &watcher {
            warn!(%error, "cannot watch the spool; looking into it every second");
        }
        Ok(Self {
            fd,
            device_and_inode: (stat.st_dev, stat.st_ino),
            _lock: lock,
            watcher: watcher.ok(),
        })
    }

    /// Tries again to watch where that failed; until then somebody has to look every now and then.
    pub(super) fn watch(&mut self, changed: &Arc<Notify>) {
        if self.watcher.is_none() {
            self.watcher = watch(&self.fd, changed).ok();
            if self.watcher.is_some() {
                info!("watching the spool");
            }
            changed.notify_one();
        }
    }

    /// Whether the path still leads here.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        fstatat(AT_FDCWD, path, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.device_and_inode)
    }

    /// Messages in the order in which they are to be published. Of each process all come that it had put before the
    /// last one of these.
    pub(super) fn messages(&self) -> Result<Vec<OsString>, Errno> {
        let first = self.names()?.messages;
        if first.is_empty() {
            return Ok(first);
        }
        // A file that came while the directory was read may be seen, and an earlier one not. But what had come before
        // any file that was seen is there in the second reading.
        let newest: HashMap<&[u8], &OsString> = first.iter().map(|n| (process(n), n)).collect();
        let mut messages = self.names()?.messages;
        messages.retain(|name| newest.get(process(name)).is_some_and(|last| name <= *last));
        Ok(messages)
    }

    /// Removes what was left behind, and the oldest of many refused files.
    pub(super) fn tidy(&self) -> Result<(), Errno> {
        let mut names = self.names()?;
        let now = SystemTime::now();
        for name in names.unfinished {
            let old = fstatat(&self.fd, &*name, AtFlags::AT_SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| age(&stat, now) > LEFT_BEHIND);
            if old {
                self.remove(&name);
            }
        }
        names.refused.sort_unstable();
        let many = names.refused.len().saturating_sub(KEPT_REFUSED);
        // The rest next time: others on the thread have their turns.
        for name in names.refused[..many].iter().take(MOST_REMOVED) {
            self.remove(name);
        }
        Ok(())
    }

    fn names(&self) -> Result<Names, Errno> {
        let mut names = Names::default();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        for entry in Dir::openat(&self.fd, ".", flags, Mode::empty())?.into_iter() {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            let list = match () {
                () if bytes.ends_with(REFUSED.as_bytes()) => &mut names.refused,
                () if !bytes.ends_with(SPOOL_SUFFIX.as_bytes()) => continue,
                () if bytes.starts_with(b".") => &mut names.unfinished,
                () => &mut names.messages,
            };
            list.push(OsStr::from_bytes(bytes).to_owned());
            if list.len() >= 2 * MOST_NAMES {
                list.sort_unstable();
                list.truncate(MOST_NAMES);
            }
        }
        names.messages.sort_unstable();
        names.messages.truncate(MOST_NAMES);
        Ok(names)
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
        matches!(
            unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir),
            Ok(()) | Err(Errno::ENOENT)
        )
    }

    /// Keeps a refused file for somebody to look at, out of the way of the others. False: it stays where it is.
    pub(super) fn move_aside(&self, name: &OsStr) -> bool {
        let mut aside = name.to_owned();
        aside.push(REFUSED);
        renameat(&self.fd, name, &self.fd, &*aside).is_ok()
    }
}

/// Of a client's file the part of the name that says which process has put it.
fn process(name: &OsString) -> &[u8] {
    let mut parts = name.as_bytes().split(|byte| *byte == b'-');
    parts.nth(1).unwrap_or_default()
}

fn age(stat: &FileStat, now: SystemTime) -> Duration {
    let modified = u64::try_from(stat.st_mtime).unwrap_or_default();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(modified);
    now.duration_since(modified).unwrap_or_default()
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

/// Only one daemon takes messages out, or two would publish each. `None`: another one does.
fn lock(directory: &OwnedFd) -> Result<Option<Flock<File>>, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR; // nobody else can hold it
    let file = File::from(openat(directory, ".lock", flags, mode)?);
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

/// Tells `changed` whenever a file appears or is written to its end.
fn watch(directory: &OwnedFd, changed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let changed = changed.clone();
    let handler = move |event: notify::Result<notify::Event>| {
        let matters = event.is_ok_and(|event| {
            !event.need_rescan()
                && !matches!(
                    event.kind,
                    EventKind::Modify(ModifyKind::Name(RenameMode::To))
                        | EventKind::Access(AccessKind::Close(AccessMode::Write))
                )
        });
        if !matters {
            changed.notify_one();
        }
    };
    let mut watcher = RecommendedWatcher::new(handler, Config::default())?;
    // What was opened, not what has its name by now.
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    watcher.watch(&path, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
