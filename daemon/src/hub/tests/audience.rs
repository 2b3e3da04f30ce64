//! The subscribers of one worker: every one is called about what is new, reads just what is due to it, and what
//! many read alike is what each would have read alone.

use std::{
    cell::RefCell,
    pin::pin,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Wake, Waker},
};

use bytes::Bytes;
use proptest::prelude::*;
use subscriber::{AfterDelivery, Audience, Feed, SharedBacklog, Subscriber, SubscriberKey};

use super::*;

/// What all clients of a test share.
struct Script {
    hub: Arc<Hub>,
    /// Id and channels.
    published: RefCell<Vec<(u64, Vec<ChannelName>)>>,
    /// What other threads publish meanwhile, and where they get the chance to.
    todo: RefCell<Vec<ChannelName>>,
    choices: RefCell<Choices>,
    /// The last id when the worker had its latest turn.
    turn: Cell<Cursor>,
}

impl Script {
    fn new(hub: &Arc<Hub>) -> Rc<Self> {
        Rc::new(Self {
            hub: hub.clone(),
            published: RefCell::default(),
            todo: RefCell::default(),
            choices: RefCell::default(),
            turn: Cell::default(),
        })
    }

    fn publish(&self, names: &[ChannelName], size: usize) {
        let channels = ChannelNames::parse(names.iter().map(|name| &**name)).unwrap();
        let id = self.hub.publish(message_to(channels, &vec![b'x'; size]));
        self.published.borrow_mut().push((id, names.into()));
    }

    /// Here another thread may publish as much as it has left.
    fn point(&self) {
        while !self.todo.borrow().is_empty() && self.choices.borrow_mut().pick(2) == 1 {
            self.publish_next();
        }
    }

    /// False: there is no more.
    fn publish_next(&self) -> bool {
        let next = self.todo.borrow_mut().pop();
        next.inspect(|name| self.publish(std::slice::from_ref(name), 0))
            .is_some()
    }

    fn due(&self, channels: &[ChannelName], after: Cursor, end: Cursor) -> Vec<u64> {
        let published = self.published.borrow();
        let due = published.iter().filter(|(id, names)| {
            let is_read = names.iter().any(|name| channels.contains(name));
            after.0 < *id && *id <= end.0 && is_read
        });
        due.map(|(id, _)| *id).collect()
    }
}

struct Client {
    script: Rc<Script>,
    channels: Vec<ChannelName>,
    /// Leaves with every delivery, like a long-poll.
    leaves: bool,
    /// Its socket takes nothing for so many calls.
    blocked: Cell<usize>,
    start: Cursor,
    cursor: Cell<Cursor>,
    seen: RefCell<Vec<u64>>,
    gap: Cell<bool>,
    key: Cell<Option<SubscriberKey>>,
}

impl Client {
    fn new(script: &Rc<Script>, channels: &[ChannelName], leaves: bool) -> Rc<Self> {
        let start = script.hub.last();
        Rc::new(Self {
            script: script.clone(),
            channels: channels.into(),
            leaves,
            blocked: Cell::new(0),
            start,
            cursor: Cell::new(start),
            seen: RefCell::default(),
            gap: Cell::new(false),
            key: Cell::new(None),
        })
    }

    /// Joins, however much there is to read before.
    fn join(self: &Rc<Self>, audience: &Audience) {
        while self.key.get().is_none() {
            self.script.point();
            match audience.join(&self.channels, Some(self.cursor.get()), self.clone()) {
                Ok((key, cursor)) => {
                    assert!(
                        self.script
                            .due(&self.channels, self.cursor.get(), cursor)
                            .is_empty()
                    );
                    self.cursor.set(cursor);
                    self.key.set(Some(key));
                }
                Err(backlog) => self.receive(&backlog),
            }
        }
    }

    fn receive(&self, backlog: &Backlog) {
        let due = self
            .script
            .due(&self.channels, self.cursor.get(), backlog.cursor);
        let got = ids(backlog);
        if backlog.gap {
            assert!(got.iter().all(|id| due.contains(id)));
            self.gap.set(true);
        } else {
            assert_eq!(got, due, "nothing lost, nothing twice, in order");
        }
        for message in &backlog.messages {
            let own = message
                .channels
                .iter()
                .filter(|of| self.channels.contains(of));
            assert!(
                message.visible(&backlog.readable).eq(own),
                "of its own channels"
            );
        }
        assert!(self.cursor.get() <= backlog.cursor);
        self.seen.borrow_mut().extend(got);
        self.cursor.set(backlog.cursor);
    }

