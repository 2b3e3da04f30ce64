//! What every record of a segment begins with.

use std::{fmt, io};

use ring::rand::{SecureRandom, SystemRandom};

/// Finds records behind damage, and is part of their check sums. Nobody who only publishes or subscribes can know it, so
/// nothing that was published can be taken for a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    bytes: [u8; Self::LENGTH],
    length: usize,
}

impl Mark {
    /// Of a salt.
    pub(super) const LENGTH: usize = 8;

    /// Of the first format: known to everybody.
    pub(super) const PUBLIC: Self = Self {
        bytes: [0xC0, 0xE7, 0, 0, 0, 0, 0, 0],
        length: 2,
    };

    /// A salt from the system's random source.
    ///
    /// # Errors
    /// The system has none.
    pub(super) fn random() -> io::Result<Self> {
        let mut salt = [0; Self::LENGTH];
        let filled = SystemRandom::new().fill(&mut salt);
        filled.map_err(|_| io::Error::other("the system gives no random numbers"))?;
        Ok(Self::of(salt))
    }

    /// This salt.
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

    /// Where the next bytes are that a record may begin with.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<usize> {
        let mark = self.bytes();
        bytes.windows(mark.len()).position(|part| part == mark)
    }
}

/// It must not get into anybody's log.
impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark")
    }
}
