//! An event handler that one of the workers runs beside its connections, for example for the watched directory. A
//! separate thread would cost a second wake-up: first that thread would wake up, and then the worker whose subscribers
//! get the message.

use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use crate::hub::Workers;

/// Handles the events of a descriptor.
pub trait EventHandler: AsFd + Send + Sync {
    /// Called at each edge-triggered event of the descriptor.
    fn run(&self) -> Handled;
}

/// The result of one run of an [`EventHandler`].
pub struct Handled {
    /// Work is left, and epoll will not report it. The caller must run the handler again, after its connections.
    pub more: bool,
    /// The workers that this run has woken.
    pub woken: Workers,
}

/// An event handler that runs in one worker at a time. When it has published only to subscribers of other workers, it
/// migrates to one of these workers.
pub struct MigratingHandler {
    handler: Arc<dyn EventHandler>,
    threads: Mutex<Threads>,
}

struct Threads {
    /// The workers that can run the handler, by their number.
    registered: Vec<Option<HandlerThread>>,
    /// The worker that runs the handler now.
    current: Option<usize>,
}

struct HandlerThread {
    epoll: Arc<Epoll>,
    number: u64,
}

impl MigratingHandler {
    /// A handler for one of `workers` workers.
    pub fn new(handler: Arc<dyn EventHandler>, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            handler,
            threads: Mutex::new(Threads {
                registered: (0..workers).map(|_| None).collect(),
                current: None,
            }),
        })
    }

    /// Registers a worker. The first registered worker runs the handler at the beginning. In the worker's epoll instance
    /// the handler's events have the number `number`.
    pub(super) fn join(&self, worker: usize, epoll: &Arc<Epoll>, number: u64) -> io::Result<()> {
        let mut threads = self.lock();
        let thread = HandlerThread {
            epoll: epoll.clone(),
            number,
        };
        if threads.current.is_none() {
            thread.watch(&*self.handler)?;
            threads.current = Some(worker);
        }
        threads.registered[worker] = Some(thread);
        Ok(())
    }

    /// Runs the handler. Returns whether `worker` must call this again.
    pub(super) fn run(&self, worker: usize) -> io::Result<bool> {
        let handled = self.handler.run();
        if handled.woken.is_empty() || handled.woken.contains(worker) {
            return Ok(handled.more);
        }
        let has_migrated = self.migrate(worker, handled.woken)?;
        // After a migration the other worker gets an event for the work that is left.
        Ok(handled.more && !has_migrated)
    }

    /// Moves the handler to one of `others`, if one of them is registered.
    fn migrate(&self, worker: usize, others: Workers) -> io::Result<bool> {
        let mut threads = self.lock();
        let registered = |worker: usize| threads.registered.get(worker).and_then(Option::as_ref);
        let next = others
            .iter()
            .find_map(|other| Some((other, registered(other)?)));
        let (Some((other, next)), Some(last)) = (next, registered(worker)) else {
            return Ok(false);
        };
        if threads.current != Some(worker) {
            return Ok(false);
        }
        // The next worker is added before the last one is removed, so that at least one of them always watches.
        next.watch(&*self.handler)?;
        last.epoll.delete(&*self.handler)?;
        threads.current = Some(other);
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HandlerThread {
    fn watch(&self, handler: &dyn EventHandler) -> io::Result<()> {
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        Ok(self
            .epoll
            .add(handler, EpollEvent::new(edges, self.number))?)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::fd::BorrowedFd,
        sync::atomic::{AtomicU64, Ordering},
    };

    use nix::sys::{
        epoll::{EpollCreateFlags, EpollTimeout},
        eventfd::EventFd,
    };

    use super::*;

    const NUMBER: u64 = 7;

    /// A handler of the tests. The bits of `wakes` say which workers its messages wake.
    struct Todo {
        event: EventFd,
        wakes: AtomicU64,
    }

    impl AsFd for Todo {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.event.as_fd()
        }
    }

    impl EventHandler for Todo {
        fn run(&self) -> Handled {
            self.event.read().unwrap();
            Handled {
                more: true,
                woken: Workers::of(self.wakes.load(Ordering::Relaxed)),
            }
        }
    }

    struct Fixture {
        todo: Arc<Todo>,
        handler: Arc<MigratingHandler>,
        epolls: Vec<Arc<Epoll>>,
    }

    impl Fixture {
        fn new() -> Self {
            let todo = Arc::new(Todo {
                event: EventFd::new().unwrap(),
                wakes: AtomicU64::new(0),
            });
            let handler = MigratingHandler::new(todo.clone(), 3);
            let epoll = |_| Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
            let epolls: Vec<_> = (0..3).map(epoll).collect();
            for (worker, epoll) in epolls.iter().enumerate().take(2) {
                handler.join(worker, epoll, NUMBER).unwrap();
            }
            Self {
                todo,
                handler,
                epolls,
            }
        }

        /// Adds work whose messages wake these workers.
        fn add_work(&self, wakes: u64) {
            self.todo.wakes.store(wakes, Ordering::Relaxed);
            self.todo.event.write(1).unwrap();
        }

        /// The workers that get an event for the work.
        fn notified(&self) -> Vec<usize> {
            let is_notified = |epoll: &Epoll| {
                let mut events = [EpollEvent::empty()];
                let count = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
                assert!(count == 0 || events[0].data() == NUMBER);
                count > 0
            };
            let all = self.epolls.iter().enumerate();
            all.filter_map(|(worker, epoll)| is_notified(epoll).then_some(worker))
                .collect()
        }
    }

    #[test]
    fn the_first_worker_runs_the_handler_until_only_other_workers_get_messages() {
        let f = Fixture::new();
        f.add_work(0b00);
        assert_eq!(f.notified(), [0]);
        assert!(f.handler.run(0).unwrap(), "work is left");
        f.add_work(0b11);
        assert_eq!(f.notified(), [0]);
        assert!(f.handler.run(0).unwrap(), "this worker gets messages too");
        f.add_work(0b10);
        assert_eq!(f.notified(), [0]);
        assert!(!f.handler.run(0).unwrap(), "the other worker continues");
        f.add_work(0b01);
        assert_eq!(f.notified(), [1]);
        f.handler.run(1).unwrap();
        f.add_work(0b01);
        assert_eq!(f.notified(), [0]);
    }

    #[test]
    fn the_next_worker_gets_an_event_for_the_work_that_is_left() {
        let f = Fixture::new();
        f.add_work(0b10);
        assert_eq!(f.notified(), [0]);
        let handled = f.todo.run();
        f.add_work(0b10);
        assert!(f.handler.migrate(0, handled.woken).unwrap());
        assert_eq!(f.notified(), [1]);
    }

    #[test]
    fn the_handler_stays_if_no_other_worker_is_registered() {
        let f = Fixture::new();
        for wakes in [0b100, 1 << 63] {
            f.add_work(wakes);
            assert_eq!(f.notified(), [0]);
            assert!(f.handler.run(0).unwrap());
        }
    }
}
