//! Counts the memory that connections use, and enforces a ceiling. Near the ceiling new connections are refused. At the
//! ceiling two more things happen: requests that need more memory are refused, and clients that leave large answers
//! unread are disconnected. Such clients can reconnect with their cursors. Each connection counts with a fixed size.
//! Only large buffers are counted one by one.

use bytes::Bytes;
use comet_proto::ChannelName;
use tracing::warn;

use crate::metrics::{Counter, Metrics};

/// Bytes counted for each connection: its subscription, and all buffers of up to [`SMALL`] bytes.
pub(crate) const CONNECTION: u64 = 2048;

/// Bytes for each channel of a subscription beyond the first one. The channel may exist for this subscription alone.
const CHANNEL: usize = 512;

/// Buffers up to this size are not counted: they are part of [`CONNECTION`].
pub(crate) const SMALL: usize = 2048;

/// Counted bytes beyond [`CONNECTION`] for each connection. Static, because a process has one memory.
static TAKEN: Counter = Counter::new();

/// A number of bytes that is counted as long as this value exists.
#[derive(Default)]
pub(crate) struct Hold(usize);

impl Hold {
    pub(crate) fn new(bytes: usize) -> Self {
        let mut hold = Self::default();
        hold.grow_to(bytes);
        hold
    }

    pub(crate) fn grow_to(&mut self, bytes: usize) {
        if bytes > self.0 {
            TAKEN.add((bytes - self.0) as u64);
            self.0 = bytes;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0 > 0 {
            TAKEN.sub(self.0 as u64);
        }
    }
}

/// Counts the channels of a subscription that begins.
pub(crate) fn add_channels(channels: &[ChannelName]) {
    TAKEN.add((channels.len().saturating_sub(1) * CHANNEL) as u64);
}

/// Takes back what `add_channels` has counted.
pub(crate) fn sub_channels(channels: &[ChannelName]) {
    TAKEN.sub((channels.len().saturating_sub(1) * CHANNEL) as u64);
}

/// Turns a buffer into shared bytes that are counted once, until the last reference is dropped.
pub(crate) fn keep(bytes: Vec<u8>) -> Bytes {
    struct CountedBytes(Vec<u8>, #[expect(dead_code, reason = "it counts")] Hold);

    impl AsRef<[u8]> for CountedBytes {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    if bytes.capacity() <= SMALL {
        return bytes.into();
    }
    let hold = Hold::new(bytes.capacity());
    Bytes::from_owner(CountedBytes(bytes, hold))
}

/// The number of bytes that all connections use.
pub(crate) fn taken(metrics: &Metrics) -> u64 {
    let connections = metrics.http_connections.get().saturating_mul(CONNECTION);
    // The counter has one part for each thread. Another thread may subtract bytes between two reads of such parts, so
    // the sum can be below zero for a moment.
    let buffers = i64::try_from(TAKEN.get()).unwrap_or(0).max(0) as u64;
    connections.saturating_add(buffers)
}

/// The largest number of bytes that connections may use.
#[derive(Debug, Clone, Copy)]
pub struct Ceiling(u64);

impl Ceiling {
    /// A ceiling of `max` bytes. Without `max`, half of the memory that the process may use.
    #[must_use]
    pub fn new(max: Option<usize>) -> Self {
        let max = max.map(|max| max as u64);
        Self(max.unwrap_or_else(|| crate::machine::memory() / 2))
    }

    pub(crate) fn bytes(self) -> u64 {
        self.0
    }

    /// From this number of bytes on new connections are refused. The last tenth is reserved for the connections that
    /// are open.
    pub(crate) fn near(self) -> u64 {
        self.0 - self.0 / 10
    }

    /// Whether more memory is used than the ceiling permits. If so, the caller must refuse its request or close its
    /// connection.
    pub(crate) fn is_reached(self, metrics: &Metrics) -> bool {
        let reached = taken(metrics) > self.0;
        if reached {
            metrics.http_shed.add(1);
            if metrics.http_shed.get() == 1 {
                let max = self.0;
                warn!(
                    "connections use all of the {max} bytes that http.max_memory allows: requests are refused with \
                     503 and slow clients are disconnected; further cases are only counted (comet_http_shed_total)"
                );
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only test in this process that counts bytes.
    #[test]
    fn bytes_count_once_until_the_last_has_gone() {
        let before = TAKEN.get();
        let shared = keep(vec![0; 100_000]);
        let others: Vec<Bytes> = (0..100).map(|n| shared.slice(n..)).collect();
        assert_eq!(TAKEN.get(), before + 100_000);
        drop(shared);
        assert_eq!(TAKEN.get(), before + 100_000);
        drop(others);
        assert_eq!(TAKEN.get(), before);

        let small = keep(vec![0; SMALL]);
        assert_eq!(TAKEN.get(), before);
        drop(small);
        let mut hold = Hold::new(10);
        hold.grow_to(5);
        hold.grow_to(15);
        assert_eq!(TAKEN.get(), before + 15);
        drop(hold);
        assert_eq!(TAKEN.get(), before);
    }
}
