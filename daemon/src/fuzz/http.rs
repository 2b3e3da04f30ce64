//! Properties of requests. The plain path and hyper must read every request in the same way. Otherwise a proxy and the
//! daemon could disagree about where a request ends, which makes request smuggling possible.

use std::{
    cell::RefCell,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, LazyLock, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use comet_proto::{ChannelName, ChannelNames, Cursor, Since};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Response, Uri,
    body::Incoming,
    header::HeaderValue,
    http::request::Parts,
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};

use super::{token::KEY, urls::decoded};
use crate::{
    access::{Rights, hosts},
    api::{Api, entity_tag, parameters},
    broker::{Broker, Local, Receipt, SourceKind},
    compat,
    config::Config,
    drain::Drain,
    http::{
        Ceiling, Origins, Site,
        h1::{
            framing::{Framing, Malformed},
            head::{self, Plain, no_lines},
        },
        query::Query,
        refusal::Refusal,
        request::{Headers, Request},
        route::{Asked, Content, Route},
    },
    hub::{HistoryConfig, Hub, NewMessage},
    presence::LocalPresence,
    transport::Transport,
};

/// The list of channels in a path, or the code of the refusal.
pub(crate) fn channels(names: &str) -> Result<Vec<ChannelName>, String> {
    parameters::channels(names)
        .map(|names| names.to_vec())
        .map_err(code)
}

/// `Last-Event-ID`.
pub(crate) fn last_event_id(request: &Request<'_>) -> Result<Option<Since>, String> {
    parameters::last_event_id(request, &Query::of(request)).map_err(code)
}

/// `If-None-Match`.
pub(crate) fn entity_tag(request: &Request<'_>) -> Option<Since> {
    entity_tag::cursor(request)
}

/// The code of a refusal: the part of the request that is wrong.
fn code(refusal: Refusal) -> String {
    let answer = refusal.into_answer();
    assert!(answer.status.is_client_error());
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_ne!(body["message"].as_str().expect("text"), "");
    body["error"].as_str().expect("text").to_owned()
}

/// A query has the pairs of the URL standard, and a parameter has the value of its last pair.
pub(crate) fn query(bytes: &[u8]) {
    let uri = str::from_utf8(bytes)
        .ok()
        .map(|text| format!("/ch/a?{text}"));
    let Some(uri) = uri.and_then(|uri| uri.parse::<Uri>().ok()) else {
        return;
    };
    let request = Request::new(
        Method::GET,
        uri.path_and_query().expect("a path").as_str(),
        &[],
    );
    let text = request.query.unwrap_or_default();
    let expected: Option<Vec<(String, String)>> = text
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(pair)
        .collect();
    let read = parameters::query(&request).map_err(code);
    match (read, expected) {
        (Ok(query), Some(expected)) => {
            assert_eq!(owned(&query), expected);
            check_parameters(&query, &expected);
        }
        (Err(code), None) => assert_eq!(code, "query"),
        (read, expected) => panic!("{:?}, not {expected:?}", read.map(|query| owned(&query))),
    }
}

fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Some((decoded(name)?, decoded(value)?))
}

fn owned(query: &Query<'_>) -> Vec<(String, String)> {
    let pairs = query.pairs();
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn check_parameters(query: &Query<'_>, pairs: &[(String, String)]) {
    let given = |name: &str| {
        pairs
            .iter()
            .rfind(|(known, _)| known == name)
            .map(|(_, value)| &**value)
    };
    let wait = given("wait").map_or(Some(25), |text| {
        text.parse::<u32>().ok().filter(|wait| *wait <= 60)
    });
    let read = parameters::wait(query).map_err(code);
    assert_eq!(
        read.ok().map(|wait| wait.as_secs_f64()),
        wait.map(f64::from)
    );
    let since = pairs
        .iter()
        .rfind(|(name, value)| name == "since" && !value.is_empty());
    let since = since.map(|(_, value)| Since::parse(value)).transpose();
    assert_eq!(parameters::since(query).map_err(code).ok(), since.ok());
    let transport = given("as").map(|name| Transport::parse(name).ok_or("as".to_owned()));
    assert_eq!(
        parameters::transport(query).map_err(code),
        transport.transpose()
    );
    let label = parameters::event_name(query).map_err(code);
    assert!(
        label.is_err()
            || label.is_ok_and(|label| label.as_str() == given("name").unwrap_or_default())
    );
    assert!(parameters::callback(query).map_err(code).is_err() || given("callback").is_some());
}

/// The bytes of a connection. However they are cut, a request has the same end and the same meaning for the plain path, for
/// the framing before hyper, and for hyper. A request is answered only within its rights.
pub(crate) fn head(bytes: &[u8]) {
    let config = &CONFIG.http;
    let mut rest = bytes;
    loop {
        let framed = Extent::of(rest, usize::MAX);
        assert_eq!(framed, Extent::of(rest, 1));
        let mut lines = no_lines();
        let plain = head::plain(rest, &mut lines, config);
        let Ok(Some(framed)) = framed else {
            return assert!(plain.is_none());
        };
        let whole = request(rest, framed);
        if let Some(plain) = &plain {
            assert_eq!(framed, Extent::whole(plain.length));
            check_same(plain, whole.as_ref().expect("hyper takes it, too"));
        }
        let Some((head, _)) = whole else {
            return;
        };
        let request = Request::of(&head);
        check_route(&request);
        if request.wants_close() {
            return;
        }
        rest = &rest[framed.length..];
    }
}

/// The number of bytes of a request, and whether it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    length: usize,
    is_whole: bool,
}

