//! One connection. hyper, with its buffers, exists only while it parses a request or writes an ordinary answer.
//! A poll that waits, a stream, and a connection between requests are a socket, a small task and this
//! structure.
//!
//! The task goes round: wait for bytes; let hyper serve what they ask; when that was a subscription, hold it
//! (`held.rs`). Everything here belongs to one thread: no state changes between two awaits but by the calls
//! `deliver`, `expire` and `say_farewell`.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    Worker, h2,
    held::Held,
    service::{self, Served},
};

/// See the module.
pub(super) struct Conn {
    pub(super) worker: Rc<Worker>,
    pub(super) stream: RefCell<TcpStream>,
    pub(super) state: Cell<State>,
    /// The tick at which `expire` does something about the state.
    pub(super) due: Cell<u32>,
    /// Bytes wait in the socket whose readiness was seen and not taken: no edge will tell of them again.
    pub(super) input_waits: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    pub(super) held: RefCell<Option<Held>>,
    /// What of a delivery did not fit into the socket, for the task to write.
    pub(super) rest: RefCell<Bytes>,
}

/// Who does what next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The task: hyper is on. It has its own limits but one: how long a client takes nothing.
    Busy,
    /// The client: the next request.
    Idle,
    /// `deliver` or `expire`: the answer to a poll.
    Polling,
    /// `deliver` or `expire`: the next piece of a stream.
    Streaming,
    /// The task: an answer, or `rest`, has to be written.
    Writing,
    /// The task: the last answer is written, the connection ends.
    Ending,
    /// The task: the connection is cut.
    Closing,
}

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a client may go on sending after its last answer.
const LINGER: Duration = Duration::from_secs(2);

impl Conn {
    pub(super) fn new(stream: TcpStream, worker: &Rc<Worker>) -> Rc<Self> {
        Rc::new(Self {
            worker: worker.clone(),
            stream: RefCell::new(stream),
            state: Cell::new(State::Idle),
            due: Cell::new(worker.tick_after(worker.site.config.idle)),
            input_waits: Cell::new(false),
            waker: RefCell::new(None),
            held: RefCell::new(None),
            rest: RefCell::new(Bytes::new()),
        })
    }

    /// Serves requests until one side closes.
    pub(super) async fn serve(self: &Rc<Self>) {
        self.serve_requests().await;
        // Both would keep the task and the connection alive in a circle.
        self.end_held();
        self.waker.borrow_mut().take();
    }

    async fn serve_requests(self: &Rc<Self>) {
        let mut input = Bytes::new();
        loop {
            if input.is_empty() {
                self.set(State::Idle, self.worker.site.config.idle);
                match self.read().await {
                    Some(bytes) => input = bytes,
                    None => return,
                }
            }
            if H2_PREFACE.starts_with(&input) {
                match Box::pin(self.read_preface(input)).await {
                    Some(bytes) => input = bytes,
                    None => return,
                }
            }
            self.set_busy();
            if input.starts_with(H2_PREFACE) {
                return Box::pin(h2::serve(self.clone(), input)).await;
            }
            let next = match Box::pin(service::serve_h1(self.clone(), input)).await {
                Served::Closed => None,
                Served::Answered(bytes) => Some(bytes),
                Served::Asked(bytes) => {
                    self.input_waits.set(!bytes.is_empty());
                    let goes_on = self.hold().await;
                    self.end_held();
                    goes_on.map(|()| bytes)
                }
            };
            match next {
                Some(bytes) if !self.worker.stopping.get() => input = bytes,
                _ => return Box::pin(self.linger()).await,
            }
        }
    }

    /// Waits for bytes, without any buffer of its own. `None`: the connection is over.
    async fn read(&self) -> Option<Bytes> {
        self.input_waits.set(false);
        poll_fn(|cx| {
            let mut chunk = [0; 4096];
            let mut chunk = ReadBuf::new(&mut chunk);
            let read = ready!(self.poll_read_or_close(cx, &mut chunk));
            Poll::Ready(read.then(|| Bytes::copy_from_slice(chunk.filled())))
        })
        .await
    }

    /// Goes on reading while the input may still become HTTP/2's preface. hyper would wait for it without end.
    async fn read_preface(&self, input: Bytes) -> Option<Bytes> {
        self.set(State::Idle, self.worker.site.config.header_time);
        let mut input = input.to_vec();
        while input.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(&input) {
            input.extend_from_slice(&self.read().await?);
        }
        Some(input.into())
    }

    /// Writes all of it, waiting for the client where it has to. `None`: the connection is over.
    pub(super) async fn send(&self, mut bytes: Bytes) -> Option<()> {
        let write_time = self.worker.site.config.write_time;
        self.set(State::Writing, write_time);
        poll_fn(|cx| {
            while !bytes.is_empty() {
                if self.state.get() == State::Closing {
                    return Poll::Ready(None);
                }
                self.keep_waker(cx);
                match ready!(self.poll_write(cx, &bytes)) {
                    Ok(n @ 1..) => bytes.advance(n),
                    Ok(0) | Err(_) => return Poll::Ready(None),
                }
                self.set(State::Writing, write_time); // each piece has its own time
            }
            Poll::Ready(Some(()))
        })
        .await
    }

    /// Closes so that the client gets the last answer even if it is still sending: says the end, and takes what
    /// comes for a while. Closing at once would make the kernel send a reset, which may overtake the answer.
    async fn linger(&self) {
        self.set(State::Writing, LINGER);
        if poll_fn(|cx| self.poll_shutdown(cx)).await.is_err() {
            return;
        }
        poll_fn(|cx| {
            let mut chunk = [0; 4096];
            while ready!(self.poll_read_or_close(cx, &mut ReadBuf::new(&mut chunk))) {}
            Poll::Ready(())
        })
        .await;
    }

    /// False when the client has closed or `expire` says that it is over.
    fn poll_read_or_close(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<bool> {
        if matches!(self.state.get(), State::Ending | State::Closing) {
            return Poll::Ready(false);
        }
        self.keep_waker(cx);
        let read = ready!(self.poll_read(cx, buf));
        Poll::Ready(read.is_ok() && !buf.filled().is_empty())
    }

    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buf)
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, bytes)
    }

    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }

    /// Like [`Conn::poll_write`], for hyper: `expire` closes the connection of a client that takes nothing.
    pub(super) fn poll_write_busy(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.state.get() == State::Closing {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.keep_waker(cx);
        let written = self.poll_write(cx, bytes);
        if written.is_ready() {
            self.set_busy();
        } else if self.due.get() == u32::MAX {
            self.set(State::Busy, self.worker.site.config.write_time);
        }
        written
    }

    /// `expire` looks at the connection after `time`.
    pub(super) fn set(&self, state: State, time: Duration) {
        // Whoever closes it has the last word, until the task has seen it.
        if self.state.get() != State::Closing {
            self.state.set(state);
            self.due.set(self.worker.tick_after(time));
        }
    }

    fn set_busy(&self) {
        self.set(State::Busy, Duration::MAX);
    }

    /// For the calls from outside the task: they wake it by this.
    pub(super) fn keep_waker(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Makes the task end without losing what is written.
    pub(super) fn end(&self) {
        self.set(State::Ending, LINGER);
        self.wake();
    }

    /// Makes the task end.
    pub(super) fn close(&self) {
        self.state.set(State::Closing);
        self.wake();
    }
}
