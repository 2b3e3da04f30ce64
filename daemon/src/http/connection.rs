//! One connection. hyper and its buffers exist only while hyper parses a request or writes an ordinary answer. A task
//! exists only while there is work that may have to wait. A waiting poll, a stream, and a connection between two
//! requests need only a socket and this structure.
//!
//! `State` says who acts next: the task, the client, or the worker. `work` runs until the client or the worker acts
//! next; then the task ends. Everything here belongs to one thread. Between two awaits only the calls `ready`,
//! `deliver`, `expire` and `say_farewell` change the state.

mod reading;
mod socket;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::ErrorKind,
    net::TcpStream,
    rc::Rc,
    task::{self, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    task::{spawn_local, yield_now},
    time::timeout,
};

use super::{
    Context, Worker,
    answer::Refusal,
    door::Refused,
    framing::{Framing, is_no_request, without_line_ends},
    h2,
    held::Held,
    memory::{self, Hold},
    service::{self, PlainOutcome, Served},
};
use crate::worker::{Connection, Due, Place, Ready};
use reading::Head;

/// One connection: its socket, its state, and the subscription that it holds.
pub(super) struct Conn {
    pub(super) worker: Rc<Worker>,
    stream: TcpStream,
    /// Index among the worker's connections. `None` after the connection has left the worker.
    place: Cell<Option<Place>>,
    pub(super) state: Cell<State>,
    /// Why there is no room for the connection. `Some`: its one request is refused.
    pub(super) refused: Option<Refused>,
    /// A task works for the connection.
    tasked: Cell<bool>,
    /// The socket may hold unread bytes or its end, and epoll will not report them again.
    pub(super) unread: Cell<bool>,
    /// The client has closed its side, and the end is still to be read.
    pub(super) ended: Cell<bool>,
    /// epoll also reports when the socket can be written again.
    watches_writes: Cell<bool>,
    /// The connection ends after the answer that is being written.
    pub(super) last: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    pub(super) held: RefCell<Option<Held>>,
    /// Boxed, because few connections have leftovers: each connection pays for a pointer only.
    leftovers: RefCell<Option<Box<Leftovers>>>,
}

/// Bytes that were read but not served yet, and bytes that are not written yet.
#[derive(Default)]
struct Leftovers {
    /// The next request, which arrived after one that still waits.
    input: Bytes,
    /// The part of an answer that did not fit into the socket.
    output: Bytes,
}

/// Who acts next, and what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The task acts: hyper serves a request. hyper has its own time limits, except one: how long a client may read
    /// nothing.
    Busy,
    /// The client acts: it sends the next request.
    Idle,
    /// The client acts: it sends the request that will be refused.
    Refusing,
    /// The task acts: it opens a subscription, or goes on after a piece that did not fit into the socket.
    Joining,
    /// `deliver` or `expire` acts: it answers the poll.
    Polling,
    /// `deliver` or `expire` acts: it writes the next piece of the stream.
    Streaming,
    /// The task acts: it writes an answer, or the rest of one.
    Writing,
    /// The task acts: the last answer is written, and the connection ends.
    Ending,
    /// The connection is cut. If there is a task, it ends.
    Closing,
}

/// How a task ends.
#[derive(PartialEq, Eq)]
enum After {
    /// The connection stays open. The client or the worker acts next.
    Asleep,
    Gone,
}

/// What reading from the socket has returned.
enum Input {
    Bytes(Bytes),
    Nothing,
    End,
}

/// How long a client may go on sending after its last answer, before the connection is closed.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// How long a client may take to send the head of a request that will be refused.
pub(super) const REFUSE_TIME: Duration = Duration::from_secs(2);

/// Number of reads and writes that `work_now` may do before the work goes to a task. Few requests need more.
const FIRST_TURN: u8 = 16;

/// Size of one read in bytes. Most requests fit.
const CHUNK: usize = 4096;

impl Connection for Conn {
    type Context = Context;

    fn ready(self: &Rc<Self>, Ready { readable, ended }: Ready) {
        if ended {
            self.ended.set(true);
        }
        if self.tasked.get() {
            self.unread.set(self.unread.get() || readable);
            return self.wake();
        }
        if !readable && !ended {
            return;
        }
        self.unread.set(true);
        match self.state.get() {
            State::Idle => self.serve_now(),
            State::Refusing => self.work_now(),
            State::Polling | State::Streaming => self.look(),
            _ => {} // a task is about to start and reads the socket
        }
    }

    fn expire(self: &Rc<Self>) {
        self.handle_expiry();
    }

    fn farewell(self: &Rc<Self>) {
        self.say_farewell();
    }

    fn cut(&self) {
        self.worker.context.credit.set(None);
        self.close();
    }
}

