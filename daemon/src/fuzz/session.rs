//! The input of a session. The client's messages do not depend on how its bytes are cut into reads. Each text gets one reply,
//! with its reference. No channel is read or published to without the right to it.

use std::{rc::Rc, sync::Arc};

use serde_json::Value;

use super::{http::site, websocket::server_frames};
use crate::{
    access::permission::Credentials,
    http::Http,
    hub::{
        HistoryConfig, Hub,
        subscriber::{AfterDelivery, Audience, Feed, Subscriber},
    },
    session::{
        Session,
        comet::Comet,
        dialect::{Dialect, Frames, Heard},
    },
    transport::{
        frames::{TEXT, unmask},
        websocket::{ClientMessage, ClientMessages},
    },
};

/// First byte of a text frame of the server.
const TEXT_FRAME: u8 = 0x80 | TEXT;

/// The first byte says into which pieces the rest is cut, and whether the rest are frames or the lines of a client.
pub(super) fn check(bytes: &[u8]) {
    let Some((&cut, rest)) = bytes.split_first() else {
        return;
    };
    let stream = match cut < 128 {
        true => rest.to_vec(),
        false => rest.split(|byte| *byte == b'\n').flat_map(frame).collect(),
    };
    let (messages, end) = read(&stream, usize::from(cut % 128) + 1);
    let whole = read(&stream, stream.len().max(1));
    assert_eq!((&messages, end), (&whole.0, whole.1));
    check_replies(&messages);
}

/// A client's frame with this text.
fn frame(text: &[u8]) -> Vec<u8> {
    let text = &text[..text.len().min(usize::from(u16::MAX))];
    let mask = [7, 0, 255, 1];
    let mut frame = vec![0x81];
    match u16::try_from(text.len()).unwrap_or(u16::MAX) {
        length @ ..=125 => frame.push(0x80 | length.to_be_bytes()[1]),
        length => {
            frame.push(0xfe);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(unmask(text, mask));
    frame
}

/// The messages of a stream that is cut into pieces of this size, and the close code that ends it.
fn read(stream: &[u8], size: usize) -> (Vec<ClientMessage>, Option<u16>) {
    let (mut reader, mut messages) = (ClientMessages::default(), Vec::new());
    for mut piece in stream.chunks(size) {
        while !piece.is_empty() {
            match reader.next(piece) {
                Ok((used, message)) => {
                    piece = &piece[used..];
                    messages.extend(message);
                }
                Err(code) => return (messages, Some(code.into())),
            }
        }
    }
    (messages, None)
}

struct Nobody;

impl Subscriber for Nobody {
    fn deliver(self: Rc<Self>, _: &mut Feed<'_>) -> AfterDelivery {
        AfterDelivery::Stay
    }
}

fn check_replies(messages: &[ClientMessage]) {
    let hub = Hub::new(HistoryConfig::default(), 1);
    let (site, recorder) = site(&hub);
    let http = Rc::new(Http::new(Arc::new(site), Audience::new(hub, 0)));
    let mut session = Session::new(&http, Rc::new(Nobody), Credentials::default());
    let has_right = |name: &str| !name.starts_with("shut") && !name.starts_with("sealed");
    for message in messages {
        let ClientMessage::Text(text) = message else {
            continue;
        };
        let mut out = Frames::default();
        let published = match Comet.hear(text, &mut session, &mut out) {
            Ok(Heard::Done) => false,
            Ok(Heard::Published(receipt, acknowledge)) => {
                acknowledge(receipt.now().expect("there is no log"), &mut out);
                true
            }
            Err(close) => panic!("a text ended the session: {close:?}"),
        };
        check_reply(text, &out.into_bytes(), published);
        assert!(session.channels().iter().all(|name| has_right(name)));
        assert!(session.channels().len() <= comet_proto::MAX_CHANNELS);
        let message = recorder.take();
        assert_eq!(message.is_some(), published);
        assert!(message.is_none_or(|message| message.channels.iter().all(|name| has_right(name))));
    }
    let backlog = session.take_news(usize::MAX).unwrap_or_default();
    let mut out = Frames::default();
    Comet.tell(&backlog, &mut out);
    let told = server_frames(&out.into_bytes());
    assert_eq!(
        told.len(),
        backlog.messages.len() + usize::from(backlog.gap)
    );
}

fn check_reply(text: &str, reply: &[u8], published: bool) {
    let frames = server_frames(reply);
    let [(TEXT_FRAME, reply)] = &frames[..] else {
        panic!("no single reply: {frames:?}");
    };
    let reply: Value = serde_json::from_slice(reply).expect("a reply is JSON");
    let is_ok = reply["ok"]
        .as_bool()
        .expect("a reply says whether it is ok");
    assert!(is_ok || reply["message"].is_string());
    assert!(!published || reply["id"].is_u64());
    if let Ok(request) = serde_json::from_str::<Value>(text)
        && is_ok
    {
        assert_eq!(reply["ref"], request["ref"]);
    }
}
