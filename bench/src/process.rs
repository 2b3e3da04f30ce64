//! Reads from the kernel what a server costs. The server's processes are looked up each time, because servers start and
//! end processes.

use std::{
    collections::BTreeMap,
    fs, io,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The given processes and all their descendants.
pub(crate) fn tree(roots: &[Child]) -> Vec<u32> {
    let mut pids: Vec<u32> = roots.iter().map(Child::id).collect();
    let mut looked_at = 0;
    while let Some(&pid) = pids.get(looked_at) {
        looked_at += 1;
        // A process or thread may end meanwhile. Then it has no children.
        for task in tasks(pid) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{task}/children"));
            let children = children.unwrap_or_default();
            pids.extend(
                children
                    .split_ascii_whitespace()
                    .flat_map(str::parse::<u32>),
            );
        }
    }
    pids
}

/// The threads of a process. Empty: the process has ended.
fn tasks(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect()
}

/// Memory of these processes in bytes (PSS): their own pages, and their share of shared pages.
pub(crate) fn pss(pids: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let rollup = match fs::read_to_string(&path) {
            Ok(rollup) => rollup,
            Err(error) if ended(&error) => continue,
            Err(error) => return Err(error).context(path),
        };
        sum += kilobytes(&rollup, "Pss:").with_context(|| format!("no Pss in {path}"))?;
    }
    Ok(sum)
}

/// Number of descriptors that these processes have open.
pub(crate) fn descriptors(pids: &[u32]) -> Result<usize> {
    let mut sum = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/fd");
        match fs::read_dir(&path) {
            Ok(entries) => sum += entries.count(),
            Err(error) if ended(&error) => {}
            Err(error) => return Err(error).context(path),
        }
    }
    Ok(sum)
}

