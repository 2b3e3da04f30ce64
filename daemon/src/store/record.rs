//! Turns the records of the log into bytes and back (`docs/log-format.md`). This module has no I/O: `replay` reads files.

use comet_proto::{Attributes, ChannelName, ChannelNames, EventName};

use super::{Durability, mark::Mark};

/// The length of the header after the mark: kind, an unused byte, length of the body, checksum.
pub(super) const HEADER: usize = 10;

/// The bytes of the header before the checksum.
const SUMMED: usize = HEADER - 4;

/// The longest idempotency key that a record can hold.
const MAX_KEY: usize = u16::MAX as usize;

/// The largest valid id and the largest valid number of a segment. An increment of a valid number never overflows.
const MAX_NUMBER: u64 = u64::MAX / 2;

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// The first record of a segment.
    Head {
        /// The number of this segment; later segments have larger numbers.
        number: u64,
        /// Whether the segment is a base. A base contains everything that was kept, so that older segments are ignored.
        base: bool,
        /// Messages that are only in later segments have larger ids.
        last: u64,
    },
    /// A message, which belongs to all its channels.
    Message(MessageRecord<'a>),
    /// A message of a base that has several channels. It belongs to those for which a [`Record::Link`] follows, because the
    /// history of each channel is trimmed on its own.
    Shared(MessageRecord<'a>),
    /// The next message of a channel in a base: the shared message with this id.
    Link {
        /// The id of the message.
        id: u64,
        /// The channel.
        channel: ChannelName,
    },
    /// A channel, with the id up to which its messages are gone.
    Channel {
        /// The channel.
        name: ChannelName,
        /// A cursor below this id has missed messages of the channel.
        trimmed: u64,
    },
    /// An idempotency key, whose message may be gone.
    Key {
        /// The channel.
        channel: ChannelName,
        /// The key.
        key: &'a str,
        /// The id of the message with this key.
        id: u64,
    },
    /// The start of a daemon.
    Start {
        /// The first cursor that the daemon gave.
        id: u64,
        /// The last id that the daemon found in the log. Ids between the two belong to lost messages.
        after: u64,
        /// The machine's boot id, which changes with every boot.
        boot: u128,
        /// The daemon's setting of durability.
        durability: Durability,
    },
    /// The orderly end of a daemon: no message before it is missing.
    Stop {
        /// The last cursor that the daemon gave.
        id: u64,
    },
    /// A cursor below this id may have missed messages of channels that are not in the log.
    Floor {
        /// The id.
        id: u64,
    },
    /// A range of ids whose messages are lost. A client with such an id as its cursor must reload.
    Lost {
        /// Exclusive.
        after: u64,
        /// Exclusive.
        before: u64,
    },
    /// A cursor below this id may have missed messages of any channel.
    Missed {
        /// The id.
        before: u64,
    },
}

/// A message in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRecord<'a> {
    /// The id.
    pub id: u64,
    /// The channels, nearly always one.
    pub channels: ChannelNames,
    /// The label.
    pub name: EventName,
    /// The idempotency key with which the message was published; empty: none.
    pub key: &'a str,
    /// Further pairs of a key and a text.
    pub attributes: Option<Box<Attributes>>,
    /// The content.
    pub data: &'a [u8],
}

/// Why some bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRecord {
    /// The record is longer than the bytes.
    Short,
    /// The bytes are no record, or a record that was changed.
    Damaged,
}

const HEAD: u8 = 1;
const MESSAGE: u8 = 2;
const CHANNEL: u8 = 3;
const KEY: u8 = 4;
const START: u8 = 5;
const STOP: u8 = 6;
const FLOOR: u8 = 7;
const LOST: u8 = 8;
const MISSED: u8 = 9;
const FULL_MESSAGE: u8 = 10;
const SHARED: u8 = 11;
const LINK: u8 = 12;

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

    fn kind(&self) -> u8 {
        match self {
            Self::Head { .. } => HEAD,
            Self::Message(message) if message.is_plain() => MESSAGE,
            Self::Message(_) => FULL_MESSAGE,
            Self::Shared(_) => SHARED,
            Self::Link { .. } => LINK,
            Self::Channel { .. } => CHANNEL,
            Self::Key { .. } => KEY,
            Self::Start { .. } => START,
            Self::Stop { .. } => STOP,
            Self::Floor { .. } => FLOOR,
            Self::Lost { .. } => LOST,
            Self::Missed { .. } => MISSED,
        }
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Head { number, base, last } => {
                put(out, &[*number, *last]);
                out.push(u8::from(*base));
            }
            Self::Message(message) if message.is_plain() => message.write_plain(out),
            Self::Message(message) | Self::Shared(message) => message.write_full(out),
            Self::Link { id, channel } => {
                put(out, &[*id]);
                put_text(out, channel);
            }
            Self::Channel { name, trimmed } => {
                put(out, &[*trimmed]);
                put_text(out, name);
            }
            Self::Key { channel, key, id } => {
                put(out, &[*id]);
                put_text(out, channel);
                put_text(out, key);
            }
            Self::Start {
                id,
                after,
                boot,
                durability,
            } => {
                put(out, &[*id, *after]);
                out.extend_from_slice(&boot.to_le_bytes());
                out.push(match durability {
                    Durability::Memory => 0,
                    Durability::Process => 1,
                    Durability::Disk => 2,
                });
            }
            Self::Stop { id } | Self::Floor { id } => put(out, &[*id]),
            Self::Lost { after, before } => put(out, &[*after, *before]),
            Self::Missed { before } => put(out, &[*before]),
        }
    }
}

impl<'a> MessageRecord<'a> {
    /// Whether the message has one channel and no attributes, as nearly all have. Then the record is of the kind that earlier
    /// versions wrote, too.
    fn is_plain(&self) -> bool {
        self.channels.len() == 1 && self.attributes.is_none()
    }

