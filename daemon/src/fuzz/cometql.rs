//! CometQL: the login, the packets, and the statements. Each is checked with a second implementation: what a client of MySQL
//! writes and reads.

use std::{collections::BTreeSet, sync::Arc};

use comet_proto::{ChannelName, Cursor};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::{
    broker::{Broker, Local, SourceKind},
    compat::{
        cometql::{
            execute::Executor,
            grammar::{MAX_QUERY, MIN_QUERY, parse},
            login::{DATABASE, Login, NONCE, greeting},
            packet::{Received, packet},
            reply::{Reply, Rows},
            statement::{Condition, Fact, FactKind, Show, Statement},
        },
        port::CommandBuffer,
    },
    config::{Config, Secret},
    hub::{Hub, NewMessage},
};

/// The input is a nonce and the payload of a login.
pub(super) fn login(bytes: &[u8]) {
    let Some((nonce, payload)) = bytes.split_first_chunk::<NONCE>() else {
        return;
    };
    let nonce = nonce.map(|byte| byte.max(1));
    assert_eq!(read_nonce(&greeting(&nonce, 7)), nonce);
    let _ = Login::parse_change(payload);
    let Ok(login) = Login::parse(payload) else {
        return;
    };
    let _ = login.needs_switch();
    let key: Secret = serde_json::from_str("\"a key\"").expect("a text");
    let expected = answer(b"a key", &nonce);
    if login.check(&key, &nonce).is_ok() {
        assert_eq!(login.auth, expected);
    }
    // The same user and database with the right answer, as a client writes them.
    let again = [
        &0x001a_a28d_u32.to_le_bytes()[..],
        &[0; 28],
        &login.user,
        &[0, NONCE as u8],
        &expected,
        &login.database,
        b"\0mysql_native_password\0",
    ];
    let again = Login::parse(&again.concat()).expect("a client's login");
    assert_eq!(
        (&again.user, &again.database),
        (&login.user, &login.database)
    );
    let is_database = login.database.is_empty() || login.database == DATABASE.as_bytes();
    let digits = (1..=18).contains(&login.user.len()) && login.user.iter().all(u8::is_ascii_digit);
    let is_user = digits || login.user == b"root";
    assert_eq!(again.check(&key, &nonce).is_ok(), is_user && is_database);
}

/// The nonce of a greeting, as a client reads it.
fn read_nonce(greeting: &[u8]) -> Vec<u8> {
    let end = greeting
        .iter()
        .position(|byte| *byte == 0)
        .expect("the end of the version");
    let first = &greeting[end + 5..end + 13];
    let second = &greeting[end + 32..end + 44];
    [first, second].concat()
}

/// The answer to a nonce: `SHA1(key) XOR SHA1(nonce + SHA1(SHA1(key)))`.
fn answer(key: &[u8], nonce: &[u8]) -> Vec<u8> {
    let sha1 = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec();
    let once = sha1(key);
    let mask = sha1(&[nonce, &sha1(&once)].concat());
    once.iter().zip(mask).map(|(a, b)| a ^ b).collect()
}

/// Longest payload in the test of the packets.
const MAX: usize = 40;

/// The first byte says into which pieces the rest is cut.
pub(super) fn packets(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else {
        return;
    };
    let found = received(stream.chunks(usize::from(cut) + 1));
    assert_eq!(found, split(stream));
    for (sequence, payload) in found {
        let Some(payload) = payload else { continue };
        let again = packet(sequence, &payload);
        let length = again.len();
        let parsed = Received::parse(&again, MAX);
        let expected = Received::Packet {
            sequence,
            payload: &payload,
            length,
        };
        assert_eq!(parsed, expected);
    }
    check_rows(stream);
}

/// The sequence numbers and payloads of the packets. `None`: the payload was too long.
type ReceivedPackets = Vec<(u8, Option<Vec<u8>>)>;

fn received<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> ReceivedPackets {
    let (mut buffer, mut found) = (CommandBuffer::default(), Vec::new());
    for chunk in chunks {
        buffer.push(chunk);
        loop {
            let used = match Received::parse(buffer.bytes(), MAX) {
                Received::Incomplete => break,
                Received::Packet {
                    sequence,
                    payload,
                    length,
                } => {
                    found.push((sequence, Some(payload.to_vec())));
                    length
                }
                Received::TooLong { sequence, length } => {
                    found.push((sequence, None));
                    let Some(length) = length else {
                        return found;
                    };
                    length
                }
            };
            buffer.consume(used);
        }
    }
    found
}

