//! HTTP/2 in cleartext (RFC 9113, section 3.3), as reverse proxies speak it. hyper serves the connection for as long as
//! it lives. A subscription is one stream of the connection.

mod hold;
mod pieces;
pub(super) mod streams;

use std::{
    convert::Infallible,
    error::Error,
    io::ErrorKind,
    rc::Rc,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Method, Response,
    body::{Body, Incoming},
    http::request::Parts,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::{
    Http, body,
    cors::add_cors,
    io::ParkIo,
    refusal::Refusal,
    request::Request,
    route::{Asked, Route, when_kept},
    upgrade::HandshakeError,
};
use crate::{
    connection::{Conn, Worker, memory::Hold},
    log_limit::LogLimit,
};
use hold::hold;
use pieces::{FRAME, Pieces, whole};
use streams::{Activity, Streams};

/// Bytes that hyper uses for one HTTP/2 connection.
const CONNECTION_BYTES: usize = 32 << 10;

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

/// Serves one connection whose first bytes are `before`.
pub(super) async fn serve(conn: Rc<Conn>, http: Rc<Http>, before: Bytes) {
    let worker = conn.worker().clone();
    let site = http.site();
    let config = &site.config;
    let _hold = Hold::new(CONNECTION_BYTES);
    let activity = Rc::<Activity>::default();
    let io = ParkIo {
        conn,
        before,
        framing: None,
        progress: None,
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
                data.and_then(|data| then(&site, hub, &data))
            }
            (Ok(Route::Look | Route::Body(_)), None) => unreachable!("the body is read once"),
            (Ok(Route::Hold(subscription)), _) => {
                return hold(http.clone(), worker, subscription).await;
            }
            (Ok(Route::Answer(answer)), _) => break answer,
            // HTTP/2 has no upgrades, so the handshake was refused before.
            (Ok(Route::Upgrade(_)), _) => {
                break Refusal::bad("websocket", HandshakeError::Upgrade).into_answer();
            }
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
