//! The settings and their defaults. A flag of the command line goes before a variable `COMET_*`, a variable before the file,
//! and the file before the default. `docs/comet.toml` shows the file.

mod auth;
mod channels;
mod compat;
mod file;
mod internal;
mod origin;
mod value;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

pub use auth::{Alg, AuthConfig, KeyConfig, Secret, TokenRight};
pub use channels::{Access, ByPrefix, ChannelRules, Identity, NoReadRule};
pub use compat::*;
pub use file::ConfigError;
pub(crate) use file::read_regular;
pub(crate) use origin::Origin;
pub(crate) use value::is_host;
pub use value::parse_addr;

use crate::{
    hub::HistoryConfig,
    machine,
    store::{Durability, OnError},
    users::AllowList,
};

/// All settings of `comet serve`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory whose `*.comet` files are watched.
    #[serde(deserialize_with = "value::path")]
    pub dir: PathBuf,
    /// The address of the HTTP server.
    #[serde(deserialize_with = "value::addr")]
    pub listen: SocketAddr,
    /// Threads that serve browsers; `None`: one per core.
    #[serde(deserialize_with = "value::workers")]
    pub workers: Option<usize>,
    /// Serves the demo pages, lets browsers publish, and accepts files of any owner.
    pub demo: bool,
    /// The longest time for a stop. After this time the remaining connections are cut.
    #[serde(deserialize_with = "value::duration::<_, 0>")]
    pub grace: Duration,
    #[serde(deserialize_with = "file::history")]
    pub history: HistoryConfig,
    pub store: StoreConfig,
    pub files: FilesConfig,
    pub socket: SocketConfig,
    pub spool: SpoolConfig,
    pub http: HttpConfig,
    pub compat: CompatConfig,
    pub auth: AuthConfig,
    #[serde(rename = "channel", deserialize_with = "channels::rules")]
    pub channels: ChannelRules,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table [store]")]
pub struct StoreConfig {
    pub durability: Durability,
    /// The log's directory; `None`: the default of [`store::directory`](crate::store::directory).
    #[serde(deserialize_with = "value::some_path")]
    pub dir: Option<PathBuf>,
    pub on_error: OnError,
    /// The log is rewritten when it has more bytes than this and twice as many as the messages that are kept.
    #[serde(deserialize_with = "value::size::<_, 65536>")]
    pub rewrite: usize,
}

/// `[files]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table [files]")]
pub struct FilesConfig {
    /// Owners whose files are accepted, in addition to the daemon's own user and root.
    pub allow: AllowList,
    /// Largest content in bytes.
    #[serde(deserialize_with = "value::size::<_, 0>")]
    pub max_bytes: usize,
}

/// `[socket]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a table [socket], with its `path`"
)]
pub struct SocketConfig {
    /// The socket's file; `None`: the default of `comet_client::socket_path`.
    #[serde(deserialize_with = "value::socket_path")]
    pub path: Option<PathBuf>,
    /// Users that may connect. If the list is empty, the permissions of the file decide alone.
    pub allow: AllowList,
    /// Longest line in bytes, including its line end.
    #[serde(deserialize_with = "value::size::<_, 1024>")]
    pub max_line: usize,
    /// A connection that has not subscribed and sends nothing for this time is closed.
    #[serde(deserialize_with = "value::duration::<_, 1>")]
    pub idle: Duration,
    #[serde(deserialize_with = "value::count::<_, 1>")]
    pub max_connections: usize,
    /// The most connections of one user, except root and the daemon's own user. `None`: half of `max_connections`.
    #[serde(deserialize_with = "value::some_count::<_, 1>")]
    pub max_per_user: Option<usize>,
}

impl SocketConfig {
    /// The number of connections that one user may have.
    #[must_use]
    pub fn share(&self) -> usize {
        self.max_per_user
            .unwrap_or_else(|| self.max_connections.div_ceil(2))
    }
}

