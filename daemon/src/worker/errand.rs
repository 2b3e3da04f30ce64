//! Work that one of the workers waits for and does beside its connections, such as reading the watched directory. A
//! separate thread would have to wake up first and then wake the worker whose subscribers get the message: two wake-ups
//! instead of one.

use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use crate::hub::Workers;

/// Work that begins when its descriptor is readable.
pub trait Work: AsFd + Send + Sync {
    /// Called at each edge-triggered event of the descriptor.
    fn run(&self) -> WorkDone;
}

/// The result of one run.
pub struct WorkDone {
    /// Call again after others have had their turn: epoll will report no new event for what is left.
    pub more: bool,
    /// The workers that this run has woken.
    pub woken: Workers,
}

/// Work that moves to the worker whose subscribers got its last message.
pub struct Errand {
    work: Arc<dyn Work>,
    threads: Mutex<Threads>,
}

struct Threads {
    /// The workers that can do the work, by their number.
    able: Vec<Option<ErrandThread>>,
    /// The worker that does it now.
    at: Option<usize>,
}

struct ErrandThread {
    epoll: Arc<Epoll>,
    number: u64,
}

impl Errand {
    /// Work for one of `workers` workers.
    pub fn new(work: Arc<dyn Work>, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            work,
            threads: Mutex::new(Threads {
                able: (0..workers).map(|_| None).collect(),
                at: None,
            }),
        })
    }

    /// Adds a worker that can do the work. The first one does it. Its loop gets events with the number `number`.
    pub(super) fn join(&self, worker: usize, epoll: &Arc<Epoll>, number: u64) -> io::Result<()> {
        let mut threads = self.lock();
        let thread = ErrandThread {
            epoll: epoll.clone(),
            number,
        };
        if threads.at.is_none() {
            thread.wait_for(&*self.work)?;
            threads.at = Some(worker);
        }
        threads.able[worker] = Some(thread);
        Ok(())
    }

    /// Does the work. True: `worker` has to call this again.
    pub(super) fn run(&self, worker: usize) -> io::Result<bool> {
        let ran = self.work.run();
        if ran.woken.is_empty() || ran.woken.contains(worker) {
            return Ok(ran.more);
        }
        let is_given = self.give_away(worker, ran.woken)?;
        // The other worker gets an event for what is left.
        Ok(ran.more && !is_given)
    }

    /// Moves the work to one of `others`, if one of them can do it.
    fn give_away(&self, worker: usize, others: Workers) -> io::Result<bool> {
        let mut threads = self.lock();
        let able = |worker: usize| threads.able.get(worker).and_then(Option::as_ref);
        let next = others.iter().find_map(|other| Some((other, able(other)?)));
        let (Some((other, next)), Some(last)) = (next, able(worker)) else {
            return Ok(false);
        };
        if threads.at != Some(worker) {
            return Ok(false);
        }
        // In this order there is always a worker that does the work.
        next.wait_for(&*self.work)?;
        last.epoll.delete(&*self.work)?;
        threads.at = Some(other);
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ErrandThread {
    fn wait_for(&self, work: &dyn Work) -> io::Result<()> {
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        Ok(self.epoll.add(work, EpollEvent::new(edges, self.number))?)
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

    /// Test work. A set of bits says for which workers' subscribers its messages are.
    struct Todo {
        event: EventFd,
        wakes: AtomicU64,
    }

    impl AsFd for Todo {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.event.as_fd()
        }
    }

    impl Work for Todo {
        fn run(&self) -> WorkDone {
            self.event.read().unwrap();
            WorkDone {
                more: true,
                woken: Workers::of(self.wakes.load(Ordering::Relaxed)),
            }
        }
    }

    struct Fixture {
        todo: Arc<Todo>,
        errand: Arc<Errand>,
        epolls: Vec<Arc<Epoll>>,
    }

    impl Fixture {
        fn new() -> Self {
            let todo = Arc::new(Todo {
                event: EventFd::new().unwrap(),
                wakes: AtomicU64::new(0),
            });
            let errand = Errand::new(todo.clone(), 3);
            let epoll = |_| Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
            let epolls: Vec<_> = (0..3).map(epoll).collect();
            for (worker, epoll) in epolls.iter().enumerate().take(2) {
                errand.join(worker, epoll, NUMBER).unwrap();
            }
            Self {
                todo,
                errand,
                epolls,
            }
        }

        /// Adds work with messages for the subscribers of these workers.
        fn arises(&self, wakes: u64) {
            self.todo.wakes.store(wakes, Ordering::Relaxed);
            self.todo.event.write(1).unwrap();
        }

        fn told(&self) -> Vec<usize> {
            let is_told = |epoll: &Epoll| {
                let mut events = [EpollEvent::empty()];
                let count = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
                assert!(count == 0 || events[0].data() == NUMBER);
                count > 0
            };
            let all = self.epolls.iter().enumerate();
            all.filter_map(|(worker, epoll)| is_told(epoll).then_some(worker))
                .collect()
        }
    }

    #[test]
    fn the_first_one_does_it_until_it_is_for_another_one() {
        let f = Fixture::new();
        f.arises(0b00);
        assert_eq!(f.told(), [0]);
        assert!(f.errand.run(0).unwrap(), "there is more");
        f.arises(0b11);
        assert_eq!(f.told(), [0]);
        assert!(f.errand.run(0).unwrap(), "it is for this one too");
        f.arises(0b10);
        assert_eq!(f.told(), [0]);
        assert!(!f.errand.run(0).unwrap(), "the other one goes on");
        f.arises(0b01);
        assert_eq!(f.told(), [1]);
        f.errand.run(1).unwrap();
        f.arises(0b01);
        assert_eq!(f.told(), [0]);
    }

    #[test]
    fn what_is_left_is_told_to_the_next_one() {
        let f = Fixture::new();
        f.arises(0b10);
        assert_eq!(f.told(), [0]);
        let ran = f.todo.run();
        f.arises(0b10);
        assert!(f.errand.give_away(0, ran.woken).unwrap());
        assert_eq!(f.told(), [1]);
    }

    #[test]
    fn it_stays_where_nobody_else_can_do_it() {
        let f = Fixture::new();
        for wakes in [0b100, 1 << 63] {
            f.arises(wakes);
            assert_eq!(f.told(), [0]);
            assert!(f.errand.run(0).unwrap());
        }
    }
}
