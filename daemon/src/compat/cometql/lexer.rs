//! Cuts the text of a query into words, values and symbols, and decodes the values' escapes. No I/O.

use super::error::SqlError;

/// A part of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A word outside of quotes: a keyword or a name.
    Word(String),
    /// A name in backticks.
    Name(String),
    /// A text in single or double quotes, decoded.
    Text(String),
    /// Digits outside of quotes.
    Number(String),
    /// `@@` and the name of a variable, with its scope.
    Variable(String),
    Symbol(char),
}

/// Cuts the query into tokens.
pub(super) fn tokens(query: &str) -> Result<Vec<Token>, SqlError> {
    let mut rest = query;
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = rest.chars().next() else {
            return Ok(tokens);
        };
        tokens.push(match first {
            '\'' | '"' => Token::Text(quoted(&mut rest, first)?),
            '`' => Token::Name(backticked(&mut rest)?),
            '@' => Token::Variable(variable(&mut rest)?),
            '0'..='9' => number(&mut rest)?,
            'a'..='z' | 'A'..='Z' | '_' => Token::Word(word(&mut rest)),
            '(' | ')' | ',' | '*' | '=' | '<' | '>' | '!' | ';' => {
                rest = &rest[1..];
                Token::Symbol(first)
            }
            _ => return Err(near(rest)),
        });
    }
}

/// A syntax error at this place.
pub(super) fn near(rest: &str) -> SqlError {
    let shown: String = rest.chars().take(32).collect();
    SqlError::Syntax(shown.replace(char::is_control, " "))
}

/// Takes the characters for which `is_part` holds.
fn take(rest: &mut &str, is_part: impl Fn(char) -> bool) -> String {
    let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    let (taken, after) = rest.split_at(end);
    *rest = after;
    taken.to_owned()
}

fn word(rest: &mut &str) -> String {
    take(rest, |c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
}

fn number(rest: &mut &str) -> Result<Token, SqlError> {
    let start = *rest;
    let text = word(rest);
    match text.bytes().all(|b| b.is_ascii_digit()) && !rest.starts_with('.') {
        true => Ok(Token::Number(text)),
        false => Err(near(start)),
    }
}

/// `@@name` or `@@scope.name`; a user's own `@name` is accepted, too, for `SET`.
fn variable(rest: &mut &str) -> Result<String, SqlError> {
    let start = *rest;
    let name = take(rest, |c| c.is_ascii_alphanumeric() || "@_.$".contains(c));
    match name.trim_start_matches('@') {
        "" => Err(near(start)),
        _ => Ok(name),
    }
}

fn backticked(rest: &mut &str) -> Result<String, SqlError> {
    let start = *rest;
    let (name, after) = start[1..].split_once('`').ok_or_else(|| near(start))?;
    *rest = after;
    Ok(name.to_owned())
}

/// A text in quotes. The escapes are decoded as MySQL does: a doubled quote is one quote, `\%` and `\_` keep their backslash,
/// and before any other character that has no meaning the backslash is dropped.
fn quoted(rest: &mut &str, quote: char) -> Result<String, SqlError> {
    let start = *rest;
    let mut text = String::new();
    let mut chars = start.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            *rest = &start[at + 1..];
            if !rest.starts_with(quote) {
                return Ok(text);
            }
            chars.next();
            text.push(quote);
            continue;
        }
        if c != '\\' {
            text.push(c);
            continue;
        }
        let Some((_, escaped)) = chars.next() else {
            break;
        };
        match escaped {
            '0' => text.push('\0'),
            'b' => text.push('\x08'),
            'n' => text.push('\n'),
            'r' => text.push('\r'),
            't' => text.push('\t'),
            'Z' => text.push('\x1a'),
            '%' | '_' => text.extend(['\\', escaped]),
            other => text.push(other),
        }
    }
    Err(near(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(query: &str) -> String {
        match &tokens(query).unwrap()[..] {
            [Token::Text(text)] => text.clone(),
            other => panic!("{query}: {other:?}"),
        }
    }

    #[test]
    fn escapes_are_decoded_as_mysql_does() {
        for (query, decoded) in [
            (r"'it\'s'", "it's"),
            ("'it''s'", "it's"),
            (r#""it's""#, "it's"),
            (r#""a""b\"c""#, "a\"b\"c"),
            (r#"'{\"a\":1}'"#, "{\"a\":1}"),
            (r"'\0\b\n\r\t\Z\\'", "\0\x08\n\r\t\x1a\\"),
            (r"'100\%\_\q\ж'", r"100\%\_qж"),
            (r"'C:\\new'", r"C:\new"),
            ("''", ""),
            ("'line\nфыва 🚀'", "line\nфыва 🚀"),
            (r"'\\'''", "\\'"),
        ] {
            assert_eq!(text(query), decoded, "{query}");
        }
        for open in ["'", r"'\'", "'a''", "\"a'", "`a"] {
            assert!(tokens(open).is_err(), "{open}");
        }
    }

    #[test]
    fn unknown_characters_are_errors_and_not_skipped() {
        for query in [
            "-5",
            "a -- b",
            "a # b",
            "a /* b */",
            "1.5",
            "5x",
            "ж",
            "a\0b",
            "@",
            "a + b",
        ] {
            assert!(tokens(query).is_err(), "{query}");
        }
    }
}
