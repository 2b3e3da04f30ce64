//! The log: records are appended to segments, which are files in a directory (`docs/log-format.md`). The log has no threads.
//! The hub decides when to write, and wakes the publishers that wait.

use std::{io, path::PathBuf, sync::Arc};

use super::{
    StoreError,
    disk::{Disk, LogFile, write_all},
    head::{self, SegmentHead},
    mark::Mark,
    record::Record,
    replay,
};

/// The most bytes of capacity that the buffer keeps between two writes.
const BUFFER: usize = 1 << 20;

/// An open log.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    /// The segment that records are appended to.
    segment: OpenSegment,
    /// Numbers and sizes of the earlier segments.
    older: Vec<(u64, u64)>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct OpenSegment {
    number: u64,
    file: Box<dyn LogFile>,
    mark: Mark,
    end: u64,
}

/// What an opened log contained.
#[derive(Debug, Default)]
pub struct LogSummary {
    /// The largest id in the log.
    pub last: u64,
    /// Whether the last daemon stopped in an orderly way.
    pub stopped: bool,
    /// The machine's boot id at the last start of a daemon.
    pub boot: Option<u128>,
    /// The number of messages, also of those that are no longer kept.
    pub messages: u64,
    /// The damaged parts, which were skipped.
    pub damaged: Vec<FilePart>,
    /// The end of an unfinished write, which was cut off.
    pub torn: Option<FilePart>,
    /// Whether a segment has an earlier format.
    pub outdated: bool,
}

/// A part of a segment.
#[derive(Debug)]
pub struct FilePart {
    /// The name of the segment's file.
    pub file: String,
    /// The offset of the first byte.
    pub offset: u64,
    /// The number of bytes.
    pub length: u64,
}

