//! What a restart finds, on a disk that fails where it likes.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use proptest::prelude::*;

use super::*;
use crate::store::{
    Durability, OnError,
    fake::{FakeDisk, Fault},
};

const BOOT: u128 = 1;

fn settings(durability: Durability, boot: u128) -> LogSettings {
    LogSettings {
        durability,
        on_error: OnError::Deliver,
        rewrite_bytes: 1 << 40,
        boot,
    }
}

/// Ten microseconds pass between any two looks.
fn ticking() -> u64 {
    static NOW: AtomicU64 = AtomicU64::new(1_000_000_000);
    NOW.fetch_add(10, Ordering::Relaxed)
}

/// Opens the log with the caller's clock, in this boot of the machine.
pub(super) fn open_with(disk: &FakeDisk, clock: Clock, boot: u128) -> (Arc<Hub>, LogSummary) {
    let (config, disk) = (HistoryConfig::default(), Arc::new(disk.clone()));
    let settings = settings(Durability::Process, boot);
    Hub::open_with_clock(config, 1, disk, &settings, clock).unwrap()
}

fn open_at(disk: &FakeDisk, durability: Durability, boot: u128) -> Result<Arc<Hub>, StoreError> {
    let disk = Arc::new(disk.clone());
    let settings = settings(durability, boot);
    Hub::open_with_clock(HistoryConfig::default(), 1, disk, &settings, ticking).map(|(hub, _)| hub)
}

pub(super) fn open(disk: &FakeDisk) -> Arc<Hub> {
    open_at(disk, Durability::Process, BOOT).unwrap()
}

pub(super) fn published(hub: &Hub, name: &ChannelName, data: &[u8]) -> u64 {
    let id = hub.publish(message(name, data));
    hub.try_kept(id).unwrap().unwrap();
    id
}

pub(super) fn ids(hub: &Hub, name: &ChannelName, cursor: u64) -> (Vec<u64>, bool) {
    let backlog = hub.since(std::slice::from_ref(name), Cursor(cursor));
    let ids = backlog.messages.iter().map(|message| message.id).collect();
    (ids, backlog.gap)
}

#[test]
fn a_killed_daemon_forgets_nothing() {
    let disk = FakeDisk::default();
    let (a, b) = (channel("a"), channel("b"));
    let hub = open(&disk);
    let start = hub.last().0;
    let first = published(&hub, &a, b"one");
    let second = published(&hub, &b, b"two");
    drop(hub);
    let hub = open(&disk);
    assert_eq!(ids(&hub, &a, start), (vec![first], false));
    assert_eq!(ids(&hub, &b, first), (vec![second], false));
    assert_eq!(ids(&hub, &a, second), (vec![], false));
    let backlog = hub.since(&[a, b], Cursor(0));
    assert_eq!(&*backlog.messages[0].data, b"one");
    assert!(hub.last().0 > second);
}

#[test]
fn cursors_of_a_daemon_that_published_nothing_stay_good() {
    let disk = FakeDisk::default();
    let a = channel("a");
    for _ in 0..3 {
        let cursor = open(&disk).last().0;
        assert_eq!(ids(&open(&disk), &a, cursor), (vec![], false));
    }
}

#[test]
fn whoever_saw_a_message_that_was_lost_is_told() {
    let disk = FakeDisk::default();
    let a = channel("a");
    let hub = open(&disk);
    let kept = published(&hub, &a, b"kept");
    let lost = hub.publish(message(&a, b"lost"));
    drop(hub);
    let hub = open(&disk);
    assert_eq!(ids(&hub, &a, kept), (vec![], false));
    assert!(ids(&hub, &a, lost).1);
    // Also when the log was written anew, and read again.
    hub.rewrite_log().unwrap();
    drop(hub);
    let hub = open(&disk);
    assert_eq!(ids(&hub, &a, kept), (vec![], false));
    assert!(ids(&hub, &a, lost).1);
}

/// Its publisher, who has no answer, repeats it with its key: it must be found to be the same.
#[test]
fn what_somebody_was_told_is_not_forgotten() {
    let disk = FakeDisk::default();
    let a = channel("a");
    let mut start = open(&disk).last().0;
    for joins in [false, true] {
        let hub = open(&disk);
        let id = hub.publish(message(&a, b"seen"));
        let backlog = match joins {
            true => hub.subscribe(0, std::slice::from_ref(&a), Some(Cursor(start))),
            false => hub.since(std::slice::from_ref(&a), Cursor(start)),
        };
        assert_eq!(backlog.messages.last().unwrap().id, id);
        drop(hub);
        assert_eq!(ids(&open(&disk), &a, start), (vec![id], false));
        start = id;
    }
}

