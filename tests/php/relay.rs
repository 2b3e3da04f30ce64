//! A door before the daemon's socket that counts who comes in.

use std::{
    fs::{Permissions, set_permissions},
    io,
    net::Shutdown,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

pub(super) struct Relay {
    path: PathBuf,
    accepted: Arc<AtomicUsize>,
}

impl Relay {
    pub(super) fn start(path: PathBuf, daemon: &Path) -> Self {
        let (listener, daemon) = (UnixListener::bind(&path).unwrap(), daemon.to_owned());
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                connect(client.unwrap(), UnixStream::connect(&daemon).unwrap());
            }
        });
        Self { path, accepted }
    }

    /// Connections so far.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Who may connect, as `chmod` says it.
    pub(super) fn allow(&self, mode: u32) {
        set_permissions(&self.path, Permissions::from_mode(mode)).unwrap();
    }
}

/// Copies both ways until either side leaves.
fn connect(client: UnixStream, daemon: UnixStream) {
    for (mut from, mut to) in [
        (client.try_clone().unwrap(), daemon.try_clone().unwrap()),
        (daemon, client),
    ] {
        thread::spawn(move || {
            // Which side left, and how, is the test's to notice.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}