impl Extent {
    /// The extent of the first request by the framing, which gets the body in pieces of `cut` bytes. `None`: the head is not
    /// complete.
    fn of(bytes: &[u8], cut: usize) -> Result<Option<Self>, Malformed> {
        let Some(mut framing) = Framing::read(bytes)? else {
            return Ok(None);
        };
        let mut length = 0;
        while !framing.is_over() && length < bytes.len() {
            let rest = &bytes[length..];
            length += framing.take(&rest[..cut.min(rest.len())])?;
        }
        Ok(Some(Self {
            length,
            is_whole: framing.is_over(),
        }))
    }

    fn whole(length: usize) -> Self {
        Self {
            length,
            is_whole: true,
        }
    }
}

/// A request that hyper has read: its head and its body.
type Whole = (Parts, Bytes);

/// The request at the start of `bytes` as hyper reads it. The bytes after it must make no difference.
fn request(bytes: &[u8], framed: Extent) -> Option<Whole> {
    let alone = by_hyper(&bytes[..framed.length]);
    assert!(alone.len() <= usize::from(framed.is_whole));
    let among = by_hyper(bytes);
    assert_eq!(
        format!("{:?}", alone.first()),
        format!("{:?}", among.first())
    );
    alone.into_iter().next()
}

/// Both views show the same request: the method, the URL, the values of every header in their order, and the body.
fn check_same(plain: &Plain<'_>, (head, body): &Whole) {
    let (one, other) = (&plain.request, &Request::of(head));
    assert_eq!(one.method, other.method);
    assert_eq!(one.version, other.version);
    assert_eq!((one.path, one.query), (other.path, other.query));
    assert_eq!(one.authority, other.authority);
    assert_eq!(plain.body, body);
    let Headers::Lines(lines, _) = one.headers else {
        panic!("a plain request has lines");
    };
    assert_eq!(lines.len(), head.headers.len());
    for line in lines {
        let mut all = lines
            .iter()
            .filter(|other| other.name.eq_ignore_ascii_case(line.name));
        let same = |value| all.next().is_some_and(|line| line.value == value);
        let values = head.headers.get_all(line.name).iter();
        assert!(values.map(HeaderValue::as_bytes).all(same), "{}", line.name);
    }
    assert_eq!(one.header_length(), other.header_length());
    assert_eq!(one.url_length(), other.url_length());
    assert_eq!(meaning(one), meaning(other));
}

/// What a request asks for, as text. The clock does not advance.
fn meaning(request: &Request<'_>) -> String {
    let hub = Hub::with_clock(HistoryConfig::default(), 1, || 1_763_690_000_000_000);
    let (site, recorder) = site(&hub);
    let (closes, cors) = (request.wants_close(), site.origins.of_request(request));
    let route = match route(&site, &hub, request) {
        // Other tests change the figures meanwhile.
        Ok(Route::Answer(answer)) => format!("{:?} {:?}", answer.status, answer.headers),
        Ok(Route::Look) => "look".to_owned(),
        Ok(Route::Upgrade(_)) => "upgrade".to_owned(),
        Ok(Route::Hold(held)) => {
            let kind = held.format.kind();
            // The clock's next heartbeat depends on the time.
            let mut headers = Vec::new();
            held.format.headers(Cursor(1), &[], &mut |name, value| {
                headers.push((name, value.to_vec()));
            });
            let kind = (kind.is_poll(), headers, kind.form);
            format!(
                "{:?} {:?} {:?} {:?} {kind:?}",
                held.channels, held.since, held.wait, held.gap
            )
        }
        Ok(Route::Body(_)) => "body".to_owned(),
        Ok(Route::Published(_, answer)) => format!("{:?} {:?}", recorder.take(), answer(1)),
        Err(refusal) => code(refusal),
    };
    format!("{closes} {cors:?} {route}")
}

fn route(site: &Site, hub: &Hub, request: &Request<'_>) -> Result<Route, Refusal> {
    site.routes.route(&Asked {
        request,
        content: Content::Empty,
        site,
        hub,
    })
}

