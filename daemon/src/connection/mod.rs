//! One connection: its socket, its phase, and the [`Protocol`] that is spoken on the socket. This module does not
//! depend on any particular protocol.
//!
//! A waiting connection has no task and no buffer. The protocol is called when the socket reports an event, when a
//! subscribed channel has new messages, or when the connection's time-out has passed. Each call returns a [`Step`]. A
//! task exists only while a step has to wait.

pub(crate) mod memory;
mod protocol;
mod socket;
mod task;

#[cfg(test)]
mod tests;

use std::{cell::Cell, net::TcpStream, rc::Rc, sync::Arc, task::Waker, time::Duration};

use crate::{
    hub::subscriber::{AfterDelivery, Feed, Subscriber},
    metrics::Metrics,
    worker::{self, Connection, Due, Place, Ready},
};
use bytes::Bytes;
use memory::Ceiling;
use protocol::MOST_STEPS;
pub(crate) use protocol::{Input, Protocol, Step, Then, due_in};
use socket::WriteResult;

/// A thread that serves connections of the type [`Conn`].
pub(crate) type Worker = worker::Worker<Conn>;

/// After the last answer, the daemon reads and discards what the client still sends, for this time at most. Then it
/// closes the connection.
const LINGER: Duration = Duration::from_secs(2);

/// Size of one read in bytes. Most requests fit.
pub(crate) const CHUNK: usize = 4096;

/// What the connections of one thread share.
pub(crate) struct ConnectionLimits {
    metrics: Arc<Metrics>,
    /// Write time-out: a client that reads nothing for this time is disconnected.
    write_time: Cell<Duration>,
    ceiling: Cell<Ceiling>,
    /// Number of reads and writes that the current connection may still do before other connections are served. `None`
    /// in a task, because the runtime limits tasks.
    budget: Cell<Option<u8>>,
    /// The buffer for reads. It is reused, because a new one would have to be zeroed for each read. `None`: never used,
    /// or in use.
    chunk: Cell<Option<Box<[u8; CHUNK]>>>,
}

impl ConnectionLimits {
    pub(crate) fn new(metrics: Arc<Metrics>, write_time: Duration, ceiling: Ceiling) -> Self {
        Self {
            metrics,
            write_time: Cell::new(write_time),
            ceiling: Cell::new(ceiling),
            budget: Cell::new(None),
            chunk: Cell::new(None),
        }
    }

    /// Sets new limits. They also apply to open connections.
    pub(crate) fn set(&self, write_time: Duration, ceiling: Ceiling) {
        self.write_time.set(write_time);
        self.ceiling.set(ceiling);
    }

    /// Whether all connections together use the memory that is allowed for them.
    pub(crate) fn is_full(&self) -> bool {
        self.ceiling.get().is_reached(&self.metrics)
    }
}

/// One connection of a client.
pub(crate) struct Conn {
    worker: Rc<Worker>,
    /// `None` while the protocol is being called, and after the connection has ended.
    protocol: Cell<Option<Box<dyn Protocol>>>,
    /// Data that few connections have. It is boxed, so that all other connections only need memory for a pointer.
    extra: Cell<Option<Box<Extra>>>,
    stream: TcpStream,
    /// `None` after the connection has left the worker.
    place: Cell<Option<Place>>,
    phase: Cell<Phase>,
    /// The socket may have unread bytes, or the end of the client's data. epoll will not report either again.
    unread: Cell<bool>,
    /// epoll has reported the end: the client has closed its sending side, or the connection is broken.
    ended: Cell<bool>,
    /// epoll also reports when the socket can be written again.
    watches_writes: Cell<bool>,
    /// The connection counts towards the limit of open connections.
    counts: bool,
}

/// Data that few connections have.
#[derive(Default)]
struct Extra {
    /// Bytes that were read and not used yet.
    input: Bytes,
    /// Bytes that did not fit into the socket.
    output: Bytes,
    /// The connection ends when `output` is written.
    ends: bool,
    /// Wakes the connection's task.
    waker: Option<Waker>,
}

