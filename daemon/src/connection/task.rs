//! The task of a connection: it exists while a step has to wait for a body, the store, or hyper.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use tokio::task::spawn_local;

use super::{Conn, Phase, Step};
use crate::worker::Due;

/// Number of reads and writes that a future may do before its work goes to a task. Few requests need more.
const FIRST_BUDGET: u8 = 16;

type StepFuture = Pin<Box<dyn Future<Output = Step>>>;

impl Conn {
    /// Runs a future that may have to wait. The future is polled once without a task, which is nearly always enough. If
    /// it is done then, its step is returned. Otherwise a task runs the rest of the future.
    pub(super) fn start(self: &Rc<Self>, mut future: StepFuture) -> Option<Step> {
        self.phase.set(Phase::Task);
        self.set_due(Due::NEVER);
        self.worker.parked.reset();
        self.worker.context.budget.set(Some(FIRST_BUDGET));
        let first = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        self.worker.context.budget.set(None);
        match first {
            Poll::Ready(step) => self.end_task(step),
            Poll::Pending => {
                let guard = Guard::new(self.clone());
                spawn_local(guard.run(async move |conn| {
                    let step = future.await;
                    if let Some(step) = conn.end_task(step)
                        && conn.follow(step)
                    {
                        conn.run();
                    }
                }));
                None
            }
        }
    }

    /// Continues after other tasks and connections have been served.
    pub(super) fn run_soon(self: &Rc<Self>) {
        let guard = Guard::new(self.clone());
        spawn_local(guard.run(async |conn| match conn.phase.get() {
            Phase::Protocol => conn.run(),
            Phase::Ending => conn.discard_input(),
            Phase::Task | Phase::Writing | Phase::Closed => {}
        }));
    }

    /// The step that follows a future, unless the connection was cut meanwhile.
    fn end_task(&self, step: Step) -> Option<Step> {
        // The waker would keep the task alive, and the task would keep the connection alive.
        self.with_extra(|extra| extra.waker.take());
        if self.phase.get() == Phase::Closed {
            self.leave();
            return None;
        }
        self.phase.set(Phase::Protocol);
        Some(step)
    }

    /// Whether the connection was cut, so that its task should end.
    pub(super) fn is_cut(&self) -> bool {
        self.phase.get() == Phase::Closed
    }

    /// Wakes the task, if it waits for the socket.
    pub(super) fn wake(&self) {
        self.with_extra(|extra| {
            if let Some(waker) = &extra.waker {
                waker.wake_by_ref();
            }
        });
    }

    /// Stores the task's waker, so that the next event of the socket wakes the task.
    pub(super) fn keep_waker(&self, cx: &Context<'_>) {
        self.set_extra(|extra| match &mut extra.waker {
            Some(waker) => waker.clone_from(cx.waker()), // no copy if both wake the same task
            waker => *waker = Some(cx.waker().clone()),
        });
    }
}

/// Ends the connection if its task panics or is dropped.
struct Guard {
    conn: Rc<Conn>,
    is_done: bool,
}

impl Guard {
    fn new(conn: Rc<Conn>) -> Self {
        let is_done = false;
        Self { conn, is_done }
    }

    async fn run(mut self, work: impl AsyncFnOnce(&Rc<Conn>)) {
        work(&self.conn).await;
        self.is_done = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.is_done {
            self.conn.leave();
        }
    }
}
