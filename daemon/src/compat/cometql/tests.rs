//! Statements, executed on a hub.

use std::{cell::Cell, sync::Arc};

use comet_proto::ChannelName;

use super::{
    error::SqlError,
    execute::Executor,
    reply::{Reply, Rows},
};
use crate::{
    broker::{Broker, Local, SourceKind},
    compat::comet_server::{
        UserId, Users,
        connections::{CONNECTIONS, Visitor},
    },
    config::Config,
    hub::{Hub, NewMessage},
};

/// A hub, and statements on it.
struct Server {
    hub: Arc<Hub>,
    broker: Arc<Local>,
    published: Cell<usize>,
}

impl Server {
    fn new() -> Self {
        let hub = Hub::new(Config::default().hub_history(), 1);
        Self {
            broker: Local::new(hub.clone()),
            hub,
            published: Cell::new(0),
        }
    }

    fn users(&self) -> Users<'_> {
        Users::new(&self.hub, &*self.broker)
    }

    fn reply(&self, query: &str) -> Reply {
        let publish = |new: NewMessage<'_>| {
            self.published.set(self.published.get() + 1);
            Ok(self.broker.publish(SourceKind::Client, new))
        };
        let executor = Executor {
            hub: &self.hub,
            broker: &*self.broker,
            publish: &publish,
            site: "15",
            connection: 7,
        };
        executor.execute(query.as_bytes()).reply
    }

    /// The rows, each as one text.
    fn rows(&self, query: &str) -> Vec<String> {
        match self.reply(query) {
            Reply::Rows(rows) => rows.rows.iter().map(|row| row.join("|")).collect(),
            other => panic!("{query}: {other:?}"),
        }
    }

    fn columns(&self, query: &str) -> Vec<String> {
        match self.reply(query) {
            Reply::Rows(Rows { columns, .. }) => columns,
            other => panic!("{query}: {other:?}"),
        }
    }

    /// The affected rows and the insert id.
    fn ok(&self, query: &str) -> (u64, u64) {
        match self.reply(query) {
            Reply::Ok { affected, id } => (affected, id),
            other => panic!("{query}: {other:?}"),
        }
    }

    fn error(&self, query: &str) -> SqlError {
        match self.reply(query) {
            Reply::Error(error) => error,
            other => panic!("{query}: {other:?}"),
        }
    }

    /// The messages of a channel: event and data.
    fn messages(&self, channel: &str) -> Vec<(String, String)> {
        let channel = ChannelName::parse(channel).unwrap();
        let backlog = self.hub.since(&[channel], comet_proto::Cursor(0));
        let text = |data: &[u8]| String::from_utf8(data.into()).unwrap();
        let pair = |message: &Arc<comet_proto::Message>| {
            (message.name.as_str().to_owned(), text(&message.data))
        };
        backlog.messages.iter().map(pair).collect()
    }
}

#[test]
fn an_insert_into_pipes_messages_publishes() {
    let server = Server::new();
    let query = r"INSERT INTO pipes_messages (name, event, message)VALUES('SimplePhpChat', 'new', 'it\'s\n' );";
    assert_eq!(server.ok(query), (0, 0));
    assert_eq!(server.published.get(), 1);
    let expected = ("new".to_owned(), "it's\n".to_owned());
    assert_eq!(server.messages("SimplePhpChat"), [expected]);
    let all = "INSERT INTO pipes_messages VALUES ('', 0, 'abc', 0, '', 'all columns', 0)";
    assert_eq!(server.ok(all), (0, 0));
    assert_eq!(server.messages("abc")[0].1, "all columns");
}

