//! The subscription that a waiting connection holds. The worker's delivery loop writes messages directly to the socket
//! and wakes no task. Only bytes that do not fit into the socket are left to a task.

use std::{io::ErrorKind, rc::Rc, time::Duration};

use bytes::Bytes;

use super::{
    carrier::Carrier,
    connection::{Conn, LINGER, State},
    date::unix_time,
    due_at, memory,
    site::Current,
    writer::{Variant, Writer},
};
use crate::{
    access::Rights,
    hub::{
        Backlog, READ_BYTES, Reader, RightEnds,
        subscriber::{AfterDelivery, Feed, Subscriber},
    },
    transport::{Channels, End, Kind, Shape, Subscription},
};

/// Number of chunks that are read from one WebSocket client in one turn. Then other connections get their turn.
const FRAME_CHUNKS: usize = 16;

/// Size in bytes of one piece of backlog for a stream that has fallen behind. Each such piece is rendered for one
/// client only, and many clients may read nothing at the same time.
const PIECE: usize = 16 * 1024;

/// A subscription that a request has asked for, before the connection holds the subscription.
pub(super) struct Ask {
    pub(super) subscription: Subscription,
    pub(super) variant: Variant,
    /// The site whose access rights accepted the subscription.
    pub(super) site: Current,
}

/// The subscription of one waiting connection.
pub(super) struct Held {
    reader: Reader<Channels>,
    carrier: Carrier,
    variant: Variant,
    /// Longest wait of a poll in seconds. `None`: the subscription waits without a limit.
    wait: Option<u16>,
    /// The opening of the stream is written. A poll has no opening, so that this is true from the start.
    open: bool,
}

impl Held {
    fn kind(&self) -> Kind {
        self.carrier.format().kind()
    }
}

impl Conn {
    /// Stores the subscription in the connection. `subscribe` or `poll_now` then opens it.
    pub(super) fn begin_held(&self, ask: Ask) {
        let audience = &self.worker.context.audience;
        let Ask {
            mut subscription,
            variant,
            site,
        } = ask;
        audience.share_names(&mut subscription.channels);
        let Subscription {
            channels,
            since,
            wait,
            format,
            handshake,
            expires,
            gap,
        } = subscription;
        self.worker.context.metrics.subscribers.add(1);
        memory::add_channels(&channels);
        // A subscription "from now on" begins at this moment, not when it joins the audience: the client may act on the
        // stream's opening before that.
        let reader = Reader::new(audience.hub(), channels, since)
            .until(expires)
            .starting_with_gap(gap)
            .postponing_gaps(format.kind().postpones_gap);
        *self.held.borrow_mut() = Some(Held {
            open: format.kind().is_poll(),
            reader,
            carrier: Carrier::new(format, handshake),
            wait: wait.map(|wait| u16::try_from(wait.as_secs()).unwrap_or(u16::MAX)),
            variant,
        });
        // The settings may have changed while an earlier request of this connection was answered.
        if !Rc::ptr_eq(&site, &self.worker.context.site()) {
            self.revoke(&site.rights);
        }
    }

    /// Opens the subscription, sends the backlog, and joins the audience. Returns when the client or the worker acts
    /// next.
    pub(super) async fn subscribe(self: &Rc<Self>) {
        if self.reads_frames() && self.has_leftovers() {
            return self.set(State::Ending, LINGER); // the client may not send frames before our 101
        }
        let opening = self.with_held(|held| {
            let is_new = !std::mem::replace(&mut held.open, true);
            is_new.then(|| {
                let handshake = held.carrier.take_handshake();
                self.writer(held)
                    .opening(held.reader.cursor(), handshake.as_deref())
            })
        });
        if let Some(opening) = opening.flatten() {
            return self.send(opening).await;
        }
        if self.has_ended() {
            return self.send_end().await;
        }
        if self.worker.is_stopping() {
            let farewell = self.with_held(|held| self.farewell(held));
            return self.send_last(farewell).await;
        }
        let Some(is_last) = self.with_held(|held| held.kind().is_poll()) else {
            return;
        };
        let bytes = if is_last { READ_BYTES } else { PIECE };
        let Err(backlog) = self.join(bytes) else {
            return;
        };
        let answer = self.with_held(|held| self.render(held, &backlog));
        if is_last {
            self.end_poll();
        }
        self.send(answer.unwrap_or_default()).await;
    }

