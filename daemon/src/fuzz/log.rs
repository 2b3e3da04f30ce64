//! The log. A segment with any content is read to its end, and a second reading gives the same. Exactly the written records
//! are read: those before a torn end, before and after damage, and before garbage.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use comet_proto::{Attributes, ChannelName, ChannelNames, Cursor, EventName};

use crate::{
    hub::{HistoryConfig, Hub, LogSettings},
    store::{
        Durability, Log, LogSummary, Mark, MessageRecord, OnError, Record,
        disk::{Disk, LogFile},
        record,
    },
};

/// The first segment.
const FILE: &str = "0000000001.log";

/// The mark with which records are written to compare their bytes.
const MARK: Mark = Mark::of(*b"a secret");

/// The first byte says what the rest is: a segment; the body of one record, to which a valid check sum is added; or
/// records and the damage to them.
pub(super) fn check(bytes: &[u8]) {
    let Some((&what, bytes)) = bytes.split_first() else {
        return;
    };
    match what % 3 {
        0 => check_any(bytes),
        1 => check_record(bytes),
        _ => check_damage(bytes),
    }
}

/// The segment can be opened, a second opening gives the same, and a hub starts with it.
fn check_any(segment: &[u8]) {
    let disk = MemoryDisk::with(segment.to_vec());
    let Some((records, _)) = open(&disk) else {
        return; // of another version
    };
    let (again, found) = open(&disk).expect("it was opened before");
    assert!(again == records && found.torn.is_none());
    let (hub, found) = hub(&disk);
    assert!(hub.last().0 > found.last);
}

/// A record that is accepted has the same bytes when it is written again.
fn check_record(bytes: &[u8]) {
    let Some((&kind, body)) = bytes.split_first() else {
        return;
    };
    let disk = MemoryDisk::default();
    drop(Log::open(Arc::new(disk.clone()), &mut |_| {}).expect("a new log"));
    let salt = disk.content()[8..16].try_into().expect("eight bytes");
    let sealed = seal(salt, kind, body);
    if let Ok((record, length)) = record::read(&sealed, &Mark::of(salt)) {
        assert_eq!(length, sealed.len());
        let again = written([&record]);
        assert_eq!(record::read(&again, &MARK), Ok((record, length)));
    }
    disk.change(|segment| segment.extend_from_slice(&sealed));
    check_any(&disk.content());
}

/// The bytes of a record with a valid check sum.
fn seal(salt: [u8; 8], kind: u8, body: &[u8]) -> Vec<u8> {
    let mut sealed = salt.to_vec();
    sealed.extend_from_slice(&[kind, 0]);
    sealed.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let sum = crc32fast::hash(&[&sealed, body].concat());
    sealed.extend_from_slice(&sum.to_le_bytes());
    sealed.extend_from_slice(body);
    sealed
}

/// Exactly the records without damage are read, unchanged and in order. Data of a message is never read as a record,
/// because it does not contain the log's salt.
fn check_damage(bytes: &[u8]) {
    let Some((&[what, low, high, by], bytes)) = bytes.split_first_chunk() else {
        return;
    };
    let records = records(bytes);
    let disk = MemoryDisk::default();
    let (mut log, _) = Log::open(Arc::new(disk.clone()), &mut |_| {}).expect("a new log");
    let start = disk.content().len();
    log.append(records.iter().cloned()).expect("there is room");
    drop(log);
    check_hub(&disk, &records);
    let place =
        start + usize::from(u16::from_le_bytes([low, high])) % (disk.content().len() - start + 1);
    let (mut at, mut kept) = (start, Vec::new());
    for record in &records {
        let bytes = written([record]);
        let end = at + bytes.len();
        let is_touched = match what % 3 {
            0 => end > place,
            1 => (at..end).contains(&place) && by != 0,
            _ => false,
        };
        if !is_touched {
            kept.push(bytes);
        }
        at = end;
    }
    disk.change(|segment| match what % 3 {
        0 => segment.truncate(place),
        1 => segment
            .iter_mut()
            .skip(place)
            .take(1)
            .for_each(|byte| *byte ^= by),
        _ => segment.extend_from_slice(bytes),
    });
    let (found, _) = open(&disk).expect("its head is whole");
    assert!(found == kept);
    check_any(&disk.content());
}

/// From a log without damage, the hub has every message.
fn check_hub(disk: &MemoryDisk, records: &[Record<'_>]) {
    let (hub, _) = hub(&disk.copy());
    for name in CHANNELS {
        let channel = ChannelName::parse(name).expect("a name");
        let expected = messages(&channel, records);
        let kept = hub.since(std::slice::from_ref(&channel), Cursor(0));
        let messages = kept
            .messages
            .iter()
            .map(|message| (message.id, &*message.data));
        assert!(messages.eq(expected));
    }
}

/// The messages of a channel in these records: a channel takes no message that is older than its newest.
fn messages<'a>(channel: &ChannelName, records: &'a [Record<'_>]) -> Vec<(u64, &'a [u8])> {
    let (mut shared, mut list) = (BTreeMap::new(), Vec::new());
    for record in records {
        let message = match record {
            Record::Message(message) if message.channels.contains(channel) => Some(message),
            Record::Link { id, channel: of } if of == channel => shared.get(id).copied(),
            Record::Shared(message) => {
                shared.insert(message.id, message);
                None
            }
            Record::Removed {
                id,
                channel: of,
                message,
            } if of == channel => {
                list.retain(|(known, _)| match message {
                    0 => known >= id,
                    removed => known != removed,
                });
                None
            }
            _ => None,
        };
        let newest = list.last().map_or(0, |(id, _)| *id);
        list.extend(message.filter(|m| m.id > newest).map(|m| (m.id, m.data)));
    }
    list
}

/// The bytes of every record, and what else was found. `None`: the log has another version.
fn open(disk: &MemoryDisk) -> Option<(Vec<Vec<u8>>, LogSummary)> {
    let mut records = Vec::new();
    let opened = Log::open(Arc::new(disk.clone()), &mut |record| {
        if !matches!(record, Record::Head { .. }) {
            records.push(written([&record]));
        }
    });
    opened.ok().map(|(_, found)| (records, found))
}

fn hub(disk: &MemoryDisk) -> (Arc<Hub>, LogSummary) {
    let settings = LogSettings {
        durability: Durability::Process,
        on_error: OnError::Deliver,
        rewrite_bytes: 1 << 20,
        boot: 1,
    };
    let config = HistoryConfig::default();
    let opened = Hub::open_with_clock(config, 1, Arc::new(disk.clone()), &settings, || 1);
    opened.expect("what a log can be read from, a hub can begin with")
}

fn written<'a>(records: impl IntoIterator<Item = &'a Record<'a>>) -> Vec<u8> {
    let mut out = Vec::new();
    records
        .into_iter()
        .for_each(|record| record.write(&mut out, &MARK));
    out
}

