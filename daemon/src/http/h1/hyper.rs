//! Serves requests with hyper: one or more ordinary requests, until the connection waits for the next request, asks for
//! a subscription, or closes.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{Ready, poll_fn, ready},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::{
    Response, StatusCode, body::Incoming, header, http::request::Parts, server::conn::http1,
};

use super::{
    framing::Framing,
    head::{max_head, too_long},
};
use crate::{
    config::HttpConfig,
    connection::Conn,
    http::{
        Http,
        answer::Answer,
        body,
        cors::{Cors, add_cors},
        hold::SubscriptionRequest,
        io::ParkIo,
        refusal::{Reason, Refusal},
        request::Request,
        route::{Asked, Content, Route, Upgrade, when_kept},
        site::{Current, Site},
        writer::Variant,
    },
};

/// How serving with hyper ended.
pub(super) enum Served {
    /// The connection is closed, or has to be closed.
    Closed,
    /// The request is answered. The bytes that were read of the next request.
    Answered(Bytes),
    /// The request ends HTTP on the connection, or HTTP by hyper. The bytes that were read after it.
    Left(AfterHyper, Bytes),
    /// hyper could not read the request. The refusal, after which the connection closes.
    Refused(Bytes),
}

/// What follows on a connection that leaves hyper.
pub(super) enum AfterHyper {
    Subscription(SubscriptionRequest),
    /// With the site whose rights accepted the request.
    Upgrade(Upgrade, Current),
}

/// What the I/O object and the service report to `serve` while hyper runs.
#[derive(Default)]
pub(in crate::http) struct HyperProgress {
    after: RefCell<Option<AfterHyper>>,
    /// hyper has written everything that it had to write.
    pub(in crate::http) clean: Cell<bool>,
    /// Number of requests that have begun and are not answered yet.
    open: Cell<u32>,
    begun: Cell<bool>,
    /// A publish was refused before its body was read. The following bytes are not a request.
    body_left: Cell<bool>,
    /// Bytes follow the head of a POST that announces no body.
    unannounced: bool,
    /// Status of hyper's own answer to a request that hyper cannot read. Our refusal is sent instead of that answer.
    unreadable: Cell<Option<StatusCode>>,
}

impl HyperProgress {
    /// Whether hyper is no longer needed. hyper writes an answer before it waits for anything else.
    fn is_over(&self) -> bool {
        let idle = self.begun.get() && self.open.get() == 0;
        self.clean.get() && (idle || self.after.borrow().is_some())
    }

    /// Whether all requests are answered and the answers are written. Whatever hyper writes now is its own answer to a
    /// request that it cannot read.
    pub(in crate::http) fn is_silent(&self) -> bool {
        self.open.get() == 0 && (self.clean.get() || !self.begun.get())
    }

    /// Remembers the status of hyper's own answer, which has no body. The refusal that is sent instead has this status
    /// and a body.
    pub(in crate::http) fn refuse(&self, answer: &[u8]) {
        let status = answer
            .get("HTTP/1.1 ".len()..)
            .and_then(|rest| rest.get(..3));
        let status = status.and_then(|code| StatusCode::from_bytes(code).ok());
        self.unreadable.set(status);
    }
}

