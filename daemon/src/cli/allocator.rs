//! Makes glibc return freed memory to the system.
//!
//! Each thread caches up to seven freed blocks of each small size (glibc's "tcache"). glibc returns the end of a heap to
//! the system only when no block in the heap is in use. After many connections had ended, a few cached blocks prevented glibc
//! from returning megabytes. Freed blocks of up to 128 bytes ("fastbins") are not merged with free memory around them, with the
//! same effect. Neither cache makes the daemon much faster. Both can be switched off only before a program starts
//! (glibc manual, "Memory Allocation Tunables").

use std::{env, os::unix::process::CommandExt, process::Command};

const TUNABLES: &str = "GLIBC_TUNABLES";

/// Executes the program again in the same process, with these caches off, unless glibc's tunables are already set. If that
/// fails, the program goes on with the caches.
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