const CHANNELS: [&str; 2] = ["a", "b.c"];

/// Records as a daemon would write them, with contents from these bytes.
fn records(mut bytes: &[u8]) -> Vec<Record<'_>> {
    let (mut records, mut id, mut shared) = (Vec::new(), 1, 0);
    while let Some((&[kind, length, step], rest)) = bytes.split_first_chunk()
        && records.len() < 60
    {
        let (data, rest) = rest.split_at(rest.len().min(length.into()));
        (bytes, id) = (rest, id + 1 + u64::from(step));
        let record = record(kind, id, shared, data);
        if let Record::Shared(message) = &record {
            shared = message.id;
        }
        records.push(record);
    }
    records
}

/// A record whose kind and channel come from `kind`. `shared` is the id of the last shared message.
fn record(kind: u8, id: u64, shared: u64, data: &[u8]) -> Record<'_> {
    let channel = ChannelName::parse(CHANNELS[usize::from(kind >> 4) % 2]).expect("a name");
    let text = str::from_utf8(data).unwrap_or_default();
    match kind % 16 {
        0 => Record::Channel {
            name: channel,
            trimmed: id,
        },
        1 => Record::Key {
            channel,
            key: text,
            id,
        },
        2 => Record::Floor { id },
        3 => Record::Lost {
            after: id - 1,
            before: id,
        },
        4 => Record::Missed { before: id },
        5 => Record::Stop { id },
        7 => Record::Removed {
            id,
            channel,
            message: match data.first() {
                None => 0,
                Some(back) => id.saturating_sub(u64::from(*back)),
            },
        },
        8 => Record::Length {
            id,
            channel,
            messages: data.first().map(|length| u16::from(*length)),
        },
        6 => Record::Start {
            id,
            after: id - 1,
            boot: 1,
            durability: Durability::Process,
        },
        12 => Record::Link {
            id: shared,
            channel,
        },
        13 => Record::Shared(message(kind, id, channel, text, data)),
        _ => Record::Message(message(kind, id, channel, text, data)),
    }
}

/// A message: with both channels, with attributes, with a key, or with none of these.
fn message<'a>(
    kind: u8,
    id: u64,
    channel: ChannelName,
    text: &'a str,
    data: &'a [u8],
) -> MessageRecord<'a> {
    let kind = kind % 16;
    MessageRecord {
        id,
        channels: match kind {
            13 | 14 => ChannelNames::parse(CHANNELS).expect("names"),
            _ => channel.into(),
        },
        name: EventName::parse(text).unwrap_or_default(),
        key: if kind < 10 { text } else { "" },
        attributes: match kind {
            15 => Attributes::parse(&[("k", text)]).expect("255 bytes at most"),
            _ => None,
        },
        data,
    }
}

/// A directory in memory. Clones share their files.
#[derive(Debug, Clone, Default)]
struct MemoryDisk(Arc<Mutex<BTreeMap<String, MemoryFile>>>);

#[derive(Debug, Clone, Default)]
struct MemoryFile(Arc<Mutex<Vec<u8>>>);

impl MemoryDisk {
    fn with(segment: Vec<u8>) -> Self {
        let memory = Self::default();
        memory.file(FILE).with(|bytes| *bytes = segment);
        memory
    }

    fn file(&self, name: &str) -> MemoryFile {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.entry(name.to_owned()).or_default().clone()
    }

    fn content(&self) -> Vec<u8> {
        self.file(FILE).with(|bytes| bytes.clone())
    }

    fn copy(&self) -> Self {
        Self::with(self.content())
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        self.file(FILE).with(change);
    }
}

impl MemoryFile {
    fn with<T>(&self, f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(files.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(self.file(name)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = files.remove(name);
        removed
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

impl LogFile for MemoryFile {
    fn write_at(&self, bytes: &[u8], place: u64) -> io::Result<usize> {
        self.with(|content| {
            let (start, end) = (place as usize, place as usize + bytes.len());
            content.resize(content.len().max(end), 0);
            content[start..end].copy_from_slice(bytes);
            Ok(bytes.len())
        })
    }

    fn read_at(&self, bytes: &mut [u8], place: u64) -> io::Result<usize> {
        self.with(|content| {
            let rest = content.get(place as usize..).unwrap_or_default();
            let length = rest.len().min(bytes.len());
            bytes[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(|content| content.resize(length as usize, 0));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
