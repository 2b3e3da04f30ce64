//! A subscription that a connection holds. Messages are written to the socket by the worker's delivery loop,
//! without waking the connection's task: the client's next request does. Only what does not fit into the socket
//! is left to the task.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use comet_proto::Cursor;
use tokio::io::ReadBuf;

use super::{
    answer::{Variant, Writer},
    connection::{Conn, State},
};
use crate::{
    hub::{
        Backlog,
        subscriber::{Batch, Feed, Key, Next, Subscriber},
    },
    transport::{Format, Shape, Subscription},
};

/// A subscription that hyper's service found in a request.
pub(super) struct Ask {
    pub(super) subscription: Subscription,
    pub(super) variant: Variant,
}

/// What a connection waits for.
pub(super) struct Held {
    subscription: Subscription,
    variant: Variant,
    /// What the client has been sent.
    cursor: Cursor,
    /// It has joined the audience.
    key: Option<Key>,
}

impl Held {
    fn is_upgraded(&self) -> bool {
        self.subscription.format.upgrade().is_some()
    }
}

/// What only the task can deal with.
enum Event {
    /// The poll was answered, and the next request is coming.
    Answered,
    /// `rest` has to be written.
    Rest,
    Closed,
}

impl Conn {
    /// Begins a subscription; `hold` does the rest.
    pub(super) fn begin_held(&self, ask: Ask) {
        let audience = &self.worker.audience;
        let Ask {
            mut subscription,
            variant,
        } = ask;
        audience.share_names(&mut subscription.channels);
        // "From now on" is this moment, not when it joins: a client may act on a stream's opening before that.
        let now = || audience.hub().last();
        let cursor = subscription.since.unwrap_or_else(now);
        self.worker.site.metrics.subscribers.add(1);
        *self.held.borrow_mut() = Some(Held {
            subscription,
            variant,
            cursor,
            key: None,
        });
    }

    /// Holds the subscription until it is answered or one side closes. `None`: the connection is over.
    ///
    /// This future is what a waiting client costs: what seldom happens is boxed.
    pub(super) async fn hold(self: &Rc<Self>) -> Option<()> {
        let (is_poll, close) =
            self.with_held(|held| (is_poll(&*held.subscription.format), held.variant.close))?;
        if self.input_waits.get() && self.with_held(|held| held.is_upgraded())? {
            return None; // its frames may not come before our 101
        }
        if !is_poll {
            let opening = self.with_held(|held| self.writer(held).opening(held.cursor))?;
            Box::pin(self.send(opening)).await?;
        }
        loop {
            if self.worker.stopping.get() {
                let farewell = self.with_held(|held| self.farewell(held))?;
                Box::pin(self.send(farewell)).await?;
                return None;
            }
            if let Some(answer) = self.join_or_answer()? {
                Box::pin(self.send(answer)).await?;
                if is_poll {
                    break;
                }
            } else {
                match poll_fn(|cx| self.poll_held(cx)).await {
                    Event::Closed => return None,
                    Event::Answered => break,
                    Event::Rest => Box::pin(self.send(self.rest.take())).await?,
                }
                if is_poll {
                    break;
                }
            }
        }
        (!close).then_some(())
    }

    /// Joins, or when there is news already, renders it. A poll that does not wait is answered.
    fn join_or_answer(self: &Rc<Self>) -> Option<Option<Bytes>> {
        match self.join() {
            Ok(()) => {
                let shape = self.with_held(|held| held.subscription.format.shape())?;
                if matches!(shape, Shape::Poll { wait: Some(wait) } if wait.is_zero()) {
                    self.say_nothing_new();
                }
                Some(None)
            }
            Err(backlog) => self.with_held(|held| Some(self.advance(held, &backlog))),
        }
    }

    /// Ends the subscription, if there is one.
    pub(super) fn end_held(&self) {
        if let Some(held) = self.held.take() {
            self.worker.site.metrics.subscribers.sub(1);
            if let Some(key) = held.key {
                self.worker.audience.leave(key);
            }
        }
    }

