//! The spool: a directory in which clients store messages while no daemon runs, one file for each message. The daemon
//! publishes the messages and removes the files (`docs/protocol.md`, "Spool").

mod daemon;

use std::{
    ffi::CStr,
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, UNIX_EPOCH},
};

pub use daemon::{make_spool, take_away, write_spool_limits};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat, renameat},
    sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat},
    unistd::{Gid, UnlinkatFlags, fchown, geteuid, unlinkat},
};

/// The extension of a message's file, with the format's version.
pub const SPOOL_SUFFIX: &str = ".msg1";

/// The file with the limits that the daemon sets.
pub const SPOOL_LIMITS: &str = "limits";

/// The mode of the directory: group members may add and read files. Files of other users may be removed only by the owner
/// of the directory, which is the daemon.
const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o3770);

/// The mode of a file: the daemon can read the file through the directory's group. Other users cannot.
const FILE_MODE: Mode = Mode::from_bits_truncate(0o640);

/// Maximum length of a message's line in bytes: the default limit of the daemon's socket.
const MAX_LINE: usize = 1 << 20;

/// The files of the directory are counted again after this time.
const COUNT_AGAIN: Duration = Duration::from_secs(1);

/// Time limit for counting the files. Other users may have filled the directory, and the caller has a deadline.
const COUNT_TIME: Duration = Duration::from_millis(40);

/// How many names are tried if entries with these names already exist.
const TRIES: usize = 8;

/// The limits of one user's files in a spool. Files of other users do not count. A client counts the files once a second.
/// In between, other processes of the same user may exceed the limits a little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Bytes of all files.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            files: 10_000,
        }
    }
}

/// Why the spool cannot be used. The text fits after "cannot be spooled: ".
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A system call failed.
    #[error("cannot {action} {}: {}{}", path.display(), source.desc(), hint(action, *source))]
    System {
        /// The operation.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: Errno,
    },
    /// The owner of the directory is not trusted: any user could have created the directory there.
    #[error("{} belongs to user {owner}, and any user could have created it there; choose another directory", path.display())]
    Foreign {
        /// The spool.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The spool is full.
    #[error("{} is full: {} messages of {} bytes in all", path.display(), held.files, held.bytes)]
    Full {
        /// The spool.
        path: PathBuf,
        /// Its content.
        held: SpoolLimits,
    },
    /// The message is longer than the spool allows.
    #[error("the message has {0} bytes as a line, over the spool's limit of {MAX_LINE}")]
    TooLarge(usize),
}

fn hint(action: &str, error: Errno) -> &'static str {
    match error {
        Errno::ENOENT if action == OPEN => " (the daemon creates it at its start)",
        Errno::EACCES if action == OPEN => " (only its owner and group may use it)",
        _ => "",
    }
}

const OPEN: &str = "open directory";

/// The path of the spool: `explicit`, or else a path beside the socket that is derived from the socket's name. So the
/// daemon and its clients use the same spool, and daemons with different sockets use different spools.
#[must_use]
pub fn spool_path(explicit: Option<&Path>, socket: &Path) -> PathBuf {
    if let Some(path) = explicit {
        return path.to_owned();
    }
    match socket.extension() {
        Some(extension) if extension == "sock" => socket.with_extension("spool"),
        _ => {
            let mut name = socket.as_os_str().to_owned();
            name.push(".spool");
            name.into()
        }
    }
}

/// An open spool, for adding messages.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    fd: OwnedFd,
    stat: FileStat,
    limits: SpoolLimits,
    /// The last count and its time. Files that this process has added since are included.
    count: Option<(Instant, SpoolLimits)>,
}

