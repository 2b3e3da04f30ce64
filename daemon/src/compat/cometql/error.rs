//! The errors of CometQL. Scripts check the numbers, so the numbers are those of comet-server.ru. Errors from 1000 on are
//! MySQL's own.

use crate::compat::comet_server::pipes::NameError;

/// Why a statement or a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SqlError {
    #[error("{0} is not yet implemented")]
    NotImplemented(String),
    #[error("Syntax error in query near '{0}'")]
    Syntax(String),
    #[error("Table `{0}` is read only")]
    ReadOnly(&'static str),
    #[error("{0} is too long")]
    TooLong(&'static str),
    #[error("{0} is too short")]
    TooShort(&'static str),
    #[error("field `{0}` is required")]
    Required(&'static str),
    #[error("The {0} can contain only the characters {1}")]
    Characters(&'static str, &'static str),
    #[error("The id field must be a number from 1 to 999999999")]
    Id,
    #[error("The length field must be a number from 0 to 1000")]
    Length,
    #[error("The query is not UTF-8")]
    NotUtf8,
    #[error(
        "Selection without transferring the requested values of the primary key is not supported: WHERE must name `{0}`"
    )]
    NoKey(&'static str),
    #[error("Each column in the {0} used only once")]
    Twice(&'static str),
    #[error("Error in columns list: {columns} columns and {values} values")]
    Count { columns: usize, values: usize },
    #[error("Not a specific column: `{0}`")]
    Column(String),
    #[error("Table doesn't exist: `{0}`")]
    Table(String),
    #[error("Select database failure: the only database is CometQL_v1")]
    Database,
    #[error("Authentication failure{0}")]
    Authentication(&'static str),
    #[error("Too many {what}: at most {most}")]
    TooMany { what: Many, most: usize },
    #[error("Access denied")]
    Denied,
    #[error("{0}")]
    Internal(String),
    #[error("Too many connections: {0}")]
    Connections(String),
    #[error("Bad handshake: {0}")]
    Handshake(&'static str),
    #[error("Unknown command {0}")]
    Command(u8),
    #[error("Prepared statements are not supported; let the client put the values into the query")]
    Prepare,
    #[error("Server shutdown in progress; connect again")]
    Shutdown,
}

/// What a statement has too many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Many {
    Conditions,
    Values,
    Columns,
}

impl std::fmt::Display for Many {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Conditions => "conditions",
            Self::Values => "values",
            Self::Columns => "columns",
        })
    }
}

impl SqlError {
    /// The number that scripts check.
    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::NotImplemented(_) => 2,
            Self::Syntax(_) => 3,
            Self::ReadOnly(_) => 10,
            Self::TooLong(_) => 11,
            Self::Required(_) | Self::Characters(..) => 12,
            Self::Id | Self::Length | Self::NotUtf8 => 12,
            Self::NoKey(_) | Self::Twice(_) => 13,
            Self::Count { .. } | Self::Column(_) => 14,
            Self::Table(_) | Self::Database => 15,
            Self::Authentication(_) => 16,
            Self::TooShort(_) => 17,
            Self::TooMany { what, .. } => match what {
                Many::Conditions => 18,
                Many::Values => 19,
                Many::Columns => 20,
            },
            Self::Denied => 403,
            Self::Internal(_) => 500,
            Self::Connections(_) => 1040,
            Self::Handshake(_) => 1043,
            Self::Command(_) => 1047,
            Self::Shutdown => 1053,
            Self::Prepare => 1295,
        }
    }

    /// The error for a wrong name. `what` says of what.
    pub(super) fn name(what: &'static str, error: NameError) -> Self {
        match error {
            NameError::TooShort => Self::TooShort(what),
            NameError::TooLong => Self::TooLong(what),
            NameError::Character => Self::Characters(what, "A-Za-z0-9_-"),
        }
    }
}