/// The packets of the whole stream.
fn split(stream: &[u8]) -> ReceivedPackets {
    let (mut rest, mut found) = (stream, Vec::new());
    while let [a, b, c, sequence, after @ ..] = rest {
        let length = usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16;
        if length > MAX {
            found.push((*sequence, None));
            if length == 0xff_ffff {
                break;
            }
        } else if let Some(payload) = after.get(..length) {
            found.push((*sequence, Some(payload.to_vec())));
        } else {
            break;
        }
        rest = after.get(length..).unwrap_or_default();
    }
    found
}

/// A client reads the rows that the server writes.
fn check_rows(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let values: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let columns = values.len().min(300);
    let rows = Rows {
        columns: values[..columns].to_vec(),
        rows: values
            .chunks_exact(columns)
            .map(<[String]>::to_vec)
            .collect(),
    };
    let sequence = bytes.first().copied().unwrap_or_default();
    let packets = Reply::Rows(rows.clone()).packets(sequence, false);
    assert_eq!(read_reply(&packets, sequence), ClientReply::Rows(rows));
}

/// A reply as a client understands it.
#[derive(Debug, PartialEq)]
enum ClientReply {
    Ok,
    Error(u16),
    Rows(Rows),
    NoFields,
}

/// Reads a reply to a packet with this sequence number.
fn read_reply(bytes: &[u8], sequence: u8) -> ClientReply {
    let (mut rest, mut next) = (bytes, sequence);
    let mut payloads = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(rest[0]) | usize::from(rest[1]) << 8 | usize::from(rest[2]) << 16;
        assert!(length < 0xff_ffff, "no reply of a test is that long");
        next = next.wrapping_add(1);
        assert_eq!(rest[3], next, "packets are numbered");
        payloads.push(&rest[4..4 + length]);
        rest = &rest[4 + length..];
    }
    let is_end = |payload: &[u8]| payload.first() == Some(&0xfe) && payload.len() < 9;
    match *payloads[0] {
        [0, ..] => ClientReply::Ok,
        [0xff, low, high, b'#', ..] => ClientReply::Error(u16::from_le_bytes([low, high])),
        [0xfe, ..] if payloads.len() == 1 => ClientReply::NoFields,
        _ => {
            let mut first = payloads[0];
            let count = take_number(&mut first);
            let columns = payloads[1..=count].iter().map(|definition| {
                let mut definition = *definition;
                let texts: Vec<String> = (0..6).map(|_| take_text(&mut definition)).collect();
                assert_eq!(texts[0], "def");
                assert_eq!(definition.len(), 13);
                texts[4].clone()
            });
            let columns: Vec<String> = columns.collect();
            assert!(is_end(payloads[count + 1]));
            let (last, rows) = payloads[count + 2..].split_last().expect("an end");
            assert!(is_end(last));
            let rows = rows.iter().map(|row| {
                assert!(!is_end(row));
                let mut row = *row;
                let values = (0..count).map(|_| take_text(&mut row)).collect();
                assert!(row.is_empty());
                values
            });
            let rows = rows.collect();
            ClientReply::Rows(Rows { columns, rows })
        }
    }
}

fn take_number(rest: &mut &[u8]) -> usize {
    let (first, after) = rest.split_first().expect("a number");
    let bytes = match first {
        0..=250 => 0,
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        other => panic!("{other} begins no number"),
    };
    let (number, after) = after.split_at(bytes);
    *rest = after;
    match bytes {
        0 => usize::from(*first),
        _ => number
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
    }
}

fn take_text(rest: &mut &[u8]) -> String {
    let length = take_number(rest);
    let (text, after) = rest.split_at(length);
    *rest = after;
    String::from_utf8(text.to_vec()).expect("texts are UTF-8")
}

/// The input is a query, and also a text that PHP escapes and publishes.
pub(super) fn query(bytes: &[u8]) {
    check_statement(bytes);
    let hub = Hub::new(Config::default().hub_history(), 1);
    let broker = Local::new(hub.clone());
    let reply = execute(&hub, &broker, bytes);
    if parse(bytes).is_err() {
        assert!(matches!(reply, ClientReply::Error(_)));
    }
    let text: String = String::from_utf8_lossy(bytes).chars().take(2000).collect();
    let insert = format!(
        "INSERT INTO pipes_messages (name, event, message)VALUES('text', '', {});",
        quoted(&text)
    );
    if insert.len() <= MAX_QUERY {
        assert_eq!(execute(&hub, &broker, insert.as_bytes()), ClientReply::Ok);
        let channel = ChannelName::parse("text").expect("a name");
        let published = hub.since(&[channel], Cursor(0)).messages;
        let last = published.last().expect("the message");
        assert_eq!(*last.data, *text.as_bytes());
    }
}