#[test]
fn after_a_loss_of_power_everybody_is_told_unless_it_was_synced() {
    for (durability, told) in [(Durability::Process, true), (Durability::Disk, false)] {
        let disk = FakeDisk::default();
        let a = channel("a");
        let hub = open_at(&disk, durability, BOOT).unwrap();
        let id = hub.publish(message(&a, b""));
        hub.keeper.as_ref().unwrap().commit(&hub, id).unwrap();
        drop(hub);
        let hub = open_at(&disk, durability, BOOT + 1).unwrap();
        assert_eq!(ids(&hub, &a, id).1, told, "{durability:?}");
        let now = hub.last().0;
        assert!(!ids(&hub, &a, now).1);
    }
}

#[test]
fn a_stop_in_order_bridges_a_boot() {
    let disk = FakeDisk::default();
    let a = channel("a");
    let hub = open(&disk);
    let id = hub.publish(message(&a, b""));
    hub.start_log_threads().unwrap().stop().unwrap();
    drop(hub);
    let hub = open_at(&disk, Durability::Process, BOOT + 1).unwrap();
    assert_eq!(ids(&hub, &a, id - 1), (vec![id], false));
}

#[test]
fn damage_is_skipped_and_told_and_not_found_twice() {
    let disk = FakeDisk::default();
    let a = channel("a");
    let hub = open(&disk);
    let sent: Vec<u64> = (0..10).map(|_| published(&hub, &a, b"some data")).collect();
    drop(hub);
    let name = disk.names().pop().unwrap();
    disk.change(&name, |bytes| {
        let place = bytes.len() / 2;
        bytes[place] ^= 1;
    });
    let hub = open(&disk);
    let (left, gap) = ids(&hub, &a, sent[0]);
    assert!(gap);
    assert_eq!(left.len(), 8, "all but the first, which was seen, and one");
    let now = hub.last().0;
    drop(hub);
    assert!(!ids(&open(&disk), &a, now).1);
}

#[test]
fn a_torn_end_is_cut_and_a_gap() {
    let disk = FakeDisk::default();
    let a = channel("a");
    let hub = open(&disk);
    let first = published(&hub, &a, b"one");
    hub.publish(message(&a, b"two"));
    hub.publish(message(&a, b"three"));
    hub.try_kept(hub.last().0).unwrap().unwrap();
    drop(hub);
    let name = disk.names().pop().unwrap();
    disk.change(&name, |bytes| bytes.truncate(bytes.len() - 3));
    let hub = open(&disk);
    let (left, gap) = ids(&hub, &a, first);
    assert_eq!((left.len(), gap), (1, true));
    let now = hub.last().0;
    drop(hub);
    let hub = open(&disk);
    assert_eq!(ids(&hub, &a, first), (left, true));
    assert!(!ids(&hub, &a, now).1);
}

#[test]
fn a_full_disk_is_an_error_until_there_is_room_and_then_lacks_nothing() {
    let disk = FakeDisk::default();
    let a = channel("a");
    let hub = open(&disk);
    let first = published(&hub, &a, b"one");
    disk.fail(Fault::Full, 0, usize::MAX);
    let second = hub.publish(message(&a, b"two"));
    let error = hub.try_kept(second).unwrap().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot write fake/0000000001.log: "),
        "{error}"
    );
    assert_eq!(
        ids(&hub, &a, first),
        (vec![second], false),
        "delivered all the same"
    );
    assert!(hub.store_status().unwrap().error.is_some());
    disk.heal();
    let third = published(&hub, &a, b"three");
    assert!(hub.store_status().unwrap().error.is_none());
    drop(hub);
    assert_eq!(ids(&open(&disk), &a, first), (vec![second, third], false));
}

#[test]
fn what_is_too_much_to_wait_for_room_is_written_from_the_history() {
    let disk = FakeDisk::default();
    let a = channel("a");
    let hub = open(&disk);
    let first = published(&hub, &a, b"one");
    disk.fail(Fault::Broken, 0, usize::MAX);
    let large = vec![b'x'; 1 << 20];
    for _ in 0..2 * crate::hub::keep::MAX_UNWRITTEN / large.len() {
        let id = hub.publish(message(&a, &large));
        assert!(hub.try_kept(id).unwrap().is_err());
    }
    disk.heal();
    let keeper = hub.keeper.as_ref().unwrap();
    keeper.check_log(&hub);
    assert!(hub.store_status().unwrap().error.is_none());
    let (kept, _) = ids(&hub, &a, 0);
    drop(hub);
    let hub = open(&disk);
    assert_eq!(ids(&hub, &a, 0).0, kept);
    assert!(ids(&hub, &a, first).1, "the history was full");
}

