//! Which blocks a client gets: those of its ids whose cursors are greater than the client's cursors.

use std::sync::Arc;

use comet_proto::{ChannelName, Message};

use super::{block, decimal::Decimal};
use crate::hub::{Hub, READ_BYTES};

/// Number of blocks of one id that a client can get back, as in the original server.
const WINDOW: usize = 30;

/// The ids of a client, in the order of their names, and for each id the cursor after which the client listens.
#[derive(Clone, Copy)]
pub(crate) struct Selection<'a> {
    pub(crate) ids: &'a [ChannelName],
    pub(crate) after: &'a [Decimal],
}

/// The blocks that a client gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    /// The number of blocks.
    pub(crate) count: usize,
}

impl<'a> Selection<'a> {
    /// The reply with what the client has not seen of the last [`WINDOW`] messages of each id. `None`: nothing.
    ///
    /// The messages are read anew at each poll, and not by the hub's cursor: a publisher can choose a cursor before or after
    /// the messages that are kept.
    pub(crate) fn reply_from(self, hub: &Hub) -> Option<Reply> {
        let windows = self.ids.iter().flat_map(|id| hub.newest(id, WINDOW));
        let mut messages: Vec<Arc<Message>> = windows.collect();
        if self.ids.len() > 1 {
            messages.sort_by_key(|message| message.id);
            messages.dedup_by_key(|message| message.id);
        }
        self.reply(&messages)
    }

    /// The reply with the messages that the client should get, in the order of their cursors. `None`: there are none.
    pub(crate) fn reply(self, messages: &[Arc<Message>]) -> Option<Reply> {
        let messages = messages.iter().map(|message| &**message);
        let blocks = messages.filter_map(|message| {
            let ids = self.visible(message);
            let cursors = ids.iter().map(|id| block::cursor(message, id));
            Some((cursors.min()?, message, ids))
        });
        let mut blocks: Vec<_> = blocks.collect();
        if blocks.is_empty() {
            return None;
        }
        blocks.sort_by(|(a, one, _), (b, other, _)| a.cmp(b).then(one.id.cmp(&other.id)));
        let mut size = 0;
        // The client asks for the others with the cursors of these.
        let fitting = blocks.iter().take_while(|(_, message, _)| {
            let fits = size == 0 || size + message.data.len() <= READ_BYTES;
            size += message.data.len().max(1);
            fits
        });
        blocks.truncate(fitting.count());
        let (mut bytes, count) = (Vec::new(), blocks.len());
        let blocks = blocks.into_iter();
        block::write_all(blocks.map(|(_, message, ids)| (message, ids)), &mut bytes);
        Some(Reply { bytes, count })
    }

