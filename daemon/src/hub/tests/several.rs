//! One message in several channels: whoever reads two of them gets it once, and each channel keeps it for itself.

use super::{
    keep::{ids, open},
    *,
};
use crate::store::fake::FakeDisk;

fn names<const N: usize>(names: [&str; N]) -> ChannelNames {
    ChannelNames::parse(names).unwrap()
}

#[test]
fn a_reader_of_two_gets_it_once_and_a_reader_of_one_learns_nothing_of_the_other() {
    let hub = hub(HistoryConfig::default(), 1);
    let both = names(["a", "b"]);
    let id = hub.publish(message_to(names(["b", "hidden", "a"]), b"x"));
    let backlog = hub.since(&both, Cursor(id - 1));
    assert_eq!((ids_of(&backlog), backlog.gap), (vec![id], false));
    assert_eq!(told(&backlog), ["b", "a"]);
    for (name, expected) in [("a", ["a"]), ("b", ["b"])] {
        let backlog = hub.since(&names([name]), Cursor(id - 1));
        assert_eq!(told(&backlog), expected);
    }
}

fn ids_of(backlog: &Backlog) -> Vec<u64> {
    super::ids(backlog)
}

/// The channels that the reader is told of with the first message.
fn told(backlog: &Backlog) -> Vec<&str> {
    let visible = backlog.messages[0].visible(&backlog.readable);
    visible.map(|name| &**name).collect()
}

#[test]
fn a_publish_wakes_and_marks_for_each_channel() {
    let hub = hub(HistoryConfig::default(), 2);
    hub.subscribe(0, &names(["a", "b"]), None);
    hub.subscribe(1, &names(["b", "c"]), None);
    let (_, woken) = hub.publish_and_wake(message_to(names(["a", "b"]), b""));
    assert_eq!(woken.iter().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(
        hub.take_dirty(0, &[]).published,
        [channel("a"), channel("b")]
    );
    assert_eq!(hub.take_dirty(1, &[]).published, [channel("b")]);
}

#[test]
fn a_key_holds_on_each_of_its_channels() {
    let hub = hub(HistoryConfig::default(), 1);
    let publish = |channels| {
        hub.publish(NewMessage {
            key: key_of(Publisher::User(1), "k"),
            ..message_to(channels, b"")
        })
    };
    let first = publish(names(["a", "b"]));
    assert_eq!(publish(names(["b", "a"])), first);
    assert_eq!(publish(names(["b"])), first);
    assert_eq!(publish(names(["b", "c"])), first);
    assert_ne!(
        publish(names(["c"])),
        first,
        "the repetition was not published"
    );
}

/// `few` keeps one message: there the shared one is gone, and its other channel keeps it.
#[test]
fn each_channel_drops_it_by_its_own_limits() {
    let few = Limits {
        messages: 1,
        ..Limits::default()
    };
    let hub = hub(
        HistoryConfig {
            prefixes: vec![("few".into(), few)],
            ..HistoryConfig::default()
        },
        1,
    );
    let shared = hub.publish(message_to(names(["few", "a"]), b"x"));
    NOW.set(START + 5 * SECOND);
    hub.publish(message(&channel("few"), b""));
    NOW.set(START + 10 * SECOND);
    assert!(hub.since(&names(["few"]), Cursor(shared - 1)).gap);
    assert_eq!(ids(&hub, &channel("a"), shared - 1), (vec![shared], false));
}

/// In the log that is written anew, the messages of each channel are in their order, and nothing comes back.
#[test]
fn a_log_written_anew_has_it_in_each_channel_at_its_place() {
    let disk = FakeDisk::default();
    let hub = open(&disk);
    let start = hub.last().0;
    let publish = |channels: ChannelNames, data: &[u8]| {
        let id = hub.publish(NewMessage {
            attributes: Attributes::parse(&[("topic", "a/b")]).unwrap(),
            ..message_to(channels, data)
        });
        hub.try_kept(id).unwrap().unwrap();
        id
    };
    let sent = [
        publish(names(["a"]), b"1"),
        publish(names(["b"]), b"2"),
        publish(names(["b", "a"]), b"3"),
        publish(names(["a"]), b"4"),
        publish(names(["c", "b"]), b"5"),
        publish(names(["b"]), b"6"),
    ];
    hub.rewrite_log().unwrap();
    drop(hub);
    for _ in 0..2 {
        let hub = open(&disk);
        let of = |name| ids(&hub, &channel(name), start);
        assert_eq!(of("a"), (vec![sent[0], sent[2], sent[3]], false));
        assert_eq!(of("b"), (vec![sent[1], sent[2], sent[4], sent[5]], false));
        assert_eq!(of("c"), (vec![sent[4]], false));
        let backlog = hub.since(&names(["a", "b", "c"]), Cursor(start));
        assert_eq!(ids_of(&backlog), sent);
        let third = &backlog.messages[2];
        assert_eq!((&*third.data, third.channels.len()), (&b"3"[..], 2));
        assert_eq!(
            third.attributes.as_ref().unwrap().iter().next(),
            Some(("topic", "a/b"))
        );
    }
}
