//! The socket's lines. The lines do not depend on how the bytes are cut into reads. An accepted line means what its JSON
//! says. Subscribers get exactly what was published. A refusal is one line.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, engine::general_purpose::STANDARD};
use comet_proto::{
    Attributes, Cursor, Since,
    line::{self, Publish, PublishReply, Request},
};
use serde_json::Value;

use crate::{
    hub::{HistoryConfig, Hub, NewMessage, Publisher, PublisherKey},
    source::socket::lines,
};

/// The first byte says into which pieces the rest is cut.
pub(super) fn check(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else {
        return;
    };
    let max = if cut < 128 { 1 << 20 } else { 64 };
    let (found, rest) = lines(stream.chunks(usize::from(cut % 128) + 1), max);
    let (expected, expected_rest) = split(stream, max);
    assert_eq!(found, expected);
    assert_eq!(rest.as_deref(), expected_rest);
    for line in expected.iter().chain(&expected_rest) {
        check_line(line);
    }
}

/// The lines without their line ends, and the rest. The rest is `None` if a line is too long.
fn split(stream: &[u8], max: usize) -> (Vec<&[u8]>, Option<&[u8]>) {
    let mut lines = Vec::new();
    for line in stream.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            _ if line.len() > max => return (lines, None),
            Some(line) => lines.push(line),
            None => return (lines, (line.len() < max).then_some(line)),
        }
    }
    (lines, Some(&[]))
}

fn check_line(line: &[u8]) {
    let _ = PublishReply::parse(line); // clients parse replies: must not panic
    match Request::parse(line) {
        Ok(request) => {
            let json = serde_json::from_slice(line).expect("what was accepted is JSON");
            check_request(&request, &json);
        }
        Err(error) => {
            let mut out = Vec::new();
            line::write_error(&error.code(), &error.to_string(), &mut out);
            assert_eq!(out.iter().position(|b| *b == b'\n'), Some(out.len() - 1));
            let refusal = PublishReply::parse(&out).expect("a client can read it");
            assert!(matches!(refusal, PublishReply::Refused { code, .. } if code == error.code()));
        }
    }
}

fn check_request(request: &Request<'_>, json: &Value) {
    let op = match request {
        Request::Publish(publish) => {
            check_publish(publish, json);
            "publish"
        }
        Request::Subscribe {
            channels,
            since,
            presence,
        } => {
            check_channels(channels, json);
            assert_eq!(*since, self::since(&json["since"]));
            assert_eq!(presence.is_some(), json["presence"] == true);
            let member = presence
                .as_ref()
                .and_then(|presence| presence.member.as_deref());
            assert_eq!(member, json["member"].as_str());
            "subscribe"
        }
        Request::Unsubscribe { channels } => {
            check_channels(channels, json);
            assert_eq!(json["since"], Value::Null);
            "unsubscribe"
        }
        Request::History { channels, since } => {
            check_channels(channels, json);
            assert_eq!(
                *since,
                self::since(&json["since"]).unwrap_or(Since::Id(Cursor(0)))
            );
            "history"
        }
        Request::Presence { channel, after } => {
            assert_eq!(json["channel"], **channel);
            assert_eq!(json["after"].as_str(), after.as_deref());
            "presence"
        }
        Request::Status => "status",
        Request::Cursor => "cursor",
        Request::Ping => "ping",
        Request::Token(_) => "token",
    };
    assert_eq!(json["op"], op);
}

fn since(since: &Value) -> Option<Since> {
    let number = since.as_u64().map(|id| Since::Id(Cursor(id)));
    let text = || {
        since
            .as_str()
            .map(|text| Since::parse(text).expect("it was accepted"))
    };
    number.or_else(text)
}

fn check_channels(channels: &[comet_proto::ChannelName], json: &Value) {
    let mut names: Vec<&Value> = Vec::new();
    for name in json["channels"].as_array().expect("a list") {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    assert!(names.into_iter().eq(channels.iter().map(|name| &**name)));
}

fn check_publish(publish: &Publish<'_>, json: &Value) {
    let text = |field: &str| json[field].as_str().unwrap_or_default();
    let data = match json["data_base64"].as_str() {
        Some(base64) => Cow::Owned(STANDARD.decode(base64).expect("it was accepted")),
        None => text("data").as_bytes().into(),
    };
    assert_eq!(publish.data, data);
    match json["channel"].as_str() {
        Some(channel) => assert!(publish.channels.iter().map(|name| &**name).eq([channel])),
        None => check_channels(&publish.channels, json),
    }
    check_attributes(publish.attributes.as_deref(), &json["attributes"]);
    assert_eq!(publish.name.as_str(), text("name"));
    assert_eq!(publish.key.as_deref().unwrap_or_default(), text("key"));

    let mut again = Vec::new();
    line::write_publish(publish, &mut again);
    assert_eq!(
        again.iter().position(|b| *b == b'\n'),
        Some(again.len() - 1)
    );
    let again = Request::parse(&again).expect("what a client writes is accepted");
    assert!(matches!(again, Request::Publish(again) if again == *publish));
    check_message(publish);
}

/// The pairs are those of the line, within the bounds of `docs/protocol.md`.
fn check_attributes(attributes: Option<&Attributes>, json: &Value) {
    let pairs = json.as_object().into_iter().flatten();
    let pairs: BTreeMap<&str, &str> = pairs
        .map(|(key, value)| (&**key, value.as_str().expect("it was accepted")))
        .collect();
    let bytes: usize = pairs
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    assert!(pairs.len() <= 16 && bytes <= 2048);
    assert_eq!(attributes.is_some(), !pairs.is_empty());
    assert!(attributes.into_iter().flat_map(Attributes::iter).eq(pairs));
}

/// The hub gives back the message unchanged and once on each of its channels, and the same key publishes nothing more.
fn check_message(publish: &Publish<'_>) {
    let hub = Hub::new(HistoryConfig::default(), 1);
    let new = || NewMessage {
        channels: publish.channels.clone(),
        name: publish.name.clone(),
        data: publish.data.clone().into(),
        attributes: publish.attributes.clone(),
        key: publish.key.as_deref().map(|key| PublisherKey {
            publisher: Publisher::User(1),
            key,
        }),
    };
    let id = hub.publish(new());
    assert_eq!(publish.key.is_some(), hub.publish(new()) == id);
    for channels in [&publish.channels[..1], &publish.channels] {
        let kept = hub.since(channels, Cursor(id - 1));
        super::render::check_backlog(&kept, channels);
        let message = &kept.messages[0];
        assert_eq!((message.id, &*message.data), (id, &*publish.data));
        assert_eq!(message.name, publish.name);
        assert_eq!(message.attributes, publish.attributes);
    }
}
