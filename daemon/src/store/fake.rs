//! A disk in memory, for tests. It can fail on request, and lose data that was not synced.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use super::disk::{Disk, LogFile};

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `ENOSPC`, after a part of the bytes was written.
    Full,
    /// `EIO`, before any byte is written.
    Broken,
    /// Fewer bytes are written than requested, which is not an error.
    Short,
}

/// The disk. All clones share the same files.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeDisk(Arc<Mutex<FakeState>>);

#[derive(Debug, Default)]
struct FakeState {
    files: BTreeMap<String, Arc<Mutex<Content>>>,
    faults: Vec<Fault>,
    /// The number of further calls that succeed.
    succeeding: usize,
    /// The number of calls after them that fail.
    failing: usize,
}

#[derive(Debug, Default)]
struct Content {
    written: Vec<u8>,
    synced: Vec<u8>,
}

impl FakeDisk {
    /// After `succeeding` more calls, lets the next `failing` calls fail.
    pub(crate) fn fail(&self, fault: Fault, succeeding: usize, failing: usize) {
        let mut state = self.lock();
        state.faults = vec![fault];
        (state.succeeding, state.failing) = (succeeding, failing);
    }

    pub(crate) fn heal(&self) {
        self.lock().failing = 0;
    }

    /// Simulates a loss of power: of the data that was not synced, `part` of 256 is on the disk.
    pub(crate) fn lose_power(&self, part: u8) {
        for content in self.lock().files.values() {
            let mut content = content.lock().unwrap();
            let (written, synced) = (content.written.len(), content.synced.len());
            let kept = synced + written.saturating_sub(synced) * usize::from(part) / 256;
            let mut left = content.synced.clone();
            if let Some(more) = content.written.get(synced..kept) {
                left.extend_from_slice(more);
            }
            content.synced.clone_from(&left);
            content.written = left;
        }
    }

    /// The content of a file, for reading and changing.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.lock().files[name].clone();
        change(&mut file.lock().unwrap().written);
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().files.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, FakeState> {
        self.0.lock().unwrap()
    }

    fn call(&self) -> Result<(), Fault> {
        let mut state = self.lock();
        if state.failing == 0 {
            return Ok(());
        }
        if state.succeeding > 0 {
            state.succeeding -= 1;
            return Ok(());
        }
        state.failing -= 1;
        Err(state.faults[0])
    }

    /// Counts a call that either succeeds or fails as a whole.
    fn call_whole(&self) -> io::Result<()> {
        match self.call() {
            Err(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Err(Fault::Broken) => Err(io::Error::from_raw_os_error(nix::libc::EIO)),
            Err(Fault::Short) | Ok(()) => Ok(()),
        }
    }
}

#[derive(Debug)]
struct File(FakeDisk, Arc<Mutex<Content>>);

impl Disk for FakeDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.call_whole()?;
        Ok(self.names())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        self.call_whole()?;
        let file = self.lock().files.entry(name.into()).or_default().clone();
        Ok(Box::new(File(self.clone(), file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call_whole()?;
        let mut state = self.lock();
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call_whole()?;
        let removed = self.lock().files.remove(name);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        self.call_whole()
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("fake").join(name)
    }
}

impl LogFile for File {
    fn write_at(&self, bytes: &[u8], place: u64) -> io::Result<usize> {
        let (length, result) = match self.0.call() {
            Ok(()) => (bytes.len(), Ok(bytes.len())),
            Err(Fault::Short) => (bytes.len().div_ceil(2), Ok(bytes.len().div_ceil(2))),
            Err(Fault::Full) => (bytes.len() / 2, Err(io::ErrorKind::StorageFull.into())),
            Err(Fault::Broken) => (0, Err(io::Error::from_raw_os_error(nix::libc::EIO))),
        };
        let place = usize::try_from(place).unwrap();
        let mut content = self.1.lock().unwrap();
        if content.written.len() < place + length {
            content.written.resize(place + length, 0);
        }
        content.written[place..place + length].copy_from_slice(&bytes[..length]);
        result
    }

    fn read_at(&self, bytes: &mut [u8], place: u64) -> io::Result<usize> {
        self.0.call_whole()?;
        let content = self.1.lock().unwrap();
        let rest = content.written.get(usize::try_from(place).unwrap()..);
        let rest = rest.unwrap_or_default();
        let length = rest.len().min(bytes.len());
        bytes[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.call_whole()?;
        let length = usize::try_from(length).unwrap();
        self.1.lock().unwrap().written.resize(length, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.call_whole()?;
        let mut content = self.1.lock().unwrap();
        content.synced = content.written.clone();
        Ok(())
    }
}
