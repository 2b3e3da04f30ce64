//! The rule of gaps, over random histories, restarts and clocks: no message is missing silently, no gap is told without a
//! reason, and the cursor of an answer is good for the next request.

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use super::*;
use crate::store::{Durability, OnError, fake::FakeDisk};

const NAMES: [&str; 3] = ["a", "b", "few.a"];

#[derive(Debug, Clone)]
enum Op {
    Publish(usize),
    /// Microseconds that the clock moves, also back.
    Clock(i64),
    Expire,
    Rewrite,
    Restart(End),
    Poll {
        /// A bit for each channel.
        channels: usize,
        from: From,
        /// Without the right to history: nothing older than so many microseconds.
        oldest: Option<u64>,
    },
}

/// How a daemon ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// In order, or by `kill -9`: the log is whole.
    Stop,
    Kill,
    /// In the middle of a write.
    Torn,
    /// The machine had not written everything.
    PowerLost,
    /// There is no log.
    Forgotten,
}

#[derive(Debug, Clone)]
enum From {
    Everything,
    Now,
    /// The id of a message, or next to it.
    Near(prop::sample::Index, i64),
    /// The cursor of an earlier answer.
    Answer(prop::sample::Index),
    /// A moment that has been.
    Moment(prop::sample::Index),
    /// After the last id by so much.
    FutureId(u64),
    /// After the clock by so much.
    FutureTime(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<prop::sample::Index>;
    let end = prop_oneof![
        3 => Just(End::Stop),
        3 => Just(End::Kill),
        1 => Just(End::Torn),
        1 => Just(End::PowerLost),
        1 => Just(End::Forgotten),
    ];
    let from = prop_oneof![
        1 => Just(From::Everything),
        1 => Just(From::Now),
        3 => (index(), -1..=1_i64).prop_map(|(index, beside)| From::Near(index, beside)),
        3 => index().prop_map(From::Answer),
        5 => index().prop_map(From::Moment),
        1 => (1..10 * SECOND).prop_map(From::FutureId),
        1 => (1..10 * SECOND).prop_map(From::FutureTime),
    ];
    let clock = prop_oneof![
        4 => 1..3_000_000_i64,
        1 => 0..60_000_000_i64,
        1 => -30_000_000..0_i64,
    ];
    let oldest = prop_oneof![Just(None), (0..20 * SECOND).prop_map(Some)];
    prop_oneof![
        6 => (0..NAMES.len()).prop_map(Op::Publish),
        6 => clock.prop_map(Op::Clock),
        1 => Just(Op::Expire),
        1 => Just(Op::Rewrite),
        2 => end.prop_map(Op::Restart),
        8 => (1..1_usize << NAMES.len(), from, oldest)
            .prop_map(|(channels, from, oldest)| Op::Poll { channels, from, oldest }),
    ]
}

/// The ids between two daemons.
struct Between {
    after: u64,
    before: u64,
    /// The log is whole; `None`: it was, and was written anew since, which may have forgotten that.
    whole: Option<bool>,
}

struct Model {
    disk: FakeDisk,
    boot: u128,
    hub: Arc<Hub>,
    /// Acknowledged: id and channel.
    published: Vec<(u64, usize)>,
    /// Below this, messages may be gone.
    gone: u64,
    between: Vec<Between>,
    answers: Vec<Cursor>,
    moments: Vec<u64>,
}

fn open(disk: &FakeDisk, boot: u128) -> Arc<Hub> {
    let limits = |messages, seconds| Limits {
        messages,
        bytes: 1 << 20,
        age: Duration::from_secs(seconds),
    };
    let config = HistoryConfig {
        default: limits(6, 60),
        prefixes: vec![("few.".into(), limits(2, 15))],
        total_bytes: 1 << 20,
    };
    let settings = LogSettings {
        durability: Durability::Process,
        on_error: OnError::Deliver,
        rewrite_bytes: 1 << 40,
        boot,
    };
    let disk = Arc::new(disk.clone());
    Hub::open_with_clock(config, 1, disk, &settings, clock)
        .unwrap()
        .0
}

fn names(channels: usize) -> Vec<ChannelName> {
    let of = NAMES.iter().enumerate();
    let of = of.filter(|(number, _)| channels & 1 << number != 0);
    of.map(|(_, name)| channel(name)).collect()
}

impl Model {
    fn new() -> Self {
        NOW.set(START);
        let disk = FakeDisk::default();
        let hub = open(&disk, 1);
        Self {
            gone: hub.last().0,
            answers: vec![hub.last()],
            disk,
            boot: 1,
            hub,
            published: Vec::new(),
            between: Vec::new(),
            moments: vec![START],
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Publish(number) => {
                let id = self.hub.publish(message(&channel(NAMES[*number]), b"x"));
                self.hub.try_kept(id).unwrap().unwrap();
                self.published.push((id, *number));
            }
            Op::Clock(step) => NOW.set(NOW.get().saturating_add_signed(*step)),
            Op::Expire => self.hub.expire(),
            Op::Rewrite => {
                self.hub.rewrite_log().unwrap();
                for between in &mut self.between {
                    between.whole = between.whole.filter(|whole| !whole);
                }
            }
            Op::Restart(end) => self.restart(*end),
            Op::Poll {
                channels,
                from,
                oldest,
            } => self.poll(*channels, from, *oldest),
        }
        self.moments.push(NOW.get());
    }