#[test]
fn the_history_of_a_pipe_is_shown_if_its_length_is_set() {
    let server = Server::new();
    let insert = |text: &str| {
        let query = format!(
            "INSERT INTO pipes_messages (name, event, message) VALUES ('abc', 'e', '{text}')"
        );
        server.ok(&query);
    };
    let select = || {
        server.rows(
            "SELECT name, `index`, event, message, user_id FROM pipes_messages WHERE name = 'abc'",
        )
    };
    insert("one");
    assert!(select().is_empty());
    let set = "INSERT INTO pipes_settings (name, length) VALUES ('abc', 2)";
    assert_eq!(server.ok(set), (1, 0));
    let settings = "SELECT * FROM pipes_settings WHERE name IN ('abc', 'other')";
    assert_eq!(server.rows(settings), ["abc|2"]);
    insert("two");
    assert_eq!(select(), ["abc|0|e|one|0", "abc|1|e|two|0"]);
    let ids = server.rows("SELECT id, time FROM pipes_messages WHERE name = 'abc'");
    let (id, time) = ids[0].split_once('|').unwrap();
    assert!(id.ends_with("-abc") && id.starts_with(time), "{id}");
    assert_eq!(
        server.ok(&format!("DELETE FROM pipes_messages WHERE id = '{id}'")),
        (0, 0)
    );
    assert_eq!(select(), ["abc|0|e|two|0"]);
    let filtered = "SELECT message FROM pipes_messages WHERE name = 'abc' AND event = 'x'";
    assert!(server.rows(filtered).is_empty());
    assert_eq!(
        server.ok("DELETE FROM pipes_messages WHERE name = 'abc'"),
        (0, 0)
    );
    assert!(select().is_empty());
    insert("three");
    assert_eq!(
        server.ok("DELETE FROM pipes_settings WHERE name = 'abc'"),
        (0, 0)
    );
    assert!(server.rows(settings).is_empty());
    assert_eq!(server.ok(set), (1, 0));
    assert!(
        select().is_empty(),
        "the history was removed with the setting"
    );
}

#[test]
fn the_newest_99_messages_are_shown_and_trusted_pipes_need_no_setting() {
    let server = Server::new();
    for n in 0..150 {
        server.ok(&format!(
            "INSERT INTO pipes_messages (name, event, message) VALUES ('trust_a', '', '{n}')"
        ));
    }
    let rows = server.rows("SELECT `index`, message FROM pipes_messages WHERE name = 'trust_a'");
    assert_eq!(rows.len(), 99);
    assert_eq!((&*rows[0], &*rows[98]), ("0|51", "98|149"));
    let two = server.rows("SELECT message FROM pipes_messages WHERE name = 'trust_a' LIMIT 2");
    assert_eq!(two, ["51", "52"]);
}

#[test]
fn users_have_keys_data_and_messages() {
    let server = Server::new();
    let insert = "INSERT INTO users_auth (id, hash) VALUES (2001, 'first')";
    assert_eq!(server.ok(insert), (1, 2001));
    assert_eq!(
        server.ok("INSERT INTO users_auth (hash, id) VALUES ('sec=+/_', '2001')"),
        (1, 2001)
    );
    let select = "SELECT * FROM users_auth WHERE id IN (2001, 2002)";
    assert_eq!(server.rows(select), ["2001|sec=+/_"]);
    assert_eq!(server.ok("DELETE FROM users_auth WHERE id = 2001"), (0, 0));
    assert!(server.rows(select).is_empty());
    assert_eq!(
        server.ok("INSERT INTO users_data VALUES (2001, '{\\\"a\\\":1}')"),
        (1, 2001)
    );
    assert_eq!(
        server.rows("SELECT * FROM users_data WHERE id = 2001"),
        ["2001|{\"a\":1}"]
    );
    server.ok("DELETE FROM users_data WHERE id = 2001");
    assert!(
        server
            .rows("SELECT * FROM users_data WHERE id = 2001")
            .is_empty()
    );
    let send = "INSERT INTO users_messages (id, event, message) VALUES (2001, 'e', 'hi')";
    assert_eq!(server.ok(send), (0, 2001));
    let queue = "SELECT id, event, message FROM users_messages WHERE id = 2001";
    assert_eq!(server.rows(queue), ["2001|e|hi"]);
    server.ok("DELETE FROM users_messages WHERE id = 2001");
    assert!(server.rows(queue).is_empty());
}

