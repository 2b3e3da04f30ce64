//! The memory that this process may use.

use std::{fs, path::Path, thread};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// The memory in bytes that is assumed when the system reports none: 1 GiB. The value is small, so that limits that are
/// computed from this value are safe on most machines.
const ASSUMED_MEMORY: u64 = 1 << 30;

/// Bytes of memory that this process may use: all memory of the machine, or less if a control group or `RLIMIT_AS` sets a
/// limit.
#[must_use]
pub(crate) fn memory() -> u64 {
    let text = |path: &Path| fs::read_to_string(path).ok();
    let all = text(Path::new("/proc/meminfo")).and_then(|text| total(&text));
    let groups = text(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let mut least = all.unwrap_or(ASSUMED_MEMORY);
    for path in group_files(&groups) {
        let limit = text(Path::new(&path)).and_then(|text| text.trim().parse().ok());
        least = limit.map_or(least, |limit: u64| least.min(limit));
    }
    match getrlimit(Resource::RLIMIT_AS) {
        Ok((soft, _)) if soft < RLIM_INFINITY => {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            least.min(usable(soft, cores as u64 + OTHER_THREADS))
        }
        _ => least,
    }
}

/// The number of threads besides the workers: the control thread, and those of the log and of the spool.
const OTHER_THREADS: u64 = 4;

/// Bytes of address space that glibc reserves for the allocations of one thread, even if the thread allocates little.
const ARENA: u64 = 64 << 20;

/// The memory in bytes that can be allocated when `RLIMIT_AS` limits the address space. If the limit has no room for the
/// reservations of all threads, glibc leaves some of them out. Then a quarter of the limit counts as usable.
fn usable(limit: u64, threads: u64) -> u64 {
    limit.saturating_sub(threads * ARENA).max(limit / 4)
}

/// Resident memory of this process in bytes. `None`: the system does not report it.
#[must_use]
pub(crate) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The files that hold the memory limits of the process's control group and of all groups above. `groups` is the text of
/// `/proc/self/cgroup`, in the form of version 2 (`0::/path`) or version 1 (`4:memory:/path`).
fn group_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (root, file) = match parts.next() {
            Some("") => ("/sys/fs/cgroup", "memory.max"),
            Some(kinds) if kinds.split(',').any(|kind| kind == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut path = parts.next().unwrap_or_default().trim_end_matches('/');
        loop {
            files.push(format!("{root}{path}/{file}"));
            let Some((above, _)) = path.rsplit_once('/') else {
                break;
            };
            path = above;
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let meminfo = "MemTotal:       24684144 kB\nMemFree:        23378012 kB\n";
        assert_eq!(total(meminfo), Some(24_684_144 * 1024));
        let groups = "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/system.slice/comet.service\n";
        let files = [
            "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/system.slice/comet.service/memory.max",
            "/sys/fs/cgroup/system.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(group_files(groups), files);
        assert_eq!(group_files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
    }

    #[test]
    fn a_limit_of_address_space_counts_what_can_be_used_of_it() {
        assert_eq!(usable(200 << 20, 6), 50 << 20);
        assert_eq!(usable(4 << 30, 6), (4 << 30) - (384 << 20));
    }

    #[test]
    fn this_machine_has_some() {
        assert!(memory() > 1 << 20);
    }
}
