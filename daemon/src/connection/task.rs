//! The task of a connection: it exists while a step has to wait for a body, the store, or hyper.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use tokio::task::spawn_local;

use super::{Conn, Step, Turn};
use crate::worker::Due;

/// Number of reads and writes that a future may do before its work goes to a task. Few requests need more.
const FIRST_BUDGET: u8 = 16;

type Future = Pin<Box<dyn std::future::Future<Output = Step>>>;

impl Conn {
    /// Begins a step that may have to wait. Runs it without waiting as far as possible, which is nearly always to its
    /// end; then returns the next step. A task does the rest.
    pub(super) fn start(self: &Rc<Self>, mut future: Future) -> Option<Step> {
        self.turn.set(Turn::Task);
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
                let task = Task {
                    conn: self.clone(),
                    is_done: false,
                };
                spawn_local(task.run(future));
                None
            }
        }
    }

    /// The step that follows a future, unless the connection was cut meanwhile.
    fn end_task(&self, step: Step) -> Option<Step> {
        // The waker would keep the task alive, and the task would keep the connection alive.
        self.with_extra(|extra| extra.waker.take());
        if self.turn.get() == Turn::Closed {
            self.leave();
            return None;
        }
        self.turn.set(Turn::Protocol);
        Some(step)
    }

    /// Whether the connection was cut, so that its task should end.
    pub(super) fn is_cut(&self) -> bool {
        self.turn.get() == Turn::Closed
    }

    /// Wakes the task, if it waits for the socket.
    pub(super) fn wake(&self) {
        self.with_extra(|extra| {
            if let Some(waker) = &extra.waker {
                waker.wake_by_ref();
            }
        });
    }

    /// Has the task woken by the next event of the socket.
    pub(super) fn keep_waker(&self, cx: &Context<'_>) {
        self.set_extra(|extra| match &mut extra.waker {
            Some(waker) => waker.clone_from(cx.waker()), // no copy if both wake the same task
            waker => *waker = Some(cx.waker().clone()),
        });
    }
}

/// A running task. Its drop also ends the connection when the task panics or is dropped.
struct Task {
    conn: Rc<Conn>,
    is_done: bool,
}

impl Task {
    async fn run(mut self, mut future: Future) {
        let step = poll_fn(|cx| future.as_mut().poll(cx)).await;
        drop(future);
        self.is_done = true;
        if let Some(step) = self.conn.end_task(step)
            && self.conn.follow(step)
        {
            self.conn.run();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.is_done {
            self.conn.leave();
        }
    }
}
