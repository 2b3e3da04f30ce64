//! The requests on the ports of other protocols. What is read does not depend on how the bytes are cut into reads. What was
//! accepted is what a client would have written. A reply is one line.

use std::fmt::Debug;

use crate::compat::{
    memcached::request::{self as memcached, Request},
    names,
    port::CommandBuffer,
    redis::{
        reply,
        request::{self as redis},
    },
};

/// What is at the beginning of the bytes.
enum First {
    Incomplete,
    /// Something, described as a text, and its length. The length may be larger than what was read.
    Complete(String, usize),
    /// The end of the connection, with its reason.
    End(String),
}

/// The first byte says into which pieces the rest is cut.
fn check_cuts(bytes: &[u8], first: fn(&[u8]) -> First) {
    if let Some((&cut, stream)) = bytes.split_first() {
        let whole = all(std::iter::once(stream), first);
        assert_eq!(whole, all(stream.chunks(usize::from(cut) + 1), first));
    }
}

/// All requests in these reads, and how many bytes are left.
fn all<'a>(
    reads: impl Iterator<Item = &'a [u8]>,
    first: fn(&[u8]) -> First,
) -> (Vec<String>, Option<usize>) {
    let (mut found, mut buffer) = (Vec::new(), CommandBuffer::default());
    for read in reads {
        buffer.push(read);
        while !buffer.bytes().is_empty() {
            match first(buffer.bytes()) {
                First::Incomplete => break,
                First::Complete(text, length) => {
                    assert!(length > 0);
                    found.push(text);
                    buffer.consume(length);
                }
                First::End(text) => {
                    found.push(text);
                    return (found, None);
                }
            }
        }
    }
    (found, Some(buffer.bytes().len()))
}

fn text(parsed: &impl Debug) -> String {
    format!("{parsed:?}")
}

pub(super) fn memcached(bytes: &[u8]) {
    check_cuts(bytes, |bytes| match memcached::parse(bytes) {
        memcached::Parsed::Incomplete => First::Incomplete,
        memcached::Parsed::Request(request, length) => {
            check_request(&request, &bytes[..length.min(bytes.len())]);
            First::Complete(text(&request), length)
        }
        end => First::End(text(&end)),
    });
}

fn check_request(request: &Request<'_>, bytes: &[u8]) {
    let keys = match request {
        Request::Set {
            key,
            flags,
            data,
            quiet,
        } => {
            let end = if *quiet { " noreply\r\n" } else { "\r\n" };
            let rest = format!(" {flags} 0 {}{end}", data.len());
            assert_same(
                request,
                &[b"set ", *key, rest.as_bytes(), data, b"\r\n"].concat(),
            );
            vec![*key]
        }
        Request::Touch { key, .. } | Request::Count { key, .. } => vec![*key],
        Request::Get { keys, .. } => keys.clone(),
        Request::Refused { reply, .. } => {
            assert!(!reply.contains(['\r', '\n']));
            vec![]
        }
        _ => vec![],
    };
    for key in keys {
        assert!((1..=250).contains(&key.len()) && bytes.windows(key.len()).any(|part| part == key));
        assert!(names::channel_of(key).is_some());
    }
}

/// A client's usual form of the request is read in the same way.
fn assert_same(request: &Request<'_>, usual: &[u8]) {
    match memcached::parse(usual) {
        memcached::Parsed::Request(again, length) => {
            assert_eq!((&again, length), (request, usual.len()));
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn redis(bytes: &[u8]) {
    check_cuts(bytes, |bytes| match redis::parse(bytes) {
        redis::Parsed::Incomplete => First::Incomplete,
        redis::Parsed::Command(words, length) => {
            assert!(length <= bytes.len());
            check_words(&words);
            First::Complete(text(&words), length)
        }
        redis::Parsed::Broken(reason) => First::End(reason.into()),
    });
}

/// The words are read again from the form in which clients send them, and an error with any of them is one line.
fn check_words(words: &redis::Words<'_>) {
    let mut usual = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        usual.extend(format!("${}\r\n", word.len()).bytes());
        usual.extend_from_slice(word);
        usual.extend_from_slice(b"\r\n");
        let mut error = Vec::new();
        reply::error(&String::from_utf8_lossy(word), &mut error);
        let end = error.iter().position(|byte| *byte == b'\n');
        assert!(end == Some(error.len() - 1) && error.ends_with(b"\r\n"));
    }
    match redis::parse(&usual) {
        redis::Parsed::Command(again, length) => assert_eq!((&again, length), (words, usual.len())),
        other => panic!("{other:?}"),
    }
}