#[test]
fn messages_are_refused_where_that_is_wanted() {
    let disk = FakeDisk::default();
    let wanted = LogSettings {
        on_error: OnError::Refuse,
        ..settings(Durability::Process, BOOT)
    };
    let config = HistoryConfig::default();
    let (hub, _) = Hub::open(config, 1, Arc::new(disk.clone()), &wanted).unwrap();
    hub.admits().unwrap();
    disk.fail(Fault::Full, 0, usize::MAX);
    let id = hub.publish(message(&channel("a"), b""));
    hub.try_kept(id).unwrap().unwrap_err();
    hub.admits().unwrap_err();
    disk.heal();
    hub.admits().unwrap();
}

#[test]
fn keys_are_remembered_and_so_is_what_was_trimmed() {
    let disk = FakeDisk::default();
    let a = channel("a");
    let keyed = |hub: &Hub| {
        let id = hub.publish(NewMessage {
            key: key_of(Publisher::User(1), "k"),
            ..message(&a, b"once")
        });
        hub.try_kept(id).unwrap().unwrap();
        id
    };
    let hub = open(&disk);
    let id = keyed(&hub);
    for rewrite in [false, true, false] {
        if rewrite {
            open(&disk).rewrite_log().unwrap();
        }
        let hub = open(&disk);
        assert_eq!(keyed(&hub), id);
        assert_eq!(ids(&hub, &a, 0).0, [id]);
    }
}

#[test]
fn a_daemon_that_keeps_nothing_leaves_a_mark() {
    let disk = FakeDisk::default();
    let a = channel("a");
    let hub = open(&disk);
    let id = published(&hub, &a, b"");
    drop(hub);
    let (mut log, found) = crate::store::Log::open(Arc::new(disk.clone()), &mut |_| {}).unwrap();
    let start = crate::store::Record::Start {
        id: found.last + 1,
        after: found.last,
        boot: BOOT,
        durability: Durability::Memory,
    };
    log.append([start]).unwrap();
    drop(log);
    let hub = open(&disk);
    assert!(
        ids(&hub, &a, id).1,
        "what was published meanwhile is nowhere"
    );
    let now = hub.last().0;
    drop(hub);
    assert!(!ids(&open(&disk), &a, now).1);
}

#[test]
fn rewriting_leaves_what_is_kept_and_no_more() {
    let disk = FakeDisk::default();
    let a = channel("a");
    let hub = open(&disk);
    for _ in 0..50 {
        published(&hub, &a, &[b'x'; 1000]);
    }
    let kept = ids(&hub, &a, 0);
    let before = hub.store_status().unwrap().bytes;
    hub.rewrite_log().unwrap();
    let later = published(&hub, &a, b"later");
    let after = hub.store_status().unwrap().bytes;
    assert!(after < before + 2000, "{before} {after}");
    assert_eq!(disk.names().len(), 2);
    drop(hub);
    assert_eq!(ids(&open(&disk), &a, 0).0, [kept.0, vec![later]].concat());
}

/// What may happen to a hub and its disk.
#[derive(Debug, Clone)]
enum Step {
    Publish {
        /// A bit for each channel.
        channels: usize,
        size: usize,
        key: Option<u8>,
    },
    /// Publishes that share a write.
    Burst(usize),
    /// Removes a message, or all messages, from a channel.
    Remove {
        channel: usize,
        message: Option<prop::sample::Index>,
    },
    Length {
        channel: usize,
        messages: Option<u16>,
    },
    Rewrite,
    Fail {
        fault: Fault,
        well: usize,
        ill: usize,
    },
    Heal,
    Kill,
    LosePower(u8),
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fault = prop_oneof![Just(Fault::Full), Just(Fault::Broken), Just(Fault::Short)];
    let channels = prop_oneof![2 => (0..3usize).prop_map(|channel| 1 << channel), 1 => 1..8usize];
    let step = prop_oneof![
        8 => (channels, 0..300usize, proptest::option::of(0..4u8))
            .prop_map(|(channels, size, key)| Step::Publish { channels, size, key }),
        2 => (1..20usize).prop_map(Step::Burst),
        1 => (0..3usize, any::<Option<prop::sample::Index>>())
            .prop_map(|(channel, message)| Step::Remove { channel, message }),
        1 => (0..3usize, proptest::option::of(0..MAX_LENGTH))
            .prop_map(|(channel, messages)| Step::Length { channel, messages }),
        2 => Just(Step::Rewrite),
        3 => (fault, 0..12usize, 1..4usize)
            .prop_map(|(fault, well, ill)| Step::Fail { fault, well, ill }),
        1 => Just(Step::Heal),
        2 => Just(Step::Kill),
        1 => any::<u8>().prop_map(Step::LosePower),
        1 => Just(Step::Stop),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Clone)]
