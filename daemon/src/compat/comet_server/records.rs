//! What is kept about users until it is changed: keys, data, and the tokens that are no longer valid.

use std::sync::Arc;

use comet_proto::{ChannelName, Message};
use ring::{
    digest,
    rand::{self, SystemRandom},
};

use super::{UserId, Users, internal, token};
use crate::broker::Receipt;

impl Users<'_> {
    /// The key of a user (`users_auth.hash`).
    pub(crate) fn hash(&self, user: UserId) -> Option<String> {
        self.record(&internal("hash", Some(user)))
    }

    pub(crate) fn set_hash(&self, user: UserId, hash: &str) -> Receipt {
        self.publish(internal("hash", Some(user)), "", hash, None)
    }

    /// Removes the key of a user, and ends the user's connections.
    pub(crate) fn remove_hash(&self, user: UserId) -> Receipt {
        self.disconnect(user);
        self.clear(&internal("hash", Some(user)))
    }

    /// The data about a user (`users_data.data`).
    pub(crate) fn data(&self, user: UserId) -> Option<String> {
        self.record(&internal("data", Some(user)))
    }

    pub(crate) fn set_data(&self, user: UserId, data: &str) -> Receipt {
        self.publish(internal("data", Some(user)), "", data, None)
    }

    pub(crate) fn remove_data(&self, user: UserId) -> Receipt {
        self.clear(&internal("data", Some(user)))
    }

    /// Checks the key that a browser shows for a user: the user's stored key, or a token that was signed with `secret`, the
    /// key of the site, for the site `site`. Returns the stored key, which a user with a token gets now if there is none.
    /// `None`: the browser is anonymous.
    pub(crate) fn authorize(
        &self,
        user: UserId,
        key: &str,
        site: &str,
        secret: &str,
        now: u64,
    ) -> Option<String> {
        let stored = self.hash(user);
        if let Some(stored) = stored.as_ref().filter(|stored| is_same(stored, key)) {
            return Some(stored.clone());
        }
        let by_token = token::user(key, site, secret, now) == Some(user) && !self.is_revoked(key);
        by_token.then(|| stored.unwrap_or_else(|| self.new_hash(user)))
    }

    fn new_hash(&self, user: UserId) -> String {
        let random: [u8; 16] = rand::generate(&SystemRandom::new())
            .expect("the system has random numbers")
            .expose();
        let hash: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        self.set_hash(user, &hash);
        hash
    }

    /// The tokens that were revoked, oldest first.
    pub(crate) fn revoked(&self) -> Vec<String> {
        let messages = self.all(&internal("revoked", None));
        messages.iter().map(|message| text(message)).collect()
    }

    pub(crate) fn is_revoked(&self, token: &str) -> bool {
        self.revocation(token).is_some()
    }

    /// Makes a token invalid, and ends the connections of its user.
    pub(crate) fn revoke(&self, token: &str) -> Receipt {
        if let Some(known) = self.revocation(token) {
            return self.broker.changed(known.id);
        }
        if let Some(user) = token::claimed_user(token) {
            self.disconnect(user);
        }
        self.publish(internal("revoked", None), "", token, None)
    }

    /// Makes a revoked token valid again. `None`: the token was not revoked.
    pub(crate) fn unrevoke(&self, token: &str) -> Option<Receipt> {
        let revocation = self.revocation(token)?;
        let removal = self
            .hub
            .remove_message(&internal("revoked", None), revocation.id);
        Some(self.broker.changed(removal.id))
    }

    /// The message that has revoked a token.
    fn revocation(&self, token: &str) -> Option<Arc<Message>> {
        let mut messages = self.all(&internal("revoked", None)).into_iter();
        messages.find(|message| *message.data == *token.as_bytes())
    }

    fn record(&self, channel: &ChannelName) -> Option<String> {
        let newest = self.hub.newest(channel, 1).pop()?;
        Some(text(&newest))
    }

    /// Removes all messages of a channel.
    pub(super) fn clear(&self, channel: &ChannelName) -> Receipt {
        let removal = self.hub.remove_messages(channel);
        self.broker.changed(removal.id)
    }

    /// All messages that the channel keeps.
    pub(super) fn all(&self, channel: &ChannelName) -> Vec<Arc<Message>> {
        self.hub.newest(channel, usize::MAX)
    }
}

pub(super) fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.data).into_owned()
}

/// Compares two keys. The time that this takes does not tell how much of the given key is right.
fn is_same(stored: &str, given: &str) -> bool {
    let hash = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    hash(stored).as_ref() == hash(given).as_ref()
}
