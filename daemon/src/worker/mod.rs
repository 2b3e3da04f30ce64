//! A thread that serves connections in one event loop. This module handles sockets and time-outs. Protocols are left to
//! the implementations of two traits: a [`Door`] creates a connection, and a [`Connection`] handles its events.

mod accept;
mod addresses;
mod balance;
mod connection;
mod handler;
mod pacing;
mod reactor;
mod thread_waker;
mod timers;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::TcpStream,
    rc::Rc,
    sync::Arc,
};

use slab::Slab;
use tokio::sync::Notify;

use crate::metrics::Metrics;
use accept::{Accept, AfterAccept, ReadyListeners};
pub use accept::{Listener, MOST_LISTENERS};
pub(crate) use addresses::{Address, OPEN};
pub use balance::Balance;
pub(crate) use connection::{Connection, Door, Ready};
pub use handler::{EventHandler, Handled, MigratingHandler};
use pacing::ParkedPolls;
use reactor::{Reactor, Sockets};
pub(crate) use timers::{Due, SHORT, Timers};

/// When the daemon stops, a thread still accepts the connections that wait: at most 64 batches of 64.
const LAST_BATCHES: usize = 64;
const LAST_BATCH: usize = 64;

/// The index of a connection in its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place(u32);

impl Place {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// What all workers share.
#[derive(Clone)]
pub struct SharedParts {
    /// At most [`MOST_LISTENERS`].
    pub listeners: Arc<[Listener]>,
    pub balance: Arc<Balance>,
    pub handler: Arc<MigratingHandler>,
    pub metrics: Arc<Metrics>,
}

/// One thread with its connections.
pub(crate) struct Worker<C: Connection> {
    pub(crate) context: C::Context,
    pub(crate) timers: Timers,
    pub(crate) parked: ParkedPolls,
    number: usize,
    /// `None` after the thread has stopped accepting.
    accept: RefCell<Option<Accept<C>>>,
    sockets: Rc<Sockets>,
    handler: Arc<MigratingHandler>,
    balance: Arc<Balance>,
    metrics: Arc<Metrics>,
    connections: RefCell<Slab<Rc<C>>>,
    /// The client's address of each connection, if connections are counted by address.
    peers: RefCell<HashMap<Place, Address>>,
    /// The second, counted from the thread's start, in which unneeded memory was last freed.
    tidied: Cell<u32>,
    stopping: Cell<bool>,
    /// Notified when the last connection has ended after the worker began to stop.
    empty: Notify,
}

impl<C: Connection> Worker<C> {
    /// Creates the worker with this number, and the event loop that runs it.
    ///
    /// # Errors
    /// When the listeners cannot be watched.
    pub(crate) fn new(
        number: usize,
        shared: SharedParts,
        doors: Vec<Box<dyn Door<C>>>,
        context: C::Context,
    ) -> io::Result<(Rc<Self>, Loop)> {
        let mut reactor = Reactor::new()?;
        reactor.join(number, &shared.handler, &shared.balance)?;
        let worker = Rc::new(Self {
            context,
            timers: Timers::new(),
            parked: ParkedPolls::default(),
            number,
            accept: RefCell::new(Some(Accept::new(shared.listeners, doors))),
            sockets: reactor.sockets(),
            handler: shared.handler,
            balance: shared.balance,
            metrics: shared.metrics,
            connections: RefCell::default(),
            peers: RefCell::default(),
            tidied: Cell::new(0),
            stopping: Cell::new(false),
            empty: Notify::new(),
        });
        reactor.begin_to_accept(&worker)?;
        Ok((worker, Loop(reactor)))
    }

    /// Whether the worker has begun to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    pub(crate) fn connection(&self, place: Place) -> Option<Rc<C>> {
        self.connections.borrow().get(place.index()).cloned()
    }

