//! Background threads that write and sync the log when no publisher does, and how they stop.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use super::Keeper;
use crate::{
    hub::Hub,
    store::{Record, StoreError},
};

/// The interval of the background check.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Requests to the background threads.
#[derive(Default)]
pub(super) struct ThreadRequests {
    sync: bool,
    stop: bool,
}

/// The background threads of the log.
pub struct LogThreads {
    hub: Arc<Hub>,
    threads: Vec<JoinHandle<()>>,
}

impl Hub {
    /// Starts the background threads. Without a log there are none.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start_log_threads(self: &Arc<Self>) -> io::Result<LogThreads> {
        let mut threads = Vec::new();
        for (name, syncs) in [("store", false), ("store-sync", true)] {
            if self.keeper.is_none() || syncs && !self.waits_for_disk() {
                continue;
            }
            let hub = self.clone();
            let run = move || match &hub.keeper {
                Some(keeper) if syncs => keeper.sync(&hub),
                Some(keeper) => keeper.check_regularly(&hub),
                None => {}
            };
            threads.push(thread::Builder::new().name(name.into()).spawn(run)?);
        }
        Ok(LogThreads {
            hub: self.clone(),
            threads,
        })
    }

    pub(super) fn ask_to_sync(&self) {
        if let Some(keeper) = &self.keeper {
            keeper
                .requests
                .lock()
                .expect("nothing panics holding it")
                .sync = true;
            keeper.wake_sync.notify_one();
        }
    }
}

impl Keeper {
    /// The loop of the sync thread, which writes and syncs when a publisher waits for the disk.
    fn sync(&self, hub: &Hub) {
        loop {
            let requests = self.requests.lock().expect("nothing panics holding it");
            let idle = |requests: &mut ThreadRequests| !requests.stop && !requests.sync;
            let woken = self.wake_sync.wait_while(requests, idle);
            let mut requests = woken.expect("nothing panics holding it");
            requests.sync = false;
            if requests.stop {
                return;
            }
            drop(requests);
            let _ = self.commit_all(hub); // publishers that wait get the error
        }
    }

    /// The loop of the thread that runs the background check.
    fn check_regularly(&self, hub: &Hub) {
        loop {
            let requests = self.requests.lock().expect("nothing panics holding it");
            let woken = self
                .wake_check
                .wait_timeout_while(requests, CHECK_INTERVAL, |requests| !requests.stop);
            if woken.expect("nothing panics holding it").0.stop {
                return;
            }
            self.check_log(hub);
        }
    }
}

impl LogThreads {
    /// Writes the remaining messages and a Stop record. All sources must have ended.
    ///
    /// # Errors
    /// Some messages are not kept.
    pub fn stop(self) -> Result<(), StoreError> {
        let Some(keeper) = &self.hub.keeper else {
            return Ok(());
        };
        keeper
            .requests
            .lock()
            .expect("nothing panics holding it")
            .stop = true;
        keeper.wake_sync.notify_one();
        keeper.wake_check.notify_one();
        for thread in self.threads {
            let _ = thread.join(); // a panic was already logged
        }
        let id = self.hub.last().0;
        keeper.check_files(&self.hub);
        let lacks = {
            let mut writer = keeper.lock();
            writer.failed = None;
            writer.rewrite
        };
        if lacks || keeper.commit(&self.hub, id).is_err() {
            keeper.rewrite(&self.hub)?;
        }
        let mut writer = keeper.lock();
        writer.log.append([Record::Stop { id }])?;
        writer.log.sync()
    }
}
