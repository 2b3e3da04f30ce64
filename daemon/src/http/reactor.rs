//! Tells the connections of one thread what their sockets are ready for. They have an epoll instance of their own
//! inside the runtime's: there, each would need a registration of some hundred bytes and a task that waits.

use std::{
    io::{self, ErrorKind},
    os::fd::AsRawFd,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use mio::{
    Events, Interest, Poll, Registry, Token,
    event::{Event, Source},
    net::{TcpListener, TcpStream},
    unix::SourceFd,
};
use tokio::{
    io::{Interest as Wants, unix::AsyncFd},
    task::yield_now,
    time::{Instant, timeout_at},
};

use super::{Worker, accept::Next};

/// No connection's place: those are 32 bits.
const LISTENER: Token = Token(usize::MAX);

/// Events that are dealt with before others of the thread get their turn. Each may use some of the task's budget
/// for input and output, which is 128 between two turns.
const BATCH: usize = 32;

/// How long accepting pauses when the machine has no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Reactor {
    poll: AsyncFd<Poll>,
    accepting: Accepting,
}

#[derive(Clone, Copy)]
enum Accepting {
    /// There may be somebody.
    Now,
    /// The listener tells when there is somebody.
    Waits,
    PausesUntil(Instant),
}

/// Tells of what comes, from now on.
pub(super) fn register(registry: &Registry, stream: &TcpStream, place: u32) -> io::Result<()> {
    let fd = stream.as_raw_fd();
    SourceFd(&fd).register(registry, Token(place as usize), Interest::READABLE)
}

/// Tells also when it can be written again. A new socket always can, and to be told so is an event for nothing: so
/// only those are asked for it that were full once.
pub(super) fn watch_writes(registry: &Registry, stream: &TcpStream, place: u32) -> io::Result<()> {
    let (fd, both) = (stream.as_raw_fd(), Interest::READABLE | Interest::WRITABLE);
    SourceFd(&fd).reregister(registry, Token(place as usize), both)
}

impl Reactor {
    pub(super) fn new(listener: &mut TcpListener) -> io::Result<Self> {
        let poll = Poll::new()?;
        listener.register(poll.registry(), LISTENER, Interest::READABLE)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe because a descriptor might be closed early; this one is the poll's own"
        )]
        let poll = AsyncFd::with_interest(poll, Wants::READABLE)?;
        Ok(Self {
            poll,
            accepting: Accepting::Now,
        })
    }

    pub(super) fn registry(&self) -> io::Result<Registry> {
        self.poll.get_ref().registry().try_clone()
    }

    /// Accepts, and passes events on, for as long as the thread lives.
    pub(super) async fn run(mut self, worker: Rc<Worker>) -> io::Result<()> {
        let mut events = Events::with_capacity(BATCH);
        loop {
            self.next(&mut events).await?;
            for event in &events {
                self.pass_on(event, &worker);
            }
            if let Accepting::Now = self.accepting {
                self.accepting = match worker.accept_some() {
                    Next::More => Accepting::Now,
                    Next::Wait => Accepting::Waits,
                    Next::Pause => Accepting::PausesUntil(Instant::now() + PAUSE),
                };
            }
            // Others first; and what has come meanwhile saves this thread from falling asleep and being woken.
            yield_now().await;
        }
    }

    /// Waits until there is something to do; that may be to accept, and no event.
    async fn next(&mut self, events: &mut Events) -> io::Result<()> {
        match self.accepting {
            Accepting::Waits => self.next_events(events).await,
            Accepting::Now => poll_now(self.poll.get_mut(), events),
            Accepting::PausesUntil(end) => {
                let seen = timeout_at(end, self.next_events(events)).await;
                if Instant::now() >= end {
                    self.accepting = Accepting::Now;
                }
                seen.unwrap_or_else(|_| {
                    events.clear();
                    Ok(())
                })
            }
        }
    }

    async fn next_events(&mut self, events: &mut Events) -> io::Result<()> {
        let mut ready = self.poll.readable_mut().await?;
        poll_now(ready.get_inner_mut(), events)?;
        // After a full batch there may be more, of which no edge would tell.
        if events.iter().count() < BATCH {
            ready.clear_ready();
        }
        Ok(())
    }

    fn pass_on(&mut self, event: &Event, worker: &Rc<Worker>) {
        if event.token() != LISTENER {
            // It may have left since.
            let conn = u32::try_from(event.token().0).ok();
            if let Some(conn) = conn.and_then(|place| worker.conn(place)) {
                let ended = event.is_read_closed() || event.is_error();
                // As in a task of its own: a mistake of ours ends this connection and no other.
                let ready = || conn.ready(event.is_readable(), ended);
                if catch_unwind(AssertUnwindSafe(ready)).is_err() {
                    conn.close();
                }
            }
        } else if let Accepting::Waits = self.accepting {
            self.accepting = Accepting::Now;
        }
    }
}

/// What is there, without waiting.
fn poll_now(poll: &mut Poll, events: &mut Events) -> io::Result<()> {
    loop {
        match poll.poll(events, Some(Duration::ZERO)) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
