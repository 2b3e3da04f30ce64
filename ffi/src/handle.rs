//! What is behind a `comet_t`: a client that one thread at a time uses, and the pool of handles that survive PHP requests.

use std::{
    cell::RefCell,
    collections::HashMap,
    mem, process,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use comet_client::{Acknowledge, Client, Directory, Error, Options, Outcome, proto::line::Publish};

use crate::result::Fault;

/// A connection to the daemon, with the options to connect again. Opaque.
pub struct Handle {
    options: Options,
    slot: Mutex<Slot>,
    free: Condvar,
    pooled: bool,
}

// C code may share handles between threads, so `Handle` must be `Send` and `Sync`.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Handle>();
};

/// The client is taken out of its slot for a call, so that no lock is held while it talks to the daemon.
enum Slot {
    /// Not created yet, or lost in a panic.
    Empty,
    Idle(Box<Client>),
    /// In use by a thread of this process.
    Busy(u32),
}

impl Handle {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            slot: Mutex::new(Slot::Empty),
            free: Condvar::new(),
            pooled: false,
        }
    }

    pub(crate) fn is_pooled(&self) -> bool {
        self.pooled
    }

    pub(crate) fn directory(&self) -> Result<Directory, Fault> {
        Ok(Directory::open(&self.options.dir)?)
    }

    /// Lends the client to `call`. Other threads wait for it, at most for the time-out.
    pub(crate) fn with_client<T>(
        &self,
        call: impl FnOnce(&mut Client) -> Result<T, Error>,
    ) -> Result<T, Fault> {
        let mut loan = self.borrow(self.options.timeout)?;
        let client = loan.client.as_mut().expect("it is taken only when dropped");
        Ok(call(client)?)
    }

    /// Publishes. With `spool` the message may wait in the spool while the daemon is away.
    pub(crate) fn publish(
        &self,
        publish: Publish<'_>,
        acknowledge: Acknowledge,
        spool: bool,
    ) -> Result<Outcome, Fault> {
        let mut loan = match self.borrow(self.options.time_for_daemon(spool)) {
            Ok(loan) => loan,
            // Another thread still uses the client to wait for the daemon, and this thread's time is over.
            Err(_) => return Ok(Client::new(self.options.clone()).give_up(publish, spool)?),
        };
        let client = loan.client.as_mut().expect("it is taken only when dropped");
        Ok(if spool {
            client.publish_or_spool(publish, acknowledge)
        } else {
            client.publish(publish, acknowledge)
        }?)
    }

    fn borrow(&self, patience: Duration) -> Result<Loan<'_>, Fault> {
        let (start, process) = (Instant::now(), process::id());
        // After a fork the child must not wait for a client that a thread of the parent uses: it never comes back.
        let busy = |slot: &mut Slot| matches!(slot, Slot::Busy(user) if *user == process);
        let (mut slot, wait) = self
            .free
            .wait_timeout_while(self.lock(), patience, busy)
            .unwrap_or_else(PoisonError::into_inner);
        if wait.timed_out() {
            let after = self.options.timeout;
            return Err(Error::Timeout { after, pending: 0 }.into());
        }
        let waited = start.elapsed();
        let mut client = match mem::replace(&mut *slot, Slot::Empty) {
            Slot::Idle(client) => client,
            Slot::Empty | Slot::Busy(_) => Box::new(Client::new(self.options.clone())),
        };
        client.spent(waited);
        // Set last: nothing can panic between this line and the loan, whose drop resets the slot.
        *slot = Slot::Busy(process);
        Ok(Loan {
            handle: self,
            client: Some(client),
        })
    }

    /// Ignores poisoning: the slot is valid after a panic at any place.
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the client to its slot when dropped, unless the thread panics: then the client may be in an invalid state.
struct Loan<'a> {
    handle: &'a Handle,
    client: Option<Box<Client>>,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let client = self.client.take().filter(|_| !thread::panicking());
        *self.handle.lock() = client.map_or(Slot::Empty, Slot::Idle);
        self.handle.free.notify_one();
    }
}

/// This thread's handle for `dsn`. Threads do not share pooled handles, so none waits for another.
pub(crate) fn pooled(
    dsn: &[u8],
    options: impl FnOnce(&[u8]) -> Result<Options, Fault>,
) -> Result<*const Handle, Fault> {
    thread_local! {
        static POOL: RefCell<HashMap<Vec<u8>, Box<Handle>>> = RefCell::default();
    }
    POOL.with(|pool| {
        let mut pool = pool.borrow_mut();
        if let Some(handle) = pool.get(dsn) {
            return Ok(&raw const **handle);
        }
        let mut handle = Handle::new(options(dsn)?);
        handle.pooled = true;
        // The box keeps its address when the map grows.
        Ok(&raw const **pool.entry(dsn.to_vec()).or_insert(Box::new(handle)))
    })
}
