//! Many channels that come and go: what is left is what is still needed.

use super::*;

fn names(count: usize) -> Vec<ChannelName> {
    (0..count).map(|i| channel(&format!("c{i}"))).collect()
}

/// A message to each.
fn publish(hub: &Hub, names: &[ChannelName], key: &str) -> Vec<u64> {
    let publish = |name| {
        hub.publish(NewMessage {
            key: key_of(Publisher::User(1), key),
            ..message(name, b"")
        })
    };
    names.iter().map(publish).collect()
}

#[test]
fn channels_that_are_over_leave_nothing() {
    let (hub, names) = (hub(HistoryConfig::default(), 1), names(10_000));
    let at_first = hub.lock().room();
    for _ in 0..3 {
        publish(&hub, &names, "k");
        assert!(hub.lock().room() > 30_000);
        hub.expire();
        assert!(hub.lock().room() > 30_000, "all is needed");
        NOW.set(NOW.get() + 700 * SECOND);
        hub.expire();
        let status = hub.status();
        assert_eq!((status.channels, status.messages, status.bytes), (0, 0, 0));
        assert!(hub.lock().room() < at_first + 100);
    }
}

#[test]
fn what_outlives_a_storm_is_as_it_was() {
    let hub = hub(HistoryConfig::default(), 1);
    let (names, listened) = (names(10_000), channel("listened"));
    hub.subscribe(0, std::slice::from_ref(&listened), None);
    publish(&hub, &names, "k");
    NOW.set(NOW.get() + 300 * SECOND);
    let late = publish(&hub, &names[..10], "l");
    hub.expire();
    NOW.set(NOW.get() + 400 * SECOND);
    hub.expire();
    assert_eq!(hub.status().channels, 11);
    assert!(hub.lock().room() < 2_000);
    let backlog = hub.since(&names[..10], Cursor(late[0] - 1));
    assert_eq!((ids(&backlog), backlog.gap), (late.clone(), false));
    assert_eq!(publish(&hub, &names[..10], "l"), late, "keys too");
    assert!(hub.since(&names[10..11], Cursor(START)).gap);
    hub.publish(message(&listened, b""));
    assert_eq!(hub.take_dirty(0, &[]).published, [listened]);
    NOW.set(NOW.get() + 700 * SECOND);
    hub.expire();
    assert_eq!(hub.status().channels, 1, "somebody listens to it");
}

#[test]
fn publishers_get_their_turns_while_many_channels_expire() {
    let (hub, names, other) = (
        hub(HistoryConfig::default(), 1),
        names(10_000),
        channel("other"),
    );
    publish(&hub, &names, "k");
    NOW.set(NOW.get() + 700 * SECOND);
    let mut turns = 0;
    while hub.expire_some() {
        hub.publish(message(&other, b""));
        turns += 1;
    }
    assert!(turns > 10);
    assert_eq!((hub.status().channels, hub.status().messages), (1, turns));
}
