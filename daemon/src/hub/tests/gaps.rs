//! The gap rules, over random histories: a reader gets just what was published after its cursor, or is told of
//! a gap. A false gap needs a reason; a silent one there never is.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 5] = ["a", "b", "few.a", "few.b", "brief"];

#[derive(Debug, Clone)]
enum Op {
    Publish {
        /// A bit for each channel.
        channels: usize,
        /// Bytes of data.
        size: usize,
    },
    /// Microseconds that the clock moves, also back.
    Clock(i64),
    Expire,
    /// A worker begins to listen, or stops: what nobody listens to is forgotten.
    Listen(usize),
    Unlisten(usize),
    /// A reader (a bit for each channel) starts from a cursor.
    Start {
        reader: usize,
        channels: usize,
        from: From,
    },
    /// One read, which goes on where the last one ended.
    Read(usize),
}

#[derive(Debug, Clone)]
enum From {
    Everything,
    Now,
    BeforeStart(u64),
    /// After the last id by so much.
    Future(u64),
    /// The id of a message that was published, or next to one.
    Near(prop::sample::Index, i64),
}

fn op() -> impl Strategy<Value = Op> {
    let channel = 0..NAMES.len();
    let size = prop_oneof![6 => 0..300_usize, 1 => 50_000..300_000_usize];
    let reader = 0..3_usize;
    let from = prop_oneof![
        Just(From::Everything),
        Just(From::Now),
        (0..START).prop_map(From::BeforeStart),
        (1..10 * SECOND).prop_map(From::Future),
        (any::<prop::sample::Index>(), -1..=1_i64)
            .prop_map(|(index, beside)| From::Near(index, beside)),
    ];
    let clock = prop_oneof![
        4 => 0..700_000_i64,
        2 => 0..30_000_000_i64,
        1 => -60_000_000..0_i64,
    ];
    let channels = prop_oneof![
        4 => channel.clone().prop_map(|channel| 1 << channel),
        1 => 1..1_usize << NAMES.len(),
    ];
    prop_oneof![
        8 => (channels, size).prop_map(|(channels, size)| Op::Publish { channels, size }),
        3 => clock.prop_map(Op::Clock),
        2 => Just(Op::Expire),
        1 => channel.clone().prop_map(Op::Listen),
        1 => channel.prop_map(Op::Unlisten),
        2 => (reader.clone(), 1..1_usize << NAMES.len(), from)
            .prop_map(|(reader, channels, from)| Op::Start { reader, channels, from }),
        5 => reader.prop_map(Op::Read),
    ]
}

/// Small limits, each of which the operations above often meet; the last is for all channels.
fn config() -> impl Strategy<Value = HistoryConfig> {
    let limits = |messages: std::ops::Range<usize>, seconds: std::ops::Range<u64>| {
        (messages, 200..600_000_usize, seconds).prop_map(|(messages, bytes, seconds)| Limits {
            messages,
            bytes,
            age: Duration::from_secs(seconds),
        })
    };
    let total = prop_oneof![Just(usize::MAX), 1000..1_000_000_usize];
    (
        limits(2..30, 5..120),
        limits(1..4, 5..120),
        limits(1..30, 1..3),
        total,
    )
        .prop_map(|(default, few, brief, total_bytes)| HistoryConfig {
            default,
            prefixes: vec![("few.".into(), few), ("brief".into(), brief)],
            total_bytes,
        })
}

/// What happened so far, without any of the hub's clever parts.
struct Model {
    hub: Arc<Hub>,
    config: HistoryConfig,
    names: [ChannelName; NAMES.len()],
    published: Vec<Published>,
    readers: [Reader; 3],
    /// The latest time that the hub can have trimmed by.
    peak: u64,
    /// Total bytes never did more than what the channels' own limits do.
    never_full: bool,
}

struct Published {
    id: u64,
    channels: Vec<usize>,
    data: Vec<u8>,
}

#[derive(Clone, Default)]
struct Reader {
    channels: Vec<usize>,
    cursor: Cursor,
}

impl Published {
    /// What `history::cost` counts.
    fn cost(&self) -> usize {
        let names = match self.channels.len() {
            1 => 0,
            several => several * size_of::<ChannelName>(),
        };
        size_of::<Message>() + 3 * size_of::<usize>() + names + self.data.len()
    }
}

/// The channels whose bits are set.
fn numbers(channels: usize) -> Vec<usize> {
    let is_set = |channel: &usize| channels & 1 << channel != 0;
    (0..NAMES.len()).filter(is_set).collect()
}

impl Model {
    fn new(config: HistoryConfig) -> Self {
        let never_full = config.total_bytes == usize::MAX;
        Self {
            hub: hub(config.clone(), 1),
            config,
            names: NAMES.map(channel),
            published: Vec::new(),
            readers: Default::default(),
            peak: START,
            never_full,
        }
    }

