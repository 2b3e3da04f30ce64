//! The subscription of a waiting connection: what the client gets at the beginning, for new messages, at a time-out, and at the
//! end.

use std::{io::ErrorKind, rc::Rc, time::Duration};

use bytes::Bytes;

use super::{
    Http,
    date::unix_time,
    due_at,
    site::Current,
    writer::{SubscriptionWriter, Variant},
};
use crate::{
    connection::{Conn, Then, due_in, memory},
    hub::{Backlog, READ_BYTES, Reader, RightEnds, subscriber::Feed},
    transport::{Channels, End, Format, Kind, Shape, Subscription, websocket::Handshake},
    worker::Due,
};

/// Size in bytes of one piece of backlog for a stream that has fallen behind. Each such piece is rendered for one
/// client only, and many clients may read nothing at the same time.
const PIECE: usize = 16 * 1024;

/// A subscription that a request has asked for, before the connection holds the subscription.
pub(super) struct SubscriptionRequest {
    pub(super) subscription: Subscription,
    pub(super) variant: Variant,
    /// The site whose access rights accepted the subscription.
    pub(super) site: Current,
}

/// How far a subscription has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The opening of the stream must still be written. A poll has no opening.
    Opening,
    /// The client gets the backlog.
    Reading,
    /// The client has received all messages so far, and new messages are delivered.
    Waiting,
}

/// What a subscription does next.
pub(super) enum HoldStep {
    Wait(Due),
    /// The next piece of a stream.
    Piece(Bytes, Then),
    /// The answer of a poll. True: the connection closes after the answer.
    Answer(Bytes, bool),
    /// The answer of a poll whose client has closed its sending side. Requests that the client has sent before are still
    /// answered. True: the connection closes after the answer.
    LastAnswer(Bytes, bool),
    /// The last bytes of the subscription and of the connection.
    End(Bytes),
    /// The connection is broken.
    Broken,
}

/// The subscription of one waiting connection.
pub(super) struct HeldSubscription {
    reader: Reader<Channels>,
    format: Box<dyn Format>,
    variant: Variant,
    /// Longest wait of a poll in seconds. `None`: the subscription waits without a limit.
    wait: Option<u16>,
    stage: Stage,
}

impl HeldSubscription {
    pub(super) fn new(http: &Http, ask: SubscriptionRequest) -> Self {
        let SubscriptionRequest {
            mut subscription,
            variant,
            site,
        } = ask;
        http.audience.share_names(&mut subscription.channels);
        http.metrics.subscribers.add(1);
        memory::add_channels(&subscription.channels);
        let kind = subscription.format.kind();
        subscription.format.begin();
        // A subscription "from now on" begins at this moment, and not when it joins the audience. The client may react to the
        // stream's opening before the subscription joins.
        let hub = http.audience.hub();
        let reader = Reader::new(hub, subscription.channels, subscription.since)
            .until(subscription.expires)
            .starting_with_gap(subscription.gap)
            .postponing_gaps(kind.postpones_gap);
        let seconds = |wait: Duration| u16::try_from(wait.as_secs()).unwrap_or(u16::MAX);
        let mut held = Self {
            reader,
            format: subscription.format,
            variant,
            wait: subscription.wait.map(seconds),
            stage: match kind.shape {
                Shape::Poll => Stage::Reading,
                Shape::Stream { .. } => Stage::Opening,
            },
        };
        // The settings may have changed while an earlier request of this connection was answered.
        if !Rc::ptr_eq(&site, &http.site()) {
            held.check_rights(http, &site);
        }
        held
    }

    /// Ends the subscription's entries in the audience and in the counters.
    pub(super) fn release(mut self, http: &Http) {
        http.metrics.subscribers.sub(1);
        memory::sub_channels(self.reader.channels());
        self.reader.leave(&http.audience);
    }

    fn kind(&self) -> Kind {
        self.format.kind()
    }

    /// The head of a stream and its first bytes. `handshake`: set if the stream is a WebSocket.
    pub(super) fn open(&mut self, http: &Http, handshake: Option<&Handshake>) -> Bytes {
        self.stage = Stage::Reading;
        self.writer(http).opening(self.reader.cursor(), handshake)
    }

    fn is_poll(&self) -> bool {
        self.kind().is_poll()
    }

