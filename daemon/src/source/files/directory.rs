//! The directory and its files. Its content is not trusted: other users who may create files there can create links, FIFOs
//! and devices, and swap entries at any moment.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use comet_proto::ChannelName;
use nix::{
    dir::{Dir, OwningIter},
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag, open},
    sys::{
        stat::{Mode, SFlag, fstat, fstatat},
        statfs::{
            BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC,
            TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs,
        },
    },
    unistd::geteuid,
};

use super::{
    entry::{NameCheck, open_entry, sole_name},
    refusal::FileRefusal,
    rules::FileState,
};
use crate::{
    config::{ByPrefix, Config},
    users::AllowList,
};

/// The buffer that is allocated before reading, in bytes.
const READ_AHEAD: u64 = 64 << 10;

/// The rules for which files are read.
pub(super) struct FileRules {
    own_user: u32,
    /// For channels without a rule.
    allow: AllowList,
    allow_any: bool,
    rules: ByPrefix<AllowList>,
    max_bytes: usize,
}

/// The rule for one channel's file.
#[derive(Clone, Copy)]
pub(super) struct ChannelFileRules<'a> {
    terms: &'a FileRules,
    channel: &'a ChannelName,
}

/// Whether to wait for a writer or the holder of a lock ([`Unread::Busy`]), or to read the file at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Some,
    None,
}

/// Why a file was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The file no longer has this name. An event for the new file follows.
    Gone,
    /// A process writes the file, or holds its lock.
    Busy,
    /// The file cannot be opened now: no descriptor or memory is left, or a process has a lease (fcntl) on it, which the
    /// system ends after some time.
    Later(Errno),
    Refused(FileRefusal),
}

impl From<FileRefusal> for Unread {
    fn from(refusal: FileRefusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Errno> for Unread {
    fn from(errno: Errno) -> Self {
        FileRefusal::Unreadable(errno).into()
    }
}

/// An open directory. Its path may lead to another directory later.
pub(super) struct FilesDirectory {
    fd: OwnedFd,
    device_and_inode: (u64, u64),
    mode: Mode,
    may_block: bool,
}

/// The file systems on which reading a file that has just changed never waits for a disk, network or process.
const LOCAL: [FsType; 6] = [
    TMPFS_MAGIC,
    EXT4_SUPER_MAGIC,
    XFS_SUPER_MAGIC,
    BTRFS_SUPER_MAGIC,
    OVERLAYFS_SUPER_MAGIC,
    F2FS_SUPER_MAGIC,
];

impl FilesDirectory {
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = open(path, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        let kind = fstatfs(&fd)?.filesystem_type();
        Ok(Self {
            may_block: !LOCAL.contains(&kind),
            fd,
            device_and_inode: (stat.st_dev, stat.st_ino),
            mode: Mode::from_bits_truncate(stat.st_mode),
        })
    }

    /// Whether the path still leads to this directory. It does not when the directory was removed, moved, replaced or mounted over.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        fstatat(AT_FDCWD, path, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.device_and_inode)
    }

    /// Whether any user may delete and rename other users' files.
    pub(super) fn is_open_to_all(&self) -> bool {
        self.mode.contains(Mode::S_IWOTH) && !self.mode.contains(Mode::S_ISVTX)
    }

    /// Whether reading a file may take long, for example over a network.
    pub(super) fn may_block(&self) -> bool {
        self.may_block
    }

    /// Reads all entries.
    pub(super) fn entries(&self) -> Result<OwningIter, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Dir::openat(&self.fd, ".", flags, Mode::empty()).map(Dir::into_iter)
    }

