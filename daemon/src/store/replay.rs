//! Reads a segment back: record by record, past what is damaged.

use std::io;

use super::{
    disk::LogFile,
    head::{self, Head},
    mark::Mark,
    record::{self, NoRecord, Record},
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
    /// How it begins.
    pub(super) head: Option<Head>,
}

/// Gives every record to `keep`, in order.
///
/// # Errors
/// The file cannot be read, or is of another version.
pub(super) fn replay(file: &dyn LogFile, keep: &mut dyn FnMut(Record<'_>)) -> io::Result<Segment> {
    let mut input = Input::new(file, CHUNK);
    input.fill()?;
    let Some(head) = head::read(input.bytes())? else {
        return without_head(input);
    };
    let mut segment = Segment::default();
    let mut bad_since = (!head.sound).then_some(0);
    input.advance(head.length);
    loop {
        let read = record::read(input.bytes(), &head.mark).map(|(record, length)| {
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
                input.skip(&head.mark);
            }
        }
    }
    segment.length = input.place;
    segment.head = Some(head);
    Ok(segment)
}

/// Without its mark nothing is believed: it is damaged as a whole, unless it is so short that nothing was written yet.
fn without_head(mut input: Input<'_>) -> io::Result<Segment> {
    let mut segment = Segment::default();
    loop {
        input.advance(input.bytes().len());
        if !input.fill()? {
            break;
        }
    }
    segment.length = input.place;
    if segment.length > head::LENGTH as u64 {
        segment.end = segment.length;
        segment.damaged.push((0, segment.length));
    }
    Ok(segment)
}

/// How a segment begins.
pub(super) fn head(file: &dyn LogFile) -> io::Result<Option<Head>> {
    let mut input = Input::new(file, head::LENGTH);
    input.fill()?;
    head::read(input.bytes())
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
    fn skip(&mut self, mark: &Mark) {
        let rest = &self.bytes()[1..];
        let length = match mark.find(rest) {
            Some(found) => found,
            // The last bytes may be the first of a mark.
            None if !self.at_end => rest.len().saturating_sub(mark.bytes().len() - 1),
            None => rest.len(),
        };
        self.advance(1 + length);
    }
}