impl Spool {
    /// Opens the directory. Creates it if this user owns the parent directory.
    ///
    /// # Errors
    /// The directory does not exist, this user may not use it, or the owner of the directory is not trusted.
    pub fn open(path: &Path) -> Result<Self, SpoolError> {
        let fd = match open_directory(path) {
            Err(Errno::ENOENT) if is_own(path) => create(path)?,
            opened => opened.map_err(failed(OPEN, path))?,
        };
        let stat = trusted(path, &fd)?;
        let limits = read_limits(&fd, stat.st_uid).unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            fd,
            stat,
            limits,
            count: None,
        })
    }

    /// Adds one message: a line with a `publish` request of the socket. The file appears as a whole or not at all. Returns
    /// the file's name. The names that one process creates sort in the order of the calls.
    ///
    /// # Errors
    /// The spool is full, the message is too long, or a system call failed.
    pub fn put(&mut self, line: &[u8]) -> Result<String, SpoolError> {
        if line.len() > MAX_LINE {
            return Err(SpoolError::TooLarge(line.len()));
        }
        self.check_limits(line.len() as u64)?;
        let name = self.place(line).map_err(failed("write into", &self.path))?;
        if let Some((_, held)) = &mut self.count {
            held.files += 1;
            held.bytes += line.len() as u64;
        }
        Ok(name)
    }

    /// Writes a temporary file and renames it. If an entry with one of the two names already exists, tries other names.
    fn place(&self, line: &[u8]) -> Result<String, Errno> {
        let mut result = Err(Errno::EEXIST);
        for _ in 0..TRIES {
            let temporary = format!(".{}", new_name());
            if let Err(error) = self.write(&temporary, line) {
                if error != Errno::EEXIST {
                    self.remove(&temporary);
                    return Err(error);
                }
                continue;
            }
            let name = new_name();
            result = renameat(&self.fd, temporary.as_str(), &self.fd, name.as_str()).map(|()| name);
            if result.is_ok() {
                break;
            }
            // If the file cannot be removed either, the first error is more useful.
            self.remove(&temporary);
        }
        result
    }

    /// Whether the file still exists. If so, the daemon has not taken the message yet.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let look = fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        look.is_ok_and(|stat| is_of_this_user(&stat))
    }

    /// Reads the line of a message that this process has added. `None`: the daemon has taken the message.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(openat(&self.fd, name, flags, Mode::empty()).ok()?);
        // After the daemon has taken the file, another user may create one with the same name.
        if !is_of_this_user(&fstat(&file).ok()?) {
            return None;
        }
        let mut line = Vec::new();
        let most = MAX_LINE as u64 + 1;
        file.take(most).read_to_end(&mut line).ok()?;
        (line.len() <= MAX_LINE && line.ends_with(b"\n")).then_some(line)
    }

    /// Removes a message that was published.
    pub fn remove(&self, name: &str) {
        // Errors are ignored: if the file stays, the daemon recognises the message's key and does not publish it again.
        let _ = unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir);
    }

    fn write(&self, name: &str, line: &[u8]) -> Result<(), Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(
            &self.fd,
            name,
            flags,
            Mode::S_IRUSR | Mode::S_IWUSR,
        )?);
        // Not needed in a directory that the daemon created: its set-group-ID bit gives new files the directory's group.
        if self.stat.st_uid != geteuid().as_raw() && fstat(&file)?.st_gid != self.stat.st_gid {
            fchown(&file, None, Some(Gid::from_raw(self.stat.st_gid)))?;
        }
        fchmod(&file, FILE_MODE)?;
        let written = file.write_all(line);
        written.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()))
    }

    /// Checks that a message with this number of bytes does not exceed the limits.
    fn check_limits(&mut self, bytes: u64) -> Result<(), SpoolError> {
        let fits = |held: SpoolLimits| {
            held.files < self.limits.files && held.bytes + bytes <= self.limits.bytes
        };
        let recent = self.count.filter(|(when, _)| when.elapsed() < COUNT_AGAIN);
        if recent.is_some_and(|(_, held)| fits(held)) {
            return Ok(());
        }
        let held = self.count_files().map_err(failed("read", &self.path))?;
        self.count = Some((Instant::now(), held));
        if fits(held) {
            return Ok(());
        }
        let path = self.path.clone();
        Err(SpoolError::Full { path, held })
    }

    /// Counts this user's messages and their bytes. Stops when a limit is exceeded, or after [`COUNT_TIME`]: files that
    /// were not reached by then are not counted.
    fn count_files(&self) -> Result<SpoolLimits, Errno> {
        let begun = Instant::now();
        let mut held = SpoolLimits { bytes: 0, files: 0 };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        for entry in Dir::openat(&self.fd, ".", flags, Mode::empty())?.into_iter() {
            let entry = entry?;
            if begun.elapsed() > COUNT_TIME {
                break;
            }
            if !is_message(entry.file_name()) {
                continue;
            }
            let Ok(stat) = fstatat(&self.fd, entry.file_name(), AtFlags::AT_SYMLINK_NOFOLLOW)
            else {
                continue; // the daemon has removed the file meanwhile
            };
            if !is_of_this_user(&stat) {
                continue;
            }
            held.files += 1;
            held.bytes += u64::try_from(stat.st_size).unwrap_or_default();
            if held.files > self.limits.files || held.bytes > self.limits.bytes {
                break;
            }
        }
        Ok(held)
    }
}