    fn restart(&mut self, end: End) {
        let after = self.hub.last().0;
        match end {
            End::Stop => self.hub.start_log_threads().unwrap().stop().unwrap(),
            End::Torn => {
                // Nobody was told that this one is kept.
                let id = self.hub.publish(message(&channel("a"), b"torn"));
                self.hub.try_kept(id).unwrap().unwrap();
                let name = self.disk.names().pop().unwrap();
                self.disk
                    .change(&name, |bytes| bytes.truncate(bytes.len() - 3));
            }
            End::PowerLost => self.boot += 1,
            End::Forgotten => {
                self.disk = FakeDisk::default();
                // Only a log keeps ids rising where the clock does not.
                NOW.set(NOW.get().max(after + 1));
            }
            End::Kill => {}
        }
        self.hub = open(&self.disk, self.boot);
        let before = self.hub.last().0;
        if matches!(end, End::PowerLost | End::Forgotten | End::Torn) {
            self.gone = before;
        }
        self.between.push(Between {
            after,
            before,
            whole: Some(!matches!(end, End::Torn)),
        });
    }

    fn since(&self, from: &From) -> Since {
        let last = self.hub.last().0;
        let id = match from {
            From::Moment(index) => return Since::Time(*index.get(&self.moments)),
            From::FutureTime(by) => return Since::Time(NOW.get().max(last) + by),
            From::Everything => 0,
            From::Now => last,
            From::FutureId(by) => last + by,
            From::Answer(index) => index.get(&self.answers).0,
            From::Near(_, _) if self.published.is_empty() => last,
            From::Near(index, beside) => {
                let (id, _) = index.get(&self.published);
                id.saturating_add_signed(*beside)
            }
        };
        Since::Id(Cursor(id))
    }

    /// As a request is answered.
    fn answer(&self, channels: usize, since: Since, oldest: Option<u64>) -> Backlog {
        let names = names(channels);
        let cursor = self.hub.resolve(since);
        let oldest = oldest.map(Duration::from_micros);
        let withheld = oldest.and_then(|age| self.hub.newest_older(&names, cursor, age));
        let mut backlog = self.hub.since(&names, withheld.unwrap_or(cursor));
        backlog.gap |= withheld.is_some();
        backlog
    }

    fn poll(&mut self, channels: usize, from: &From, oldest: Option<u64>) {
        let since = self.since(from);
        let backlog = self.answer(channels, since, oldest);
        self.check(channels, since, oldest, &backlog);
        // What the client does next, with nothing published meanwhile.
        let next = self.answer(channels, Since::Id(backlog.cursor), oldest);
        assert!(!next.gap && next.messages.is_empty(), "the cursor is good");
        assert_eq!(next.cursor, backlog.cursor);
        self.answers.push(backlog.cursor);
    }

    fn check(&self, channels: usize, since: Since, oldest: Option<u64>, backlog: &Backlog) {
        let (begin, last) = (since.micros(), self.hub.last().0);
        assert_eq!(backlog.cursor.0, last);
        let got = ids(backlog);
        assert!(got.is_sorted() && got.iter().all(|id| *id > begin));
        if let Some(oldest) = oldest {
            let limit = NOW.get().max(last).saturating_sub(oldest);
            assert!(got.iter().all(|id| *id > limit), "withheld");
        }
        let after = |channels: usize| {
            let of = move |(id, number): &&(u64, usize)| *id > begin && channels & 1 << number != 0;
            self.published.iter().filter(of).map(|(id, _)| *id)
        };
        if begin != 0 {
            let is_missing = after(channels).any(|id| !got.contains(&id));
            assert!(backlog.gap || !is_missing, "lost silently");
        }
        let reasons = self.reasons(channels, since, after(usize::MAX), &got);
        if backlog.gap {
            assert!(reasons != 0, "a gap without a reason");
        } else {
            assert!(reasons & MUST == 0, "no gap, though messages may be gone");
        }
    }

    /// Why a gap may be told; with [`MUST`], why one has to be.
    fn reasons(
        &self,
        channels: usize,
        since: Since,
        after: impl Iterator<Item = u64>,
        got: &[u64],
    ) -> u8 {
        let (begin, last) = (since.micros(), self.hub.last().0);
        let kept = ids(&self.hub.since(&names(channels), Cursor(0)));
        if begin == 0 {
            return u8::from(kept.len() > got.len()) * MUST;
        }
        // What other channels have lost is a reason, too: of a channel that was forgotten only an id is left.
        let everywhere = ids(&self.hub.since(&names(usize::MAX), Cursor(0)));
        let mut reasons = after
            .filter(|id| !everywhere.contains(id))
            .map(|_| MAY)
            .next();
        if kept.iter().any(|id| *id > begin && !got.contains(id)) {
            reasons = Some(MUST);
        }
        let around = self
            .between
            .iter()
            .find(|one| one.after < begin && begin < one.before);
        let is_lost = match (since, around) {
            (Since::Id(_), around) => begin > last || around.is_some(),
            (Since::Time(_), Some(between)) if between.whole.is_none() => {
                reasons = reasons.or(Some(MAY));
                false
            }
            (Since::Time(_), around) => around.is_some_and(|one| one.whole == Some(false)),
        };
        if is_lost || begin < self.gone {
            reasons = Some(MUST);
        }
        reasons.unwrap_or(0)
    }
}

const MAY: u8 = 1;
const MUST: u8 = 2;

#[test]
fn a_gap_is_told_for_what_is_missing_and_for_nothing_else() {
    let config = ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, b"the same histories at every run.");
    let mut runner = TestRunner::new_with_rng(config, rng);
    let histories = prop::collection::vec(op(), 1..60);
    let run = runner.run(&histories, |ops| {
        let mut model = Model::new();
        ops.iter().for_each(|op| model.apply(op));
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}
