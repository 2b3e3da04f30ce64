//! The grammar of CometQL: the text of a query becomes a statement. No I/O.

#[cfg(test)]
mod tests;

use super::{
    error::{Many, SqlError},
    lexer::{Token, near, tokens},
    statement::{Condition, Fact, FactKind, Show, Statement},
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

    fn select(&mut self) -> Result<Statement, SqlError> {
        let items = self.items()?;
        if !self.keyword("FROM") {
            let facts: Option<Vec<Fact>> = items.into_iter().map(Item::fact).collect();
            let facts = facts.ok_or_else(|| self.error())?;
            let has_row = self.limit()? != Some(0);
            return Ok(Statement::Facts(facts, has_row));
        }
        let table = self.name()?;
        let columns = match &items[..] {
            [Item::All] => None,
            _ => {
                let columns: Option<Vec<String>> = items.into_iter().map(Item::column).collect();
                Some(columns.ok_or_else(|| self.error())?)
            }
        };
        let conditions = self.conditions()?;
        if self.keyword("ORDER") {
            self.expect("BY")?;
            return Err(SqlError::NotImplemented("Token ORDER BY".into()));
        }
        let limit = self.limit()?;
        Ok(Statement::Select {
            table,
            columns,
            conditions,
            limit,
        })
    }

    /// The list between `SELECT` and `FROM`.
    fn items(&mut self) -> Result<Vec<Item>, SqlError> {
        let mut items = Vec::new();
        loop {
            items.push(self.item()?);
            if items.len() > MAX_COLUMNS {
                return Err(too_many(Many::Columns, MAX_COLUMNS));
            }
            if !self.symbol(',') {
                return Ok(items);
            }
        }
    }

    fn item(&mut self) -> Result<Item, SqlError> {
        if self.symbol('*') {
            return Ok(Item::All);
        }
        let Some((first, rest)) = self.tokens.split_first() else {
            return Err(self.error());
        };
        let fact = |name: &str, kind| Fact {
            name: name.to_owned(),
            kind,
        };
        let item = match first {
            Token::Word(name) if rest.first() == Some(&Token::Symbol('(')) => {
                let kind = match name.to_ascii_uppercase().as_str() {
                    "DATABASE" | "SCHEMA" => FactKind::Database,
                    "VERSION" => FactKind::Version,
                    "USER" | "CURRENT_USER" => FactKind::User,
                    "CONNECTION_ID" => FactKind::Connection,
                    _ => return Err(self.error()),
                };
                self.tokens = &rest[1..];
                self.expect_symbol(')')?;
                return self.alias(fact(&format!("{name}()"), kind));
            }
            Token::Variable(name) if name.starts_with("@@") => fact(name, FactKind::Version),
            Token::Number(number) => fact(number, FactKind::Constant(number.clone())),
            Token::Word(name) | Token::Name(name) => {
                self.tokens = rest;
                return Ok(Item::Column(name.clone()));
            }
            Token::Text(text) => {
                self.tokens = rest;
                return Ok(Item::Text(text.clone()));
            }
            Token::Variable(_) | Token::Symbol(_) => return Err(self.error()),
        };
        self.tokens = rest;
        self.alias(item)
    }

    fn alias(&mut self, mut fact: Fact) -> Result<Item, SqlError> {
        if self.keyword("AS") {
            fact.name = self.name()?;
        }
        Ok(Item::Fact(fact))
    }

    /// `WHERE` and its conditions, or nothing.
    fn conditions(&mut self) -> Result<Vec<Condition>, SqlError> {
        let (mut conditions, mut has_or) = (Vec::<Condition>::new(), false);
        if !self.keyword("WHERE") {
            return Ok(conditions);
        }
        loop {
            let condition = self.condition()?;
            if conditions
                .iter()
                .any(|known| known.column == condition.column)
            {
                return Err(SqlError::Twice("conditions"));
            }
            conditions.push(condition);
            if conditions.len() > MAX_CONDITIONS {
                return Err(too_many(Many::Conditions, MAX_CONDITIONS));
            }
            match () {
                () if self.keyword("AND") => {}
                () if self.keyword("OR") => has_or = true,
                () if has_or => return Err(SqlError::NotImplemented("Operator OR".into())),
                () => return Ok(conditions),
            }
        }
    }

    fn condition(&mut self) -> Result<Condition, SqlError> {
        let column = self.name()?;
        if self.symbol('=') {
            let values = vec![self.value()?];
            return Ok(Condition { column, values });
        }
        if self.keyword("IN") {
            self.expect_symbol('(')?;
            let values = self.list(Many::Values, MAX_VALUES, Self::value)?;
            return Ok(Condition { column, values });
        }
        Err(match self.tokens.first() {
            Some(Token::Symbol(c @ ('<' | '>' | '!'))) => {
                SqlError::NotImplemented(format!("Operator {c}"))
            }
            Some(Token::Word(word)) if is_operator(word) => {
                SqlError::NotImplemented(format!("Operator {}", word.to_ascii_uppercase()))
            }
            _ => self.error(),
        })
    }

    /// `LIMIT n`, or nothing.
    fn limit(&mut self) -> Result<Option<usize>, SqlError> {
        if !self.keyword("LIMIT") {
            return Ok(None);
        }
        let Some((Token::Number(number), rest)) = self.tokens.split_first() else {
            return Err(self.error());
        };
        self.tokens = rest;
        if self.symbol(',') || self.keyword("OFFSET") {
            return Err(SqlError::NotImplemented("LIMIT with two numbers".into()));
        }
        Ok(Some(number.parse().unwrap_or(usize::MAX)))
    }

    fn show(&mut self) -> Result<Statement, SqlError> {
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

/// An entry of the list between `SELECT` and `FROM`.
enum Item {
    All,
    Column(String),
    /// A text in quotes: a column before `FROM`, else a constant.
    Text(String),
    Fact(Fact),
}

impl Item {
    fn column(self) -> Option<String> {
        match self {
            Self::Column(name) | Self::Text(name) => Some(name),
            Self::All | Self::Fact(_) => None,
        }
    }

    fn fact(self) -> Option<Fact> {
        match self {
            Self::Fact(fact) => Some(fact),
            Self::Text(text) => Some(Fact {
                name: text.clone(),
                kind: FactKind::Constant(text),
            }),
            Self::All | Self::Column(_) => None,
        }
    }
}

fn is_operator(word: &str) -> bool {
    let operators = ["LIKE", "NOT", "BETWEEN", "IS", "REGEXP", "RLIKE"];
    operators
        .iter()
        .any(|operator| word.eq_ignore_ascii_case(operator))
}

fn too_many(what: Many, most: usize) -> SqlError {
    SqlError::TooMany { what, most }
}