/// Whether this is a regular file of this user, without other hard links.
fn is_of_this_user(stat: &FileStat) -> bool {
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    kind == SFlag::S_IFREG && stat.st_uid == geteuid().as_raw() && stat.st_nlink == 1
}

/// Whether a message's file can have this name, also a message that is still being written.
fn is_message(name: &CStr) -> bool {
    name.to_bytes().ends_with(SPOOL_SUFFIX.as_bytes())
}

/// Creates a file name from the time, the process id and a number. Within a process the time in the names always
/// increases, even if the clock is set back.
fn new_name() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let now = UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
    let now = u64::try_from(now).unwrap_or(u64::MAX >> 1);
    let step = |last: u64| Some(now.max(last + 1));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    let time = now.max(last.unwrap_or_default() + 1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let process = process::id();
    format!("{time:016x}-{process:08x}-{number:x}{SPOOL_SUFFIX}")
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty())
}

fn create(path: &Path) -> Result<OwnedFd, SpoolError> {
    match mkdirat(nix::fcntl::AT_FDCWD, path, Mode::S_IRWXU) {
        Err(errno) if errno != Errno::EEXIST => {
            return Err(failed("create directory", path)(errno));
        }
        Err(_) => return open_directory(path).map_err(failed(OPEN, path)), // another process was faster
        Ok(()) => {}
    }
    let fd = open_directory(path).map_err(failed(OPEN, path))?;
    fchmod(&fd, DIRECTORY_MODE).map_err(failed("create directory", path))?;
    Ok(fd)
}

/// Whether this user owns the parent directory. Only then does a client create the spool: elsewhere the daemon of another
/// user is expected to create it.
fn is_own(path: &Path) -> bool {
    let above = path.parent().unwrap_or(path);
    nix::sys::stat::stat(above).is_ok_and(|stat| stat.st_uid == geteuid().as_raw())
}

/// Checks the owner of the spool. In a directory like /tmp another user could have created the spool to read the messages,
/// so the spool is refused there unless it belongs to this user or to root.
fn trusted(path: &Path, fd: &OwnedFd) -> Result<FileStat, SpoolError> {
    let stat = fstat(fd).map_err(failed(OPEN, path))?;
    let owner = stat.st_uid;
    if owner == geteuid().as_raw() || owner == 0 {
        return Ok(stat);
    }
    let above = fstatat(fd, "..", AtFlags::empty()).map_err(failed(OPEN, path))?;
    if Mode::from_bits_truncate(above.st_mode).contains(Mode::S_IWOTH) {
        let path = path.to_owned();
        return Err(SpoolError::Foreign { path, owner });
    }
    Ok(stat)
}

/// Reads the limits that the daemon has written. A file that does not belong to the daemon's user or to root is ignored.
fn read_limits(directory: &OwnedFd, owner: u32) -> Option<SpoolLimits> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(directory, SPOOL_LIMITS, flags, Mode::empty()).ok()?);
    let uid = fstat(&file).ok()?.st_uid;
    let mut text = String::new();
    file.take(64).read_to_string(&mut text).ok()?;
    let (bytes, files) = text.trim_end().split_once(' ')?;
    let limits = SpoolLimits {
        bytes: bytes.parse().ok()?,
        files: files.parse().ok()?,
    };
    (uid == owner || uid == 0).then_some(limits)
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(Errno) -> SpoolError + 'a {
    move |source| SpoolError::System {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