impl Conn {
    pub(super) fn new(
        stream: TcpStream,
        worker: &Rc<Worker>,
        place: Place,
        refused: Option<Refused>,
    ) -> Rc<Self> {
        let state = refused.map_or(State::Idle, |_| State::Refusing);
        let context = &worker.context;
        let time = match refused {
            Some(_) => {
                context.refused.set(context.refused.get() + 1);
                REFUSE_TIME
            }
            None => {
                context.metrics.http_connections.add(1);
                context.site().config.idle
            }
        };
        worker.timers.set(place, worker.timers.after(time));
        Rc::new(Self {
            refused,
            worker: worker.clone(),
            stream,
            place: Cell::new(Some(place)),
            state: Cell::new(state),
            tasked: Cell::new(false),
            unread: Cell::new(false),
            ended: Cell::new(false),
            watches_writes: Cell::new(false),
            last: Cell::new(false),
            waker: RefCell::new(None),
            held: RefCell::new(None),
            leftovers: RefCell::new(None),
        })
    }

    /// Serves plain and complete polls and publishes, which nearly all requests are, without hyper and without a task.
    fn serve_now(self: &Rc<Self>) {
        let mut chunk = [0; CHUNK];
        let mut input = match self.try_read(&mut chunk) {
            Ok(n @ 1..) => &chunk[..n],
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Ok(0) | Err(_) => return self.close(),
        };
        while self.state.get() == State::Idle && !self.worker.is_stopping() {
            let Some((served, length)) = service::serve_plain(self, input) else {
                break;
            };
            input = &input[length..];
            match served {
                PlainOutcome::Poll(ask) => {
                    self.begin_held(ask);
                    self.poll_now();
                    self.note_parked();
                }
                PlainOutcome::Published(answer, close) => {
                    self.worker.parked.reset();
                    self.last.set(close);
                    self.answer(answer);
                }
            }
        }
        self.leave_over(|left| &mut left.input, memory::keep(input.to_vec()));
        if self.has_input() && !self.tasked.get() {
            self.work_now();
        }
    }

    fn note_parked(&self) {
        match self.state.get() {
            State::Polling => self.worker.parked.add(),
            _ => self.worker.parked.reset(),
        }
    }

    /// Works without waiting as far as possible, which is nearly always to the end. A task does the rest.
    fn work_now(self: &Rc<Self>) {
        self.worker.parked.reset();
        self.tasked.set(true);
        let mut turn = Box::pin(Turn::run(self.clone()));
        let mut cx = task::Context::from_waker(Waker::noop());
        self.worker.context.credit.set(Some(FIRST_TURN));
        let first = turn.as_mut().poll(&mut cx);
        self.worker.context.credit.set(None);
        if first.is_pending() {
            spawn_local(turn);
        }
    }

    /// Starts a task for the connection, or wakes the one that it has.
    pub(super) fn work_soon(&self) {
        if self.tasked.get() {
            return self.wake();
        }
        let place = self.place.get();
        if let Some(conn) = place.and_then(|place| self.worker.connection(place)) {
            self.tasked.set(true);
            spawn_local(Turn::run(conn));
        }
    }

    /// Does the connection's work until the client or the worker acts next.
    async fn work(self: &Rc<Self>) -> After {
        loop {
            match self.state.get() {
                State::Idle => match self.next_input() {
                    Input::Bytes(bytes) => self.serve(bytes).await,
                    Input::Nothing if self.worker.is_stopping() => {
                        self.set(State::Ending, LINGER);
                    }
                    Input::Nothing => return After::Asleep,
                    Input::End => return After::Gone,
                },
                State::Refusing => self.refuse().await,
                State::Joining => self.subscribe().await,
                State::Polling | State::Streaming => {
                    if self.has_input() {
                        self.look();
                    }
                    match self.state.get() {
                        // The client sends more than one turn's frames: let others run first.
                        State::Streaming if self.reads_frames() && self.unread.get() => {
                            yield_now().await;
                        }
                        State::Polling | State::Streaming => return After::Asleep,
                        _ => {}
                    }
                }
                State::Writing => {
                    let rest = self.take_leftovers(|left| &mut left.output);
                    self.send(rest).await;
                }
                State::Ending => {
                    self.linger().await;
                    return After::Gone;
                }
                // No caller is left that would change this state.
                State::Busy | State::Closing => return After::Gone,
            }
        }
    }