fn check_route(request: &Request<'_>) {
    let hub = Hub::new(HistoryConfig::default(), 1);
    let (site, recorder) = site(&hub);
    let has_token = format!("{request:?}").contains(TOKEN);
    let is_open = |channel: &ChannelName| {
        !channel.starts_with("shut") && (has_token || !channel.starts_with("sealed"))
    };
    let route = route(&site, &hub, request);
    let decoded = percent_encoding::percent_decode_str(request.path);
    if !decoded.eq(*b"/healthz") && hosts::is_meant(request, &CONFIG.http.hosts).is_err() {
        return assert_eq!(route.map_err(code).err().as_deref(), Some("host"));
    }
    match route {
        // hyper leaves out the body of an answer to HEAD, and a request that waits has no answer yet.
        Ok(Route::Answer(answer)) if request.method != Method::HEAD => {
            let json = serde_json::from_slice::<serde_json::Value>(&answer.body);
            assert!(answer.content_type != Some("application/json") || json.is_ok());
        }
        Ok(Route::Answer(_) | Route::Upgrade(_)) => {}
        Ok(Route::Look | Route::Body(_)) => panic!("it is known that the body is empty"),
        Ok(Route::Hold(subscription)) => {
            let is_poll = subscription.format.kind().is_poll();
            assert!(is_poll || subscription.wait.is_none());
            assert!(subscription.channels.len() <= comet_proto::MAX_CHANNELS);
            assert!(subscription.channels.iter().all(is_open));
        }
        Ok(Route::Published(receipt, _)) => {
            let published = recorder.take().expect("one message");
            assert!(published.channels.iter().all(is_open));
            return assert_eq!(receipt.id(), Some(hub.last().0));
        }
        Err(refusal) => assert_ne!(code(refusal), ""),
    }
    assert!(recorder.take().is_none(), "published without a receipt");
}

/// A broker that notes what it publishes.
pub(crate) struct Recorder {
    broker: Arc<Local>,
    last: Mutex<Option<Published>>,
}

#[derive(Debug)]
pub(crate) struct Published {
    pub(super) channels: ChannelNames,
    /// Label, data, attributes and key.
    #[expect(dead_code, reason = "compared as text")]
    rest: String,
}

impl Recorder {
    /// The message that was published last.
    pub(super) fn take(&self) -> Option<Published> {
        self.last.lock().expect("no panic before").take()
    }
}

impl Broker for Recorder {
    fn publish(&self, source: SourceKind, new: NewMessage<'_>) -> Receipt {
        let key = new.key.as_ref().map(|key| key.key);
        *self.last.lock().expect("no panic before") = Some(Published {
            channels: new.channels.clone(),
            rest: format!("{:?} {:?} {:?} {key:?}", new.name, new.data, new.attributes),
        });
        self.broker.publish(source, new)
    }

    fn delete(&self, channel: &ChannelName) -> Receipt {
        self.broker.delete(channel)
    }

    fn changed(&self, id: u64) -> Receipt {
        self.broker.changed(id)
    }

    fn acknowledges_at_once(&self) -> bool {
        self.broker.acknowledges_at_once()
    }
}

/// All channels are open, except those that begin with `shut`, and those that begin with `sealed`, which need a token.
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let rules = "http = { publish = true, hosts = [\"x\"] }\nauth.query = true\ncompat.nchan = {}\nchannel = [\
        { prefix = \"shut\", read = \"closed\", publish = \"closed\" },\
        { prefix = \"sealed\", read = \"token\", publish = \"token\" }]\n";
    Config::parse(&[rules, KEY].concat()).expect("a configuration")
});

static API: LazyLock<Arc<Api>> = LazyLock::new(|| {
    let rights = Rights::new(&CONFIG).expect("a key");
    Arc::new(Api::new(
        rights.into(),
        None,
        compat::endpoints(&CONFIG.compat),
    ))
});

pub(crate) fn site(hub: &Arc<Hub>) -> (Site, Arc<Recorder>) {
    let recorder = Arc::new(Recorder {
        broker: Local::new(hub.clone()),
        last: Mutex::default(),
    });
    let site = Site {
        routes: API.clone(),
        origins: Origins::new(&CONFIG.http.origins, None),
        config: CONFIG.http.clone(),
        max_connections: 1,
        ceiling: Ceiling::new(None),
        broker: recorder.clone(),
        presence: LocalPresence::new(hub.clone(), recorder.clone(), false),
        metrics: Arc::default(),
        drain: Drain::default(),
    };
    (site, recorder)
}

/// The only token, signed with our key, that is part of this source code.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJjb21ldCIsImV4cCI6OWU5LCJjb21ldCI6eyJzIjpbIioiXSwicCI6WyIqIl19fQ.D4icH0PCAqUKeuSR7FyNjJvJV1X5KDdc7sNLUO0ksjA";

/// All requests that hyper finds in a connection's bytes, with the settings of `service`.
fn by_hyper(bytes: &[u8]) -> Vec<Whole> {
    let requests: Rc<RefCell<Vec<Whole>>> = Rc::default();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let requests = requests.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            requests.borrow_mut().push((head, body));
            Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::default()))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .half_close(true)
            .writev(false)
            .max_buf_size(head::max_head(&CONFIG.http))
            .serve_connection(Wire { input: bytes }, service)
    );
    // Nothing waits here: the input has an end, and written bytes are discarded.
    let mut context = Context::from_waker(Waker::noop());
    while connection.as_mut().poll(&mut context).is_pending() {}
    requests.take()
}

/// A client that has sent everything, and reads everything.
pub(crate) struct Wire<'a> {
    pub(crate) input: &'a [u8],
}

impl Read for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let (read, rest) = self.input.split_at(self.input.len().min(buf.remaining()));
        buf.put_slice(read);
        self.input = rest;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
