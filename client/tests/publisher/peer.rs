//! A test peer at the socket that behaves like a daemon with faults.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Duration,
};

use comet_client::{
    Client, Options,
    proto::{
        ChannelName, EventName,
        line::{ErrorCode, Publish, Request, write_error, write_receipt},
    },
};

use tempfile::TempDir;

/// A time-out that only a test that hangs reaches.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One connection as the peer sees it.
pub(crate) struct PeerConnection {
    pub(crate) input: BufReader<UnixStream>,
}

impl PeerConnection {
    /// The data and key of the next publish; `None` when the client has left.
    pub(crate) fn read(&mut self) -> Option<(String, Option<String>)> {
        let mut line = Vec::new();
        self.input.read_until(b'\n', &mut line).unwrap();
        if line.is_empty() {
            return None;
        }
        let Request::Publish(publish) = Request::parse(&line).unwrap() else {
            panic!("a publish")
        };
        let data = String::from_utf8(publish.data.into_owned()).unwrap();
        Some((data, publish.key.map(String::from)))
    }

    pub(crate) fn reply(&mut self, id: u64) {
        let mut line = Vec::new();
        write_receipt(id, &mut line);
        self.write(&line);
    }

    pub(crate) fn refuse(&mut self, code: &ErrorCode) {
        let mut line = Vec::new();
        write_error(code, "wrong data", &mut line);
        self.write(&line);
    }

    pub(crate) fn write(&mut self, line: &[u8]) {
        // In some tests the client has closed the connection already.
        let _ = self.input.get_mut().write_all(line);
    }
}

pub(crate) struct Peer {
    _directory: Option<TempDir>,
    path: PathBuf,
    script: Option<JoinHandle<()>>,
}

impl Peer {
    /// Runs `script`, which accepts connections one after the other by calling its argument.
    pub(crate) fn start(script: impl FnOnce(&dyn Fn() -> PeerConnection) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut peer = Self::start_at(&directory.path().join("comet.sock"), script);
        peer._directory = Some(directory);
        peer
    }

    /// Like [`Peer::start`], at a path that another peer may have used before.
    pub(crate) fn start_at(
        path: &Path,
        script: impl FnOnce(&dyn Fn() -> PeerConnection) + Send + 'static,
    ) -> Self {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let script = thread::spawn(move || {
            script(&|| PeerConnection {
                input: BufReader::new(listener.accept().unwrap().0),
            });
        });
        Self {
            _directory: None,
            path: path.to_owned(),
            script: Some(script),
        }
    }

    pub(crate) fn client(&self, timeout: Duration, key: Option<&str>) -> Client {
        Client::new(Options {
            socket: Some(self.path.clone()),
            timeout,
            key: key.map(str::to_owned),
            ..Options::default()
        })
    }

    /// Waits for the end of the script, and fails if an assertion of the script has failed.
    pub(crate) fn done(mut self) {
        self.script.take().unwrap().join().unwrap();
    }
}

pub(crate) fn message(data: &str) -> Publish<'_> {
    Publish {
        channels: ChannelName::parse("news").unwrap().into(),
        name: EventName::default(),
        data: data.as_bytes().into(),
        attributes: None,
        key: None,
    }
}
