//! The spool: messages that clients left while the daemon was not running, one file for each message
//! (`docs/protocol.md`, "Spool"). Messages are published in order and only once: each has a key, and its file is
//! removed when the log has kept the message.

mod directory;
mod listing;
mod pace;

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use comet_client::{SPOOL_SUFFIX, SpoolLimits};
use comet_proto::{
    ChannelName,
    line::{LineError, MAX_KEY, Publish, Request},
};
use nix::errno::Errno;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::directory::OpenError;
use self::{directory::SpoolDirectory, listing::SpooledMessage, pace::Pace};
use crate::{
    config::{ByPrefix, Config},
    hub::{Hub, NewMessage, Publisher, PublisherKey},
    metrics::Metrics,
    source::socket::peer::user_name,
    users::{Allow, entry_of},
};

/// Interval at which the directory is checked and read, even if the watcher reports nothing.
const PERIOD: Duration = Duration::from_secs(1);

/// Number of messages that are published in one go. Then their files are removed, and other tasks of the thread run.
const SLICE: usize = 64;

/// Largest number of remembered names: of files that were refused and could not be moved aside, or that were published
/// and could not be removed.
const MOST_STUCK: usize = 4096;

/// Largest number of processes whose messages wait for a file that cannot be read now. Beyond that such a file is
/// refused.
const MOST_HELD: usize = 4096;

/// How long the start of the daemon waits at most for the messages in the spool.
const START: Duration = Duration::from_secs(5);