fn execute(hub: &Arc<Hub>, broker: &Arc<Local>, query: &[u8]) -> ClientReply {
    let publish = |new: NewMessage<'_>| Ok(broker.publish(SourceKind::Client, new));
    let executor = Executor {
        hub,
        broker: &**broker,
        publish: &publish,
        site: "15",
        connection: 7,
    };
    let outcome = executor.execute(query);
    read_reply(&outcome.reply.packets(0, false), 0)
}

/// An accepted statement is written again in another way, and means the same.
fn check_statement(query: &[u8]) {
    let statement = match parse(query) {
        Ok(statement) => statement,
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "{error}");
            return;
        }
    };
    assert!((MIN_QUERY..=MAX_QUERY).contains(&query.len()));
    if let Statement::Select { conditions, .. } | Statement::Delete { conditions, .. } = &statement
    {
        let columns: BTreeSet<&String> = conditions.iter().map(|c| &c.column).collect();
        assert_eq!(columns.len(), conditions.len());
    }
    let again = written(&statement);
    if again.len() <= MAX_QUERY {
        assert_eq!(parse(again.as_bytes()).as_ref(), Ok(&statement), "{again}");
    }
}

fn written(statement: &Statement) -> String {
    match statement {
        Statement::Insert {
            table,
            columns,
            values,
        } => {
            let columns = columns
                .as_ref()
                .map(|columns| format!("({})", list(columns)));
            let columns = columns.unwrap_or_default();
            format!(
                "insert into {}{columns}values({})",
                quoted(table),
                list(values)
            )
        }
        Statement::Select {
            table,
            columns,
            conditions,
            limit,
        } => {
            let columns = columns.as_ref().map_or("*".into(), |columns| list(columns));
            let limit = limit
                .map(|limit| format!(" limit {limit}"))
                .unwrap_or_default();
            let (table, conditions) = (quoted(table), written_conditions(conditions));
            format!("select {columns} from {table}{conditions}{limit}")
        }
        Statement::Delete { table, conditions } => {
            format!(
                "delete from {}{}",
                quoted(table),
                written_conditions(conditions)
            )
        }
        Statement::Facts(facts, has_row) => {
            let facts: Vec<String> = facts.iter().map(written_fact).collect();
            let limit = if *has_row { "" } else { " limit 0" };
            format!("select {}{limit}", facts.join(","))
        }
        Statement::Show(show) => match show {
            Show::Tables => "show tables".into(),
            Show::Databases => "show databases".into(),
            Show::Status => "show status".into(),
            Show::TableStatus => "show table status".into(),
            Show::Processes => "show processlist".into(),
            Show::Variables(None) => "show variables".into(),
            Show::Variables(Some(like)) => format!("show variables like {}", quoted(like)),
        },
        Statement::Describe(table) => format!("desc {}", quoted(table)),
        Statement::Use(database) => format!("use {}", quoted(database)),
        Statement::Nothing => "set a".into(),
        Statement::Transaction(true) => "begin".into(),
        Statement::Transaction(false) => "commit".into(),
    }
}

fn written_conditions(conditions: &[Condition]) -> String {
    let condition = |condition: &Condition| match &condition.values[..] {
        [value] => format!("{}={}", quoted(&condition.column), quoted(value)),
        values => format!("{} in({})", quoted(&condition.column), list(values)),
    };
    match conditions {
        [] => String::new(),
        _ => {
            let conditions: Vec<String> = conditions.iter().map(condition).collect();
            format!(" where {}", conditions.join(" and "))
        }
    }
}

fn written_fact(fact: &Fact) -> String {
    let name = quoted(&fact.name);
    match &fact.kind {
        FactKind::Version => format!("version() as {name}"),
        FactKind::Database => format!("database() as {name}"),
        FactKind::User => format!("user() as {name}"),
        FactKind::Connection => format!("connection_id() as {name}"),
        FactKind::Constant(value)
            if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) =>
        {
            format!("{value} as {name}")
        }
        FactKind::Constant(value) => quoted(value),
    }
}

fn list(values: &[String]) -> String {
    let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
    values.join(",")
}

/// A text in quotes, escaped as `mysqli_real_escape_string` does.
fn quoted(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\0' => out.push_str("\\0"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\x1a' => out.push_str("\\Z"),
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            other => out.push(other),
        }
    }
    out + "'"
}
