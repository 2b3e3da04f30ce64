//! The grammar of CometQL: the text of a query becomes a statement. No I/O.

mod select;
mod show;
#[cfg(test)]
mod tests;

use super::{
    error::{Many, SqlError},
    lexer::{Token, near, tokens},
    statement::Statement,
};

/// Shortest and longest query in bytes.
pub(crate) const MIN_QUERY: usize = 4;
pub(crate) const MAX_QUERY: usize = 8999;

/// The most columns of an `INSERT` or `SELECT`.
const MAX_COLUMNS: usize = 20;

/// The most conditions of a `WHERE`.
const MAX_CONDITIONS: usize = 10;

/// The most values of an `IN`.
const MAX_VALUES: usize = 4000;

/// Parses one statement. One semicolon at the end is accepted.
pub(crate) fn parse(query: &[u8]) -> Result<Statement, SqlError> {
    match query.len() {
        ..MIN_QUERY => return Err(SqlError::TooShort("Data")),
        MIN_QUERY..=MAX_QUERY => {}
        _ => return Err(SqlError::TooLong("Data")),
    }
    let query = str::from_utf8(query).map_err(|_| SqlError::NotUtf8)?;
    let tokens = tokens(query)?;
    let mut parser = Parser { tokens: &tokens };
    let statement = parser.statement()?;
    parser.symbol(';');
    match parser.tokens {
        [] => Ok(statement),
        _ => Err(parser.error()),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
}

impl Parser<'_> {
    fn statement(&mut self) -> Result<Statement, SqlError> {
        let Some(Token::Word(word)) = self.tokens.first() else {
            return Err(self.error());
        };
        let keyword = word.to_ascii_uppercase();
        let start = self.tokens;
        self.tokens = &self.tokens[1..];
        match keyword.as_str() {
            "INSERT" => self.insert(),
            "SELECT" => self.select(),
            "DELETE" => self.delete(),
            "SHOW" => self.show(),
            "DESCRIBE" | "DESC" => Ok(Statement::Describe(self.name()?)),
            "USE" => Ok(Statement::Use(self.name()?)),
            "SET" => self.set(),
            "BEGIN" => Ok(Statement::Transaction(true)),
            "COMMIT" => Ok(Statement::Transaction(false)),
            // Not accepted, because nothing could be undone.
            "ROLLBACK" => Err(SqlError::NotImplemented("Operator ROLLBACK".into())),
            "START" => {
                self.expect("TRANSACTION")?;
                Ok(Statement::Transaction(true))
            }
            _ => {
                self.tokens = start;
                Err(self.error())
            }
        }
    }

    fn insert(&mut self) -> Result<Statement, SqlError> {
        self.expect("INTO")?;
        let table = self.name()?;
        let columns = match self.symbol('(') {
            true => Some(self.list(Many::Columns, MAX_COLUMNS, Self::name)?),
            false => None,
        };
        self.expect("VALUES")?;
        self.expect_symbol('(')?;
        let values = self.list(Many::Columns, MAX_COLUMNS, Self::value)?;
        Ok(Statement::Insert {
            table,
            columns,
            values,
        })
    }

    fn delete(&mut self) -> Result<Statement, SqlError> {
        self.expect("FROM")?;
        let table = self.name()?;
        let conditions = self.conditions()?;
        Ok(Statement::Delete { table, conditions })
    }

    /// Any `SET` is accepted, because clients send it on their own.
    fn set(&mut self) -> Result<Statement, SqlError> {
        let end = self
            .tokens
            .iter()
            .position(|token| *token == Token::Symbol(';'));
        let end = end.unwrap_or(self.tokens.len());
        if end == 0 {
            return Err(self.error());
        }
        self.tokens = &self.tokens[end..];
        Ok(Statement::Nothing)
    }

    /// The rest of a list after its opening parenthesis.
    fn list(
        &mut self,
        what: Many,
        most: usize,
        entry: impl Fn(&mut Self) -> Result<String, SqlError>,
    ) -> Result<Vec<String>, SqlError> {
        let mut list = Vec::new();
        loop {
            list.push(entry(self)?);
            if list.len() > most {
                return Err(too_many(what, most));
            }
            if !self.symbol(',') {
                self.expect_symbol(')')?;
                return Ok(list);
            }
        }
    }

    /// A name: bare, in backticks, or in quotes.
    fn name(&mut self) -> Result<String, SqlError> {
        match self.tokens.split_first() {
            Some((Token::Word(name) | Token::Name(name) | Token::Text(name), rest)) => {
                self.tokens = rest;
                Ok(name.clone())
            }
            _ => Err(self.error()),
        }
    }

    /// A value: a text in quotes, or digits.
    fn value(&mut self) -> Result<String, SqlError> {
        match self.tokens.split_first() {
            Some((Token::Text(value) | Token::Number(value), rest)) => {
                self.tokens = rest;
                Ok(value.clone())
            }
            _ => Err(self.error()),
        }
    }

    /// Takes the keyword, if it is next.
    fn keyword(&mut self, keyword: &str) -> bool {
        let is_next = matches!(
            self.tokens.first(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword)
        );
        if is_next {
            self.tokens = &self.tokens[1..];
        }
        is_next
    }

    fn expect(&mut self, keyword: &str) -> Result<(), SqlError> {
        self.keyword(keyword)
            .then_some(())
            .ok_or_else(|| self.error())
    }

    /// Takes the symbol, if it is next.
    fn symbol(&mut self, symbol: char) -> bool {
        let is_next = self.tokens.first() == Some(&Token::Symbol(symbol));
        if is_next {
            self.tokens = &self.tokens[1..];
        }
        is_next
    }

    fn expect_symbol(&mut self, symbol: char) -> Result<(), SqlError> {
        self.symbol(symbol)
            .then_some(())
            .ok_or_else(|| self.error())
    }

    /// A syntax error at the next token.
    fn error(&self) -> SqlError {
        let shown = self.tokens.iter().take(4).map(|token| match token {
            Token::Word(text) | Token::Number(text) | Token::Variable(text) => text.clone(),
            Token::Name(name) => format!("`{name}`"),
            Token::Text(text) => format!("'{text}'"),
            Token::Symbol(symbol) => symbol.to_string(),
        });
        near(&shown.collect::<Vec<_>>().join(" "))
    }
}

fn too_many(what: Many, most: usize) -> SqlError {
    SqlError::TooMany { what, most }
}
