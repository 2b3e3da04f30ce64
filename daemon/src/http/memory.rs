//! What connections take of the memory, and the ceiling over it. Near the ceiling new connections are refused; at it,
//! requests that would take more, and clients that leave large answers unread are cut: they come back with their
//! cursors. A parked connection is counted by its number alone; only buffers worth it are counted one by one.

use bytes::Bytes;
use comet_proto::ChannelName;
use tracing::warn;

use crate::metrics::{Counter, Metrics};

/// A connection that waits, with its subscription and buffers that are too small to be counted.
pub(super) const CONNECTION: u64 = 2048;

/// What hyper takes while it serves a request of HTTP/1, a connection of HTTP/2, and one stream of it.
pub(super) const REQUEST: usize = 16 << 10;
pub(super) const H2_CONNECTION: usize = 32 << 10;
pub(super) const H2_STREAM: usize = 8 << 10;

/// Each channel that a subscription has beside its first, and that may be there for it alone.
const CHANNEL: usize = 512;

/// Smaller buffers are part of what a connection takes.
pub(super) const SMALL: usize = 2048;

/// Bytes beside the connections' own. A process has one memory.
static TAKEN: Counter = Counter::new();

/// Counts bytes for as long as it lives.
#[derive(Default)]
pub(super) struct Hold(usize);

impl Hold {
    pub(super) fn new(bytes: usize) -> Self {
        let mut hold = Self::default();
        hold.grow_to(bytes);
        hold
    }

    pub(super) fn grow_to(&mut self, bytes: usize) {
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
pub(super) fn add_channels(channels: &[ChannelName]) {
    TAKEN.add((channels.len().saturating_sub(1) * CHANNEL) as u64);
}

/// Counts no longer what `add_channels` did.
pub(super) fn sub_channels(channels: &[ChannelName]) {
    TAKEN.sub((channels.len().saturating_sub(1) * CHANNEL) as u64);
}

/// Bytes that are counted until nobody has them any more, however many share them.
pub(super) fn keep(bytes: Vec<u8>) -> Bytes {
    struct Kept(Vec<u8>, #[expect(dead_code, reason = "it counts")] Hold);

    impl AsRef<[u8]> for Kept {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    if bytes.capacity() <= SMALL {
        return bytes.into();
    }
    let hold = Hold::new(bytes.capacity());
    Bytes::from_owner(Kept(bytes, hold))
}

/// Bytes that all connections take.
pub(super) fn taken(metrics: &Metrics) -> u64 {
    let connections = metrics.http_connections.get().saturating_mul(CONNECTION);
    // What one thread has added another may have taken off between the looks at their parts.
    let buffers = i64::try_from(TAKEN.get()).unwrap_or(0).max(0) as u64;
    connections.saturating_add(buffers)
}

/// The ceiling.
#[derive(Debug, Clone, Copy)]
pub struct Ceiling(u64);

impl Ceiling {
    /// At so many bytes; without them at half of what the process may take.
    #[must_use]
    pub fn new(max: Option<usize>) -> Self {
        let max = max.map(|max| max as u64);
        Self(max.unwrap_or_else(|| crate::machine::memory() / 2))
    }

    pub(super) fn bytes(self) -> u64 {
        self.0
    }

    /// From here on there is no new connection: a tenth is left for those who are here.
    pub(super) fn near(self) -> u64 {
        self.0 - self.0 / 10
    }

    /// More is taken than there is: whoever asks gives up what it is at.
    pub(super) fn is_reached(self, metrics: &Metrics) -> bool {
        let reached = taken(metrics) > self.0;
        if reached {
            metrics.http_shed.add(1);
            if metrics.http_shed.get() == 1 {
                let max = self.0;
                warn!(
                    "connections take all of the {max} bytes that http.max_memory lets them: requests are refused with \
                     503 and slow clients cut; from now on these are only counted"
                );
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only one in this process that counts.
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
