//! The codes of errors on the Unix socket.

use std::fmt;

/// Why a line or a connection was refused: the `error` field of the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorCode {
    /// The line is not JSON, has an unknown field, or is too long.
    Line,
    /// The operation does not exist.
    Op,
    /// The field `channel` is wrong.
    Channel,
    /// The field `channels` is wrong.
    Channels,
    /// The field `name` is wrong.
    Name,
    /// The field `since` is wrong.
    Since,
    /// One of the fields `data` and `data_base64` is wrong, or both are set.
    Data,
    /// The field `key` is wrong.
    Key,
    /// The field `attributes` is wrong.
    Attributes,
    /// The user may not publish to this channel.
    Forbidden,
    /// The message cannot be kept.
    Store,
    /// The user may not connect, or not any more. The connection ends.
    Permission,
    /// There are too many connections, in all or of this user. The connection ends.
    Connections,
    /// A code of another version of the daemon.
    Other(String),
}

/// The codes that this version knows.
const KNOWN: [ErrorCode; 13] = [
    ErrorCode::Line,
    ErrorCode::Op,
    ErrorCode::Channel,
    ErrorCode::Channels,
    ErrorCode::Name,
    ErrorCode::Since,
    ErrorCode::Data,
    ErrorCode::Key,
    ErrorCode::Attributes,
    ErrorCode::Forbidden,
    ErrorCode::Store,
    ErrorCode::Permission,
    ErrorCode::Connections,
];

impl ErrorCode {
    /// The code with this text.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut known = KNOWN.into_iter();
        let found = known.find(|code| code.as_str() == text);
        found.unwrap_or_else(|| Self::Other(text.into()))
    }

    /// The text in the reply.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Line => "line",
            Self::Op => "op",
            Self::Channel => "channel",
            Self::Channels => "channels",
            Self::Name => "name",
            Self::Since => "since",
            Self::Data => "data",
            Self::Key => "key",
            Self::Attributes => "attributes",
            Self::Forbidden => "forbidden",
            Self::Store => "store",
            Self::Permission => "permission",
            Self::Connections => "connections",
            Self::Other(text) => text,
        }
    }

    /// Whether the daemon refused the connection itself. Such a reply answers no line that was sent.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        matches!(self, Self::Permission | Self::Connections)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_parsed_from_its_text() {
        for code in KNOWN {
            assert_eq!(ErrorCode::parse(code.as_str()), code);
        }
        let other = ErrorCode::parse("teapot");
        assert_eq!(other, ErrorCode::Other("teapot".into()));
        assert_eq!(other.as_str(), "teapot");
    }
}
