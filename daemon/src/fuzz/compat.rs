//! The queries of older clients. A client sends back the times that it got in an answer; they must mean the same then.

use std::cell::Cell;

use comet_proto::{ChannelName, Cursor, Since};
use serde_json::Value;

use super::render::assert_inert;
use crate::{
    compat::{
        novcomet::poll::{self as novcomet, NovCometRequest},
        zeitoun::chat::{self as zeitoun, ChatRequest},
    },
    hub::{HistoryConfig, Hub, NewMessage},
};

/// The pairs of a query, as the router passes them.
fn pairs(query: &str) -> Vec<(String, String)> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

/// A hub whose clock advances by a second with each reading.
fn hub() -> std::sync::Arc<Hub> {
    thread_local!(static NOW: Cell<u64> = const { Cell::new(1_763_690_000_123_456) });
    Hub::with_clock(HistoryConfig::default(), 1, || {
        NOW.with(|now| now.replace(now.get() + 1_000_000))
    })
}

fn publish(hub: &Hub, channel: &ChannelName, data: &[u8]) -> u64 {
    hub.publish(NewMessage {
        channels: channel.clone().into(),
        name: Default::default(),
        data: data.into(),
        attributes: None,
        key: None,
    })
}

pub(super) fn novcomet(bytes: &[u8]) {
    let Ok(query) = str::from_utf8(bytes) else {
        return;
    };
    let pairs = pairs(query);
    let parsed = NovCometRequest::parse(pairs.iter().map(|(name, value)| (name, value)));
    let publishes = pairs
        .iter()
        .find(|(name, value)| name == "publish" && !value.is_empty());
    let subscribed = match (parsed, publishes) {
        (NovCometRequest::Publish(channel), Some((_, id))) => {
            return assert_eq!(channel, ChannelName::parse(id).ok());
        }
        (NovCometRequest::Subscribe(subscribed), None) => subscribed,
        (parsed, _) => panic!("{parsed:?}"),
    };
    assert!(subscribed.len() <= 100);
    for (channel, seen) in &subscribed {
        let name = format!("subscribed[{channel}]");
        let given = pairs.iter().rfind(|(known, _)| known.starts_with(&name));
        assert_eq!(*seen, time(&given.expect("it was asked for").1));
    }
    check_poll(subscribed);
}

/// A decimal number of seconds, cut after six decimals. Any other text is 0.
fn time(text: &str) -> Cursor {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_time = !seconds.is_empty()
        && (seconds.to_owned() + fraction)
            .bytes()
            .all(|b| b.is_ascii_digit());
    let Some(seconds) = seconds.parse::<u64>().ok().filter(|_| is_time) else {
        return Cursor(0);
    };
    let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let time = u128::from(seconds) * 1_000_000 + micros.parse::<u128>().expect("six digits");
    Cursor(u64::try_from(time).unwrap_or(u64::MAX))
}

/// The answer lists the channels that changed since a valid time. A second poll with the times of the answer lists none.
fn check_poll(mut subscribed: std::collections::BTreeMap<ChannelName, Cursor>) {
    let hub = hub();
    let start = hub.last();
    let Some(first) = subscribed.keys().next().cloned() else {
        return;
    };
    let id = publish(&hub, &first, b"");
    subscribed.insert(first.clone(), start);
    let answer = novcomet::poll(&hub, subscribed.clone(), None)
        .ok()
        .expect("a change");
    let json: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(json["s"], 1);
    let told = json["k"].as_object().expect("an object");
    for (name, _) in told {
        let seen = subscribed.get_mut(&**name).expect("it was asked for");
        *seen = time(told_time(&answer, name));
    }
    assert_eq!(subscribed[&first], Cursor(id));
    let waits = novcomet::poll(&hub, subscribed, None).expect_err("no change");
    assert_eq!(waits.since, Some(Cursor(id)));
}

/// The digits of a time in the answer, as text: a floating-point number would be rounded.
fn told_time<'a>(answer: &'a [u8], name: &str) -> &'a str {
    let answer = str::from_utf8(answer).expect("UTF-8");
    let (_, times) = answer.split_once("\"k\":{").expect("the times");
    let (_, rest) = times
        .split_once(&format!("\"{name}\":"))
        .expect("it is told");
    rest.split([',', '}']).next().unwrap_or_default()
}

pub(super) fn zeitoun(bytes: &[u8]) {
    let Ok(query) = str::from_utf8(bytes) else {
        return;
    };
    let pairs = pairs(query);
    let parsed = ChatRequest::parse(pairs.iter().map(|(name, value)| (&**name, &**value)));
    let published = pairs
        .iter()
        .find(|(name, value)| name == "msg" && !value.is_empty());
    match (parsed, published) {
        (ChatRequest::Publish(text), Some((_, expected))) => {
            assert_eq!(text, *expected);
            check_chat(&text);
        }
        (ChatRequest::Poll(seen), None) => {
            let given = pairs.iter().rfind(|(name, _)| name == "timestamp");
            let digits = given.map_or("", |(_, text)| {
                &text[..text.bytes().take_while(u8::is_ascii_digit).count()]
            });
            let number = digits.parse::<u64>().unwrap_or(0);
            match seen {
                Since::Id(id) => assert_eq!(id.0, number),
                Since::Time(time) => assert_eq!(Some(time), number.checked_mul(1_000_000)),
            }
        }
        (parsed, _) => panic!("{parsed:?}"),
    }
}

/// A page that evaluates the answer shows each message once.
fn check_chat(text: &str) {
    let (hub, channel) = (hub(), ChannelName::parse("chat").expect("a name"));
    let id = publish(&hub, &channel, text.as_bytes());
    let answer = zeitoun::poll(&hub, &channel, Since::Id(Cursor(0)), None)
        .ok()
        .expect("the last message");
    assert_inert(&answer);
    let json: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(
        (json["msg"].as_str(), json["timestamp"].as_u64()),
        (Some(text), Some(id))
    );
    let timestamp = format!("timestamp={id}");
    let ChatRequest::Poll(seen) = ChatRequest::parse(timestamp.split_once('=').into_iter()) else {
        panic!("a poll");
    };
    assert!(zeitoun::poll(&hub, &channel, seen, None).is_err());
}
