//! The spool: messages that clients left while the daemon was not running, one file for each message
//! (`docs/protocol.md`, "Spool"). Messages are published in order and only once: each has a key, and its file is
//! removed when the log has kept the message.

mod directory;
mod listing;
mod pace;
mod refusal;
mod rules;

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use comet_client::SPOOL_SUFFIX;
use comet_proto::line::{MAX_KEY, Publish, Request};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::directory::OpenError;
use self::{
    directory::SpoolDirectory,
    listing::{SLICE, SpooledMessage},
    pace::Pace,
    refusal::{RefusalLogLimit, SpoolRefusal},
    rules::SpoolRules,
};
use crate::{
    broker::{Broker, NotKept, Receipt, SourceKind},
    config::Config,
    hub::{NewMessage, Publisher, PublisherKey},
    metrics::Metrics,
    source::socket::peer::user_name,
};

/// Interval at which the directory is checked and read, even if the watcher reports nothing.
const PERIOD: Duration = Duration::from_secs(1);

/// Largest number of remembered names: of files that were refused and could not be moved aside, or that were published
/// and could not be removed.
const MOST_STUCK: usize = 4096;

/// Largest number of processes whose messages wait for a file that cannot be read now. Beyond that such a file is
/// refused.
const MOST_WAITING: usize = 4096;

/// How long the start of the daemon waits at most for the messages in the spool.
const START: Duration = Duration::from_secs(5);

/// Owners and processes whose messages wait: one file of the process cannot be read now, and its later messages must
/// not overtake that file. Other processes do not wait, because any user can create a file that cannot be read.
type WaitingProcesses = HashSet<(u32, Vec<u8>)>;