    /// Joins the audience of the channels; from here on the worker writes.
    fn join(self: &Rc<Self>) -> Result<(), Backlog> {
        let mut held = self.held.borrow_mut();
        let Some(held) = held.as_mut() else {
            return Ok(()); // `hold` has it until it ends
        };
        let audience = &self.worker.audience;
        if held.subscription.channels.is_empty() {
            held.cursor = audience.hub().last();
        } else {
            let channels = &held.subscription.channels;
            let (key, cursor) = audience.join(channels, Some(held.cursor), self.clone())?;
            (held.key, held.cursor) = (Some(key), cursor);
        }
        match held.subscription.format.shape() {
            Shape::Poll { wait } => {
                self.set(State::Polling, wait.unwrap_or(std::time::Duration::MAX))
            }
            Shape::Stream { heartbeat } => self.set(State::Streaming, heartbeat),
        }
        Ok(())
    }

    fn poll_held(&self, cx: &mut Context<'_>) -> Poll<Event> {
        match self.state.get() {
            State::Ending | State::Closing => return Poll::Ready(Event::Closed),
            State::Writing => return Poll::Ready(Event::Rest),
            _ => self.keep_waker(cx),
        }
        let answered = self.state.get() == State::Idle;
        if !self.input_waits.get() {
            // No system call unless something came: the next request, or the end.
            if ready!(self.stream.borrow().poll_read_ready(cx)).is_err() {
                return Poll::Ready(Event::Closed);
            }
            if answered {
                return Poll::Ready(Event::Answered);
            }
            if self.with_held(|held| held.is_upgraded()) == Some(true) {
                return self.poll_frames(cx);
            }
            let mut byte = [0; 1];
            match ready!(
                self.stream
                    .borrow()
                    .poll_peek(cx, &mut ReadBuf::new(&mut byte))
            ) {
                Ok(1..) => self.input_waits.set(true), // pipelined; its turn comes
                Ok(0) | Err(_) => return Poll::Ready(Event::Closed),
            }
        }
        if answered {
            Poll::Ready(Event::Answered)
        } else {
            Poll::Pending
        }
    }

