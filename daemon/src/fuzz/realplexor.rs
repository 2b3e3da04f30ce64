//! The two lines of dklab_realplexor: requests are understood alike however they are cut, and a client that reads a reply
//! gets exactly the published JSON, once.

use std::{collections::BTreeMap, sync::Arc};

use comet_proto::{ChannelName, ChannelNames, Message};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use crate::compat::realplexor::{
    block,
    decimal::Decimal,
    identifier::Item,
    json,
    publish_request::{Action, PublishRequest, RequestError},
    selection::Selection,
    wait_request::{self, WaitRequest},
};

/// The lengths at which a request may be cut.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let step = (bytes.len() / 64).max(1);
    let lengths = (0..bytes.len()).step_by(step);
    lengths.map(|length| &bytes[..length])
}

pub(super) fn publisher(bytes: &[u8]) {
    let whole = PublishRequest::read(bytes, false);
    for part in cuts(bytes) {
        match PublishRequest::read(part, false) {
            Ok(None) | Err(RequestError::TooLong) => {}
            complete => assert_eq!(complete, whole, "what follows changes nothing"),
        }
    }
    let ended = PublishRequest::read(bytes, true);
    if !matches!(whole, Ok(None)) {
        assert_eq!(whole, ended, "a complete request needs no end");
    }
    let Ok(Some(request)) = ended else {
        assert!(ended.is_err(), "at the end every request is complete");
        return;
    };
    if let Action::Publish { items, body } = request.action {
        check_items(&items);
        // No client can listen to an id that is too long for a channel.
        let is_listenable = |item: &Item<'_>| item.id.len() <= ChannelName::MAX_LEN;
        if let Ok(data) = json::check(body)
            && items.iter().all(is_listenable)
        {
            check_block(&items, data);
        }
    }
}

pub(super) fn client(bytes: &[u8]) {
    use wait_request::RequestError::TooLong;
    let whole = WaitRequest::read(bytes, false);
    for part in cuts(bytes) {
        match WaitRequest::read(part, false) {
            Ok(None) | Err(TooLong) => {}
            complete => assert_eq!(complete, whole, "what follows changes nothing"),
        }
    }
    let Ok(Some(WaitRequest::Listen(items))) = WaitRequest::read(bytes, true) else {
        return;
    };
    assert!(!items.is_empty());
    check_items(&items);
    let list: Vec<String> = items.iter().map(text).collect();
    let again = format!("GET /?identifier={} HTTP/1.1\r\n\r\n", list.join(","));
    if again.len() <= wait_request::MAX_BYTES {
        let again = WaitRequest::read(again.as_bytes(), false);
        assert_eq!(again, Ok(Some(WaitRequest::Listen(items))));
    }
}

fn text(item: &Item<'_>) -> String {
    let star = if item.is_limit { "*" } else { "" };
    let cursor = item.cursor.map(|cursor| format!("{cursor}:"));
    format!("{star}{}{}", cursor.unwrap_or_default(), item.id)
}

/// Ids consist of word characters, and cursors are numbers that are compared without rounding.
fn check_items(items: &[Item<'_>]) {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    assert!(
        items
            .iter()
            .all(|item| item.id.bytes().all(is_word) && !item.id.is_empty())
    );
    let cursors: Vec<&str> = items
        .iter()
        .filter_map(|item| item.cursor)
        .take(20)
        .collect();
    let longest = cursors
        .iter()
        .map(|cursor| cursor.len())
        .max()
        .unwrap_or_default();
    // Of equally many digits before and after the point, the order of the texts is the order of the numbers.
    let padded = |cursor: &str| {
        let (whole, fraction) = cursor.split_once('.').unwrap_or((cursor, ""));
        format!("{whole:0>longest$}.{fraction:0<longest$}")
    };
    let parse = |cursor: &str| Decimal::parse(cursor).expect("a number");
    for a in &cursors {
        for b in &cursors {
            assert_eq!(
                parse(a).cmp(&parse(b)),
                padded(a).cmp(&padded(b)),
                "{a} {b}"
            );
        }
    }
}

/// One block of a reply.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    ids: BTreeMap<String, String>,
    #[expect(dead_code, reason = "only its presence counts")]
    data: IgnoredAny,
}

/// A client that listens to all ids of the block gets it once, with the publisher's cursors, and never again.
fn check_block(items: &[Item<'_>], data: &str) {
    let targets = items
        .iter()
        .filter(|item| !item.is_limit)
        .map(|item| item.id);
    let (Ok(channels), Ok(attributes)) = (ChannelNames::parse(targets), block::attributes(items))
    else {
        return;
    };
    let message = Arc::new(Message {
        channels,
        id: 1_763_690_000_123_456,
        name: Default::default(),
        data: data.as_bytes().into(),
        attributes,
    });
    let ids = items
        .iter()
        .filter_map(|item| ChannelName::parse(item.id).ok());
    let mut ids: Vec<ChannelName> = ids.collect();
    ids.sort();
    ids.dedup();
    let reply =
        |after: &[Decimal]| Selection { ids: &ids, after }.reply(std::slice::from_ref(&message));
    let start = vec![Decimal::Micros(0); ids.len()];
    let all_are_zero = |id: &ChannelName| block::cursor(&message, id) == Decimal::Micros(0);
    let Some(first) = reply(&start) else {
        return assert!(message.channels.iter().all(all_are_zero));
    };
    let blocks: Vec<Block> =
        serde_json::from_slice(&first.bytes).expect("the reply is an array of blocks");
    let [Block { ids: cursors, .. }] = &blocks[..] else {
        panic!("one block");
    };
    // A value is built only of numbers and nesting within serde_json's limits, which the data may exceed.
    if let Ok(sent) = serde_json::from_str::<Value>(data)
        && let Ok(reply) = serde_json::from_slice::<Value>(&first.bytes)
    {
        assert_eq!(reply[0]["data"], sent);
    }
    let after = ids
        .iter()
        .zip(start)
        .map(|(id, start)| match cursors.get(&**id) {
            Some(cursor) => {
                let cursor = Decimal::parse(cursor).expect("a number");
                assert_eq!(cursor, block::cursor(&message, id));
                cursor
            }
            None => start,
        });
    assert_eq!(
        reply(&after.collect::<Vec<_>>()),
        None,
        "the client has seen the block"
    );
}
