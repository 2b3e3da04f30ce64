//! Channel names and the callback of an iframe: the parsers accept exactly what the protocol allows, and change nothing. Names of
//! other servers' channels become channel names and come back.

use comet_proto::{ChannelName, EventName};

use super::{
    http::channels,
    urls::{decoded, escaped},
};
use crate::{compat::names as foreign, transport::iframe::Callback};

pub(super) fn check(bytes: &[u8]) {
    let name = ChannelName::parse_bytes(bytes);
    assert_eq!(name.is_ok(), is_name(bytes));
    match name {
        Ok(name) => {
            assert_eq!(name.as_bytes(), bytes);
            assert_eq!(ChannelName::parse(&name.to_string()), Ok(name));
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
    check_foreign(bytes);
    if let Ok(text) = str::from_utf8(bytes) {
        check_list(text);
        check_label(text);
        check_callback(text);
    }
}

/// The rule for names in `docs/protocol.md`.
fn is_name(bytes: &[u8]) -> bool {
    let allowed = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:=+@~-";
    (1..=200).contains(&bytes.len())
        && bytes[0] != b'.'
        && bytes.iter().all(|byte| allowed.contains(byte))
}

/// Every name of another server is a channel. Unless its escaped form is too long, the channel has this name again.
fn check_foreign(name: &[u8]) {
    let Some(channel) = foreign::channel_of(name) else {
        return assert!(name.is_empty());
    };
    assert!(is_name(channel.as_bytes()));
    let plain = |byte: &u8| is_name(&[*byte]) && *byte != b'=';
    let kept = |(at, byte): (usize, &u8)| plain(byte) || *byte == b'.' && at > 0;
    let escaped: usize = name
        .iter()
        .enumerate()
        .map(|one| if kept(one) { 1 } else { 3 })
        .sum();
    assert_eq!(foreign::is_hashed(&channel), escaped > 200);
    if escaped > 200 {
        return assert_eq!(channel.len(), 45);
    }
    assert_eq!(channel.len(), escaped);
    assert_eq!(&*foreign::foreign_of(&channel), name);
    assert_eq!(channel.as_bytes() == name, escaped == name.len());
}

/// `NAMES` of a URL's path. A plus sign stands for itself in a path.
fn check_list(text: &str) {
    let decoded = decoded(&text.replace('+', "%2b"));
    let mut expected: Vec<&str> = Vec::new();
    for name in decoded.iter().flat_map(|text| text.split(',')) {
        if !expected.contains(&name) {
            expected.push(name);
        }
    }
    let is_list = expected.iter().all(|name| is_name(name.as_bytes()));
    let is_list = is_list && (1..=100).contains(&expected.len());
    match channels(text) {
        Ok(names) => {
            assert!(is_list);
            assert!(
                names
                    .iter()
                    .map(|name| &**name)
                    .eq(expected.iter().copied())
            );
            let again = channels(&escaped(expected.join(",").as_bytes()));
            assert_eq!(again, Ok(names));
        }
        Err(code) => {
            assert!(!is_list);
            assert!(["channel", "channels"].contains(&&*code));
        }
    }
}

fn check_label(text: &str) {
    let is_label = text.len() <= 200 && !text.contains(char::is_control);
    match EventName::parse(text) {
        Ok(name) => assert!(is_label && name.as_str() == text),
        Err(error) => assert!(!is_label && !error.to_string().contains(char::is_control)),
    }
}

/// The callback is written into a script without escapes.
fn check_callback(text: &str) {
    let is_start = |b: &u8| b.is_ascii_alphabetic() || b"_$".contains(b);
    let is_part = |part: &[u8]| {
        part.first().is_some_and(is_start) && part.iter().all(|b| is_start(b) || b.is_ascii_digit())
    };
    let is_path = text.len() <= 128 && text.as_bytes().split(|b| *b == b'.').all(is_part);
    assert_eq!(Callback::parse(text).is_ok(), is_path);
}
