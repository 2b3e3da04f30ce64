//! A reader's cursor, its gaps, its place in the audience, and the end of its right to read.

use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::Rc,
    task::{Context, Waker},
};

use subscriber::{AfterDelivery, Audience, Feed, Subscriber};

use super::*;

/// A client that reads when it is called.
struct Client {
    reader: RefCell<Reader<Box<[ChannelName]>>>,
    calls: Cell<usize>,
    got: RefCell<Vec<u64>>,
    was_told_of_gap: Cell<bool>,
}

impl Subscriber for Client {
    fn deliver(self: Rc<Self>, feed: &mut Feed<'_>) -> AfterDelivery {
        self.calls.set(self.calls.get() + 1);
        if let Some(shared) = self.reader.borrow_mut().read_shared(feed) {
            self.got.borrow_mut().extend(ids(shared.backlog()));
            self.was_told_of_gap.set(shared.backlog().gap);
        }
        AfterDelivery::Stay
    }
}

struct Fixture {
    hub: Arc<Hub>,
    audience: Rc<Audience>,
    news: ChannelName,
}

impl Fixture {
    fn new(config: HistoryConfig) -> Self {
        let hub = hub(config, 1);
        let audience = Audience::new(hub.clone(), 0);
        let news = channel("news");
        Self {
            hub,
            audience,
            news,
        }
    }

    fn publish(&self) -> u64 {
        self.hub.publish(message(&self.news, b"data"))
    }

    fn reader(&self, since: Option<u64>) -> Reader<Box<[ChannelName]>> {
        Reader::new(&self.hub, [self.news.clone()].into(), since.map(Cursor))
    }

    fn join(&self, client: &Rc<Client>, bytes: usize) -> Option<Backlog> {
        let mut reader = client.reader.borrow_mut();
        reader.join(&self.audience, client, bytes)
    }

    /// Lets the audience call its subscribers.
    fn deliver(&self) {
        let mut run = pin!(self.audience.run());
        let mut context = Context::from_waker(Waker::noop());
        assert!(run.as_mut().poll(&mut context).is_pending());
    }
}

fn client(reader: Reader<Box<[ChannelName]>>) -> Rc<Client> {
    Rc::new(Client {
        reader: reader.into(),
        calls: Cell::new(0),
        got: RefCell::default(),
        was_told_of_gap: Cell::default(),
    })
}

#[test]
fn reads_the_backlog_in_parts_then_joins_and_gets_each_message_once() {
    let f = Fixture::new(HistoryConfig::default());
    let client = client(f.reader(Some(0)));
    let mut expected: Vec<_> = (0..3).map(|_| f.publish()).collect();
    while let Some(backlog) = f.join(&client, 1) {
        assert_eq!(backlog.messages.len(), 1, "the smallest part");
        client.got.borrow_mut().extend(ids(&backlog));
    }
    expected.extend([f.publish(), f.publish()]);
    f.deliver();
    assert_eq!(*client.got.borrow(), expected);
    let mut reader = client.reader.borrow_mut();
    assert!(reader.read(&f.hub, READ_BYTES).is_none());
    assert_eq!(reader.cursor(), f.hub.last());
    reader.leave(&f.audience);
    assert!(f.audience.is_empty());
}

#[test]
fn without_a_cursor_it_begins_when_it_is_made_and_not_when_it_joins() {
    let f = Fixture::new(HistoryConfig::default());
    f.publish();
    let client = client(f.reader(None));
    let id = f.publish();
    assert_eq!(ids(&f.join(&client, READ_BYTES).unwrap()), [id]);
}

#[test]
fn a_gap_at_the_start_is_told_once_by_whatever_reads_first() {
    let f = Fixture::new(HistoryConfig::default());
    let start = f.hub.last().0;
    let joined = client(f.reader(Some(start)).starting_with_gap(true));
    let backlog = f.join(&joined, READ_BYTES).unwrap();
    assert!(backlog.gap && backlog.messages.is_empty());
    assert!(f.join(&joined, READ_BYTES).is_none());
    let mut reader = f.reader(Some(start)).starting_with_gap(true);
    assert!(reader.read_rest(&f.hub).gap);
    assert!(!reader.read_rest(&f.hub).gap && reader.read(&f.hub, READ_BYTES).is_none());
}