struct Published {
    id: u64,
    channels: usize,
    size: usize,
    key: Option<u8>,
}

struct Model {
    disk: FakeDisk,
    hub: Arc<Hub>,
    durability: Durability,
    boot: u128,
    names: [ChannelName; 3],
    acked: Vec<Published>,
    /// Every message that was given an id.
    published: Vec<Published>,
    /// The channel and the id of each removed message, and whether the removal was acknowledged.
    removed: BTreeMap<(usize, u64), bool>,
    /// The lengths of the channels, if the last change was acknowledged.
    lengths: [Option<Option<u16>>; 3],
    /// Cursors that clients may have.
    cursors: Vec<u64>,
}

/// Some messages have attributes; the size says which.
fn attributes(size: usize) -> Option<Box<Attributes>> {
    let pairs = [("size", size.to_string()), ("topic", "a/b".to_owned())];
    Attributes::parse(&pairs[..size % 3]).unwrap()
}

impl Model {
    fn new(durability: Durability) -> Self {
        let disk = FakeDisk::default();
        let hub = open_at(&disk, durability, BOOT).unwrap();
        Self {
            cursors: vec![hub.last().0],
            disk,
            hub,
            durability,
            boot: BOOT,
            names: ["a", "b", "c"].map(channel),
            acked: Vec::new(),
            published: Vec::new(),
            removed: BTreeMap::new(),
            lengths: [Some(None); 3],
        }
    }

    fn publish(&mut self, channels: usize, size: usize, key: Option<u8>, ack: bool) {
        let text = key.map(|key| key.to_string());
        let id = self.hub.publish(NewMessage {
            key: text
                .as_deref()
                .and_then(|key| key_of(Publisher::User(1), key)),
            attributes: attributes(size),
            ..message_to(self.names(channels), &vec![b'x'; size])
        });
        self.cursors.push(id);
        let is_same = |known: &&Published| known.key == key && known.channels & channels > 0;
        let message = match self.published.iter().find(|known| known.id == id) {
            Some(known) => {
                assert!(key.is_some() && is_same(&known), "another message's id");
                known.clone()
            }
            None => {
                let known = self.acked.iter().find(is_same).filter(|_| key.is_some());
                assert!(known.is_none(), "a key gives the id of its message back");
                let message = Published {
                    id,
                    channels,
                    size,
                    key,
                };
                self.published.push(message.clone());
                message
            }
        };
        let keeper = self.hub.keeper.as_ref().unwrap();
        if ack && keeper.commit(&self.hub, id).is_ok() {
            self.acked.push(message);
        }
    }

    fn remove(&mut self, channel: usize, message: Option<prop::sample::Index>) {
        let name = &self.names[channel];
        let (kept, _) = ids(&self.hub, name, 0);
        let (removed, removal) = match message {
            None => (kept, self.hub.remove_messages(name)),
            Some(_) if kept.is_empty() => return,
            Some(message) => {
                let id = *message.get(&kept);
                (vec![id], self.hub.remove_message(name, id))
            }
        };
        assert_eq!(removal.messages, removed.len());
        let keeper = self.hub.keeper.as_ref().unwrap();
        let is_acked = keeper.commit(&self.hub, removal.id).is_ok();
        for id in removed {
            self.removed.insert((channel, id), is_acked);
        }
    }

    fn names(&self, channels: usize) -> ChannelNames {
        let is_set = |number: &usize| channels & 1 << number > 0;
        let names = (0..self.names.len())
            .filter(is_set)
            .map(|number| &*self.names[number]);
        ChannelNames::parse(names).unwrap()
    }

    fn restart(&mut self) {
        // Errors at the start are told and leave everything as it is.
        self.hub = loop {
            match open_at(&self.disk, self.durability, self.boot) {
                Ok(hub) => break hub,
                Err(_) => self.disk.heal(),
            }
        };
        self.check();
        self.cursors.push(self.hub.last().0);
    }

