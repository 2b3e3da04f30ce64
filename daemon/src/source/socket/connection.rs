//! One connection of the Unix socket: lines in, lines out.
//!
//! Replies keep the order of the requests, and are sent in one write when all requests that were read are answered. A
//! subscription is a set of channels and a cursor. The connection reads more of the history only when its output is sent, so a
//! slow reader holds one read of the history at most.

use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd, AsRawFd},
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use comet_proto::{
    ChannelNames, Pace, Since,
    line::{self, ErrorCode, LineError, PresenceRequest, Publish, Reference, Request},
};
use interprocess::os::unix::uds_local_socket::tokio::Stream;
use nix::sys::socket::{Shutdown, shutdown};
use tokio::{
    io::AsyncWriteExt,
    time::{sleep, timeout},
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    history::HistoryReply,
    line_buffer::{CHUNK, LineBuffer, TooLong},
    peer::Peer,
    shared::Shared,
    slots::{Slot, UserTurns},
    subscription::{SocketSubscription, woken},
    unacknowledged::Unacknowledged,
};
use crate::{
    broker::SourceKind,
    hub::{NewMessage, Publisher, PublisherKey},
};

/// How long a refused peer may still send, so that it can read the error before the connection is closed. Also the time limit
/// for a subscriber to read its last lines.
const LINGER: Duration = Duration::from_secs(2);

pub(super) struct Connection {
    stream: Stream,
    output: Vec<u8>,
    unacknowledged: Unacknowledged,
    subscription: Option<SocketSubscription>,
    /// A history request that is not started yet.
    history: Option<HistoryReply>,
    /// Until the daemon stops.
    publisher: Option<TaskTrackerToken>,
    shared: Rc<Shared>,
    peer: Peer,
    /// The [settings](Shared::settings) by which the peer was let in.
    settings: u64,
    pace: Pace,
}

impl Connection {
    pub(super) fn new(stream: Stream, peer: Peer, shared: Rc<Shared>) -> Self {
        Self {
            stream,
            peer,
            output: Vec::new(),
            unacknowledged: Unacknowledged::default(),
            subscription: None,
            history: None,
            publisher: Some(shared.drain.publisher()),
            settings: shared.settings.get(),
            shared,
            pace: Pace::default(),
        }
    }

    /// Serves the connection until the peer ends it, is silent for too long, or the daemon stops.
    pub(super) async fn converse(mut self, slot: Slot) -> io::Result<()> {
        let turns = slot.turns();
        let shared = self.shared.clone();
        let mut stopped = pin!(shared.drain.stop.cancelled());
        let (mut input, mut long_line) = (LineBuffer::default(), None);
        loop {
            if let Some(reason) = self.refusal() {
                return self.refuse(&ErrorCode::Permission, &reason).await;
            }
            if self.answer(&mut input, &turns).await?.is_err() {
                let max = shared.config().max_line;
                let reason = too_long(max);
                return self.refuse(&ErrorCode::Line, &reason).await;
            }
            if !input.is_long() {
                input.free_room();
                long_line = None;
            }
            let caught_up = self.deliver(&turns).await?;
            self.flush().await?;
            let subscribed = self.subscription.is_some();
            let start = Instant::now();
            let may_read = long_line.is_some() || !input.is_long();
            let awake = !subscribed && may_read && self.pace.stays_awake();
            if awake && self.read_soon(&mut input, start).await? {
                continue;
            }
            let read = tokio::select! {
                biased;
                () = &mut stopped => return self.leave(&turns).await,
                () = shared.changed(self.settings) => continue,
                room = turns.long_line(), if !may_read => {
                    long_line = Some(room);
                    continue;
                }
                read = input.read(&self.stream), if may_read => Some(read?),
                () = woken(self.subscription.as_ref()), if caught_up => None,
                () = tokio::task::yield_now(), if !caught_up => None,
                // Closed without an error line, which a client with a kept connection would take for its next reply.
                () = sleep(shared.config().idle), if !subscribed => return Ok(()),
            };
            self.pace.waited(start.elapsed(), awake);
            match read {
                Some(0) => {
                    let rest = input.rest();
                    if !rest.is_empty() {
                        self.respond(rest);
                        self.write_history(&turns).await?;
                    }
                    return self.flush().await;
                }
                // There is more to do, but other connections are served first.
                Some(n) if n >= CHUNK => tokio::task::yield_now().await,
                _ => {}
            }
        }
    }

    /// Why the connection must end: the settings have changed since the last check, and the peer may no longer connect.
    fn refusal(&mut self) -> Option<String> {
        let settings = self.shared.settings.get();
        let is_new = std::mem::replace(&mut self.settings, settings) != settings;
        is_new.then(|| self.shared.refusal(&self.peer)).flatten()
    }