impl Log {
    /// Opens the log and passes all its records to `keep`, oldest first.
    ///
    /// # Errors
    /// A file cannot be opened or read, or has another version.
    pub fn open(
        disk: Arc<dyn Disk>,
        keep: &mut dyn FnMut(Record<'_>),
    ) -> Result<(Self, LogSummary), StoreError> {
        let mut found = LogSummary::default();
        let (mut segments, mut open) = (Vec::new(), None);
        let numbers = current(&*disk)?;
        for number in &numbers {
            let name = file_name(*number);
            let is_last = Some(number) == numbers.last();
            let file = disk
                .open(&name)
                .map_err(StoreError::of("open", &*disk, &name))?;
            let read = replay::replay(&*file, &mut |record| {
                found.note(&record);
                keep(record);
            });
            let read = read.map_err(StoreError::of("read", &*disk, &name))?;
            if is_last && read.end < read.length {
                let cut = file.set_len(read.end);
                cut.map_err(StoreError::of("cut the torn end of", &*disk, &name))?;
            }
            found.add(&name, &read, is_last);
            segments.push((*number, read.end));
            open = read
                .head
                .filter(SegmentHead::is_open)
                .map(|head| OpenSegment {
                    number: *number,
                    file,
                    mark: head.mark,
                    end: read.end,
                });
        }
        Ok((Self::after(disk, segments, open, &found)?, found))
    }

    /// Goes on with the last segment, or begins a new one if the last segment is a base, has an earlier format, or has a
    /// damaged beginning.
    fn after(
        disk: Arc<dyn Disk>,
        mut older: Vec<(u64, u64)>,
        open: Option<OpenSegment>,
        found: &LogSummary,
    ) -> Result<Self, StoreError> {
        let last = older.pop();
        let segment = match (open, last) {
            (Some(segment), _) => segment,
            (None, Some((number, end))) if end > 0 => {
                older.push((number, end));
                OpenSegment::begin(&*disk, number + 1, found.last)?
            }
            (None, Some((number, _))) => OpenSegment::begin(&*disk, number, found.last)?,
            (None, None) => OpenSegment::begin(&*disk, 1, found.last)?,
        };
        Ok(Self {
            disk,
            segment,
            older,
            buffer: Vec::new(),
        })
    }

    /// Appends records: all of them, or none.
    ///
    /// # Errors
    /// No record is written. The caller may try again.
    pub fn append<'a>(
        &mut self,
        records: impl IntoIterator<Item = Record<'a>>,
    ) -> Result<(), StoreError> {
        self.buffer.clear();
        for record in records {
            record.write(&mut self.buffer, &self.segment.mark);
        }
        let written = self.segment.write(&self.buffer);
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER);
        written.map_err(self.failed("write"))
    }

    /// Syncs the log, so that it survives a loss of power.
    ///
    /// # Errors
    /// The data may be lost. A second sync of this segment could wrongly succeed: see [`Log::seal`].
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.segment.file.sync().map_err(self.failed("sync"))
    }

    /// Syncs every segment. An earlier daemon may have written some without a sync.
    ///
    /// # Errors
    /// Those of [`Log::sync`].
    pub fn sync_all(&mut self) -> Result<(), StoreError> {
        for (number, _) in &self.older {
            let name = file_name(*number);
            let file = self.disk.open(&name);
            let synced = file.and_then(|file| file.sync());
            synced.map_err(StoreError::of("sync", &*self.disk, &name))?;
        }
        self.sync()
    }

    /// The bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let older: u64 = self.older.iter().map(|(_, bytes)| bytes).sum();
        older + self.segment.end
    }

    /// Whether all segments are in the directory and have at least their size.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let current = (self.segment.number, self.segment.end);
        let segments = self.older.iter().chain([&current]);
        let files: Vec<_> = segments
            .map(|(number, bytes)| (file_name(*number), *bytes))
            .collect();
        self.disk.is_whole(&files)
    }

    /// Opens the directory again after [`Log::is_whole`] was false, and before [`Log::seal`]. The next base gets a number
    /// above those of all files that are there.
    ///
    /// # Errors
    /// There is no directory to write to.
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        let failed = StoreError::of("open again", &*self.disk, "");
        self.disk.reopen().map_err(&failed)?;
        for name in self.disk.list().map_err(&failed)? {
            let number = name
                .strip_suffix(".log")
                .and_then(|number| number.parse().ok());
            if let Some(number) = number.filter(|number| *number > self.segment.number) {
                self.segment.number = number;
            }
        }
        Ok(())
    }

    /// The path of the segment that is written, for error texts.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.disk.path(&file_name(self.segment.number))
    }

    /// Begins a new segment, and a base that will replace all older segments. `last`: the largest id that was written.
    ///
    /// # Errors
    /// The log is unchanged.
    pub fn seal(&mut self, last: u64) -> Result<Base, StoreError> {
        let number = self.segment.number;
        let next = OpenSegment::begin(&*self.disk, number + 2, last)?;
        let sealed = std::mem::replace(&mut self.segment, next);
        self.older.push((number, sealed.end));
        Base::begin(self.disk.clone(), number + 1, last)
    }

    /// Removes the segments that are older than a complete base.
    ///
    /// # Errors
    /// A segment could not be removed. The segment does no harm. It is removed after the next base or at the next start.
    pub fn replace(&mut self, (number, bytes): (u64, u64)) -> Result<(), StoreError> {
        let (outdated, newer): (Vec<_>, Vec<_>) =
            self.older.iter().partition(|(older, _)| *older < number);
        self.older = newer;
        self.older.push((number, bytes));
        for (older, _) in outdated {
            remove(&*self.disk, &file_name(older))?;
        }
        Ok(())
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> StoreError {
        StoreError::of(what, &*self.disk, &file_name(self.segment.number))
    }
}

/// A base that is being written beside the log.
#[derive(Debug)]
pub struct Base {
    disk: Arc<dyn Disk>,
    segment: OpenSegment,
    buffer: Vec<u8>,
}

impl Base {
    fn begin(disk: Arc<dyn Disk>, number: u64, last: u64) -> Result<Self, StoreError> {
        let name = new_name(number);
        let failed = StoreError::of("write", &*disk, &name);
        let segment = OpenSegment::create(&*disk, &name, number, true, last).map_err(failed)?;
        Ok(Self {
            disk,
            segment,
            buffer: Vec::new(),
        })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// The base cannot be finished.
    pub fn put(&mut self, record: &Record<'_>) -> Result<(), StoreError> {
        record.write(&mut self.buffer, &self.segment.mark);
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(())
    }

    /// Syncs the base and renames it to its place. Returns the argument for [`Log::replace`].
    ///
    /// # Errors
    /// The older segments are still valid.
    pub fn finish(mut self) -> Result<(u64, u64), StoreError> {
        self.flush()?;
        let (number, name) = (self.segment.number, new_name(self.segment.number));
        let failed = StoreError::of("finish", &*self.disk, &name);
        self.segment.file.sync().map_err(&failed)?;
        let renamed = self.disk.rename(&name, &file_name(number));
        renamed.map_err(&failed)?;
        self.disk.sync().map_err(&failed)?;
        Ok((number, self.segment.end))
    }

    /// Removes the incomplete base.
    pub fn give_up(self) {
        // If this fails, the next start removes the file.
        let _ = self.disk.remove(&new_name(self.segment.number));
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let written = self.segment.write(&self.buffer);
        self.buffer.clear();
        written.map_err(StoreError::of(
            "write",
            &*self.disk,
            &new_name(self.segment.number),
        ))
    }
}

impl OpenSegment {
    /// An empty segment, whose name is synced.
    fn begin(disk: &dyn Disk, number: u64, last: u64) -> Result<Self, StoreError> {
        let name = file_name(number);
        let failed = StoreError::of("begin", disk, &name);
        let segment = Self::create(disk, &name, number, false, last).map_err(&failed)?;
        segment.file.sync().map_err(&failed)?;
        disk.sync().map_err(&failed)?;
        Ok(segment)
    }

