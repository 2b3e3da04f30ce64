//! What is kept and what goes, by each limit, and what reads return at most.

use super::*;

fn limited(limits: Limits) -> HistoryConfig {
    HistoryConfig {
        default: limits,
        ..HistoryConfig::default()
    }
}

/// Publishes `count` messages of `size` bytes to `name`, a second apart.
fn publish_slowly(hub: &Hub, name: &ChannelName, count: usize, size: usize) -> Vec<u64> {
    let publish = |_| {
        NOW.set(NOW.get() + SECOND);
        hub.publish(message(name, &vec![b'x'; size]))
    };
    (0..count).map(publish).collect()
}

fn read(hub: &Hub, name: &ChannelName, cursor: u64) -> Backlog {
    hub.since(std::slice::from_ref(name), Cursor(cursor))
}

#[test]
fn a_channel_keeps_its_newest_messages_but_never_drops_a_burst() {
    let limits = Limits {
        messages: 3,
        ..roomy()
    };
    let (hub, a) = (hub(limited(limits), 1), channel("a"));
    let slow = publish_slowly(&hub, &a, 5, 0);
    assert_eq!(ids(&read(&hub, &a, 0)), slow[2..]);
    assert!(!read(&hub, &a, slow[1]).gap);
    assert!(read(&hub, &a, slow[0]).gap);

    NOW.set(NOW.get() + SECOND);
    let burst: Vec<u64> = (0..10).map(|_| hub.publish(message(&a, b""))).collect();
    assert_eq!(
        ids(&read(&hub, &a, 0)),
        burst,
        "all of one second, and nothing older"
    );
    NOW.set(NOW.get() + 2 * SECOND);
    assert_eq!(ids(&read(&hub, &a, 0)), burst[7..]);
}

#[test]
fn a_channel_keeps_so_many_bytes_and_always_its_newest_message() {
    let limits = Limits {
        bytes: 10_000,
        ..roomy()
    };
    let (hub, a) = (hub(limited(limits), 1), channel("a"));
    let sent = publish_slowly(&hub, &a, 5, 4_000);
    assert_eq!(ids(&read(&hub, &a, 0)), sent[3..]);
    let large = publish_slowly(&hub, &a, 1, 20_000);
    assert_eq!(ids(&read(&hub, &a, 0)), large);
    assert!(read(&hub, &a, sent[3]).gap);
    assert!(!read(&hub, &a, sent[4]).gap);
}

#[test]
fn messages_age_without_anyone_reading() {
    let age = Duration::from_secs(10);
    let (hub, a) = (hub(limited(Limits { age, ..roomy() }), 1), channel("a"));
    let sent = publish_slowly(&hub, &a, 2, 100);
    NOW.set(sent[0] + 10 * SECOND);
    hub.expire();
    assert_eq!(hub.status().messages, 1);
    assert_eq!(ids(&read(&hub, &a, 0)), sent[1..]);
    NOW.set(sent[1] + 10 * SECOND);
    hub.expire();
    let status = hub.status();
    assert_eq!(
        (status.channels, status.messages, status.bytes),
        (0, 0, 0),
        "a forgotten channel costs nothing"
    );
    assert!(read(&hub, &a, sent[0]).gap);
    assert!(!read(&hub, &a, sent[1]).gap);
}

#[test]
fn a_clock_that_steps_back_ages_nothing_and_one_that_steps_ahead_says_so() {
    let age = Duration::from_secs(10);
    let (hub, a) = (hub(limited(Limits { age, ..roomy() }), 1), channel("a"));
    let first = publish_slowly(&hub, &a, 1, 0)[0];
    NOW.set(START - 3_600 * SECOND);
    hub.expire();
    let second = hub.publish(message(&a, b""));
    assert_eq!(second, first + 1);
    assert_eq!(ids(&read(&hub, &a, START)), [first, second]);
    NOW.set(START + 3_600 * SECOND);
    assert!(read(&hub, &a, START).gap);
    assert!(!read(&hub, &a, second).gap);
}

#[test]
fn a_channel_that_was_forgotten_and_comes_back_still_tells_of_the_gap() {
    let age = Duration::from_secs(10);
    let (hub, a) = (hub(limited(Limits { age, ..roomy() }), 1), channel("a"));
    let lost = publish_slowly(&hub, &a, 1, 0)[0];
    NOW.set(lost + 20 * SECOND);
    hub.expire();
    assert_eq!(hub.status().channels, 0);
    let kept = hub.publish(message(&a, b""));
    let backlog = read(&hub, &a, lost - 1);
    assert!(backlog.gap);
    assert_eq!(ids(&backlog), [kept]);
    assert!(!read(&hub, &a, lost).gap);
}

#[test]
fn a_channel_that_only_its_listener_held_is_forgotten_with_it() {
    let (hub, a) = (hub(HistoryConfig::default(), 2), channel("a"));
    for worker in [0, 1] {
        hub.subscribe(worker, std::slice::from_ref(&a), None);
    }
    hub.unsubscribe(0, &a);
    assert_eq!(hub.status().channels, 1);
    hub.unsubscribe(1, &a);
    assert_eq!(hub.status().channels, 0);
    hub.unsubscribe(1, &a);
}

#[test]
fn the_longest_prefix_says_what_is_kept() {
    let keep = |messages| Limits {
        messages,
        ..roomy()
    };
    let config = HistoryConfig {
        default: keep(4),
        prefixes: vec![
            ("a".into(), keep(1)),
            ("a.b.".into(), keep(3)),
            ("a.".into(), keep(2)),
        ],
        total_bytes: usize::MAX,
    };
    let hub = hub(config, 1);
    for (name, kept) in [("x", 4), ("a", 1), ("ab", 1), ("a.b", 2), ("a.b.c", 3)] {
        let name = channel(name);
        let sent = publish_slowly(&hub, &name, 6, 0);
        assert_eq!(ids(&read(&hub, &name, 0)), sent[6 - kept..], "{name}");
    }
}