    fn write_plain(&self, out: &mut Vec<u8>) {
        put(out, &[self.id]);
        put_text(out, &self.channels[0]);
        put_text(out, self.name.as_str());
        put_text(out, self.key);
        out.extend_from_slice(self.data);
    }

    fn write_full(&self, out: &mut Vec<u8>) {
        put(out, &[self.id]);
        put_count(out, self.channels.len());
        self.channels.iter().for_each(|name| put_text(out, name));
        put_text(out, self.name.as_str());
        put_text(out, self.key);
        let attributes = self.attributes.as_deref();
        put_count(
            out,
            attributes.map_or(0, |attributes| attributes.iter().len()),
        );
        for (key, value) in attributes.iter().flat_map(|attributes| attributes.iter()) {
            put_text(out, key);
            put_text(out, value);
        }
        out.extend_from_slice(self.data);
    }

    fn read_plain(body: &mut Body<'a>) -> Option<Self> {
        Some(Self {
            id: body.number()?,
            channels: body.channel()?.into(),
            name: EventName::parse(body.text()?).ok()?,
            key: body.text()?,
            attributes: None,
            data: std::mem::take(&mut body.0),
        })
    }

    /// A list that the daemon would have written in another way is damage.
    fn read_full(body: &mut Body<'a>) -> Option<Self> {
        let id = body.number()?;
        let names: Vec<&str> = (0..body.count()?)
            .map(|_| body.text())
            .collect::<Option<_>>()?;
        let channels = ChannelNames::parse(names.iter().copied()).ok()?;
        let (name, key) = (EventName::parse(body.text()?).ok()?, body.text()?);
        let pairs = (0..body.count()?).map(|_| Some((body.text()?, body.text()?)));
        let pairs: Vec<(&str, &str)> = pairs.collect::<Option<_>>()?;
        let is_as_written = channels.len() == names.len() && pairs.is_sorted();
        let attributes = Attributes::parse(&pairs).ok().filter(|_| is_as_written)?;
        Some(Self {
            id,
            channels,
            name,
            key,
            attributes,
            data: std::mem::take(&mut body.0),
        })
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
    if !(HEAD..=LINK).contains(&kind) || zero != 0 {
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

fn read_body(kind: u8, body: &[u8]) -> Option<Record<'_>> {
    let mut body = Body(body);
    let record = match kind {
        HEAD => Record::Head {
            number: body.number()?,
            last: body.number()?,
            base: body.take(1)? == [1],
        },
        MESSAGE => Record::Message(MessageRecord::read_plain(&mut body)?),
        FULL_MESSAGE => Record::Message(
            MessageRecord::read_full(&mut body).filter(|message| !message.is_plain())?,
        ),
        SHARED => Record::Shared(MessageRecord::read_full(&mut body)?),
        LINK => Record::Link {
            id: body.number()?,
            channel: body.channel()?,
        },
        CHANNEL => Record::Channel {
            trimmed: body.number()?,
            name: body.channel()?,
        },
        KEY => Record::Key {
            id: body.number()?,
            channel: body.channel()?,
            key: body.text()?,
        },
        START => Record::Start {
            id: body.number()?,
            after: body.number()?,
            boot: u128::from_le_bytes(body.take(16)?.try_into().ok()?),
            durability: match body.take(1)? {
                [0] => Durability::Memory,
                [1] => Durability::Process,
                [2] => Durability::Disk,
                _ => return None,
            },
        },
        STOP => Record::Stop { id: body.number()? },
        FLOOR => Record::Floor { id: body.number()? },
        LOST => Record::Lost {
            after: body.number()?,
            before: body.number()?,
        },
        MISSED => Record::Missed {
            before: body.number()?,
        },
        _ => return None,
    };
    body.0.is_empty().then_some(record)
}

/// The checksum of everything except its own four bytes, including the mark.
fn check_sum(before: &[u8], body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(before);
    sum.update(body);
    sum.finalize()
}

fn put(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(
        text.len() <= MAX_KEY,
        "names and keys are checked at the edge"
    );
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u8::try_from(count).expect("at most 100 channels and 16 attributes");
    out.push(count);
}

/// The part of a body that is not parsed yet.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let number = u64::from_le_bytes(self.take(8)?.try_into().ok()?);
        (number <= MAX_NUMBER).then_some(number)
    }

    fn count(&mut self) -> Option<u8> {
        self.take(1).map(|count| count[0])
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = u16::from_le_bytes(self.take(2)?.try_into().ok()?);
        std::str::from_utf8(self.take(length.into())?).ok()
    }

    fn channel(&mut self) -> Option<ChannelName> {
        ChannelName::parse(self.text()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
    fn a_list_that_no_daemon_writes_is_damage() {
        let record = |channels: &[&str], pairs: &[(&str, &str)]| {
            let mut body = Vec::new();
            put(&mut body, &[7]);
            put_count(&mut body, channels.len());
            channels.iter().for_each(|name| put_text(&mut body, name));
            put_text(&mut body, "");
            put_text(&mut body, "");
            put_count(&mut body, pairs.len());
            for (key, value) in pairs {
                put_text(&mut body, key);
                put_text(&mut body, value);
            }
            read_body(FULL_MESSAGE, &body).is_some()
        };
        assert!(record(&["a", "b"], &[]) && record(&["a"], &[("k", "")]));
        assert!(!record(&["a"], &[]), "a plain message");
        assert!(!record(&[], &[("k", "")]));
        assert!(!record(&["a", "b", "a"], &[]));
        assert!(!record(&["a", "b"], &[("k", ""), ("j", "")]));
        assert!(!record(&["a", "b"], &[("k", ""), ("k", "")]));
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
