//! The stamp: a hidden file in the directory with the time up to which every change was published. A daemon that starts finds
//! out from it what changed while none ran. Its change time shows the clock of the file system, which also sets the times
//! of all other files.
//!
//! Content: nanoseconds since the epoch on the first line, then the names of channels whose files were being
//! written at that time, one a line, then a line with a dot.

use std::{
    fs::File,
    os::{fd::AsFd, unix::fs::FileExt},
};

use comet_proto::ChannelName;
use nix::{
    errno::Errno,
    fcntl::{AtFlags, Flock, FlockArg, OFlag},
    sys::{
        stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, futimens},
        time::TimeSpec,
    },
    unistd::{Uid, User, geteuid},
};

use super::entry::{nanoseconds, open_entry};

pub(super) const FILE_NAME: &str = ".comet-seen";

const MODE: Mode = Mode::from_bits_truncate(0o600);

/// The most bytes of names of files being written: one page, which is written as a whole or not at all.
const MOST_BYTES: usize = 4096;

/// The open stamp, locked while the daemon runs, because two daemons in one directory must not share a stamp.
pub(super) struct Stamp(Flock<File>);

/// The content that the last daemon wrote.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StampContent {
    /// Every change before this time was published. Nanoseconds since the epoch.
    pub(super) until: i64,
    /// Files that were being written, and may be complete by now.
    pub(super) unfinished: Vec<ChannelName>,
}

/// Why there is no stamp. The text fits after "cannot use DIR/.comet-seen: ".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StampError {
    #[error("another daemon uses it")]
    Locked,
    /// A file as a daemon of another user would leave: such a daemon may still run.
    #[error(
        "it is a file of {}; if a daemon of this user watches the directory, name another directory (`dir`), else remove the file", owner(*.0)
    )]
    OfAnother(Uid),
    #[error("it is not a regular file of this user with only one name; remove it")]
    Planted,
    #[error("{}", .0.desc())]
    System(#[from] Errno),
}

