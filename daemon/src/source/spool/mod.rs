//! Spool: what clients left while the daemon was away, one file a message (`docs/protocol.md`, "Spool"). Published in
//! order and once: each has a key, and its file goes when the message is kept.

mod directory;

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::Arc,
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
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::directory::Directory;
pub use self::directory::OpenError;
use crate::{
    auth::{Allow, entry_of},
    config::{ByPrefix, Config},
    hub::{Hub, NewMessage, Publisher, PublisherKey},
    metrics::Metrics,
    source::socket::peer::user_name,
};

/// How often it is looked into without being told, and whether it is there.
const PERIOD: Duration = Duration::from_secs(1);

/// Messages that are published before their files are removed and others on the thread get their turn.
const SLICE: usize = 64;

/// Names that are remembered because they are refused and cannot be moved aside.
const MOST_STUCK: usize = 4096;

/// Why a file is no message. The text fits after "NAME refused: ".
#[derive(Debug, thiserror::Error)]
enum Refusal {
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

impl Refusal {
    /// It is not the file's fault, and may end: the file stays.
    fn may_end(&self) -> bool {
        match self {
            Self::Unreadable(errno) => !matches!(errno, Errno::EACCES | Errno::EPERM),
            _ => false,
        }
    }
}

/// Whose files are taken.
struct Terms {
    /// Empty: who can put files there.
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
    terms: Terms,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    changed: Arc<Notify>,
    /// `None` while there is none that could be opened.
    directory: Option<Directory>,
    /// Refused, and could not be moved aside.
    stuck: HashSet<OsString>,
    /// A reason that was logged and has not ended.
    told: bool,
    lines: Lines,
}

/// Refusals that are logged: whoever may add files could fill the log.
#[derive(Default)]
struct Lines {
    since: Option<Instant>,
    count: u32,
}

impl Lines {
    const WHILE: Duration = Duration::from_secs(60);
    const MOST: u32 = 100;

    /// Whether there is room for one more.
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
    /// Opens the spool at `path`; where it is not the configured one a daemon is of use without it.
    ///
    /// # Errors
    /// When the configured directory cannot be used.
    pub fn open(
        path: PathBuf,
        config: &Config,
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let mut spool = Self {
            path,
            terms: Terms::new(config),
            hub,
            metrics,
            changed: Arc::default(),
            directory: None,
            stuck: HashSet::new(),
            told: false,
            lines: Lines::default(),
        };
        match spool.find() {
            // Another daemon that has it is about to stop, or serves another socket.
            Err(error) if config.spool.dir.is_some() && !matches!(error, OpenError::Locked(_)) => {
                return Err(error);
            }
            found => spool.tell(found.err()),
        }
        Ok(spool)
    }

    /// Publishes what is there now, and not what comes meanwhile.
    pub async fn publish(&mut self) {
        self.publish_some().await;
    }

