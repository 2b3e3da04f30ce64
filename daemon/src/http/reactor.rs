//! The loop of one thread: waits in `epoll_wait` for the sockets of its connections, passes on what they are ready
//! for, and lets the thread's tasks go on when something woke them. The runtime's own loop would need, for each
//! connection, a registration of some hundred bytes and a task that waits, and around this one two to four system
//! calls at each turn.

use std::{
    cell::Cell,
    io,
    net::{TcpListener, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll as Turn},
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
    Worker,
    accept::{AfterAccept, MOST_LISTENERS, ReadyListeners},
    balance::Balance,
    bell::Bell,
    connection::Conn,
    errand::Errand,
};

/// No connection's place: those are 32 bits.
const BELL: u64 = u64::MAX;
const ERRAND: u64 = u64::MAX - 1;
/// That of the first listener.
const LISTENERS: u64 = 1 << 32;
const LAST_LISTENER: u64 = LISTENERS + MOST_LISTENERS as u64 - 1;

/// Events that are dealt with before the tasks get their turn.
const BATCH: usize = 64;

/// So many events that took so long are enough before the tasks get theirs: a stream that lags takes 90 us to catch up.
const GLANCE: usize = 4;
const LONG: Duration = Duration::from_micros(250);

/// How long accepting pauses when the machine has no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// The sockets of a thread's connections.
pub(super) struct Sockets(Arc<Epoll>);

impl Sockets {
    /// Tells of what comes, from now on.
    pub(super) fn add(&self, stream: &TcpStream, place: u32) -> io::Result<()> {
        Ok(self.0.add(stream, edges(EpollFlags::EPOLLIN, place))?)
    }

    /// Tells also when it can be written again. A new socket always can, and to be told so is an event for nothing:
    /// so only those are asked for it that were full once.
    pub(super) fn watch_writes(&self, stream: &TcpStream, place: u32) -> io::Result<()> {
        let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        Ok(self.0.modify(stream, &mut edges(both, place))?)
    }

    /// Tells as long as somebody waits to be accepted. Of the threads that listen and sleep one is told.
    pub(super) fn add_listeners(&self, listeners: &[TcpListener]) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        for (number, listener) in (LISTENERS..).zip(listeners) {
            match self.0.add(listener, EpollEvent::new(flags, number)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// They may not be listened to, in a pause.
    pub(super) fn remove_listeners(&self, listeners: &[TcpListener]) {
        for listener in listeners {
            let _ = self.0.delete(listener);
        }
    }
}

fn edges(flags: EpollFlags, place: u32) -> EpollEvent {
    let flags = flags | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    EpollEvent::new(flags, place.into())
}

/// For how long those who connect in a storm are let gather, and by how many connections more in that time it is
/// known. Clients that connect anew for each request do not stay, and would be held up.
const GATHER: Duration = Duration::from_millis(1);
const STORM: usize = 16;

/// So many polls that are parked, and nothing else in between, make a wave. It is over when nothing comes for so long, or
/// fewer polls gather than would be worth it.
const WAVE: u32 = 32;
const CALM: Duration = Duration::from_millis(1);
const FEW: u32 = 4;

/// For how long polls of a wave are let gather; a message in between waits as long. The system adds its slack, 50 us.
const NAP: Duration = Duration::from_micros(50);

/// See the module.
pub(super) struct Reactor {
    sockets: Rc<Sockets>,
    bell: Arc<Bell>,
    /// Until when nobody is accepted.
    pause: Option<Instant>,
    /// Others accept.
    rests: bool,
    /// How many are accepted in one go.
    accepts: usize,
    storm: Storm,
    wave: Wave,
    /// There is more to do of the errand.
    unfinished: bool,
    /// Only its timers are used, which go off at a tick.
    timers: Runtime,
}

/// Tells a connection what its socket is ready for.
fn pass_on(worker: &Worker, conn: &Rc<Conn>, readable: bool, ended: bool) {
    // As in a task of its own: a mistake of ours ends this connection and no other.
    let ready = || conn.ready(readable, ended);
    if catch_unwind(AssertUnwindSafe(ready)).is_err() {
        worker.credit.set(None);
        conn.close();
    }
}

impl Reactor {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let bell = Bell::new()?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, BELL);
        epoll.add(&bell, event)?;
        Ok(Self {
            sockets: Rc::new(Sockets(Arc::new(epoll))),
            bell: Arc::new(bell),
            pause: None,
            rests: false,
            accepts: 1,
            storm: Storm {
                since: Instant::now(),
                open: 0,
            },
            wave: Wave {
                on: false,
                since: Instant::now(),
                parked: 0,
            },
            unfinished: false,
            timers: Builder::new_current_thread().enable_time().build()?,
        })
    }

    pub(super) fn sockets(&self) -> Rc<Sockets> {
        self.sockets.clone()
    }