    /// The entry with this name, without following links; `None` if there is none.
    pub(super) fn state(&self, file: &OsStr) -> Result<Option<FileState>, FileRefusal> {
        match fstatat(&self.fd, file, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileState::from(&stat))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(FileRefusal::Unreadable(errno)),
        }
    }

    /// The content, and a state of the file whose changes are in the content. `written`: an empty file may be one that a
    /// writer has truncated and is still writing.
    pub(super) fn read(
        &self,
        file: &OsStr,
        terms: ChannelFileRules<'_>,
        written: bool,
        patience: Patience,
    ) -> Result<(Box<[u8]>, FileState), Unread> {
        let state = self.checked(file, terms)?;
        // A mount over a file can show any owner. So an entry on another file system is only believed after opening it.
        let is_empty_here = state.size == 0 && state.version.is_on(self.device_and_inode.0);
        if is_empty_here && !written {
            return self.empty(file, terms, patience);
        }
        // The name may lead to something else by now. Opening has no effect on that, and the descriptor is
        // checked again.
        let opened = match open_entry(&self.fd, file, OFlag::O_RDONLY, Mode::empty()) {
            Ok(opened) => File::from(opened),
            Err(Errno::ENOENT) => return Err(Unread::Gone),
            Err(Errno::ELOOP) => return Err(FileRefusal::Kind("a symbolic link").into()),
            Err(Errno::EXDEV) => return Err(FileRefusal::Kind("a mount point").into()),
            Err(Errno::EACCES) if is_empty_here => return self.empty(file, terms, patience),
            Err(Errno::EWOULDBLOCK) if patience == Patience::Some => return Err(Unread::Busy),
            Err(errno @ (Errno::EWOULDBLOCK | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => {
                return Err(Unread::Later(errno));
            }
            Err(errno) => return Err(FileRefusal::Unreadable(errno).into()),
        };
        // Checked before locking, because a lock on a file with another name would disturb the users of that file.
        terms.check_opened(&state_of(&opened)?)?;
        // PHP's LOCK_EX and flock(1) lock the file, so their writes are never read half-finished.
        match Flock::lock(opened, FlockArg::LockSharedNonblock) {
            Ok(locked) => self.read_stable(file, &locked, terms, patience),
            Err((_, Errno::EWOULDBLOCK)) if patience == Patience::Some => Err(Unread::Busy),
            Err((unlocked, _)) => self.read_stable(file, &unlocked, terms, patience),
        }
    }

    fn checked(&self, file: &OsStr, terms: ChannelFileRules<'_>) -> Result<FileState, Unread> {
        let state = self.state(file)?.ok_or(Unread::Gone)?;
        terms.check(&state)?;
        Ok(state)
    }

    fn empty(
        &self,
        file: &OsStr,
        terms: ChannelFileRules<'_>,
        patience: Patience,
    ) -> Result<(Box<[u8]>, FileState), Unread> {
        let look = || match self.checked(file, terms) {
            Ok(state) if state.size > 0 => Err(Unread::Busy),
            checked => checked,
        };
        Ok((Box::default(), self.sole_name(file, patience, look)?))
    }

    /// Compares the states before and after reading, to detect a write in between.
    fn read_stable(
        &self,
        name: &OsStr,
        mut file: &File,
        terms: ChannelFileRules<'_>,
        patience: Patience,
    ) -> Result<(Box<[u8]>, FileState), Unread> {
        let before = self.sole_name(name, patience, || {
            let state = state_of(file)?;
            terms.check_opened(&state)?;
            Ok(state)
        })?;
        // Limited by the bytes that are read, not by the size of the file: a sparse file can claim any size.
        let expected = before.size.min(READ_AHEAD) as usize;
        let mut content = Vec::with_capacity(expected + 1);
        let limit = (terms.max_bytes() as u64).saturating_add(1);
        file.by_ref()
            .take(limit)
            .read_to_end(&mut content)
            .map_err(unreadable)?;
        let after = state_of(file)?;
        if patience == Patience::Some && (before != after || content.len() as u64 != after.size) {
            return Err(Unread::Busy);
        }
        // The file may have been given to another user while it was read, or have grown.
        terms.check_opened(&after)?;
        terms.check_size(content.len() as u64)?;
        // The earlier state: later changes may not be in the content, and must not count as published.
        Ok((content.into(), before))
    }

    /// A state in which the file that `look` sees had this name and no other.
    fn sole_name(
        &self,
        name: &OsStr,
        patience: Patience,
        look: impl Fn() -> Result<FileState, Unread>,
    ) -> Result<FileState, Unread> {
        let version = |state: &FileState| state.version;
        match sole_name(&self.fd, name, look, version)? {
            NameCheck::Sole(state) => Ok(state),
            // Of one that is written all the time each write hides the last one; a link is no write.
            NameCheck::Changing(state)
                if patience == Patience::None && state.was_written_last() =>
            {
                Ok(state)
            }
            NameCheck::Changing(_) => Err(Unread::Busy),
            NameCheck::Other => Err(Unread::Gone),
        }
    }
}

impl AsFd for FilesDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn state_of(file: &File) -> Result<FileState, FileRefusal> {
    fstat(file)
        .map(|stat| FileState::from(&stat))
        .map_err(FileRefusal::Unreadable)
}

fn unreadable(error: io::Error) -> FileRefusal {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    FileRefusal::Unreadable(errno)
}

impl FileRules {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            own_user: geteuid().as_raw(),
            allow: config.files.allow.clone(),
            allow_any: config.demo,
            rules: config.channels.files.clone(),
            max_bytes: config.files.max_bytes,
        }
    }

    pub(super) fn of<'a>(&'a self, channel: &'a ChannelName) -> ChannelFileRules<'a> {
        ChannelFileRules {
            terms: self,
            channel,
        }
    }
}