/// Why a file is not taken as a message. The text fits after "NAME refused: ".
#[derive(Debug, thiserror::Error)]
enum SpoolRefusal {
    #[error("it is {0}, not a regular file")]
    Kind(&'static str),
    #[error("it has {0} names (hard links); only files with one name are taken")]
    Links(u64),
    #[error(
        "it has {size} bytes, over the limit of {max} (max_line under [socket] in the configuration)"
    )]
    TooLarge { size: u64, max: usize },
    #[error("{0}")]
    Line(#[from] LineError),
    #[error("it is not one line with its line end that says op publish")]
    NoPublish,
    #[error("its name is too long for the key that it lacks")]
    Key,
    #[error("it belongs to {}, who may not publish here; it is allowed by allow = [{:?}] under [{table}]", user_name(*owner), entry_of(*owner))]
    Owner { owner: u32, table: &'static str },
    #[error("it belongs to {}, who may not publish to {channel}; it is allowed by socket = [{:?}] under [[channel]] with prefix = {prefix:?}", user_name(*owner), entry_of(*owner))]
    Channel {
        owner: u32,
        channel: ChannelName,
        prefix: String,
    },
    #[error("it was swapped for another file while it was opened")]
    Swapped,
    #[error("it cannot be read: {}", .0.desc())]
    Unreadable(#[from] Errno),
}

impl SpoolRefusal {
    /// Whether the reason may go away by itself, as with a lease (fcntl). Such a file stays in the spool.
    fn may_end(&self) -> bool {
        match self {
            Self::Unreadable(errno) => !matches!(errno, Errno::EACCES | Errno::EPERM),
            _ => false,
        }
    }

    /// Whether the system can open no file at all now.
    fn is_shortage(&self) -> bool {
        let Self::Unreadable(errno) = self else {
            return false;
        };
        matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)
    }
}

/// Owners and processes whose messages wait: one file of the process cannot be read now, and its later messages must
/// not overtake that file. Other processes do not wait, because any user can create a file that cannot be read.
type WaitingProcesses = HashSet<(u32, Vec<u8>)>;

/// Whose files are taken, and with which limits.
struct SpoolRules {
    /// Empty: everyone who can put files into the directory.
    allow: Allow,
    /// The table of the configuration that `allow` is from.
    table: &'static str,
    channels: ByPrefix<Allow>,
    max_line: usize,
    limits: SpoolLimits,
}

/// A spool that publishes into a hub.
pub struct Spool {
    path: PathBuf,
    terms: SpoolRules,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    /// `None` while the directory could not be opened.
    directory: Option<SpoolDirectory>,
    /// Notified when a file has arrived.
    changed: Arc<Notify>,
    /// Names of files that were refused and could not be moved aside, or that were published and could not be removed.
    stuck: HashSet<OsString>,
    /// Owners and processes whose messages waited when the directory was last read.
    held: WaitingProcesses,
    /// The spool cannot be used, and the reason was logged.
    told: bool,
    /// Why messages stay in the spool for now, as it was logged.
    said: Option<String>,
    lines: RefusalLogLimit,
    looks: Pace,
    tidying: Pace,
}

/// Limits the logged refusals: anyone who may add files could fill the log.
#[derive(Default)]
struct RefusalLogLimit {
    since: Option<Instant>,
    count: u32,
}

impl RefusalLogLimit {
    const WHILE: Duration = Duration::from_secs(60);
    const MOST: u32 = 100;

    /// Whether one more line may be logged.
    fn add(&mut self) -> bool {
        let now = Instant::now();
        if self.since.is_none_or(|since| now - since >= Self::WHILE) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        if self.count == Self::MOST {
            warn!("many files in the spool refused; the next ones of this minute are only counted");
        }
        self.count < Self::MOST
    }
}

impl Spool {
    /// Opens the spool at `path`. If the default directory cannot be used, the daemon runs without a spool and tries
    /// again later.
    ///
    /// # Errors
    /// When a directory that the configuration names cannot be used, except when another daemon has locked it.
    pub fn open(
        path: PathBuf,
        config: &Config,
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let mut spool = Self {
            path,
            terms: SpoolRules::new(config),
            hub,
            metrics,
            directory: None,
            changed: Arc::default(),
            stuck: HashSet::new(),
            held: WaitingProcesses::new(),
            told: false,
            said: None,
            lines: RefusalLogLimit::default(),
            looks: Pace::default(),
            tidying: Pace::default(),
        };
        match spool.find() {
            // Another daemon that has locked the spool is about to stop, or serves another socket.
            Err(error) if config.spool.dir.is_some() && !matches!(error, OpenError::Locked(_)) => {
                return Err(error);
            }
            found => spool.tell(found.err()),
        }
        Ok(spool)
    }

    /// Publishes the messages that are in the spool, for a few seconds at most.
    pub async fn publish(&mut self) {
        let end = Instant::now() + START;
        while Instant::now() < end && self.publish_some(|| Instant::now() < end).await {}
    }

    /// Publishes messages as they arrive, until `stop`. Runs on a thread of its own, because reading a directory that
    /// others fill takes time. `configs` say who may publish. `guard` is dropped at the end.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start<G: Send + 'static>(
        self,
        configs: watch::Receiver<Arc<Config>>,
        stop: CancellationToken,
        guard: G,
    ) -> std::io::Result<()> {
        // The runtime is created on its thread: tokio does not allow one to be dropped inside another runtime.
        let run = move || {
            let _guard = guard;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => runtime.block_on(self.run(configs, stop)),
                Err(error) => error!("cannot take messages from the spool: {error}"),
            }
        };
        thread::Builder::new().name("spool".into()).spawn(run)?;
        Ok(())
    }

    async fn run(mut self, mut configs: watch::Receiver<Arc<Config>>, stop: CancellationToken) {
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let changed = tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => true,
                _ = period.tick() => false,
            };
            if !changed {
                self.look_after();
            }
            if configs.has_changed().is_ok_and(|changed| changed) {
                self.terms = SpoolRules::new(&configs.borrow_and_update());
            }
            if !changed && self.held.is_empty() && !self.looks.is_due_when_idle() {
                continue;
            }
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep_until(self.looks.next()) => {}
                }
                if !self.publish_some(|| !stop.is_cancelled()).await {
                    break;
                }
            }
        }
    }

    /// Makes sure that the open directory is still the one at the path, and removes foreign entries.
    fn look_after(&mut self) {
        let found = match &mut self.directory {
            Some(directory) if directory.is_at(&self.path) => {
                directory.watch(&self.changed);
                self.tidy()
            }
            _ => self.find(),
        };
        self.tell(found.err());
    }

    fn tidy(&mut self) -> Result<(), OpenError> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        if !self.tidying.is_due_when_idle() {
            return Ok(());
        }
        let begun = Instant::now();
        let tidied = directory.tidy().map_err(|cause| OpenError::System {
            path: self.path.clone(),
            cause,
        })?;
        self.tidying.took(begun, tidied.removed > 0);
        if tidied.stay > 0 && self.tidying.says_so() {
            let (stay, path) = (tidied.stay, self.path.display());
            warn!(
                "{stay} entries of {path} do not belong there and cannot be removed; look for folders"
            );
        }
        Ok(())
    }

    fn find(&mut self) -> Result<(), OpenError> {
        self.directory = None; // the old lock must not block the new one
        self.stuck.clear();
        self.directory = Some(SpoolDirectory::open(&self.path, self.terms.limits)?);
        Ok(())
    }

    /// Logs why the spool cannot be used, once until the reason has ended.
    fn tell(&mut self, error: Option<OpenError>) {
        let was = std::mem::replace(&mut self.told, error.is_some());
        match error {
            Some(error) if !was => {
                warn!("cannot take messages from the spool: {error}; trying every second");
            }
            None if was => info!(spool = %self.path.display(), "taking messages from the spool"),
            _ => {}
        }
    }

    /// Publishes the messages that one reading of the directory finds, as long as `goes_on` returns true. False: there
    /// is no need to read again at once.
    async fn publish_some(&mut self, goes_on: impl Fn() -> bool) -> bool {
        let Some(directory) = &self.directory else {
            return false;
        };
        let begun = Instant::now();
        let messages = directory.messages();
        self.looks.took(begun, false);
        let mut messages = match messages {
            Ok(messages) => messages,
            Err(errno) => {
                self.say(format!("cannot read the spool: {}", errno.desc()));
                return false;
            }
        };
        messages.retain(|message| !self.stuck.contains(&message.name));
        let (mut held, mut done) = (WaitingProcesses::new(), false);
        for slice in messages.chunks(SLICE) {
            if !goes_on() {
                return false;
            }
            match self.publish_slice(slice, &mut held).await {
                Ok(some) => done |= some,
                Err(reason) => {
                    self.say(format!(
                        "messages stay in the spool: {reason}; trying again"
                    ));
                    return false;
                }
            }
            tokio::task::yield_now().await;
        }
        self.held = held;
        self.said = None;
        done
    }

    /// Publishes the messages of one slice. Returns whether any file was removed or moved. An error concerns all
    /// messages, not one file.
    async fn publish_slice(
        &mut self,
        slice: &[SpooledMessage],
        held: &mut WaitingProcesses,
    ) -> Result<bool, String> {
        // Messages stay in the spool while the log cannot keep them.
        self.hub.admits().map_err(|error| error.to_string())?;
        let mut published = Vec::with_capacity(slice.len());
        let (mut done, mut newest) = (false, 0);
        let mut shortage = None;
        for message in slice {
            let key = (message.owner, message.process().to_vec());
            if held.contains(&key) {
                continue;
            }
            match self.take(&message.name) {
                Ok(id) => {
                    newest = newest.max(id.unwrap_or_default());
                    published.push(&message.name);
                }
                Err(refusal) if refusal.is_shortage() => {
                    shortage = Some(refusal.to_string());
                    break;
                }
                Err(refusal) if refusal.may_end() && held.len() < MOST_HELD => {
                    if !self.held.contains(&key) && self.lines.add() {
                        let (name, user) = (&message.name, user_name(message.owner));
                        warn!(
                            "{name:?} in the spool: {refusal}; trying again, and what this process of {user} has put \
                             after it waits"
                        );
                    }
                    held.insert(key);
                }
                Err(refusal) => done |= self.refuse(&message.name, &refusal),
            }
        }
        // Until the log has kept a message, only its file would survive a crash.
        let kept = self.hub.kept(newest).await;
        kept.map_err(|error| error.to_string())?;
        for name in published {
            done |= self.take_out(name);
        }
        shortage.map_or(Ok(done), Err)
    }

    /// Removes the file of a published message. False: the file stays.
    fn take_out(&mut self, name: &OsString) -> bool {
        let removed = self.directory.as_ref().is_some_and(|d| d.remove(name));
        // A file that stays would be read and published again and again, each time as a duplicate because of its key.
        if !removed
            && self.stuck.len() < MOST_STUCK
            && self.stuck.insert(name.clone())
            && self.lines.add()
        {
            warn!("{name:?} in the spool is published, but cannot be removed");
        }
        removed
    }

    /// Logs why messages stay in the spool, once as long as the reason is the same.
    fn say(&mut self, reason: String) {
        if self.said.as_ref() != Some(&reason) {
            warn!("{reason}");
            self.said = Some(reason);
        }
    }

    /// Publishes the message of one file and returns its id. `None`: the file is gone.
    fn take(&self, name: &OsStr) -> Result<Option<u64>, SpoolRefusal> {
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        let Some((line, owner)) = directory.read(name, self.terms.max_line)? else {
            return Ok(None); // its publisher has sent the message over the socket
        };
        let publish = parse(name, &line)?;
        self.terms.check(owner, &publish.channel)?;
        let id = self.hub.publish(NewMessage {
            channel: &publish.channel,
            name: publish.name,
            data: publish.data.into(),
            // The publisher is the file's owner: the same user may have sent the message over the socket before.
            key: publish.key.as_deref().map(|key| PublisherKey {
                publisher: Publisher::User(owner),
                key,
            }),
        });
        self.metrics.published_spool.add(1);
        Ok(Some(id))
    }

    /// Refuses a file and moves it aside. True: the file was moved.
    fn refuse(&mut self, name: &OsString, refusal: &SpoolRefusal) -> bool {
        self.metrics.spool_refused.add(1);
        let aside = self.directory.as_ref().is_some_and(|d| d.move_aside(name));
        let stays = !aside && self.stuck.len() < MOST_STUCK && self.stuck.insert(name.clone());
        if (aside || stays) && self.lines.add() {
            let where_to = if aside {
                " and renamed to .refused"
            } else {
                ""
            };
            // The debug form escapes characters with which a name could forge lines of the log.
            warn!("{name:?} in the spool refused{where_to}: {refusal}");
        }
        aside
    }
}