impl Extra {
    fn is_empty(&self) -> bool {
        self.input.is_empty() && self.output.is_empty() && self.waker.is_none()
    }
}

/// What the connection does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The protocol waits for input, new messages, or its time-out.
    Protocol,
    /// A task runs a step.
    Task,
    /// The socket's buffer is full, and the rest of the output waits until the client reads.
    Writing,
    /// The last byte is written. What the client still sends is read and discarded.
    Ending,
    /// The connection is closed. If it has a task, the task ends.
    Closed,
}

impl Conn {
    /// A connection that waits for its first bytes, until `due`. `counts`: the connection counts towards the limit of
    /// open connections.
    pub(crate) fn new(
        worker: &Rc<Worker>,
        stream: TcpStream,
        place: Place,
        counts: bool,
        protocol: Box<dyn Protocol>,
        due: Due,
    ) -> Rc<Self> {
        worker.timers.set(place, due);
        if counts {
            worker.context.metrics.http_connections.add(1);
        }
        Rc::new(Self {
            worker: worker.clone(),
            protocol: Cell::new(Some(protocol)),
            extra: Cell::new(None),
            stream,
            place: Cell::new(Some(place)),
            phase: Cell::new(Phase::Protocol),
            unread: Cell::new(false),
            ended: Cell::new(false),
            watches_writes: Cell::new(false),
            counts,
        })
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// When the connection's time-out is due.
    pub(crate) fn due(&self) -> Due {
        let place = self.place.get();
        place.map_or(Due::NEVER, |place| self.worker.timers.due(place))
    }

    fn set_due(&self, due: Due) {
        if let Some(place) = self.place.get() {
            self.worker.timers.set(place, due);
        }
    }

    /// Tells the protocol that the settings or the system clock have changed: see [`Protocol::changed`].
    pub(crate) fn change(&self) {
        let Some(mut protocol) = self.protocol.take() else {
            return;
        };
        let due = protocol.changed(self);
        self.protocol.set(Some(protocol));
        if let (Some(due), Phase::Protocol) = (due, self.phase.get()) {
            self.set_due(due);
        }
    }

    /// Whether there may be something to read that epoll will not report again: bytes, or the end of the client's data.
    pub(crate) fn has_input(&self) -> bool {
        self.has_unread() || self.has_leftovers()
    }

    /// Like [`Conn::has_input`], but only for the socket: bytes that were already read do not count.
    pub(crate) fn has_unread(&self) -> bool {
        self.unread.get() || self.ended.get()
    }

    /// Whether there are bytes that were read and not used yet.
    pub(crate) fn has_leftovers(&self) -> bool {
        self.with_extra(|extra| !extra.input.is_empty())
    }

    /// Whether there may be bytes that the protocol has not used, read or in the socket.
    pub(crate) fn has_bytes(&self) -> bool {
        self.unread.get() || self.has_leftovers()
    }

    /// Stores bytes that a future has read and not used, for the protocol's next call.
    pub(crate) fn leave_input(&self, bytes: Bytes) {
        self.keep_input(bytes);
    }

    /// Makes the next step read the socket, although epoll has not reported bytes: the report may come later than the
    /// bytes.
    pub(crate) fn expect_input(&self) {
        self.unread.set(true);
    }

    /// Calls the protocol. Must not be called while the protocol is already being called.
    fn call(&self, f: impl FnOnce(&mut dyn Protocol) -> Step) -> Step {
        let Some(mut protocol) = self.protocol.take() else {
            return Step::Close; // an earlier call has panicked
        };
        let step = f(&mut *protocol);
        self.protocol.set(Some(protocol));
        step
    }

    /// Calls the protocol with its input until the protocol waits.
    fn run(self: &Rc<Self>) {
        let limits = &self.worker.context;
        let mut chunk = limits.chunk.take().unwrap_or_else(|| Box::new([0; CHUNK]));
        let mut input = Input::new(self, self.take_input(), &mut chunk);
        let mut goes_on = true;
        for _ in 0..MOST_STEPS {
            let step = self.call(|protocol| protocol.input(self, &mut input));
            goes_on = self.follow(step);
            if !goes_on {
                break;
            }
            // A future of the last step may have read bytes and not used them.
            if self.has_leftovers() {
                input.put(self.take_input());
            }
        }
        self.keep_input(input.take());
        limits.chunk.set(Some(chunk));
        if goes_on {
            self.run_soon();
        }
    }

    /// Calls the protocol outside of `run`.
    fn call_and_follow(self: &Rc<Self>, f: impl FnOnce(&mut dyn Protocol) -> Step) {
        let step = self.call(f);
        if self.follow(step) {
            self.run_soon();
        }
    }

    /// Carries out a step. Returns whether the protocol must be called again with its input.
    fn follow(self: &Rc<Self>, step: Step) -> bool {
        let mut next = Some(step);
        while let Some(step) = next.take() {
            match step {
                Step::Wait(due) => self.wait(due),
                Step::Write(bytes, then) => return self.write(bytes, then),
                Step::Task(future) => next = self.start(future),
                Step::Become(protocol) => {
                    self.protocol.set(Some(protocol));
                    return true;
                }
                Step::End => self.end(),
                Step::Close => self.close(),
            }
        }
        false
    }

    fn wait(&self, due: Due) {
        self.phase.set(Phase::Protocol);
        self.set_due(due);
    }

    fn write(self: &Rc<Self>, bytes: Bytes, then: Then) -> bool {
        match self.write_now(bytes) {
            WriteResult::All => {}
            WriteResult::Part(rest) => {
                self.wait_for_writes(rest, then == Then::End);
                return false;
            }
            WriteResult::Failed => {
                self.close();
                return false;
            }
        }
        match then {
            Then::Wait(due) => self.wait(due),
            Then::Again => return true,
            Then::End => self.end(),
        }
        false
    }

    /// Stores the bytes that did not fit into the socket. The client has `write_time` to read some of them.
    fn wait_for_writes(&self, rest: Bytes, ends: bool) {
        if self.is_too_much(&rest) || self.watch_writes().is_err() {
            return self.close();
        }
        self.set_extra(|extra| (extra.output, extra.ends) = (rest, ends));
        self.phase.set(Phase::Writing);
        let write_time = self.worker.context.write_time.get();
        self.set_due(self.worker.timers.after(write_time));
    }

    /// Writes the stored bytes that did not fit into the socket before. Each time the socket takes some of them, the
    /// time limit starts again.
    fn write_rest(self: &Rc<Self>) {
        let (rest, ends) = self.with_extra(|extra| (std::mem::take(&mut extra.output), extra.ends));
        match self.write_now(rest.clone()) {
            WriteResult::Part(left) if left.len() == rest.len() => {
                // Nothing was written, so the time limit keeps running.
                self.set_extra(|extra| (extra.output, extra.ends) = (left, ends));
            }
            WriteResult::Part(left) => self.wait_for_writes(left, ends),
            WriteResult::Failed => self.close(),
            WriteResult::All if ends => self.end(),
            WriteResult::All => {
                self.phase.set(Phase::Protocol);
                self.run();
            }
        }
    }

    /// Whether memory is too short to store the rest of an answer for a client that reads slowly.
    fn is_too_much(&self, rest: &Bytes) -> bool {
        rest.len() > memory::SMALL && self.worker.context.is_full()
    }

    /// Closes the connection in such a way that the client gets the last bytes even if it is still sending. The sending
    /// side is closed first. Then the client's data is read and discarded for at most [`LINGER`]. If the socket were
    /// closed at once while data arrives, the kernel would send a reset, and the client could lose the last bytes.
    fn end(self: &Rc<Self>) {
        self.protocol.take(); // the client gets no more messages
        if self.shutdown().is_err() {
            return self.close();
        }
        self.phase.set(Phase::Ending);
        self.set_due(self.worker.timers.after(LINGER));
        self.unread.set(true);
        self.discard_input();
    }

    fn discard_input(self: &Rc<Self>) {
        let mut chunk = [0; CHUNK];
        for _ in 0..MOST_STEPS {
            match self.try_read(&mut chunk) {
                Ok(1..) => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => return self.close(),
            }
        }
        self.run_soon();
    }

    /// Ends the connection at once.
    fn close(&self) {
        let has_task = self.phase.replace(Phase::Closed) == Phase::Task;
        match has_task {
            true => {
                self.set_due(Due::NEVER);
                self.wake();
            }
            false => self.leave(),
        }
    }

    /// Removes the connection from the worker. The socket closes with the last reference.
    fn leave(&self) {
        self.phase.set(Phase::Closed);
        drop(self.protocol.take());
        drop(self.extra.take());
        if let Some(place) = self.place.take() {
            if self.counts {
                self.worker.context.metrics.http_connections.sub(1);
            }
            self.worker.forget(place);
        }
    }

    fn keep_input(&self, bytes: Bytes) {
        if !bytes.is_empty() && self.phase.get() != Phase::Closed {
            self.set_extra(|extra| extra.input = bytes);
        }
    }

    /// Removes the bytes that were read and not used.
    fn take_input(&self) -> Bytes {
        self.with_extra(|extra| std::mem::take(&mut extra.input))
    }

    /// Changes the extra data. Creates it if necessary.
    fn set_extra(&self, f: impl FnOnce(&mut Extra)) {
        let mut extra = self.extra.take().unwrap_or_default();
        f(&mut extra);
        self.extra.set(Some(extra));
    }

    /// Reads or removes some of the extra data. Returns the default value if there is no extra data.
    fn with_extra<T: Default>(&self, f: impl FnOnce(&mut Extra) -> T) -> T {
        let Some(mut extra) = self.extra.take() else {
            return T::default();
        };
        let found = f(&mut extra);
        if !extra.is_empty() {
            self.extra.set(Some(extra));
        }
        found
    }
}

impl Connection for Conn {
    type Context = ConnectionLimits;