    /// Reads what an upgraded client says, and answers where its protocol wants an answer.
    fn poll_frames(&self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            let mut chunk = [0; 1024];
            let mut chunk = ReadBuf::new(&mut chunk);
            let read = ready!(self.poll_read(cx, &mut chunk));
            if read.is_err() || chunk.filled().is_empty() {
                return Poll::Ready(Event::Closed);
            }
            let mut answer = Vec::new();
            let goes_on =
                self.with_held(|held| held.subscription.format.input(chunk.filled(), &mut answer));
            let written = answer.is_empty() || self.write_now(answer.into());
            if goes_on != Some(true) {
                return Poll::Ready(Event::Closed);
            }
            if !written {
                self.leave_audience();
                return Poll::Ready(Event::Rest);
            }
        }
    }

    /// The worker's tick: what is over at `now`?
    pub(super) fn expire(&self, now: u32) {
        if now < self.due.get() {
            return;
        }
        match self.state.get() {
            State::Closing => {}
            State::Idle | State::Busy | State::Writing | State::Ending => self.close(),
            State::Polling | State::Streaming => self.say_nothing_new(),
        }
    }

    /// The wait of a poll is over, or a stream needs a sign of life. Reads first: a message that was published
    /// and not yet delivered must not be passed over by the cursor.
    fn say_nothing_new(&self) {
        let hub = self.worker.audience.hub();
        let answer = self.with_held(|held| {
            let backlog = hub.since(&held.subscription.channels, held.cursor);
            if is_news(&backlog) {
                return self.advance(held, &backlog);
            }
            held.cursor = backlog.cursor;
            self.writer(held).nothing(held.cursor)
        });
        match (answer, self.state.get()) {
            (Some(answer), State::Polling) => self.answer_poll(&answer),
            (Some(piece), _) => {
                if self.write_now(piece) {
                    self.renew_heartbeat();
                } else {
                    self.leave_audience();
                }
            }
            (None, _) => {}
        }
    }

    /// The daemon stops: the last answer for who waits, and the end.
    pub(super) fn say_farewell(&self) {
        match self.state.get() {
            State::Idle => self.end(),
            State::Polling | State::Streaming => {
                let farewell = self.with_held(|held| self.farewell(held));
                self.leave_audience();
                if farewell.is_some_and(|farewell| self.write_now(farewell)) {
                    self.end();
                }
            }
            // The task is at it, and looks afterwards.
            State::Busy | State::Writing | State::Ending | State::Closing => {}
        }
    }

    /// What there is still, and the end.
    fn farewell(&self, held: &mut Held) -> Bytes {
        held.variant.close = true;
        let channels = &held.subscription.channels;
        let backlog = self.worker.audience.hub().since(channels, held.cursor);
        if !is_news(&backlog) {
            return self.writer(held).farewell(held.cursor);
        }
        let news = self.advance(held, &backlog);
        if is_poll(&*held.subscription.format) {
            return news;
        }
        let end = self.writer(held).farewell(held.cursor);
        [news, end].concat().into()
    }

    /// Answers a poll, which is over then.
    fn answer_poll(&self, answer: &Bytes) {
        let close = self.with_held(|held| held.variant.close).unwrap_or(true);
        self.end_held();
        if self.write_now(answer.clone()) {
            self.set(State::Idle, self.worker.site.config.idle);
            if close {
                self.end();
            } else if self.input_waits.get() {
                self.wake(); // no edge will
            }
        }
    }

    /// Writes as far as the socket takes it. False: not all; the task has the rest, or the connection is over.
    fn write_now(&self, mut bytes: Bytes) -> bool {
        loop {
            match self.stream.borrow().try_write(&bytes) {
                Ok(n) if n == bytes.len() => return true,
                Ok(n) => bytes.advance(n),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.close();
                    return false;
                }
            }
        }
        *self.rest.borrow_mut() = bytes;
        self.set(State::Writing, self.worker.site.config.write_time);
        self.wake();
        false
    }

    /// The bytes for a backlog that is not shared; moves the cursor.
    fn advance(&self, held: &mut Held, backlog: &Backlog) -> Bytes {
        held.cursor = backlog.cursor;
        self.worker
            .site
            .metrics
            .delivered
            .add(backlog.messages.len() as u64);
        self.writer(held).backlog(backlog)
    }

    fn writer<'a>(&'a self, held: &'a Held) -> Writer<'a> {
        Writer {
            format: &*held.subscription.format,
            variant: held.variant,
            origins: &self.worker.site.config.origins,
            date: &self.worker.date,
        }
    }

    /// `None`: nothing is held, which ends what the caller is at.
    fn with_held<T>(&self, f: impl FnOnce(&mut Held) -> T) -> Option<T> {
        self.held.borrow_mut().as_mut().map(f)
    }

    fn leave_audience(&self) {
        if let Some(key) = self.with_held(|held| held.key.take()).flatten() {
            self.worker.audience.leave(key);
        }
    }

    fn renew_heartbeat(&self) {
        let shape = self.with_held(|held| held.subscription.format.shape());
        if let Some(Shape::Stream { heartbeat }) = shape {
            self.set(State::Streaming, heartbeat);
        }
    }

    /// Reads what is new and renders it; what many read alike is rendered once. True: there is more.
    fn next_piece(&self, held: &mut Held, feed: &mut Feed<'_>) -> Option<(Bytes, bool)> {
        let batch: Rc<Batch> = feed.read(&held.subscription.channels, held.cursor);
        let backlog = batch.backlog();
        if !is_news(backlog) {
            return None;
        }
        held.cursor = backlog.cursor;
        self.worker
            .site
            .metrics
            .delivered
            .add(backlog.messages.len() as u64);
        let writer = self.writer(held);
        let piece = match writer.variant.form(writer.format) {
            Some(form) => batch.form(form, |backlog| writer.backlog(backlog)),
            None => writer.backlog(backlog),
        };
        Some((piece, backlog.more))
    }
}

impl Subscriber for Conn {
    fn deliver(&self, feed: &mut Feed<'_>) -> Next {
        loop {
            let state = self.state.get();
            if !matches!(state, State::Polling | State::Streaming) {
                return Next::Leave;
            }
            let Some((piece, more)) = self.with_held(|held| self.next_piece(held, feed)).flatten()
            else {
                return Next::Stay;
            };
            if state == State::Polling {
                self.answer_poll(&piece);
                return Next::Leave;
            }
            if !self.write_now(piece) {
                self.leave_audience();
                return Next::Leave;
            }
            self.renew_heartbeat();
            if !more {
                return Next::Stay;
            }
        }
    }
}

fn is_poll(format: &dyn Format) -> bool {
    matches!(format.shape(), Shape::Poll { .. })
}

fn is_news(backlog: &Backlog) -> bool {
    backlog.gap || !backlog.messages.is_empty()
}
