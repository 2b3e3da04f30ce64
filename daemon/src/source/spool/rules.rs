//! Whose files the spool takes, and with which limits.

use comet_client::SpoolLimits;
use comet_proto::ChannelName;

use super::refusal::SpoolRefusal;
use crate::{
    config::{ByPrefix, Config},
    users::AllowList,
};

/// Whose files are taken, and with which limits.
pub(super) struct SpoolRules {
    /// Empty: everyone who can put files into the directory.
    allow: AllowList,
    /// The table of the configuration that `allow` is from.
    table: &'static str,
    channels: ByPrefix<AllowList>,
    pub(super) max_line: usize,
    pub(super) limits: SpoolLimits,
}

impl SpoolRules {
    pub(super) fn new(config: &Config) -> Self {
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

    pub(super) fn check(&self, owner: u32, channel: &ChannelName) -> Result<(), SpoolRefusal> {
        // A file's group is that of the directory and does not say who wrote the file.
        let may = |allow: &AllowList| allow.permits(owner, None);
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
