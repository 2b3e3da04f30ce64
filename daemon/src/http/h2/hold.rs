//! A subscription on one stream of an HTTP/2 connection. It waits in a task, because hyper needs one for each stream anyway.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use comet_proto::{ChannelName, Message};
use hyper::{Response, StatusCode, header::HeaderValue};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::pieces::{Pieces, whole};
use crate::{
    connection::{Worker, memory},
    http::{Http, answer::Answer, date::unix_time, site::Current, writer::header_of_status},
    hub::{
        Backlog, READ_BYTES, Reader, RightEnds,
        subscriber::{AfterDelivery, Feed, Subscriber},
    },
    transport::{Channels, End, Format, Shape, Status, Subscription},
    worker::SHORT,
};

/// Answers a request that asks for a subscription: a poll when it ends, a stream at once.
pub(super) async fn hold(
    http: Rc<Http>,
    worker: Rc<Worker>,
    subscription: Subscription,
) -> Response<Pieces> {
    let kind = subscription.format.kind();
    let mut held = StreamSubscription::new(http, worker, subscription);
    match kind.shape {
        Shape::Poll => {
            let mut body = Vec::new();
            let (status, messages) = held.poll(&mut body).await;
            let status = status.into();
            let mut answer = Answer::empty(status);
            answer.body = memory::keep(body);
            answer = answer.with_headers_of(&*held.format, held.reader.cursor(), &messages);
            if let Some((name, value)) = header_of_status(status) {
                answer = answer.with(name, HeaderValue::from_static(value));
            }
            whole(answer, false)
        }
        Shape::Stream { .. } => {
            // At most one piece is queued. The client's flow-control window bounds what a slow reader holds.
            let (pieces, body) = mpsc::channel(1);
            let answer = Answer::empty(StatusCode::OK);
            let answer = answer.with_headers_of(&*held.format, held.reader.cursor(), &[]);
            tokio::task::spawn_local(async move { held.stream(pieces).await });
            answer.into_response().map(|_: Bytes| Pieces::new(body))
        }
    }
}

/// The moment at which this second since 1970 comes, by the current system clock. `None`: so far away that it does not
/// matter.
fn moment(second: u64) -> Option<Instant> {
    Instant::now().checked_add(Duration::from_secs(second).saturating_sub(unix_time()))
}

/// A subscription on one stream of the connection.
struct StreamSubscription {
    http: Rc<Http>,
    worker: Rc<Worker>,
    reader: Reader<Channels>,
    format: Box<dyn Format>,
    /// The longest wait of a poll. `None`: without a limit.
    wait: Option<Duration>,
    news: Rc<News>,
    /// The site whose access rights permit the subscription.
    site: Current,
}

/// Why a wait has ended.
enum Wake {
    Messages(Backlog),
    Time,
    Stop,
    Expired,
    Revoked,
    /// The channel was deleted.
    Deleted(ChannelName),
}

impl StreamSubscription {
    fn new(http: Rc<Http>, worker: Rc<Worker>, subscription: Subscription) -> Self {
        subscription.format.begin();
        let hub = http.audience.hub();
        let reader = Reader::new(hub, subscription.channels, subscription.since)
            .until(subscription.expires)
            .starting_with_gap(subscription.gap)
            .postponing_gaps(subscription.format.kind().postpones_gap);
        http.metrics.subscribers.add(1);
        let site = http.site();
        memory::add_channels(reader.channels());
        Self {
            http,
            worker,
            reader,
            format: subscription.format,
            wait: subscription.wait,
            news: Rc::default(),
            site,
        }
    }

    /// Waits for the answer of a poll. Appends the body, and returns the status and the messages.
    async fn poll(&mut self, body: &mut Vec<u8>) -> (Status, Vec<Arc<Message>>) {
        let deadline = self.wait.map(|wait| Instant::now() + wait);
        let wake = loop {
            match self.wait(deadline).await {
                Wake::Deleted(channel) => {
                    let cursor = self.reader.cursor();
                    if let Some(status) = self.format.deleted(&channel, cursor, body) {
                        return (status, Vec::new());
                    }
                }
                wake => break wake,
            }
        };
        let status = match wake {
            Wake::Messages(backlog) => {
                self.format.news(&backlog, body);
                return (Status::Ok, backlog.messages);
            }
            Wake::Time => self.format.nothing(self.reader.cursor(), body),
            Wake::Stop => self.farewell(self.http.drain.retry(), body),
            Wake::Revoked => self.farewell(self.http.retry_of_revoked(), body),
            Wake::Expired => self.expired(body),
            Wake::Deleted(_) => unreachable!("the loop has ended with another reason"),
        };
        (status, Vec::new())
    }

