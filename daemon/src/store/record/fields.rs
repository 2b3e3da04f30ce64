//! The fields of a record's body: numbers, texts and counts.

use comet_proto::ChannelName;

/// The longest idempotency key that a record can hold.
const MAX_KEY: usize = u16::MAX as usize;

/// The largest valid id and the largest valid number of a segment. An increment of a valid number never overflows.
pub(super) const MAX_NUMBER: u64 = u64::MAX / 2;

pub(super) fn put(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(
        text.len() <= MAX_KEY,
        "names and keys are checked at the edge"
    );
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
}

pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u8::try_from(count).expect("at most 100 channels and 16 attributes");
    out.push(count);
}

/// The part of a body that is not parsed yet.
pub(super) struct BodyReader<'a>(pub(super) &'a [u8]);

impl<'a> BodyReader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let number = u64::from_le_bytes(self.take(8)?.try_into().ok()?);
        (number <= MAX_NUMBER).then_some(number)
    }

    pub(super) fn count(&mut self) -> Option<u8> {
        self.take(1).map(|count| count[0])
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = u16::from_le_bytes(self.take(2)?.try_into().ok()?);
        std::str::from_utf8(self.take(length.into())?).ok()
    }

    pub(super) fn channel(&mut self) -> Option<ChannelName> {
        ChannelName::from_log(self.text()?).ok()
    }

    /// All bytes that are left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
