//! A relay in front of the daemon's socket that counts connections.

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

    /// Number of connections so far.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Sets who may connect, as `chmod` does.
    pub(super) fn allow(&self, mode: u32) {
        set_permissions(&self.path, Permissions::from_mode(mode)).unwrap();
    }
}

/// Copies in both directions until one side closes.
fn connect(client: UnixStream, daemon: UnixStream) {
    for (mut from, mut to) in [
        (client.try_clone().unwrap(), daemon.try_clone().unwrap()),
        (daemon, client),
    ] {
        thread::spawn(move || {
            // The test itself notices which side closed, and how.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}
