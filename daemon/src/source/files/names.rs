//! The names of files and of their channels.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use comet_proto::{ChannelName, ChannelNameError};

/// The extension of a channel's file.
pub(super) const SUFFIX: &str = ".comet";

/// Whether this is the name of a channel's file. A hidden file is a temporary file of the program that writes it.
pub(super) fn is_channel_file(name: &OsStr) -> bool {
    name.as_bytes().ends_with(SUFFIX.as_bytes()) && !name.as_bytes().starts_with(b".")
}

/// The channel of a file.
pub(super) fn channel(file: &OsStr) -> Result<ChannelName, ChannelNameError> {
    let name = file.as_bytes();
    let name = name.strip_suffix(SUFFIX.as_bytes()).unwrap_or(name);
    ChannelName::parse_bytes(name)
}

/// The file of a channel.
pub(super) fn file_name(name: &ChannelName) -> String {
    format!("{name}{SUFFIX}")
}