    /// Does this, too, when it is the thread's turn, and accepts when it is.
    pub(super) fn join(&self, worker: usize, errand: &Errand, balance: &Balance) -> io::Result<()> {
        balance.join(worker, &self.bell);
        errand.join(worker, &self.sockets.0, ERRAND)
    }

    /// Runs the thread until `main` is over, which is among the tasks. `tick` is called at each tick.
    pub(super) fn run<T>(
        mut self,
        worker: &Rc<Worker>,
        main: impl Future<Output = T>,
        mut tick: impl FnMut(),
    ) -> io::Result<T> {
        let waker = self.bell.clone().into();
        let mut context = Context::from_waker(&waker);
        let timers = self.timers.handle().clone();
        let _timers = timers.enter();
        let tasks = LocalSet::new();
        let mut turn = pin!(tasks.run_until(main));
        let mut events = [EpollEvent::empty(); BATCH];
        loop {
            if self.bell.has_rung()
                && let Turn::Ready(end) = turn.as_mut().poll(&mut context)
            {
                return Ok(end);
            }
            let count = self.wait(&mut events, worker)?;
            let mut due = Due {
                ready: self.resume(worker),
                errand: std::mem::take(&mut self.unfinished),
            };
            let mut done = 0;
            while done < count {
                // For tasks that begin here.
                let begun = tasks.enter();
                done += pass_some_on(worker, &events[done..count], &mut due);
                drop(begun);
                if done < count
                    && self.bell.has_rung()
                    && let Turn::Ready(end) = turn.as_mut().poll(&mut context)
                {
                    return Ok(end);
                }
            }
            let tasks = tasks.enter();
            self.accept(worker, due.ready);
            if due.errand {
                self.unfinished = worker.run_errand()?;
            }
            let is_due = Instant::now() >= worker.next_tick();
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

    /// Waits until there is something to do, which may be no event. Returns the number of events.
    fn wait(&mut self, events: &mut [EpollEvent], worker: &Worker) -> io::Result<usize> {
        let mut poll = |time| match self.sockets.0.wait(events, time) {
            Err(Errno::EINTR) => Ok(0),
            done => Ok(done?),
        };
        let now = Instant::now();
        let gathers = self.wave.is_on(&worker.parked, now);
        let time = match self.unfinished {
            true => EpollTimeout::ZERO,
            false => self.until_due(now, worker.next_tick()),
        };
        self.bell.sleep(|may_wait| match may_wait {
            true if gathers => {
                thread::sleep(NAP);
                poll(EpollTimeout::ZERO)
            }
            true => poll(time),
            false => poll(EpollTimeout::ZERO),
        })
    }

    fn until_due(&self, now: Instant, next_tick: Instant) -> EpollTimeout {
        let due = self.pause.map_or(next_tick, |end| end.min(next_tick));
        let time = due.saturating_duration_since(now);
        // Never too early, or it would turn in circles.
        let millis = time.as_nanos().div_ceil(1_000_000);
        EpollTimeout::try_from(millis as u64).unwrap_or(EpollTimeout::ZERO)
    }

    /// Where somebody may wait since before: when a pause is over, or others rest now.
    fn resume(&mut self, worker: &Worker) -> ReadyListeners {
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

    fn listen_again(&mut self, worker: &Worker) {
        if self.rests || self.pause.is_some() {
            return;
        }
        // It cannot be told of: tried again after another pause.
        if worker.listen_again().is_err() {
            self.pause = Some(Instant::now() + PAUSE);
        }
    }

    pub(super) fn begin_to_accept(&mut self, worker: &Worker) -> io::Result<()> {
        self.rests = worker.is_ahead();
        match self.rests {
            true => Ok(()),
            false => worker.listen_again(),
        }
    }

    /// Leaves those who connect to other threads, or no longer.
    fn rest(&mut self, worker: &Worker) {
        let rested = std::mem::replace(&mut self.rests, worker.is_ahead());
        match (rested, self.rests) {
            (false, true) => worker.listen_no_more(),
            (true, false) => self.listen_again(worker),
            _ => {}
        }
    }

    /// Accepts from the listeners that are ready. How many connections wait is not known, and an accept that finds none
    /// costs as much as one that does. So a turn accepts one connection, and each further turn twice as many as the last
    /// while more wait.
    fn accept(&mut self, worker: &Rc<Worker>, ready: ReadyListeners) {
        if ready.is_empty() || self.pause.is_some() {
            self.accepts = 1;
            return;
        }
        let (taken, next) = worker.accept_some(ready, self.accepts);
        self.accepts = match next {
            AfterAccept::More => (2 * self.accepts).min(BATCH),
            AfterAccept::Wait | AfterAccept::Pause => 1,
        };
        let is_storm = self.storm.has_come(worker.open(), taken, Instant::now());
        if next == AfterAccept::Pause || is_storm {
            worker.listen_no_more();
            let pause = if is_storm { GATHER } else { PAUSE };
            self.pause = Some(Instant::now() + pause);
        }
        self.rest(worker);
    }
}

/// Whether so many connect that it is better to let them gather than to be woken for each.
struct Storm {
    since: Instant,
    /// Connections then.
    open: usize,
}

impl Storm {
    /// `taken` of the connections that are open are new.
    fn has_come(&mut self, open: usize, taken: usize, now: Instant) -> bool {
        if now >= self.since + GATHER {
            let open = open.saturating_sub(taken);
            *self = Self { since: now, open };
        }
        open >= self.open + STORM
    }
}

/// Whether polls come back after a fan-out, one by one. Nobody waits for them: better to let some gather than to fall
/// asleep and be woken for each.
struct Wave {
    on: bool,
    /// When the thread last had nothing to do.
    since: Instant,
    /// The polls parked then.
    parked: u32,
}

impl Wave {
    /// `parked`: polls since there was something else to do.
    fn is_on(&mut self, parked: &Cell<u32>, now: Instant) -> bool {
        let new = parked.get().saturating_sub(self.parked);
        let is_calm = now.duration_since(self.since) >= CALM;
        let is_over = is_calm || (self.on && new < FEW);
        if is_over {
            parked.set(0);
        }
        *self = Self {
            on: parked.get() >= WAVE,
            since: now,
            parked: parked.get(),
        };
        self.on
    }
}

/// What is done after the connections' events.
struct Due {
    ready: ReadyListeners,
    errand: bool,
}

/// Passes events on, and says how many: all, or fewer when they take so long that tasks should get a turn in between.
fn pass_some_on(worker: &Worker, events: &[EpollEvent], due: &mut Due) -> usize {
    let start = Instant::now();
    for (number, event) in (1..).zip(events) {
        match event.data() {
            listener @ LISTENERS..=LAST_LISTENER => {
                due.ready.add((listener - LISTENERS) as usize);
            }
            BELL => {} // whoever rang it has left word
            ERRAND => due.errand = true,
            place => pass_event_on(worker, place, event.events()),
        }
        if number % GLANCE == 0 && start.elapsed() >= LONG {
            return number;
        }
    }
    events.len()
}

fn pass_event_on(worker: &Worker, place: u64, flags: EpollFlags) {
    // It may have left since.
    let conn = u32::try_from(place).ok();
    if let Some(conn) = conn.and_then(|place| worker.conn(place)) {
        let read = flags.contains(EpollFlags::EPOLLIN);
        let ended = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
            || (read && flags.contains(EpollFlags::EPOLLRDHUP));
        pass_on(worker, &conn, read, ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_micros(20);

    #[test]
    fn connections_that_stay_make_a_storm_and_those_that_leave_do_not() {
        let start = Instant::now();
        let mut storm = Storm {
            since: start,
            open: 100,
        };
        for open in 101..100 + STORM {
            assert!(!storm.has_come(open, 1, start + MOMENT));
        }
        assert!(storm.has_come(100 + STORM, 1, start + MOMENT));
        for n in 0..1000 {
            assert!(!storm.has_come(101, 1, start + GATHER + n * MOMENT));
        }
        let later = start + GATHER + 1000 * MOMENT;
        assert!(!storm.has_come(150, 1, later + GATHER), "of 50 one is new");
        assert!(storm.has_come(200, STORM, later + 2 * GATHER));
    }

    #[test]
    fn polls_make_a_wave_that_ends_when_few_come_or_nothing_does() {
        let start = Instant::now();
        let mut wave = Wave {
            on: false,
            since: start,
            parked: 0,
        };
        let parked = Cell::new(0);
        let mut turn = |new, now| {
            parked.set(parked.get() + new);
            wave.is_on(&parked, now)
        };
        for n in 1..WAVE {
            assert!(!turn(1, start + n * MOMENT), "{n} polls");
        }
        let now = start + WAVE * MOMENT;
        assert!(turn(1, now));
        assert!(turn(FEW, now + MOMENT));
        assert!(!turn(FEW - 1, now + 2 * MOMENT), "too few have gathered");
        assert!(!turn(WAVE - 1, now + 3 * MOMENT), "it begins anew");
        assert!(turn(1, now + 4 * MOMENT));
        assert!(!turn(WAVE, now + 4 * MOMENT + CALM), "after a pause");
    }

    #[test]
    fn something_else_in_between_ends_a_wave() {
        let start = Instant::now();
        let mut wave = Wave {
            on: true,
            since: start,
            parked: 100,
        };
        let parked = Cell::new(0); // set back by whoever served it
        assert!(!wave.is_on(&parked, start + MOMENT));
    }
}
