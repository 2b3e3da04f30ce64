//! A log that an earlier version has written is read without a loss, and written anew.

use super::{
    keep::{ids, open_with},
    *,
};
use crate::store::{disk::Disk, fake::FakeDisk};

/// Written by a daemon of format 2: three messages, an orderly stop, a restart, another message, and `kill -9`.
const LOG: &[u8] = include_bytes!("../../../../tests/vectors/log-2.log");

/// The boot of the machine on which the log was written.
const BOOT: u128 = 0xdeb3cf1d_1a9b40a7_adecc4ff_cfece863;

const FIRST_START: u64 = 1_795_825_968_788_791;
const SENT: [u64; 3] = [
    1_795_825_968_912_686,
    1_795_825_968_912_784,
    1_795_825_969_583_727,
];
const TO_CHAT: u64 = 1_795_825_968_912_778;

fn soon_after() -> u64 {
    SENT[2] + 10 * SECOND
}

#[test]
fn a_log_of_the_second_format_is_read_and_written_anew() {
    let disk = FakeDisk::default();
    let file = disk.open("0000000001.log").unwrap();
    assert_eq!(file.write_at(LOG, 0).unwrap(), LOG.len());
    let (news, chat) = (channel("news"), channel("chat.7"));
    for outdated in [true, false] {
        let (hub, found) = open_with(&disk, soon_after, BOOT);
        assert_eq!(found.outdated, outdated);
        assert!(found.damaged.is_empty() && found.torn.is_none());
        assert_eq!(ids(&hub, &news, FIRST_START), (SENT.to_vec(), false));
        assert_eq!(ids(&hub, &chat, FIRST_START), (vec![TO_CHAT], false));
        let messages = hub.since(&[news.clone(), chat.clone()], Cursor(0)).messages;
        assert_eq!(messages[0].name.as_str(), "n\u{e4}me");
        assert_eq!(*messages[1].data, *b"\xff\0");
        assert!(messages.iter().all(|message| message.attributes.is_none()));
        let again = hub.publish(NewMessage {
            key: key_of(Publisher::User(0), "k1"),
            ..message(&news, b"first")
        });
        assert_eq!(again, SENT[0], "keys are remembered");
        for name in disk.names() {
            disk.change(&name, |bytes| {
                assert!(bytes.starts_with(b"CometLg3"), "{name}")
            });
        }
    }
}
