//! Lists the spool's directory: the messages of each owner, and the entries that do not belong there.
//!
//! A user who may add files can add any number of them, with names that sort before all others. So the list of each
//! owner has a bounded length, and owners take turns.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{CStr, OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    time::{Duration, SystemTime},
};

use comet_client::{SPOOL_LIMITS, SPOOL_SUFFIX};
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::stat::{FileStat, Mode, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};

/// The name of the file that is locked by the daemon that takes messages out.
pub(super) const LOCK: &str = ".lock";

/// The suffix of a refused file's new name.
pub(super) const REFUSED: &str = ".refused";

/// Number of messages that are published in one go. Then their files are removed, and other tasks of the thread run.
pub(super) const SLICE: usize = 64;

/// Largest number of messages that one listing returns: of one owner, and of all owners.
const MOST_OF_OWNER: usize = 8192;
const MOST: usize = 65_536;

/// Number of refused files of one owner that stay for a person to look at. The newest stay.
const KEPT_REFUSED: usize = 1000;

/// Number of other files of one owner that may be there at the same time.
const KEPT_OTHERS: usize = 1000;

/// A file that is no message and was not changed for this long was left behind, perhaps by a process that was killed.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// Largest number of entries that are removed in one go, so that messages do not wait for longer.
const MOST_REMOVED: usize = 32_768;

/// A file with the name of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpooledMessage {
    pub(super) owner: u32,
    pub(super) name: OsString,
}

impl SpooledMessage {
    /// The part of the name that says which process has put the file there.
    pub(super) fn process(&self) -> &[u8] {
        process(&self.name)
    }
}

/// The result of [`tidy`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tidied {
    pub(super) removed: usize,
    /// Number of entries that cannot be removed, such as folders that are not empty.
    pub(super) stay: usize,
}

/// Lists messages in the order in which they have to be published: those of one owner by name, owners in turns. If a
/// message of a process is listed, all earlier messages of that process are listed too or were published before.
pub(super) fn messages(directory: &OwnedFd) -> Result<Vec<SpooledMessage>, Errno> {
    let first = Queues::read(directory)?;
    if first.owners.is_empty() {
        return Ok(Vec::new());
    }
    // A file that arrived during the first reading may have been seen although an earlier one was missed. The second
    // reading sees all files that arrived before any file of the first reading.
    let mut newest: HashMap<(u32, &[u8]), &OsString> = HashMap::new();
    for (owner, names) in &first.owners {
        newest.extend(names.iter().map(|name| ((*owner, process(name)), name)));
    }
    let mut queues = Queues::read(directory)?;
    for (owner, names) in &mut queues.owners {
        let is_whole = |name: &OsString| {
            let last = newest.get(&(*owner, process(name)));
            last.is_some_and(|last| name <= *last)
        };
        names.retain(is_whole);
    }
    Ok(queues.in_turns())
}

/// Removes entries that do not belong in the spool: files that were left behind, the oldest of too many refused files,
/// and files beyond the number that is allowed.
pub(super) fn tidy(directory: &OwnedFd) -> Result<Tidied, Errno> {
    let now = SystemTime::now();
    let mut tidied = Tidied::default();
    let (mut refused, mut others) = (Queues::new(2 * KEPT_REFUSED), HashMap::new());
    for_each(directory, |name| {
        let bytes = name.to_bytes();
        let is_refused = bytes.ends_with(REFUSED.as_bytes());
        if is_own(bytes) || is_message(bytes) || tidied.removed >= MOST_REMOVED {
            return;
        }
        let Some(stat) = stat(directory, name) else {
            return;
        };
        let name = OsStr::from_bytes(bytes);
        if is_refused && refused.total < MOST {
            for name in refused.add_newest(stat.st_uid, name) {
                tidied.remove(directory, &name);
            }
            return;
        }
        // With very many refused files, further ones are treated like other files.
        let count: &mut usize = others.entry(stat.st_uid).or_default();
        *count += 1;
        if *count > KEPT_OTHERS || is_left_behind(&stat, now) {
            tidied.remove(directory, name);
        }
    })?;
    for mut names in refused.owners.into_values() {
        names.sort_unstable();
        let many = names.len().saturating_sub(KEPT_REFUSED);
        for name in &names[..many] {
            tidied.remove(directory, name);
        }
    }
    Ok(tidied)
}