    /// Lets a poll wait, or answers the poll from the backlog. Does not block.
    pub(super) fn poll_now(self: &Rc<Self>) {
        if let Err(backlog) = self.join(READ_BYTES) {
            let answer = self.with_held(|held| self.render(held, &backlog));
            self.answer_poll(answer.unwrap_or_default());
        }
    }

    async fn send_last(&self, answer: Option<Bytes>) {
        self.last.set(true);
        self.send(answer.unwrap_or_default()).await;
    }

    /// Ends the subscription, if there is one.
    pub(super) fn end_held(&self) {
        let held = self.held.take();
        if let Some(mut held) = held {
            self.worker.context.metrics.subscribers.sub(1);
            memory::sub_channels(held.reader.channels());
            held.reader.leave(&self.worker.context.audience);
        }
    }

    /// Ends the subscription of a poll whose answer is about to be written.
    fn end_poll(&self) {
        let close = self.with_held(|held| held.variant.close);
        self.last.set(close == Some(true));
        self.end_held();
    }

    /// Joins the audience of the channels. From then on the worker's delivery loop writes. Returns a backlog of at most
    /// `bytes` as the error if the client must get messages or a gap first.
    fn join(self: &Rc<Self>, bytes: usize) -> Result<(), Backlog> {
        let shape = {
            let mut held = self.held.borrow_mut();
            let Some(held) = held.as_mut() else {
                return Ok(()); // the subscription has ended
            };
            let audience = &self.worker.context.audience;
            if let Some(backlog) = held.reader.join(audience, self, bytes) {
                return Err(backlog);
            }
            held.kind().shape
        };
        match shape {
            Shape::Poll => {
                let wait = self.with_held(|held| held.wait).flatten();
                let time = wait.map_or(Duration::MAX, |wait| Duration::from_secs(wait.into()));
                self.wait_in(State::Polling, time);
                if wait == Some(0) {
                    self.say_nothing_new();
                }
            }
            Shape::Stream { heartbeat } => self.wait_in(State::Streaming, heartbeat),
        }
        Ok(())
    }

    /// Waits for `time`, or until the right to wait ends.
    fn wait_in(&self, state: State, time: Duration) {
        self.set(state, time);
        self.renew_end();
    }

    /// Plans a check of the connection for the moment when its token expires, by the current system clock.
    pub(super) fn renew_end(&self) {
        let second = match self.with_held(|held| held.reader.ends()) {
            None | Some(RightEnds::Never) => return,
            Some(RightEnds::At(second)) => second,
            Some(RightEnds::Revoked) => 0,
        };
        if !matches!(self.state.get(), State::Polling | State::Streaming) {
            return;
        }
        let end = due_at(&self.worker.timers, second);
        if end < self.due() {
            self.set_due(end);
        }
    }

    /// Whether the token has expired or the right was revoked.
    fn has_ended(&self) -> bool {
        self.with_held(|held| held.reader.has_ended(unix_time().as_secs())) == Some(true)
    }

    /// Ends the subscription if the new rights no longer permit it. `before` are the rights that held until now.
    pub(super) fn revoke(&self, before: &Rights) {
        let site = self.worker.context.site();
        let ends = self.with_held(|held| {
            let by_token = held.reader.ends() != RightEnds::Never;
            let ends = site.rights.end(before, held.reader.channels(), by_token);
            if ends {
                held.reader.revoke();
            }
            ends
        });
        if ends == Some(true) && matches!(self.state.get(), State::Polling | State::Streaming) {
            self.say_end();
        }
    }

    /// Reads what the client has sent while it should be waiting.
    pub(super) fn look(&self) {
        if self.reads_frames() {
            return self.take_frames();
        }
        match self.peek(&mut [0]) {
            Ok(read) => self.unread.set(read > 0), // a pipelined request: it is served later
            Err(e) if e.kind() == ErrorKind::WouldBlock => return self.unread.set(false),
            Err(_) => return self.close(),
        }
        if self.ended.get() || !self.unread.get() {
            self.answer_half_closed();
        }
    }

