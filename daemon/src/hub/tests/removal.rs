//! Messages that are removed before their time, and channels that are deleted.

use std::{
    cell::Cell,
    pin::pin,
    rc::Rc,
    task::{Context, Waker},
};

use subscriber::{AfterDelivery, Audience, Feed, Subscriber};

use super::{
    keep::{ids as kept, open, published},
    *,
};
use crate::store::fake::FakeDisk;

fn read(hub: &Hub, name: &ChannelName, cursor: u64) -> (Vec<u64>, bool) {
    let backlog = hub.since(std::slice::from_ref(name), Cursor(cursor));
    (ids(&backlog), backlog.gap)
}

#[test]
fn a_removed_message_is_a_gap_for_clients_that_have_not_received_it() {
    let hub = hub(HistoryConfig::default(), 1);
    let a = channel("a");
    let sent: Vec<u64> = (0..4).map(|_| hub.publish(message(&a, b"x"))).collect();
    let bytes = hub.status().bytes;
    assert_eq!(hub.remove_message(&a, sent[1]).messages, 1);
    assert_eq!(hub.remove_message(&a, sent[1]).messages, 0);
    assert_eq!(hub.status().bytes, bytes / 4 * 3);
    assert_eq!(read(&hub, &a, 0), (vec![sent[0], sent[2], sent[3]], false));
    assert_eq!(read(&hub, &a, sent[0]), (vec![sent[2], sent[3]], true));
    assert_eq!(read(&hub, &a, sent[1]), (vec![sent[2], sent[3]], false));
    let removal = hub.remove_messages(&a);
    assert_eq!((removal.messages, removal.id), (3, hub.last().0));
    assert_eq!(read(&hub, &a, 0), (vec![], false));
    assert!(read(&hub, &a, sent[2]).1);
    assert!(!read(&hub, &a, sent[3]).1);
    assert_eq!((hub.status().messages, hub.status().bytes), (0, 0));
    let next = hub.publish(message(&a, b""));
    assert_eq!(read(&hub, &a, sent[3]), (vec![next], false));
    assert_eq!(hub.remove_messages(&channel("b")).messages, 0);
}

#[test]
fn a_message_of_several_channels_stays_in_the_others() {
    let hub = hub(HistoryConfig::default(), 1);
    let (a, b) = (channel("a"), channel("b"));
    let both = ChannelNames::parse(["a", "b"]).unwrap();
    let id = hub.publish(message_to(both, b""));
    hub.remove_messages(&a);
    assert_eq!(read(&hub, &a, 0), (vec![], false));
    assert_eq!(read(&hub, &b, START), (vec![id], false));
}

/// A backlog is read once for many subscribers. One that waits since before a removed message must get its gap even then.
#[test]
fn a_shared_backlog_does_not_hide_a_removed_message() {
    let hub = hub(HistoryConfig::default(), 1);
    let a = channel("a");
    let first = hub.publish(message(&a, b""));
    let removed = hub.publish(message(&a, b""));
    hub.remove_message(&a, removed);
    hub.publish(message(&a, b""));
    let late = hub.since(std::slice::from_ref(&a), Cursor(removed));
    assert!(!late.gap && late.after >= removed, "{} {first}", late.after);
}

#[test]
fn removals_survive_a_restart_and_a_rewrite() {
    let disk = FakeDisk::default();
    let (a, b) = (channel("a"), channel("b"));
    let hub = open(&disk);
    let in_a: Vec<u64> = (0..3).map(|_| published(&hub, &a, b"x")).collect();
    let in_b: Vec<u64> = (0..3).map(|_| published(&hub, &b, b"x")).collect();
    hub.remove_messages(&a);
    let removal = hub.remove_message(&b, in_b[1]);
    let new = published(&hub, &a, b"new");
    hub.try_kept(removal.id).unwrap().unwrap();
    drop(hub);
    let mut hub = open(&disk);
    for rewrite in [false, true] {
        if rewrite {
            hub.rewrite_log().unwrap();
            drop(hub);
            hub = open(&disk);
        }
        assert_eq!(kept(&hub, &a, in_a[1]), (vec![new], true));
        assert_eq!(kept(&hub, &a, in_a[2]), (vec![new], false));
        assert_eq!(kept(&hub, &b, in_b[0]), (vec![in_b[2]], true));
        assert_eq!(kept(&hub, &b, in_b[1]), (vec![in_b[2]], false));
    }
}

#[derive(Default)]
struct Client(Cell<usize>, Cell<usize>);

impl Subscriber for Client {
    fn deliver(self: Rc<Self>, feed: &mut Feed<'_>) -> AfterDelivery {
        match feed.deleted() {
            Some(_) => {
                self.1.update(|told| told + 1);
                AfterDelivery::Leave
            }
            None => {
                self.0.update(|called| called + 1);
                AfterDelivery::Stay
            }
        }
    }
}

#[test]
fn who_waits_for_a_deleted_channel_is_told_and_nobody_else() {
    let hub = hub(HistoryConfig::default(), 1);
    let audience = Audience::new(hub.clone(), 0);
    let (a, b) = (channel("a"), channel("b"));
    let join = |names: &[ChannelName]| {
        let client = Rc::new(Client::default());
        audience.join(names, None, client.clone()).ok().unwrap();
        client
    };
    let (both, other) = (
        join(&[a.clone(), b.clone()]),
        join(std::slice::from_ref(&b)),
    );
    let crowd: Vec<_> = (0..200).map(|_| join(std::slice::from_ref(&a))).collect();
    let mut run = pin!(audience.run());
    let mut turn = || {
        for _ in 0..20 {
            let mut context = Context::from_waker(Waker::noop());
            assert!(run.as_mut().poll(&mut context).is_pending());
        }
    };
    hub.publish(message(&a, b""));
    turn();
    hub.end_subscriptions(&a);
    hub.end_subscriptions(&channel("unknown"));
    turn();
    assert_eq!(subscribers(&hub, &a), 0);
    for client in crowd.iter().chain([&both]) {
        assert_eq!((client.0.get(), client.1.get()), (1, 1));
    }
    assert_eq!((other.0.get(), other.1.get()), (0, 0));
    let late = join(std::slice::from_ref(&a));
    hub.publish(message(&a, b""));
    turn();
    assert_eq!((late.0.get(), late.1.get()), (1, 0));
}
