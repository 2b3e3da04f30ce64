//! A record in a segment: the segment's mark, the header with length and checksum, and the body.

use super::{
    body::{KINDS, read_body},
    kinds::Record,
};
use crate::store::mark::Mark;

/// The length of the header after the mark: kind, an unused byte, length of the body, checksum.
pub(in crate::store) const HEADER: usize = 10;

/// The bytes of the header before the checksum.
const SUMMED: usize = HEADER - 4;

/// Why some bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRecord {
    /// The record is longer than the bytes.
    Short,
    /// The bytes are no record, or a record that was changed.
    Damaged,
}

impl Record<'_> {
    /// Appends the record, with the mark of its segment.
    pub fn write(&self, out: &mut Vec<u8>, mark: &Mark) {
        let start = out.len();
        out.extend_from_slice(mark.bytes());
        let header = out.len();
        out.extend_from_slice(&[self.kind(), 0]);
        out.extend_from_slice(&[0; 8]); // length and checksum, filled in at the end
        let body = out.len();
        self.write_body(out);
        let length = u32::try_from(out.len() - body).expect("limits are far below 4 GiB");
        out[header + 2..header + SUMMED].copy_from_slice(&length.to_le_bytes());
        let sum = check_sum(&out[start..header + SUMMED], &out[body..]);
        out[header + SUMMED..body].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Parses the record at the start of `bytes` in a segment with this mark. Also returns its length.
///
/// # Errors
/// There is no record, or only a part of one.
pub fn read<'a>(bytes: &'a [u8], mark: &Mark) -> Result<(Record<'a>, usize), NoRecord> {
    let Some(rest) = bytes.strip_prefix(mark.bytes()) else {
        let may_be_cut = mark.bytes().starts_with(bytes);
        return Err([NoRecord::Damaged, NoRecord::Short][usize::from(may_be_cut)]);
    };
    let (header, rest) = rest.split_first_chunk().ok_or(NoRecord::Short)?;
    let &[kind, zero, l0, l1, l2, l3, s0, s1, s2, s3]: &[u8; HEADER] = header;
    if !KINDS.contains(&kind) || zero != 0 {
        return Err(NoRecord::Damaged);
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let body = rest.get(..length).ok_or(NoRecord::Short)?;
    let summed = &bytes[..mark.bytes().len() + SUMMED];
    if check_sum(summed, body) != u32::from_le_bytes([s0, s1, s2, s3]) {
        return Err(NoRecord::Damaged);
    }
    let record = read_body(kind, body).ok_or(NoRecord::Damaged)?;
    Ok((record, summed.len() + 4 + length))
}

/// The checksum of everything except its own four bytes, including the mark.
fn check_sum(before: &[u8], body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(before);
    sum.update(body);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use comet_proto::{Attributes, ChannelName, ChannelNames, EventName};
    use proptest::prelude::*;

    use super::*;
    use crate::store::{
        Durability,
        record::{MessageRecord, fields::MAX_NUMBER},
    };

    fn channel() -> ChannelName {
        ChannelName::parse("news").unwrap()
    }

    fn all<'a>(id: u64, key: &'a str, data: &'a [u8]) -> Vec<Record<'a>> {
        vec![
            Record::Head {
                number: id,
                base: id.is_multiple_of(2),
                last: id + 1,
            },
            Record::Message(message(id, key, data)),
            Record::Channel {
                name: channel(),
                trimmed: id,
            },
            Record::Key {
                channel: channel(),
                key,
                id,
            },
            Record::Start {
                id,
                after: id - 1,
                boot: u128::from(id) << 64,
                durability: Durability::Disk,
            },
            Record::Stop { id },
            Record::Floor { id },
            Record::Lost {
                after: id,
                before: id + 9,
            },
            Record::Missed { before: id },
            Record::Message(full(id, key, data)),
            Record::Shared(full(id, key, data)),
            Record::Link {
                id,
                channel: channel(),
            },
            Record::Removed {
                id,
                channel: channel(),
                message: id - 1,
            },
            Record::Length {
                id,
                channel: channel(),
                messages: id.is_multiple_of(2).then_some(1000),
            },
        ]
    }

    fn message<'a>(id: u64, key: &'a str, data: &'a [u8]) -> MessageRecord<'a> {
        MessageRecord {
            id,
            channels: channel().into(),
            name: EventName::parse("näme").unwrap(),
            key,
            attributes: None,
            data,
        }
    }

    /// A message with two channels and two attributes.
    fn full<'a>(id: u64, key: &'a str, data: &'a [u8]) -> MessageRecord<'a> {
        MessageRecord {
            channels: ChannelNames::parse(["news", "all"]).unwrap(),
            attributes: Attributes::parse(&[("b", "x"), ("a", "é")]).unwrap(),
            ..message(id, key, data)
        }
    }

    const MARK: Mark = Mark::of(*b"\xf0\xe1\xd2\xc3\xb4\xa5\x96\x87");

    #[test]
    fn a_message_has_the_bytes_of_the_document() {
        let mut out = Vec::new();
        let message = &all(0x0102_0304_0506_0708, "k", b"hi")[1];
        message.write(&mut out, &MARK);
        let body = b"\x08\x07\x06\x05\x04\x03\x02\x01\x04\0news\x05\0n\xc3\xa4me\x01\0khi";
        assert_eq!(&out[..8], MARK.bytes());
        assert_eq!(&out[8..14], b"\x02\0\x1a\0\0\0");
        assert_eq!(out[14..18], [0x55, 0x16, 0xa9, 0xb2]);
        assert_eq!(&out[18..], body);
    }

    #[test]
    fn a_message_with_channels_and_attributes_has_the_bytes_of_the_document() {
        let mut out = Vec::new();
        let message = Record::Message(full(0x0102_0304_0506_0708, "k", b"hi"));
        message.write(&mut out, &MARK);
        let body =
            b"\x08\x07\x06\x05\x04\x03\x02\x01\x02\x04\0news\x03\0all\x05\0n\xc3\xa4me\x01\0k\
            \x02\x01\0a\x02\0\xc3\xa9\x01\0b\x01\0xhi";
        assert_eq!(out[8..10], [10, 0]);
        assert_eq!(&out[18..], body);
    }

    #[test]
    fn a_message_of_the_first_format_is_read() {
        let header = b"\xc0\xe7\x02\0\x1a\0\0\0\xe5\xb9\x69\xa3";
        let body = b"\x08\x07\x06\x05\x04\x03\x02\x01\x04\0news\x05\0n\xc3\xa4me\x01\0khi";
        let bytes = [&header[..], body].concat();
        let message = all(0x0102_0304_0506_0708, "k", b"hi").remove(1);
        assert_eq!(read(&bytes, &Mark::PUBLIC), Ok((message, bytes.len())));
        assert_eq!(read(&bytes, &MARK), Err(NoRecord::Damaged));
    }

    #[test]
    fn says_of_every_cut_that_it_is_short() {
        for record in all(7, "key", b"data") {
            let mut out = Vec::new();
            record.write(&mut out, &MARK);
            assert_eq!(read(&out, &MARK), Ok((record, out.len())));
            for end in 0..out.len() {
                assert_eq!(read(&out[..end], &MARK), Err(NoRecord::Short), "{end}");
            }
        }
    }

    proptest! {
        #[test]
        fn is_read_as_it_was_written(id in 1..MAX_NUMBER - 9, key in ".{0,40}", data: Vec<u8>, rest: Vec<u8>) {
            for record in all(id, &key, &data) {
                let mut out = Vec::new();
                record.write(&mut out, &MARK);
                let length = out.len();
                out.extend_from_slice(&rest);
                prop_assert_eq!(read(&out, &MARK), Ok((record, length)));
            }
        }

        #[test]
        fn notices_every_changed_bit(data: Vec<u8>, place: prop::sample::Index, bit in 0..8u8) {
            for record in all(7, "key", &data) {
                let mut out = Vec::new();
                record.write(&mut out, &MARK);
                let place = place.index(out.len());
                out[place] ^= 1 << bit;
                prop_assert!(read(&out, &MARK).is_err());
            }
        }

        #[test]
        fn bytes_never_panic(bytes: Vec<u8>) {
            for mark in [Mark::PUBLIC, MARK] {
                let _ = read(&bytes, &mark);
                let _ = read(&[mark.bytes(), &bytes].concat(), &mark);
            }
        }
    }
}
