//! `SELECT` from a table.

use comet_proto::ChannelName;

use super::{
    error::SqlError,
    execute::{Executor, user_id},
    reply::{Reply, Rows},
    statement::Condition,
    tables::{Table, TableKind},
};
use crate::compat::comet_server::{
    connections::{CONNECTIONS, Visitor},
    inbox::LastSeen,
    pipes,
};

/// The most rows of `users_in_pipes` for one pipe.
const MOST_VISITORS: usize = 10_000;

/// The most bytes of messages in one result. The newest message is in the result, whatever its size.
const MOST_BYTES: usize = 1 << 20;

type Row = Vec<String>;

impl Executor<'_> {
    pub(super) fn select(
        &self,
        table: &Table,
        columns: Option<&[String]>,
        conditions: &[Condition],
        limit: Option<usize>,
    ) -> Result<Reply, SqlError> {
        let places = table.places(columns, "select")?;
        let key = table.column(table.key)?;
        let mut filters = Vec::new();
        for condition in conditions {
            filters.push((table.column(&condition.column)?, &condition.values));
        }
        let keys = filters.iter().find(|(place, _)| *place == key);
        let rows = match keys {
            Some((_, keys)) => self.rows(table, keys)?,
            None if table.kind == TableKind::RevokedTokens => self.revoked(),
            None => return Err(SqlError::NoKey(table.key)),
        };
        let filters: Vec<_> = filters.iter().filter(|(place, _)| *place != key).collect();
        let passes = |row: &Row| {
            let mut filters = filters.iter();
            filters.all(|(place, values)| values.contains(&row[*place]))
        };
        let rows = rows.into_iter().filter(passes);
        let rows = rows.take(limit.unwrap_or(usize::MAX));
        let chosen = |row: Row| places.iter().map(|place| row[*place].clone()).collect();
        Ok(Reply::Rows(Rows {
            columns: places
                .iter()
                .map(|place| table.columns[*place].0.to_owned())
                .collect(),
            rows: rows.map(chosen).collect(),
        }))
    }

    /// The rows with these keys, with all columns. A key that is listed twice counts once.
    fn rows(&self, table: &Table, keys: &[String]) -> Result<Vec<Row>, SqlError> {
        let mut known = std::collections::BTreeSet::new();
        let mut rows = Vec::new();
        for key in keys.iter().filter(|key| known.insert(*key)) {
            match table.kind {
                TableKind::RevokedTokens => {
                    let is_revoked = self.users().is_revoked(key);
                    rows.extend(is_revoked.then(|| vec![key.clone()]));
                }
                TableKind::UsersAuth
                | TableKind::UsersTime
                | TableKind::UsersMessages
                | TableKind::UsersData => self.add_user(table.kind, key, &mut rows)?,
                TableKind::PipesMessages
                | TableKind::UsersInPipes
                | TableKind::Pipes
                | TableKind::PipesSettings => self.add_pipe(table.kind, &pipe(key)?, &mut rows),
            }
        }
        Ok(rows)
    }

    fn add_user(&self, kind: TableKind, key: &str, rows: &mut Vec<Row>) -> Result<(), SqlError> {
        let (id, users) = (user_id(key)?, self.users());
        let row = |value: String| vec![id.to_string(), value];
        match kind {
            TableKind::UsersAuth => rows.extend(users.hash(id).map(row)),
            TableKind::UsersData => rows.extend(users.data(id).map(row)),
            TableKind::UsersTime => rows.push(row(match users.last_seen(id) {
                LastSeen::Online => "0".into(),
                LastSeen::At(second) => second.to_string(),
                LastSeen::Never => "-1".into(),
            })),
            _ => rows.extend(users.queued(id).iter().map(|message| {
                vec![
                    id.to_string(),
                    message.id.to_string(),
                    message.name.as_str().to_owned(),
                    text(&message.data),
                ]
            })),
        }
        Ok(())
    }

    fn add_pipe(&self, kind: TableKind, pipe: &ChannelName, rows: &mut Vec<Row>) {
        let name = || pipe.to_string();
        match kind {
            TableKind::Pipes => {
                let facts = self.hub.channel_facts(pipe);
                let users = facts.map_or(0, |facts| facts.subscribers);
                rows.push(vec![name(), users.to_string()]);
            }
            TableKind::PipesSettings => {
                let length = self.hub.own_length(pipe);
                rows.extend(length.map(|length| vec![name(), length.to_string()]));
            }
            TableKind::UsersInPipes => {
                let visitors = CONNECTIONS.in_pipe(pipe, MOST_VISITORS);
                rows.extend(visitors.into_iter().map(|visitor| reader(name(), visitor)));
            }
            _ => self.add_messages(pipe, rows),
        }
    }

    /// The saved messages of a pipe, oldest first. `index` counts all messages of the result.
    fn add_messages(&self, pipe: &ChannelName, rows: &mut Vec<Row>) {
        let saved = self.users().pipe_log(pipe);
        let mut bytes = 0;
        let newest = saved.iter().rev().take_while(|message| {
            bytes += message.data.len();
            bytes <= MOST_BYTES || bytes == message.data.len()
        });
        let fitting = newest.count();
        for message in &saved[saved.len() - fitting..] {
            rows.push(vec![
                pipes::message_id(pipe, message.id),
                (message.id / 1_000_000).to_string(),
                pipe.to_string(),
                rows.len().to_string(),
                message.name.as_str().to_owned(),
                text(&message.data),
                pipes::sender(message).to_owned(),
            ]);
        }
    }

    fn revoked(&self) -> Vec<Row> {
        let tokens = self.users().revoked().into_iter();
        tokens.map(|token| vec![token]).collect()
    }
}

pub(super) fn pipe(name: &str) -> Result<ChannelName, SqlError> {
    pipes::pipe(name).map_err(|error| SqlError::name("Channel name", error))
}

fn reader(pipe: String, visitor: Visitor) -> Row {
    let user = visitor.user.map_or("0".to_owned(), |user| user.to_string());
    vec![
        pipe,
        user,
        visitor.uuid,
        visitor.user_agent,
        visitor.ip,
        visitor.origin,
        visitor.language,
    ]
}

/// Data as text. Bytes that are not UTF-8 are replaced, because some clients end with an error on them.
fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}
