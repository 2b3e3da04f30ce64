//! From events to messages: looks at the file behind a name, decides, reads and publishes.

use std::{
    collections::HashSet,
    ffi::OsStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use comet_proto::{ChannelName, EventName};
use nix::errno::Errno;
use tokio::time::Instant;
use tracing::debug;

use super::{
    directory::{FileRules, FilesDirectory, Patience, Unread},
    events::Events,
    lru::LruMap,
    names::{channel, file_name},
    pending::{Pending, PendingFile},
    refusal::{FileRefusal, FileRefusals},
    rules::{self, Fate, FileState, Known, Verdict, WINDOW},
};
use crate::{
    broker::{Broker, Receipt, SourceKind},
    hub::{Hub, NewMessage, Publisher, PublisherKey, Workers},
    metrics::Metrics,
};

/// The number of files that are handled before other tasks of the thread run.
pub(super) const SLICE: usize = 256;

/// The number of files whose last state is remembered, about 200 bytes each. For further files a chmod may count as a touch.
const MOST_FILES: usize = 1 << 18;

/// The shortest time between two messages of one file. Touches in between become one message.
const SPACING: Duration = Duration::from_millis(1);

/// How long to wait for a writer or the holder of a lock. Then the file is read as it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Turns events into messages. Knows the files of one directory at a time.
pub(super) struct FileSignals {
    pub(super) pending: Pending,
    files: LruMap<Remembered>,
    refusals: FileRefusals,
    pub(super) terms: FileRules,
    /// Whether a restart finds messages and their keys again.
    has_log: bool,
    broker: Arc<dyn Broker>,
    /// The newest message that may not be kept yet. When it is kept, all older ones are, too.
    newest: Option<Receipt>,
    metrics: Arc<Metrics>,
    /// The number of the last scan that was started.
    scan: u32,
    /// Whether any two changes with a read in between have different times.
    fine_clock: bool,
    /// Messages of earlier daemons have ids up to this one.
    first: u64,
    pub(super) keys: Allowance,
    /// A file could not be opened. The next scan tries again.
    pub(super) unopened: Option<Errno>,
    /// The workers that were woken by messages, until they are taken.
    pub(super) woken: Workers,
}

/// The rate limit of keys for files: the hub remembers 65,536 keys for ten minutes, and files use at most half of them.
pub(super) struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    const MOST: u32 = 2_000;
    const A_SECOND: u32 = 50;

    fn new(now: Instant) -> Self {
        Self {
            left: Self::MOST,
            since: now,
        }
    }

    /// Returns false if no key may be used now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        if seconds > 0 {
            let gained = u32::try_from(seconds).unwrap_or(u32::MAX);
            let gained = gained.saturating_mul(Self::A_SECOND);
            self.left = self.left.saturating_add(gained).min(Self::MOST);
            self.since = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

struct Remembered {
    known: Known,
    published: Option<Instant>,
    /// The last scan that was started before the file was seen.
    scan: u32,
}

/// The parameters of a scan.
pub(super) struct Search {
    /// Changes before this time were published; nanoseconds since the epoch.
    pub(super) since: i64,
    /// Files with a begun write, which may be complete by now.
    pub(super) unfinished: HashSet<ChannelName>,
    /// Files to leave alone until their writer closes them.
    pub(super) being_written: HashSet<ChannelName>,
}

impl FileSignals {
    /// Starts to keep published messages. Returns true when they are kept.
    pub(super) fn keep(&mut self) -> bool {
        let newest = self.newest.take();
        self.newest = newest.filter(|receipt| !receipt.keep_soon());
        self.newest.is_none()
    }

    /// Waits until published messages are kept. Returns false if that fails.
    pub(super) async fn kept(&self) -> bool {
        match &self.newest {
            Some(receipt) => receipt.outcome().await.is_ok(),
            None => true,
        }
    }

    pub(super) fn new(
        terms: FileRules,
        hub: &Hub,
        broker: Arc<dyn Broker>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            first: hub.last().0,
            keys: Allowance::new(Instant::now()),
            pending: Pending::default(),
            files: LruMap::new(MOST_FILES),
            refusals: FileRefusals::new(metrics.clone()),
            terms,
            has_log: hub.is_kept(),
            broker,
            newest: None,
            metrics,
            scan: 0,
            fine_clock: false,
            unopened: None,
            woken: Workers::default(),
        }
    }

    /// Forgets all files, because another directory is watched from now on.
    pub(super) fn reset(&mut self, fine_clock: bool) {
        self.pending = Pending::default();
        self.files = LruMap::new(MOST_FILES);
        self.fine_clock = fine_clock;
    }

    /// Handles new events of a file.
    pub(super) fn handle_events(
        &mut self,
        directory: &FilesDirectory,
        file: &OsStr,
        events: Events,
        now: Instant,
    ) {
        let judged = channel(file)
            .map_err(FileRefusal::from)
            .and_then(|name| self.judge(directory, name, events, now));
        self.count_refusal(file, judged, now);
    }

    /// Decides about names whose waiting time is over.
    pub(super) fn expire(&mut self, directory: &FilesDirectory, now: Instant) {
        // Each name once: a name that is put back is due later.
        for name in self.pending.due(now) {
            let file = file_name(&name);
            let judged = self.judge(directory, name, Events::default(), now);
            self.count_refusal(file.as_ref(), judged, now);
        }
    }

    /// Starts a scan, which calls [`FileSignals::found`] for each file of the directory. The scan also decides about pending
    /// names: returns these.
    pub(super) fn begin_scan(&mut self) -> HashSet<ChannelName> {
        self.scan = self.scan.wrapping_add(1);
        let pending = std::mem::take(&mut self.pending);
        pending.names().cloned().collect()
    }

    /// Handles a file that a scan found.
    pub(super) fn found(
        &mut self,
        directory: &FilesDirectory,
        file: &OsStr,
        search: &Search,
        now: Instant,
    ) {
        let compared = channel(file)
            .map_err(FileRefusal::from)
            .and_then(|name| self.compare(directory, name, search, now));
        self.count_refusal(file, compared, now);
    }

    /// Ends a scan that has seen all files. Forgets files that are gone.
    pub(super) fn end_scan(&mut self) {
        let scan = self.scan;
        self.files.retain(|file| file.scan == scan);
    }

    fn judge(
        &mut self,
        directory: &FilesDirectory,
        name: ChannelName,
        events: Events,
        now: Instant,
    ) -> Result<(), FileRefusal> {
        let pending = self.pending.take(&name);
        let Some(state) = directory.state(file_name(&name).as_ref())? else {
            self.files.remove(&name);
            return Ok(());
        };
        state.check_is_file()?;
        let mut entry = PendingFile {
            events: pending.map_or(events, |pending| pending.events.then(events)),
            since: pending.map_or(now, |pending| pending.since),
            until: pending.and_then(|pending| pending.until),
            busy_since: pending.and_then(|pending| pending.busy_since),
        };
        let waited = entry.until.is_some_and(|until| until <= now) || self.pending.is_full();
        let known = self.files.get(&name).map(|file| file.known);
        match rules::decide(known.as_ref(), entry.events, &state, waited) {
            Verdict::Drop => {}
            Verdict::Attributes => self.remember(name, state, fate(known.as_ref())),
            Verdict::Remember => {
                let is_link = entry.events.created && state.links > 1; // link() opens nothing, so nothing is closed
                if known.is_none_or(|known| !known.state.version.is_same_file(&state.version)) {
                    self.remember(name.clone(), state, Fate::Observed);
                }
                if entry.events.open == Some(true) && !is_link {
                    entry.until = None; // wait for the close; the earlier waiting time belonged to another file
                    self.pending.put(name, entry);
                }
            }
            Verdict::Wait => {
                entry.until.get_or_insert(now + WINDOW);
                self.pending.put(name, entry);
            }
            Verdict::Publish => match self.too_soon(&name, now) {
                Some(later) => {
                    entry.until = Some(later);
                    self.pending.put(name, entry);
                }
                None => return self.publish(directory, name, state, entry, now),
            },
        }
        Ok(())
    }

    fn compare(
        &mut self,
        directory: &FilesDirectory,
        name: ChannelName,
        search: &Search,
        now: Instant,
    ) -> Result<(), FileRefusal> {
        let Some(state) = directory.state(file_name(&name).as_ref())? else {
            return Ok(());
        };
        state.check_is_file()?;
        let scan = self.scan;
        let known = self.files.get(&name).map(|file| {
            file.scan = scan;
            file.known
        });
        if search.being_written.contains(&name) {
            return Ok(());
        }
        let unfinished = search.unfinished.contains(&name);
        match rules::decide_by_state(known.as_ref(), &state, search.since, unfinished) {
            Verdict::Publish => {
                let entry = PendingFile {
                    events: Events::WRITTEN,
                    since: now,
                    until: None,
                    busy_since: None,
                };
                return self.publish(directory, name, state, entry, now);
            }
            Verdict::Attributes => self.remember(name, state, fate(known.as_ref())),
            _ if known.is_none() => self.remember(name, state, Fate::Published),
            _ => {}
        }
        Ok(())
    }

    fn publish(
        &mut self,
        directory: &FilesDirectory,
        name: ChannelName,
        state: FileState,
        entry: PendingFile,
        now: Instant,
    ) -> Result<(), FileRefusal> {
        let busy_since = entry.busy_since.unwrap_or(now);
        let patience = match now < busy_since + PATIENCE && !self.pending.is_full() {
            true => Patience::Some,
            false => Patience::None,
        };
        let (file, written) = (file_name(&name), entry.events.modified);
        match directory.read(file.as_ref(), self.terms.of(&name), written, patience) {
            Ok((data, state)) => self.publish_content(name, data, state, now),
            Err(Unread::Busy) => {
                let busy = PendingFile {
                    until: Some(now + WINDOW),
                    busy_since: Some(busy_since),
                    ..entry
                };
                self.pending.put(name, busy);
            }
            Err(Unread::Gone) => self.files.remove(&name),
            Err(Unread::Later(errno)) => {
                self.files.remove(&name); // otherwise the next scan would take it for published
                self.unopened = Some(errno);
            }
            Err(Unread::Refused(refusal)) => {
                self.remember(name, state, Fate::Refused); // once for each action, not for each of its events
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn publish_content(
        &mut self,
        name: ChannelName,
        data: Box<[u8]>,
        state: FileState,
        now: Instant,
    ) {
        debug!(channel = %name, bytes = data.len(), "published from its file");
        let key = self.key(&state, now);
        let message = NewMessage {
            channels: name.clone().into(),
            name: EventName::default(),
            data,
            attributes: None,
            key: key.as_deref().map(|key| PublisherKey {
                publisher: Publisher::Files,
                key,
            }),
        };
        let receipt = self.broker.publish(SourceKind::File, message);
        self.take_receipt(receipt);
        self.remember(name.clone(), state, Fate::Published);
        if let Some(file) = self.files.get(&name) {
            file.published = Some(now);
        }
    }

    fn take_receipt(&mut self, receipt: Receipt) {
        self.woken |= receipt.woken();
        if receipt.id().is_some_and(|id| id > self.first) {
            self.metrics.published_files.add(1);
        }
        // A repeated message has an older id.
        let newest = self.newest.as_ref().and_then(Receipt::id);
        if receipt.id() > newest {
            self.newest = Some(receipt);
        }
    }

    /// The idempotency key of a published state, which the hub remembers over a restart: a killed daemon could not write its last
    /// messages into the stamp. Where two changes may look the same there is no key: publishing twice is better than never.
    fn key(&mut self, state: &FileState, now: Instant) -> Option<String> {
        let may = self.fine_clock && self.has_log && self.keys.take(now);
        may.then(|| state.version.to_string())
    }

    fn too_soon(&mut self, name: &ChannelName, now: Instant) -> Option<Instant> {
        let next = self.files.get(name)?.published? + SPACING;
        (now < next).then_some(next)
    }

    fn remember(&mut self, name: ChannelName, state: FileState, fate: Fate) {
        let settled = self.fine_clock || state.settled(wall_clock());
        let published = self.files.get(&name).and_then(|file| file.published);
        let known = Known {
            state,
            fate,
            settled,
        };
        let scan = self.scan;
        self.files.insert(
            name,
            Remembered {
                known,
                published,
                scan,
            },
        );
    }

    fn count_refusal(&mut self, file: &OsStr, result: Result<(), FileRefusal>, now: Instant) {
        if let Err(refusal) = result {
            self.refusals.add(file, &refusal, now);
        }
    }
}

/// How the unchanged content of a file was handled, when only its attributes changed.
fn fate(known: Option<&Known>) -> Fate {
    known.map_or(Fate::Observed, |known| known.fate)
}

/// Nanoseconds since the epoch.
fn wall_clock() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}
