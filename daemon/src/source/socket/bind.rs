//! The socket's file: made for owner and group alone, taken over when stale, removed at the end.

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
        /// Whose it is.
        owner: String,
    },
    /// Somebody else's socket that this user may not connect to, or not remove.
    #[error(
        "{path}: it is a socket of user {owner}; stop the daemon that serves it, remove it, or name another path"
    )]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// Whose it is.
        owner: String,
    },
    /// Whoever can remove the socket can put their own in its place.
    #[error(
        "directory {0}: anybody may remove what others made in it; set the sticky bit (chmod +t), or name a path elsewhere"
    )]
    OpenToAll(PathBuf),
    /// Something else has the name.
    #[error("{0}: exists and is no socket")]
    NotASocket(PathBuf),
    /// Whether a daemon serves it cannot be found out.
    #[error("{path}: exists, and whether a daemon serves it cannot be found out: {cause}")]
    Unknown {
        /// The socket.
        path: PathBuf,
        /// What connecting to it gave.
        cause: Errno,
    },
    /// The directory is missing and cannot be made, or cannot be read.
    #[error("directory {path}: {cause}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Everything else.
    #[error("{path}: {cause}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// Removes the socket's file when dropped, unless it is another's by then.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

/// Binds and listens at `path`.
pub(super) fn bind(path: &Path) -> Result<(Listener, SocketFile), SocketError> {
    let directory = make_directory(path)?;
    // Of two daemons that start at once, the second must see what the first has bound.
    let _lock = lock(directory, path);
    remove_stale(path)?;
    let failed = |cause| SocketError::Bind {
        path: path.into(),
        cause,
    };
    let name = path.to_fs_name::<GenericFilePath>().map_err(failed)?;
    // The mode is given to the socket before it has a name, so that it is never open to more; the umask then
    // takes bits away, which are given back to the file.
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
    // Not through a symbolic link that somebody put there in between.
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
                "anybody may take {path} while no daemon runs, and clients would trust it; better a directory of one's own"
            );
            Ok(opened)
        }
        _ => Ok(opened),
    }
}

/// Whoever may read the directory can lock it, too: after a while that stops nobody.
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
        Err(Errno::ENOENT) => return Ok(()), // gone by itself
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

/// Device and inode of what has the name.
fn id(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id(&self.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.path); // what stays is stale, and the next daemon takes it over
        }
    }
}