    /// Continues after input from the client, or after a piece was written.
    pub(super) fn input(&mut self, http: &Http, conn: &Rc<Conn>) -> HoldStep {
        if self.stage != Stage::Waiting {
            return self.go_on(http, conn);
        }
        if !self.is_poll() {
            return self.go_on(http, conn);
        }
        let ends = self.look(http, conn);
        ends.unwrap_or_else(|| HoldStep::Wait(conn.due()))
    }

    /// Checks what a waiting client has sent. `None`: the client keeps waiting.
    fn look(&mut self, http: &Http, conn: &Conn) -> Option<HoldStep> {
        if !conn.has_unread() {
            return None;
        }
        match conn.peek(&mut [0]) {
            Ok(1..) if !conn.has_ended() => None, // a pipelined request: it is served later
            Ok(_) => Some(self.half_closed(http)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => None,
            Err(_) => Some(HoldStep::Broken),
        }
    }

    /// Opens the subscription, sends the backlog, and joins the audience.
    pub(super) fn go_on(&mut self, http: &Http, conn: &Rc<Conn>) -> HoldStep {
        if self.stage == Stage::Opening {
            return HoldStep::Piece(self.open(http, None), Then::Again);
        }
        if self.has_ended() {
            return self.say_end(http);
        }
        if conn.worker().is_stopping() {
            return HoldStep::End(self.farewell(http));
        }
        let bytes = if self.is_poll() { READ_BYTES } else { PIECE };
        let backlog = match self.stage {
            Stage::Waiting => self.reader.read(http.audience.hub(), bytes),
            _ => self.reader.join(&http.audience, conn, bytes),
        };
        match backlog {
            None => {
                self.stage = Stage::Waiting;
                self.wait(http, conn)
            }
            Some(backlog) if self.is_poll() => self.answer(self.render(http, &backlog)),
            Some(backlog) => HoldStep::Piece(self.render(http, &backlog), Then::Again),
        }
    }

    /// Waits for new messages, unless the client has closed its sending side or does not want to wait.
    fn wait(&mut self, http: &Http, conn: &Conn) -> HoldStep {
        if self.wait == Some(0) {
            return self.say_nothing_new(http, conn);
        }
        let ends = self.look(http, conn);
        ends.unwrap_or_else(|| HoldStep::Wait(self.due(conn)))
    }

    /// The moment at which the wait ends, the right to read ends, or the next heartbeat is due.
    fn due(&self, conn: &Conn) -> Due {
        let due = match (self.kind().shape, self.wait) {
            (Shape::Stream { heartbeat }, _) => due_in(conn, heartbeat),
            (Shape::Poll, Some(wait)) => due_in(conn, Duration::from_secs(wait.into())),
            (Shape::Poll, None) => Due::NEVER,
        };
        due.min(self.end_due(conn))
    }

    /// The moment at which the right to read ends, by the current system clock.
    fn end_due(&self, conn: &Conn) -> Due {
        match self.reader.ends() {
            RightEnds::Never => Due::NEVER,
            RightEnds::At(second) => due_at(&conn.worker().timers, second),
            RightEnds::Revoked => Due::NOW,
        }
    }

    /// Whether the token has expired or the right was revoked.
    fn has_ended(&self) -> bool {
        // The clock is read only for subscriptions whose right ends.
        self.reader.ends() != RightEnds::Never && self.reader.has_ended(unix_time().as_secs())
    }

    /// Ends the subscription if the new rights no longer permit it. `before` has the earlier rights.
    fn check_rights(&mut self, http: &Http, before: &Current) {
        let by_token = self.reader.ends() != RightEnds::Never;
        let (site, channels) = (http.site(), self.reader.channels());
        if site.routes.end(&*before.routes, channels, by_token) {
            self.reader.revoke();
        }
    }

    /// See [`Protocol::changed`](crate::connection::Protocol::changed).
    pub(super) fn changed(&mut self, http: &Http, conn: &Conn) -> Option<Due> {
        if let Some(before) = &*http.before.borrow() {
            self.check_rights(http, before);
        }
        Some(conn.due().min(self.end_due(conn)))
    }

    /// Reads and renders the new messages. Messages that many clients read in the same form are rendered once.
    pub(super) fn news(&mut self, http: &Http, conn: &Conn, feed: &mut Feed<'_>) -> HoldStep {
        if let Some(channel) = feed.deleted()
            && let Some(bytes) = self.writer(http).deleted(channel, self.reader.cursor())
        {
            return self.last(bytes);
        }
        let Some(shared) = self.reader.read_shared(feed) else {
            return HoldStep::Wait(conn.due());
        };
        let backlog = shared.backlog();
        let writer = self.writer(http);
        let piece = match writer.variant.form(writer.format) {
            Some(form) => shared.form(form, |backlog| writer.news(backlog)),
            None => writer.news(backlog),
        };
        count(http, backlog);
        match (self.is_poll(), backlog.more) {
            (true, _) => self.answer(piece),
            (false, true) => HoldStep::Piece(piece, Then::Again),
            (false, false) => HoldStep::Piece(piece, Then::Wait(self.due(conn))),
        }
    }

    /// Handles the time-out.
    pub(super) fn time(&mut self, http: &Http, conn: &Conn) -> HoldStep {
        if self.has_ended() {
            return self.say_end(http);
        }
        match self.is_poll() && self.wait.is_none() {
            // The system clock was set back, so that the token is valid for longer again.
            true => HoldStep::Wait(self.due(conn)),
            false => self.say_nothing_new(http, conn),
        }
    }

    /// Answers a poll whose wait is over, or sends the heartbeat of a stream. Reads the hub first: the new cursor must
    /// not skip a message that was published but not delivered yet.
    fn say_nothing_new(&mut self, http: &Http, conn: &Conn) -> HoldStep {
        let bytes = match self.reader.read(http.audience.hub(), READ_BYTES) {
            Some(backlog) => self.render(http, &backlog),
            None => self.writer(http).nothing(self.reader.cursor()),
        };
        match self.is_poll() {
            true => self.answer(bytes),
            false => HoldStep::Piece(bytes, Then::Wait(self.due(conn))),
        }
    }

    /// Answers a client that has closed its sending side. The client may have disconnected or may still read (RFC 9112, section
    /// 6.3). So the answer is sent at once, and requests that the client has sent after the poll are served.
    pub(super) fn half_closed(&mut self, http: &Http) -> HoldStep {
        let backlog = self.reader.read_rest(http.audience.hub());
        count(http, &backlog);
        let end = End::HalfClosed { backlog: &backlog };
        let answer = self.writer(http).end(&end);
        match self.is_poll() {
            true => HoldStep::LastAnswer(answer, self.variant.close),
            false => HoldStep::End(answer),
        }
    }

    /// Ends a subscription whose right to read has ended. The client gets no message that is newer than its cursor. If the right
    /// was revoked, the client reconnects, and the new rights decide about its request.
    fn say_end(&self, http: &Http) -> HoldStep {
        let cursor = self.reader.cursor();
        let bytes = match self.reader.ends() {
            RightEnds::Revoked => {
                let nothing = Backlog {
                    cursor,
                    ..Backlog::default()
                };
                self.writer(http).end(&End::Reconnect {
                    backlog: &nothing,
                    retry: http.retry_of_revoked(),
                })
            }
            RightEnds::At(_) | RightEnds::Never => self.writer(http).end(&End::Expired { cursor }),
        };
        self.last(bytes)
    }

    /// The last bytes of a subscription: the answer of a poll, or the end of a stream.
    fn last(&self, bytes: Bytes) -> HoldStep {
        match self.is_poll() {
            true => self.answer(bytes),
            false => HoldStep::End(bytes),
        }
    }

    /// The last messages of the subscription, followed by its end.
    pub(super) fn farewell(&mut self, http: &Http) -> Bytes {
        self.variant.close = true;
        let backlog = self.reader.read_rest(http.audience.hub());
        count(http, &backlog);
        self.writer(http).end(&End::Reconnect {
            backlog: &backlog,
            retry: http.drain.retry(),
        })
    }

    fn answer(&self, answer: Bytes) -> HoldStep {
        HoldStep::Answer(answer, self.variant.close)
    }

    /// Renders a backlog for this client alone.
    fn render(&self, http: &Http, backlog: &Backlog) -> Bytes {
        count(http, backlog);
        self.writer(http).news(backlog)
    }

    fn writer<'a>(&'a self, http: &'a Http) -> SubscriptionWriter<'a> {
        SubscriptionWriter {
            format: &*self.format,
            variant: self.variant,
            site: http.site(),
            date: &http.date,
        }
    }
}

fn count(http: &Http, backlog: &Backlog) {
    http.metrics.delivered.add(backlog.messages.len() as u64);
}