    fn check(&self) {
        for (number, name) in self.names.iter().enumerate() {
            let acked = self
                .acked
                .iter()
                .filter(|acked| acked.channels & 1 << number > 0);
            let acked: Vec<u64> = acked.map(|acked| acked.id).collect();
            let (kept, _) = ids(&self.hub, name, 0);
            for (_, removed) in self.removed.keys().filter(|(of, _)| *of == number) {
                let is_acked = self.removed[&(number, *removed)];
                assert!(!is_acked || !kept.contains(removed), "{removed} is back");
            }
            let acked: Vec<u64> = acked
                .into_iter()
                .filter(|id| !self.removed.contains_key(&(number, *id)))
                .collect();
            if let Some(length) = self.lengths[number] {
                let expected = length.map_or(Limits::default().messages, usize::from);
                assert_eq!(self.hub.length(name), expected);
            }
            assert!(kept.is_sorted() && kept.windows(2).all(|pair| pair[0] < pair[1]));
            for id in &acked {
                assert!(kept.contains(id), "{id} was acknowledged, and is lost");
            }
            for cursor in &self.cursors {
                let (after, gap) = ids(&self.hub, name, *cursor);
                let missed = acked.iter().any(|id| id > cursor && !after.contains(id));
                assert!(gap || !missed, "a client with {cursor} is not told");
                let mut removed = self
                    .removed
                    .iter()
                    .filter(|((of, _), acked)| *of == number && **acked);
                let missed = removed.any(|((_, id), _)| id > cursor);
                assert!(
                    gap || !missed || *cursor == 0,
                    "a client with {cursor} misses a removed message"
                );
            }
        }
        let is_touched = |acked: &&Published| self.removed.keys().any(|(_, id)| *id == acked.id);
        for acked in self.acked.iter().filter(|acked| !is_touched(acked)) {
            let names = self.names(acked.channels);
            let kept = self.hub.since(&names, Cursor(acked.id - 1)).messages;
            assert_eq!((kept[0].id, &kept[0].channels), (acked.id, &names));
            assert_eq!(kept[0].data.len(), acked.size);
            assert_eq!(kept[0].attributes, attributes(acked.size));
            assert!(kept.get(1).is_none_or(|next| next.id > acked.id), "twice");
        }
        let newest = self.cursors.iter().max().unwrap();
        assert!(self.hub.last().0 > *newest, "ids increase");
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish {
                channels,
                size,
                key,
            } => self.publish(channels, size, key, true),
            Step::Burst(count) => {
                for i in 1..=count {
                    self.publish(1 << (i % 3), 100, None, i == count);
                }
            }
            Step::Remove { channel, message } => self.remove(channel, message),
            Step::Length { channel, messages } => {
                let id = self.hub.set_length(&self.names[channel], messages).unwrap();
                let is_acked = self
                    .hub
                    .keeper
                    .as_ref()
                    .unwrap()
                    .commit(&self.hub, id)
                    .is_ok();
                self.lengths[channel] = is_acked.then_some(messages);
            }
            Step::Rewrite => _ = self.hub.rewrite_log(),
            Step::Fail { fault, well, ill } => self.disk.fail(fault, well, ill),
            Step::Heal => {
                self.disk.heal();
                let keeper = self.hub.keeper.as_ref().unwrap();
                keeper.check_log(&self.hub);
            }
            Step::Kill => self.restart(),
            Step::LosePower(part) => {
                if self.durability == Durability::Disk {
                    self.disk.lose_power(part);
                    self.boot += 1;
                }
                self.restart();
            }
            Step::Stop => {
                let _ = self.hub.start_log_threads().unwrap().stop();
                self.restart();
            }
        }
    }
}

/// The last daemon wrote the message and could not sync it. The publisher repeats the message by its key.
#[test]
fn a_repeated_key_is_acknowledged_when_its_first_message_is_synced() {
    let mut model = Model::new(Durability::Disk);
    for step in [
        Step::Fail {
            fault: Fault::Full,
            well: 1,
            ill: 1,
        },
        Step::Publish {
            channels: 1,
            size: 0,
            key: Some(1),
        },
        Step::Kill,
        Step::Publish {
            channels: 1,
            size: 0,
            key: Some(1),
        },
        Step::LosePower(0),
    ] {
        model.step(&step);
    }
    assert_eq!(model.acked.len(), 1, "the repetition was acknowledged");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn nothing_acknowledged_is_lost_and_no_loss_is_silent(steps in steps(), disk: bool) {
        let durability = if disk { Durability::Disk } else { Durability::Process };
        let mut model = Model::new(durability);
        for step in &steps {
            model.step(step);
        }
        model.disk.heal();
        model.restart();
    }
}
