//! Reads a segment back: record by record, past what is damaged.

use std::io;

use super::{
    disk::LogFile,
    record::{self, MAGIC, NoRecord, Record},
};

/// What is asked of the system at once.
const CHUNK: usize = if cfg!(any(test, feature = "fuzz")) {
    256
} else {
    1 << 20
};

/// What a segment was found to be.
#[derive(Debug, Default)]
pub(super) struct Segment {
    /// Up to here it is sound, or damaged with something sound behind; what follows is the torn end of a write.
    pub(super) end: u64,
    /// All of it.
    pub(super) length: u64,
    /// Places and lengths of what is no record.
    pub(super) damaged: Vec<(u64, u64)>,
    /// It does not begin as a segment does.
    pub(super) headless: bool,
}

/// Gives every record to `keep`, in order.
///
/// # Errors
/// The file cannot be read, or is of another version.
pub(super) fn replay(file: &dyn LogFile, keep: &mut dyn FnMut(Record<'_>)) -> io::Result<Segment> {
    let mut input = Input::new(file, CHUNK);
    let mut segment = Segment::default();
    let mut bad_since = None;
    if !input.begins_with_magic()? {
        bad_since = Some(0);
        segment.headless = true;
    }
    loop {
        let read = record::read(input.bytes()).map(|(record, length)| {
            if let Some(start) = bad_since.take() {
                segment.damaged.push((start, input.place - start));
            }
            keep(record);
            length
        });
        match read {
            Ok(length) => {
                input.advance(length);
                segment.end = input.place;
            }
            Err(NoRecord::Short) if input.fill()? => {}
            Err(_) if input.bytes().is_empty() => break,
            Err(_) => {
                bad_since.get_or_insert(input.place);
                input.skip();
            }
        }
    }
    segment.length = input.place;
    Ok(segment)
}

/// The first record of a segment.
pub(super) fn head(file: &dyn LogFile) -> io::Result<Option<(u64, bool)>> {
    let mut input = Input::new(file, 64);
    if !input.begins_with_magic()? {
        return Ok(None);
    }
    Ok(match record::read(input.bytes()) {
        Ok((Record::Head { number, base, .. }, _)) => Some((number, base)),
        _ => None,
    })
}

/// A window on the file.
struct Input<'a> {
    file: &'a dyn LogFile,
    /// Read at once, at least.
    chunk: usize,
    buffer: Vec<u8>,
    /// Of the buffer, what was read before.
    start: usize,
    /// In the file, of the first byte that was not read.
    place: u64,
    at_end: bool,
}

impl<'a> Input<'a> {
    fn new(file: &'a dyn LogFile, chunk: usize) -> Self {
        Self {
            file,
            chunk,
            buffer: Vec::new(),
            start: 0,
            place: 0,
            at_end: false,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn begins_with_magic(&mut self) -> io::Result<bool> {
        self.fill()?;
        let magic = self.bytes().get(..MAGIC.len()).unwrap_or_default();
        let (name, version) = MAGIC.split_at(MAGIC.len() - 1);
        if magic == MAGIC {
            self.advance(MAGIC.len());
            return Ok(true);
        }
        if magic.starts_with(name) && magic[name.len()].is_ascii_digit() {
            let (found, known) = (char::from(magic[name.len()]), char::from(version[0]));
            let message = format!("it has format {found}; this comet reads format {known}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        Ok(false)
    }

    /// Reads on. False: there is nothing more.
    fn fill(&mut self) -> io::Result<bool> {
        if self.at_end {
            return Ok(false);
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let had = self.buffer.len();
        self.buffer.resize(had + self.chunk.max(had), 0);
        let mut length = had;
        while length < self.buffer.len() {
            let place = self.place + length as u64;
            match self.file.read_at(&mut self.buffer[length..], place) {
                Ok(0) => {
                    self.at_end = true;
                    break;
                }
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.buffer.truncate(length);
        Ok(length > had)
    }

    fn advance(&mut self, length: usize) {
        self.start += length;
        self.place += length as u64;
    }

    /// Past the first byte, to where a record may begin.
    fn skip(&mut self) {
        let rest = &self.bytes()[1..];
        let length = match record::next_mark(rest) {
            Some(found) => 1 + found,
            // The last byte may be the first of a mark.
            None if !self.at_end && !rest.is_empty() => rest.len(),
            None => 1 + rest.len(),
        };
        self.advance(length);
    }
}
