//! What a `comet_t` is: a client that one thread at a time uses, and the pool of those that outlive requests.

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

/// A connection to the daemon, with what it needs to come back. Opaque.
pub struct Handle {
    options: Options,
    slot: Mutex<Slot>,
    free: Condvar,
    pooled: bool,
}

// C shares handles between threads, where no compiler looks.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Handle>();
};

/// The client is taken out of its slot for a call, so that no lock is held while it talks to the daemon.
enum Slot {
    /// Not made yet, or lost in a panic.
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

    /// Lends the client to `call`. Other threads wait, no longer than the timeout.
    pub(crate) fn with_client<T>(
        &self,
        call: impl FnOnce(&mut Client) -> Result<T, Error>,
    ) -> Result<T, Fault> {
        let mut loan = self.borrow(self.options.timeout)?;
        let client = loan.client.as_mut().expect("it is taken only when dropped");
        Ok(call(client)?)
    }

    /// Publishes; `spool`: while the daemon is away the message may wait in the spool.
    pub(crate) fn publish(
        &self,
        publish: Publish<'_>,
        acknowledge: Acknowledge,
        spool: bool,
    ) -> Result<Outcome, Fault> {
        let mut loan = match self.borrow(self.options.time_for_daemon(spool)) {
            Ok(loan) => loan,
            // Another thread waits for the daemon, and this one has waited for that long enough.
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
        // In the child of a fork nobody will ever bring back what a thread of the parent has.
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
        // Last, when nothing can panic any more before the loan exists, which ends this.
        *slot = Slot::Busy(process);
        Ok(Loan {
            handle: self,
            client: Some(client),
        })
    }

    /// A panic while the lock is held leaves a slot that is as good as any.
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings the client back, unless a panic has left it in no state to be used again.
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

/// The handle of this thread for `dsn`. Threads never share one, so that none waits for another.
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
        // The box keeps its place when the map grows.
        Ok(&raw const **pool.entry(dsn.to_vec()).or_insert(Box::new(handle)))
    })
}
