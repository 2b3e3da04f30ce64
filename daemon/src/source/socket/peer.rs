//! The peer of a connection, as the system reports it (`SO_PEERCRED`): the user of the process that connected, even if
//! another process writes later.

use interprocess::{local_socket::tokio::prelude::*, os::unix::uds_local_socket::tokio::Stream};
use nix::unistd::{Uid, User};

use crate::users::{AllowList, NO_USER};

pub(super) struct Peer {
    uid: u32,
    gid: Option<u32>,
}

impl Peer {
    /// A peer that the system does not name is only in the list `any`.
    pub(super) fn of(stream: &Stream) -> Self {
        let peer = stream.peer_creds().ok();
        let ids = peer.and_then(|peer| Some((peer.euid()?, Some(peer.egid()?))));
        let (uid, gid) = ids.unwrap_or((NO_USER, None));
        Self { uid, gid }
    }

    pub(super) fn is_in(&self, allow: &AllowList) -> bool {
        allow.permits(self.uid, self.gid)
    }

    pub(super) fn uid(&self) -> u32 {
        self.uid
    }
}

/// The user's name, or the number where there is none.
pub(in crate::source) fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}
