//! The mark: the bytes at the start of every record of a segment.

use std::{fmt, io};

use ring::rand::{SecureRandom, SystemRandom};

/// The mark of a segment. Each record begins with it, so that the next record after damaged bytes is found, and each checksum
/// contains it. Publishers and subscribers cannot know the mark, so published data is never taken for a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    bytes: [u8; Self::LENGTH],
    length: usize,
}

impl Mark {
    /// The length of a salt in bytes.
    pub(super) const LENGTH: usize = 8;

    /// The mark of the first format, which is public.
    pub(super) const PUBLIC: Self = Self {
        bytes: [0xC0, 0xE7, 0, 0, 0, 0, 0, 0],
        length: 2,
    };

    /// A salt from the system's random source.
    ///
    /// # Errors
    /// The system has no random source.
    pub(super) fn random() -> io::Result<Self> {
        let mut salt = [0; Self::LENGTH];
        let filled = SystemRandom::new().fill(&mut salt);
        filled.map_err(|_| io::Error::other("the system gives no random numbers"))?;
        Ok(Self::of(salt))
    }

    /// The mark with this salt.
    #[must_use]
    pub const fn of(salt: [u8; Self::LENGTH]) -> Self {
        Self {
            bytes: salt,
            length: Self::LENGTH,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The offset of the next mark in `bytes`.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<usize> {
        let mark = self.bytes();
        bytes.windows(mark.len()).position(|part| part == mark)
    }
}

/// Does not print the salt, which must not get into a log.
impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark")
    }
}
