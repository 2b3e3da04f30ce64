//! What the log asks of a file system; little enough that a test can stand in for it, and fail where it likes.

use std::{
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use nix::fcntl::{Flock, FlockArg};

/// A directory of files.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing; makes it where it is not there.
    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>>;
    /// Gives a file another name, whose earlier file is gone.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Names are as safe as this promises: on the disk.
    fn sync(&self) -> io::Result<()>;
    /// Whether these files are there, in the directory that was opened, and have at least so many bytes: anybody who
    /// may do so can remove, move and cut them while they are written.
    fn is_whole(&self, files: &[(String, u64)]) -> bool {
        let _ = files;
        true
    }
    /// Makes and opens the directory anew where another one, or none, has its path.
    fn reopen(&self) -> io::Result<()> {
        Ok(())
    }
    /// For people.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file.
pub trait LogFile: fmt::Debug + Send {
    /// Writes some of the bytes at a place.
    fn write_at(&self, bytes: &[u8], place: u64) -> io::Result<usize>;
    /// Reads some bytes; 0 is the end.
    fn read_at(&self, bytes: &mut [u8], place: u64) -> io::Result<usize>;
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// What was written is on the disk.
    fn sync(&self) -> io::Result<()>;
}

/// Writes all of it.
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

/// A real directory, locked as long as this lives: two daemons must not write into one log.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    opened: Mutex<Opened>,
}

#[derive(Debug)]
struct Opened {
    handle: fs::File,
    _lock: Flock<fs::File>,
}

pub(super) const LOCK: &str = "lock";

impl Directory {
    /// Opens it; makes it, for its owner alone, where it is not there.
    ///
    /// # Errors
    /// What the system says; `WouldBlock`: another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.into(),
            opened: Mutex::new(Opened::at(path)?),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.opened
            .lock()
            .expect("no code panics while it holds the directory")
    }
}

impl Opened {
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

impl Disk for Directory {
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
            *opened = Opened::at(&self.path)?;
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
