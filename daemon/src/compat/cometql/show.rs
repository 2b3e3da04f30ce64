//! The statements about the server: `SHOW`, `DESCRIBE`, and `SELECT` without a table.

use super::{
    execute::Executor,
    login::{DATABASE, VERSION},
    reply::{Reply, Rows},
    statement::{Fact, FactKind, Show},
    tables::Table,
};
use crate::compat::comet_server::connections::CONNECTIONS;

impl Executor<'_> {
    pub(super) fn show(&self, show: &Show) -> Reply {
        Reply::Rows(match show {
            Show::Tables => {
                let names = Table::listed().map(|table| [table.name.to_owned()]);
                Rows::new(["Tables"], names.collect())
            }
            Show::Databases => Rows::new(["Database"], vec![[DATABASE.to_owned()]]),
            Show::Status => self.status(),
            Show::TableStatus => {
                let tables = Table::listed();
                let rows = tables.map(|table| [table.name.to_owned(), "CometQL".to_owned()]);
                Rows::new(["Name", "Engine"], rows.collect())
            }
            Show::Processes => self.processes(),
            Show::Variables(pattern) => variables(pattern.as_deref()),
        })
    }

    fn status(&self) -> Rows {
        let (users, connections) = CONNECTIONS.count();
        let rows = [
            ("flag", "session".to_owned()),
            ("id", self.site.to_owned()),
            ("user_online", users.to_string()),
            ("server_online", connections.to_string()),
            ("messages", self.hub.status().published.to_string()),
        ];
        let rows = rows.map(|(name, value)| [name.to_owned(), value]);
        Rows::new(["Variable_name", "Value"], rows.into())
    }

    /// The client's own connection. Other connections are not shown.
    fn processes(&self) -> Rows {
        let columns = [
            "Id", "User", "Host", "db", "Command", "Time", "State", "Info",
        ];
        let (id, site) = (self.connection.to_string(), self.site);
        let row = [
            &*id,
            site,
            "",
            DATABASE,
            "Query",
            "0",
            "",
            "SHOW PROCESSLIST",
        ];
        Rows::new(columns, vec![row.map(str::to_owned)])
    }

    pub(super) fn facts(&self, facts: &[Fact], has_row: bool) -> Reply {
        let value = |fact: &Fact| match &fact.kind {
            FactKind::Version => VERSION.to_owned(),
            FactKind::Database => DATABASE.to_owned(),
            FactKind::User => self.site.to_owned(),
            FactKind::Connection => self.connection.to_string(),
            FactKind::Constant(value) => value.clone(),
        };
        let row = has_row.then(|| facts.iter().map(value).collect());
        Reply::Rows(Rows {
            columns: facts.iter().map(|fact| fact.name.clone()).collect(),
            rows: row.into_iter().collect(),
        })
    }
}

pub(super) fn describe(table: &Table) -> Reply {
    let columns = ["Field", "Type", "Null", "Key", "Default", "Extra"];
    let row = |(name, kind): &(&str, &str)| {
        let key = if *name == table.key { "PRI" } else { "" };
        [name, kind, "NO", key, "", ""].map(str::to_owned)
    };
    let rows = table.columns.iter().map(row).collect();
    Reply::Rows(Rows::new(columns, rows))
}

/// The variables of the server that clients ask for.
fn variables(pattern: Option<&str>) -> Rows {
    let known = [
        ("character_set_client", "utf8mb4"),
        ("character_set_connection", "utf8mb4"),
        ("character_set_results", "utf8mb4"),
        ("version", VERSION),
        ("version_comment", VERSION),
    ];
    let matches =
        |name: &str| pattern.is_none_or(|pattern| is_like(name.as_bytes(), pattern.as_bytes()));
    let rows = known.iter().filter(|(name, _)| matches(name));
    let rows = rows.map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]);
    Rows::new(["Variable_name", "Value"], rows.collect())
}

/// Whether a text matches a pattern of `LIKE`: `%` is any text, `_` any character, and a backslash makes the next character
/// stand for itself.
fn is_like(text: &[u8], pattern: &[u8]) -> bool {
    // The last `%` of the pattern, and the text from there on: the place to go back to.
    let (mut text, mut pattern, mut last) = (text, pattern, None);
    loop {
        (text, pattern) = match (text, pattern) {
            (_, [b'%', rest @ ..]) => {
                last = Some((text, rest));
                (text, rest)
            }
            ([], []) => return true,
            ([_, text @ ..], [b'_', rest @ ..]) => (text, rest),
            ([a, text @ ..], [b'\\', b, rest @ ..]) if a == b => (text, rest),
            ([a, text @ ..], [b, rest @ ..]) if a == b => (text, rest),
            _ => match last {
                Some(([_, text @ ..], rest)) => {
                    last = Some((text, rest));
                    (text, rest)
                }
                _ => return false,
            },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_like_match_as_in_mysql() {
        let like = |text: &str, pattern: &str| is_like(text.as_bytes(), pattern.as_bytes());
        for (text, pattern) in [
            ("version", "version"),
            ("version", "%"),
            ("version", "ver%"),
            ("version", "%on"),
            ("version", "v_rs%n"),
            ("version", "%e%s%"),
            ("a_b", r"a\_b"),
            ("", "%"),
        ] {
            assert!(like(text, pattern), "{text} {pattern}");
        }
        for (text, pattern) in [
            ("version", "ver"),
            ("version", "%x%"),
            ("axb", r"a\_b"),
            ("", "_"),
        ] {
            assert!(!like(text, pattern), "{text} {pattern}");
        }
    }
}
