//! Ids and idempotency keys.

use proptest::prelude::*;

use super::*;

fn publish_with_key(hub: &Hub, name: &ChannelName, key: &str) -> u64 {
    hub.publish(NewMessage {
        key: key_of(Publisher::User(1), key),
        ..message(name, b"")
    })
}

#[test]
fn an_id_is_the_time_of_its_publish() {
    let hub = hub(HistoryConfig::default(), 1);
    NOW.set(START + 5);
    assert_eq!(hub.publish(message(&channel("a"), b"")), START + 5);
    assert_eq!(hub.last(), Cursor(START + 5));
}

#[test]
fn the_first_id_is_after_the_start_in_the_same_microsecond() {
    let hub = hub(HistoryConfig::default(), 1);
    assert_eq!(hub.publish(message(&channel("a"), b"")), START + 1);
}

#[test]
fn no_id_is_0_where_the_clock_stands_before_1970() {
    // 0 would ask for all that is kept, and could never be told of a gap.
    let hub = Hub::with_clock(HistoryConfig::default(), 1, || 0);
    assert_ne!(hub.last(), Cursor(0));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ids_increase_over_all_channels_whatever_the_clock_does(
        steps in prop::collection::vec((-5_000_000_i64..5_000_000, 0..3_usize), 1..200)
    ) {
        let hub = hub(HistoryConfig::default(), 1);
        let names = ["a", "b", "c"].map(channel);
        let mut last = hub.last().0;
        for (step, name) in steps {
            NOW.set(NOW.get().checked_add_signed(step).unwrap());
            let id = hub.publish(message(&names[name], b""));
            prop_assert_eq!(id, NOW.get().max(last + 1));
            prop_assert_eq!(hub.last(), Cursor(id));
            last = id;
        }
    }
}

#[test]
fn a_key_gives_its_first_id_back_and_publishes_once() {
    let hub = hub(HistoryConfig::default(), 1);
    let (a, b) = (channel("a"), channel("b"));
    let first = publish_with_key(&hub, &a, "k");
    NOW.set(START + 599 * SECOND);
    hub.expire();
    assert_eq!(publish_with_key(&hub, &a, "k"), first);
    assert_eq!(hub.last(), Cursor(first), "a repetition takes no id");
    assert_eq!(
        ids(&hub.since(std::slice::from_ref(&a), Cursor(START))),
        [first]
    );

    assert_ne!(publish_with_key(&hub, &a, "l"), first);
    assert_ne!(
        publish_with_key(&hub, &b, "k"),
        first,
        "a key belongs to its channel"
    );
    assert_eq!(hub.status().published, 3);
}

#[test]
fn a_channel_and_a_key_do_not_run_together() {
    let hub = hub(HistoryConfig::default(), 1);
    let mut ids = [("a", "bc"), ("ab", "c"), ("a", "b\0c"), ("a", "")]
        .map(|(name, key)| publish_with_key(&hub, &channel(name), key));
    ids.sort_unstable();
    assert!(ids.is_sorted_by(|a, b| a < b), "four messages");
}

#[test]
fn a_key_belongs_to_its_publisher() {
    let hub = hub(HistoryConfig::default(), 1);
    let a = channel("a");
    let publish = |publisher| {
        hub.publish(NewMessage {
            key: key_of(publisher, "k"),
            ..message(&a, b"")
        })
    };
    use Publisher::{Files, Http, User};
    let all = [User(1), User(2), Http(0), Http(1), Files];
    let first = all.map(publish);
    assert!(first.is_sorted_by(|a, b| a < b), "five messages");
    assert_eq!(all.map(publish), first);
}

#[test]
fn a_repeated_key_wakes_nobody() {
    let hub = hub(HistoryConfig::default(), 1);
    let a = channel("a");
    hub.subscribe(0, std::slice::from_ref(&a), None);
    publish_with_key(&hub, &a, "k");
    assert_eq!(hub.take_dirty(0, &[]).published, std::slice::from_ref(&a));
    publish_with_key(&hub, &a, "k");
    assert!(hub.take_dirty(0, &[]).published.is_empty());
}

#[test]
fn a_key_is_forgotten_after_ten_minutes() {
    let hub = hub(HistoryConfig::default(), 1);
    let a = channel("a");
    let first = publish_with_key(&hub, &a, "k");
    NOW.set(first + 600 * SECOND);
    hub.expire();
    let second = publish_with_key(&hub, &a, "k");
    assert_ne!(second, first);
    assert_eq!(publish_with_key(&hub, &a, "k"), second);
}

#[test]
fn keys_are_bounded_and_the_oldest_goes_first() {
    let hub = hub(HistoryConfig::default(), 1);
    let a = channel("a");
    let first = publish_with_key(&hub, &a, "0");
    let second = publish_with_key(&hub, &a, "1");
    for key in 2..=65_536 {
        publish_with_key(&hub, &a, &key.to_string());
    }
    assert_eq!(publish_with_key(&hub, &a, "1"), second);
    assert_ne!(publish_with_key(&hub, &a, "0"), first);
}
