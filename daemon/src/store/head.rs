//! Reads and writes the beginning of a segment: the version of the format, the mark of the records (twice), and the number of
//! the segment.

use std::io;

use super::{
    mark::Mark,
    record::{self, Record},
};

/// The name and the version of the format that this daemon writes.
const MAGIC: &[u8; 8] = b"CometLg3";

/// The second version of the format, which is read, too. It has fewer kinds of records.
const SECOND: &[u8; 8] = b"CometLg2";

/// The first version of the format, which is read, too. Its mark is the same for all segments and not secret.
const FIRST: &[u8; 8] = b"CometLg1";

/// Length in bytes of the seal: the magic bytes, the mark, and the checksum of both.
const SEAL: usize = MAGIC.len() + Mark::LENGTH + 4;

/// Length in bytes of a segment without messages: the seal, and a record with two numbers and one byte.
pub(super) const LENGTH: usize = SEAL + Mark::LENGTH + record::HEADER + 17;

/// The parsed beginning of a segment.
#[derive(Debug)]
pub(super) struct SegmentHead {
    /// The mark of all records.
    pub(super) mark: Mark,
    /// The offset of the first record.
    pub(super) length: usize,
    /// Whether no byte before the first record is damaged.
    pub(super) sound: bool,
    /// Whether the segment is a base. `None`: the first record is damaged.
    pub(super) base: Option<bool>,
    /// Whether the segment has an earlier version.
    pub(super) outdated: bool,
}

impl SegmentHead {
    /// Whether records may be appended to the segment.
    pub(super) fn is_open(&self) -> bool {
        self.sound && !self.outdated && self.base == Some(false)
    }
}

/// The bytes of a new segment.
pub(super) fn write(mark: &Mark, number: u64, base: bool, last: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(mark.bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    let record = Record::Head { number, base, last };
    record.write(&mut bytes, mark);
    bytes
}

/// Parses the beginning of a segment. `None`: both copies of the mark are damaged, so no record can be read.
///
/// # Errors
/// The segment has another version.
pub(super) fn read(bytes: &[u8]) -> io::Result<Option<SegmentHead>> {
    let (name, _) = MAGIC.split_at(MAGIC.len() - 1);
    match bytes.strip_prefix(name).and_then(<[u8]>::first) {
        Some(b'1'..=b'3') => {}
        Some(version) if version.is_ascii_digit() => return Err(other(char::from(*version))),
        _ => {}
    }
    Ok(sealed(bytes).or_else(|| first(bytes)))
}

fn other(version: char) -> io::Error {
    let message = format!(
        "it has format {version}, and this comet reads formats 1 to 3; start the comet that wrote it, or set another directory with --store"
    );
    io::Error::new(io::ErrorKind::Unsupported, message)
}

/// Reads the mark from the first record, when the seal is damaged.
fn sealed(bytes: &[u8]) -> Option<SegmentHead> {
    let (seal, rest) = bytes.split_at_checked(SEAL)?;
    let (signed, sum) = seal.split_at(SEAL - 4);
    let is_second = signed.starts_with(SECOND);
    let is_known = is_second || signed.starts_with(MAGIC);
    let sound = is_known && crc32fast::hash(signed).to_le_bytes() == sum;
    let mark = if sound { &signed[MAGIC.len()..] } else { rest };
    let mark = Mark::of(*mark.first_chunk()?);
    let base = base(rest, &mark);
    (sound || base.is_some()).then_some(SegmentHead {
        mark,
        length: SEAL,
        sound,
        base,
        outdated: sound && is_second,
    })
}

fn first(bytes: &[u8]) -> Option<SegmentHead> {
    let mark = Mark::PUBLIC;
    let rest = bytes.strip_prefix(FIRST)?;
    rest.starts_with(mark.bytes()).then(|| SegmentHead {
        mark,
        length: FIRST.len(),
        sound: true,
        base: base(rest, &mark),
        outdated: true,
    })
}

fn base(bytes: &[u8], mark: &Mark) -> Option<bool> {
    match record::read(bytes, mark) {
        Ok((Record::Head { base, .. }, _)) => Some(base),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> (Mark, Vec<u8>) {
        let mark = Mark::random().unwrap();
        (mark, write(&mark, 3, true, 9))
    }

    #[test]
    fn every_segment_has_a_mark_of_its_own() {
        let (mark, bytes) = written();
        let head = read(&bytes).unwrap().unwrap();
        assert_eq!((head.mark, head.base, head.sound), (mark, Some(true), true));
        assert_eq!(bytes.len(), LENGTH);
        assert_ne!(written().0, mark);
        assert!(!format!("{head:?}").contains(&format!("{:?}", mark.bytes())));
    }

    #[test]
    fn the_mark_survives_damage_of_either_place() {
        for place in 0..LENGTH {
            let (mark, mut bytes) = written();
            bytes[place] ^= 0x80;
            let head = read(&bytes).unwrap().unwrap();
            let base = (place < SEAL).then_some(true);
            assert_eq!((head.mark, head.base), (mark, base), "{place}");
            assert_eq!(head.sound, place >= SEAL, "{place}");
        }
        let (mark, mut bytes) = written();
        bytes[..SEAL].fill(0);
        assert_eq!(read(&bytes).unwrap().unwrap().mark, mark);
        bytes[SEAL] ^= 1;
        assert!(read(&bytes).unwrap().is_none());
    }

    #[test]
    fn a_damaged_version_is_never_taken_for_version_1_with_its_public_mark() {
        let (mark, mut bytes) = written();
        bytes[7] = b'1';
        assert_eq!(read(&bytes).unwrap().unwrap().mark, mark);
        bytes[SEAL] ^= 1;
        assert!(read(&bytes).unwrap().is_none());
    }

    #[test]
    fn earlier_versions_are_read_and_an_error_names_an_unknown_version() {
        let (mark, mut bytes) = written();
        bytes[7] = b'2';
        let sum = crc32fast::hash(&bytes[..SEAL - 4]);
        bytes[SEAL - 4..SEAL].copy_from_slice(&sum.to_le_bytes());
        let head = read(&bytes).unwrap().unwrap();
        assert_eq!((head.mark, head.sound, head.outdated), (mark, true, true));
        assert!(!head.is_open());

        let mut bytes = FIRST.to_vec();
        let (number, last) = (1, 2);
        let record = Record::Head {
            number,
            base: false,
            last,
        };
        record.write(&mut bytes, &Mark::PUBLIC);
        let head = read(&bytes).unwrap().unwrap();
        assert_eq!((head.mark, head.base), (Mark::PUBLIC, Some(false)));
        assert!(!head.is_open());
        let error = read(b"CometLg4").unwrap_err().to_string();
        assert!(error.starts_with("it has format 4, and this comet reads formats 1 to 3"));
    }
}
