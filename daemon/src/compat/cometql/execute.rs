//! Executes statements: publishes for `INSERT`, and answers `SELECT` from the hub and the users.

use super::{
    error::SqlError, grammar::parse, login, reply::Reply, show, statement::Statement, tables::Table,
};
use crate::{
    broker::{Broker, Receipt},
    compat::comet_server::{UserId, Users},
    hub::{Hub, NewMessage},
};

/// What a connection needs to execute a statement.
pub(crate) struct Executor<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) broker: &'a dyn Broker,
    /// Publishes a message to a pipe.
    pub(crate) publish: &'a dyn Fn(NewMessage<'_>) -> Result<Receipt, SqlError>,
    /// The number of the site, as the client has named it.
    pub(crate) site: &'a str,
    /// The number of the connection.
    pub(crate) connection: u32,
}

/// The reply to a statement.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) reply: Reply,
    /// The reply may be written when this message is kept.
    pub(crate) receipt: Option<Receipt>,
    /// Whether a transaction is open from now on. `None`: as before.
    pub(crate) transaction: Option<bool>,
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self {
            reply,
            receipt: None,
            transaction: None,
        }
    }
}

impl Executor<'_> {
    /// Executes the statement with this text.
    pub(crate) fn execute(&self, query: &[u8]) -> Outcome {
        let outcome = parse(query).and_then(|statement| self.run(statement));
        outcome.unwrap_or_else(|error| Reply::Error(error).into())
    }

    fn run(&self, statement: Statement) -> Result<Outcome, SqlError> {
        Ok(match statement {
            Statement::Insert {
                table,
                columns,
                values,
            } => self.insert(Table::named(&table)?, columns.as_deref(), values)?,
            Statement::Select {
                table,
                columns,
                conditions,
                limit,
            } => {
                let table = Table::named(&table)?;
                self.select(table, columns.as_deref(), &conditions, limit)?
                    .into()
            }
            Statement::Delete { table, conditions } => {
                self.delete(Table::named(&table)?, &conditions)?
            }
            Statement::Facts(facts, has_row) => self.facts(&facts, has_row).into(),
            Statement::Show(show) => self.show(&show).into(),
            Statement::Describe(table) => show::describe(Table::named(&table)?).into(),
            Statement::Use(database) => {
                login::check_database(database.as_bytes())?;
                Reply::OK.into()
            }
            Statement::Nothing => Reply::OK.into(),
            Statement::Transaction(is_open) => Outcome {
                transaction: Some(is_open),
                ..Reply::OK.into()
            },
        })
    }

    pub(super) fn users(&self) -> Users<'_> {
        Users::new(self.hub, self.broker)
    }
}

pub(super) fn user_id(text: &str) -> Result<UserId, SqlError> {
    UserId::parse(text).ok_or(SqlError::Id)
}
