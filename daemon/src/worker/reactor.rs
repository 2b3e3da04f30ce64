//! The event loop of one worker. In each iteration the loop waits in `epoll_wait`, passes the events to the connections,
//! and runs the tasks that were woken.
//!
//! tokio's own event loop is not used, for two reasons. tokio needs a registration of some hundred bytes and a waiting
//! task for each connection. And if this loop ran inside tokio's loop, each iteration would need two to four more system
//! calls.

use std::{
    io,
    net::TcpStream,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use tokio::{
    runtime::{Builder, Runtime},
    task::{LocalSet, yield_now},
};

use super::{
    Connection, Place, Ready, Worker,
    accept::{AfterAccept, Listener, MOST_LISTENERS, ReadyListeners},
    balance::Balance,
    handler::MigratingHandler,
    pacing::{ACCEPT_DELAY, ConnectBurst, POLL_DELAY, PollBurst},
    thread_waker::ThreadWaker,
};

/// Event numbers above 32 bits, so that they differ from the numbers of connections.
const WAKER: u64 = u64::MAX;
const HANDLER: u64 = u64::MAX - 1;
/// The event number of the first listener. The other listeners have the numbers after it.
const LISTENERS: u64 = 1 << 32;
const LAST_LISTENER: u64 = LISTENERS + MOST_LISTENERS as u64 - 1;

/// Number of events that one call of `epoll_wait` returns at most.
const BATCH: usize = 64;

/// When events have taken 250 µs together, tasks run before the next events. For comparison: one stream that is behind
/// takes 90 µs to catch up. The clock is read after every 4 events.
const EVENTS_PER_CLOCK_READ: usize = 4;
const MAX_EVENT_TIME: Duration = Duration::from_micros(250);

/// How long accepting pauses when the machine has no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// The epoll instance that watches the sockets of one worker.
pub(super) struct Sockets(Arc<Epoll>);

impl Sockets {
    /// Watches a connection's socket for bytes and for its end.
    pub(super) fn add(&self, stream: &TcpStream, place: Place) -> io::Result<()> {
        Ok(self.0.add(stream, edges(EpollFlags::EPOLLIN, place))?)
    }

    /// Also watches for the moment when the socket can be written again. A socket is watched for writes only after its
    /// buffer was full once: a new socket can be written at once, so its first event would be useless.
    pub(super) fn watch_writes(&self, stream: &TcpStream, place: Place) -> io::Result<()> {
        let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        Ok(self.0.modify(stream, &mut edges(both, place))?)
    }

    /// Watches the listeners level-triggered: epoll reports a listener as long as a connection waits to be accepted.
    /// `EPOLLEXCLUSIVE`: when several threads wait for the same listener, epoll usually wakes only one of them.
    pub(super) fn add_listeners(&self, listeners: &[Listener]) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        for (number, listener) in (LISTENERS..).zip(listeners) {
            match self.0.add(&listener.socket, EpollEvent::new(flags, number)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Stops watching the listeners. Errors are ignored, because in a pause the listeners are not watched anyway.
    pub(super) fn remove_listeners(&self, listeners: &[Listener]) {
        for listener in listeners {
            let _ = self.0.delete(&listener.socket);
        }
    }
}

fn edges(flags: EpollFlags, place: Place) -> EpollEvent {
    let flags = flags | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    EpollEvent::new(flags, place.0.into())
}

/// The event loop of one worker.
pub(super) struct Reactor {
    sockets: Rc<Sockets>,
    waker: Arc<ThreadWaker>,
    /// Accepting pauses until this moment.
    pause: Option<Instant>,
    /// The worker leaves new connections to other workers.
    rests: bool,
    /// How many connections this iteration accepts at most.
    accepts: usize,
    connect_burst: ConnectBurst,
    poll_burst: PollBurst,
    /// The handler must run again, because a part of its work is left.
    unfinished: bool,
    /// tokio's runtime, used only for its timers. They fire at a tick.
    timers: Runtime,
}

/// Passes an event of a socket to its connection.
fn pass_on<C: Connection>(conn: &Rc<C>, ready: Ready) {
    // A panic ends only this connection, as in a task.
    if catch_unwind(AssertUnwindSafe(|| conn.ready(ready))).is_err() {
        conn.cut();
    }
}

impl Reactor {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let waker = ThreadWaker::new()?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, WAKER);
        epoll.add(&waker, event)?;
        Ok(Self {
            sockets: Rc::new(Sockets(Arc::new(epoll))),
            waker: Arc::new(waker),
            pause: None,
            rests: false,
            accepts: 1,
            connect_burst: ConnectBurst::new(),
            poll_burst: PollBurst::new(),
            unfinished: false,
            timers: Builder::new_current_thread().enable_time().build()?,
        })
    }

    pub(super) fn sockets(&self) -> Rc<Sockets> {
        self.sockets.clone()
    }

    /// Registers this worker for the handler and for the balance of new connections.
    pub(super) fn join(
        &self,
        worker: usize,
        handler: &MigratingHandler,
        balance: &Balance,
    ) -> io::Result<()> {
        balance.join(worker, &self.waker);
        handler.join(worker, &self.sockets.0, HANDLER)
    }

    /// Runs the event loop until `main`, one of its tasks, has ended. Calls `tick` at each tick.
    pub(super) fn run<C: Connection, T>(
        mut self,
        worker: &Rc<Worker<C>>,
        main: impl Future<Output = T>,
        mut tick: impl FnMut(),
    ) -> io::Result<T> {
        let waker = self.waker.clone().into();
        let mut context = Context::from_waker(&waker);
        let timers = self.timers.handle().clone();
        let _timers = timers.enter();
        let tasks = LocalSet::new();
        let mut run_tasks = pin!(tasks.run_until(main));
        let mut events = [EpollEvent::empty(); BATCH];
        loop {
            if self.waker.take_wake_up()
                && let Poll::Ready(end) = run_tasks.as_mut().poll(&mut context)
            {
                return Ok(end);
            }
            let count = self.wait(&mut events, worker)?;
            let mut after = DueWork {
                ready: self.resume(worker),
                handler: std::mem::take(&mut self.unfinished),
            };
            let mut done = 0;
            while done < count {
                // Inside this guard, handlers of events can start tasks.
                let guard = tasks.enter();
                done += pass_some_on(worker, &events[done..count], &mut after);
                drop(guard);
                if done < count
                    && self.waker.take_wake_up()
                    && let Poll::Ready(end) = run_tasks.as_mut().poll(&mut context)
                {
                    return Ok(end);
                }
            }
            let tasks = tasks.enter();
            self.accept(worker, after.ready);
            if after.handler {
                self.unfinished = worker.run_handler()?;
            }
            let is_due = Instant::now() >= worker.timers.next_tick();
            if is_due {
                tick();
                self.rest(worker);
            }
            drop(tasks);
            if is_due {
                self.timers.block_on(yield_now());
            }
        }
    }

    /// Waits until there is something to do. Returns the number of events, which may be 0.
    fn wait<C: Connection>(
        &mut self,
        events: &mut [EpollEvent],
        worker: &Worker<C>,
    ) -> io::Result<usize> {
        let mut poll = |time| match self.sockets.0.wait(events, time) {
            Err(Errno::EINTR) => Ok(0),
            done => Ok(done?),
        };
        let now = Instant::now();
        let delays_polls = self.poll_burst.is_on(&worker.parked, now);
        let time = match self.unfinished {
            true => EpollTimeout::ZERO,
            false => self.until_due(now, worker.timers.next_tick()),
        };
        self.waker.sleep(|may_wait| match may_wait {
            true if delays_polls => {
                thread::sleep(POLL_DELAY);
                poll(EpollTimeout::ZERO)
            }
            true => poll(time),
            false => poll(EpollTimeout::ZERO),
        })
    }

    fn until_due(&self, now: Instant, next_tick: Instant) -> EpollTimeout {
        let due = self.pause.map_or(next_tick, |end| end.min(next_tick));
        let time = due.saturating_duration_since(now);
        // Rounded up: after a wake-up before the moment, the loop would run again and again without waiting.
        let millis = time.as_nanos().div_ceil(1_000_000);
        EpollTimeout::try_from(millis as u64).unwrap_or(EpollTimeout::ZERO)
    }

    /// Starts accepting again when a pause has ended or when another worker has asked for it. Returns the listeners where
    /// connections may have been waiting: in both cases all of them, otherwise none.
    fn resume<C: Connection>(&mut self, worker: &Worker<C>) -> ReadyListeners {
        let is_over = self.pause.is_some_and(|end| Instant::now() >= end);
        if is_over {
            self.pause = None;
            self.accepts = BATCH;
        }
        let is_called = worker.is_called();
        self.rests &= !is_called;
        if !(is_over || is_called) {
            return ReadyListeners::default();
        }
        self.listen_again(worker);
        ReadyListeners::ALL
    }

    fn listen_again<C: Connection>(&mut self, worker: &Worker<C>) {
        if self.rests || self.pause.is_some() {
            return;
        }
        // If the listeners cannot be registered, try again after another pause.
        if worker.listen_again().is_err() {
            self.pause = Some(Instant::now() + PAUSE);
        }
    }

    pub(super) fn begin_to_accept<C: Connection>(&mut self, worker: &Worker<C>) -> io::Result<()> {
        self.rests = worker.is_ahead();
        match self.rests {
            true => Ok(()),
            false => worker.listen_again(),
        }
    }

    /// Decides again whether this worker leaves new connections to other workers.
    fn rest<C: Connection>(&mut self, worker: &Worker<C>) {
        let rested = std::mem::replace(&mut self.rests, worker.is_ahead());
        match (rested, self.rests) {
            (false, true) => worker.listen_no_more(),
            (true, false) => self.listen_again(worker),
            _ => {}
        }
    }

    /// Accepts connections from the listeners that are ready. The number of waiting connections is unknown, and an
    /// `accept` that finds no connection costs as much as a successful one. So the first iteration accepts one connection.
    /// While more connections wait, each iteration accepts twice as many as the one before, up to [`BATCH`].
    fn accept<C: Connection>(&mut self, worker: &Rc<Worker<C>>, ready: ReadyListeners) {
        if ready.is_empty() || self.pause.is_some() {
            self.accepts = 1;
            return;
        }
        let (taken, next) = worker.accept_some(ready, self.accepts);
        self.accepts = match next {
            AfterAccept::More => (2 * self.accepts).min(BATCH),
            AfterAccept::Wait | AfterAccept::Pause => 1,
        };
        let is_burst = self
            .connect_burst
            .is_on(worker.open(), taken, Instant::now());
        if next == AfterAccept::Pause || is_burst {
            worker.listen_no_more();
            let pause = if is_burst { ACCEPT_DELAY } else { PAUSE };
            self.pause = Some(Instant::now() + pause);
        }
        self.rest(worker);
    }
}

/// What an iteration has to do after the events of the connections.
struct DueWork {
    ready: ReadyListeners,
    handler: bool,
}

/// Passes events to their connections. Returns the number of passed events: all, or fewer if they took so long that
/// tasks should run before the rest.
fn pass_some_on<C: Connection>(
    worker: &Worker<C>,
    events: &[EpollEvent],
    after: &mut DueWork,
) -> usize {
    let start = Instant::now();
    for (number, event) in (1..).zip(events) {
        match event.data() {
            listener @ LISTENERS..=LAST_LISTENER => {
                after.ready.add((listener - LISTENERS) as usize);
            }
            WAKER => {} // the loop checks the waker itself; this event only ends `epoll_wait`
            HANDLER => after.handler = true,
            place => pass_event_on(worker, place, event.events()),
        }
        if number % EVENTS_PER_CLOCK_READ == 0 && start.elapsed() >= MAX_EVENT_TIME {
            return number;
        }
    }
    events.len()
}

fn pass_event_on<C: Connection>(worker: &Worker<C>, place: u64, flags: EpollFlags) {
    // The connection may have ended since epoll reported the event.
    let place = u32::try_from(place).ok().map(Place);
    if let Some(conn) = place.and_then(|place| worker.connection(place)) {
        let readable = flags.contains(EpollFlags::EPOLLIN);
        let ended = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
            || (readable && flags.contains(EpollFlags::EPOLLRDHUP));
        pass_on(&conn, Ready { readable, ended });
    }
}