/// CPU time that all threads of these processes have used so far.
pub(crate) fn cpu(pids: &[u32]) -> Result<Duration> {
    let mut nanoseconds = 0;
    for &pid in pids {
        for task in tasks(pid) {
            // A thread may end meanwhile.
            if let Ok(schedstat) = fs::read_to_string(format!("/proc/{pid}/task/{task}/schedstat"))
            {
                let on_cpu = schedstat.split(' ').next();
                let on_cpu = on_cpu.and_then(|first| first.parse::<u64>().ok());
                nanoseconds += on_cpu.context("schedstat")?;
            }
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// CPU time of the bench itself.
pub(crate) fn own_cpu() -> Result<Duration> {
    cpu(&[std::process::id()])
}

/// Whether any thread of these processes runs or waits for a core.
pub(crate) fn is_running(pids: &[u32]) -> bool {
    let running = |pid, task| {
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{task}/stat"));
        stat.is_ok_and(|stat| state(&stat) == Some("R"))
    };
    let mut pids = pids.iter();
    pids.any(|&pid| tasks(pid).into_iter().any(|task| running(pid, task)))
}

/// The fields after the process name. The name may contain any character.
fn after_name(stat: &str) -> Option<&str> {
    Some(stat.rsplit_once(')')?.1)
}

fn state(stat: &str) -> Option<&str> {
    after_name(stat)?.split_ascii_whitespace().next()
}

/// Bytes in the kernel's slab caches, for the whole machine. While connections are made, the caches grow by sockets,
/// files and epoll entries of *both* ends, because the client runs on this machine too.
pub(crate) fn slab() -> Result<u64> {
    let path = "/proc/meminfo";
    kilobytes(&fs::read_to_string(path)?, "Slab:").with_context(|| format!("no Slab in {path}"))
}

/// Bytes in the slab caches after the kernel has freed what earlier connections used. The kernel frees it with a delay.
pub(crate) fn slab_at_rest() -> Result<u64> {
    const WINDOW: Duration = Duration::from_millis(100);
    const STILL: u64 = 256 << 10;
    let (start, mut before) = (Instant::now(), slab()?);
    loop {
        thread::sleep(WINDOW);
        let now = slab()?;
        // On a busy machine the value never becomes stable.
        if now.abs_diff(before) <= STILL || start.elapsed() > Duration::from_secs(1) {
            return Ok(now);
        }
        before = now;
    }
}

/// Reads a value after a name in one of /proc's tables, in bytes.
fn kilobytes(table: &str, name: &str) -> Option<u64> {
    let value = table.lines().find_map(|line| line.strip_prefix(name))?;
    Some(
        value
            .trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<u64>()
            .ok()?
            * 1024,
    )
}

/// Pins all threads of these processes to these cores.
pub(crate) fn run_on(pids: &[u32], cores: &CpuSet) -> Result<()> {
    for task in pids.iter().flat_map(|&pid| tasks(pid)) {
        // A thread may end meanwhile.
        match sched_setaffinity(Pid::from_raw(task as i32), cores) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Asks these processes to stop. After a grace period, kills those that are left, with their descendants.
pub(crate) fn stop(roots: &mut [Child]) {
    // A process whose parent has ended is no longer in the tree. So processes are remembered by id and start time.
    let mut left: BTreeMap<u32, String> = tree(roots)
        .into_iter()
        .filter_map(|pid| Some((pid, began(pid)?)))
        .collect();
    for child in roots.iter() {
        let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
    }
    wait_for(roots, &mut left);
    for &pid in left.keys() {
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    }
    wait_for(roots, &mut left);
    // An ended process keeps its entry until its parent waits for it.
    for child in roots {
        let _ = child.wait();
    }
}

/// Waits until no process is left, at most for the grace period.
fn wait_for(roots: &mut [Child], left: &mut BTreeMap<u32, String>) {
    const GRACE: Duration = Duration::from_secs(2);
    let start = Instant::now();
    while !left.is_empty() && start.elapsed() < GRACE {
        for child in roots.iter_mut() {
            let _ = child.try_wait();
        }
        left.retain(|&pid, at| began(pid).as_ref() == Some(at));
        thread::sleep(Duration::from_millis(2));
    }
}

/// Start time of a process in the kernel's ticks. `None`: the process does not exist any more.
fn began(pid: u32) -> Option<String> {
    /// Numbers of fields in /proc/PID/stat. The state is the first field after the name.
    const STATE: usize = 3;
    const START_TIME: usize = 22;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A zombie needs no signal.
    if state(&stat)? == "Z" {
        return None;
    }
    let mut fields = after_name(&stat)?.split_ascii_whitespace();
    fields.nth(START_TIME - STATE).map(str::to_owned)
}

fn ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        path::Path,
        process::{Command, Stdio},
    };

    use super::*;

    /// A shell that has started another process and has printed a line about it.
    struct Parent([Child; 1]);

    impl Parent {
        fn start() -> (Self, u32) {
            let shell = Command::new("sh")
                .args(["-c", "cat /dev/zero >/dev/null & echo $!; wait"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            let mut parent = Self([shell.unwrap()]);
            let mut line = String::new();
            BufReader::new(parent.0[0].stdout.take().unwrap())
                .read_line(&mut line)
                .unwrap();
            (parent, line.trim().parse().unwrap())
        }
    }

    impl Drop for Parent {
        fn drop(&mut self) {
            stop(&mut self.0);
        }
    }

    #[test]
    fn counts_and_stops_what_the_children_started() {
        let (mut parent, grandchild) = Parent::start();
        let pids = tree(&parent.0);
        assert_eq!(pids, [parent.0[0].id(), grandchild]);
        let shell = cpu(&pids[..1]).unwrap() + Duration::from_millis(1);
        // The child has work to do and its own memory, as soon as it gets a core.
        while cpu(&pids).unwrap() <= shell || pss(&pids).unwrap() <= pss(&pids[..1]).unwrap() {
            thread::yield_now();
        }
        assert!(descriptors(&pids).unwrap() > descriptors(&pids[..1]).unwrap());
        stop(&mut parent.0);
        assert_eq!(began(grandchild), None);
        assert!(!Path::new("/proc").join(pids[0].to_string()).exists());
        assert_eq!(pss(&pids).unwrap(), 0);
    }

    #[test]
    fn reads_the_kernels_tables() {
        assert_eq!(
            kilobytes("A: 1 kB\nSlab:    12 kB\n", "Slab:"),
            Some(12 << 10)
        );
        assert!(slab().unwrap() > 1 << 20);
    }
}
