//! The bytes for clients, on every transport: a client that parses them gets exactly the published messages, whatever their
//! data is.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use comet_proto::{Attributes, ChannelName, ChannelNames, Cursor, EventName, Message};
use serde_json::{Map, Value, json};

use super::websocket;
use crate::{
    hub::Backlog,
    transport::{
        Format,
        iframe::{Callback, Iframe},
        longpoll::LongPoll,
        sse::Sse,
        websocket::WebSocket,
    },
};

const HEARTBEAT: Duration = Duration::from_secs(15);

/// The first byte says whether there is a gap, and which channels and attributes the messages have. Then follow labels and
/// data in turns, each up to a byte 0xff, which UTF-8 never contains. The reader has the channels `a` and `b`.
pub(super) fn check(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else {
        return;
    };
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == 0xff).collect();
    let channels = [
        &["a"][..],
        &["other", "b"],
        &["b", "a"],
        &["other", "a", "b"],
    ][usize::from(first / 2) % 4];
    let names = |names: &[&str]| ChannelNames::parse(names.iter().copied()).expect("names");
    let attributes = |text: &[u8]| {
        let text = str::from_utf8(text).ok().filter(|_| first & 8 > 0)?;
        Attributes::parse(&[("k", text), ("also", "")])
            .ok()
            .flatten()
    };
    let messages = parts.chunks_exact(2).zip(1..).map(|(part, id)| Message {
        channels: names(channels),
        attributes: attributes(part[0]),
        id,
        name: str::from_utf8(part[0])
            .ok()
            .and_then(|name| EventName::parse(name).ok())
            .unwrap_or_default(),
        data: part[1].into(),
    });
    let messages: Vec<Arc<Message>> = messages.map(Arc::new).collect();
    let readable = names(&["a", "b"]);
    let backlog = Backlog {
        cursor: messages.last().map_or(Cursor(0), |last| Cursor(last.id)),
        messages,
        gap: first % 2 == 1,
        readable: readable.iter().cloned().collect(),
        ..Backlog::default()
    };
    check_backlog(&backlog, &readable);
}

/// `readable`: the reader's channels.
pub(super) fn check_backlog(backlog: &Backlog, readable: &[ChannelName]) {
    let callback = Callback::parse("comet.show").expect("a name");
    let iframe = Iframe {
        callback,
        heartbeat: HEARTBEAT,
    };
    let sse = Sse {
        heartbeat: HEARTBEAT,
    };
    let socket = WebSocket {
        heartbeat: HEARTBEAT,
    };
    let frames = rendered(&socket, backlog);
    check_stream(backlog, readable, &read_sse(&rendered(&sse, backlog)));
    check_stream(backlog, readable, &read_iframe(&rendered(&iframe, backlog)));
    check_stream(backlog, readable, &read_frames(&frames));
    check_poll(backlog, readable, &value(&rendered(&LongPoll, backlog)));
}

fn rendered(format: &dyn Format, backlog: &Backlog) -> Vec<u8> {
    let mut out = Vec::new();
    format.news(backlog, &mut out);
    out
}

fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).expect("JSON")
}

/// The messages, and before them the gap if there is one.
fn check_stream(backlog: &Backlog, readable: &[ChannelName], values: &[Value]) {
    let mut values = values.iter();
    if backlog.gap {
        let gap = values.next().expect("the gap");
        let first = backlog.messages.first();
        let cursor = first.map_or(backlog.cursor.0, |first| first.id - 1);
        assert_eq!(*gap, json!({"gap": true, "cursor": cursor.to_string()}));
    }
    check_messages(backlog, readable, values);
}

fn check_poll(backlog: &Backlog, readable: &[ChannelName], answer: &Value) {
    assert_eq!(answer["cursor"], backlog.cursor.to_string());
    assert_eq!(answer["gap"], backlog.gap);
    check_messages(
        backlog,
        readable,
        answer["messages"].as_array().expect("a list").iter(),
    );
}

fn check_messages<'a>(
    backlog: &Backlog,
    readable: &[ChannelName],
    mut values: impl Iterator<Item = &'a Value>,
) {
    for message in &backlog.messages {
        let value = values.next().expect("each message");
        let channels = message
            .channels
            .iter()
            .filter(|name| readable.contains(name));
        let channels: Vec<&str> = channels.map(|name| &**name).collect();
        assert_eq!(value["channel"], channels[0]);
        let has_channels = channels.len() > 1;
        assert!(!has_channels || value["channels"] == json!(channels));
        let pairs = message.attributes.iter().flat_map(|pairs| pairs.iter());
        let pairs: Map<String, Value> = pairs.map(|(k, v)| (k.into(), v.into())).collect();
        let has_attributes = !pairs.is_empty();
        assert!(!has_attributes || value["attributes"] == Value::Object(pairs));
        assert_eq!(value["id"], message.id);
        assert_eq!(value["name"], message.name.as_str());
        let data = value["data"].as_str().expect("text");
        match value["encoding"].as_str() {
            Some("base64") => assert_eq!(STANDARD.decode(data).expect("base64"), *message.data),
            _ => assert_eq!(data.as_bytes(), &*message.data),
        }
        let fields = value.as_object().expect("an object").len();
        let has_encoding = str::from_utf8(&message.data).is_err();
        let more = [has_channels, has_attributes, has_encoding];
        assert_eq!(fields, 4 + more.into_iter().filter(|has| *has).count());
    }
    assert!(values.next().is_none());
}

fn read_frames(stream: &[u8]) -> Vec<Value> {
    let frames = websocket::server_frames(stream).into_iter();
    let texts = frames.map(|(first, json)| {
        assert_eq!(first, 0x81); // a complete text message in one frame
        value(&json)
    });
    texts.collect()
}

/// Parses an event stream by the HTML standard, "Interpreting an event stream". Returns the data of each event, and checks
/// that the event's id is the cursor in its data.
fn read_sse(stream: &[u8]) -> Vec<Value> {
    let stream = str::from_utf8(stream).expect("UTF-8").replace("\r\n", "\n");
    let (mut events, mut data, mut id, mut kind) = (Vec::new(), Vec::new(), "", "message");
    for line in stream.split(['\n', '\r']) {
        match line.split_once(": ") {
            Some(("data", text)) => data.push(text),
            Some(("event", text)) => kind = text,
            Some(("id", text)) => id = text,
            _ if data.is_empty() => assert_eq!(line, ""),
            _ => {
                assert_eq!(line, "");
                let json = value(data.join("\n").as_bytes());
                let cursor = match std::mem::replace(&mut kind, "message") {
                    "gap" => json["cursor"].as_str().map(str::to_owned),
                    _ => json["id"].as_u64().map(|id| id.to_string()),
                };
                assert_eq!(cursor.as_deref(), Some(id));
                events.push(json);
                data.clear();
            }
        }
    }
    assert!(data.is_empty());
    events
}

/// Parses the calls of the iframe's script, one in each line.
fn read_iframe(document: &[u8]) -> Vec<Value> {
    let lines = document.split_inclusive(|byte| *byte == b'\n');
    let calls = lines.map(|line| {
        let call = line.strip_prefix(b"<script>parent.comet.show(");
        let json = call.and_then(|call| call.strip_suffix(b")</script>\n"));
        let json = json.expect("a call");
        assert_inert(json);
        value(json)
    });
    calls.collect()
}

/// Checks that the text cannot end a script: by the HTML standard, "Script data state", only `<` can.
pub(super) fn assert_inert(script: &[u8]) {
    let text = str::from_utf8(script).expect("UTF-8");
    assert!(!text.contains(['<', '\u{2028}', '\u{2029}']), "{text}");
}
