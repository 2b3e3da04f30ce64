//! `SELECT`, and the conditions of `WHERE`.

use super::{MAX_COLUMNS, MAX_CONDITIONS, MAX_VALUES, Parser, too_many};
use crate::compat::cometql::{
    error::{Many, SqlError},
    lexer::Token,
    statement::{Condition, Fact, FactKind, Statement},
};

impl Parser<'_> {
    pub(super) fn select(&mut self) -> Result<Statement, SqlError> {
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
    pub(super) fn conditions(&mut self) -> Result<Vec<Condition>, SqlError> {
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
