//! The tables of CometQL. They are views of pipes and users, not stored tables.

use super::error::SqlError;

/// A table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) kind: TableKind,
    pub(super) name: &'static str,
    /// The first column is the key, unless `key` says otherwise.
    pub(super) columns: &'static [Column],
    pub(super) key: &'static str,
    /// The columns that an `INSERT` must have. An empty list: the table is read only.
    pub(super) required: &'static [&'static str],
    /// Whether `SHOW TABLES` lists the table.
    is_listed: bool,
}

/// A column and its type in MySQL's words.
pub(super) type Column = (&'static str, &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableKind {
    UsersAuth,
    UsersTime,
    UsersMessages,
    PipesMessages,
    UsersInPipes,
    Pipes,
    PipesSettings,
    UsersData,
    RevokedTokens,
}

const ID: Column = ("id", "int(11)");
const PIPE: Column = ("name", "varchar(64)");
const EVENT: Column = ("event", "varchar(64)");
const MESSAGE: Column = ("message", "text");

/// All tables, in the order of `SHOW TABLES`.
pub(super) static TABLES: [Table; 9] = [
    Table {
        kind: TableKind::UsersAuth,
        name: "users_auth",
        columns: &[ID, ("hash", "varchar(32)")],
        key: "id",
        required: &["id", "hash"],
        is_listed: true,
    },
    Table {
        kind: TableKind::UsersTime,
        name: "users_time",
        columns: &[ID, ("time", "int(11)")],
        key: "id",
        required: &[],
        is_listed: true,
    },
    Table {
        kind: TableKind::UsersMessages,
        name: "users_messages",
        columns: &[ID, ("index", "varchar(64)"), EVENT, MESSAGE],
        key: "id",
        required: &["id", "event", "message"],
        is_listed: true,
    },
    Table {
        kind: TableKind::PipesMessages,
        name: "pipes_messages",
        columns: &[
            ("id", "varchar(128)"),
            ("time", "int(11)"),
            PIPE,
            ("index", "int(11)"),
            EVENT,
            MESSAGE,
            ("user_id", "int(11)"),
        ],
        key: "name",
        required: &["name", "event", "message"],
        is_listed: true,
    },
    Table {
        kind: TableKind::UsersInPipes,
        name: "users_in_pipes",
        columns: &[
            PIPE,
            ("user_id", "int(11)"),
            ("user_uuid", "varchar(64)"),
            ("user_agent", "text"),
            ("ip", "varchar(64)"),
            ("origin", "text"),
            ("language", "text"),
        ],
        key: "name",
        required: &[],
        is_listed: true,
    },
    Table {
        kind: TableKind::Pipes,
        name: "pipes",
        columns: &[PIPE, ("users", "int(11)")],
        key: "name",
        required: &[],
        is_listed: true,
    },
    Table {
        kind: TableKind::PipesSettings,
        name: "pipes_settings",
        columns: &[PIPE, ("length", "int(11)")],
        key: "name",
        required: &["name", "length"],
        is_listed: true,
    },
    Table {
        kind: TableKind::UsersData,
        name: "users_data",
        columns: &[ID, ("data", "text")],
        key: "id",
        required: &["id", "data"],
        is_listed: false,
    },
    Table {
        kind: TableKind::RevokedTokens,
        name: "revoked_tokens",
        columns: &[("token", "varchar(600)")],
        key: "token",
        required: &["token"],
        is_listed: false,
    },
];

/// Tables of the original server that are left out: video calls.
const VIDEO: [&str; 3] = ["conference", "conference_members", "dialogs"];

impl Table {
    /// The table with this name. Names are case-sensitive.
    pub(super) fn named(name: &str) -> Result<&'static Self, SqlError> {
        if let Some(video) = VIDEO.iter().find(|video| **video == name) {
            return Err(SqlError::NotImplemented(format!("Table {video}")));
        }
        let table = TABLES.iter().find(|table| table.name == name);
        table.ok_or_else(|| SqlError::Table(name.into()))
    }

    /// The tables that `SHOW TABLES` lists.
    pub(super) fn listed() -> impl Iterator<Item = &'static Self> {
        TABLES.iter().filter(|table| table.is_listed)
    }

    /// The place of a column. Names are case-sensitive.
    pub(super) fn column(&self, name: &str) -> Result<usize, SqlError> {
        let place = self.columns.iter().position(|(column, _)| *column == name);
        place.ok_or_else(|| SqlError::Column(name.into()))
    }

    /// The places of listed columns, or of all columns. `what` is the statement, for the error about a column that is listed
    /// twice.
    pub(super) fn places(
        &self,
        columns: Option<&[String]>,
        what: &'static str,
    ) -> Result<Vec<usize>, SqlError> {
        let Some(columns) = columns else {
            return Ok((0..self.columns.len()).collect());
        };
        let mut places = Vec::new();
        for name in columns {
            let place = self.column(name)?;
            if places.contains(&place) {
                return Err(SqlError::Twice(what));
            }
            places.push(place);
        }
        Ok(places)
    }
}
