use comet_proto::Cursor;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{broker::Local, hub::HistoryConfig, presence::Seat};

const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(10);

struct Fixture {
    hub: Arc<Hub>,
    presence: Arc<LocalPresence>,
    start: Instant,
    channel: ChannelName,
}

impl Fixture {
    fn new(is_restart: bool) -> Self {
        let hub = Hub::new(HistoryConfig::default(), 1);
        let broker = Local::new(hub.clone());
        Self {
            presence: LocalPresence::new(hub.clone(), broker, is_restart),
            hub,
            start: Instant::now(),
            channel: ChannelName::parse("news").unwrap(),
        }
    }

    fn enter(&self, id: &str) {
        assert!(self.presence.enter(&self.channel, &member(id)));
    }

    /// A connection leaves so many seconds after the start.
    fn leave(&self, id: &str, seconds: u32) {
        let now = self.start + seconds * SECOND;
        self.presence
            .leave_at(&self.channel, &id.into(), now + GRACE, now);
    }

    fn tick(&self, seconds: u32) {
        self.presence.tick_at(self.start + seconds * SECOND);
    }

    fn messages(&self, after: Cursor) -> Vec<Value> {
        let backlog = self.hub.since(&[self.channel.presence().unwrap()], after);
        let messages = backlog.messages.iter();
        messages
            .map(|message| serde_json::from_slice(&message.data).unwrap())
            .collect()
    }

    /// The presence messages in short.
    fn changes(&self) -> Vec<String> {
        let short = |message: Value| {
            let of = |what: &str| Some(format!("{what} {}", message[what]["id"].as_str()?));
            let change = of("joined").or_else(|| of("left")).unwrap_or_default();
            format!("{change} {}", message["count"]).trim().to_owned()
        };
        self.messages(Cursor(0)).into_iter().map(short).collect()
    }

    fn ids(&self) -> Vec<String> {
        let members = self.presence.members(&self.channel, None);
        assert_eq!(members.list.len(), members.count);
        let ids = members
            .list
            .iter()
            .map(|present| present.member.id().to_string());
        ids.collect()
    }
}

fn member(id: &str) -> Member {
    Member::new(id, None).unwrap()
}

#[test]
fn the_first_connection_joins_and_the_last_one_leaves_after_the_grace_time() {
    let f = Fixture::new(false);
    f.enter("a");
    f.enter("a");
    f.enter("b");
    f.leave("a", 0);
    f.tick(60);
    assert_eq!(f.ids(), ["a", "b"], "one connection is left");
    f.leave("a", 60);
    f.tick(69);
    assert_eq!(f.ids(), ["a", "b"], "within the grace time");
    f.tick(70);
    assert_eq!(f.ids(), ["b"]);
    assert_eq!(f.changes(), ["joined a 1", "joined b 2", "left a 1"]);
    f.leave("b", 70);
    f.tick(80);
    assert!(f.ids().is_empty() && f.presence.lock().channels.is_empty());
}

#[test]
fn a_member_that_comes_back_in_time_is_no_change() {
    let f = Fixture::new(false);
    f.enter("a");
    // Long-polls: each one ends, and the next one comes a little later.
    for seconds in 0..100 {
        f.leave("a", seconds);
        f.tick(seconds);
        f.enter("a");
    }
    assert!(
        f.presence.lock().leaving.len() <= 1,
        "one entry for each member"
    );
    f.leave("a", 100);
    f.tick(109);
    assert_eq!(f.changes(), ["joined a 1"]);
    f.tick(110);
    assert_eq!(f.changes(), ["joined a 1", "left a 0"]);
}

#[test]
fn without_a_grace_time_a_member_leaves_at_once() {
    let f = Fixture::new(false);
    let presence: Arc<dyn Presence> = f.presence.clone();
    drop(Seat::enter(
        &presence,
        &f.channel,
        &member("a"),
        Duration::ZERO,
    ));
    assert_eq!(f.changes(), ["joined a 1", "left a 0"]);
    // Nobody is a member of an internal channel.
    let internal = f.channel.presence().unwrap();
    drop(Seat::enter(
        &presence,
        &internal,
        &member("a"),
        Duration::ZERO,
    ));
    assert!(f.presence.lock().channels.is_empty());
}

#[test]
fn a_message_says_who_it_was() {
    let f = Fixture::new(false);
    let ann = Member::new("42", Some(&json!({"name": "Ann"}))).unwrap();
    assert!(f.presence.enter(&f.channel, &ann));
    assert_eq!(
        f.messages(Cursor(0)),
        [json!({"channel": "news", "joined": {"id": "42", "info": {"name": "Ann"}}, "count": 1})]
    );
    let backlog = f.hub.since(&[f.channel.presence().unwrap()], Cursor(0));
    let change = PresenceChange::of(&backlog.messages[0]);
    assert_eq!(change, Some((PresenceChange::Joined(ann), 1)));
    let list = f.presence.members(&f.channel, None);
    assert_eq!(
        format!("{{{}}}", list.json_fields()),
        format!(
            r#"{{"members":[{{"id":"42","info":{{"name":"Ann"}},"connections":1}}],"count":1,"cursor":"{}"}}"#,
            f.hub.last()
        )
    );
}