impl Tidied {
    fn remove(&mut self, directory: &OwnedFd, name: &OsStr) {
        match remove(directory, name) {
            Ok(()) => self.removed += 1,
            Err(Errno::ENOENT) => {}
            Err(_) => self.stay += 1,
        }
    }
}

/// Removes a file or an empty folder.
pub(super) fn remove(directory: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR | Errno::EPERM) => unlinkat(directory, name, UnlinkatFlags::RemoveDir),
        removed => removed,
    }
}

/// File names by owner.
struct Queues {
    owners: BTreeMap<u32, Vec<OsString>>,
    total: usize,
    /// Largest number of names of one owner.
    most: usize,
}

impl Queues {
    fn new(most: usize) -> Self {
        Self {
            owners: BTreeMap::new(),
            total: 0,
            most,
        }
    }

    /// Reads the messages that are in the directory: the first ones of each owner, sorted by name.
    fn read(directory: &OwnedFd) -> Result<Self, Errno> {
        let mut queues = Self::new(MOST_OF_OWNER);
        for_each(directory, |name| {
            if is_message(name.to_bytes())
                && let Some(stat) = stat(directory, name)
            {
                queues.add_first(stat.st_uid, OsStr::from_bytes(name.to_bytes()));
            }
        })?;
        let most = queues.most;
        for names in queues.owners.values_mut() {
            keep_first(names, most);
        }
        Ok(queues)
    }

    fn add_first(&mut self, owner: u32, name: &OsStr) {
        let names = self.owners.entry(owner).or_default();
        names.push(name.to_owned());
        self.total += 1;
        if names.len() >= 2 * self.most {
            self.total -= names.len();
            keep_first(names, self.most);
            self.total += names.len();
        }
        // With very many owners the limit for each owner is lower.
        while self.total > 2 * MOST && self.most > 1 {
            self.most /= 2;
            let most = self.most;
            self.owners
                .values_mut()
                .for_each(|names| keep_first(names, most));
            self.total = self.owners.values().map(Vec::len).sum();
        }
    }

    /// Adds a name to the newest ones of this owner. Returns the names that are too many.
    fn add_newest(&mut self, owner: u32, name: &OsStr) -> Vec<OsString> {
        let names = self.owners.entry(owner).or_default();
        names.push(name.to_owned());
        self.total += 1;
        if names.len() < self.most {
            return Vec::new();
        }
        self.total -= self.most / 2;
        names.sort_unstable();
        names.drain(..self.most / 2).collect()
    }

    /// Takes some names of each owner, sorted by name, then some more of each owner, and so on.
    fn in_turns(self) -> Vec<SpooledMessage> {
        let mut queues: Vec<_> = self
            .owners
            .into_iter()
            .map(|(owner, names)| (owner, names.into_iter()))
            .collect();
        let mut entries = Vec::new();
        while !queues.is_empty() && entries.len() < MOST {
            let turn = entries.len();
            queues.retain_mut(|(owner, names)| {
                let before = entries.len();
                let owner = *owner;
                entries.extend(names.take(SLICE).map(|name| SpooledMessage { owner, name }));
                entries.len() > before
            });
            entries[turn..].sort_unstable_by(|a, b| a.name.cmp(&b.name));
        }
        entries
    }
}

fn keep_first(names: &mut Vec<OsString>, most: usize) {
    names.sort_unstable();
    names.truncate(most);
}

fn for_each(directory: &OwnedFd, mut see: impl FnMut(&CStr)) -> Result<(), Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    for entry in Dir::openat(directory, ".", flags, Mode::empty())?.into_iter() {
        see(entry?.file_name());
    }
    Ok(())
}

fn stat(directory: &OwnedFd, name: &CStr) -> Option<FileStat> {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
}

/// Whether this is the name of a complete message. The name of a file that is still being written begins with a dot.
fn is_message(name: &[u8]) -> bool {
    name.ends_with(SPOOL_SUFFIX.as_bytes()) && !name.starts_with(b".")
}

