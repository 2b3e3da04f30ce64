//! Lists of users and groups of this machine that settings permit.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::Mutex,
    time::{Duration, Instant},
};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use serde::{Deserialize, Deserializer, de};

/// The users and groups that are permitted, from a list such as `["user:www-data", "group:comet", "any"]`.
///
/// Names are replaced by numbers once, when the list is parsed. The groups of a user are looked up when they are needed. The
/// result is used for a minute, so that a change of membership needs no restart.
#[derive(Default)]
pub struct AllowList {
    entries: Vec<AllowEntry>,
    memberships: Mutex<Memberships>,
}

/// One entry of an [`AllowList`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AllowEntry {
    Any,
    User(u32),
    Group(u32),
}

/// Why an entry was refused. The text needs no context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowListError {
    /// The entry has none of the valid forms.
    #[error("{0:?} is none of \"user:NAME\", \"group:NAME\" (a name or a number) and \"any\"")]
    Form(String),
    /// There is no such user.
    #[error("{0:?}: this machine has no such user")]
    User(String),
    /// There is no such group.
    #[error("{0:?}: this machine has no such group")]
    Group(String),
    /// The system's lists of users and groups cannot be read.
    #[error("{entry:?}: cannot look it up: {cause}")]
    LookUp {
        /// The entry.
        entry: String,
        /// The error of the system.
        cause: nix::Error,
    },
}

impl AllowList {
    /// Parses entries and looks their names up.
    ///
    /// # Errors
    /// The first entry that is malformed or that this machine does not know.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, AllowListError> {
        let entries: Result<Vec<AllowEntry>, AllowListError> =
            entries.into_iter().map(AllowEntry::from_str).collect();
        entries.map(Self::from)
    }

    /// Whether the list is empty. The caller decides what an empty list means.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a process or file of this user and group is permitted: by its user, by its group, or by another group
    /// that the user is a member of. Without a group only the user counts.
    #[must_use]
    pub fn permits(&self, uid: u32, gid: Option<u32>) -> bool {
        let named = |entry: &AllowEntry| match *entry {
            AllowEntry::Any => true,
            AllowEntry::User(user) => user == uid,
            AllowEntry::Group(group) => Some(group) == gid,
        };
        self.entries.iter().any(named) || self.permits_by_membership(uid)
    }

    fn permits_by_membership(&self, uid: u32) -> bool {
        let mut groups = self.entries.iter().filter_map(|entry| match entry {
            AllowEntry::Group(group) => Some(*group),
            _ => None,
        });
        let Some(first) = groups.next() else {
            return false; // the usual case, in which the system need not be asked
        };
        let mut memberships = self.memberships.lock().expect("no code panics holding it");
        let member_of = memberships.of(uid);
        member_of.contains(&first) || groups.any(|group| member_of.contains(&group))
    }
}

impl From<Vec<AllowEntry>> for AllowList {
    fn from(entries: Vec<AllowEntry>) -> Self {
        Self {
            entries,
            memberships: Mutex::default(),
        }
    }
}

impl Clone for AllowList {
    fn clone(&self) -> Self {
        Self::from(self.entries.clone())
    }
}

impl PartialEq for AllowList {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Eq for AllowList {}

impl fmt::Debug for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AllowList").field(&self.entries).finish()
    }
}

// Each entry is deserialised by itself, so that an error of a TOML file points at the wrong entry.
impl<'de> Deserialize<'de> for AllowList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

impl<'de> Deserialize<'de> for AllowEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl FromStr for AllowEntry {
    type Err = AllowListError;

    fn from_str(entry: &str) -> Result<Self, AllowListError> {
        let failed = |cause| AllowListError::LookUp {
            entry: entry.into(),
            cause,
        };
        match entry.split_once(':') {
            None if entry == "any" => Ok(Self::Any),
            Some(("user", name)) => match number(name) {
                Some(uid) => Ok(Self::User(uid)),
                None => User::from_name(name)
                    .map_err(failed)?
                    .map(|user| Self::User(user.uid.as_raw()))
                    .ok_or_else(|| AllowListError::User(entry.into())),
            },
            Some(("group", name)) => match number(name) {
                Some(gid) => Ok(Self::Group(gid)),
                None => Group::from_name(name)
                    .map_err(failed)?
                    .map(|group| Self::Group(group.gid.as_raw()))
                    .ok_or_else(|| AllowListError::Group(entry.into())),
            },
            _ => Err(AllowListError::Form(entry.into())),
        }
    }
}

/// Returns the entry for this user: with the user's name if the name stands for this user alone, or else with the number.
/// An error text may show the entry in quotation marks, because the entry needs no escapes in a TOML string.
pub(crate) fn entry_of(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    entry_named(uid, user.as_ref().map(|user| &*user.name))
}

fn entry_named(uid: u32, name: Option<&str>) -> String {
    let quotes = |c: char| c.is_control() || c == '"' || c == '\\';
    let by_name = name.map(|name| format!("user:{name}"));
    let leads_back = |entry: &String| entry.parse() == Ok(AllowEntry::User(uid));
    match by_name.filter(|entry| !entry.contains(quotes) && leads_back(entry)) {
        Some(entry) => entry,
        // The system did not report the user, so that no entry with a number would be right.
        None if uid == NO_USER => "any".into(),
        None => format!("user:{uid}"),
    }
}

