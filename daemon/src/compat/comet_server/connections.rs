//! The browsers that are connected now, of the whole process: who they are, and which pipes they read.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use comet_proto::ChannelName;
use slab::Slab;

use super::UserId;

/// The connections of the whole process, because a user's connections are on different threads.
pub(crate) static CONNECTIONS: LazyLock<Connections> = LazyLock::new(Connections::default);

/// A browser, as `users_in_pipes` shows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visitor {
    /// `None`: the browser is anonymous.
    pub(crate) user: Option<UserId>,
    pub(crate) uuid: String,
    pub(crate) user_agent: String,
    pub(crate) ip: String,
    pub(crate) origin: String,
    pub(crate) language: String,
}

/// The place of one connection. Must be given back with [`Users::leave`](super::Users::leave).
#[derive(Debug)]
pub(crate) struct Seat(usize);

/// All connections.
#[derive(Default)]
pub(crate) struct Connections(Mutex<Table>);

#[derive(Default)]
struct Table {
    connections: Slab<Connection>,
    /// The number of connections of each user.
    users: HashMap<UserId, usize>,
}

struct Connection {
    visitor: Visitor,
    pipes: Vec<ChannelName>,
}

impl Connections {
    /// Adds a connection. Calls `then` with whether this is the first connection of its user. No other connection enters or
    /// leaves meanwhile, so that the messages about a user's first and last connection are in order.
    pub(super) fn enter<T>(&self, visitor: Visitor, then: impl FnOnce(bool) -> T) -> (Seat, T) {
        let mut table = self.lock();
        let mut is_first = false;
        if let Some(user) = visitor.user {
            let count = table.users.entry(user).or_default();
            *count += 1;
            is_first = *count == 1;
        }
        let pipes = Vec::new();
        let seat = table.connections.insert(Connection { visitor, pipes });
        (Seat(seat), then(is_first))
    }

    /// Removes a connection. Calls `last` if this was the last connection of its user.
    pub(super) fn leave(&self, Seat(seat): Seat, last: impl FnOnce(UserId)) {
        let mut table = self.lock();
        let Some(user) = table.connections.remove(seat).visitor.user else {
            return;
        };
        let count = table.users.entry(user).or_insert(1);
        *count -= 1;
        if *count == 0 {
            table.users.remove(&user);
            last(user);
        }
    }

    /// Sets the pipes that a connection reads.
    pub(crate) fn set_pipes(&self, seat: &Seat, pipes: Vec<ChannelName>) {
        if let Some(connection) = self.lock().connections.get_mut(seat.0) {
            connection.pipes = pipes;
        }
    }

    /// The connections that read a pipe, at most `most`.
    pub(crate) fn in_pipe(&self, pipe: &ChannelName, most: usize) -> Vec<Visitor> {
        let table = self.lock();
        let reads = |(_, connection): &(usize, &Connection)| connection.pipes.contains(pipe);
        let readers = table.connections.iter().filter(reads).take(most);
        readers
            .map(|(_, connection)| connection.visitor.clone())
            .collect()
    }

    /// Whether a user has a connection.
    pub(crate) fn has(&self, user: UserId) -> bool {
        self.lock().users.contains_key(&user)
    }

    /// The numbers of users and of connections.
    pub(crate) fn count(&self) -> (usize, usize) {
        let table = self.lock();
        (table.users.len(), table.connections.len())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