    /// Answers a client that has closed its sending side. The client may be gone or may still read (RFC 9112, section
    /// 6.3). So it is answered at once, and requests that it has sent after the poll are served.
    fn answer_half_closed(&self) {
        let hub = self.worker.context.audience.hub();
        let answer = self.with_held(|held| {
            let backlog = held.reader.read_rest(hub);
            self.count(&backlog);
            self.writer(held)
                .end(&End::HalfClosed { backlog: &backlog })
        });
        let answer = answer.unwrap_or_default();
        let more_is_asked = self.unread.get() || self.has_leftovers();
        if more_is_asked && self.state.get() == State::Polling {
            return self.answer_poll(answer);
        }
        self.end_held();
        self.last.set(true);
        if self.write_now(answer) {
            self.close();
        }
    }

    /// Whether the client has switched to a protocol of its own (WebSocket), in which it may send at any time.
    pub(super) fn reads_frames(&self) -> bool {
        self.with_held(|held| held.carrier.frames().is_some()) == Some(true)
    }

    /// Reads frames of an upgraded client and writes the answers that its protocol requires.
    fn take_frames(&self) {
        let mut chunk = [0; 1024];
        // A client may send without end. After this many chunks other connections get their turn first.
        for _ in 0..FRAME_CHUNKS {
            let read = match self.try_read(&mut chunk) {
                Ok(n @ 1..) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Ok(0) => return self.answer_half_closed(),
                Err(_) => return self.close(),
            };
            let mut answer = Vec::new();
            let input = &chunk[..read];
            let stays_open = self.with_held(|held| {
                let frames = held.carrier.frames();
                frames.is_some_and(|frames| frames.answer(input, &mut answer))
            });
            let stays_open = stays_open == Some(true);
            self.last.set(!stays_open);
            if !answer.is_empty() && !self.write_now(answer) {
                return self.leave_audience();
            }
            if !stays_open {
                return self.end();
            }
            // The end of the client's data may have arrived together with these bytes. Then read once more.
            if !self.has_input() {
                return;
            }
        }
        self.work_soon();
    }

    /// Handles the end of the time that `set` has set.
    pub(super) fn handle_expiry(&self) {
        match self.state.get() {
            State::Closing | State::Joining => {}
            State::Refusing => self.refuse_now(),
            State::Idle | State::Busy | State::Writing | State::Ending => self.close(),
            State::Polling | State::Streaming if self.has_ended() => self.say_end(),
            // The system clock was set back, so that the token is valid for longer again.
            State::Polling if self.with_held(|held| held.wait) == Some(None) => {
                self.wait_in(State::Polling, Duration::MAX);
            }
            State::Polling | State::Streaming => self.say_nothing_new(),
        }
    }

    /// Ends a subscription whose right has ended: answers a poll, or writes the end of a stream.
    fn say_end(&self) {
        let answer = self.with_held(|held| self.end_of(held));
        let answer = answer.unwrap_or_default();
        if self.state.get() == State::Polling {
            return self.answer_poll(answer);
        }
        self.end_held();
        self.last.set(true);
        if self.write_now(answer) {
            self.end();
        }
    }

    /// Like `say_end`, for a subscription that was not waiting yet.
    async fn send_end(&self) {
        let answer = self.with_held(|held| (self.end_of(held), held.kind().is_poll()));
        let (answer, is_poll) = answer.unwrap_or_default();
        if is_poll {
            self.end_poll();
            self.send(answer).await;
        } else {
            self.send_last(Some(answer)).await;
        }
    }

    /// The bytes for a client whose token has expired or whose right was revoked. A client whose right was revoked
    /// comes back, and the new rights decide about its request. The client gets no message that is newer than its
    /// cursor.
    fn end_of(&self, held: &Held) -> Bytes {
        let cursor = held.reader.cursor();
        if held.reader.ends() != RightEnds::Revoked {
            return self.writer(held).end(&End::Expired { cursor });
        }
        let nothing = Backlog {
            cursor,
            ..Backlog::default()
        };
        self.writer(held).end(&End::Reconnect {
            backlog: &nothing,
            retry: self.worker.context.retry_of_revoked(),
        })
    }