#[test]
fn the_time_of_a_user_is_0_while_there_and_minus_1_if_unknown() {
    let server = Server::new();
    let user = UserId::parse("2003").unwrap();
    let visitor = Visitor {
        user: Some(user),
        uuid: "u".into(),
        ip: "192.0.2.1".into(),
        ..Visitor::default()
    };
    let time = || server.rows("SELECT * FROM users_time WHERE id IN (2003, 2004, 2003)");
    assert_eq!(time(), ["2003|-1", "2004|-1"]);
    let (seat, _) = server.users().enter(visitor);
    assert_eq!(time(), ["2003|0", "2004|-1"]);
    let pipe = ChannelName::parse("track_2003").unwrap();
    CONNECTIONS.set_pipes(&seat, vec![pipe]);
    let readers = "SELECT * FROM users_in_pipes WHERE name = 'track_2003'";
    assert_eq!(server.rows(readers), ["track_2003|2003|u||192.0.2.1||"]);
    let last = server.hub.last();
    server.users().leave(seat, last);
    let seconds = (last.0 / 1_000_000).to_string();
    assert_eq!(time()[0][..12], format!("2003|{seconds}")[..12]);
    assert!(server.rows(readers).is_empty());
}

#[test]
fn tokens_can_be_revoked() {
    let server = Server::new();
    assert_eq!(
        server.ok("INSERT INTO revoked_tokens (token) VALUES ('a.b.c')"),
        (1, 1)
    );
    assert_eq!(
        server.ok("INSERT INTO revoked_tokens VALUES ('d.e.f')"),
        (1, 1)
    );
    server.ok("INSERT INTO revoked_tokens VALUES ('a.b.c')");
    assert_eq!(
        server.rows("SELECT * FROM revoked_tokens"),
        ["a.b.c", "d.e.f"]
    );
    let one = "SELECT * FROM revoked_tokens WHERE token IN ('d.e.f', 'x')";
    assert_eq!(server.rows(one), ["d.e.f"]);
    server.ok("DELETE FROM revoked_tokens WHERE token = 'a.b.c'");
    assert_eq!(server.rows("SELECT token FROM revoked_tokens"), ["d.e.f"]);
}

#[test]
fn a_pipe_has_a_row_whether_it_is_known_or_not() {
    let server = Server::new();
    server.ok("INSERT INTO pipes_messages (name, event, message) VALUES ('abc', '', '')");
    let rows = server.rows("SELECT * FROM pipes WHERE name IN ('abc', 'unknown', 'abc')");
    assert_eq!(rows, ["abc|0", "unknown|0"]);
}

#[test]
fn the_server_describes_itself() {
    let server = Server::new();
    let tables = [
        "users_auth",
        "users_time",
        "users_messages",
        "pipes_messages",
        "users_in_pipes",
        "pipes",
        "pipes_settings",
    ];
    assert_eq!(server.rows("SHOW TABLES"), tables);
    assert_eq!(server.columns("SHOW TABLES"), ["Tables"]);
    assert_eq!(server.rows("SHOW DATABASES"), ["CometQL_v1"]);
    assert_eq!(
        server.rows("DESCRIBE users_auth"),
        ["id|int(11)|NO|PRI||", "hash|varchar(32)|NO|||"]
    );
    for table in tables {
        assert!(
            !server
                .rows(&format!("SHOW COLUMNS FROM {table}"))
                .is_empty()
        );
    }
    let status = server.rows("SHOW STATUS");
    assert_eq!(status[..2], ["flag|session", "id|15"]);
    assert_eq!(server.rows("SELECT DATABASE(), 1"), ["CometQL_v1|1"]);
    assert_eq!(
        server.rows("select @@version_comment limit 1"),
        ["5.7.0-comet"]
    );
    assert!(server.rows("select @@version_comment limit 0").is_empty());
    assert_eq!(
        server.rows("SHOW VARIABLES LIKE 'version'"),
        ["version|5.7.0-comet"]
    );
    assert_eq!(server.rows("SHOW PROCESSLIST").len(), 1);
    assert_eq!(server.ok("SET NAMES utf8"), (0, 0));
    assert_eq!(server.ok("USE CometQL_v1"), (0, 0));
}

