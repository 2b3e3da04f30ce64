//! Finds the end of a chunked body (RFC 9112, section 7.1). hyper decodes the body. This code only finds the end, and
//! refuses a body that another reader could end elsewhere.

use super::framing::Malformed;

/// Largest number of bytes in all extensions and trailers of a body. The daemon does not use them.
const MAX_EXTRA: usize = 4096;

/// Largest number of digits in the size of a chunk.
const MAX_DIGITS: u8 = 16;

/// How far a chunked body was read.
#[derive(Default)]
pub(super) struct Chunks {
    next: Next,
    /// The chunk's size as far as it was read, or the number of data bytes that are still to come.
    size: u64,
    digits: u8,
    extra: usize,
}

/// The part of the body that comes next.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Next {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    Nothing,
}

impl Chunks {
    /// How many of the next bytes belong to the body.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_over() {
            if self.next == Next::Data {
                taken += self.skip(bytes.len() - taken);
            } else {
                self.next = self.step(bytes[taken])?;
                taken += 1;
            }
        }
        Ok(taken)
    }

    pub(super) fn is_over(&self) -> bool {
        self.next == Next::Nothing
    }

    /// Skips data of the chunk. `bytes` is the number of bytes that are there.
    fn skip(&mut self, bytes: usize) -> usize {
        let skipped = usize::try_from(self.size).map_or(bytes, |size| size.min(bytes));
        self.size -= skipped as u64;
        if self.size == 0 {
            self.next = Next::DataCr;
        }
        skipped
    }

    fn step(&mut self, byte: u8) -> Result<Next, Malformed> {
        match (self.next, byte) {
            (Next::Size, byte) => self.size(byte),
            (Next::Extension, b'\r') => Ok(Next::SizeLf),
            (Next::Extension, byte) => self.extra(byte, Next::Extension),
            (Next::SizeLf, b'\n') if self.size > 0 => Ok(Next::Data),
            (Next::SizeLf, b'\n') => Ok(Next::TrailerStart),
            (Next::SizeLf, _) => Err(Malformed::ChunkExtra),
            (Next::DataCr, b'\r') => Ok(Next::DataLf),
            (Next::DataLf, b'\n') => {
                (self.size, self.digits) = (0, 0);
                Ok(Next::Size)
            }
            (Next::TrailerStart, b'\r') => Ok(Next::LastLf),
            (Next::TrailerStart | Next::Trailer, byte) if byte != b'\r' => {
                self.extra(byte, Next::Trailer)
            }
            (Next::Trailer, _) => Ok(Next::TrailerLf),
            (Next::TrailerLf, b'\n') => Ok(Next::TrailerStart),
            (Next::LastLf, b'\n') => Ok(Next::Nothing),
            (Next::TrailerStart | Next::TrailerLf | Next::LastLf, _) => Err(Malformed::ChunkExtra),
            (Next::DataCr | Next::DataLf | Next::Data | Next::Nothing, _) => {
                Err(Malformed::ChunkEnd)
            }
        }
    }

    fn size(&mut self, byte: u8) -> Result<Next, Malformed> {
        match (byte, char::from(byte).to_digit(16)) {
            (_, Some(digit)) if self.digits < MAX_DIGITS => {
                self.digits += 1;
                self.size = self.size << 4 | u64::from(digit);
                Ok(Next::Size)
            }
            (b';', _) if self.digits > 0 => self.extra(byte, Next::Extension),
            (b'\r', _) if self.digits > 0 => Ok(Next::SizeLf),
            _ => Err(Malformed::ChunkSize),
        }
    }

    fn extra(&mut self, byte: u8, next: Next) -> Result<Next, Malformed> {
        self.extra += 1;
        let is_visible = byte == b'\t' || (b' '..=b'~').contains(&byte);
        if is_visible && self.extra <= MAX_EXTRA {
            Ok(next)
        } else {
            Err(Malformed::ChunkExtra)
        }
    }
}
