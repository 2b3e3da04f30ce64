//! The file operations that the log needs, as two small traits. A test replaces them with operations that fail.

use std::{
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use nix::fcntl::{Flock, FlockArg};

/// A directory of files.
pub trait Disk: fmt::Debug + Send + Sync {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing; creates it if it does not exist.
    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>>;
    /// Renames a file, and replaces a file that has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Syncs the directory, so that names survive a loss of power.
    fn sync(&self) -> io::Result<()>;
    /// Whether these files are in the directory and have at least these sizes. An administrator or a script may have removed,
    /// moved or cut a file while the daemon writes.
    fn is_whole(&self, files: &[(String, u64)]) -> bool {
        let _ = files;
        true
    }
    /// Opens the directory again if its path now leads to another directory or to none. Creates the directory if there is
    /// none.
    fn reopen(&self) -> io::Result<()> {
        Ok(())
    }
    /// The path, for error texts.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file.
pub trait LogFile: fmt::Debug + Send {
    /// Writes some of the bytes at an offset.
    fn write_at(&self, bytes: &[u8], place: u64) -> io::Result<usize>;
    /// Reads some bytes. Returns 0 at the end.
    fn read_at(&self, bytes: &mut [u8], place: u64) -> io::Result<usize>;
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Syncs the file to the disk.
    fn sync(&self) -> io::Result<()>;
}

/// Writes all bytes at an offset.
pub(super) fn write_all(file: &dyn LogFile, mut bytes: &[u8], mut place: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, place) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                place += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The directory of a log on a real disk. It is locked while this value lives, because two daemons must not write to one log.
#[derive(Debug)]
pub struct LogDirectory {
    path: PathBuf,
    opened: Mutex<OpenDirectory>,
}

#[derive(Debug)]
struct OpenDirectory {
    handle: fs::File,
    _lock: Flock<fs::File>,
}

pub(super) const LOCK: &str = "lock";

impl LogDirectory {
    /// Opens the directory. If it does not exist, it is created with access for its owner only.
    ///
    /// # Errors
    /// The system's error. `WouldBlock`: another process has locked it.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.into(),
            opened: Mutex::new(OpenDirectory::at(path)?),
        })
    }

    fn lock(&self) -> MutexGuard<'_, OpenDirectory> {
        self.opened
            .lock()
            .expect("no code panics while it holds the directory")
    }
}

impl OpenDirectory {
    fn at(path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
        let lock = options().open(path.join(LOCK))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        Ok(Self {
            handle: fs::File::open(path)?,
            _lock: lock,
        })
    }

    fn is_at(&self, path: &Path) -> bool {
        let id = |stat: &fs::Metadata| (stat.dev(), stat.ino());
        let (here, there) = (self.handle.metadata(), fs::metadata(path));
        matches!((&here, &there), (Ok(here), Ok(there)) if id(here) == id(there))
    }
}

fn options() -> fs::OpenOptions {
    let mut options = fs::File::options();
    options.read(true).write(true).create(true).truncate(false);
    options
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC);
    options
}

impl Disk for LogDirectory {
    fn list(&self) -> io::Result<Vec<String>> {
        let names =
            fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(io::Result::transpose).collect()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(options().open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.lock().handle.sync_all()
    }

    fn is_whole(&self, files: &[(String, u64)]) -> bool {
        let is_there = |(name, bytes): &(String, u64)| {
            let file = fs::symlink_metadata(self.path.join(name));
            file.is_ok_and(|file| file.is_file() && file.len() >= *bytes)
        };
        self.lock().is_at(&self.path) && files.iter().all(is_there)
    }

    fn reopen(&self) -> io::Result<()> {
        let mut opened = self.lock();
        if !opened.is_at(&self.path) {
            *opened = OpenDirectory::at(&self.path)?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl LogFile for fs::File {
    fn write_at(&self, bytes: &[u8], place: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, place)
    }

    fn read_at(&self, bytes: &mut [u8], place: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, place)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        fs::File::set_len(self, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
