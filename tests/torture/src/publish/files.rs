//! Publishes by files in the directory that Comet watches. There is no acknowledgement. The last written content is
//! delivered.

use std::path::Path;

use comet_client::{Directory, FileError, proto::ChannelName};

use super::{Outcome, Publish};

pub struct Files(Directory);

impl Files {
    /// # Errors
    /// When the directory does not exist.
    pub fn open(directory: &Path) -> Result<Self, FileError> {
        Directory::open(directory).map(Self)
    }
}

impl Publish for Files {
    fn publish(&mut self, channel: &str, data: &str, _key: &str) -> Outcome {
        let channel = match ChannelName::parse(channel) {
            Ok(channel) => channel,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        match self.0.write(&channel, data.as_bytes()) {
            Ok(()) => Outcome::Taken(None),
            Err(error) => Outcome::Refused(error.to_string()),
        }
    }

    fn has_keys(&self) -> bool {
        false
    }
}