    /// Serves the request that begins with `input`. The new state says what happens next.
    async fn serve(self: &Rc<Self>, input: Bytes) {
        let (input, framing) = match Box::pin(self.read_head(input)).await {
            Head::Http1(input, framing) => (input, framing),
            Head::Http2(input) => {
                self.set_busy();
                Box::pin(h2::serve(self.clone(), input)).await;
                return self.set(State::Closing, Duration::MAX);
            }
            Head::Refused(refusal) => {
                self.last.set(true);
                let origins = &self.worker.context.site().origins;
                return self.send(refusal.into_bytes(origins)).await;
            }
            Head::Closed => return self.set(State::Closing, Duration::MAX),
        };
        self.set_busy();
        let _hold = Hold::new(memory::REQUEST);
        if self.worker.context.is_full() {
            self.last.set(true);
            let refusal = Refusal::no_memory().asked_by(&self.worker.context.site(), &input);
            let origins = &self.worker.context.site().origins;
            return self.send(refusal.into_bytes(origins)).await;
        }
        let unannounced = self.has_unannounced_body(&framing, &input);
        match service::serve_h1(self.clone(), input, framing, unannounced).await {
            Served::Closed => self.set(State::Ending, LINGER),
            Served::Answered(bytes) => {
                self.leave_over(|left| &mut left.input, bytes);
                self.set(State::Idle, self.worker.context.site().config.idle);
            }
            Served::Asked(bytes) => {
                self.leave_over(|left| &mut left.input, bytes);
                self.set(State::Joining, Duration::MAX);
            }
        }
    }

    /// Reads the head of a request that will be refused. The head says which form of answer the client understands.
    async fn refuse(&self) {
        self.set_busy();
        let mut input = Vec::new();
        let head = async {
            while !input.windows(4).any(|end| end == b"\r\n\r\n") && input.len() < CHUNK {
                if !matches!(self.read_more(&mut input).await, Ok(1..)) {
                    break;
                }
            }
        };
        let _ = timeout(REFUSE_TIME, head).await; // a part of the head is enough
        self.last.set(true);
        self.send(self.refusal(&input)).await;
    }

    /// Like `refuse`, with the bytes that have arrived so far.
    pub(super) fn refuse_now(&self) {
        let mut chunk = [0; CHUNK];
        let read = self.try_read(&mut chunk).unwrap_or(0);
        self.last.set(true);
        if self.write_now(self.refusal(&chunk[..read])) {
            self.end();
        }
    }

    fn refusal(&self, input: &[u8]) -> Bytes {
        let site = self.worker.context.site();
        let refusal = self.refused.unwrap_or(Refused::Connections).refusal(&site);
        refusal.asked_by(&site, input).into_bytes(&site.origins)
    }

    /// Whether bytes follow a `POST` that announces no body. HTTP/1.0 allows one request per connection, so that all
    /// following bytes count as a body. In HTTP/1.1 they count as a body if they do not look like a request.
    fn has_unannounced_body(&self, framing: &Framing, input: &[u8]) -> bool {
        let Some(mut behind) = framing.behind_bare_post(input) else {
            return false;
        };
        let mut chunk = [0; 16];
        if behind.is_empty() {
            let read = self.peek(&mut chunk).unwrap_or(0);
            behind = &chunk[..read];
        }
        match framing.is_http_10() {
            true => !without_line_ends(behind).is_empty(),
            false => is_no_request(behind),
        }
    }

    /// Reads the start of the next request. Uses no heap buffer while no request has arrived.
    fn next_input(&self) -> Input {
        let before = self.take_leftovers(|left| &mut left.input);
        if !before.is_empty() {
            return Input::Bytes(before);
        }
        if !self.has_input() {
            return Input::Nothing; // saves a system call
        }
        let mut chunk = [0; CHUNK];
        match self.try_read(&mut chunk) {
            Ok(0) => Input::End,
            Ok(n) => Input::Bytes(Bytes::copy_from_slice(&chunk[..n])),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Input::Nothing,
            Err(_) => Input::End,
        }
    }

    /// Writes all bytes and waits for the client if necessary. The new state says what happens next.
    pub(super) async fn send(&self, mut bytes: Bytes) {
        let write_time = self.worker.context.site().config.write_time;
        self.set(State::Writing, write_time);
        let sent = poll_fn(|cx| {
            while !bytes.is_empty() {
                if self.state.get() == State::Closing {
                    return Poll::Ready(false);
                }
                match self.poll_write(cx, &bytes) {
                    Poll::Ready(Ok(n @ 1..)) => bytes.advance(n),
                    Poll::Pending if !self.is_too_much(&bytes) => return Poll::Pending,
                    Poll::Ready(Ok(0) | Err(_)) | Poll::Pending => return Poll::Ready(false),
                }
                self.set(State::Writing, write_time); // the time limit begins anew after each piece
            }
            Poll::Ready(true)
        });
        if !sent.await {
            self.set(State::Closing, Duration::MAX);
        } else if self.last.get() {
            self.set(State::Ending, LINGER);
        } else if self.held.borrow().is_some() {
            self.set(State::Joining, Duration::MAX);
        } else {
            self.set(State::Idle, self.worker.context.site().config.idle);
        }
    }

