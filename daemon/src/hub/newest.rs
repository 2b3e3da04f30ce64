//! The newest messages of a channel, for protocols whose clients get a window of the history.

use std::sync::Arc;

use comet_proto::{ChannelName, Message};

use super::{Backlog, Hub, state::HubState};

impl Hub {
    /// The newest messages of a channel, oldest first: at most `count`.
    pub fn newest(&self, channel: &ChannelName, count: usize) -> Vec<Arc<Message>> {
        let now = self.time.now();
        let messages = self.lock().newest(channel, count, now);
        let backlog = Backlog {
            messages,
            ..Backlog::default()
        };
        self.keep_before_delivery(backlog).messages
    }
}

impl HubState {
    fn newest(&mut self, name: &ChannelName, count: usize, now: u64) -> Vec<Arc<Message>> {
        let now = now.max(self.last);
        let Some(channel) = self.channels.get_mut(name) else {
            return Vec::new();
        };
        let limits = self.config.limits(channel.class);
        channel.history.trim(&limits, now, &mut self.kept);
        let older = channel.history.len().saturating_sub(count);
        channel.history.all().skip(older).cloned().collect()
    }
}