#[test]
fn when_all_is_full_what_would_expire_first_goes_first() {
    let brief = Limits {
        age: Duration::from_secs(60),
        ..roomy()
    };
    let config = HistoryConfig {
        default: roomy(),
        prefixes: vec![("brief".into(), brief)],
        total_bytes: 10_000,
    };
    let (hub, a, b) = (hub(config, 1), channel("a"), channel("brief"));
    let first = publish_slowly(&hub, &a, 1, 4_000)[0];
    let second = publish_slowly(&hub, &b, 1, 4_000)[0];
    let third = publish_slowly(&hub, &a, 1, 4_000)[0];
    assert_eq!(ids(&read(&hub, &a, 0)), [first, third]);
    assert!(read(&hub, &b, 0).messages.is_empty());
    assert!(read(&hub, &b, first).gap);
    assert!(!read(&hub, &a, START).gap, "nothing of its own is gone");
    let fourth = publish_slowly(&hub, &a, 1, 4_000)[0];
    assert_eq!(ids(&read(&hub, &a, 0)), [third, fourth]);
    assert!(read(&hub, &b, second - 1).gap);
}

#[test]
fn what_is_kept_for_ever_goes_oldest_first_when_all_is_full() {
    let forever = Limits {
        age: Duration::MAX,
        ..roomy()
    };
    let config = HistoryConfig {
        total_bytes: 10_000,
        ..limited(forever)
    };
    let (hub, a, b) = (hub(config, 1), channel("a"), channel("b"));
    let old = publish_slowly(&hub, &b, 1, 4_000);
    let new = publish_slowly(&hub, &a, 2, 4_000);
    assert_eq!(ids(&read(&hub, &a, 0)), new);
    assert!(read(&hub, &b, old[0] - 1).gap);
}

#[test]
fn cursors_that_the_hub_never_gave_are_told_of_a_gap() {
    let (hub, a) = (hub(HistoryConfig::default(), 1), channel("a"));
    let id = publish_slowly(&hub, &a, 1, 0)[0];
    for (cursor, gap, got) in [
        (0, false, vec![id]),
        (1, true, vec![id]),
        (START - 1, true, vec![id]),
        (START, false, vec![id]),
        (id, false, vec![]),
        (id + 1, true, vec![]),
        (u64::MAX, true, vec![]),
    ] {
        for name in [&a, &channel("quiet")] {
            let got = if *name == a { &got[..] } else { &[] };
            let backlog = read(&hub, name, cursor);
            assert_eq!(
                (backlog.gap, &ids(&backlog)[..], backlog.cursor),
                (gap, got, Cursor(id)),
                "{cursor}"
            );
        }
    }
    assert!(!hub.subscribe(0, &[a], None).gap);
}

/// Reads on for as long as it is told to, and returns how many reads had something.
fn reads(hub: &Hub, names: &[ChannelName], sent: &[u64]) -> usize {
    let (mut cursor, mut got, mut reads) = (Cursor(START), Vec::new(), 0);
    loop {
        let backlog = hub.since(names, cursor);
        assert!(!backlog.gap);
        cursor = backlog.cursor;
        got.extend(ids(&backlog));
        reads += usize::from(!backlog.messages.is_empty());
        if !backlog.more {
            assert_eq!(got, sent);
            return reads;
        }
    }
}

#[test]
fn a_read_is_cut_and_goes_on_where_it_ended() {
    let (hub, a, b) = (hub(limited(roomy()), 1), channel("a"), channel("b"));
    let mut sent = publish_slowly(&hub, &a, 3, 100_000);
    assert_eq!(reads(&hub, std::slice::from_ref(&a), &sent), 2);
    sent.extend(publish_slowly(&hub, &b, 3, 100_000));
    sent.extend(publish_slowly(&hub, &a, 1, 100_000));
    assert_eq!(reads(&hub, &[a.clone(), b.clone()], &sent), 4);
    // What is over the limit alone comes alone.
    let large = publish_slowly(&hub, &a, 2, READ_BYTES + 1);
    sent.extend(large);
    assert_eq!(reads(&hub, &[b, a], &sent), 6);
}

#[test]
fn a_read_of_messages_without_data_is_cut_too() {
    let (hub, a) = (hub(limited(roomy()), 1), channel("a"));
    let sent: Vec<u64> = (0..10_000).map(|_| hub.publish(message(&a, b""))).collect();
    assert!(reads(&hub, &[a], &sent) > 2);
}

#[test]
fn a_backlog_that_is_cut_goes_on_where_it_was_cut() {
    let hub = hub(limited(roomy()), 1);
    let name = channel("a");
    let start = hub.last().0;
    let sent: Vec<u64> = [10, 5_000, 100_000, 1, 1, 30_000, 0]
        .map(|size| hub.publish(message(&name, &vec![b'x'; size])))
        .into();
    let (mut seen, mut cursor) = (Vec::new(), start);
    loop {
        let mut backlog = read(&hub, &name, cursor);
        backlog.cut(10_000);
        seen.extend(ids(&backlog));
        cursor = backlog.cursor.0;
        if !backlog.more {
            break;
        }
        assert!(!backlog.messages.is_empty());
    }
    assert_eq!(seen, sent);
}