    /// Publishes what comes, until `stop`. Who may publish is what the newest settings say.
    pub async fn run(mut self, mut configs: watch::Receiver<Arc<Config>>, stop: CancellationToken) {
        let changed = self.changed.clone();
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed.notified() => {}
                _ = period.tick() => self.look_after(),
            }
            if configs.has_changed().is_ok_and(|changed| changed) {
                self.terms = Terms::new(&configs.borrow_and_update());
            }
            while !stop.is_cancelled() && self.publish_some().await {}
        }
    }

    /// Makes sure that the directory is the one at the path, and clean.
    fn look_after(&mut self) {
        let found = match &mut self.directory {
            Some(directory) if directory.is_at(&self.path) => {
                directory.watch(&self.changed);
                let system = |cause| OpenError::System {
                    path: self.path.clone(),
                    cause,
                };
                directory.tidy().map_err(system)
            }
            _ => self.find(),
        };
        self.tell(found.err());
    }

    fn find(&mut self) -> Result<(), OpenError> {
        self.directory = None; // its lock must not be in the way
        self.stuck.clear();
        let directory = Directory::open(&self.path, self.terms.limits, &self.changed)?;
        self.directory = Some(directory);
        Ok(())
    }

    /// Logs a reason once, until it has ended.
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

    /// Publishes what one look into the directory shows. False: that was nothing.
    async fn publish_some(&mut self) -> bool {
        let Some(directory) = &self.directory else {
            return false;
        };
        let mut names = directory.messages().unwrap_or_else(|errno| {
            warn!("cannot read the spool: {}", errno.desc());
            Vec::new()
        });
        names.retain(|name| !self.stuck.contains(name));
        for slice in names.chunks(SLICE) {
            if !self.publish_slice(slice).await {
                return false;
            }
            tokio::task::yield_now().await;
        }
        // With more in the way than is remembered, the next look is the next period's.
        !names.is_empty() && self.stuck.len() < MOST_STUCK
    }

    /// False: something is in the way that may end, and what follows has to wait for it.
    async fn publish_slice(&mut self, names: &[OsString]) -> bool {
        if self.hub.admits().is_err() {
            return false; // the spool keeps what the log cannot
        }
        let mut published = Vec::with_capacity(names.len());
        let (mut goes_on, mut newest) = (true, 0);
        for name in names {
            match self.take(name) {
                Ok(id) => {
                    newest = newest.max(id.unwrap_or_default());
                    published.push(name);
                }
                Err(refusal) if refusal.may_end() => {
                    warn!("{name:?} in the spool: {refusal}; trying again");
                    goes_on = false;
                    break;
                }
                Err(refusal) => self.refuse(name, &refusal),
            }
        }
        // Until then the file is all that a crash would leave of it.
        if let Err(error) = self.hub.kept(newest).await {
            warn!("messages stay in the spool: {error}; trying again");
            return false;
        }
        let Some(directory) = &self.directory else {
            return false;
        };
        for name in published {
            // What stays would be published again, which with its key is nothing new, for ever.
            if !directory.remove(name) && self.stuck.len() < MOST_STUCK {
                warn!("{name:?} in the spool is published, but cannot be removed");
                self.stuck.insert(name.clone());
            }
        }
        goes_on
    }

    /// Its id; `None`: it is not there any more.
    fn take(&self, name: &OsStr) -> Result<Option<u64>, Refusal> {
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        let Some((line, owner)) = directory.read(name, self.terms.max_line)? else {
            return Ok(None); // its publisher has met us over the socket
        };
        let publish = parse(name, &line)?;
        self.terms.check(owner, &publish.channel)?;
        let id = self.hub.publish(NewMessage {
            channel: &publish.channel,
            name: publish.name,
            data: publish.data.into(),
            // Of whoever owns the file: the same user may have sent it over the socket before.
            key: publish.key.as_deref().map(|key| PublisherKey {
                publisher: Publisher::User(owner),
                key,
            }),
        });
        self.metrics.published_spool.add(1);
        Ok(Some(id))
    }

    fn refuse(&mut self, name: &OsString, refusal: &Refusal) {
        self.metrics.spool_refused.add(1);
        let aside = self.directory.as_ref().is_some_and(|d| d.move_aside(name));
        let stays = !aside && self.stuck.len() < MOST_STUCK && self.stuck.insert(name.clone());
        if (aside || stays) && self.lines.add() {
            let where_to = if aside {
                " and renamed to .refused"
            } else {
                ""
            };
            // Debug escapes what a name may hold to forge lines of the log.
            warn!("{name:?} in the spool refused{where_to}: {refusal}");
        }
    }
}

/// A message without a key gets its file's name: a file is published once.
fn parse<'a>(name: &'a OsStr, line: &'a [u8]) -> Result<Publish<'a>, Refusal> {
    let line = line.strip_suffix(b"\n").ok_or(Refusal::NoPublish)?;
    let Request::Publish(mut publish) = Request::parse(line)? else {
        return Err(Refusal::NoPublish);
    };
    if publish.key.is_none() {
        let stem = name.as_bytes().strip_suffix(SPOOL_SUFFIX.as_bytes());
        let key = stem.and_then(|stem| str::from_utf8(stem).ok());
        let key = key.filter(|key| key.len() <= MAX_KEY).ok_or(Refusal::Key)?;
        publish.key = Some(key.into());
    }
    Ok(publish)
}

impl Terms {
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

    fn check(&self, owner: u32, channel: &ChannelName) -> Result<(), Refusal> {
        // A file's group is its directory's and says nothing of who wrote it; this number is nobody's.
        const NO_GROUP: u32 = u32::MAX;
        let may = |allow: &Allow| allow.permits(owner, NO_GROUP);
        if !self.allow.is_empty() && !may(&self.allow) {
            let table = self.table;
            return Err(Refusal::Owner { owner, table });
        }
        match self.channels.find(channel) {
            Some((prefix, rule)) if !may(rule) => Err(Refusal::Channel {
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
