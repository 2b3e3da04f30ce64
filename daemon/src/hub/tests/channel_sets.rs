//! Subscribers that add and drop channels while messages are published, trimmed and delivered: each one gets exactly the
//! messages of the channels that it has at the time, in the order of their ids, or is told of a gap.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    pin::Pin,
    rc::Rc,
    task::{Context, Waker},
};

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use subscriber::{AfterDelivery, Audience, Feed, Subscriber};

use super::*;

const CHANNELS: usize = 12;

/// A name with few messages, as the limits of a history say.
fn name(number: usize) -> ChannelName {
    match number % 3 {
        0 => channel(&format!("few.{number}")),
        _ => channel(&format!("c{number}")),
    }
}

#[derive(Debug, Clone)]
enum Op {
    Publish {
        channel: usize,
        size: usize,
    },
    /// One message in every channel.
    PublishToAll,
    Join {
        how: Reads,
    },
    Leave(prop::sample::Index),
    Add {
        client: prop::sample::Index,
        /// A bit for each channel.
        channels: usize,
        since: Since,
    },
    Remove {
        client: prop::sample::Index,
        channel: usize,
    },
    /// A client reads once, if it reads outside of deliveries; else its socket takes nothing for two calls.
    ReadOrBlock(prop::sample::Index),
    /// The worker calls some subscribers of one channel.
    Slice,
    /// The worker calls all subscribers that have something to read.
    Run,
    Clock(u64),
    Expire,
    Tidy,
}

/// When a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// In the delivery, as a connection of a worker does.
    InDelivery,
    /// Later and in pieces, as a task that has been woken does.
    Later,
}

#[derive(Debug, Clone)]
enum Since {
    Now,
    Everything,
    /// The id of a message, or next to it.
    Near(prop::sample::Index, i64),
    /// The client's own cursor.
    Own,
    /// After the last id by so much.
    Future(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<prop::sample::Index>;
    let since = prop_oneof![
        6 => Just(Since::Now),
        1 => Just(Since::Everything),
        3 => (index(), -1..=1_i64).prop_map(|(index, beside)| Since::Near(index, beside)),
        1 => Just(Since::Own),
        1 => (1..10 * SECOND).prop_map(Since::Future),
    ];
    let size = prop_oneof![8 => 0..100_usize, 1 => 50_000..150_000_usize];
    prop_oneof![
        8 => (0..CHANNELS, size).prop_map(|(channel, size)| Op::Publish { channel, size }),
        1 => Just(Op::PublishToAll),
        2 => prop_oneof![Just(Reads::InDelivery), Just(Reads::Later)].prop_map(|how| Op::Join { how }),
        1 => index().prop_map(Op::Leave),
        6 => (index(), 1..1_usize << CHANNELS, since)
            .prop_map(|(client, channels, since)| Op::Add { client, channels, since }),
        4 => (index(), 0..CHANNELS).prop_map(|(client, channel)| Op::Remove { client, channel }),
        4 => index().prop_map(Op::ReadOrBlock),
        6 => Just(Op::Slice),
        2 => Just(Op::Run),
        2 => (1..3 * SECOND).prop_map(Op::Clock),
        1 => Just(Op::Expire),
        1 => Just(Op::Tidy),
    ]
}

/// Everything that was published: id and channel.
type Published = Rc<RefCell<Vec<(u64, usize)>>>;

/// A client, and what it has to get.
struct Client {
    hub: Arc<Hub>,
    published: Published,
    reads: Reads,
    set: RefCell<Option<ChannelSet>>,
    /// It has been called, and has not read everything yet.
    unread: Cell<bool>,
    /// Its socket takes nothing for so many calls.
    blocked: Cell<usize>,
    /// The channels, and the id after which each one counts.
    channels: RefCell<BTreeMap<usize, u64>>,
    /// What was read last, or the older cursor of a channel that was added since.
    position: Cell<u64>,
    /// The messages that it has to get. False: the message may be gone without a gap, because the client asked for
    /// everything that is kept.
    due: RefCell<BTreeMap<u64, bool>>,
    /// A channel was added with a cursor of the future.
    is_ahead: Cell<bool>,
}

impl Client {
    fn join(audience: &Rc<Audience>, published: &Published, reads: Reads) -> Rc<Self> {
        let client = Rc::new(Self {
            hub: audience.hub().clone(),
            published: published.clone(),
            reads,
            set: RefCell::default(),
            unread: Cell::default(),
            blocked: Cell::default(),
            channels: RefCell::default(),
            position: Cell::new(audience.hub().last().0),
            due: RefCell::default(),
            is_ahead: Cell::default(),
        });
        client
            .set
            .replace(Some(ChannelSet::join(audience, client.clone())));
        client
    }

