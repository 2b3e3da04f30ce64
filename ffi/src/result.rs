//! Result codes, flags and receipts: the types of the header, and the one table from errors to codes.

use comet_client::{
    Error, FileError, OptionsError, Outcome,
    proto::{ChannelNameError, ChannelNamesError, EventNameError, line::KeyError},
};

/// The result of a call. A negative value is a failure. The numbers never change; new ones may be added.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CometResult {
    /// Success.
    Ok = 0,
    /// The daemon is away. The message waits in the spool, and the daemon publishes it when it is back. Only with
    /// COMET_FLAG_SPOOL, or `spool` in the DSN.
    Spooled = 1,
    /// A pointer is NULL where NULL is not allowed.
    NullParameter = -1,
    /// The DSN, or the path in COMET_SOCKET, breaks a rule.
    Dsn = -2,
    /// The channel name breaks a rule.
    Channel = -3,
    /// A flag is unknown to this version.
    Flags = -4,
    /// A length is larger than any object can be.
    Length = -5,
    /// No connection to the daemon; nothing was published.
    Connect = -6,
    /// Not done in time. A message that was sent may still have been published.
    Timeout = -7,
    /// The connection was lost before the acknowledgement. A message that was sent may or may not have been published.
    Unknown = -8,
    /// The daemon refused the message, and did not publish it.
    Refused = -9,
    /// The answer does not come from a Comet daemon, or it is too long.
    Protocol = -10,
    /// The file could not be touched or written.
    File = -11,
    /// A bug in this library; please report it. The process can go on, and the handle can be used again, as if new.
    Panic = -12,
    /// The event name breaks a rule.
    Name = -13,
    /// The idempotency key breaks a rule.
    Key = -14,
}

/// Flags of comet_publish.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CometFlag {
    /// Return when the message is handed to the operating system. comet_flush reports whether all messages were published.
    NoAck = 1,
    /// Collect messages and send them 64 KiB at a time; comet_flush sends the rest. Implies COMET_FLAG_NO_ACK.
    Buffer = 2,
    /// While the daemon is away, leave the message in the spool, a directory beside its socket, and return
    /// COMET_RESULT_SPOOLED. When the daemon is back, it publishes the message, once and in order. `spool=off` in the DSN switches this flag off.
    Spool = 4,
}

/// The receipt of a published message.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The message's id: microseconds since the Unix epoch. 0 if the call did not wait for the acknowledgement, or the message is in the spool.
    pub id: u64,
}

/// A result code and the text of the error.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) result: CometResult,
    pub(crate) text: String,
}

impl Fault {
    pub(crate) fn null() -> Self {
        let text = String::from("a pointer is NULL where NULL is not allowed");
        Self {
            result: CometResult::NullParameter,
            text,
        }
    }

    pub(crate) fn flags(flags: u32) -> Self {
        let text = format!("unknown flags {flags:#x} (known: 1 no ack, 2 buffer, 4 spool)");
        Self {
            result: CometResult::Flags,
            text,
        }
    }

    pub(crate) fn length(len: usize) -> Self {
        let text = format!("length of {len} bytes is over the limit of {}", isize::MAX);
        Self {
            result: CometResult::Length,
            text,
        }
    }
}

impl From<()> for CometResult {
    fn from((): ()) -> Self {
        Self::Ok
    }
}

impl From<Outcome> for CometResult {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Published(_) | Outcome::OnItsWay => Self::Ok,
            Outcome::Spooled => Self::Spooled,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let result = code(&error);
        Self { result, text }
    }
}

fn code(error: &Error) -> CometResult {
    match error {
        Error::Options(_) | Error::SocketPath(_) => CometResult::Dsn,
        Error::Channel(_) | Error::Channels(_) => CometResult::Channel,
        Error::Name(_) => CometResult::Name,
        Error::Key(_) => CometResult::Key,
        Error::Connect { .. } => CometResult::Connect,
        Error::Timeout { .. } => CometResult::Timeout,
        Error::Unknown { .. } => CometResult::Unknown,
        Error::Refused { .. } => CometResult::Refused,
        // Whether the message may have been published depends on the daemon's error, not on the spool's.
        Error::Spool { away, .. } => code(away),
        Error::Protocol(_) | Error::TooLong(_) | Error::Line => CometResult::Protocol,
        Error::File(_) => CometResult::File,
    }
}

impl From<OptionsError> for Fault {
    fn from(error: OptionsError) -> Self {
        Error::from(error).into()
    }
}

impl From<ChannelNameError> for Fault {
    fn from(error: ChannelNameError) -> Self {
        Error::from(error).into()
    }
}

impl From<ChannelNamesError> for Fault {
    fn from(error: ChannelNamesError) -> Self {
        Error::from(error).into()
    }
}

impl From<EventNameError> for Fault {
    fn from(error: EventNameError) -> Self {
        Error::from(error).into()
    }
}

impl From<KeyError> for Fault {
    fn from(error: KeyError) -> Self {
        Error::from(error).into()
    }
}

impl From<FileError> for Fault {
    fn from(error: FileError) -> Self {
        Error::from(error).into()
    }
}