/// `[spool]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table [spool]")]
pub struct SpoolConfig {
    /// The spool's directory; `None`: the default of `comet_client::spool_path`.
    #[serde(deserialize_with = "value::some_path")]
    pub dir: Option<PathBuf>,
    /// Owners whose files are accepted. If the list is empty, the list of the socket counts.
    pub allow: AllowList,
    /// The most bytes that one user may leave in the spool.
    #[serde(deserialize_with = "value::size::<_, 0>")]
    pub max_bytes: usize,
    /// The most messages that one user may leave in the spool.
    #[serde(deserialize_with = "value::count::<_, 0>")]
    pub max_files: usize,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table [http]")]
pub struct HttpConfig {
    /// Whether clients may publish over HTTP. `None`: only with `--demo` and on a loopback address.
    pub publish: Option<bool>,
    /// Origins (`https://example.org`) whose pages may read, and may publish if publishing is on. `*` is any origin. The
    /// text has the form that browsers use.
    #[serde(deserialize_with = "value::origins")]
    pub origins: Vec<String>,
    /// Host names of this server, besides IP addresses and `localhost`. `*` is any name.
    #[serde(deserialize_with = "value::hosts")]
    pub hosts: Vec<String>,
    /// Longest URL in bytes.
    #[serde(deserialize_with = "value::size::<_, 256>")]
    pub max_url: usize,
    /// Longest head of a request in bytes.
    #[serde(deserialize_with = "value::size::<_, 1024>")]
    pub max_header: usize,
    /// The head of a request must be complete after this time.
    #[serde(deserialize_with = "value::duration::<_, 1>")]
    pub header_time: Duration,
    /// Largest body of a publish in bytes.
    #[serde(deserialize_with = "value::size::<_, 0>")]
    pub max_body: usize,
    /// A body must be complete after this time.
    #[serde(deserialize_with = "value::duration::<_, 1>")]
    pub body_time: Duration,
    /// A connection without a request is closed after this time.
    #[serde(deserialize_with = "value::duration::<_, 1>")]
    pub idle: Duration,
    /// Interval of the heartbeats of a stream.
    #[serde(deserialize_with = "value::duration::<_, 1>")]
    pub heartbeat: Duration,
    /// A client that reads nothing for this time is cut.
    #[serde(deserialize_with = "value::duration::<_, 1>")]
    pub write_time: Duration,
    /// The most connections. `None`: as many as the limit of descriptors permits.
    #[serde(deserialize_with = "value::some_count::<_, 1>")]
    pub max_connections: Option<usize>,
    /// The most connections of one address that is not a loopback address. `None`: no limit.
    #[serde(deserialize_with = "value::some_count::<_, 1>")]
    pub max_per_address: Option<usize>,
    /// The most bytes of memory that all connections may use. `None`: half of the memory that the process may use.
    #[serde(deserialize_with = "value::some_size::<_, 1048576>")]
    pub max_memory: Option<usize>,
}

/// The memory in bytes that the daemon needs with its default limits: some lines of 1 MiB that are being read, and the history
/// of their messages.
const LEAST_MEMORY: u64 = 16 << 20;

/// The default of `total`: 256 MiB, or a quarter of the memory that the process may use if a quarter is less.
fn default_total() -> usize {
    let most = HistoryConfig::default().total_bytes;
    let quarter = usize::try_from(machine::memory() / 4).unwrap_or(usize::MAX);
    quarter.clamp(64 << 10, most)
}

impl Config {
    /// A warning if the limits together are larger than the memory that the process may use. Names values that fit.
    #[must_use]
    pub fn too_much_memory(&self) -> Option<String> {
        let memory = machine::memory();
        if memory < LEAST_MEMORY {
            return Some(format!(
                "this process may take {memory} bytes of memory, which is less than the {LEAST_MEMORY} that it needs: \
                 it can run out of memory and end; raise its limit (MemoryMax, or RLIMIT_AS to 4 times as much)"
            ));
        }
        let total = self.history.total_bytes as u64;
        let connections = self.http.max_memory.map_or(memory / 2, |max| max as u64);
        let sum = total.saturating_add(connections);
        (sum > memory).then(|| {
            format!(
                "history.total ({total} bytes) and http.max_memory ({connections}) are together {sum} bytes, but this \
                 process may take {memory}: it can run out of memory and end; values that fit are total = {} under \
                 [history] and max_memory = {} under [http]",
                (memory / 4).max(64 << 10),
                (memory / 2).max(1 << 20),
            )
        })
    }

    /// Copies from `running` the settings that need a restart. Returns the keys whose values differ.
    pub fn keep_fixed(&mut self, running: &Self) -> Vec<&'static str> {
        let differ = [
            ("dir", keep(&mut self.dir, &running.dir)),
            ("listen", keep(&mut self.listen, &running.listen)),
            ("workers", keep(&mut self.workers, &running.workers)),
            ("demo", keep(&mut self.demo, &running.demo)),
            (
                "socket.path",
                keep(&mut self.socket.path, &running.socket.path),
            ),
            ("spool.dir", keep(&mut self.spool.dir, &running.spool.dir)),
            (
                "spool.max_bytes",
                keep(&mut self.spool.max_bytes, &running.spool.max_bytes),
            ),
            (
                "spool.max_files",
                keep(&mut self.spool.max_files, &running.spool.max_files),
            ),
            ("store", keep(&mut self.store, &running.store)),
        ];
        let compat = self.compat.keep_fixed(&running.compat);
        differ
            .into_iter()
            .chain(compat)
            .filter_map(|(key, differs)| differs.then_some(key))
            .collect()
    }
}

/// Copies the running value of a setting that needs a restart. Returns whether the new value differs.
fn keep<T: PartialEq + Clone>(new: &mut T, running: &T) -> bool {
    let differs = new != running;
    new.clone_from(running);
    differs
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: "/dev/shm".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 2061)),
            workers: None,
            demo: false,
            grace: Duration::from_secs(5),
            history: HistoryConfig {
                total_bytes: default_total(),
                ..HistoryConfig::default()
            },
            store: StoreConfig::default(),
            files: FilesConfig::default(),
            socket: SocketConfig::default(),
            spool: SpoolConfig::default(),
            http: HttpConfig::default(),
            compat: CompatConfig::default(),
            auth: AuthConfig::default(),
            channels: ChannelRules::default(),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Process,
            dir: None,
            on_error: OnError::Deliver,
            rewrite: 64 << 20,
        }
    }
}

impl Default for FilesConfig {
    fn default() -> Self {
        Self {
            allow: AllowList::default(),
            max_bytes: 64 << 10,
        }
    }
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self {
            path: None,
            allow: AllowList::default(),
            max_line: 1 << 20,
            idle: Duration::from_secs(300),
            max_connections: 1024,
            max_per_user: None,
        }
    }
}

impl Default for SpoolConfig {
    fn default() -> Self {
        let limits = comet_client::SpoolLimits::default();
        Self {
            dir: None,
            allow: AllowList::default(),
            max_bytes: usize::try_from(limits.bytes).unwrap_or(usize::MAX),
            max_files: usize::try_from(limits.files).unwrap_or(usize::MAX),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            publish: None,
            origins: Vec::new(),
            hosts: Vec::new(),
            max_url: 8 << 10,
            max_header: 16 << 10,
            header_time: Duration::from_secs(10),
            max_body: 1 << 20,
            body_time: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            heartbeat: Duration::from_secs(15),
            write_time: Duration::from_secs(30),
            max_connections: None,
            max_per_address: None,
            max_memory: None,
        }
    }
}
