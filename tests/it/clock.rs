//! A system clock for one daemon that a test can set, with libfaketime. The monotonic clock is unchanged.

use std::{
    cell::Cell,
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::daemon::directory;

/// A system clock that a test sets. See the module.
pub(crate) struct Clock {
    directory: tempfile::TempDir,
    /// Difference to the real clock in seconds.
    offset: Cell<i64>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = Self {
            directory: directory(),
            offset: Cell::new(0),
        };
        clock.step(0);
        clock
    }

    fn file(&self) -> String {
        format!("{}/offset", self.directory.path().display())
    }

    /// The program that starts a daemon with this clock, for `Daemon::try_start_by`.
    pub(crate) fn program(&self) -> Vec<String> {
        vec![
            "env".into(),
            format!("LD_PRELOAD={}", library()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file()),
            "FAKETIME_NO_CACHE=1".into(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
        ]
    }

    /// Moves the clock by this number of seconds.
    pub(crate) fn step(&self, seconds: i64) {
        self.offset.set(self.offset.get() + seconds);
        let next = self.file() + ".next";
        fs::write(&next, format!("{:+}s", self.offset.get())).unwrap();
        fs::rename(&next, self.file()).unwrap();
    }

    /// The time of this clock in seconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let real = real + Duration::from_millis(1);
        real.as_secs().saturating_add_signed(self.offset.get())
    }
}

fn library() -> String {
    let lib = fs::read_dir("/usr/lib").unwrap();
    let mut paths = lib.map(|entry| entry.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    let found = paths.find(|path| path.exists());
    let found = found.expect("libfaketime is installed: scripts/packages test");
    found.to_str().unwrap().to_owned()
}
