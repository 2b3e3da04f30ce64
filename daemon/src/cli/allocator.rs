//! Has glibc give memory back.
//!
//! Each thread keeps up to seven freed blocks of each small size for the next who wants one (its "tcache"), and what a
//! heap has at its end goes back to the system only when nothing of it is in use. After a storm of connections a few of
//! those blocks held on to megabytes. Others, of up to 128 bytes, are not joined with what is free around them (its
//! "fastbins"). The daemon gains little by both, but they can be turned off before a program begins only (glibc manual,
//! "Memory Allocation Tunables").

use std::{env, os::unix::process::CommandExt, process::Command};

const TUNABLES: &str = "GLIBC_TUNABLES";

/// Begins the program anew, as the same process, unless somebody has set glibc's tunables already. Where that cannot be
/// done it goes on as it is.
pub(super) fn give_memory_back() {
    let Ok(program) = env::current_exe() else {
        return;
    };
    if env::var_os(TUNABLES).is_some() {
        return;
    }
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| "comet".into());
    // Returns only when it fails.
    let _ = Command::new(program)
        .arg0(name)
        .args(arguments)
        .env(
            TUNABLES,
            "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
        )
        .exec();
}
