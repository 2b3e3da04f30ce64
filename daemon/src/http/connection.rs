//! One connection. hyper, with its buffers, exists only while it parses a request or writes an ordinary answer,
//! and a task only while there is something to do that may have to wait. A poll that waits, a stream, and a
//! connection between requests are a socket and this structure.
//!
//! `State` says who acts next. When it is the connection, `work` goes on until it is the client or the worker
//! again; then the task is over. Everything here belongs to one thread: no state changes between two awaits but by
//! the calls `ready`, `deliver`, `expire` and `say_farewell`.

mod reading;
mod socket;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::ErrorKind,
    net::TcpStream,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    task::{spawn_local, yield_now},
    time::timeout,
};

use super::{
    Worker,
    accept::Refused,
    answer::Refusal,
    framing::{Framing, is_no_request, without_line_ends},
    h2,
    held::Held,
    memory::{self, Hold},
    service::{self, PlainOutcome, Served},
};
use reading::Head;

/// See the module.
pub(super) struct Conn {
    pub(super) worker: Rc<Worker>,
    stream: TcpStream,
    /// Its place among the worker's connections, until it has left them.
    place: Cell<Option<u32>>,
    pub(super) state: Cell<State>,
    /// There was no room for the connection: its one request is refused.
    pub(super) refused: Option<Refused>,
    /// A task is on.
    tasked: Cell<bool>,
    /// Bytes, or the end, may wait in the socket, of which no edge will tell again.
    pub(super) unread: Cell<bool>,
    /// The client has closed its side: there is an end to be read.
    pub(super) ended: Cell<bool>,
    /// It is told when it can be written again.
    watches_writes: Cell<bool>,
    /// The connection ends with the answer that is being written.
    pub(super) last: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    pub(super) held: RefCell<Option<Held>>,
    /// Seldom there: not worth their room in each connection.
    leftovers: RefCell<Option<Box<Leftovers>>>,
}

/// Bytes that wait for their turn.
#[derive(Default)]
struct Leftovers {
    /// The next request, which came behind one that is held.
    input: Bytes,
    /// What did not fit into the socket.
    output: Bytes,
}

/// Who does what next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The task: hyper is on. It has its own limits but one: how long a client takes nothing.
    Busy,
    /// The client: the next request.
    Idle,
    /// The client: the request that is refused.
    Refusing,
    /// The task: a subscription begins, or goes on after a piece that did not fit.
    Joining,
    /// `deliver` or `expire`: the answer to a poll.
    Polling,
    /// `deliver` or `expire`: the next piece of a stream.
    Streaming,
    /// The task: an answer, or what is left of one, has to be written.
    Writing,
    /// The task: the last answer is written, the connection ends.
    Ending,
    /// The task, if there is one: the connection is cut.
    Closing,
}

/// How a task ends.
#[derive(PartialEq, Eq)]
enum After {
    /// The client or the worker acts next.
    Asleep,
    Gone,
}

/// What a look at the socket has found.
enum Input {
    Bytes(Bytes),
    Nothing,
    End,
}

/// How long a client may go on sending after its last answer.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// How long a client may take to send the head of a request that there is no room for.
pub(super) const REFUSE_TIME: Duration = Duration::from_secs(2);

/// Reads and writes of a connection without a task, before it is given one. Few requests need more.
const FIRST_TURN: u8 = 16;

/// What is read at once, in bytes: most requests fit.
const CHUNK: usize = 4096;

impl Conn {
    pub(super) fn new(
        stream: TcpStream,
        worker: &Rc<Worker>,
        place: u32,
        refused: Option<Refused>,
    ) -> Rc<Self> {
        let state = refused.map_or(State::Idle, |_| State::Refusing);
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

    /// The socket can be read or written again, or its end has come.
    pub(super) fn ready(self: &Rc<Self>, readable: bool, ended: bool) {
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
            _ => {} // a task is about to begin, and looks
        }
    }

    /// Nearly every request is a poll or a publish, plain and whole: for that, neither hyper nor a task is needed.
    fn serve_now(self: &Rc<Self>) {
        let mut chunk = [0; CHUNK];
        let mut input = match self.try_read(&mut chunk) {
            Ok(n @ 1..) => &chunk[..n],
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Ok(0) | Err(_) => return self.close(),
        };
        while self.state.get() == State::Idle && !self.worker.stopping.get() {
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
                    self.worker.parked.set(0);
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
        let parked = &self.worker.parked;
        parked.set(match self.state.get() {
            State::Polling => parked.get().saturating_add(1),
            _ => 0,
        });
    }

    /// Works as far as it goes without waiting, which is nearly always to the end; a task does the rest.
    fn work_now(self: &Rc<Self>) {
        self.worker.parked.set(0);
        self.tasked.set(true);
        let mut turn = Box::pin(Turn::run(self.clone()));
        let mut cx = Context::from_waker(Waker::noop());
        self.worker.credit.set(Some(FIRST_TURN));
        let first = turn.as_mut().poll(&mut cx);
        self.worker.credit.set(None);
        if first.is_pending() {
            spawn_local(turn);
        }
    }

    /// Begins a task, unless there is one, which goes on.
    pub(super) fn work_soon(&self) {
        if self.tasked.get() {
            return self.wake();
        }
        let place = self.place.get();
        if let Some(conn) = place.and_then(|place| self.worker.conn(place)) {
            self.tasked.set(true);
            spawn_local(Turn::run(conn));
        }
    }

    /// Does what is the connection's to do.
    async fn work(self: &Rc<Self>) -> After {
        loop {
            match self.state.get() {
                State::Idle => match self.next_input() {
                    Input::Bytes(bytes) => self.serve(bytes).await,
                    Input::Nothing if self.worker.stopping.get() => {
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
                        // It floods us: others first.
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
                // Nobody is left who would make another state of it.
                State::Busy | State::Closing => return After::Gone,
            }
        }
    }

    /// Serves what begins with `input`, and says by the state what is next.
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
                let origins = &self.worker.site().origins;
                return self.send(refusal.into_bytes(origins)).await;
            }
            Head::Closed => return self.set(State::Closing, Duration::MAX),
        };
        self.set_busy();
        let _hold = Hold::new(memory::REQUEST);
        if self.worker.is_full() {
            self.last.set(true);
            let refusal = Refusal::no_memory().asked_by(&self.worker.site(), &input);
            let origins = &self.worker.site().origins;
            return self.send(refusal.into_bytes(origins)).await;
        }
        let unannounced = self.has_unannounced_body(&framing, &input);
        match service::serve_h1(self.clone(), input, framing, unannounced).await {
            Served::Closed => self.set(State::Ending, LINGER),
            Served::Answered(bytes) => {
                self.leave_over(|left| &mut left.input, bytes);
                self.set(State::Idle, self.worker.site().config.idle);
            }
            Served::Asked(bytes) => {
                self.leave_over(|left| &mut left.input, bytes);
                self.set(State::Joining, Duration::MAX);
            }
        }
    }

