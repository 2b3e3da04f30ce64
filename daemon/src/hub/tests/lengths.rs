//! The length of a channel's history that is set while the daemon runs.

use super::{
    keep::{open, published},
    *,
};
use crate::store::fake::FakeDisk;

fn read(hub: &Hub, name: &ChannelName) -> Vec<u64> {
    ids(&hub.since(std::slice::from_ref(name), Cursor(0)))
}

fn publish_slowly(hub: &Hub, name: &ChannelName, count: usize) -> Vec<u64> {
    let publish = |_| {
        NOW.set(NOW.get() + 2 * SECOND);
        hub.publish(message(name, b""))
    };
    (0..count).map(publish).collect()
}

#[test]
fn a_length_replaces_the_number_in_the_settings_until_it_is_taken_back() {
    let hub = hub(HistoryConfig::default(), 1);
    let (a, b) = (channel("a"), channel("b"));
    let (in_a, in_b) = (publish_slowly(&hub, &a, 5), publish_slowly(&hub, &b, 5));
    hub.set_length(&a, Some(2)).unwrap();
    assert_eq!((hub.length(&a), hub.length(&b)), (2, 100));
    assert_eq!(hub.lengths(), [(a.clone(), 2)]);
    assert_eq!((read(&hub, &a), read(&hub, &b)), (in_a[3..].to_vec(), in_b));
    hub.set_length(&a, Some(0)).unwrap();
    NOW.set(NOW.get() + 2 * SECOND);
    assert!(read(&hub, &a).is_empty());
    // New settings do not change it.
    let few = Limits {
        messages: 3,
        ..Limits::default()
    };
    hub.limit(HistoryConfig {
        prefixes: vec![("a".into(), few)],
        ..HistoryConfig::default()
    });
    assert_eq!(hub.length(&a), 0);
    hub.set_length(&a, None).unwrap();
    assert_eq!((hub.length(&a), hub.lengths()), (3, vec![]));
    let in_a = publish_slowly(&hub, &a, 5);
    assert_eq!(read(&hub, &a), in_a[2..]);
}

#[test]
fn a_length_can_be_set_before_the_channel_exists_and_is_bounded() {
    let hub = hub(HistoryConfig::default(), 1);
    let a = channel("a");
    let error = hub.set_length(&a, Some(MAX_LENGTH + 1)).unwrap_err();
    assert_eq!(error, LengthError::TooLong(MAX_LENGTH + 1));
    hub.set_length(&a, Some(1)).unwrap();
    for number in 1..10_000 {
        hub.set_length(&channel(&format!("c{number}")), Some(1))
            .unwrap();
    }
    let other = channel("other");
    assert_eq!(hub.set_length(&other, Some(1)), Err(LengthError::TooMany));
    hub.set_length(&a, Some(2)).unwrap();
    let sent = publish_slowly(&hub, &a, 4);
    assert_eq!(read(&hub, &a), sent[2..]);
    hub.set_length(&a, None).unwrap();
    hub.set_length(&other, Some(1)).unwrap();
}

#[test]
fn a_length_survives_a_restart_and_a_rewrite() {
    let disk = FakeDisk::default();
    let (a, b) = (channel("a"), channel("b"));
    let hub = open(&disk);
    for length in [Some(7), None, Some(3)] {
        hub.set_length(&a, length).unwrap();
    }
    hub.set_length(&b, Some(1)).unwrap();
    let id = hub.set_length(&b, None).unwrap();
    hub.try_kept(id).unwrap().unwrap();
    drop(hub);
    for rewrite in [false, true, false] {
        let hub = open(&disk);
        assert_eq!(hub.lengths(), [(a.clone(), 3)]);
        if rewrite {
            hub.rewrite_log().unwrap();
            published(&hub, &a, b"");
        }
        assert!(hub.last().0 > id);
    }
}