    /// Answers a poll whose wait is over, or sends the heartbeat of a stream. Reads the hub first: the new cursor must
    /// not skip a message that was published but not delivered yet.
    fn say_nothing_new(&self) {
        let hub = self.worker.context.audience.hub();
        let answer = self.with_held(|held| match held.reader.read(hub) {
            Some(backlog) => self.render(held, &backlog),
            None => self.writer(held).nothing(held.reader.cursor()),
        });
        match (answer, self.state.get()) {
            (Some(answer), State::Polling) => self.answer_poll(answer),
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

    /// Sends the last answer to a waiting client when the daemon stops, and ends the connection.
    pub(super) fn say_farewell(&self) {
        match self.state.get() {
            // A request that has arrived is still answered, even if epoll has not reported it yet.
            State::Idle => {
                self.unread.set(true);
                self.work_soon();
            }
            State::Polling | State::Streaming => {
                let farewell = self.with_held(|held| self.farewell(held));
                self.end_held();
                self.last.set(true);
                if farewell.is_some_and(|farewell| self.write_now(farewell)) {
                    self.end();
                }
            }
            State::Refusing => self.refuse_now(),
            // A task runs. It checks whether the daemon stops when it is done.
            State::Busy | State::Joining | State::Writing | State::Ending | State::Closing => {}
        }
    }

    /// The last messages of the subscription, followed by its end.
    fn farewell(&self, held: &mut Held) -> Bytes {
        held.variant.close = true;
        let hub = self.worker.context.audience.hub();
        let backlog = held.reader.read_rest(hub);
        self.count(&backlog);
        self.writer(held).end(&End::Reconnect {
            backlog: &backlog,
            retry: self.worker.context.drain.retry(),
        })
    }

    /// Answers a poll and ends its subscription.
    fn answer_poll(&self, answer: Bytes) {
        // While messages are delivered, the thread must not pause to let polls gather.
        self.worker.parked.reset();
        self.end_poll();
        self.answer(answer);
    }

    /// Renders a backlog for this client alone.
    fn render(&self, held: &Held, backlog: &Backlog) -> Bytes {
        self.count(backlog);
        self.writer(held).news(backlog)
    }

    fn count(&self, backlog: &Backlog) {
        let messages = backlog.messages.len() as u64;
        self.worker.context.metrics.delivered.add(messages);
    }

    fn writer<'a>(&'a self, held: &'a Held) -> Writer<'a> {
        Writer {
            format: held.carrier.format(),
            variant: held.variant,
            site: self.worker.context.site(),
            date: &self.worker.context.date,
        }
    }

    /// Calls `f` with the subscription. `None`: the connection holds no subscription, and the caller has nothing left
    /// to do.
    fn with_held<T>(&self, f: impl FnOnce(&mut Held) -> T) -> Option<T> {
        self.held.borrow_mut().as_mut().map(f)
    }

    fn leave_audience(&self) {
        self.with_held(|held| held.reader.leave(&self.worker.context.audience));
    }

    fn renew_heartbeat(&self) {
        let shape = self.with_held(|held| held.kind().shape);
        if let Some(Shape::Stream { heartbeat }) = shape {
            self.wait_in(State::Streaming, heartbeat);
        }
    }

    /// Reads and renders the new messages. Messages that many clients read in the same form are rendered once. Returns
    /// the bytes and whether there is more.
    fn next_piece(&self, held: &mut Held, feed: &mut Feed<'_>) -> Option<(Bytes, bool)> {
        let batch = held.reader.read_shared(feed)?;
        let backlog = batch.backlog();
        self.count(backlog);
        let writer = self.writer(held);
        let piece = match writer.variant.form(writer.format) {
            Some(form) => batch.form(form, |backlog| writer.news(backlog)),
            None => writer.news(backlog),
        };
        Some((piece, backlog.more))
    }
}

impl Subscriber for Conn {
    fn deliver(&self, feed: &mut Feed<'_>) -> AfterDelivery {
        loop {
            let state = self.state.get();
            if !matches!(state, State::Polling | State::Streaming) {
                return AfterDelivery::Leave;
            }
            let Some((piece, more)) = self.with_held(|held| self.next_piece(held, feed)).flatten()
            else {
                return AfterDelivery::Stay;
            };
            if state == State::Polling {
                self.answer_poll(piece);
                return AfterDelivery::Leave;
            }
            if !self.write_now(piece) {
                self.leave_audience();
                return AfterDelivery::Leave;
            }
            self.renew_heartbeat();
            if !more {
                return AfterDelivery::Stay;
            }
        }
    }
}
