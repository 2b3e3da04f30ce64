//! `INSERT` and `DELETE`.

use comet_proto::EventName;

use super::{
    error::SqlError,
    execute::{Executor, Outcome, user_id},
    reply::Reply,
    select::pipe,
    statement::Condition,
    tables::{Table, TableKind},
};
use crate::{
    broker::Receipt,
    compat::comet_server::{UserId, pipes},
    hub::NewMessage,
};

/// Longest key of a user in bytes.
const MAX_HASH: usize = 32;

/// The longest history that can be set for a pipe, in messages.
const MAX_LENGTH: u16 = 1000;

/// The values of an `INSERT`, by the place of their column.
struct Values<'a> {
    table: &'a Table,
    values: Vec<Option<String>>,
}

impl Values<'_> {
    /// A value that the table requires.
    fn get(&self, column: &'static str) -> Result<&str, SqlError> {
        let value = self.values[self.table.column(column)?].as_deref();
        value.ok_or(SqlError::Required(column))
    }
}

impl Executor<'_> {
    pub(super) fn insert(
        &self,
        table: &Table,
        columns: Option<&[String]>,
        values: Vec<String>,
    ) -> Result<Outcome, SqlError> {
        if table.required.is_empty() {
            return Err(SqlError::ReadOnly(table.name));
        }
        let places = table.places(columns, "insert")?;
        if places.len() != values.len() {
            let (columns, values) = (places.len(), values.len());
            return Err(SqlError::Count { columns, values });
        }
        let mut row = vec![None; table.columns.len()];
        for (place, value) in places.into_iter().zip(values) {
            row[place] = Some(value);
        }
        let values = Values { table, values: row };
        for column in table.required {
            values.get(column)?;
        }
        match table.kind {
            TableKind::PipesMessages => self.publish_to_pipe(&values),
            TableKind::PipesSettings => self.set_length(&values),
            TableKind::RevokedTokens => {
                let token = values.get("token")?;
                Ok(stored(1, 1, self.users().revoke(token)))
            }
            _ => self.insert_for_user(&values),
        }
    }

    fn publish_to_pipe(&self, values: &Values<'_>) -> Result<Outcome, SqlError> {
        let receipt = (self.publish)(NewMessage {
            channels: pipe(values.get("name")?)?.into(),
            name: event(values.get("event")?)?,
            data: values.get("message")?.as_bytes().into(),
            attributes: None,
            key: None,
        })?;
        Ok(stored(0, 0, receipt))
    }

    fn set_length(&self, values: &Values<'_>) -> Result<Outcome, SqlError> {
        let pipe = pipe(values.get("name")?)?;
        let length = values.get("length")?.parse().ok();
        let length = length.filter(|length| *length <= MAX_LENGTH);
        let length = length.ok_or(SqlError::Length)?;
        let id = self.hub.set_length(&pipe, Some(length));
        let id = id.map_err(|error| SqlError::Internal(error.to_string()))?;
        Ok(stored(1, 0, self.broker.changed(id)))
    }

    fn insert_for_user(&self, values: &Values<'_>) -> Result<Outcome, SqlError> {
        let (user, users) = (user_id(values.get("id")?)?, self.users());
        let id = user.to_string().parse().unwrap_or_default();
        Ok(match values.table.kind {
            TableKind::UsersAuth => {
                let hash = values.get("hash")?;
                check_hash(hash)?;
                stored(1, id, users.set_hash(user, hash))
            }
            TableKind::UsersData => stored(1, id, users.set_data(user, values.get("data")?)),
            _ => {
                let event = event(values.get("event")?)?;
                let message = values.get("message")?;
                stored(0, id, users.send(user, event.as_str(), message))
            }
        })
    }

    pub(super) fn delete(
        &self,
        table: &Table,
        conditions: &[Condition],
    ) -> Result<Outcome, SqlError> {
        if table.required.is_empty() {
            return Err(SqlError::ReadOnly(table.name));
        }
        for condition in conditions {
            table.column(&condition.column)?;
        }
        let [Condition { column, values }] = conditions else {
            return Err(match conditions {
                [] => SqlError::NoKey(table.key),
                _ => SqlError::NotImplemented("DELETE with several conditions".into()),
            });
        };
        if table.kind == TableKind::PipesMessages && column == "id" {
            return self.delete_messages(values);
        }
        if column != table.key {
            return Err(SqlError::NoKey(table.key));
        }
        let mut last = None;
        for key in values {
            last = match table.kind {
                TableKind::PipesMessages | TableKind::PipesSettings => {
                    Some(self.delete_pipe(table.kind, key)?)
                }
                TableKind::RevokedTokens => self.users().unrevoke(key).or(last),
                _ => Some(self.delete_of_user(table.kind, user_id(key)?)),
            };
        }
        Ok(Outcome {
            receipt: last,
            ..Reply::OK.into()
        })
    }

    fn delete_messages(&self, ids: &[String]) -> Result<Outcome, SqlError> {
        let mut receipt = None;
        for id in ids {
            if let Some((pipe, id)) = pipes::parse_message_id(id) {
                let removal = self.hub.remove_message(&pipe, id);
                receipt = Some(self.broker.changed(removal.id));
            }
        }
        Ok(Outcome {
            receipt,
            ..Reply::OK.into()
        })
    }

    fn delete_pipe(&self, kind: TableKind, name: &str) -> Result<Receipt, SqlError> {
        let pipe = pipe(name)?;
        let mut id = self.hub.remove_messages(&pipe).id;
        if kind == TableKind::PipesSettings {
            let set = self.hub.set_length(&pipe, None);
            id = set.map_err(|error| SqlError::Internal(error.to_string()))?;
        }
        Ok(self.broker.changed(id))
    }

    fn delete_of_user(&self, kind: TableKind, user: UserId) -> Receipt {
        let users = self.users();
        match kind {
            TableKind::UsersAuth => users.remove_hash(user),
            TableKind::UsersData => users.remove_data(user),
            _ => users.clear_queue(user),
        }
    }
}

/// The reply to a change, which may be written when the change is kept.
fn stored(affected: u64, id: u64, receipt: Receipt) -> Outcome {
    Outcome {
        receipt: Some(receipt),
        ..Reply::Ok { affected, id }.into()
    }
}

fn event(name: &str) -> Result<EventName, SqlError> {
    let what = "Channel event_name";
    pipes::check_event(name).map_err(|error| SqlError::name(what, error))?;
    EventName::parse(name).map_err(|_| SqlError::Characters(what, "A-Za-z0-9_-"))
}

fn check_hash(hash: &str) -> Result<(), SqlError> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"=+/_".contains(&b);
    match hash.len() {
        0 => Err(SqlError::TooShort("Hash string")),
        1..=MAX_HASH if hash.bytes().all(is_allowed) => Ok(()),
        1..=MAX_HASH => Err(SqlError::Characters("Hash string", "0-9A-Za-z=+/_")),
        _ => Err(SqlError::TooLong("Hash string")),
    }
}
