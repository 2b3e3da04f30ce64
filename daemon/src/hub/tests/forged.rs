//! Messages that carry the bytes of records, in a log that is damaged around them: none is believed.

use std::ops::Range;

use super::{
    keep::{ids, open, published},
    *,
};
use crate::store::{disk::Disk, fake::FakeDisk};

const SEGMENT: &str = "0000000001.log";

/// Above all that the tests' clock comes to.
const FORGED: u64 = 1 << 60;

/// A record of docs/log-format.md, as somebody makes it who knows this document, and has to guess the salt.
fn record(mark: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    let head = [mark, &[kind, 0], &length].concat();
    let sum = crc32fast::hash(&[&head, body].concat()).to_le_bytes();
    [&head, &sum[..], body].concat()
}

/// One of each that could do harm.
fn records(mark: &[u8]) -> Vec<u8> {
    let id = FORGED.to_le_bytes();
    let message = [&id[..], b"\x05\0staff\0\0\0\0believe me"].concat();
    let full = [&id[..], b"\x02\x05\0staff\x04\0news\0\0\0\0\0believe me"].concat();
    let link = [&id[..], b"\x05\0staff"].concat();
    let key = [&id[..], b"\x04\0news\x01\0k"].concat();
    let mut bytes = Vec::new();
    let messages = [(2, &message[..]), (10, &full), (11, &full), (12, &link)];
    for (kind, body) in messages
        .into_iter()
        .chain([(4, &key[..]), (7, &id), (9, &id), (6, &id)])
    {
        bytes.extend(record(mark, kind, body));
    }
    bytes
}

/// What a segment begins with, and as a base, which would end all before it.
fn segment(version: u8, salt: &[u8]) -> Vec<u8> {
    let base = [&[9, 0, 0, 0, 0, 0, 0, 0], &FORGED.to_le_bytes()[..], &[1]].concat();
    let name = [b"CometLg", &[version][..]].concat();
    let bytes = match version {
        b'1' => name,
        _ => {
            let first = [&name, salt].concat();
            let sum = crc32fast::hash(&first).to_le_bytes();
            [&first, &sum[..]].concat()
        }
    };
    [bytes, record(salt, 1, &base), records(salt)].concat()
}

/// Everything that can be made without knowing the salt.
fn forgeries() -> Vec<u8> {
    let unsalted: &[u8] = b"\xc0\xe7";
    let guesses = [
        [0; 8],
        [0xff; 8],
        *b"CometLg2",
        *b"CometLg3",
        *b"\xc0\xe7\x02\0\x1a\0\0\0",
    ];
    let mut bytes = segment(b'1', unsalted);
    for guess in guesses {
        bytes.extend(segment(b'2', &guess));
        bytes.extend(segment(b'3', &guess));
    }
    bytes
}

/// A log of three messages, of which the second carries the forgeries, and where its data is.
fn log() -> (Vec<u8>, [u64; 3], Range<usize>) {
    let (disk, news) = (FakeDisk::default(), channel("news"));
    let hub = open(&disk);
    let forged = forgeries();
    let sent = [&b"before"[..], &forged, b"after"].map(|data| published(&hub, &news, data));
    drop(hub);
    let mut bytes = Vec::new();
    disk.change(SEGMENT, |content| bytes = content.clone());
    let place = bytes.windows(forged.len()).position(|part| part == forged);
    let place = place.unwrap();
    (bytes, sent, place..place + forged.len())
}

/// A hub that begins with such a segment has nothing of the forgeries.
fn opened(bytes: &[u8]) -> Arc<Hub> {
    let disk = FakeDisk::default();
    let file = disk.open(SEGMENT).unwrap();
    assert_eq!(file.write_at(bytes, 0).unwrap(), bytes.len());
    for round in ["harmed", "written anew"] {
        let hub = open(&disk);
        let believed = ids(&hub, &channel("staff"), 0).0;
        assert!(believed.is_empty(), "{round}");
        assert!(hub.last().0 < FORGED, "{round}");
    }
    open(&disk)
}

#[test]
fn records_in_the_data_of_a_damaged_message_are_not_believed() {
    let (bytes, [before, _, after], data) = log();
    let header = data.start - 30..data.start;
    for place in header.chain([data.start, data.end - 1]) {
        let mut harmed = bytes.clone();
        harmed[place] ^= 1;
        let (left, gap) = ids(&opened(&harmed), &channel("news"), before - 1);
        assert_eq!((left, gap), (vec![before, after], true), "{place}");
    }
}

#[test]
fn records_in_the_data_of_a_torn_message_are_not_believed() {
    let (bytes, [before, ..], data) = log();
    for end in data.step_by(7) {
        let (left, gap) = ids(&opened(&bytes[..end]), &channel("news"), before - 1);
        assert_eq!((left, gap), (vec![before], true), "{end}");
    }
}

#[test]
fn a_log_of_the_first_format_is_read_and_written_anew() {
    let (mark, news) = (b"\xc0\xe7", channel("news"));
    let number = |number: u64| number.to_le_bytes();
    let old = 999_999_000; // before the tests' clock, and not too old to be kept
    let message = |id| [&number(id)[..], b"\x04\0news\0\0\0\0old"].concat();
    let head = [&number(1)[..], &number(0), &[0]].concat();
    let start = [&number(old)[..], &number(0), &1u128.to_le_bytes(), &[1]].concat();
    let mut bytes = b"CometLg1".to_vec();
    for (kind, body) in [
        (1, head),
        (5, start),
        (2, message(old + 4)),
        (2, message(old + 6)),
    ] {
        bytes.extend(record(mark, kind, &body));
    }
    let disk = FakeDisk::default();
    disk.open(SEGMENT).unwrap().write_at(&bytes, 0).unwrap();
    let hub = open(&disk);
    assert_eq!(ids(&hub, &news, old), (vec![old + 4, old + 6], false));
    let new = published(&hub, &news, b"new");
    for name in disk.names() {
        disk.change(&name, |bytes| {
            assert!(bytes.starts_with(b"CometLg3"), "{name}")
        });
    }
    drop(hub);
    let kept = vec![old + 4, old + 6, new];
    assert_eq!(ids(&open(&disk), &news, old), (kept, false));
}

#[test]
fn records_in_data_are_not_believed_either_where_the_head_is_gone() {
    let (bytes, _, data) = log();
    for harm in [0..8, 0..20, 20..55, 0..55, 0..data.start] {
        let mut harmed = bytes.clone();
        harmed[harm].fill(0);
        harmed[data.start - 1] ^= 1;
        opened(&harmed);
    }
}