    /// A shared answer is what a read of one's own would give, but for what was published since the worker looked.
    fn compare(&self, batch: &SharedBacklog) {
        let fresh = self.script.hub.since(&self.channels, self.cursor.get());
        let shared = batch.backlog();
        if !fresh.gap {
            assert!(!shared.gap);
            assert!(ids(&fresh).starts_with(&ids(shared)));
            if let Some(next) = ids(&fresh).get(shared.messages.len()) {
                assert!(*next > shared.cursor.0);
                assert!(*next > self.script.turn.get().0, "shared for too long");
            }
        }
    }

    fn check(&self) {
        let due = self
            .script
            .due(&self.channels, self.start, Cursor(u64::MAX));
        let seen = self.seen.borrow();
        assert!(*seen == due || self.gap.get(), "{seen:?} of {due:?}");
    }
}

impl Subscriber for Client {
    fn deliver(self: Rc<Self>, feed: &mut Feed<'_>) -> AfterDelivery {
        assert!(self.key.get().is_some(), "only those who stay are called");
        self.script.point();
        if self.blocked.get() > 0 {
            self.blocked.update(|calls| calls - 1);
            return AfterDelivery::Stay;
        }
        let mut got = false;
        loop {
            let batch = feed.read(self.cursor.get());
            self.compare(&batch);
            self.receive(batch.backlog());
            got |= !batch.backlog().messages.is_empty();
            if !batch.backlog().more {
                break;
            }
        }
        self.script.point();
        if self.leaves && got {
            self.key.set(None);
            return AfterDelivery::Leave;
        }
        AfterDelivery::Stay
    }
}

/// A worker's thread, without one.
#[derive(Default)]
struct Thread(AtomicBool);