/// The id of a user that the system did not report. No user and no group has this id: in system calls it means "do not
/// change".
pub(crate) const NO_USER: u32 = u32::MAX;

/// Parses the number of a user or group.
fn number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|id| *id != NO_USER)
}

/// The groups of users, as the system reported them within the last minute.
#[derive(Default)]
struct Memberships(HashMap<u32, (Instant, Vec<u32>)>);

impl Memberships {
    /// How long the groups of a user are used. They may come from a directory server, which must not be asked for each
    /// message.
    const MAX_AGE: Duration = Duration::from_secs(60);
    /// Largest number of users whose groups are kept, which bounds the memory. More users are not expected.
    const MAX_USERS: usize = 1024;

    fn of(&mut self, uid: u32) -> &[u32] {
        let now = Instant::now();
        let fresh = |(asked, _): &(Instant, Vec<u32>)| now.duration_since(*asked) < Self::MAX_AGE;
        if !self.0.get(&uid).is_some_and(fresh) {
            if self.0.len() >= Self::MAX_USERS {
                self.0.clear();
            }
            self.0.insert(uid, (now, groups_of(uid)));
        }
        &self.0[&uid].1
    }
}

/// All groups of a user. The result is empty if the system does not know the user or fails.
fn groups_of(uid: u32) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return Vec::new();
    };
    let Ok(name) = std::ffi::CString::new(user.name) else {
        return Vec::new();
    };
    let groups = getgrouplist(&name, user.gid).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(entries: &[&str]) -> AllowList {
        AllowList::parse(entries.iter().copied()).unwrap()
    }

    #[test]
    fn names_and_numbers_mean_the_same() {
        assert_eq!(
            allow(&["user:root", "group:root"]),
            allow(&["user:0", "group:0"])
        );
    }

    #[test]
    fn permits_users_and_groups_that_are_named() {
        // These users and groups do not exist, so that no membership can be found.
        let (a, b, c) = (4_000_000_001, 4_000_000_002, 4_000_000_003);
        let (user_a, group_a, group_b) =
            ("user:4000000001", "group:4000000001", "group:4000000002");
        let cases: [(&[&str], u32, u32, bool); 8] = [
            (&[], 0, 0, false),
            (&["any"], a, b, true),
            (&[user_a], a, b, true),
            (&[user_a], b, a, false),
            (&[group_a], b, a, true),
            (&[group_a], a, b, false),
            (&[user_a, group_b], c, b, true),
            (&[user_a, group_b], c, c, false),
        ];
        for (entries, uid, gid, permitted) in cases {
            assert_eq!(
                allow(entries).permits(uid, Some(gid)),
                permitted,
                "{entries:?} {uid} {gid}"
            );
        }
        assert!(!allow(&[group_a]).permits(a, None));
    }

    #[test]
    fn permits_members_of_a_group_whatever_group_they_act_as() {
        let root = User::from_name("root").unwrap().unwrap();
        let groups = allow(&[&format!("group:{}", root.gid)]);
        assert!(groups.permits(root.uid.as_raw(), None));
        // The answer is remembered and must stay the same.
        assert!(groups.permits(root.uid.as_raw(), None));
        // The same for other users of this machine that are in a group beside their own.
        let listed = std::fs::read_to_string("/etc/group").unwrap_or_default();
        for line in listed.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let members = fields.get(3).copied().unwrap_or_default();
            for user in members.split(',').flat_map(User::from_name).flatten() {
                let group = allow(&[&format!("group:{}", fields[0])]);
                assert!(group.permits(user.uid.as_raw(), None), "{line}");
            }
        }
    }

    #[test]
    fn the_entry_of_a_user_leads_back_to_the_user() {
        let cases = [
            (0, Some("root"), "user:root"),
            (0, None, "user:0"),
            (0, Some("no-such-user"), "user:0"),
            (0, Some("4711"), "user:0"), // a name that would be read as a number
            (4711, Some("root"), "user:4711"), // the name of another user
            (4711, Some("DOMAIN\\user"), "user:4711"),
            (4711, Some("a\"b"), "user:4711"),
            (4711, Some("a\nb"), "user:4711"),
            (4711, Some(""), "user:4711"),
            (NO_USER, None, "any"),
        ];
        for (uid, name, entry) in cases {
            assert_eq!(entry_named(uid, name), entry, "{uid} {name:?}");
            let quoted = format!("[files]\nallow = [\"{entry}\"]");
            let config = crate::config::Config::parse(&quoted).unwrap();
            assert!(config.files.allow.permits(uid, None), "{entry}");
        }
    }

    #[test]
    fn refusals_name_the_entry() {
        let cases = [
            ("root", "none of"),
            ("", "none of"),
            ("User:root", "none of"),
            ("any:", "none of"),
            ("user:", "no such user"),
            ("user:no-such-user", "no such user"),
            ("group:no such group", "no such group"),
            ("user:-1", "no such user"),
            ("user:4294967295", "no such user"),
        ];
        for (entry, text) in cases {
            let error = AllowList::parse(["any", entry]).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{entry:?}")) && error.contains(text),
                "{entry}: {error}"
            );
        }
    }
}
