//! The facts of one channel: what it keeps, and how many subscribers wait.

use std::{
    pin::pin,
    rc::Rc,
    task::{Context, Waker},
};

use subscriber::{AfterDelivery, Audience, Feed, Subscriber};

use super::*;

/// Leaves with its first delivery, like a long-poll, or stays, like a stream.
struct Client(AfterDelivery);

impl Subscriber for Client {
    fn deliver(self: Rc<Self>, _: &mut Feed<'_>) -> AfterDelivery {
        self.0
    }
}

/// Delivers what was published.
fn turn(audience: &Audience) {
    let mut run = pin!(audience.run());
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        assert!(run.as_mut().poll(&mut context).is_pending());
    }
}

#[test]
fn a_channel_says_what_it_keeps_and_how_much_was_published() {
    let hub = hub(HistoryConfig::default(), 1);
    let a = channel("a");
    assert_eq!(hub.channel_facts(&a), None);
    let sent: Vec<u64> = (0..3)
        .map(|_| {
            NOW.set(NOW.get() + 200 * SECOND);
            hub.publish(message(&a, b""))
        })
        .collect();
    let facts = hub.channel_facts(&a).unwrap();
    assert_eq!(
        (facts.published, facts.messages, facts.subscribers),
        (3, 3, 0)
    );
    let (oldest, newest) = (facts.oldest.unwrap(), facts.newest.unwrap());
    assert_eq!((oldest, newest), (Cursor(sent[0]), Cursor(sent[2])));
    // The first message expires after ten minutes. It does not count any more, even if the hub has not dropped it yet.
    NOW.set(NOW.get() + 300 * SECOND);
    let facts = hub.channel_facts(&a).unwrap();
    assert_eq!((facts.published, facts.messages), (3, 2));
    assert_eq!(facts.oldest, Some(Cursor(sent[1])));
    NOW.set(NOW.get() + 600 * SECOND);
    assert_eq!(hub.channel_facts(&a), None);
}

#[test]
fn the_facts_of_many_channels_are_in_the_order_of_their_names() {
    let hub = hub(HistoryConfig::default(), 1);
    for name in ["b1", "a2", "b2", "a1", "b3"] {
        hub.publish(message(&channel(name), b""));
    }
    let names = |max, prefix: &str| {
        let facts = hub.facts_of_channels(max, |channel| channel.starts_with(prefix));
        let names = facts.iter().map(|(name, facts)| {
            assert_eq!(facts.messages, 1);
            name.to_string()
        });
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(10, ""), ["a1", "a2", "b1", "b2", "b3"]);
    assert_eq!(names(10, "b"), ["b1", "b2", "b3"]);
    assert_eq!(names(2, "b").len(), 2);
    assert!(names(10, "c").is_empty());
}

#[test]
fn subscribers_of_all_workers_count_as_long_as_they_wait() {
    let hub = hub(HistoryConfig::default(), 2);
    let (a, b) = (channel("a"), channel("b"));
    let audiences = [Audience::new(hub.clone(), 0), Audience::new(hub.clone(), 1)];
    let join = |worker: usize, channels: &[ChannelName], after: AfterDelivery| {
        let joined = audiences[worker].join(channels, None, Rc::new(Client(after)));
        joined.ok().unwrap().0
    };
    let counts = || (subscribers(&hub, &a), subscribers(&hub, &b));
    let first = join(0, std::slice::from_ref(&a), AfterDelivery::Stay);
    join(0, std::slice::from_ref(&a), AfterDelivery::Leave);
    join(1, &[a.clone(), b.clone()], AfterDelivery::Leave);
    assert_eq!(counts(), (3, 1), "as soon as they have joined");
    // A client that has something to read does not wait.
    hub.publish(message(&a, b""));
    let late = Rc::new(Client(AfterDelivery::Stay));
    let since = Some(Cursor(START));
    assert!(
        audiences[0]
            .join(std::slice::from_ref(&a), since, late)
            .is_err()
    );
    assert_eq!(counts(), (3, 1));
    audiences.iter().for_each(|audience| turn(audience));
    assert_eq!(counts(), (1, 0), "the polls have been answered");
    audiences[0].leave(first);
    audiences[0].tidy();
    assert_eq!(counts(), (0, 0));
}

#[test]
fn a_channel_without_messages_needs_little_memory() {
    assert!(size_of::<channel::Channel>() <= 104, "a block of 112 bytes");
}