/// Serves the request whose head is at the start of `before`. The rest of its body may still be in the socket.
/// `unannounced`: bytes follow a POST that announces no body.
pub(super) async fn serve(
    conn: Rc<Conn>,
    http: Rc<Http>,
    before: Bytes,
    framing: Framing,
    unannounced: bool,
) -> Served {
    let site = http.site();
    let config = &site.config;
    let progress = Rc::new(HyperProgress {
        body_left: Cell::new(unannounced),
        unannounced,
        ..HyperProgress::default()
    });
    let io = ParkIo {
        conn: conn.clone(),
        before,
        framing: Some(framing),
        progress: Some(progress.clone()),
        activity: None,
    };
    let service = Service {
        conn,
        http,
        progress: progress.clone(),
    };
    let mut hyper = http1::Builder::new()
        .half_close(true) // otherwise hyper holds a second buffer to notice the end
        .writev(false) // one small buffer is faster than two pieces
        .max_buf_size(max_head(config))
        .header_read_timeout(None) // the head was read before
        .serve_connection(io, service);
    let end = poll_fn(|cx| match hyper.poll_without_shutdown(cx) {
        Poll::Ready(end) => Poll::Ready(Some(end)),
        Poll::Pending if progress.is_over() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await;
    let parts = hyper.into_parts();
    match end {
        Some(Err(error)) => {
            if let Some(refusal) =
                unreadable(&error, progress.unreadable.get(), &parts.read_buf, config)
            {
                let refusal = refusal.asked_by(&site, &parts.read_buf);
                return Served::Refused(refusal.into_bytes(&site.origins));
            }
            return Served::Closed;
        }
        Some(Ok(())) => return Served::Closed,
        None if progress.body_left.get() => return Served::Closed,
        // The following bytes may be a part of this request's body.
        None if !parts.io.framing.as_ref().is_none_or(Framing::is_over) => return Served::Closed,
        None => {}
    }
    // A copy, because a slice would keep the whole buffer of hyper alive.
    let mut input = BytesMut::from(&parts.read_buf[..]);
    input.extend_from_slice(&parts.io.before);
    match progress.after.take() {
        Some(after) => Served::Left(after, input.freeze()),
        None => Served::Answered(input.freeze()),
    }
}

/// The refusal for a request that hyper could not read. `None`: the client has just closed the connection.
fn unreadable(
    error: &hyper::Error,
    status: Option<StatusCode>,
    head: &[u8],
    config: &HttpConfig,
) -> Option<Refusal> {
    let status = status?;
    if error.is_parse_too_large() {
        return Some(too_long(head, config));
    }
    let message = format!("this is no HTTP request: {error}");
    Some(Refusal::new(Reason::Unreadable(status), message))
}

struct Service {
    conn: Rc<Conn>,
    http: Rc<Http>,
    progress: Rc<HyperProgress>,
}

/// A request, and what to do about it.
type Routed = (Parts, Result<Route, Refusal>);

/// The answer to one request.
enum Answering {
    /// No answer by hyper: the connection leaves hyper first.
    Waiting,
    Now(Ready<Answer>),
    /// The body is being read, or its first bytes: the answer depends on them.
    Reading(Pin<Box<dyn Future<Output = Routed>>>),
    /// The message is published, and the answer waits until the message is kept.
    Published(Pin<Box<dyn Future<Output = Answer>>>),
}

impl hyper::service::Service<hyper::Request<Incoming>> for Service {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Call;

    fn call(&self, request: hyper::Request<Incoming>) -> Call {
        self.http.metrics.http_requests.add(1);
        self.progress.begun.set(true);
        self.progress.open.set(self.progress.open.get() + 1);
        let (head, body) = request.into_parts();
        let content = match self.progress.unannounced {
            true => Content::Unannounced,
            false => body::content(&body),
        };
        let (conn, http, progress) = (self.conn.clone(), self.http.clone(), self.progress.clone());
        let cors = http.site().origins.of_request(&Request::of(&head));
        let route = route(&http, &head, content);
        Call {
            answering: answering(&http, &progress, (head, route), Some(body)),
            conn,
            http,
            cors,
            progress,
        }
    }
}

fn route(http: &Http, head: &Parts, content: Content<'_>) -> Result<Route, Refusal> {
    let site = http.site();
    site.routes.route(&Asked {
        request: &Request::of(head),
        content,
        site: &site,
        hub: http.audience.hub(),
    })
}

/// Starts the answer to a request. `body` is `None` after the body was looked at or read.
fn answering(
    http: &Rc<Http>,
    progress: &Rc<HyperProgress>,
    (head, route): Routed,
    body: Option<Incoming>,
) -> Answering {
    let site = http.site();
    match (route, body) {
        (Ok(Route::Answer(answer)), _) => Answering::Now(ready(answer)),
        (Ok(Route::Look), Some(body)) => {
            let (http, progress) = (http.clone(), progress.clone());
            Answering::Reading(Box::pin(look(http, progress, head, body)))
        }
        (Ok(Route::Body(then)), Some(mut body)) => {
            let (http, progress) = (http.clone(), progress.clone());
            Answering::Reading(Box::pin(async move {
                let data = body::read(&site, &mut body).await;
                let hub = http.audience.hub();
                let route = data.and_then(|data| then(&site, hub, &data));
                progress.body_left.set(route.is_err());
                (head, route)
            }))
        }
        (Ok(Route::Look | Route::Body(_)), None) => unreachable!("the body is read once"),
        (Ok(Route::Published(receipt, answer)), _) => {
            Answering::Published(Box::pin(when_kept(receipt, answer)))
        }
        (Ok(Route::Hold(subscription)), _) => {
            let request = Request::of(&head);
            let variant = Variant {
                close: request.wants_close(),
                chunked: head.version == hyper::Version::HTTP_11
                    && subscription.handshake.is_none(),
                cors: site.origins.of_request(&request),
            };
            *progress.after.borrow_mut() = Some(AfterHyper::Subscription(SubscriptionRequest {
                subscription,
                variant,
                site,
            }));
            Answering::Waiting
        }
        (Ok(Route::Upgrade(upgrade)), _) => {
            *progress.after.borrow_mut() = Some(AfterHyper::Upgrade(upgrade, site));
            Answering::Waiting
        }
        (Err(refusal), _) => {
            let refusal = refusal.to(&site, &Request::of(&head));
            Answering::Now(ready(refusal.into_answer()))
        }
    }
}

/// Reads the first bytes of the body, then asks again what to do.
async fn look(http: Rc<Http>, progress: Rc<HyperProgress>, head: Parts, body: Incoming) -> Routed {
    let content = body::look(&http.site(), body).await;
    let is_empty = matches!(content, Ok(Content::Empty));
    progress.body_left.set(!is_empty);
    let route = content.and_then(|content| route(&http, &head, content));
    (head, route)
}

/// The future that `Service` returns. It has a name because hyper must be able to move it.
struct Call {
    answering: Answering,
    conn: Rc<Conn>,
    http: Rc<Http>,
    cors: Cors,
    progress: Rc<HyperProgress>,
}

impl Future for Call {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let me = &mut *self;
        let answer = loop {
            break match &mut me.answering {
                Answering::Waiting => return Poll::Pending,
                Answering::Now(answer) => std::task::ready!(Pin::new(answer).poll(cx)),
                Answering::Published(answer) => std::task::ready!(answer.as_mut().poll(cx)),
                Answering::Reading(reading) => {
                    let routed = std::task::ready!(reading.as_mut().poll(cx));
                    me.answering = answering(&me.http, &me.progress, routed, None);
                    continue;
                }
            };
        };
        self.progress.open.set(self.progress.open.get() - 1);
        self.progress.clean.set(false); // until hyper has flushed it
        let close = self.conn.worker().is_stopping() || self.progress.body_left.get();
        Poll::Ready(Ok(finish(answer, &self.http.site(), self.cors, close)))
    }
}

fn finish(answer: Answer, site: &Site, cors: Cors, close: bool) -> Response<Full<Bytes>> {
    let mut answer = answer.into_response();
    add_cors(answer.headers_mut(), cors, &site.origins);
    if close {
        answer.headers_mut().insert(
            header::CONNECTION,
            header::HeaderValue::from_static("close"),
        );
    }
    answer.map(Full::new)
}