#[test]
fn the_errors_have_the_numbers_of_the_documents() {
    let server = Server::new();
    let pipe = |values: &str| {
        format!("INSERT INTO pipes_messages (name, event, message) VALUES ({values})")
    };
    for (query, code) in [
        ("SELECT * FROM conference WHERE id = 1".to_owned(), 2),
        (
            "INSERT INTO pipes (name, users) VALUES ('abc', 1)".into(),
            10,
        ),
        ("DELETE FROM users_time WHERE id = 1".into(), 10),
        ("DELETE FROM users_in_pipes WHERE name = 'abc'".into(), 10),
        (pipe(&format!("'{}', '', ''", "x".repeat(65))), 11),
        (pipe(&format!("'abc', '{}', ''", "x".repeat(65))), 11),
        (
            format!("INSERT INTO users_auth VALUES (1, '{}')", "x".repeat(33)),
            11,
        ),
        (
            "INSERT INTO pipes_messages (name, message) VALUES ('abc', '')".into(),
            12,
        ),
        (pipe("'a.b', '', ''"), 12),
        (pipe("'abc', 'a b', ''"), 12),
        ("INSERT INTO users_auth VALUES ('-5', 'a')".into(), 12),
        ("INSERT INTO users_auth VALUES (0, 'a')".into(), 12),
        ("INSERT INTO users_auth VALUES (1000000000, 'a')".into(), 12),
        ("INSERT INTO users_auth VALUES (1, 'a-b')".into(), 12),
        ("INSERT INTO pipes_settings VALUES ('abc', 1001)".into(), 12),
        ("INSERT INTO pipes_settings VALUES ('abc', 'x')".into(), 12),
        ("SELECT * FROM pipes".into(), 13),
        ("SELECT * FROM users_time WHERE time = 0".into(), 13),
        ("DELETE FROM users_auth".into(), 13),
        ("DELETE FROM pipes_messages WHERE event = 'a'".into(), 13),
        ("SELECT name, name FROM pipes WHERE name = 'abc'".into(), 13),
        (
            "SELECT name FROM pipes WHERE name = 'abc' AND name = 'abc'".into(),
            13,
        ),
        ("INSERT INTO users_auth (id, id) VALUES (1, 2)".into(), 13),
        ("INSERT INTO users_auth (id, hash) VALUES (1)".into(), 14),
        ("SELECT color FROM pipes WHERE name = 'abc'".into(), 14),
        ("SELECT name FROM pipes WHERE color = 'abc'".into(), 14),
        (
            "INSERT INTO users_auth (id, color) VALUES (1, 'a')".into(),
            14,
        ),
        ("SELECT * FROM Pipes WHERE name = 'abc'".into(), 15),
        ("SELECT * FROM profiler".into(), 15),
        ("DESCRIBE profiler".into(), 15),
        ("USE mysql".into(), 15),
        (pipe("'ab', '', ''"), 17),
        ("INSERT INTO users_auth VALUES (1, '')".into(), 17),
    ] {
        assert_eq!(server.error(&query).code(), code, "{query}");
    }
    assert_eq!(server.published.get(), 0);
    let text = server
        .error("INSERT INTO pipes VALUES ('abc', 1)")
        .to_string();
    assert_eq!(text, "Table `pipes` is read only");
}