impl Wake for Thread {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs the audience until it waits, with `between` before each of its turns, until that says that nothing happened.
fn run(script: &Script, audience: &Audience, mut between: impl FnMut() -> bool) {
    let thread = Arc::new(Thread(true.into()));
    let waker = Waker::from(thread.clone());
    let mut run = pin!(audience.run());
    while between() | thread.0.swap(false, Ordering::Relaxed) {
        script.turn.set(script.hub.last());
        assert!(
            run.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
}

/// Every placement of what others publish among the steps of one worker and its clients: which channels those
/// have, and whether they leave.
fn explore(todo: &[usize], clients: &[(&[usize], bool)], expected: usize) {
    let names = ["a", "b"].map(channel);
    let named = |numbers: &[usize]| {
        numbers
            .iter()
            .map(|&n| names[n].clone())
            .collect::<Vec<_>>()
    };
    let placements = Choices::explore(|choices| {
        let hub = hub(HistoryConfig::default(), 1);
        let (script, audience) = (Script::new(&hub), Audience::new(hub, 0));
        script.todo.replace(named(todo));
        script.choices.swap(&RefCell::new(std::mem::take(choices)));
        let clients = clients
            .iter()
            .map(|(channels, leaves)| Client::new(&script, &named(channels), *leaves));
        let clients: Vec<Rc<Client>> = clients.collect();
        run(&script, &audience, || {
            let absent = clients.iter().filter(|client| client.key.get().is_none());
            let joined = absent.inspect(|client| client.join(&audience)).count() > 0;
            script.point();
            joined
        });
        // What had no chance until now comes at last.
        run(&script, &audience, || {
            let absent = clients.iter().filter(|client| client.key.get().is_none());
            let joined = absent.inspect(|client| client.join(&audience)).count() > 0;
            joined | script.publish_next()
        });
        clients.iter().for_each(|client| client.check());
        *choices = script.choices.take();
    });
    assert!(placements >= expected, "{placements} placements");
}

#[test]
fn one_channel_whatever_is_published_meanwhile() {
    explore(&[0, 0, 0, 0], &[(&[0], false), (&[0], true)], 1000);
}

#[test]
fn two_channels_whatever_is_published_meanwhile() {
    explore(
        &[0, 1, 0, 1],
        &[(&[0, 1], false), (&[1, 0], true), (&[1], false)],
        1000,
    );
}

#[derive(Debug, Clone)]
enum Op {
    Join {
        channels: usize,
        leaves: bool,
    },
    Leave(prop::sample::Index),
    /// Its socket takes nothing for so many calls.
    Block(prop::sample::Index, usize),
    Publish {
        /// A bit for each channel.
        channels: usize,
        size: usize,
    },
    Clock(u64),
    Tidy,
    Run,
}

fn op() -> impl Strategy<Value = Op> {
    let client = any::<prop::sample::Index>;
    prop_oneof![
        4 => (1..1_usize << 3, any::<bool>()).prop_map(|(channels, leaves)| Op::Join { channels, leaves }),
        1 => client().prop_map(Op::Leave),
        1 => (client(), 1..4_usize).prop_map(|(client, calls)| Op::Block(client, calls)),
        4 => (
            prop_oneof![2 => (0..3_usize).prop_map(|channel| 1 << channel), 1 => 1..1_usize << 3],
            prop_oneof![4 => 0..100_usize, 1 => 50_000..150_000_usize],
        )
            .prop_map(|(channels, size)| Op::Publish { channels, size }),
        1 => (1..3 * SECOND).prop_map(Op::Clock),
        1 => Just(Op::Tidy),
        3 => Just(Op::Run),
    ]
}

/// The names whose bits are set.
fn chosen(names: &[ChannelName; 3], channels: usize) -> Vec<ChannelName> {
    let is_chosen = |number: &usize| channels & 1 << number != 0;
    (0..3)
        .filter(is_chosen)
        .map(|number| names[number].clone())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_comes_goes_or_is_slow_reads_all_that_is_due(ops in prop::collection::vec(op(), 1..150)) {
        let limits = Limits { messages: 5, age: Duration::from_secs(60), ..roomy() };
        let hub = hub(HistoryConfig { default: limits, ..HistoryConfig::default() }, 1);
        let (script, audience) = (Script::new(&hub), Audience::new(hub.clone(), 0));
        let names = ["a", "b", "c"].map(channel);
        let mut clients: Vec<Rc<Client>> = Vec::new();
        let serve = |clients: &[Rc<Client>]| run(&script, &audience, || {
            let absent = clients.iter().filter(|client| client.key.get().is_none());
            absent.inspect(|client| client.join(&audience)).count() > 0
        });
        for op in ops {
            match op {
                Op::Join { channels, leaves } => {
                    let client = Client::new(&script, &chosen(&names, channels), leaves);
                    client.join(&audience);
                    clients.push(client);
                }
                Op::Leave(index) if !clients.is_empty() => {
                    let client = clients.swap_remove(index.index(clients.len()));
                    if let Some(key) = client.key.take() {
                        audience.leave(key);
                        audience.leave(key);
                    }
                }
                Op::Block(index, calls) if !clients.is_empty() => index.get(&clients).blocked.set(calls),
                Op::Leave(_) | Op::Block(..) => {}
                Op::Publish { channels, size } => script.publish(&chosen(&names, channels), size),
                Op::Clock(step) => NOW.set(NOW.get() + step),
                Op::Tidy => {
                    audience.tidy();
                    for name in &names {
                        let joined = |client: &&Rc<Client>| client.key.get().is_some() && client.channels.contains(name);
                        prop_assert_eq!(subscribers(&hub, name), clients.iter().filter(joined).count());
                    }
                }
                Op::Run => serve(&clients),
            }
        }
        // The last word to everyone, who now takes it.
        clients.iter().for_each(|client| client.blocked.set(0));
        names.iter().for_each(|name| script.publish(std::slice::from_ref(name), 0));
        serve(&clients);
        prop_assert_eq!(audience.len(), clients.len());
        for client in clients {
            client.check();
            audience.leave(client.key.take().unwrap());
        }
        // Nobody is left: neither here nor in the hub.
        audience.tidy();
        NOW.set(NOW.get() + 3600 * SECOND);
        hub.expire();
        prop_assert_eq!((audience.len(), hub.status().channels), (0, 0));
    }
}

#[test]
fn a_quiet_channel_has_its_turn_after_one_slice_of_a_loud_one() {
    let hub = hub(HistoryConfig::default(), 1);
    let (script, audience) = (Script::new(&hub), Audience::new(hub, 0));
    let (loud, quiet) = (channel("loud"), channel("quiet"));
    let of = |name: &ChannelName| Client::new(&script, std::slice::from_ref(name), false);
    let crowd: Vec<Rc<Client>> = (0..1000).map(|_| of(&loud)).collect();
    let alone = of(&quiet);
    crowd
        .iter()
        .chain([&alone])
        .for_each(|client| client.join(&audience));
    let has_seen = |client: &Rc<Client>| !client.seen.borrow().is_empty();
    let served = || crowd.iter().filter(|client| has_seen(client)).count();
    script.publish(std::slice::from_ref(&loud), 0);
    let (mut published, mut told) = (0, 0);
    run(&script, &audience, || {
        if published == 0 && served() > 0 {
            published = served();
            script.publish(std::slice::from_ref(&quiet), 0);
        } else if told == 0 && has_seen(&alone) {
            told = served();
            script.publish(std::slice::from_ref(&loud), 0);
        }
        false
    });
    assert!(0 < published && published < 1000, "the loud one is at it");
    assert_eq!(told, published);
    crowd.iter().for_each(|client| client.check());
}

/// Reads once when it is called.
struct Reader {
    cursor: Cell<Cursor>,
    rendered: Rc<Cell<usize>>,
    got: RefCell<Vec<Bytes>>,
    gap: Cell<bool>,
}

impl Reader {
    fn join(audience: &Audience, channels: &[ChannelName], rendered: &Rc<Cell<usize>>) -> Rc<Self> {
        let reader = Rc::new(Self {
            cursor: Cell::default(),
            rendered: rendered.clone(),
            got: RefCell::default(),
            gap: Cell::new(false),
        });
        let (_, cursor) = audience.join(channels, None, reader.clone()).ok().unwrap();
        reader.cursor.set(cursor);
        reader
    }
}

impl Subscriber for Reader {
    fn deliver(self: Rc<Self>, feed: &mut Feed<'_>) -> AfterDelivery {
        let batch = feed.read(self.cursor.get());
        let bytes = batch.form(7, |backlog| {
            self.rendered.update(|times| times + 1);
            format!("{:?}", ids(backlog)).into()
        });
        self.cursor.set(batch.backlog().cursor);
        self.gap.set(batch.backlog().gap);
        self.got.borrow_mut().push(bytes);
        AfterDelivery::Stay
    }
}

#[test]
fn what_many_read_alike_is_rendered_once() {
    let hub = hub(HistoryConfig::default(), 1);
    let audience = Audience::new(hub.clone(), 0);
    let (a, b) = (channel("a"), channel("b"));
    let rendered = Rc::new(Cell::new(0));
    let script = Script::new(&hub);
    let reader = |channels: &[ChannelName]| Reader::join(&audience, channels, &rendered);
    let mut readers: Vec<_> = (0..300).map(|_| reader(std::slice::from_ref(&a))).collect();
    readers.push(reader(&[a.clone(), b]));
    let id = hub.publish(message(&a, b"hi"));
    run(&script, &audience, || false);
    assert!(
        readers
            .iter()
            .all(|reader| reader.got.borrow()[..] == [format!("[{id}]")])
    );
    assert!(rendered.get() <= 2, "{} times", rendered.get());
}

#[test]
fn what_waits_for_one_subscriber_is_one_piece() {
    let hub = hub(HistoryConfig::default(), 1);
    let (script, audience) = (Script::new(&hub), Audience::new(hub.clone(), 0));
    let (a, rendered) = (channel("a"), Rc::default());
    let join = |_| Reader::join(&audience, std::slice::from_ref(&a), &rendered);
    let readers: Vec<_> = (0..300).map(join).collect();
    let publish = || hub.publish(message(&a, b""));
    let mut pieces = Vec::new();
    for count in [1, 3, 2] {
        let sent: Vec<u64> = (0..count).map(|_| publish()).collect();
        pieces.push(format!("{sent:?}"));
        run(&script, &audience, || false);
    }
    for reader in &readers {
        assert_eq!(reader.got.borrow()[..], pieces);
    }
    assert_eq!(rendered.get(), 3, "all of them go on from the same place");
}

#[test]
fn what_is_read_among_other_channels_is_rendered_once_too() {
    let hub = hub(HistoryConfig::default(), 1);
    let (script, audience) = (Script::new(&hub), Audience::new(hub.clone(), 0));
    let (news, rendered) = (channel("news"), Rc::default());
    let user = |i: usize| channel(&format!("user:{i}"));
    let join = |i| Reader::join(&audience, &[news.clone(), user(i)], &rendered);
    let readers: Vec<_> = (0..300).map(join).collect();
    let own = hub.publish(message(&user(7), b""));
    let sent = [0, 1].map(|_| {
        let id = hub.publish(message(&news, b""));
        run(&script, &audience, || false);
        id
    });
    let all = |reader: &Reader| {
        let pieces = reader.got.borrow();
        let texts = pieces.iter().map(|piece| str::from_utf8(piece).unwrap());
        texts.filter(|text| *text != "[]").collect::<String>()
    };
    for (i, reader) in readers.iter().enumerate() {
        let [first, second] = sent;
        let expected = match i {
            7 => format!("[{own}, {first}][{second}]"),
            _ => format!("[{first}][{second}]"),
        };
        assert_eq!(all(reader), expected);
    }
    assert!(rendered.get() < 10, "{} times", rendered.get());
}

#[test]
fn the_gap_of_one_is_not_told_to_others() {
    let hub = hub(HistoryConfig::default(), 1);
    let (script, audience) = (Script::new(&hub), Audience::new(hub.clone(), 0));
    let join = || Reader::join(&audience, &[channel("a")], &Rc::default());
    let readers = [join(), join(), join()];
    readers[1].cursor.set(Cursor(1));
    script.publish(&[channel("a")], 0);
    run(&script, &audience, || false);
    assert_eq!(readers.map(|reader| reader.gap.get()), [false, true, false]);
}