    /// Reads the head of a request that there is no room for, which says what kind of answer its client understands.
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
        let _ = timeout(REFUSE_TIME, head).await; // what has come will do
        self.last.set(true);
        self.send(self.refusal(&input)).await;
    }

    /// Likewise, by what has come so far.
    pub(super) fn refuse_now(&self) {
        let mut chunk = [0; CHUNK];
        let read = self.try_read(&mut chunk).unwrap_or(0);
        self.last.set(true);
        if self.write_now(self.refusal(&chunk[..read])) {
            self.end();
        }
    }

    fn refusal(&self, input: &[u8]) -> Bytes {
        let site = self.worker.site();
        let refusal = self.refused.unwrap_or(Refused::Connections).refusal(&site);
        refusal.asked_by(&site, input).into_bytes(&site.origins)
    }

    /// Bytes follow a `POST` that announces no body. HTTP/1.0 has one request a connection, so that they can be nothing
    /// else; in HTTP/1.1 they are a body when no request begins so.
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

    /// The start of the next request. Needs no buffer of its own while there is none.
    fn next_input(&self) -> Input {
        let before = self.take_leftovers(|left| &mut left.input);
        if !before.is_empty() {
            return Input::Bytes(before);
        }
        if !self.has_input() {
            return Input::Nothing; // no system call to be told so
        }
        let mut chunk = [0; CHUNK];
        match self.try_read(&mut chunk) {
            Ok(0) => Input::End,
            Ok(n) => Input::Bytes(Bytes::copy_from_slice(&chunk[..n])),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Input::Nothing,
            Err(_) => Input::End,
        }
    }

    /// Writes all of it, waiting for the client where it has to, and says by the state what is next.
    pub(super) async fn send(&self, mut bytes: Bytes) {
        let write_time = self.worker.site().config.write_time;
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
                self.set(State::Writing, write_time); // each piece has its own time
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
            self.set(State::Idle, self.worker.site().config.idle);
        }
    }

    /// Closes so that the client gets the last answer even if it is still sending: says the end, and takes what
    /// comes for a while. Closing at once would make the kernel send a reset, which may overtake the answer.
    async fn linger(&self) {
        self.end_held(); // nothing more is told
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

    /// `expire` looks at the connection after `time`.
    pub(super) fn set(&self, state: State, time: Duration) {
        // Whoever closes it has the last word, until the task has seen it.
        if self.state.get() != State::Closing {
            self.state.set(state);
            if let Some(place) = self.place.get() {
                self.worker.set_due(place, time);
            }
        }
    }

    /// There is no room to keep an answer for a client that does not take it.
    fn is_too_much(&self, rest: &Bytes) -> bool {
        rest.len() > memory::SMALL && self.worker.is_full()
    }

    fn set_busy(&self) {
        self.set(State::Busy, Duration::MAX);
    }

    pub(super) fn set_due(&self, step: u32) {
        if let Some(place) = self.place.get() {
            self.worker.set_due_step(place, step);
        }
    }

    pub(super) fn due(&self) -> u32 {
        self.place
            .get()
            .map_or(u32::MAX, |place| self.worker.due(place))
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
        self.set(State::Writing, self.worker.site().config.write_time);
        self.work_soon();
    }

    /// Goes on with the next request, of which no edge may tell.
    fn go_on(&self) {
        self.set(State::Idle, self.worker.site().config.idle);
        if self.has_input() {
            self.work_soon();
        }
    }

    /// Writes a whole answer, after which nothing is held.
    pub(super) fn answer(&self, answer: impl AsRef<[u8]> + Into<Bytes>) {
        if self.write_now(answer) {
            if self.last.get() {
                self.end();
            } else {
                self.go_on();
            }
        }
    }

    /// There may be bytes, or the end, of which no edge will tell.
    pub(super) fn has_input(&self) -> bool {
        self.unread.get() || self.ended.get() || self.has_leftovers()
    }

    /// Ends the connection without losing what is written.
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

    /// Leaves the worker: the socket closes with the last reference.
    fn leave(&self) {
        self.state.set(State::Closing);
        self.end_held();
        if let Some(place) = self.place.take() {
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

/// A task's hold on its connection, which ends also when the task panics or is dropped.
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
        // It would keep the task alive, and the task the connection.
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