impl ChannelFileRules<'_> {
    fn max_bytes(&self) -> usize {
        self.terms.max_bytes
    }

    fn check(&self, state: &FileState) -> Result<(), FileRefusal> {
        state.check_is_file()?;
        self.check_owner(state.uid)?;
        // An attacker who can link a file can also move the link here. Even an empty file would publish a message.
        if state.links > 1 {
            return Err(FileRefusal::Links(state.links));
        }
        self.check_size(state.size)
    }

    /// The state of an open file, which may have lost its name meanwhile.
    fn check_opened(&self, state: &FileState) -> Result<(), Unread> {
        if state.links == 0 {
            return Err(Unread::Gone);
        }
        Ok(self.check(state)?)
    }

    fn check_size(&self, size: u64) -> Result<(), FileRefusal> {
        let max = self.max_bytes();
        if size > max as u64 {
            return Err(FileRefusal::TooLarge { size, max });
        }
        Ok(())
    }

    fn check_owner(&self, uid: u32) -> Result<(), FileRefusal> {
        // A file's group does not identify its writer: with the set-group-ID bit it is the directory's group. So groups count
        // only by the owner's membership.
        let terms = self.terms;
        if uid == terms.own_user || uid == 0 {
            return Ok(());
        }
        match terms.rules.find(self.channel) {
            Some((_, rule)) if rule.permits(uid, None) => Ok(()),
            Some((prefix, _)) => Err(FileRefusal::Rule {
                uid,
                prefix: prefix.into(),
            }),
            None if terms.allow_any || terms.allow.permits(uid, None) => Ok(()),
            None => Err(FileRefusal::Owner(uid)),
        }
    }
}

impl FileState {
    /// Refuses everything except regular files.
    pub(super) fn check_is_file(&self) -> Result<(), FileRefusal> {
        let kind = match SFlag::from_bits_truncate(self.mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => return Ok(()),
            SFlag::S_IFLNK => "a symbolic link",
            SFlag::S_IFDIR => "a directory",
            SFlag::S_IFIFO => "a FIFO",
            SFlag::S_IFSOCK => "a socket",
            _ => "a device",
        };
        Err(FileRefusal::Kind(kind))
    }
}

#[cfg(test)]
mod tests;
