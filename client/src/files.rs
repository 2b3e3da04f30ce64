//! Publishing by files. The daemon need not run, and links that other users create in the directory are never followed.

use std::{
    fs::File,
    io::Write,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::UNIX_EPOCH,
};

use comet_proto::ChannelName;
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat, renameat},
    sys::{
        stat::{FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, utimensat},
        time::TimeSpec,
    },
    unistd::{Uid, UnlinkatFlags, User, geteuid, unlinkat},
};

/// The mode of the files: readable by the daemon, whatever the umask is.
const MODE: Mode = Mode::from_bits_truncate(0o644);

/// The directory that the daemon watches, opened once.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

/// Why a file could not be published.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {action} {}: {}", path.display(), source.desc())]
    System {
        /// The operation.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: Errno,
    },
    /// The channel's file belongs to another user, and the system refused.
    #[error(
        "cannot {action} {}: {} (the file belongs to {owner}; let that user publish, or remove the file)",
        path.display(), source.desc()
    )]
    Foreign {
        /// The operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The name of the file's owner, or `user NUMBER` where the system knows no name.
        owner: String,
        /// The system's error.
        source: Errno,
    },
    /// The entry with the channel's name is not a regular file.
    #[error("cannot touch {}: it is {kind}, not a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// The kind of entry.
        kind: &'static str,
    },
    /// The file has further names, so the daemon refuses it, and touching it would change another file, too.
    #[error(
        "cannot touch {}: it has {links} names (hard links), and only files with one are published; remove it", path.display()
    )]
    Linked {
        /// The file.
        path: PathBuf,
        /// The number of names.
        links: u64,
    },
    /// After writing, another file has the name, or the file has further names.
    #[error(
        "cannot write {}: another user moved or linked the file meanwhile; the directory needs the sticky bit, and this \
         machine fs.protected_hardlinks = 1", path.display()
    )]
    Disturbed {
        /// The file.
        path: PathBuf,
    },
}

