//! Result codes, flags and receipts: the types of the header, and the one table from errors to codes.

use comet_client::{
    Error, FileError, OptionsError, Outcome,
    proto::{ChannelNameError, ChannelNamesError, EventNameError, line::KeyError},
};

/// What became of a call: below 0 it failed. Numbers never change; new ones may be added.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CometResult {
    /// Done.
    Ok = 0,
    /// Done as far as it can be now: the daemon is away, and the message waits in the spool until it is back. Only with
    /// COMET_FLAG_SPOOL, or `spool` in the DSN.
    Spooled = 1,
    /// A pointer is NULL that may not be.
    NullParameter = -1,
    /// The DSN, or the path in COMET_SOCKET, breaks a rule.
    Dsn = -2,
    /// The channel name breaks a rule.
    Channel = -3,
    /// Flags that this version does not know.
    Flags = -4,
    /// A length that no memory has.
    Length = -5,
    /// No connection to the daemon; nothing was published.
    Connect = -6,
    /// Not done in time; what was sent may be published all the same.
    Timeout = -7,
    /// The connection was lost before the acknowledgement; what was sent may be published or not.
    Unknown = -8,
    /// The daemon refused; not published.
    Refused = -9,
    /// The answer is none of a Comet daemon, or it is too long.
    Protocol = -10,
    /// The file could not be touched or written.
    File = -11,
    /// A fault in this library. The handle is as new, the process goes on; please report it.
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
    /// Return when the message is handed to the system; comet_flush tells whether all went well.
    NoAck = 1,
    /// Gather messages and send them 64 KiB at a time, the rest with comet_flush. Implies COMET_FLAG_NO_ACK.
    Buffer = 2,
    /// While the daemon is away, leave the message in the spool, a directory beside its socket, and return
    /// COMET_RESULT_SPOOLED: the daemon publishes it when it is back, once and in order. `spool=off` in the DSN forbids it.
    Spool = 4,
}

/// What is known of a message that was published.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Its number: microseconds since the Unix epoch. 0 if the acknowledgement was not waited for, or it is in the spool.
    pub id: u64,
}

/// A code and its text.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) result: CometResult,
    pub(crate) text: String,
}

impl Fault {
    pub(crate) fn null() -> Self {
        let text = String::from("a pointer is NULL that may not be");
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
        // What became of the message the daemon's part says.
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