    /// The ids under which the client gets the message.
    fn visible(self, message: &'a Message) -> Vec<&'a ChannelName> {
        if !block::is_for(message, self.ids) {
            return Vec::new();
        }
        let is_new = |id: &&ChannelName| {
            let place = self.ids.binary_search(id);
            place.is_ok_and(|place| block::cursor(message, id) > self.after[place])
        };
        message.channels.iter().filter(is_new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compat::realplexor::{
            block::tests::{message, name},
            identifier,
        },
        hub::{HistoryConfig, NewMessage},
    };

    /// The data of the reply for a client with this `identifier=`, and the ids and cursors of each block.
    fn reply(identifier: &str, messages: &[Message]) -> Vec<(String, String)> {
        let messages: Vec<_> = messages
            .iter()
            .map(|message| Arc::new(message.clone()))
            .collect();
        with(identifier, |selection| selection.reply(&messages))
    }

    fn with(identifier: &str, f: impl Fn(Selection<'_>) -> Option<Reply>) -> Vec<(String, String)> {
        let mut items: Vec<_> = identifier::items(identifier.as_bytes()).collect();
        items.sort_by_key(|item| item.id);
        let ids: Vec<_> = items.iter().map(|item| name(item.id)).collect();
        let cursor = |item: &identifier::Item<'_>| Decimal::parse(item.cursor.unwrap()).unwrap();
        let after: Vec<_> = items.iter().map(cursor).collect();
        let (ids, after) = (&ids[..], &after[..]);
        let Some(reply) = f(Selection { ids, after }) else {
            return Vec::new();
        };
        let blocks: Vec<serde_json::Value> = serde_json::from_slice(&reply.bytes).unwrap();
        assert_eq!(blocks.len(), reply.count);
        let pair =
            |block: &serde_json::Value| (block["ids"].to_string(), block["data"].to_string());
        blocks.iter().map(pair).collect()
    }

    fn data(blocks: &[(String, String)]) -> Vec<&str> {
        blocks.iter().map(|(_, data)| &**data).collect()
    }

    #[test]
    fn a_client_gets_what_is_after_its_cursor_of_each_id() {
        let sent = [
            message(1_000_000, "a", "1"),
            message(2_000_000, "a,b", "2"),
            message(3_000_000, "b,c", "3"),
        ];
        let got = reply("1:a,2:b", &sent);
        let expected = [(r#"{"a":"2.000000"}"#, "2"), (r#"{"b":"3.000000"}"#, "3")];
        assert_eq!(
            got,
            expected.map(|(ids, data)| (ids.to_owned(), data.to_owned()))
        );
        assert_eq!(
            reply("0:a,0:b", &sent)[1].0,
            r#"{"a":"2.000000","b":"2.000000"}"#
        );
        assert_eq!(reply("2:a,3.000000:b", &sent), []);
    }

    #[test]
    fn the_publishers_cursors_give_the_order() {
        let sent = [
            message(100_000_000, "7:a", "7"),
            message(200_000_000, "7.5:a", "75"),
            message(300_000_000, "5:a", "5"),
            message(400_000_000, "999999:a", "9"),
            message(500_000_000, "a", "500"),
        ];
        assert_eq!(data(&reply("0:a", &sent)), ["5", "7", "75", "500", "9"]);
        assert_eq!(data(&reply("7.50:a", &sent)), ["500", "9"]);
        assert_eq!(data(&reply("999999:a", &sent)), [""; 0]);
    }

    #[test]
    fn limits_need_another_id_of_the_client() {
        let sent = [message(100, "a,*u1", "1"), message(200, "a", "2")];
        assert_eq!(data(&reply("0:a,0:u1", &sent)), ["1", "2"]);
        assert_eq!(data(&reply("0:a,0:u2", &sent)), ["2"]);
    }

    #[test]
    fn a_large_reply_comes_in_parts() {
        let long = |id| message(id, "a", &format!("\"{}\"", "x".repeat(READ_BYTES / 2 - 2)));
        let sent = [long(1_000_000), long(2_000_000), long(3_000_000)];
        assert_eq!(reply("0:a", &sent).len(), 2);
        assert_eq!(reply("2:a", &sent).len(), 1);
        let huge = [message(
            1_000_000,
            "a",
            &format!("\"{}\"", "x".repeat(READ_BYTES)),
        )];
        assert_eq!(reply("0:a", &huge).len(), 1);
    }

    #[test]
    fn the_last_30_messages_of_each_id_are_the_window() {
        let hub = Hub::new(HistoryConfig::default(), 1);
        for number in 0..33 {
            let Message {
                channels,
                name,
                data,
                ..
            } = message(1, "a,b", &number.to_string());
            hub.publish(NewMessage {
                channels,
                name,
                data,
                attributes: None,
                key: None,
            });
        }
        let expected: Vec<String> = (3..33).map(|number| number.to_string()).collect();
        for identifier in ["0:a", "0:a,0:b", "0:b,0:other"] {
            let got = with(identifier, |selection| selection.reply_from(&hub));
            assert_eq!(data(&got), expected, "{identifier}");
        }
    }
}