impl Directory {
    /// Opens the directory.
    ///
    /// # Errors
    /// The directory does not exist, or is not a directory.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = open(path, flags, Mode::empty()).map_err(|source| FileError::System {
            action: "open directory",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            fd,
        })
    }

    /// Publishes a touch: sets the time of `NAME.comet` to now, and creates an empty file if there is none.
    ///
    /// # Errors
    /// The entry is not a regular file, has further names, or belongs to another user.
    pub fn touch(&self, channel: &ChannelName) -> Result<(), FileError> {
        let name = file_name(channel);
        // Other users may create and remove the file meanwhile; each round handles one such change.
        for _ in 0..8 {
            match self.look(&name)? {
                Some(file) => {
                    self.require_regular(&name, &file)?;
                    let (now, no_follow) = (TimeSpec::UTIME_NOW, UtimensatFlags::NoFollowSymlink);
                    match utimensat(&self.fd, name.as_str(), &now, &now, no_follow) {
                        Err(Errno::ENOENT) => {}
                        result => return result.map_err(|e| self.refused("touch", &name, e)),
                    }
                }
                None => match self.create(&name) {
                    Err(Errno::EEXIST) => {}
                    result => return result.map(drop).map_err(self.error("create", &name)),
                },
            }
        }
        Err(self.error("touch", &name)(Errno::EBUSY))
    }

    /// Publishes `data`: writes a temporary file and renames it to `NAME.comet`, so that no reader ever sees half of the data.
    ///
    /// # Errors
    /// The file cannot be written; then the earlier file is unchanged. Or another user moved or linked the file meanwhile; then
    /// the daemon refuses the present file.
    pub fn write(&self, channel: &ChannelName, data: &[u8]) -> Result<(), FileError> {
        let name = file_name(channel);
        let (temporary, mut file) = self.temporary(&name)?;
        let written = file
            .write_all(data)
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()))
            .and_then(|()| renameat(&self.fd, temporary.as_str(), &self.fd, name.as_str()));
        written.map_err(|source| {
            // If the file cannot be removed either, the first error is more useful.
            let _ = unlinkat(&self.fd, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
            self.refused("write", &name, source)
        })?;
        self.check_is_at(&name, &file)
    }

    /// Creates a temporary file. If another user has taken its name, tries another name.
    fn temporary(&self, name: &str) -> Result<(String, File), FileError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut tries = 0..8;
        loop {
            // With a leading dot the file belongs to no channel. The time distinguishes it from a file that a killed process with
            // the same id left behind.
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let nanos = UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
            let temporary = format!(".{name}.{}-{nanos:x}-{number:x}", process::id());
            match self.create(&temporary) {
                Err(Errno::EEXIST) if tries.next().is_some() => {}
                Err(errno) => return Err(self.error("create", &temporary)(errno)),
                Ok(file) => return Ok((temporary, file.into())),
            }
        }
    }

    /// Checks that the written file has the name and no other name, or that another writer replaced it.
    fn check_is_at(&self, name: &str, file: &File) -> Result<(), FileError> {
        // The name is looked up first: when a later write replaces the file, the name leads to the new file before the old
        // file has no name.
        let there = self.look(name)?;
        let written = fstat(file).map_err(self.error("write", name))?;
        let id = |stat: &FileStat| (stat.st_dev, stat.st_ino);
        let is_there = there.is_some_and(|there| id(&there) == id(&written));
        match written.st_nlink {
            0 => Ok(()),
            1 if is_there => Ok(()),
            _ => Err(FileError::Disturbed {
                path: self.path.join(name),
            }),
        }
    }

    /// Creates a file that did not exist before, also not as a symbolic link.
    fn create(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = openat(&self.fd, name, flags, MODE)?;
        fchmod(&file, MODE)?;
        Ok(file)
    }

    fn look(&self, name: &str) -> Result<Option<FileStat>, FileError> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::ENOENT) => Ok(None),
            Err(source) => Err(self.error("touch", name)(source)),
        }
    }

    fn require_regular(&self, name: &str, file: &FileStat) -> Result<(), FileError> {
        let kind = match SFlag::from_bits_truncate(file.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG if file.st_nlink > 1 => {
                let (path, links) = (self.path.join(name), file.st_nlink);
                return Err(FileError::Linked { path, links });
            }
            SFlag::S_IFREG => return Ok(()),
            SFlag::S_IFLNK => "a symbolic link",
            SFlag::S_IFDIR => "a directory",
            SFlag::S_IFIFO => "a FIFO",
            SFlag::S_IFSOCK => "a socket",
            _ => "a device",
        };
        let path = self.path.join(name);
        Err(FileError::NotRegular { path, kind })
    }

    /// An error about a channel's file, which names the owner if that is the reason.
    fn refused(&self, action: &'static str, name: &str, source: Errno) -> FileError {
        let forbidden = matches!(source, Errno::EACCES | Errno::EPERM);
        match self.look(name) {
            Ok(Some(file)) if forbidden && file.st_uid != geteuid().as_raw() => {
                FileError::Foreign {
                    action,
                    path: self.path.join(name),
                    owner: user_name(file.st_uid),
                    source,
                }
            }
            _ => self.error(action, name)(source),
        }
    }

    fn error(&self, action: &'static str, name: &str) -> impl FnOnce(Errno) -> FileError {
        let path = self.path.join(name);
        move |source| FileError::System {
            action,
            path,
            source,
        }
    }
}

fn user_name(id: u32) -> String {
    match User::from_uid(Uid::from_raw(id)) {
        Ok(Some(user)) => user.name,
        _ => format!("user {id}"),
    }
}