impl Stamp {
    /// Opens or creates the stamp. Also returns its content, unless it is new.
    pub(super) fn open(directory: impl AsFd) -> Result<(Self, Option<StampContent>), StampError> {
        let open = |flags, mode| open_entry(&directory, FILE_NAME.as_ref(), flags, mode);
        let file = match open(OFlag::O_RDWR, Mode::empty()) {
            // Two calls, because O_CREAT fails in /dev/shm on the file of another user.
            Err(Errno::ENOENT) => open(OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL, MODE)?,
            Err(Errno::ELOOP | Errno::EISDIR | Errno::ENXIO | Errno::EXDEV) => {
                return Err(StampError::Planted);
            }
            Err(Errno::EACCES) => {
                let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
                return Err(refusal(&fstatat(&directory, FILE_NAME, flags)?));
            }
            opened => opened?,
        };
        // Checked twice, because a link to another file of this user, whose other name is removed in between, looks like a regular stamp.
        let named = fstatat(&directory, FILE_NAME, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let opened = fstat(&file)?;
        let is_same = (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino);
        if !is_same || !is_own_file(&named) || !is_own_file(&opened) {
            return Err(refusal(&named));
        }
        let file = match Flock::lock(File::from(file), FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => return Err(StampError::Locked),
            Err((_, errno)) => return Err(errno.into()),
        };
        fchmod(&*file, MODE)?;
        let mut content = vec![0; MOST_BYTES];
        let length = file.read_at(&mut content, 0).map_err(errno)?;
        Ok((Self(file), StampContent::parse(&content[..length])))
    }

    /// Touches the stamp and returns the time, by the clock of the file system. Every later change has this time
    /// or a later one. The watcher reports this touch after every earlier event.
    pub(super) fn clock(&self) -> Result<i64, Errno> {
        futimens(&*self.0, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW)?;
        let stat = fstat(&*self.0)?;
        Ok(nanoseconds(stat.st_ctime, stat.st_ctime_nsec))
    }

    /// Whether any two changes with a read in between have different times.
    pub(super) fn clock_is_fine(&self) -> bool {
        (0..4).all(|_| matches!((self.clock(), self.clock()), (Ok(a), Ok(b)) if a != b))
    }

    /// Whether somebody has deleted the stamp.
    pub(super) fn is_gone(&self) -> bool {
        fstat(&*self.0).is_ok_and(|stat| stat.st_nlink == 0)
    }

    pub(super) fn write(&self, seen: &StampContent) -> Result<(), Errno> {
        let content = seen.format();
        self.0.write_all_at(&content, 0).map_err(errno)?;
        self.0.set_len(content.len() as u64).map_err(errno)
    }
}

/// Checks for a regular file of this user, without a second name.
fn is_own_file(stat: &FileStat) -> bool {
    is_single_file(stat) && stat.st_uid == geteuid().as_raw()
}

/// Checks for a regular file without a second name.
fn is_single_file(stat: &FileStat) -> bool {
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    kind == SFlag::S_IFREG && stat.st_nlink == 1
}

/// Why this file cannot be the stamp.
fn refusal(stat: &FileStat) -> StampError {
    let owner = Uid::from_raw(stat.st_uid);
    if is_single_file(stat) && owner != geteuid() {
        StampError::OfAnother(owner)
    } else {
        StampError::Planted
    }
}

/// The owner, such as `user comet`.
fn owner(uid: Uid) -> String {
    let user = User::from_uid(uid).ok().flatten();
    user.map_or_else(
        || format!("user {uid}"),
        |user| format!("user {}", user.name),
    )
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

impl StampContent {
    /// `None` if the file is empty or has another format.
    fn parse(content: &[u8]) -> Option<Self> {
        let mut lines = str::from_utf8(content).ok()?.split('\n');
        let until = lines.next()?.parse().ok()?;
        let mut unfinished = Vec::new();
        for line in lines {
            if line == "." {
                return Some(Self { until, unfinished });
            }
            unfinished.push(ChannelName::parse(line).ok()?);
        }
        None
    }

    fn format(&self) -> Vec<u8> {
        let mut content = format!("{}\n", self.until);
        for name in &self.unfinished {
            if content.len() + name.len() + "\n.\n".len() > MOST_BYTES {
                break; // too many files are being written at once; the others are published when they change again
            }
            content.push_str(name);
            content.push('\n');
        }
        content.push_str(".\n");
        content.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn open(root: &tempfile::TempDir) -> Result<(Stamp, Option<StampContent>), StampError> {
        Stamp::open(File::open(root.path()).unwrap())
    }

    fn seen(until: i64, names: &[&str]) -> StampContent {
        StampContent {
            until,
            unfinished: names
                .iter()
                .map(|name| ChannelName::parse(name).unwrap())
                .collect(),
        }
    }

    #[test]
    fn remembers_for_the_next_daemon() {
        let root = tempfile::tempdir().unwrap();
        let (stamp, before) = open(&root).unwrap();
        assert_eq!(before, None);
        for said in [
            seen(1, &["a", "b"]),
            seen(1_763_690_000_123_456_789, &[]),
            seen(-1, &["a"]),
        ] {
            stamp.write(&said).unwrap();
            let content = fs::read(root.path().join(FILE_NAME)).unwrap();
            assert_eq!(StampContent::parse(&content), Some(said));
        }
        drop(stamp);
        assert_eq!(open(&root).unwrap().1, Some(seen(-1, &["a"])));
        let mode = fs::metadata(root.path().join(FILE_NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn ignores_what_it_did_not_write() {
        for content in [
            "",
            "5",
            "5\n",
            "5\na\n",
            "x\n.\n",
            "5\n../a\n.\n",
            "\u{0}",
            "99999999999999999999\n.\n",
        ] {
            assert_eq!(StampContent::parse(content.as_bytes()), None, "{content:?}");
        }
        assert_eq!(StampContent::parse(b"\xff\n.\n"), None);
        assert_eq!(
            StampContent::parse(b"5\n.\nrest of a longer one\n.\n"),
            Some(seen(5, &[]))
        );
    }

    #[test]
    fn names_as_many_as_fit_a_page() {
        let names: Vec<String> = (0..1000).map(|n| format!("channel-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let content = seen(5, &names).format();
        assert!(content.len() <= MOST_BYTES);
        assert!(StampContent::parse(&content).unwrap().unfinished.len() > 250);
    }

    #[test]
    fn is_of_one_daemon_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let first = open(&root).unwrap();
        assert_eq!(open(&root).err(), Some(StampError::Locked));
        drop(first);
        assert!(open(&root).is_ok());
    }

    #[test]
    fn trusts_no_planted_file() {
        type Plant = fn(&std::path::Path);
        let plant: [(&str, Plant); 4] = [
            ("symbolic link", |path| {
                std::os::unix::fs::symlink("/etc/hostname", path).unwrap()
            }),
            ("folder", |path| fs::create_dir(path).unwrap()),
            ("FIFO", |path| {
                nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap()
            }),
            ("hard link", |path| {
                fs::write(path.with_extension("other"), "5\n.\n").unwrap();
                fs::hard_link(path.with_extension("other"), path).unwrap();
            }),
        ];
        for (what, plant) in plant {
            let root = tempfile::tempdir().unwrap();
            plant(&root.path().join(FILE_NAME));
            assert_eq!(open(&root).err(), Some(StampError::Planted), "{what}");
        }
    }

    #[test]
    fn its_clock_never_goes_back_and_is_not_behind_other_files() {
        let root = tempfile::tempdir().unwrap();
        let (stamp, _) = open(&root).unwrap();
        for n in 0..1000 {
            let before = stamp.clock().unwrap();
            let path = root.path().join(n.to_string());
            let stat = fstat(File::create(path).unwrap()).unwrap();
            let made = nanoseconds(stat.st_ctime, stat.st_ctime_nsec);
            let after = stamp.clock().unwrap();
            assert!(before <= made && made <= after, "{before} {made} {after}");
        }
    }

    #[test]
    fn notices_that_it_was_deleted() {
        let root = tempfile::tempdir().unwrap();
        let (stamp, _) = open(&root).unwrap();
        assert!(!stamp.is_gone());
        fs::remove_file(root.path().join(FILE_NAME)).unwrap();
        assert!(stamp.is_gone());
    }
}
