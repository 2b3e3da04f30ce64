//! Counters and gauges, for `/metrics` and `comet status`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use serde::{Serialize, Serializer, ser::SerializeMap};

/// A number that many threads change often. Each thread changes a part of its own. One shared number would move between the
/// caches of the processors at every message.
#[derive(Debug, Default)]
pub struct Counter([Part; PARTS]);

/// The number of parts. If there are more threads, several of them share a part.
const PARTS: usize = 16;

/// One part. The alignment puts each part into a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Self {
        Self([const { Part(AtomicU64::new(0)) }; PARTS])
    }

    pub fn add(&self, n: u64) {
        self.part().fetch_add(n, Ordering::Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.part().fetch_sub(n, Ordering::Relaxed);
    }

    /// The sum of all parts. A single part can be negative, because one thread may subtract what another thread has added.
    pub fn get(&self) -> u64 {
        let parts = self.0.iter().map(|part| part.0.load(Ordering::Relaxed));
        parts.fold(0, u64::wrapping_add)
    }

    fn part(&self) -> &AtomicU64 {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        &self.0[THREAD.with(|number| number % PARTS)].0
    }
}

impl Serialize for Counter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.get())
    }
}

/// What `comet status` shows of the files source in words.
#[derive(Debug, Default, Serialize)]
pub struct FilesNotices {
    /// Why there is no stamp file. Without a stamp file, files that change while no daemon runs are not published.
    stamp_error: Mutex<Option<String>>,
    /// The texts of the last refusals, newest first, as they were logged.
    last_refused: Mutex<VecDeque<String>>,
}

/// How many refusals are shown.
const REFUSED_SHOWN: usize = 5;

impl FilesNotices {
    pub(crate) fn set_stamp_error(&self, error: Option<String>) {
        *self.stamp_error.lock().expect("no code panics holding it") = error;
    }

    pub(crate) fn add_refused(&self, refusal: String) {
        let mut last = self.last_refused.lock().expect("no code panics holding it");
        last.truncate(REFUSED_SHOWN - 1);
        last.push_front(refusal);
    }
}

/// All counters and gauges. Shared by all threads.
#[derive(Debug, Default, Serialize)]
pub struct Metrics {
    /// Texts, which `comet status` shows apart from the numbers.
    #[serde(skip)]
    pub files_notices: FilesNotices,
    /// Connections open now, over HTTP and on the ports of other protocols.
    pub http_connections: Counter,
    /// HTTP connections refused because of a limit.
    pub http_refused: Counter,
    /// HTTP connections refused because their address had too many.
    pub http_refused_by_address: Counter,
    /// Requests refused, and slow clients cut, because connections used all the memory that they may use.
    pub http_shed: Counter,
    /// HTTP/2 connections ended because the client broke the protocol or one of its limits.
    pub http2_broken: Counter,
    /// Times that accepting paused because the machine had no descriptor or memory left.
    pub http_accept_pauses: Counter,
    /// HTTP requests that were answered or that wait.
    pub http_requests: Counter,
    /// Subscriptions held now, over all transports.
    pub subscribers: Counter,
    /// Messages written to subscribers.
    pub delivered: Counter,
    /// Messages published from files, the socket, the spool, and HTTP.
    pub published_files: Counter,
    pub published_socket: Counter,
    pub published_spool: Counter,
    pub published_http: Counter,
    /// Entries of the directory that were refused.
    pub files_refused: Counter,
    /// Files of the spool that were refused.
    pub spool_refused: Counter,
    /// Rescans of the directory after the first.
    pub files_rescans: Counter,
    /// 1 while the directory cannot be watched and is scanned all the time.
    pub files_polling: Counter,
    /// Unix socket connections open now.
    pub socket_connections: Counter,
    /// Unix socket connections refused: not allowed, or too many.
    pub socket_refused: Counter,
    /// Publishes over the Unix socket that a rule did not allow.
    pub socket_forbidden: Counter,
    /// Times that the Unix socket's accepting paused because the machine had no descriptor or memory left.
    pub socket_accept_pauses: Counter,
    /// The figures of protocols with a port of their own.
    #[serde(flatten)]
    pub ports: PortsMetrics,
}

/// The figures of one protocol with a port of its own.
#[derive(Debug, Default)]
pub struct PortMetrics {
    /// Connections open now.
    pub connections: Counter,
    /// Connections refused because of a limit.
    pub refused: Counter,
    /// Messages published.
    pub published: Counter,
}

/// The figures of all protocols with a port of their own, by the protocol's name.
#[derive(Debug, Default)]
pub struct PortsMetrics(Mutex<BTreeMap<&'static str, Arc<PortMetrics>>>);

impl PortsMetrics {
    /// The figures of the protocol with this name.
    pub(crate) fn of(&self, protocol: &'static str) -> Arc<PortMetrics> {
        let mut ports = self.0.lock().expect("no code panics holding it");
        ports.entry(protocol).or_default().clone()
    }

    /// All figures now.
    pub(crate) fn all(&self) -> Vec<(&'static str, Arc<PortMetrics>)> {
        let ports = self.0.lock().expect("no code panics holding it");
        let all = ports.iter();
        all.map(|(name, figures)| (*name, figures.clone()))
            .collect()
    }
}

impl Serialize for PortsMetrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, port) in self.all() {
            map.serialize_entry(&format!("{name}_connections"), &port.connections)?;
            map.serialize_entry(&format!("{name}_refused"), &port.refused)?;
            map.serialize_entry(&format!("{name}_published"), &port.published)?;
        }
        map.end()
    }
}

impl Metrics {
    /// An estimate of how many clients reconnect when the daemon stops: the larger one of two numbers, because an HTTP/2
    /// connection may have many subscriptions, and a client between two polls has none.
    pub fn clients(&self) -> u64 {
        self.http_connections.get().max(self.subscribers.get())
    }
}