fn is_own(name: &[u8]) -> bool {
    [".", "..", LOCK, SPOOL_LIMITS]
        .map(str::as_bytes)
        .contains(&name)
}

fn process(name: &OsStr) -> &[u8] {
    let mut parts = name.as_bytes().split(|byte| *byte == b'-');
    parts.nth(1).unwrap_or_default()
}

/// Whether the last change of a file is old. The time of the inode change counts, because the owner can set the
/// modification time at will. A time in the future comes from a clock that was set back, and counts as an age too.
fn is_left_behind(stat: &FileStat, now: SystemTime) -> bool {
    let changed = u64::try_from(stat.st_ctime).unwrap_or_default();
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(changed);
    let age = now.duration_since(changed);
    age.unwrap_or_else(|ahead| ahead.duration()) > LEFT_BEHIND
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(entries: Vec<SpooledMessage>) -> Vec<String> {
        let names = entries.into_iter().map(|entry| entry.name.into_string());
        names.map(Result::unwrap).collect()
    }

    #[test]
    fn owners_take_turns_whatever_their_file_names_are() {
        let mut queues = Queues::new(MOST_OF_OWNER);
        for number in 0..3 * SLICE {
            queues.add_first(1, format!("0-{number:04}.msg1").as_ref());
        }
        queues.add_first(2, "z.msg1".as_ref());
        let entries = queues.in_turns();
        assert_eq!(entries.len(), 3 * SLICE + 1);
        assert_eq!(entries[SLICE].owner, 2, "after one slice of the other");
        assert_eq!(
            entries[3 * SLICE].name,
            *format!("0-{:04}.msg1", 3 * SLICE - 1)
        );
    }

    #[test]
    fn neither_many_files_nor_many_owners_take_much_memory() {
        let mut queues = Queues::new(MOST_OF_OWNER);
        for number in (0..3 * MOST_OF_OWNER).rev() {
            queues.add_first(1, format!("{number:08}").as_ref());
        }
        assert!(queues.owners[&1].len() < 2 * MOST_OF_OWNER);
        assert!(queues.owners[&1].contains(&OsString::from("00000000")));
        for owner in 0..3 * u32::try_from(MOST).unwrap() {
            queues.add_first(owner % 70_000, format!("{owner:08}").as_ref());
        }
        assert!(queues.total <= 2 * MOST, "{}", queues.total);
        assert!(queues.owners[&1].contains(&OsString::from("00000000")));
    }

    #[test]
    fn foreign_entries_are_removed_by_age_and_by_number() {
        let root = tempfile::tempdir().unwrap();
        let directory = OwnedFd::from(fs::File::open(root.path()).unwrap());
        for number in 0..KEPT_OTHERS + 5 {
            fs::write(root.path().join(format!("x{number}")), "").unwrap();
        }
        fs::create_dir_all(root.path().join("full/of")).unwrap();
        for kept in [LOCK, SPOOL_LIMITS, "a.msg1"] {
            fs::write(root.path().join(kept), "").unwrap();
        }
        let tidied = tidy(&directory).unwrap();
        assert!((5..=6).contains(&tidied.removed), "{tidied:?}");
        assert_eq!(names(messages(&directory).unwrap()), ["a.msg1"]);
        let left = fs::read_dir(root.path()).unwrap().count();
        assert_eq!(left, KEPT_OTHERS + 9 - tidied.removed);
    }

    #[test]
    fn age_counts_from_the_last_change_and_a_future_time_counts_as_age() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(".x.msg1");
        let file = fs::File::create(&path).unwrap();
        let now = SystemTime::now();
        let hours = Duration::from_secs(36_000);
        for modified in [now + hours, now - hours] {
            file.set_modified(modified).unwrap();
            let stat = nix::sys::stat::stat(&path).unwrap();
            assert!(!is_left_behind(&stat, now), "its owner chose that time");
            assert!(is_left_behind(&stat, now + LEFT_BEHIND * 2));
            assert!(is_left_behind(&stat, now - hours), "the clock was set back");
        }
    }
}