    async fn stream(mut self, pieces: mpsc::Sender<Bytes>) {
        let write_time = self.http.site().config.write_time;
        let mut piece = Vec::new();
        self.format.opening(self.reader.cursor(), &mut piece);
        loop {
            // A client that reads nothing holds at most two pieces in memory. After `write_time` its stream is cut.
            let sent = pieces.send(memory::keep(std::mem::take(&mut piece)));
            if !matches!(timeout(write_time, sent).await, Ok(Ok(()))) {
                return;
            }
            let Shape::Stream { heartbeat } = self.format.kind().shape else {
                return;
            };
            let woken = tokio::select! {
                woken = self.wait(Some(Instant::now() + heartbeat)) => woken,
                () = pieces.closed() => return,
            };
            match woken {
                Wake::Messages(backlog) => self.format.news(&backlog, &mut piece),
                Wake::Time => {
                    self.format.nothing(self.reader.cursor(), &mut piece);
                }
                Wake::Deleted(channel) => {
                    let cursor = self.reader.cursor();
                    if self.format.deleted(&channel, cursor, &mut piece).is_some() {
                        let _ = timeout(write_time, pieces.send(piece.into())).await;
                        return;
                    }
                }
                Wake::Stop => {
                    self.farewell(self.http.drain.retry(), &mut piece);
                    let _ = pieces.send(piece.into()).await;
                    return;
                }
                Wake::Revoked => {
                    self.farewell(self.http.retry_of_revoked(), &mut piece);
                    let _ = timeout(write_time, pieces.send(piece.into())).await;
                    return;
                }
                Wake::Expired => {
                    self.expired(&mut piece);
                    let _ = timeout(write_time, pieces.send(piece.into())).await;
                    return;
                }
            }
        }
    }

    /// Renders the last bytes of a subscription. There are no messages to send: messages would have ended the wait as
    /// news.
    fn farewell(&self, retry: Duration, out: &mut Vec<u8>) -> Status {
        let nothing = Backlog {
            cursor: self.reader.cursor(),
            ..Backlog::default()
        };
        let backlog = &nothing;
        let end = End::Reconnect { backlog, retry };
        self.format.end(&end, out)
    }

    fn expired(&self, out: &mut Vec<u8>) -> Status {
        let cursor = self.reader.cursor();
        self.format.end(&End::Expired { cursor }, out)
    }

    /// Waits for a backlog or until `deadline`, and moves the cursor.
    async fn wait(&mut self, deadline: Option<Instant>) -> Wake {
        let http = self.http.clone();
        loop {
            // Registered before the checks below, so that a later change is not missed.
            let changed = http.changed.notified();
            if self.is_revoked() {
                return Wake::Revoked;
            }
            if let Some(channel) = self.news.deleted.take() {
                return Wake::Deleted(channel);
            }
            if self.has_expired() {
                return Wake::Expired;
            }
            let expires = match self.reader.ends() {
                RightEnds::At(second) => moment(second),
                RightEnds::Never | RightEnds::Revoked => None,
            };
            let time = [deadline, expires].into_iter().flatten().min();
            let (reader, audience) = (&mut self.reader, &http.audience);
            let backlog = match reader.has_joined() {
                true => reader.read_on(audience, READ_BYTES),
                false => reader.join(audience, &self.news, READ_BYTES),
            };
            if let Some(backlog) = backlog {
                let messages = backlog.messages.len() as u64;
                http.metrics.delivered.add(messages);
                return Wake::Messages(backlog);
            }
            let time = async {
                match time {
                    Some(time) => self.sleep_until(time, expires == Some(time)).await,
                    None => std::future::pending().await,
                }
            };
            let over = tokio::select! {
                biased;
                () = self.news.arrived() => None,
                () = changed => None,
                () = time => Some(Wake::Time),
                () = self.http.drain.leave.cancelled() => Some(Wake::Stop),
            };
            // The system clock was set back, so that the token is valid for longer again.
            let is_early = || deadline.is_none_or(|deadline| Instant::now() < deadline);
            if matches!(over, Some(Wake::Time)) && is_early() {
                continue;
            }
            // Otherwise the next round of the loop finds the reason: a message, the end of the token, or new rights.
            if let Some(over) = over
                && !self.is_revoked()
                && !self.has_expired()
                && !self.has_news()
            {
                return over;
            }
        }
    }

    /// Sleeps until `deadline`. If the deadline is near or is the end of the right, an alarm makes the worker tick in
    /// time.
    async fn sleep_until(&self, deadline: Instant, is_end: bool) {
        let time = deadline.saturating_duration_since(Instant::now());
        if time < SHORT || is_end {
            self.worker.timers.alarm_after(time);
        }
        tokio::time::sleep_until(deadline).await;
    }

    fn has_expired(&self) -> bool {
        self.reader.has_ended(unix_time().as_secs())
    }

    /// Whether new rights no longer permit the subscription. If they do permit it, they hold from now on.
    fn is_revoked(&mut self) -> bool {
        let site = self.http.site();
        if Rc::ptr_eq(&site, &self.site) {
            return false;
        }
        let by_token = self.reader.ends() != RightEnds::Never;
        let channels = self.reader.channels();
        let ends = site.routes.end(&*self.site.routes, channels, by_token);
        if !ends {
            self.site = site;
        }
        ends
    }

    fn has_news(&self) -> bool {
        self.reader.has_news(self.http.audience.hub())
    }
}

impl Drop for StreamSubscription {
    fn drop(&mut self) {
        self.reader.leave(&self.http.audience);
        self.http.metrics.subscribers.sub(1);
        memory::sub_channels(self.reader.channels());
    }
}

/// Wakes the task of the stream when a message is delivered.
#[derive(Default)]
struct News {
    state: RefCell<(bool, Option<Waker>)>,
    deleted: Cell<Option<ChannelName>>,
}

impl News {
    async fn arrived(&self) {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if std::mem::take(&mut state.0) {
                return Poll::Ready(());
            }
            state.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Subscriber for News {
    fn deliver(self: Rc<Self>, feed: &mut Feed<'_>) -> AfterDelivery {
        if let Some(channel) = feed.deleted() {
            self.deleted.set(Some(channel.clone()));
        }
        let mut state = self.state.borrow_mut();
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
        AfterDelivery::Stay
    }
}