    /// An empty segment with a new mark.
    fn create(disk: &dyn Disk, name: &str, number: u64, base: bool, last: u64) -> io::Result<Self> {
        let (file, mark) = (disk.open(name)?, Mark::random()?);
        file.set_len(0)?;
        let mut segment = Self {
            number,
            file,
            mark,
            end: 0,
        };
        segment.write(&head::write(&mark, number, base, last))?;
        Ok(segment)
    }

    /// Writes the bytes at the end. After an error the part that was written is cut off. If cutting fails, too, the next write
    /// overwrites this part, because the next write begins at the same offset.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = write_all(&*self.file, bytes, self.end) {
            let _ = self.file.set_len(self.end);
            return Err(error);
        }
        self.end += bytes.len() as u64;
        Ok(())
    }
}

impl LogSummary {
    /// Adds the damaged parts of a segment. An unfinished write is no damage if no later segment follows.
    fn add(&mut self, name: &str, read: &replay::ReadSegment, is_last: bool) {
        let part = |offset, length| FilePart {
            file: name.to_owned(),
            offset,
            length,
        };
        let damaged = read.damaged.iter();
        self.damaged
            .extend(damaged.map(|(offset, length)| part(*offset, *length)));
        if read.end < read.length {
            let rest = part(read.end, read.length - read.end);
            match is_last {
                true => self.torn = Some(rest),
                false => self.damaged.push(rest),
            }
        }
        self.outdated |= read.head.as_ref().is_some_and(|head| head.outdated);
    }

    fn note(&mut self, record: &Record<'_>) {
        let id = match record {
            Record::Message(message) | Record::Shared(message) => {
                self.messages += 1;
                message.id
            }
            Record::Start { id, boot, .. } => {
                self.boot = Some(*boot);
                *id
            }
            Record::Stop { id }
            | Record::Key { id, .. }
            | Record::Removed { id, .. }
            | Record::Length { id, .. } => *id,
            Record::Head { last, .. } => *last,
            _ => 0,
        };
        self.last = self.last.max(id);
        self.stopped = matches!(record, Record::Stop { .. });
    }
}

fn file_name(number: u64) -> String {
    format!("{number:010}.log")
}

fn new_name(number: u64) -> String {
    format!("{number:010}.new")
}

/// The numbers of the valid segments, in order. The others are removed.
fn current(disk: &dyn Disk) -> Result<Vec<u64>, StoreError> {
    let names = disk.list().map_err(StoreError::of("read", disk, ""))?;
    let mut numbers = Vec::new();
    for name in names {
        match name.rsplit_once('.') {
            Some((number, "log")) => numbers.extend(number.parse::<u64>().ok()),
            Some((number, "new")) if number.parse::<u64>().is_ok() => remove(disk, &name)?,
            _ => {}
        }
    }
    numbers.sort_unstable();
    let mut newest_base = 0;
    for number in &numbers {
        let name = file_name(*number);
        let file = disk
            .open(&name)
            .map_err(StoreError::of("open", disk, &name))?;
        let head = replay::head(&*file).map_err(StoreError::of("read", disk, &name))?;
        if head.is_some_and(|head| head.base == Some(true)) {
            newest_base = *number;
        }
    }
    let (outdated, current): (Vec<u64>, Vec<u64>) =
        numbers.iter().partition(|number| **number < newest_base);
    for number in outdated {
        remove(disk, &file_name(number))?;
    }
    Ok(current)
}

fn remove(disk: &dyn Disk, name: &str) -> Result<(), StoreError> {
    match disk.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(StoreError::of("remove", disk, name)),
    }
}