    fn leave(&self) {
        drop(self.set.take());
    }

    fn add(&self, channels: usize, since: &Since) {
        let last = self.hub.last().0;
        let since = match since {
            Since::Now => None,
            Since::Everything => Some(0),
            Since::Own => Some(self.position.get()),
            Since::Future(by) => Some(last + by),
            Since::Near(index, beside) => {
                let published = self.published.borrow();
                let id = match published.is_empty() {
                    true => last,
                    false => index.get(&published).0,
                };
                Some(id.saturating_add_signed(*beside))
            }
        };
        let mut known = self.channels.borrow_mut();
        let new = (0..CHANNELS).filter(|number| channels & 1 << number != 0);
        let names: Vec<ChannelName> = new.clone().map(name).collect();
        let new: Vec<usize> = new.filter(|number| !known.contains_key(number)).collect();
        let mut set = self.set.borrow_mut();
        let set = set.as_mut().unwrap();
        set.add(&names, since.map(Cursor));
        self.unread.set(true);
        if new.is_empty() {
            return;
        }
        let start = since.unwrap_or(last).min(last);
        if start < self.position.get() || known.is_empty() {
            self.position.set(start);
        }
        self.is_ahead.set(self.is_ahead.get() || since > Some(last));
        for (id, number) in &*self.published.borrow() {
            if *id > start && new.contains(number) {
                self.due.borrow_mut().insert(*id, start != 0);
            }
        }
        known.extend(new.iter().map(|number| (*number, start)));
    }

    fn remove(&self, number: usize) {
        let was_there = self.channels.borrow_mut().remove(&number).is_some();
        let mut set = self.set.borrow_mut();
        assert_eq!(set.as_mut().unwrap().remove(&name(number)), was_there);
        let published = self.published.borrow();
        let of_channel = published.iter().filter(|(_, other)| *other == number);
        of_channel.for_each(|(id, _)| _ = self.due.borrow_mut().remove(id));
    }

    /// Reads outside of a delivery. Returns false when there was nothing.
    fn read(&self, bytes: usize) -> bool {
        let backlog = self.set.borrow_mut().as_mut().unwrap().read(bytes);
        self.receive(&backlog);
        self.unread.set(backlog.is_news());
        backlog.is_news()
    }

    fn receive(&self, backlog: &Backlog) {
        let begin = self.position.replace(backlog.cursor.0);
        assert!(begin <= backlog.cursor.0, "the cursor goes back");
        let got = ids(backlog);
        assert!(
            got.is_sorted_by(|a, b| a < b),
            "one order over all channels"
        );
        assert!(got.iter().all(|id| begin < *id && *id <= backlog.cursor.0));
        let mut due = self.due.borrow_mut();
        for id in &got {
            assert!(due.remove(id).is_some(), "{id} is not due, or came twice");
        }
        let left_out = due.range(..=backlog.cursor.0);
        let lost = left_out.clone().filter(|(_, must)| **must).count();
        assert!(backlog.gap || lost == 0, "lost silently");
        if backlog.gap {
            let is_gone = self.is_any_gone(begin);
            assert!(is_gone || self.is_ahead.take(), "a gap without a reason");
        }
        let left_out: Vec<u64> = left_out.map(|(id, _)| *id).collect();
        left_out.iter().for_each(|id| _ = due.remove(id));
    }

    /// Whether the history has dropped a message after this id, in any channel: of a channel that was forgotten only an id is
    /// left.
    fn is_any_gone(&self, cursor: u64) -> bool {
        let names: Vec<ChannelName> = (0..CHANNELS).map(name).collect();
        let (mut kept, mut next) = (Vec::new(), Cursor(cursor));
        loop {
            let backlog = self.hub.since(&names, next);
            kept.extend(ids(&backlog));
            next = backlog.cursor;
            if !backlog.more {
                break;
            }
        }
        let published = self.published.borrow();
        let mut after = published.iter().filter(|(id, _)| *id > cursor);
        cursor < START || after.any(|(id, _)| !kept.contains(id))
    }

