//! nchan's publisher and subscriber: a message comes back as it was published, on every transport, with a cursor that the client
//! can send back.

use comet_proto::{Cursor, Message};
use httparse::Header;
use hyper::Method;

use super::{http, websocket};
use crate::{
    compat::{
        http_push::{Seen, parse_pair},
        names,
    },
    http::{
        request::Request,
        route::{Asked, Content, Route},
    },
    hub::{HistoryConfig, Hub},
    transport::Format,
};

/// The input is a channel's name, a media type, a type of event and a message, each up to a byte 0xff.
pub(super) fn check(bytes: &[u8]) {
    let mut parts = bytes.splitn(4, |byte| *byte == 0xff);
    let mut next = || parts.next().unwrap_or_default();
    let (name, media_type, event, data) = (next(), next(), next(), next());
    // Other bytes cannot be in a URL or a header.
    let is_url = |byte: &u8| byte.is_ascii_graphic() && !b"?#".contains(byte);
    let is_value = |byte: &u8| matches!(byte, b' '..=b'~' | 0x80..);
    let Some(name) = str::from_utf8(name)
        .ok()
        .filter(|name| name.bytes().all(|byte| is_url(&byte)))
    else {
        return;
    };
    if media_type.iter().chain(event).all(is_value) {
        check_message(name, media_type.trim_ascii(), event.trim_ascii(), data);
    }
}

fn check_message(name: &str, media_type: &[u8], event: &[u8], data: &[u8]) {
    let hub = Hub::new(HistoryConfig::default(), 1);
    let ask = |method, path: &str, lines: &[Header<'_>]| {
        let (site, _) = http::site(&hub);
        let request = Request::new(method, path, lines);
        site.routes.route(&Asked {
            request: &request,
            content: Content::Whole(data),
            site: &site,
            hub: &hub,
        })
    };
    let line = |name, value| Header { name, value };
    let host = line("Host", b"x");
    let publish = [
        host,
        line("Content-Type", media_type),
        line("X-EventSource-Event", event),
    ];
    let Ok(Route::Published(..)) = ask(Method::POST, &format!("/nchan/pub/{name}"), &publish)
    else {
        return;
    };
    let foreign: Vec<u8> = percent_encoding::percent_decode_str(name).collect();
    let channel = names::channel_of(&foreign).expect("a name");
    let backlog = hub.since(std::slice::from_ref(&channel), Cursor(0));
    let [message] = &backlog.messages[..] else {
        panic!("one message");
    };
    assert_eq!(
        (&*message.data, message.name.as_str().as_bytes()),
        (data, event)
    );

    let accept = line("Accept", b"text/event-stream");
    for lines in [
        &[host][..],
        &[host, accept],
        &websocket_lines(None),
        &websocket_lines(Some(b"ws+meta.nchan")),
    ] {
        let asked = ask(Method::GET, &format!("/nchan/sub/{name}"), lines);
        let Ok(Route::Hold(held)) = asked else {
            assert!(
                foreign.contains(&b',') || name.starts_with("shut") || name.starts_with("sealed")
            );
            return;
        };
        assert_eq!(
            (&*held.channels, held.since),
            (&[channel.clone()][..], Some(Cursor(0)))
        );
        let mut out = Vec::new();
        held.format.news(&backlog, &mut out);
        match (lines.len(), &held.handshake) {
            (1, _) => check_poll(&*held.format, message, &out),
            (_, None) => check_events(message, &out),
            (_, Some(handshake)) => check_frame(message, &out, handshake.protocol.is_some()),
        }
    }
}

/// The headers of a WebSocket, with or without a subprotocol.
fn websocket_lines(protocol: Option<&'static [u8]>) -> Vec<Header<'static>> {
    let line = |name, value| Header { name, value };
    let mut lines = vec![
        line("Host", &b"x"[..]),
        line("Upgrade", b"websocket"),
        line("Connection", b"upgrade"),
        line("Sec-WebSocket-Version", b"13"),
        line("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    lines.extend(protocol.map(|value| line("Sec-WebSocket-Protocol", value)));
    lines
}

/// A poll's body is the message, and the client returns its headers as they are.
fn check_poll(format: &dyn Format, message: &std::sync::Arc<Message>, body: &[u8]) {
    assert_eq!(body, &*message.data);
    let (mut date, mut tag) = (Vec::new(), Vec::new());
    let messages = std::slice::from_ref(message);
    format.headers(
        Cursor(message.id),
        messages,
        &mut |name, value| match name {
            "last-modified" => date = value.to_vec(),
            "etag" => tag = value.to_vec(),
            _ => {}
        },
    );
    let lines = [
        Header {
            name: "If-Modified-Since",
            value: &date,
        },
        Header {
            name: "If-None-Match",
            value: &tag,
        },
    ];
    let seen = Seen::in_headers(&Request::new(Method::GET, "/", &lines));
    assert_eq!(seen, Seen::Message(Cursor(message.id)));
}

/// Reads the event by the HTML standard, "Interpreting an event stream".
fn check_events(message: &Message, stream: &[u8]) {
    let stream = str::from_utf8(stream).expect("UTF-8").replace("\r\n", "\n");
    let (mut data, mut id, mut kind, mut ended) = (Vec::new(), "", "", false);
    for line in stream.split(['\n', '\r']) {
        match line.split_once(": ") {
            _ if ended => assert_eq!(line, "", "one event"),
            Some(("data", text)) => data.push(text),
            Some(("event", text)) => kind = text,
            Some(("id", text)) => id = text,
            _ => {
                assert_eq!(line, "");
                ended = true;
            }
        }
    }
    assert_eq!(parse_pair(id), Some(Cursor(message.id)));
    assert_eq!(kind, message.name.as_str());
    let text = String::from_utf8_lossy(&message.data);
    assert_eq!(
        data.join("\n"),
        text.replace("\r\n", "\n").replace('\r', "\n")
    );
}

/// Reads the frame as NchanSubscriber.js does: `id: …`, perhaps `content-type: …`, and an empty line stand before the message.
fn check_frame(message: &Message, stream: &[u8], has_meta: bool) {
    let frames = websocket::server_frames(stream);
    let [(_, payload)] = &frames[..] else {
        panic!("one frame");
    };
    if !has_meta {
        return assert_eq!(**payload, *message.data);
    }
    let rest = payload.strip_prefix(b"id: ").expect("the id");
    let end = rest.iter().position(|byte| *byte == b'\n').expect("a line");
    let id = str::from_utf8(&rest[..end]).expect("text");
    assert_eq!(parse_pair(id), Some(Cursor(message.id)));
    let mut rest = &rest[end + 1..];
    if rest.starts_with(b"content-type: ") {
        let end = rest.iter().position(|byte| *byte == b'\n').expect("a line");
        rest = &rest[end + 1..];
    }
    assert_eq!(rest.strip_prefix(b"\n"), Some(&*message.data));
}