    /// Closes so that the client gets the last answer even if it is still sending: closes the sending side, then reads
    /// and discards for a while. If the socket were closed at once, the kernel would send a reset, which may overtake
    /// the answer.
    async fn linger(&self) {
        self.end_held(); // the client gets no more messages
        self.set(State::Ending, LINGER);
        if self.shutdown().is_err() {
            return;
        }
        poll_fn(|cx| {
            let mut chunk = [0; CHUNK];
            while self.state.get() != State::Closing {
                match ready!(self.poll_read(cx, &mut chunk)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => break,
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Sets the state. `expire` is called after `time` unless the state is set again.
    pub(super) fn set(&self, state: State, time: Duration) {
        // `Closing` is final. It stays until the task has seen it.
        if self.state.get() != State::Closing {
            self.state.set(state);
            if let Some(place) = self.place.get() {
                self.worker
                    .timers
                    .set(place, self.worker.timers.after(time));
            }
        }
    }

    /// Whether the rest of an answer is too large to be kept for a client that does not read it.
    fn is_too_much(&self, rest: &Bytes) -> bool {
        rest.len() > memory::SMALL && self.worker.context.is_full()
    }

    fn set_busy(&self) {
        self.set(State::Busy, Duration::MAX);
    }

    pub(super) fn set_due(&self, due: Due) {
        if let Some(place) = self.place.get() {
            self.worker.timers.set(place, due);
        }
    }

    pub(super) fn due(&self) -> Due {
        let place = self.place.get();
        place.map_or(Due::NEVER, |place| self.worker.timers.due(place))
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Leaves the rest of an answer to a task.
    fn write_soon(&self, rest: Bytes) {
        if self.is_too_much(&rest) {
            return self.close();
        }
        self.leave_over(|left| &mut left.output, rest);
        self.set(State::Writing, self.worker.context.site().config.write_time);
        self.work_soon();
    }

    /// Waits for the next request, or serves the one that has arrived already: epoll may not report that one again.
    fn go_on(&self) {
        self.set(State::Idle, self.worker.context.site().config.idle);
        if self.has_input() {
            self.work_soon();
        }
    }

    /// Writes a whole answer of a connection that holds no subscription.
    pub(super) fn answer(&self, answer: impl AsRef<[u8]> + Into<Bytes>) {
        if self.write_now(answer) {
            if self.last.get() {
                self.end();
            } else {
                self.go_on();
            }
        }
    }

    /// Whether there may be bytes, or the end of the connection, that epoll will not report again.
    pub(super) fn has_input(&self) -> bool {
        self.unread.get() || self.ended.get() || self.has_leftovers()
    }

    /// Ends the connection after everything is written.
    pub(super) fn end(&self) {
        self.set(State::Ending, LINGER);
        self.work_soon();
    }

    /// Ends the connection at once.
    pub(super) fn close(&self) {
        self.set(State::Closing, Duration::MAX);
        if self.tasked.get() {
            self.wake();
        } else {
            self.leave();
        }
    }

    /// Removes the connection from the worker. The socket closes with the last reference.
    fn leave(&self) {
        self.state.set(State::Closing);
        self.end_held();
        if let Some(place) = self.place.take() {
            match self.refused {
                Some(_) => {
                    let refused = &self.worker.context.refused;
                    refused.set(refused.get() - 1);
                }
                None => self.worker.context.metrics.http_connections.sub(1),
            }
            self.worker.forget(place);
        }
    }

    pub(super) fn has_leftovers(&self) -> bool {
        self.leftovers.borrow().is_some()
    }

    fn leave_over(&self, which: impl FnOnce(&mut Leftovers) -> &mut Bytes, bytes: Bytes) {
        if !bytes.is_empty() {
            let mut leftovers = self.leftovers.borrow_mut();
            *which(leftovers.get_or_insert_default()) = bytes;
        }
    }

    fn take_leftovers(&self, which: impl FnOnce(&mut Leftovers) -> &mut Bytes) -> Bytes {
        let mut leftovers = self.leftovers.borrow_mut();
        let Some(left) = leftovers.as_mut() else {
            return Bytes::new();
        };
        let bytes = std::mem::take(which(left));
        if left.input.is_empty() && left.output.is_empty() {
            *leftovers = None;
        }
        bytes
    }
}

/// One run of a connection's task. Its drop also ends the run properly when the task panics or is dropped.
struct Turn {
    conn: Rc<Conn>,
    after: After,
}

impl Turn {
    async fn run(conn: Rc<Conn>) {
        let after = After::Gone;
        let mut turn = Self { conn, after };
        turn.after = turn.conn.work().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.conn.tasked.set(false);
        // The waker would keep the task alive, and the task would keep the connection alive.
        self.conn.waker.take();
        if self.after == After::Gone {
            self.conn.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_connection_is_small() {
        assert!(size_of::<Conn>() <= 168, "{} bytes", size_of::<Conn>());
    }
}
