//! What can be set. A flag beats `COMET_*` beats the file beats these defaults.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{auth::Allow, hub::HistoryConfig};

/// Everything that `comet serve` needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory whose `*.comet` files are watched.
    pub dir: PathBuf,
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// Unix socket; `None` is the rule of `comet_client::socket_path`.
    pub socket_path: Option<PathBuf>,
    /// Threads that hold browsers; `None` is one a core.
    pub workers: Option<usize>,
    /// Demo pages, publishing from the browser, files of any owner.
    pub demo: bool,
    /// How long a stop may take.
    pub grace: Duration,
    pub history: HistoryConfig,
    pub files: FilesConfig,
    pub socket: SocketConfig,
    pub http: HttpConfig,
    pub compat: CompatConfig,
}

/// `[files]`
#[derive(Debug, Clone)]
pub struct FilesConfig {
    /// Owners beside the daemon's own user and root whose files are taken.
    pub allow: Allow,
    /// Largest content in bytes.
    pub max_bytes: usize,
}

/// `[socket]`
#[derive(Debug, Clone)]
pub struct SocketConfig {
    /// Peers that may connect; nothing set: whoever the file permissions let.
    pub allow: Allow,
    /// Longest line in bytes, with its line end.
    pub max_line: usize,
    /// A connection that is no subscriber and says nothing for so long is closed.
    pub idle: Duration,
    pub max_connections: usize,
}

/// `[http]`
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Publishing over HTTP; `None`: only with `--demo` on a loopback address.
    pub publish: Option<bool>,
    /// Origins (`https://example.org`) whose pages may read, and publish where that is on; `*` is any.
    pub origins: Vec<String>,
    /// Longest URL in bytes.
    pub max_url: usize,
    /// Longest head of a request in bytes.
    pub max_header: usize,
    /// A head must be complete after so long.
    pub header_time: Duration,
    /// Largest body of a publish in bytes.
    pub max_body: usize,
    /// A body must be complete after so long.
    pub body_time: Duration,
    /// A connection without a request is closed after so long.
    pub idle: Duration,
    /// Streams say that they live every so often.
    pub heartbeat: Duration,
    /// A client that takes nothing for so long is cut.
    pub write_time: Duration,
    /// `None`: what the descriptor limit leaves.
    pub max_connections: Option<usize>,
}

/// `[compat]`: paths of older servers' endpoints; an empty path switches one off.
#[derive(Debug, Clone)]
pub struct CompatConfig {
    /// `/comet.php` of NovComet.
    pub novcomet: String,
    /// `/chat.php` and `/clock.php` of the zeitoun demos.
    pub zeitoun_chat: String,
    pub zeitoun_clock: String,
    /// Channel that carries the chat.
    pub zeitoun_channel: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: "/dev/shm".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 2061)),
            socket_path: None,
            workers: None,
            demo: false,
            grace: Duration::from_secs(5),
            history: HistoryConfig::default(),
            files: FilesConfig {
                allow: Allow::default(),
                max_bytes: 64 << 10,
            },
            socket: SocketConfig {
                allow: Allow::default(),
                max_line: 1 << 20,
                idle: Duration::from_secs(300),
                max_connections: 1024,
            },
            http: HttpConfig {
                publish: None,
                origins: Vec::new(),
                max_url: 8 << 10,
                max_header: 16 << 10,
                header_time: Duration::from_secs(10),
                max_body: 1 << 20,
                body_time: Duration::from_secs(30),
                idle: Duration::from_secs(75),
                heartbeat: Duration::from_secs(15),
                write_time: Duration::from_secs(30),
                max_connections: None,
            },
            compat: CompatConfig {
                novcomet: "/comet.php".into(),
                zeitoun_chat: "/chat.php".into(),
                zeitoun_clock: "/clock.php".into(),
                zeitoun_channel: "chat".into(),
            },
        }
    }
}
