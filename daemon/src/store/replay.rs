//! Reads a segment record by record, and skips damaged parts.

use std::io;

use super::{
    disk::LogFile,
    head::{self, SegmentHead},
    mark::Mark,
    record::{self, NoRecord, Record},
};

/// The bytes of one read.
const CHUNK: usize = if cfg!(any(test, feature = "fuzz")) {
    256
} else {
    1 << 20
};

/// The result of reading a segment.
#[derive(Debug, Default)]
pub(super) struct ReadSegment {
    /// The end of the last valid record. The bytes after it belong to an unfinished write.
    pub(super) end: u64,
    /// The length of the file.
    pub(super) length: u64,
    /// Offset and length of each damaged part.
    pub(super) damaged: Vec<(u64, u64)>,
    /// The parsed beginning.
    pub(super) head: Option<SegmentHead>,
}

/// Passes every record to `keep`, in order.
///
/// # Errors
/// The file cannot be read, or has another version.
pub(super) fn replay(
    file: &dyn LogFile,
    keep: &mut dyn FnMut(Record<'_>),
) -> io::Result<ReadSegment> {
    let mut reader = FileReader::new(file, CHUNK);
    reader.fill()?;
    let Some(head) = head::read(reader.bytes())? else {
        return without_head(reader);
    };
    let mut segment = ReadSegment::default();
    let mut bad_since = (!head.sound).then_some(0);
    reader.advance(head.length);
    loop {
        let read = record::read(reader.bytes(), &head.mark).map(|(record, length)| {
            if let Some(start) = bad_since.take() {
                segment.damaged.push((start, reader.place - start));
            }
            keep(record);
            length
        });
        match read {
            Ok(length) => {
                reader.advance(length);
                segment.end = reader.place;
            }
            Err(NoRecord::Short) if reader.fill()? => {}
            Err(_) if reader.bytes().is_empty() => break,
            Err(_) => {
                bad_since.get_or_insert(reader.place);
                reader.skip(&head.mark);
            }
        }
    }
    segment.length = reader.place;
    segment.head = Some(head);
    Ok(segment)
}

/// The result for a segment without a mark. All of it is damaged, unless it is so short that it cannot have a record.
fn without_head(mut reader: FileReader<'_>) -> io::Result<ReadSegment> {
    let mut segment = ReadSegment::default();
    loop {
        reader.advance(reader.bytes().len());
        if !reader.fill()? {
            break;
        }
    }
    segment.length = reader.place;
    if segment.length > head::LENGTH as u64 {
        segment.end = segment.length;
        segment.damaged.push((0, segment.length));
    }
    Ok(segment)
}

/// Reads the beginning of a segment.
pub(super) fn head(file: &dyn LogFile) -> io::Result<Option<SegmentHead>> {
    let mut reader = FileReader::new(file, head::LENGTH);
    reader.fill()?;
    head::read(reader.bytes())
}

/// Reads a file from its start to its end, and holds the bytes that are not parsed yet.
struct FileReader<'a> {
    file: &'a dyn LogFile,
    /// The smallest size of one read in bytes.
    chunk: usize,
    buffer: Vec<u8>,
    /// The bytes of the buffer that were already parsed.
    start: usize,
    /// The file offset of the next byte to read.
    place: u64,
    at_end: bool,
}

impl<'a> FileReader<'a> {
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

    /// Reads more bytes. Returns false at the end of the file.
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

    /// Skips the first byte, and all further bytes up to the next place where a record may start.
    fn skip(&mut self, mark: &Mark) {
        let rest = &self.bytes()[1..];
        let length = match mark.find(rest) {
            Some(found) => found,
            // The last bytes may be the first part of a mark.
            None if !self.at_end => rest.len().saturating_sub(mark.bytes().len() - 1),
            None => rest.len(),
        };
        self.advance(1 + length);
    }
}