    /// A message was published.
    fn expect(&self, id: u64, number: usize) {
        if let Some(start) = self.channels.borrow().get(&number) {
            let is_from_all = self.position.get().max(*start) == 0;
            self.due.borrow_mut().insert(id, !is_from_all);
        }
    }
}

impl Subscriber for Client {
    fn deliver(self: Rc<Self>, feed: &mut Feed<'_>) -> AfterDelivery {
        self.unread.set(true);
        if self.reads == Reads::Later {
            return AfterDelivery::Stay;
        }
        if self.blocked.get() > 0 {
            self.blocked.update(|calls| calls - 1);
            return AfterDelivery::Stay;
        }
        loop {
            let mut set = self.set.borrow_mut();
            let shared = set.as_mut().unwrap().read_shared(feed);
            drop(set);
            self.receive(shared.backlog());
            if !shared.backlog().is_news() {
                self.unread.set(false);
                return AfterDelivery::Stay;
            }
        }
    }
}

/// One worker, its clients, and everything that was published.
struct World {
    hub: Arc<Hub>,
    audience: Rc<Audience>,
    run: Pin<Box<dyn Future<Output = ()>>>,
    published: Published,
    clients: Vec<Rc<Client>>,
}

impl World {
    fn new() -> Self {
        let limits = |messages, seconds| Limits {
            messages,
            bytes: 400_000,
            age: Duration::from_secs(seconds),
        };
        let hub = hub(
            HistoryConfig {
                default: limits(8, 60),
                prefixes: vec![("few.".into(), limits(2, 10))],
                total_bytes: 1 << 20,
            },
            1,
        );
        let audience = Audience::new(hub.clone(), 0);
        let worker = audience.clone();
        Self {
            hub,
            audience,
            run: Box::pin(async move { worker.run().await }),
            published: Published::default(),
            clients: Vec::new(),
        }
    }

    fn publish(&self, number: usize, size: usize) {
        let id = self.hub.publish(message(&name(number), &vec![b'x'; size]));
        self.published.borrow_mut().push((id, number));
        self.clients
            .iter()
            .for_each(|client| client.expect(id, number));
    }

    /// Lets the worker call some subscribers of one channel.
    fn slice(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(self.run.as_mut().poll(&mut cx).is_pending());
    }

    /// Lets everybody read everything.
    fn finish(&mut self) {
        for _ in 0..3 * CHANNELS {
            self.slice();
        }
        for client in &self.clients {
            while client.unread.get() && client.read(usize::MAX) {}
        }
    }

    fn client(&self, index: &prop::sample::Index) -> Option<&Rc<Client>> {
        (!self.clients.is_empty()).then(|| index.get(&self.clients))
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Publish { channel, size } => self.publish(*channel, *size),
            Op::PublishToAll => (0..CHANNELS).for_each(|number| self.publish(number, 0)),
            Op::Join { how } => {
                let client = Client::join(&self.audience, &self.published, *how);
                self.clients.push(client);
            }
            Op::Leave(index) if !self.clients.is_empty() => {
                let client = self.clients.swap_remove(index.index(self.clients.len()));
                client.leave();
            }
            Op::Leave(_) => {}
            Op::Add {
                client,
                channels,
                since,
            } => {
                if let Some(client) = self.client(client) {
                    client.add(*channels, since);
                }
            }
            Op::Remove { client, channel } => {
                if let Some(client) = self.client(client) {
                    client.remove(*channel);
                }
            }
            Op::ReadOrBlock(index) => match self.client(index) {
                Some(client) if client.reads == Reads::Later => _ = client.read(1000),
                Some(client) => client.blocked.set(2),
                None => {}
            },
            Op::Slice => self.slice(),
            Op::Run => self.finish(),
            Op::Clock(step) => NOW.set(NOW.get() + step),
            Op::Expire => self.hub.expire(),
            Op::Tidy => self.tidy(),
        }
    }

    fn tidy(&self) {
        self.audience.tidy();
        for number in 0..CHANNELS {
            let clients = self.clients.iter();
            let reading = clients.filter(|client| client.channels.borrow().contains_key(&number));
            assert_eq!(subscribers(&self.hub, &name(number)), reading.count());
        }
    }

    fn check(mut self) {
        self.clients.iter().for_each(|client| client.blocked.set(0));
        (0..CHANNELS).for_each(|number| self.publish(number, 0));
        self.finish();
        assert_eq!(self.audience.len(), self.clients.len());
        for client in self.clients.drain(..) {
            let due = client.due.borrow();
            assert!(due.values().all(|must| !must), "nobody told of {due:?}");
            client.leave();
        }
        // Nothing is left, neither here nor in the hub.
        self.slice();
        self.audience.tidy();
        NOW.set(NOW.get() + 3600 * SECOND);
        self.hub.expire();
        assert_eq!((self.audience.len(), self.hub.status().channels), (0, 0));
    }
}

#[test]
fn whoever_adds_and_drops_channels_gets_what_is_due_or_a_gap() {
    let config = ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, b"the same histories at every run.");
    let mut runner = TestRunner::new_with_rng(config, rng);
    let histories = prop::collection::vec(op(), 1..120);
    let run = runner.run(&histories, |ops| {
        let mut world = World::new();
        ops.iter().for_each(|op| world.apply(op));
        world.check();
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}
