//! Compares the strict reading with the readings of httparse and hyper for the same bytes.

use std::{
    cell::RefCell,
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context, Waker},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use proptest::prelude::*;

use super::*;
use crate::{
    config::HttpConfig,
    fuzz::http::Wire,
    http::{h1::head, request::Headers},
};

/// How hyper has read one request.
#[derive(Debug, Clone, Default, PartialEq)]
struct Seen {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    /// `None`: hyper could not read the body.
    body: Option<Vec<u8>>,
}

/// The requests that hyper reads from `input`, with the limits that the daemon sets.
fn by_hyper(input: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let noted = seen.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let noted = noted.clone();
        async move {
            let (head, body) = request.into_parts();
            let headers = head.headers.iter();
            let headers = headers.map(|(n, v)| (n.to_string(), v.as_bytes().to_vec()));
            let one = Seen {
                method: head.method.to_string(),
                url: head.uri.to_string(),
                headers: headers.collect(),
                body: body.collect().await.ok().map(|body| body.to_bytes().into()),
            };
            noted.borrow_mut().push(one);
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    });
    let mut hyper = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .serve_connection(Wire { input }, service);
    // The connection waits for nothing but its input.
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1000 {
        if Pin::new(&mut hyper).poll(&mut cx).is_ready() {
            break;
        }
    }
    drop(hyper);
    seen.take()
}

/// The length of the request that begins `input`, if it is complete.
fn by_framing(input: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(mut framing) = Framing::read(input)? else {
        return Ok(None);
    };
    let mut taken = 0;
    while !framing.is_over() && taken < input.len() {
        taken += framing.take(&input[taken..])?;
    }
    Ok(framing.is_over().then_some(taken))
}

/// Asserts, for any bytes, that the readings agree.
fn agree(input: &[u8]) {
    let mut lines = head::no_lines();
    let plain = head::plain(input, &mut lines, &HttpConfig::default());
    let framed = by_framing(input);
    // A request that is served without hyper must end where the strict reading says.
    if let Some(plain) = &plain {
        assert_eq!(framed, Ok(Some(plain.length)), "{input:?}");
    }
    let Ok(Some(length)) = framed else {
        return; // refused or incomplete: hyper gets none of it
    };
    // hyper must find the end after the last byte, and an incomplete request before it.
    let seen = by_hyper(&input[..length]);
    if let Some(plain) = plain {
        let [seen] = &seen[..] else {
            panic!("hyper reads {seen:?} where there is one");
        };
        assert_eq!(seen.body.as_deref(), Some(plain.body));
        let request = plain.request;
        assert_eq!(seen.method, request.method.as_str());
        let query = request.query.map(|query| format!("?{query}"));
        assert_eq!(
            seen.url,
            request.path.to_owned() + &query.unwrap_or_default()
        );
        let Headers::Lines(lines, _) = request.headers else {
            panic!("a plain request has lines");
        };
        let ours = lines
            .iter()
            .map(|line| (line.name.to_lowercase(), line.value.to_vec()));
        let (mut ours, mut theirs) = (ours.collect::<Vec<_>>(), seen.headers.clone());
        // hyper's map keeps the order among headers with one name only.
        ours.sort_by(|(one, _), (other, _)| one.cmp(other));
        theirs.sort_by(|(one, _), (other, _)| one.cmp(other));
        assert_eq!(ours, theirs);
    }
    // hyper may refuse more requests. A request that hyper reads must be one, with a complete body.
    match &seen[..] {
        [] => {}
        [one] => assert!(one.body.is_some(), "{input:?}: {one:?}"),
        more => panic!("{input:?} is one request: {more:?}"),
    }
    if let ([_], Some(short)) = (&seen[..], length.checked_sub(1)) {
        let cut = by_hyper(&input[..short]);
        assert!(
            cut.iter().all(|one| one.body.is_none()),
            "{input:?}: {cut:?}"
        );
    }
}

/// Parts from which the test builds valid and malformed requests.
const PARTS: &[&str] = &[
    "GET ",
    "POST ",
    "HEAD ",
    "/ch/a",
    "/ch/a,b?since=1&wait=2",
    "http://h/ch/a",
    "/comet.php?a[%62]='1'+(2);!$*&c=@:~",
    "/ch/a#b",
    "*",
    "?",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    " HTTP/1.1\n",
    "\r\n",
    "\n",
    "\r",
    "Host: localhost\r\n",
    "Host : x\r\n",
    " folded\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 0\r\n",
    "content-length:003\r\n",
    "Content-Length: 3, 3\r\n",
    "Content-Length: +3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "transfer-encoding:\tCHUNKED \r\n",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "X: \u{e9}\r\n",
    "Accept: text/event-stream\r\n",
    "Origin: o\r\n",
    "Idempotency-Key: k\r\n",
    "3\r\nabc\r\n",
    "3;e=\"x\"\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nT: x\r\n\r\n",
    "abc",
    "a",
    "\0",
    "\t",
    "Upgrade: websocket\r\n",
];

/// Bytes that are mostly a request, with an error here and there.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let part = proptest::sample::select(PARTS).prop_map(str::as_bytes);
    let middle = proptest::collection::vec(part.clone(), 0..6);
    let end = proptest::collection::vec(part, 0..6);
    let starts: &[&str] = &[
        "GET /ch/a HTTP/1.1\r\n",
        "POST /ch/a?name=n HTTP/1.1\r\nHost: localhost\r\n",
        "",
    ];
    let noise = proptest::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
    (proptest::sample::select(starts), middle, end, noise).prop_map(
        |(start, middle, end, noise)| {
            let mut bytes = [start.as_bytes(), &middle.concat(), b"\r\n", &end.concat()].concat();
            if let Some((at, byte)) = noise {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_three_read_the_same_bytes_the_same_way(input in requests()) {
        agree(&input);
    }

    #[test]
    fn pieces_are_read_as_the_whole(input in requests(), cut in any::<prop::sample::Index>()) {
        let Ok(Some(length)) = by_framing(&input) else { return Ok(()) };
        let mut framing = Framing::read(&input).unwrap().unwrap();
        let cut = cut.index(length);
        let mut taken = 0;
        for end in [cut, length] {
            while taken < end {
                taken += framing.take(&input[taken..end]).unwrap();
            }
        }
        prop_assert!(framing.is_over());
    }
}

/// The property above is worthless if no input is ever a complete request.
#[test]
fn whole_requests_are_among_those_that_are_compared() {
    let bodies = [
        "Content-Length: 3\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ];
    for body in bodies {
        let input = format!("POST /ch/a HTTP/1.1\r\nHost: localhost\r\n{body}");
        assert_eq!(by_framing(input.as_bytes()), Ok(Some(input.len())));
        let seen = by_hyper(input.as_bytes());
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].body.as_deref(), Some(&b"abc"[..]));
        agree((input + "GET / HTTP/1.1\r\n\r\n").as_bytes());
    }
}