    fn limits(&self, channel: usize) -> Limits {
        match NAMES[channel] {
            name if name.starts_with("few.") => self.config.prefixes[0].1,
            "brief" => self.config.prefixes[1].1,
            _ => self.config.default,
        }
    }

    /// The hub's time: ids never step back, and it counts by them.
    fn now(&self) -> u64 {
        NOW.get().max(self.hub.last().0)
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Publish { channels, size } => self.publish(numbers(*channels), *size),
            Op::Clock(step) => NOW.set(NOW.get().saturating_add_signed(*step).max(START / 2)),
            Op::Expire => self.hub.expire(),
            Op::Listen(channel) => {
                self.hub
                    .subscribe(0, std::slice::from_ref(&self.names[*channel]), None);
            }
            Op::Unlisten(channel) => self.hub.unsubscribe(0, &self.names[*channel]),
            Op::Start {
                reader,
                channels,
                from,
            } => self.start(*reader, *channels, from),
            Op::Read(reader) => self.read(*reader),
        }
        self.peak = self.peak.max(self.now());
        let status = self.hub.status();
        assert!(status.bytes <= self.config.total_bytes);
        assert_eq!(status.published, self.published.len() as u64);
    }

    fn publish(&mut self, channels: Vec<usize>, size: usize) {
        // Data that tells the messages apart.
        let id = self.now().max(self.hub.last().0 + 1);
        let mut data = id.to_le_bytes().repeat(size.div_ceil(8));
        data.truncate(size);
        let names = channels.iter().map(|&channel| NAMES[channel]);
        let new = message_to(ChannelNames::parse(names).unwrap(), &data);
        assert_eq!(self.hub.publish(new), id);
        let published = Published { id, channels, data };
        self.published.push(published);
    }

    fn start(&mut self, reader: usize, channels: usize, from: &From) {
        let last = self.hub.last().0;
        let cursor = match from {
            From::Everything => 0,
            From::Now => last,
            From::BeforeStart(cursor) => *cursor,
            From::Future(by) => last + by,
            From::Near(_, _) if self.published.is_empty() => last,
            From::Near(index, beside) => {
                index.get(&self.published).id.saturating_add_signed(*beside)
            }
        };
        self.readers[reader] = Reader {
            channels: numbers(channels),
            cursor: Cursor(cursor),
        };
    }

    /// Reads once and holds the answer against what was published.
    fn read(&mut self, reader: usize) {
        let Reader { channels, cursor } = self.readers[reader].clone();
        let names: Vec<ChannelName> = channels
            .iter()
            .map(|&channel| self.names[channel].clone())
            .collect();
        let backlog = self.hub.since(&names, cursor);
        let last = self.hub.last();
        assert!(backlog.cursor <= last);
        assert!(
            backlog.more || backlog.cursor == last,
            "who is not told to read on has everything"
        );
        self.check_answer(&channels, cursor, &backlog);
        self.check_gap(cursor, last, &backlog);
        if cursor == Cursor(0) && backlog.cursor == last {
            self.check_kept(&channels, &backlog);
        }
        self.check_sums();
        self.readers[reader].cursor = backlog.cursor;
    }

    /// What is due: published there after `cursor`, up to where the answer ends.
    fn due(&self, channels: &[usize], cursor: Cursor, end: Cursor) -> Vec<u64> {
        let due = |message: &&Published| {
            let is_read = message.channels.iter().any(|of| channels.contains(of));
            is_read && message.id > cursor.0 && message.id <= end.0
        };
        self.published
            .iter()
            .filter(due)
            .map(|message| message.id)
            .collect()
    }

    fn check_answer(&self, channels: &[usize], cursor: Cursor, backlog: &Backlog) {
        for got in &backlog.messages {
            let of = self.published.iter().find(|message| message.id == got.id);
            let of = of.expect("it was published");
            assert!(*got.data == *of.data);
            let told = of.channels.iter().filter(|of| channels.contains(of));
            let told = told.map(|&channel| &self.names[channel]);
            assert!(got.visible(&backlog.readable).eq(told));
        }
        let (got, due) = (ids(backlog), self.due(channels, cursor, backlog.cursor));
        if !backlog.gap && cursor != Cursor(0) {
            assert_eq!(got, due, "nothing lost, nothing twice, in order");
        }
        // With a gap, and from 0, the oldest of each channel may be missing, but none in between.
        for &channel in channels {
            let of = |id: &&u64| {
                self.published
                    .iter()
                    .any(|m| m.id == **id && m.channels.contains(&channel))
            };
            let due: Vec<&u64> = due.iter().filter(of).collect();
            let got: Vec<&u64> = got.iter().filter(of).collect();
            // A message that this channel has dropped may be there because another of its channels keeps it.
            let kept = got
                .iter()
                .filter(|id| self.is_only_in(***id, channel, channels));
            let oldest = kept.min().copied();
            let due: Vec<&u64> = due.into_iter().filter(|id| oldest <= Some(*id)).collect();
            let got: Vec<&u64> = got.into_iter().filter(|id| oldest <= Some(*id)).collect();
            assert!(oldest.is_none() || got == due, "{got:?} of {due:?}");
        }
        assert!(got.is_sorted(), "one order over all channels");
        assert!(got.iter().all(|id| due.contains(id)));
        let of = |id: &u64| self.published.iter().find(|message| message.id == *id);
        let bytes: usize = got.iter().filter_map(of).map(Published::cost).sum();
        assert!(bytes <= READ_BYTES || got.len() == 1);
    }

    /// Whether `channel` is the only one of `channels` to which the message was published.
    fn is_only_in(&self, id: u64, channel: usize, channels: &[usize]) -> bool {
        let of = self.published.iter().find(|message| message.id == id);
        let mut of = of.iter().flat_map(|message| &message.channels);
        of.all(|of| *of == channel || !channels.contains(of))
    }

    /// A gap has one of the reasons that the rules name. That a message of another channel is gone is one: a
    /// channel that was forgotten leaves but its last id.
    fn check_gap(&self, cursor: Cursor, last: Cursor, backlog: &Backlog) {
        let foreign = cursor > last || (Cursor(0) < cursor && cursor < Cursor(START));
        let gone = || {
            let gone_in = |channel: usize| {
                self.rest(&[channel], cursor).messages.len()
                    < self.due(&[channel], cursor, last).len()
            };
            (0..NAMES.len()).any(gone_in)
        };
        if backlog.gap {
            assert_ne!(
                cursor,
                Cursor(0),
                "nothing can be missing from all that is kept"
            );
            assert!(foreign || gone(), "a gap without a reason");
        } else {
            assert!(!foreign);
        }
    }

    /// All that is kept after `cursor`, over as many reads as it takes.
    fn rest(&self, channels: &[usize], mut cursor: Cursor) -> Backlog {
        let names: Vec<ChannelName> = channels
            .iter()
            .map(|&channel| self.names[channel].clone())
            .collect();
        let mut all = Backlog::default();
        loop {
            let backlog = self.hub.since(&names, cursor);
            if backlog.messages.is_empty() {
                return all;
            }
            cursor = backlog.cursor;
            all.messages.extend(backlog.messages);
        }
    }

    /// The whole of what is kept is what the limits keep, neither more nor less.
    fn check_kept(&self, channels: &[usize], backlog: &Backlog) {
        let kept = ids(backlog);
        for &channel in channels {
            let of_channel: Vec<&Published> = self
                .published
                .iter()
                .filter(|message| message.channels.contains(&channel))
                .collect();
            for (i, message) in of_channel.iter().enumerate() {
                let newer = &of_channel[i + 1..];
                if !self.is_only_in(message.id, channel, channels) {
                    continue; // another channel may keep it
                }
                let kept = kept.contains(&message.id);
                if kept {
                    assert!(
                        self.may_stay(channel, message, newer, self.now()),
                        "kept beyond the limits"
                    );
                } else if self.never_full {
                    let peak = self.peak.max(self.now());
                    assert!(
                        !self.may_stay(channel, message, newer, peak),
                        "dropped within the limits"
                    );
                }
            }
        }
    }

    /// What the hub says that it keeps is what can be read.
    fn check_sums(&self) {
        // A message counts in each of its channels.
        let each = (0..NAMES.len()).flat_map(|channel| self.rest(&[channel], Cursor(0)).messages);
        let kept: Vec<_> = each.collect();
        let bytes: usize = kept.iter().map(|message| history::cost(message)).sum();
        let status = self.hub.status();
        assert_eq!((status.messages, status.bytes), (kept.len(), bytes));
    }

    /// The limits, said once more: by what is newer on the same channel.
    fn may_stay(
        &self,
        channel: usize,
        message: &Published,
        newer: &[&Published],
        now: u64,
    ) -> bool {
        let limits = self.limits(channel);
        let bytes = message.cost() + newer.iter().map(|message| message.cost()).sum::<usize>();
        let young = message.id + SECOND > now;
        (newer.len() < limits.messages || young)
            && (bytes <= limits.bytes || newer.is_empty())
            && message.id + limits.age.as_micros() as u64 > now
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_reader_gets_everything_or_is_told(config in config(), ops in prop::collection::vec(op(), 1..200)) {
        let mut model = Model::new(config);
        for op in &ops {
            model.apply(op);
        }
        // What is left at the end is read too, by everyone.
        for reader in 0..model.readers.len() {
            while !model.readers[reader].channels.is_empty() && model.readers[reader].cursor != model.hub.last() {
                model.read(reader);
            }
        }
    }
}