#[test]
fn ten_thousand_members_are_counted_once_a_second_and_listed_in_parts() {
    let f = Fixture::new(false);
    for number in 0..10_000 {
        f.enter(&format!("m{number:05}"));
    }
    let before = f.hub.status().published;
    assert_eq!(before, MANY as u64, "then single changes end");
    f.tick(0);
    f.tick(1);
    assert_eq!(f.hub.status().published, before + 1);
    assert_eq!(f.changes().last().unwrap(), "10000");
    let (mut after, mut listed) = (None, Vec::new());
    loop {
        let members = f.presence.members(&f.channel, after.as_deref());
        assert_eq!(members.count, 10_000);
        assert!(members.list.len() <= Members::MAX);
        listed.extend(
            members
                .list
                .into_iter()
                .map(|present| present.member.id().to_string()),
        );
        after = members.next;
        if after.is_none() {
            break;
        }
    }
    assert!(listed.len() == 10_000 && listed.is_sorted());
    for number in 0..9_200 {
        f.leave(&format!("m{number:05}"), 2);
    }
    f.tick(20);
    assert_eq!(f.changes().last().unwrap(), "800");
    f.enter("new");
    assert_eq!(f.changes().last().unwrap(), "joined new 801");
    assert_eq!(f.hub.status().published, before + 3);
}

#[test]
fn the_members_use_bounded_memory() {
    let f = Fixture::new(false);
    let presence: Arc<dyn Presence> = f.presence.clone();
    let info = json!("x".repeat(2000));
    let large = |number: usize| Member::new(&number.to_string(), Some(&info)).unwrap();
    let mut seats: Vec<Seat> = (0..40_000)
        .map(|number| Seat::enter(&presence, &f.channel, &large(number), Duration::ZERO))
        .collect();
    let count = f.presence.members(&f.channel, None).count;
    assert!((20_000..30_000).contains(&count), "{count}");
    let other = ChannelName::parse("other").unwrap();
    drop(Seat::enter(&presence, &other, &large(0), Duration::ZERO));
    assert_eq!(f.presence.members(&other, None).count, 0);
    // A member that found no room does not take the place of one with the same id.
    let refused = seats.pop().unwrap();
    seats.truncate(10);
    let same = Seat::enter(&presence, &f.channel, &large(39_999), Duration::ZERO);
    drop(refused);
    assert_eq!(f.presence.members(&f.channel, None).count, 11);
    drop((same, seats));
    assert!(f.presence.lock().channels.is_empty() || f.presence.lock().bytes == 0);
    assert_eq!(f.presence.lock().bytes, 0);
}

#[test]
fn when_everybody_leaves_a_counted_channel_at_once_that_is_published() {
    let f = Fixture::new(false);
    let ids: Vec<String> = (0..=MANY).map(|number| number.to_string()).collect();
    ids.iter().for_each(|id| f.enter(id));
    f.tick(0);
    ids.iter().for_each(|id| f.leave(id, 0));
    f.tick(10);
    assert_eq!(f.changes().last().unwrap(), "0");
    assert!(f.presence.lock().channels.is_empty());
}

#[test]
fn after_a_restart_clients_hear_of_the_members_that_have_not_come_back() {
    let f = Fixture::new(true);
    f.enter("a");
    f.tick(1);
    assert_eq!(f.changes(), ["joined a 1"]);
    f.tick(11);
    f.tick(12);
    assert_eq!(f.changes(), ["joined a 1", "1"]);
}

#[derive(Debug, Clone)]
enum Op {
    Enter(usize),
    Leave(usize),
    Wait(u32),
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever applies the messages to an empty list has the list of the daemon, and nobody leaves before the grace time.
    #[test]
    fn the_messages_give_the_list(ops in prop::collection::vec(prop_oneof![
        (0..4_usize).prop_map(Op::Enter),
        (0..4_usize).prop_map(Op::Leave),
        (1..12_u32).prop_map(Op::Wait),
    ], 1..60)) {
        let f = Fixture::new(false);
        let (mut connections, mut left, mut now) = ([0; 4], [None; 4], 0);
        for op in ops {
            match op {
                Op::Enter(member) => {
                    f.enter(&member.to_string());
                    connections[member] += 1;
                }
                Op::Leave(member) if connections[member] > 0 => {
                    f.leave(&member.to_string(), now);
                    connections[member] -= 1;
                    left[member] = Some(now);
                }
                Op::Leave(_) => {}
                Op::Wait(seconds) => {
                    now += seconds;
                    f.tick(now);
                }
            }
            let is_on = |member: &usize| {
                connections[*member] > 0 || left[*member].is_some_and(|left| now < left + 10)
            };
            let expected: Vec<String> = (0..4).filter(is_on).map(|member| member.to_string()).collect();
            prop_assert_eq!(f.ids(), expected.clone());
            let mut list = BTreeSet::new();
            for message in f.messages(Cursor(0)) {
                let id = |what: &str| message[what]["id"].as_str().map(str::to_owned);
                let is_news = match (id("joined"), id("left")) {
                    (Some(id), _) => list.insert(id),
                    (_, Some(id)) => list.remove(&id),
                    _ => false,
                };
                prop_assert!(is_news && message["count"] == list.len());
            }
            prop_assert!(expected.iter().eq(&list));
        }
    }
}
