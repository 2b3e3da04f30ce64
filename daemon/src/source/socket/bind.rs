//! The socket's file: created for owner and group only, replaced when stale, removed at the end.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use interprocess::{
    local_socket::{GenericFilePath, ListenerOptions, ToFsName},
    os::unix::{local_socket::ListenerOptionsExt, uds_local_socket::Listener},
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, Flock, FlockArg},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
        stat::{FchmodatFlags, Mode, fchmodat},
    },
    unistd::geteuid,
};
use tracing::{info, warn};

use super::peer::user_name;

/// Owner and group.
const MODE: Mode = Mode::from_bits_truncate(0o660);

/// Bits of a directory's mode: others than its owner and group may write; nobody may remove what is not theirs.
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Attempts to lock the directory, and the pause between them: another daemon that starts holds it for a moment.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why the socket cannot be bound. The text fits after "cannot serve the socket: ".
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A daemon serves it.
    #[error(
        "{path}: another daemon serves it (it is a socket of user {owner}); stop that one, or name another path"
    )]
    Live {
        /// The socket.
        path: PathBuf,
        /// Its owner.
        owner: String,
    },
    /// Another user's socket, which this user may not connect to, or not remove.
    #[error(
        "{path}: it is a socket of user {owner}; stop the daemon that serves it, remove it, or name another path"
    )]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// Its owner.
        owner: String,
    },
    /// Other users could remove the socket and put their own in its place.
    #[error(
        "directory {0}: any user may remove others' files in it; set the sticky bit (chmod +t), or use another path"
    )]
    OpenToAll(PathBuf),
    /// The entry with this name is not a socket.
    #[error("{0}: exists and is not a socket")]
    NotASocket(PathBuf),
    /// It is unknown whether a daemon serves the socket.
    #[error(
        "{path}: exists, and connecting to find out whether a daemon serves it failed: {cause}"
    )]
    Unknown {
        /// The socket.
        path: PathBuf,
        /// The error of connecting to it.
        cause: Errno,
    },
    /// The directory is missing and cannot be created, or cannot be read.
    #[error("directory {path}: {cause}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// Another error.
    #[error("{path}: {cause}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
}

/// Removes the socket's file when dropped, unless another socket has its path by then.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

/// Binds and listens at `path`.
pub(super) fn bind(path: &Path) -> Result<(Listener, SocketFile), SocketError> {
    let directory = make_directory(path)?;
    // If two daemons start at once, the second must see the socket of the first.
    let _lock = lock(directory, path);
    remove_stale(path)?;
    let failed = |cause| SocketError::Bind {
        path: path.into(),
        cause,
    };
    let name = path.to_fs_name::<GenericFilePath>().map_err(failed)?;
    // The mode is set before the socket has a name, so that it is never open to more users. The umask then
    // removes bits, which are set again on the file.
    let listener = ListenerOptions::new()
        .name(name)
        .mode(MODE.bits())
        .reclaim_name(false)
        .try_overwrite(false)
        .create_sync_as::<Listener>()
        .map_err(failed)?;
    let file = SocketFile {
        path: path.into(),
        id: id(path).map_err(failed)?,
    };
    // Without following a symbolic link that another user may have created in between.
    fchmodat(AT_FDCWD, path, MODE, FchmodatFlags::NoFollowSymlink).map_err(|e| failed(e.into()))?;
    Ok((listener, file))
}

fn make_directory(path: &Path) -> Result<File, SocketError> {
    let directory = match path.parent() {
        None => path,
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    let failed = |cause| SocketError::Directory {
        path: directory.into(),
        cause,
    };
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let opened = File::open(directory).map_err(failed)?;
    let mode = opened.metadata().map_err(failed)?.mode();
    match (mode & OTHERS_WRITE != 0, mode & STICKY != 0) {
        (true, false) => Err(SocketError::OpenToAll(directory.into())),
        (true, true) => {
            let path = path.display();
            warn!(
                "any user may create {path} while no daemon runs, and clients would trust it; use a directory of your own instead"
            );
            Ok(opened)
        }
        _ => Ok(opened),
    }
}

/// Locks the directory. Any user who may read it can lock it, too, so after some time the daemon goes on without the lock.
fn lock(mut directory: File, path: &Path) -> Option<Flock<File>> {
    for _ in 0..LOCK_ATTEMPTS {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((unlocked, _)) => directory = unlocked,
        }
        thread::sleep(LOCK_PAUSE);
    }
    warn!(
        "the directory of {} stays locked by another process; going on without",
        path.display()
    );
    None
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |cause| SocketError::Bind {
        path: path.into(),
        cause,
    };
    let owner = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.into()));
        }
        Ok(found) => found.uid(),
    };
    let foreign = || SocketError::Foreign {
        path: path.into(),
        owner: user_name(owner),
    };
    let is_own = owner == geteuid().as_raw();
    match try_connect(path) {
        Err(Errno::ECONNREFUSED) => {}
        Err(Errno::ENOENT) => return Ok(()), // already removed
        Err(Errno::EACCES) if !is_own => return Err(foreign()),
        // EAGAIN: the queue is full, so a daemon serves the socket, if slowly.
        Ok(()) | Err(Errno::EAGAIN) => {
            return Err(SocketError::Live {
                path: path.into(),
                owner: user_name(owner),
            });
        }
        Err(cause) => {
            return Err(SocketError::Unknown {
                path: path.into(),
                cause,
            });
        }
    }
    info!(path = %path.display(), "taking over the socket of a daemon that is gone");
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_own => Err(foreign()),
        removed => removed.map_err(failed),
    }
}

/// Connects without waiting.
fn try_connect(path: &Path) -> Result<(), Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(probe.as_raw_fd(), &UnixAddr::new(path)?)
}

/// Device and inode of the entry with this name.
fn id(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id(&self.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.path); // a file that stays is stale, and the next daemon replaces it
        }
    }
}
