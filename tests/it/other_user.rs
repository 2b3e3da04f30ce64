//! Acts as another user of the machine, if the tests run as root.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use crate::daemon::directory;

/// A user that no rule names, and that owns nothing else here.
pub(crate) const STRANGER: u32 = 65534;

/// Whether this test can act as another user. If not, prints that.
pub(crate) fn is_root(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!("skipped {test}: only root can act as another user");
    }
    is_root
}

/// Like [`directory`], but the watched directory is like /dev/shm: everybody may make files there and remove their own.
pub(crate) fn shared() -> Arc<tempfile::TempDir> {
    let root = directory();
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    mode(root.path(), 0o755);
    mode(&root.path().join("dir"), 0o1777);
    Arc::new(root)
}

/// A shell script of another user, run in this directory.
pub(crate) fn script_of(user: u32, dir: &Path, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-e", "-c", script]).current_dir(dir);
    command.uid(user).gid(user);
    command
}

/// Runs a script as the stranger.
pub(crate) fn stranger_runs(dir: &Path, script: &str) -> Output {
    script_of(STRANGER, dir, script).output().unwrap()
}