#[test]
fn a_postponed_gap_does_not_end_the_wait_and_is_told_with_the_next_message() {
    let f = Fixture::new(HistoryConfig::default());
    let unknown = f.hub.last().0 + SECOND;
    let other = client(f.reader(Some(unknown)));
    assert!(f.join(&other, READ_BYTES).unwrap().gap);
    assert!(f.join(&other, READ_BYTES).is_none());
    let patient = client(f.reader(Some(unknown)).postponing_gaps(true));
    assert!(f.join(&patient, READ_BYTES).is_none());
    assert_eq!(patient.reader.borrow().cursor(), f.hub.last());
    for is_gap in [true, false] {
        let id = f.publish();
        f.deliver();
        for client in [&patient, &other] {
            assert_eq!(client.got.take(), [id]);
        }
        let told = (patient.was_told_of_gap.get(), other.was_told_of_gap.get());
        assert_eq!(told, (is_gap, false));
    }
}

#[test]
fn whoever_stays_in_the_audience_reads_on_without_joining() {
    let f = Fixture::new(HistoryConfig::default());
    let other = channel("other");
    for channels in [vec![f.news.clone()], vec![f.news.clone(), other.clone()]] {
        let last = channels.last().unwrap().clone();
        // Called, but without a reader of its own: it reads later.
        let sleeper = client(f.reader(None));
        let mut reader = Reader::new(&f.hub, channels.into_boxed_slice(), None);
        assert!(reader.join(&f.audience, &sleeper, READ_BYTES).is_none());
        assert!(reader.has_joined());
        assert!(reader.read_on(&f.audience, READ_BYTES).is_none());
        let sent = [0, 1].map(|_| f.hub.publish(message(&last, b"data")));
        f.deliver();
        for id in sent {
            let part = reader.read_on(&f.audience, 1).unwrap();
            assert_eq!(ids(&part), [id]);
        }
        assert!(reader.read_on(&f.audience, READ_BYTES).is_none());
        assert_eq!(reader.cursor(), f.hub.last());
        reader.leave(&f.audience);
        assert!(!reader.has_joined() && f.audience.is_empty());
    }
}

#[test]
fn without_channels_it_follows_the_last_id() {
    let f = Fixture::new(HistoryConfig::default());
    let client = client(Reader::new(&f.hub, Box::default(), Some(Cursor(1))));
    f.publish();
    assert!(f.join(&client, READ_BYTES).is_none());
    let reader = client.reader.borrow();
    assert_eq!(reader.cursor(), f.hub.last());
    assert!(f.audience.is_empty());
}

#[test]
fn the_right_to_read_ends_at_its_second_or_when_it_is_revoked() {
    let f = Fixture::new(HistoryConfig::default());
    let mut forever = f.reader(None).until(None);
    assert_eq!(
        (forever.ends(), forever.has_ended(u64::MAX)),
        (RightEnds::Never, false)
    );
    let reader = f.reader(None).until(Some(100));
    assert_eq!(reader.ends(), RightEnds::At(100));
    assert_eq!((reader.has_ended(99), reader.has_ended(100)), (false, true));
    let far = f.reader(None).until(Some(u64::MAX));
    assert_eq!(far.ends(), RightEnds::At(u32::MAX.into()));
    forever.revoke();
    assert_eq!(
        (forever.ends(), forever.has_ended(1)),
        (RightEnds::Revoked, true)
    );
}

/// Each parked poll has one.
#[test]
fn a_reader_is_small() {
    let fields = size_of::<Cursor>() + 2 * size_of::<u64>();
    let size = size_of::<Reader<Box<[ChannelName]>>>();
    assert!(size <= size_of::<Box<[ChannelName]>>() + fields, "{size}");
}