/// Parses the line of a file. A message without a key gets the file's name as its key, so that a file is published
/// once.
fn parse<'a>(name: &'a OsStr, line: &'a [u8]) -> Result<Publish<'a>, SpoolRefusal> {
    let line = line.strip_suffix(b"\n").ok_or(SpoolRefusal::NoPublish)?;
    let Request::Publish(mut publish) = Request::parse(line)? else {
        return Err(SpoolRefusal::NoPublish);
    };
    if publish.key.is_none() {
        let stem = name.as_bytes().strip_suffix(SPOOL_SUFFIX.as_bytes());
        let key = stem.and_then(|stem| str::from_utf8(stem).ok());
        let key = key
            .filter(|key| key.len() <= MAX_KEY)
            .ok_or(SpoolRefusal::Key)?;
        publish.key = Some(key.into());
    }
    Ok(publish)
}

impl SpoolRules {
    fn new(config: &Config) -> Self {
        let (table, allow) = match config.spool.allow.is_empty() {
            true => ("socket", &config.socket.allow),
            false => ("spool", &config.spool.allow),
        };
        Self {
            allow: allow.clone(),
            table,
            channels: config.channels.socket.clone(),
            max_line: config.socket.max_line,
            limits: SpoolLimits {
                bytes: config.spool.max_bytes as u64,
                files: config.spool.max_files as u64,
            },
        }
    }

    fn check(&self, owner: u32, channel: &ChannelName) -> Result<(), SpoolRefusal> {
        // A file's group is that of the directory and does not say who wrote the file. No group has this number.
        const NO_GROUP: u32 = u32::MAX;
        let may = |allow: &Allow| allow.permits(owner, NO_GROUP);
        if !self.allow.is_empty() && !may(&self.allow) {
            let table = self.table;
            return Err(SpoolRefusal::Owner { owner, table });
        }
        match self.channels.find(channel) {
            Some((prefix, rule)) if !may(rule) => Err(SpoolRefusal::Channel {
                owner,
                channel: channel.clone(),
                prefix: prefix.into(),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