/// A spool that publishes into a hub.
pub struct Spool {
    path: PathBuf,
    rules: SpoolRules,
    broker: Arc<dyn Broker>,
    metrics: Arc<Metrics>,
    /// `None` while the directory could not be opened.
    directory: Option<SpoolDirectory>,
    /// Notified when a file has arrived.
    changed: Arc<Notify>,
    /// Names of files that were refused and could not be moved aside, or that were published and could not be removed.
    stuck: HashSet<OsString>,
    /// Owners and processes whose messages waited when the directory was last read.
    waiting: WaitingProcesses,
    /// The spool cannot be used, and the reason was logged.
    failure_logged: bool,
    /// Why messages stay in the spool for now, as it was logged.
    logged_reason: Option<String>,
    refusal_log: RefusalLogLimit,
    reading_pace: Pace,
    tidying_pace: Pace,
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
        broker: Arc<dyn Broker>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let mut spool = Self {
            path,
            rules: SpoolRules::new(config),
            broker,
            metrics,
            directory: None,
            changed: Arc::default(),
            stuck: HashSet::new(),
            waiting: WaitingProcesses::new(),
            failure_logged: false,
            logged_reason: None,
            refusal_log: RefusalLogLimit::default(),
            reading_pace: Pace::default(),
            tidying_pace: Pace::default(),
        };
        match spool.open_directory() {
            // Another daemon that has locked the spool is about to stop, or serves another socket.
            Err(error) if config.spool.dir.is_some() && !matches!(error, OpenError::Locked(_)) => {
                return Err(error);
            }
            found => spool.log_failure(found.err()),
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
                self.check_directory();
            }
            if configs.has_changed().is_ok_and(|changed| changed) {
                self.rules = SpoolRules::new(&configs.borrow_and_update());
            }
            if !changed && self.waiting.is_empty() && !self.reading_pace.is_due_when_idle() {
                continue;
            }
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep_until(self.reading_pace.next()) => {}
                }
                if !self.publish_some(|| !stop.is_cancelled()).await {
                    break;
                }
            }
        }
    }

    /// Makes sure that the open directory is still the one at the path, and removes foreign entries.
    fn check_directory(&mut self) {
        let found = match &mut self.directory {
            Some(directory) if directory.is_at(&self.path) => {
                directory.watch(&self.changed);
                self.tidy()
            }
            _ => self.open_directory(),
        };
        self.log_failure(found.err());
    }

    fn tidy(&mut self) -> Result<(), OpenError> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        if !self.tidying_pace.is_due_when_idle() {
            return Ok(());
        }
        let begun = Instant::now();
        let tidied = directory.tidy().map_err(|cause| OpenError::System {
            path: self.path.clone(),
            cause,
        })?;
        self.tidying_pace.finished(begun, tidied.removed > 0);
        if tidied.stay > 0 && self.tidying_pace.may_log_again() {
            let (stay, path) = (tidied.stay, self.path.display());
            warn!(
                "{stay} entries of {path} do not belong there and cannot be removed; look for folders"
            );
        }
        Ok(())
    }

    fn open_directory(&mut self) -> Result<(), OpenError> {
        self.directory = None; // the old lock must not block the new one
        self.stuck.clear();
        self.directory = Some(SpoolDirectory::open(&self.path, self.rules.limits)?);
        Ok(())
    }

    /// Logs why the spool cannot be used, once until the reason has ended.
    fn log_failure(&mut self, error: Option<OpenError>) {
        let was = std::mem::replace(&mut self.failure_logged, error.is_some());
        match error {
            Some(error) if !was => {
                warn!("cannot take messages from the spool: {error}; trying every second");
            }
            None if was => info!(spool = %self.path.display(), "taking messages from the spool"),
            _ => {}
        }
    }

    /// Publishes the messages that one reading of the directory finds, as long as `may_continue` returns true. False: there
    /// is no need to read again at once.
    async fn publish_some(&mut self, may_continue: impl Fn() -> bool) -> bool {
        let Some(directory) = &self.directory else {
            return false;
        };
        let begun = Instant::now();
        let messages = directory.messages();
        self.reading_pace.finished(begun, false);
        let mut messages = match messages {
            Ok(messages) => messages,
            Err(errno) => {
                self.log_reason(format!("cannot read the spool: {}", errno.desc()));
                return false;
            }
        };
        messages.retain(|message| !self.stuck.contains(&message.name));
        let (mut waiting, mut done) = (WaitingProcesses::new(), false);
        for slice in messages.chunks(SLICE) {
            if !may_continue() {
                return false;
            }
            match self.publish_slice(slice, &mut waiting).await {
                Ok(some) => done |= some,
                Err(reason) => {
                    self.log_reason(format!(
                        "messages stay in the spool: {reason}; trying again"
                    ));
                    return false;
                }
            }
            tokio::task::yield_now().await;
        }
        self.waiting = waiting;
        self.logged_reason = None;
        done
    }

    /// Publishes the messages of one slice. Returns whether any file was removed or moved. An error concerns all
    /// messages, not one file.
    async fn publish_slice(
        &mut self,
        slice: &[SpooledMessage],
        waiting: &mut WaitingProcesses,
    ) -> Result<bool, String> {
        let mut published = Vec::with_capacity(slice.len());
        let (mut done, mut ended) = (false, None);
        for message in slice {
            let key = (message.owner, message.process().to_vec());
            if waiting.contains(&key) {
                continue;
            }
            match self.publish_file(&message.name) {
                Ok(receipt) => {
                    // What follows must not overtake a message that stays in the spool.
                    ended = receipt.as_ref().and_then(Receipt::refusal).map(reason);
                    if ended.is_some() {
                        break;
                    }
                    published.push((&message.name, receipt));
                }
                Err(refusal) if refusal.is_shortage() => {
                    ended = Some(refusal.to_string());
                    break;
                }
                Err(refusal) if refusal.may_end() && waiting.len() < MOST_WAITING => {
                    if !self.waiting.contains(&key) && self.refusal_log.add() {
                        let (name, user) = (&message.name, user_name(message.owner));
                        warn!(
                            "{name:?} in the spool: {refusal}; trying again, and what this process of {user} has put \
                             after it waits"
                        );
                    }
                    waiting.insert(key);
                }
                Err(refusal) => done |= self.refuse(&message.name, &refusal),
            }
        }
        for (name, receipt) in published {
            if let Some(receipt) = receipt {
                // Until the message is kept, only its file would survive a crash.
                receipt.outcome().await.map_err(|error| reason(&error))?;
            }
            done |= self.remove_file(name);
        }
        ended.map_or(Ok(done), Err)
    }

    /// Removes the file of a published message. False: the file stays.
    fn remove_file(&mut self, name: &OsString) -> bool {
        let removed = self.directory.as_ref().is_some_and(|d| d.remove(name));
        // A file that stays would be read and published again and again, each time as a duplicate because of its key.
        if !removed
            && self.stuck.len() < MOST_STUCK
            && self.stuck.insert(name.clone())
            && self.refusal_log.add()
        {
            warn!("{name:?} in the spool is published, but cannot be removed");
        }
        removed
    }

    /// Logs why messages stay in the spool, once as long as the reason is the same.
    fn log_reason(&mut self, reason: String) {
        if self.logged_reason.as_ref() != Some(&reason) {
            warn!("{reason}");
            self.logged_reason = Some(reason);
        }
    }

    /// Publishes the message of one file. `None`: the file is gone.
    fn publish_file(&self, name: &OsStr) -> Result<Option<Receipt>, SpoolRefusal> {
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        let Some((line, owner)) = directory.read(name, self.rules.max_line)? else {
            return Ok(None); // its publisher has sent the message over the socket
        };
        let publish = parse(name, &line)?;
        for channel in publish.channels.iter() {
            self.rules.check(owner, channel)?;
        }
        let receipt = self.broker.publish(
            SourceKind::Client,
            NewMessage {
                channels: publish.channels,
                name: publish.name,
                data: publish.data.into(),
                attributes: publish.attributes,
                // The publisher is the file's owner: the same user may have sent the message over the socket before.
                key: publish.key.as_deref().map(|key| PublisherKey {
                    publisher: Publisher::User(owner),
                    key,
                }),
            },
        );
        if receipt.refusal().is_none() {
            self.metrics.published_spool.add(1);
        }
        Ok(Some(receipt))
    }

    /// Refuses a file and moves it aside. True: the file was moved.
    fn refuse(&mut self, name: &OsString, refusal: &SpoolRefusal) -> bool {
        self.metrics.spool_refused.add(1);
        let aside = self.directory.as_ref().is_some_and(|d| d.move_aside(name));
        let stays = !aside && self.stuck.len() < MOST_STUCK && self.stuck.insert(name.clone());
        if (aside || stays) && self.refusal_log.add() {
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

/// Why messages stay in the spool. That they are refused or not kept goes without saying.
fn reason(error: &NotKept) -> String {
    error.cause().to_string()
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

#[cfg(test)]
mod tests;