fn file_name(channel: &ChannelName) -> String {
    format!("{channel}.comet")
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
        time::{Duration, SystemTime},
    };

    use super::*;

    fn directory() -> (tempfile::TempDir, Directory, ChannelName) {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        (temporary, directory, ChannelName::parse("news").unwrap())
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn touch_creates_an_empty_file_and_later_renews_its_time() {
        let (temporary, directory, news) = directory();
        let path = temporary.path().join("news.comet");
        directory.touch(&news).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);

        fs::write(&path, "kept").unwrap();
        let past = SystemTime::now() - Duration::from_secs(3600);
        File::open(&path).unwrap().set_modified(past).unwrap();
        directory.touch(&news).unwrap();
        assert!(
            fs::metadata(&path).unwrap().modified().unwrap() > past + Duration::from_secs(3000)
        );
        assert_eq!(fs::read(&path).unwrap(), b"kept");
    }

    #[test]
    fn write_replaces_the_file_as_a_whole() {
        let (temporary, directory, news) = directory();
        let path = temporary.path().join("news.comet");
        directory.write(&news, b"long before").unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        directory.write(&news, b"\xff\0").unwrap();
        assert_ne!(fs::metadata(&path).unwrap().ino(), before);
        assert_eq!(fs::read(&path).unwrap(), b"\xff\0");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o644
        );
        assert_eq!(names(temporary.path()), ["news.comet"]);
    }

    /// A file name has 255 bytes at most, and the temporary name is the longest.
    #[test]
    fn the_longest_channel_has_a_file_and_a_temporary_file() {
        let (temporary, directory, _) = directory();
        let channel = ChannelName::parse(&"c".repeat(ChannelName::MAX_LEN)).unwrap();
        let name = file_name(&channel);
        directory.write(&channel, b"hi").unwrap();
        directory.touch(&channel).unwrap();
        assert_eq!(names(temporary.path()), [&*name]);

        let (unfinished, _) = directory.temporary(&name).unwrap();
        let most_digits = u32::MAX.to_string().len() + 2 * format!("{:x}", u64::MAX).len();
        assert!(1 + name.len() + 1 + most_digits + 2 <= 255, "{unfinished}");
    }

    #[test]
    fn a_planted_link_is_never_followed() {
        let (temporary, directory, news) = directory();
        let victim = temporary.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let before = fs::metadata(&victim).unwrap();
        symlink(&victim, temporary.path().join("news.comet")).unwrap();

        let error = directory.touch(&news).unwrap_err().to_string();
        assert!(
            error.ends_with("news.comet: it is a symbolic link, not a regular file"),
            "{error}"
        );
        directory.write(&news, b"hi").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(
            fs::metadata(&victim).unwrap().mtime_nsec(),
            before.mtime_nsec()
        );
        let replaced = fs::symlink_metadata(temporary.path().join("news.comet")).unwrap();
        assert!(replaced.is_file());
    }

    #[test]
    fn a_planted_hard_link_is_neither_touched_nor_written_to() {
        let (temporary, directory, news) = directory();
        let victim = temporary.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let before = fs::metadata(&victim).unwrap().modified().unwrap();
        fs::hard_link(&victim, temporary.path().join("news.comet")).unwrap();

        let error = directory.touch(&news).unwrap_err().to_string();
        assert!(error.contains("news.comet: it has 2 names"), "{error}");
        directory.write(&news, b"hi").unwrap();
        let after = fs::metadata(&victim).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!((after.modified().unwrap(), after.nlink()), (before, 1));
        assert_eq!(
            fs::read(temporary.path().join("news.comet")).unwrap(),
            b"hi"
        );
    }

    /// In a directory where every user may rename or link every file, another user does this with the temporary file.
    #[test]
    fn a_swapped_or_linked_file_is_an_error_and_a_replaced_file_is_not() {
        let (temporary, directory, _) = directory();
        let at = |name: &str| temporary.path().join(name);
        let check = |file: &File| {
            directory
                .check_is_at("news.comet", file)
                .map_err(|e| e.to_string())
        };

        let mine = File::create(at("news.comet")).unwrap();
        assert_eq!(check(&mine), Ok(()));
        fs::hard_link(at("news.comet"), at("aside")).unwrap();
        assert!(check(&mine).unwrap_err().contains("moved or linked"));
        fs::remove_file(at("news.comet")).unwrap();
        assert!(check(&mine).is_err(), "moved away");
        fs::write(at("news.comet"), "evil").unwrap();
        assert!(check(&mine).is_err(), "swapped");
        fs::remove_file(at("aside")).unwrap();
        assert_eq!(
            check(&mine),
            Ok(()),
            "as if another publisher had written since"
        );
    }

    #[test]
    fn a_planted_fifo_or_device_is_not_opened() {
        let (temporary, directory, news) = directory();
        let path = temporary.path().join("news.comet");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let error = directory.touch(&news).unwrap_err().to_string();
        assert!(
            error.ends_with("it is a FIFO, not a regular file"),
            "{error}"
        );
        directory.write(&news, b"hi").unwrap(); // would wait for a reader for ever
        assert_eq!(fs::read(&path).unwrap(), b"hi");
    }

    #[test]
    fn a_directory_of_the_name_is_an_error_and_leaves_nothing_behind() {
        let (temporary, directory, news) = directory();
        fs::create_dir(temporary.path().join("news.comet")).unwrap();
        assert!(matches!(
            directory.touch(&news),
            Err(FileError::NotRegular {
                kind: "a directory",
                ..
            })
        ));
        let error = directory.write(&news, b"hi").unwrap_err().to_string();
        assert!(error.ends_with("news.comet: Is a directory"), "{error}");
        assert_eq!(names(temporary.path()), ["news.comet"]);
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let error = Directory::open(Path::new("/no/such"))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "cannot open directory /no/such: No such file or directory"
        );
    }
}
