//! The daemon's side of the spool: creates the directory, and writes the limits that clients must obey. Other users may
//! add entries to the directory. So an entry with any name may already exist, and it may be something other than a file.

use std::{
    ffi::OsStr,
    fs::File,
    hash::{BuildHasher, RandomState},
    io::Write,
    os::fd::OwnedFd,
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, renameat},
    sys::stat::fchmod,
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{
    FILE_MODE, OPEN, SPOOL_LIMITS, SpoolError, SpoolLimits, TRIES, create, failed, open_directory,
    trusted,
};

/// Opens the daemon's own spool, and creates the directory if necessary. Members of the directory's group may add files.
///
/// # Errors
/// The errors of [`super::Spool::open`].
pub fn make_spool(path: &Path) -> Result<OwnedFd, SpoolError> {
    let fd = match open_directory(path) {
        Err(Errno::ENOENT) => create(path)?,
        opened => opened.map_err(failed(OPEN, path))?,
    };
    trusted(path, &fd)?;
    Ok(fd)
}

/// Writes the limits that clients must obey.
///
/// # Errors
/// When a system call fails.
pub fn write_spool_limits(directory: &OwnedFd, limits: SpoolLimits) -> Result<(), Errno> {
    let (temporary, mut file) = new_file(directory)?;
    let text = format!("{} {}\n", limits.bytes, limits.files);
    let written = file.write_all(text.as_bytes());
    let written = written
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()))
        .and_then(|()| name_limits(directory, &temporary));
    if written.is_err() {
        // If the temporary file cannot be removed either, the first error is more useful.
        let _ = unlinkat(directory, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
    }
    written
}

/// Renames the temporary file to [`SPOOL_LIMITS`]. If a directory has this name, it is renamed first.
fn name_limits(directory: &OwnedFd, temporary: &str) -> Result<(), Errno> {
    let rename = || renameat(directory, temporary, directory, SPOOL_LIMITS);
    match rename() {
        Err(Errno::EISDIR | Errno::EEXIST | Errno::ENOTEMPTY) => {
            take_away(directory, SPOOL_LIMITS.as_ref(), ".refused")?;
            rename()
        }
        renamed => renamed,
    }
}

/// Creates a file with a name that cannot be guessed.
fn new_file(directory: &OwnedFd) -> Result<(String, File), Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut error = Errno::EEXIST;
    for _ in 0..TRIES {
        let name = format!(".{SPOOL_LIMITS}.{:016x}", random());
        match openat(directory, name.as_str(), flags, FILE_MODE) {
            Ok(file) => {
                fchmod(&file, FILE_MODE)?;
                return Ok((name, file.into()));
            }
            Err(errno) => error = errno,
        }
    }
    Err(error)
}

/// Renames an entry of any kind to a name that ends in `suffix` and cannot be guessed.
///
/// # Errors
/// When a system call fails.
pub fn take_away(directory: &OwnedFd, name: &OsStr, suffix: &str) -> Result<(), Errno> {
    let aside = format!("{:016x}{suffix}", random());
    renameat(directory, name, directory, aside.as_str())
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}
