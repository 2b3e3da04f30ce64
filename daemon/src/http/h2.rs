//! HTTP/2 in cleartext (RFC 9113, section 3.3), as reverse proxies speak it. hyper serves the connection for as long as
//! it lives. A subscription is one stream of the connection.

pub(super) mod streams;

use std::{
    cell::RefCell,
    convert::Infallible,
    error::Error,
    future::poll_fn,
    io::ErrorKind,
    pin::Pin,
    rc::Rc,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Method, Response, StatusCode,
    body::{Body, Frame, Incoming},
    header::{self, HeaderValue},
    http::request::Parts,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::TokioTimer;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tracing::warn;

use streams::Activity;
use streams::Streams;

use super::{
    Http,
    answer::Answer,
    body,
    cors::add_cors,
    date::unix_time,
    io::ParkIo,
    refusal::Refusal,
    request::Request,
    route::{Asked, Route, when_kept},
    site::Current,
    writer::header_of_status,
};
use crate::{
    connection::{
        Conn, Worker,
        memory::{self, Hold},
    },
    hub::{
        Backlog, READ_BYTES, Reader, RightEnds,
        subscriber::{AfterDelivery, Feed, Subscriber},
    },
    log_limit::LogLimit,
    transport::{Channels, End, Format, Shape, Status, Subscription},
    worker::SHORT,
};

/// The largest number of requests that one connection may have open at the same time.
const MAX_STREAMS: u32 = 128;

/// How long a stream stays open after its answer when the request's body was not read to the end.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// Number of streams that a client may reset before they are answered. One more ends the connection ("rapid reset"
/// attack).
const MAX_RESETS: usize = 20;

/// Flow-control windows in bytes: what a client may send unread of one body, and of all bodies of a connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;

/// Size in bytes of the largest frame, and of the largest piece that is handed to HTTP/2 at once. Such a piece may wait
/// there for the client's window.
const FRAME: u32 = 16 << 10;

/// Serves one connection whose first bytes are `before`.
pub(super) async fn serve(conn: Rc<Conn>, http: Rc<Http>, before: Bytes) {
    let worker = conn.worker().clone();
    let site = http.site();
    let config = &site.config;
    let _hold = Hold::new(memory::H2_CONNECTION);
    let activity = Rc::<Activity>::default();
    let io = ParkIo {
        conn,
        before,
        framing: None,
        phase: None,
        activity: Some(activity.clone()),
    };
    let of_request = http.clone();
    let service = service_fn(move |request| respond(of_request.clone(), worker.clone(), request));
    let streams = Streams {
        activity: activity.clone(),
        write_time: config.write_time,
    };
    let connection = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .max_header_list_size(u32::try_from(config.max_header).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(FRAME as usize)
        // A silent client is probed with a ping.
        .keep_alive_interval(config.heartbeat)
        .keep_alive_timeout(config.write_time)
        .serve_connection(io, service);
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => {
            if let Err(error) = ended {
                note_end(&http, &error);
            }
            return;
        }
        () = activity.is_idle(config.idle) => {
            connection.as_mut().graceful_shutdown();
            // A client that does not read the end either is cut after `write_time`.
            let _ = timeout(config.write_time, connection).await;
            return;
        }
        () = http.drain.leave.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Counts a connection that ended by a fault of the client. Logs at most one line a minute, because clients can cause
/// such ends without a limit.
fn note_end(http: &Http, error: &hyper::Error) {
    static LINES: Mutex<LogLimit> = Mutex::new(LogLimit::new());
    let Some(cause) = error.source().and_then(|e| e.downcast_ref::<h2::Error>()) else {
        return;
    };
    // `Activity::note_bytes` gives this error for a flood of frames that ask for nothing.
    let is_flood = cause
        .get_io()
        .is_some_and(|io| io.kind() == ErrorKind::ConnectionAborted);
    let is_fault = cause.is_go_away() && cause.is_library();
    if !(is_flood || is_fault) {
        return;
    }
    http.metrics.http2_broken.add(1);
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.is_due(Instant::now().into_std()) {
        warn!(
            "an HTTP/2 client broke the protocol or one of its limits, and its connection was ended: {cause}; further ones \
             of this minute are only counted (comet_http2_broken_total)"
        );
    }
}

async fn respond(
    http: Rc<Http>,
    worker: Rc<Worker>,
    request: hyper::Request<Incoming>,
) -> Result<Response<Pieces>, Infallible> {
    let site = http.site();
    site.metrics.http_requests.add(1);
    let (head, body) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let cors = site.origins.of_request(&Request::of(&head));
    let mut response = match http.is_full() {
        true => whole(
            Refusal::no_memory()
                .to(&site, &Request::of(&head))
                .into_answer(),
            is_head,
        ),
        false => serve_stream(&http, worker, &head, body).await,
    };
    add_cors(response.headers_mut(), cors, &site.origins);
    if is_head {
        *response.body_mut() = Pieces::one(Bytes::new()); // hyper would send the body
    }
    Ok(response)
}

/// The answer to one request.
async fn serve_stream(
    http: &Rc<Http>,
    worker: Rc<Worker>,
    head: &Parts,
    body: Incoming,
) -> Response<Pieces> {
    let (site, hub) = (http.site(), http.audience.hub());
    let request = &Request::of(head);
    let ask = |content| {
        site.routes.route(&Asked {
            request,
            content,
            site: &site,
            hub,
        })
    };
    let mut route = ask(body::content(&body));
    let mut body = Some(body);
    let answer = loop {
        route = match (route, body.take()) {
            (Ok(Route::Look), Some(body)) => body::look(&site, body).await.and_then(&ask),
            (Ok(Route::Body(then)), Some(mut unread)) => {
                let data = body::read(&site, &mut unread).await;
                body = Some(unread);
                data.and_then(|data| then(&site, &data))
            }
            (Ok(Route::Look | Route::Body(_)), None) => unreachable!("the body is read once"),
            (Ok(Route::Hold(subscription)), _) => {
                return hold(http.clone(), worker, subscription).await;
            }
            (Ok(Route::Answer(answer)), _) => break answer,
            (Ok(Route::Published(receipt, answer)), unread) => {
                body = unread;
                break when_kept(receipt, answer).await;
            }
            (Err(refusal), unread) => {
                body = unread;
                break refusal.to(&site, request).into_answer();
            }
        };
    };
    keep_open(body);
    whole(answer, head.method == Method::HEAD)
}

/// Keeps a stream open for a while when its request was answered before the body was read to the end. Otherwise the
/// stream would be reset at once (RFC 9113, section 8.1), and curl drops the answer when both arrive together.
fn keep_open(body: Option<Incoming>) {
    if let Some(body) = body.filter(|body| !body.is_end_stream()) {
        tokio::task::spawn_local(async move {
            tokio::time::sleep(ANSWER_TIME).await;
            drop(body);
        });
    }
}

/// Completes an answer whose length is known. The answer to `HEAD` states the length that `GET` would have, except for
/// a stream, which has none.
fn whole(answer: Answer, is_head: bool) -> Response<Pieces> {
    let (has_body, length) = (answer.has_body(), answer.body.len());
    let mut response = answer.into_response();
    if has_body && !(is_head && length == 0) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    response.map(Pieces::one)
}

async fn hold(http: Rc<Http>, worker: Rc<Worker>, subscription: Subscription) -> Response<Pieces> {
    let kind = subscription.format.kind();
    let mut held = Held::new(http, worker, subscription);
    match kind.shape {
        Shape::Poll => {
            let mut body = Vec::new();
            let status = held.poll(&mut body).await.into();
            let mut answer = Answer::new(status, kind.media_type, memory::keep(body));
            if kind.has_etag {
                answer = answer.with_cursor(held.reader.cursor());
            }
            if let Some((name, value)) = header_of_status(status) {
                answer = answer.with(name, HeaderValue::from_static(value));
            }
            whole(answer, false)
        }
        Shape::Stream { .. } => {
            // At most one piece is queued. The client's flow-control window bounds what a slow reader holds.
            let (pieces, body) = mpsc::channel(1);
            tokio::task::spawn_local(async move { held.stream(pieces).await });
            let answer = Answer::new(StatusCode::OK, kind.media_type, "");
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
struct Held {
    http: Rc<Http>,
    worker: Rc<Worker>,
    reader: Reader<Channels>,
    format: Box<dyn Format>,
    /// The longest wait of a poll. `None`: without a limit.
    wait: Option<Duration>,
    bell: Rc<Bell>,
    /// The site whose access rights permit the subscription.
    site: Current,
}

/// Why a wait has ended.
enum Wake {
    News(Backlog),
    Time,
    Stop,
    Expired,
    Revoked,
}

impl Held {
    fn new(http: Rc<Http>, worker: Rc<Worker>, subscription: Subscription) -> Self {
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
            bell: Rc::default(),
            site,
        }
    }

    /// Waits for the answer of a poll. Appends the body and returns the status.
    async fn poll(&mut self, body: &mut Vec<u8>) -> Status {
        let deadline = self.wait.map(|wait| Instant::now() + wait);
        match self.wait(deadline).await {
            Wake::News(backlog) => self.format.news(&backlog, body),
            Wake::Time => self.format.nothing(self.reader.cursor(), body),
            Wake::Stop => return self.farewell(self.http.drain.retry(), body),
            Wake::Revoked => return self.farewell(self.http.retry_of_revoked(), body),
            Wake::Expired => return self.expired(body),
        }
        Status::Ok
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
                Wake::News(backlog) => self.format.news(&backlog, &mut piece),
                Wake::Time => self.format.nothing(self.reader.cursor(), &mut piece),
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
                false => reader.join(audience, &self.bell, READ_BYTES),
            };
            if let Some(backlog) = backlog {
                let messages = backlog.messages.len() as u64;
                http.metrics.delivered.add(messages);
                return Wake::News(backlog);
            }
            let time = async {
                match time {
                    Some(time) => self.sleep_until(time, expires == Some(time)).await,
                    None => std::future::pending().await,
                }
            };
            let over = tokio::select! {
                biased;
                () = self.bell.rung() => None,
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

impl Drop for Held {
    fn drop(&mut self) {
        self.reader.leave(&self.http.audience);
        self.http.metrics.subscribers.sub(1);
        memory::sub_channels(self.reader.channels());
    }
}

/// Wakes the task of the stream when a message is delivered.
#[derive(Default)]
struct Bell {
    state: RefCell<(bool, Option<Waker>)>,
}

impl Bell {
    async fn rung(&self) {
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

impl Subscriber for Bell {
    fn deliver(self: Rc<Self>, _feed: &mut Feed<'_>) -> AfterDelivery {
        let mut state = self.state.borrow_mut();
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
        AfterDelivery::Stay
    }
}

/// The body of an answer: pieces, sent as they arrive.
struct Pieces {
    coming: mpsc::Receiver<Bytes>,
    /// The unsent rest of the last piece.
    rest: Bytes,
}

impl Pieces {
    fn new(coming: mpsc::Receiver<Bytes>) -> Self {
        let rest = Bytes::new();
        Self { coming, rest }
    }

    fn one(rest: Bytes) -> Self {
        let (_, coming) = mpsc::channel(1);
        Self { coming, rest }
    }

    /// The next bytes for HTTP/2, at most one frame. A part of a piece is copied, so that a waiting frame does not keep
    /// the whole piece in memory.
    fn next(&mut self) -> Bytes {
        let frame = FRAME as usize;
        if self.rest.len() <= frame {
            return std::mem::take(&mut self.rest);
        }
        memory::keep(self.rest.split_to(frame).to_vec())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // hyper asks for the next frame when the client has taken the previous one.
        streams::take_note(false);
        if self.rest.is_empty() {
            let Some(piece) = ready!(self.coming.poll_recv(cx)) else {
                return Poll::Ready(None);
            };
            self.rest = piece;
        }
        streams::take_note(true);
        Poll::Ready(Some(Ok(Frame::data(self.next()))))
    }
}
