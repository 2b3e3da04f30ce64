//! Limits for HTTP/2 clients like those for HTTP/1 clients. A stream whose client reads nothing is cut. A connection
//! ends when it has no request for too long, or when the client keeps sending bytes that ask for nothing.

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

use crate::connection::memory::Hold;

/// Bytes that hyper uses for one HTTP/2 stream.
const STREAM_BYTES: usize = 8 << 10;

/// Bytes that a client may send without a request, an upload, or reading anything. An honest client sends a few frames
/// of 10 to 20 bytes for each answer.
const MAX_IDLE_BYTES: usize = 1 << 20;

tokio::task_local! {
    /// The stream whose task is running.
    static STREAM: Stream;
}

/// Activity of one connection: its open streams and its idle bytes.
#[derive(Default)]
pub(in crate::http) struct Activity {
    /// Number of streams that are being served.
    open: Cell<u32>,
    /// When the last stream ended.
    since: RefCell<Option<Instant>>,
    /// Bytes that have arrived since the last request, upload, or read by the client.
    idle_bytes: Cell<usize>,
}

impl Activity {
    /// Counts bytes that have arrived. An error ends the connection.
    pub(in crate::http) fn note_bytes(&self, bytes: usize) -> io::Result<()> {
        let sum = self.idle_bytes.get() + bytes;
        self.idle_bytes.set(sum);
        match sum <= MAX_IDLE_BYTES {
            true => Ok(()),
            false => Err(ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Returns when no stream was served for the time `idle`.
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

/// Runs the tasks of a connection's streams on the connection's thread.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) activity: Rc<Activity>,
    pub(super) write_time: Duration,
}

/// One stream. The stream counts as open as long as this value exists.
struct Stream {
    activity: Rc<Activity>,
    /// Since when there are bytes that the client should read. `None`: there are none.
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
                    // Returning drops the task, which resets the stream.
                    () = is_late(given, write_time) => return,
                    () = has_changed(given) => {}
                }
            }
        }));
    }
}

/// Returns when the client has not read for `write_time` what it was given at `given`.
async fn is_late(given: Option<Instant>, write_time: Duration) {
    match given {
        Some(given) => sleep_until(given + write_time).await,
        None => pending().await,
    }
}

/// Returns when `gives` differs from `before`.
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
            _hold: Hold::new(STREAM_BYTES),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.activity.open.set(self.activity.open.get() - 1);
        *self.activity.since.borrow_mut() = Some(Instant::now());
    }
}

/// Notes for the stream whose task is running whether there are bytes that the client should read.
pub(super) fn take_note(gives: bool) {
    let _ = STREAM.try_with(|stream| {
        stream.gives.set(gives.then(Instant::now));
        stream.activity.idle_bytes.set(0);
    });
}

/// Notes an upload by the client on the stream whose task is running.
pub(in crate::http) fn note_upload() {
    let _ = STREAM.try_with(|stream| stream.activity.idle_bytes.set(0));
}
