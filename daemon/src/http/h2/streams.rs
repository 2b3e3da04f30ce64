//! Keeps the clients of HTTP/2 to what HTTP/1 keeps them to: a stream of which nothing is taken is cut, and so is a
//! connection that asks for nothing, or sends and sends what asks for nothing.

use std::{
    cell::{Cell, RefCell},
    future::{Future, pending, poll_fn},
    io::{self, ErrorKind},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use hyper::rt::Executor;
use tokio::time::{Instant, sleep_until};

use crate::http::memory::{self, Hold};

/// What a client may send without asking for anything, uploading or taking anything, in bytes. An honest one sends a
/// few frames of 10 to 20 bytes for each answer.
const MAX_IDLE_BYTES: usize = 1 << 20;

tokio::task_local! {
    /// Of the stream whose task runs.
    static STREAM: Stream;
}

/// What happens on a connection.
#[derive(Default)]
pub(in crate::http) struct Activity {
    /// Streams that are served.
    open: Cell<u32>,
    /// When the last one ended.
    since: RefCell<Option<Instant>>,
    /// Bytes that came since something was asked for, uploaded or taken.
    idle_bytes: Cell<usize>,
}

impl Activity {
    /// So many bytes have come. An error ends the connection.
    pub(in crate::http) fn note_bytes(&self, bytes: usize) -> io::Result<()> {
        let sum = self.idle_bytes.get() + bytes;
        self.idle_bytes.set(sum);
        match sum <= MAX_IDLE_BYTES {
            true => Ok(()),
            false => Err(ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Waits until no stream was served for `idle`.
    pub(super) async fn is_idle(&self, idle: Duration) {
        let mut start = Instant::now();
        loop {
            sleep_until(start + idle).await;
            let last = match self.open.get() {
                0 => *self.since.borrow(),
                _ => Some(Instant::now()),
            };
            match last {
                Some(last) if last > start => start = last,
                _ => return,
            }
        }
    }
}

/// Runs the tasks of a connection's streams, on its thread.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) activity: Rc<Activity>,
    pub(super) write_time: Duration,
}

/// One stream. It is open for as long as this is there.
struct Stream {
    activity: Rc<Activity>,
    /// Since when the client is to take something.
    gives: Cell<Option<Instant>>,
    _hold: Hold,
}

impl<F: Future + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        let (stream, write_time) = (Stream::new(self.activity.clone()), self.write_time);
        tokio::task::spawn_local(STREAM.scope(stream, async move {
            tokio::pin!(task);
            loop {
                let given = STREAM.with(|stream| stream.gives.get());
                tokio::select! {
                    biased;
                    _ = &mut task => return,
                    // Dropped, the stream is reset.
                    () = is_late(given, write_time) => return,
                    () = has_changed(given) => {}
                }
            }
        }));
    }
}

/// The client has not taken for too long what it was given.
async fn is_late(given: Option<Instant>, write_time: Duration) {
    match given {
        Some(given) => sleep_until(given + write_time).await,
        None => pending().await,
    }
}

/// `gives` has changed while the task ran.
async fn has_changed(before: Option<Instant>) {
    poll_fn(
        |_| match STREAM.with(|stream| stream.gives.get()) == before {
            true => Poll::Pending,
            false => Poll::Ready(()),
        },
    )
    .await;
}

impl Stream {
    fn new(activity: Rc<Activity>) -> Self {
        activity.open.set(activity.open.get() + 1);
        activity.idle_bytes.set(0);
        Self {
            activity,
            gives: Cell::new(None),
            _hold: Hold::new(memory::H2_STREAM),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.activity.open.set(self.activity.open.get() - 1);
        *self.activity.since.borrow_mut() = Some(Instant::now());
    }
}

/// The stream whose task runs has something for the client to take, or all was taken.
pub(super) fn take_note(gives: bool) {
    let _ = STREAM.try_with(|stream| {
        stream.gives.set(gives.then(Instant::now));
        stream.activity.idle_bytes.set(0);
    });
}

/// The client has uploaded something on the stream whose task runs.
pub(in crate::http) fn note_upload() {
    let _ = STREAM.try_with(|stream| stream.activity.idle_bytes.set(0));
}
