//! `SHOW`.

use super::Parser;
use crate::compat::cometql::{
    error::SqlError,
    statement::{Show, Statement},
};

impl Parser<'_> {
    pub(super) fn show(&mut self) -> Result<Statement, SqlError> {
        let is_full = self.keyword("FULL");
        if self.keyword("COLUMNS") || self.keyword("FIELDS") {
            if !self.keyword("IN") {
                self.expect("FROM")?;
            }
            return Ok(Statement::Describe(self.name()?));
        }
        if self.keyword("TABLES") {
            return Ok(Statement::Show(Show::Tables));
        }
        if self.keyword("PROCESSLIST") {
            return Ok(Statement::Show(Show::Processes));
        }
        if is_full {
            return Err(self.error());
        }
        let is_global = self.keyword("GLOBAL");
        let _ = !is_global && self.keyword("SESSION");
        if self.keyword("VARIABLES") {
            let pattern = match self.keyword("LIKE") {
                true => Some(self.value()?),
                false => None,
            };
            return Ok(Statement::Show(Show::Variables(pattern)));
        }
        if self.keyword("STATUS") {
            return match is_global {
                true => Err(SqlError::Denied), // figures of the machine
                false => Ok(Statement::Show(Show::Status)),
            };
        }
        if self.keyword("DATABASES") {
            return Ok(Statement::Show(Show::Databases));
        }
        for of_machine in ["RAM", "AVG", "FILESYSTEM", "UPTIME"] {
            if self.keyword(of_machine) {
                return Err(SqlError::Denied);
            }
        }
        self.expect("TABLE")?;
        self.expect("STATUS")?;
        Ok(Statement::Show(Show::TableStatus))
    }
}