    fn ready(self: &Rc<Self>, Ready { readable, ended }: Ready) {
        if ended {
            self.ended.set(true);
        }
        if readable {
            self.unread.set(true);
        }
        match self.phase.get() {
            Phase::Task => self.wake(),
            Phase::Writing => self.write_rest(),
            Phase::Protocol if readable || ended => self.run(),
            Phase::Ending => self.discard_input(),
            Phase::Protocol | Phase::Closed => {}
        }
    }

    fn expire(self: &Rc<Self>) {
        match self.phase.get() {
            Phase::Protocol => self.call_and_follow(|protocol| protocol.time(self)),
            Phase::Task | Phase::Writing | Phase::Ending => self.close(),
            Phase::Closed => {}
        }
    }

    fn farewell(self: &Rc<Self>) {
        // In the phases `Task` and `Writing` the protocol is called later and then checks whether the daemon stops.
        if self.phase.get() == Phase::Protocol {
            self.call_and_follow(|protocol| protocol.farewell(self));
        }
    }

    fn cut(&self) {
        self.worker.context.budget.set(None);
        self.close();
    }
}

impl Subscriber for Conn {
    fn deliver(self: Rc<Self>, feed: &mut Feed<'_>) -> AfterDelivery {
        // While the connection writes, new messages stay in the history. The protocol reads them afterwards.
        if self.phase.get() == Phase::Protocol {
            self.call_and_follow(|protocol| protocol.news(&self, feed));
        }
        // If the subscription has ended, the protocol has already removed it from the audience.
        AfterDelivery::Stay
    }
}