    /// Reads bytes that arrive within moments, while other connections are served. Returns false if none have arrived.
    async fn read_soon(&mut self, input: &mut LineBuffer, start: Instant) -> io::Result<bool> {
        while start.elapsed() < Pace::AWAKE && !self.shared.drain.stop.is_cancelled() {
            match input.try_read(&self.stream) {
                Ok(1..) => {
                    self.pace.waited(start.elapsed(), false);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Whoever waits for it is told again.
                Ok(0) | Err(_) => return Ok(false),
            }
            tokio::task::yield_now().await;
        }
        Ok(false)
    }

    /// Sends the reason, and ends the connection after the peer had time to read it.
    pub(super) async fn refuse(mut self, code: &ErrorCode, reason: &str) -> io::Result<()> {
        line::write_error(code, reason, &mut self.output);
        self.flush().await?;
        // Closing with unread input would send a reset, which may reach the peer before the reason.
        shutdown(self.stream.as_fd().as_raw_fd(), Shutdown::Write)?;
        let mut input = LineBuffer::default();
        let drained = async {
            while input.read(&self.stream).await? > 0 {
                input.rest();
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        tokio::select! {
            drained = timeout(LINGER, drained) => drained.unwrap_or(Ok(())),
            () = self.shared.drain.stop.cancelled() => Ok(()),
        }
    }

    /// Handles a stop: a subscriber gets the messages that are still published, and the time to come back.
    async fn leave(mut self, turns: &UserTurns) -> io::Result<()> {
        self.publisher = None;
        if self.subscription.is_none() {
            return Ok(());
        }
        self.shared.drain.leave.cancelled().await;
        let last = async {
            while !self.deliver(turns).await? {
                self.flush().await?;
            }
            line::write_retry(self.shared.drain.retry(), &mut self.output);
            self.flush().await
        };
        timeout(LINGER, last).await.unwrap_or(Ok(()))
    }

    /// Answers every complete line that was read. One connection of a user does so at a time, and other users have
    /// their turns in between.
    async fn answer(
        &mut self,
        input: &mut LineBuffer,
        turns: &UserTurns,
    ) -> io::Result<Result<(), TooLong>> {
        let max = self.shared.config().max_line;
        let mut turn = turns.first(input.unanswered()).await;
        loop {
            // From then on no message is published.
            if self.publisher.is_none() {
                return Ok(Ok(()));
            }
            let before = self.output_bytes();
            let length = match input.next_line(max) {
                Ok(None) => {
                    self.settle_at_once().await;
                    return Ok(Ok(()));
                }
                Ok(Some(line)) => {
                    self.respond(line);
                    line.len()
                }
                Err(error) => return Ok(Err(error)),
            };
            let is_over = turn.is_over_after(length + self.output_bytes() - before);
            if self.history.is_some() || self.output_bytes() >= CHUNK {
                self.settle_at_once().await;
                drop(turn); // the peer decides how long it takes to read
                self.write_history(turns).await?;
                if self.output_bytes() >= CHUNK {
                    self.flush().await?;
                }
                turn = turns.next().await;
            } else if is_over {
                tokio::task::yield_now().await;
                turn.begin_again();
            }
        }
    }

    fn respond(&mut self, line: &[u8]) {
        let (reference, request) = Request::parse_with_reference(line);
        let start = self.output.len();
        let reference = self.reply(request, reference);
        if let Some(reference) = reference {
            reference.insert(start, &mut self.output);
        }
    }

    /// Appends the reply to a request. Returns the reference, unless the reply comes later and takes the reference with it.
    fn reply(
        &mut self,
        request: Result<Request<'_>, LineError>,
        reference: Option<Reference>,
    ) -> Option<Reference> {
        match request {
            Ok(Request::Publish(publish)) => return self.publish(publish, reference),
            Ok(Request::Subscribe {
                presence:
                    Some(PresenceRequest {
                        member: Some(_), ..
                    }),
                ..
            }) => {
                let reason = "member is for sessions: a client of the socket is no member";
                line::write_error(&ErrorCode::parse("member"), reason, &mut self.output);
            }
            Ok(Request::Subscribe {
                channels,
                since,
                presence,
            }) => self.subscribe(&channels, since, presence.is_some()),
            Ok(Request::Unsubscribe { channels }) => {
                if let Some(subscription) = &mut self.subscription {
                    subscription.remove(&channels);
                }
                self.subscription.take_if(|left| !left.has_channels());
                line::write_ok(&mut self.output);
            }
            Ok(Request::History { channels, since }) => {
                self.history = Some(HistoryReply::new(
                    channels,
                    self.shared.audience.hub().resolve(since),
                    reference,
                ));
                return None;
            }
            Ok(Request::Presence { channel, after }) => {
                let members = self.shared.presence.members(&channel, after.as_deref());
                line::write_members(&members.json_fields(), &mut self.output);
            }
            Ok(Request::Cursor) => {
                let last = self.shared.audience.hub().last();
                line::write_cursor(last, &mut self.output);
            }
            Ok(Request::Status) => (self.shared.write_status)(&mut self.output),
            Ok(Request::Ping) => line::write_ok(&mut self.output),
            Ok(Request::Token(_)) => {
                let reason = "op token is for sessions: the socket knows its user";
                line::write_error(&ErrorCode::Op, reason, &mut self.output);
            }
            Err(error) => line::write_error(&error.code(), &error.to_string(), &mut self.output),
        }
        reference
    }

    fn subscribe(&mut self, channels: &ChannelNames, since: Option<Since>, presence: bool) {
        let subscription = self
            .subscription
            .get_or_insert_with(|| SocketSubscription::new(&self.shared));
        match subscription.add(channels, since, presence) {
            Ok(()) => line::write_ok(&mut self.output),
            Err(error) => {
                line::write_error(&ErrorCode::Channels, &error.to_string(), &mut self.output)
            }
        }
    }

    fn publish(&mut self, publish: Publish<'_>, reference: Option<Reference>) -> Option<Reference> {
        let mut channels = publish.channels.iter();
        if let Some(reason) = channels.find_map(|channel| self.shared.forbids(&self.peer, channel))
        {
            line::write_error(&ErrorCode::Forbidden, &reason, &mut self.output);
            return reference;
        }
        let receipt = self.shared.broker.publish(
            SourceKind::Client,
            NewMessage {
                channels: publish.channels,
                name: publish.name,
                data: publish.data.into(),
                attributes: publish.attributes,
                key: publish.key.as_deref().map(|key| PublisherKey {
                    publisher: Publisher::User(self.peer.uid()),
                    key,
                }),
            },
        );
        if receipt.refusal().is_none() {
            self.shared.metrics.published_socket.add(1);
        }
        self.unacknowledged.push(receipt, reference, &self.output);
        None
    }

    /// The bytes of the output with its acknowledgements, also those that are not written yet.
    fn output_bytes(&self) -> usize {
        self.output.len() + self.unacknowledged.bytes()
    }

    /// Writes the log during the turn, because this takes time: the next connection of the same user must wait until then.
    async fn settle_at_once(&mut self) {
        if self.unacknowledged.can_be_written_now() {
            self.unacknowledged.write(&mut self.output).await;
        }
    }

    /// Writes the requested history, if any, as fast as the peer reads it.
    async fn write_history(&mut self, turns: &UserTurns) -> io::Result<()> {
        let Some(mut reply) = self.history.take() else {
            return Ok(());
        };
        loop {
            let turn = turns.next().await;
            let is_complete = reply.write_next(self.shared.audience.hub(), &mut self.output);
            drop(turn);
            if is_complete {
                return Ok(());
            }
            self.flush().await?;
        }
    }

    /// Appends about one chunk of new messages for the subscription, up to the end of a message. Returns false if there may be
    /// more.
    async fn deliver(&mut self, turns: &UserTurns) -> io::Result<bool> {
        loop {
            let Some(subscription) = &mut self.subscription else {
                return Ok(true);
            };
            let turn = turns.next().await;
            let caught_up = subscription.write_next(&mut self.output);
            let is_within_message = subscription.is_within_message();
            drop(turn);
            if !is_within_message {
                return Ok(caught_up);
            }
            self.flush().await?;
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.unacknowledged.write(&mut self.output).await;
        if self.output.is_empty() {
            return Ok(());
        }
        let slow = |_| io::Error::new(ErrorKind::TimedOut, "the peer does not read");
        let Self {
            stream,
            output,
            publisher,
            shared,
            ..
        } = self;
        let mut stream: &Stream = stream;
        let mut written = pin!(stream.write_all(output));
        if self.subscription.is_none() {
            let idle = shared.config().idle;
            timeout(idle, written).await.map_err(slow)??;
        } else {
            tokio::select! {
                biased;
                written = &mut written => written?,
                () = shared.drain.stop.cancelled() => {
                    *publisher = None; // other connections need not wait until this peer reads
                    timeout(LINGER, written).await.map_err(slow)??;
                }
            }
        }
        self.output.clear();
        self.output.shrink_to(CHUNK);
        Ok(())
    }
}

/// Why a line is refused. Data that is not UTF-8 is base64 in the line: 4 bytes for each 3.
fn too_long(max: usize) -> String {
    let binary = max.saturating_sub(OTHER_FIELDS) / 4 * 3;
    format!(
        "line is over the limit of {max} bytes (max_line under [socket]): room for some {} bytes of text without escapes, \
         or {binary} of other data, which is sent as base64",
        max.saturating_sub(OTHER_FIELDS)
    )
}

/// The bytes of a line without its data: the longest channel, name and key, some of them escaped, and the names of the fields. A
/// list of channels and attributes need more.
const OTHER_FIELDS: usize = 1024;