    /// Number of connections.
    fn open(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Adds a connection, which `open` creates.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub(crate) fn add(
        &self,
        stream: TcpStream,
        peer: Option<Address>,
        open: impl FnOnce(TcpStream, Place) -> Rc<C>,
    ) -> io::Result<()> {
        let mut connections = self.connections.borrow_mut();
        let entry = connections.vacant_entry();
        let place = Place(u32::try_from(entry.key()).expect("descriptors are 31 bits"));
        if let Err(error) = self.sockets.add(&stream, place) {
            peer.into_iter().for_each(|peer| OPEN.leave(peer));
            return Err(error);
        }
        entry.insert(open(stream, place));
        if let Some(peer) = peer {
            self.peers.borrow_mut().insert(place, peer);
        }
        Ok(())
    }

    /// Removes a connection. Its socket closes with the last reference to it.
    pub(crate) fn forget(&self, place: Place) {
        // Without counted addresses no lookup is needed.
        if !self.peers.borrow().is_empty() {
            let peer = self.peers.borrow_mut().remove(&place);
            peer.into_iter().for_each(|peer| OPEN.leave(peer));
        }
        self.timers.set(place, Due::NEVER);
        let connection = self.connections.borrow_mut().try_remove(place.index());
        // Dropping the last reference runs code that may borrow `connections`, so the borrow must have ended.
        drop(connection);
        if self.stopping.get() && self.connections.borrow().is_empty() {
            self.empty.notify_one();
        }
    }

    /// Also watches for the moment when the socket can be written again.
    pub(crate) fn watch_writes(&self, stream: &TcpStream, place: Place) -> io::Result<()> {
        self.sockets.watch_writes(stream, place)
    }

    /// Calls `f` for each connection.
    pub(crate) fn each(&self, f: impl Fn(&Rc<C>)) {
        // The list is copied, because `f` may remove its connection.
        let clone = |(_, connection): (usize, &Rc<C>)| connection.clone();
        let connections: Vec<_> = self.connections.borrow().iter().map(clone).collect();
        connections.iter().for_each(f);
    }

    /// Handles the connections whose time-out has passed. Calls `tidy` about once a second.
    pub(crate) fn tick(&self, tidy: impl FnOnce()) {
        let overdue = self.timers.begin_tick();
        for connection in overdue
            .into_iter()
            .filter_map(|place| self.connection(place))
        {
            connection.expire();
        }
        let second = self.timers.second();
        if self.tidied.replace(second) != second {
            tidy();
            self.shrink();
        }
    }

    /// Frees memory after a peak of connections.
    fn shrink(&self) {
        let mut connections = self.connections.borrow_mut();
        if connections.len() < connections.capacity() / 8 {
            connections.shrink_to_fit();
            self.timers.shrink_to(connections.capacity());
        }
    }

    /// Stops accepting at once. If another process (systemd) keeps the listeners open, new clients wait in the kernel's
    /// queue until the next daemon accepts them.
    pub(crate) fn accept_no_more(&self) {
        // While another process keeps a listener open, closing it here would not remove it from epoll.
        self.listen_no_more();
        self.accept.take();
    }

    /// Stops the worker: stops accepting, and lets each connection send its last answer, also connections that have just
    /// been accepted. Returns when the last connection has ended.
    pub(crate) async fn stop(self: &Rc<Self>) {
        self.stopping.set(true);
        self.accept_last();
        self.accept_no_more();
        self.each(C::farewell);
        while !self.connections.borrow().is_empty() {
            self.empty.notified().await;
        }
    }

    /// Accepts the clients that have connected before the listener closes, so that they get an answer. Their number is
    /// limited, so that a flood of connections cannot delay the end.
    fn accept_last(self: &Rc<Self>) {
        for _ in 0..LAST_BATCHES {
            if self.accept_some(ReadyListeners::ALL, LAST_BATCH).1 != AfterAccept::More {
                break;
            }
        }
    }

    /// Accepts up to `count` connections of these listeners. Returns how many it accepted.
    fn accept_some(self: &Rc<Self>, ready: ReadyListeners, count: usize) -> (usize, AfterAccept) {
        let mut accept = self.accept.borrow_mut();
        let Some(accept) = accept.as_mut() else {
            return (0, AfterAccept::Wait);
        };
        accept.take_some(ready, count, self)
    }

    fn listen_no_more(&self) {
        if let Some(accept) = &*self.accept.borrow() {
            self.sockets.remove_listeners(accept.listeners());
        }
    }

    fn listen_again(&self) -> io::Result<()> {
        match &*self.accept.borrow() {
            Some(accept) => self.sockets.add_listeners(accept.listeners()),
            None => Ok(()),
        }
    }

    /// Reports the number of connections to the balance. Returns whether this worker should leave new connections to
    /// other workers.
    fn is_ahead(&self) -> bool {
        self.balance.count(self.number, self.open())
    }

    /// Whether another worker has asked this one to accept again since the last call.
    fn is_called(&self) -> bool {
        self.balance.is_called(self.number)
    }

    /// Runs the handler. Returns whether it must run again.
    fn run_handler(&self) -> io::Result<bool> {
        self.parked.reset();
        self.handler.run(self.number)
    }
}

/// The event loop of a [`Worker`].
pub(crate) struct Loop(Reactor);

impl Loop {
    /// Runs the event loop until `main`, one of its tasks, has ended. Calls `tick` at each tick; `tick` must call
    /// [`Worker::tick`].
    ///
    /// # Errors
    /// When waiting for events fails, or when the handler fails.
    pub(crate) fn run<C: Connection, T>(
        self,
        worker: &Rc<Worker<C>>,
        main: impl Future<Output = T>,
        tick: impl FnMut(),
    ) -> io::Result<T> {
        self.0.run(worker, main, tick)
    }
}
