//! CometQL with the clients that users of comet-server.ru have: PHP's mysqli and PDO, MariaDB's command line, PyMySQL and
//! mysql2.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    daemon::{Daemon, feed, wait_for},
    wire::{data, get, parked},
};

pub const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The settings of a port that is free, and `more` in the same table.
pub fn port(more: &str) -> String {
    format!("[compat.comet_server]\nsql = \"127.0.0.1:0\"\nkey = \"{KEY}\"\n{more}\n")
}

/// Runs a command to its end, and returns what it has printed.
fn printed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{error}");
    text
}

fn tests() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests"))
}

fn php(daemon: &Daemon, script: &str, arguments: &[&str]) -> String {
    let mut php = Command::new("php");
    php.args(["-d", "display_errors=stderr"])
        .arg(tests().join("php/cometql").join(script))
        .arg(daemon.port("cometql").to_string())
        .arg(KEY)
        .args(arguments);
    printed(&mut php)
}

/// MariaDB's command line with these arguments.
fn mariadb(daemon: &Daemon, arguments: &[&str]) -> Command {
    let address = daemon.port("cometql");
    let mut command = Command::new("mariadb");
    command
        .args(["--no-defaults", "--protocol=tcp", "-u15"])
        .arg(format!("-h{}", address.ip()))
        .arg(format!("-P{}", address.port()))
        .arg(format!("-p{KEY}"))
        .args(arguments);
    command
}

#[test]
fn the_chat_of_the_articles_publishes_to_a_page() {
    let daemon = Daemon::start(&port(""));
    let mut page = parked(&daemon, get("/ch/SimplePhpChat", ""));
    let text = "it's <b>\"C:\\new\"</b>\nж🚀";
    assert_eq!(php(&daemon, "chat.php", &["O'Hara", text]), "ok 0");
    let received: serde_json::Value = serde_json::from_str(&data(&page.answer())[0]).unwrap();
    assert_eq!(received["text"], text);
    assert_eq!(received["name"], "O&#039;Hara");
}

#[test]
fn mysqli_does_what_scripts_do_with_it() {
    let daemon = Daemon::start(&port(""));
    let lines = php(&daemon, "mysqli.php", &[]);
    let expected = [
        r#"[16,"Authentication failure"]"#,
        r#"[16,"Authentication failure: the user must be the number of the site"]"#,
        r#"[15,"Select database failure: the only database is CometQL_v1"]"#,
        r#"["5.7.0-comet",true,true]"#,
        "[1,42]",
        r#"[{"id":"42","hash":"abc="}]"#,
        r#"[["42","-1"],["43","-1"]]"#,
        r#"[["e","ж🚀"]]"#,
        "0",
        r#"{"name":"SimplePhpChat","users":"0"}"#,
        r#"["users_auth","users_time","users_messages","pipes_messages","users_in_pipes","pipes","pipes_settings"]"#,
        "true",
        r#"[10,"Table `pipes` is read only"]"#,
        r#"[3,"Syntax error in query near 'UPDATE pipes SET users'"]"#,
        r#"[11,"Data is too long"]"#,
        r#"[1295,"Prepared statements are not supported; let the client put the values into the query"]"#,
        r#"["1"]"#,
        r#"[true,["CometQL_v1"]]"#,
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn pdo_works_with_emulated_and_with_real_prepared_statements() {
    for emulate in ["1", "0"] {
        let daemon = Daemon::start(&port(""));
        let lines = php(&daemon, "pdo.php", &[emulate]);
        let expected = "1 7\n[{\"id\":\"7\",\"hash\":\"hash7\"}]\n[15,\"HY000\"]\n";
        assert_eq!(lines, expected, "emulate {emulate}");
        let published = daemon.history("pdo").into_iter().map(|(_, data)| data);
        let published: Vec<String> = published.collect();
        assert_eq!(published, ["it's", "{\"a\":\"\\\\\"}", "two\nlines"]);
    }
}

#[test]
fn the_command_line_works_in_batch_mode() {
    let daemon = Daemon::start(&port(""));
    let statements = "INSERT INTO pipes_messages (name, event, message) VALUES ('cli', '', 'one');\n\
        insert into users_auth values (3, 'abc');\n\
        SELECT * FROM users_auth WHERE id = 3;\nSHOW DATABASES;\nuse CometQL_v1;\nDESCRIBE users_auth;\n";
    let output = feed(
        &mut mariadb(&daemon, &["CometQL_v1"]),
        statements.as_bytes(),
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = "id\thash\n3\tabc\nDatabase\nCometQL_v1\nField\tType\tNull\tKey\tDefault\tExtra\n\
        id\tint(11)\tNO\tPRI\t\t\nhash\tvarchar(32)\tNO\t\t\t\n";
    assert_eq!(text, expected);
    assert_eq!(daemon.history("cli")[0].1, "one");
    let mut wrong = mariadb(&daemon, &["CometQL_v1", "-e", "DROP TABLE pipes"]);
    let error = wrong.output().unwrap().stderr;
    let error = String::from_utf8(error).unwrap();
    assert!(
        error.contains("ERROR 3 (HY000) at line 1: Syntax error"),
        "{error}"
    );
}

/// The client reads the tables and columns at the start only on a terminal, so `script` makes one.
#[test]
fn the_command_line_works_on_a_terminal() {
    let daemon = Daemon::start(&port(""));
    let address = daemon.port("cometql");
    let client = format!(
        "mariadb --no-defaults --protocol=tcp -u15 -h127.0.0.1 -P{} -p{KEY} CometQL_v1",
        address.port()
    );
    let mut script = Command::new("script");
    script
        .args(["-qec", &client, "/dev/null"])
        .stderr(Stdio::null());
    let typed = b"SELECT * FROM users_time WHERE id = 5;\nstatus\nexit\n";
    let output = feed(&mut script, typed);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("Server version:\t\t5.7.0-comet"), "{shown}");
    assert!(
        shown.contains("|  5 | -1   |") || shown.contains("| 5  | -1   |"),
        "{shown}"
    );
}

#[test]
fn pymysql_works() {
    let daemon = Daemon::start(&port(""));
    let address = daemon.port("cometql");
    let mut python = Command::new("python3");
    python
        .env("PYTHONPATH", tests().join("clients/python"))
        .arg(tests().join("clients/cometql.py"))
        .args([
            address.ip().to_string(),
            address.port().to_string(),
            KEY.into(),
        ]);
    let expected = "16\n1\n[[\"8\", \"hash8\"]]\n13\n[\"5.7.0-comet\"]\n";
    assert_eq!(printed(&mut python), expected);
    assert_eq!(daemon.history("python")[0].1, "it's \"ж🚀\"\n");
}

#[test]
fn mysql2_works() {
    let daemon = Daemon::start(&port(""));
    let address = daemon.port("cometql");
    let mut node = Command::new("node");
    node.arg(tests().join("clients/cometql.js")).args([
        address.ip().to_string(),
        address.port().to_string(),
        KEY.into(),
    ]);
    let expected = "16\n1 9\n[{\"id\":\"9\",\"data\":\"ж🚀\"}]\n1295\n15\n[\"a\",\"b\",\"c\"]\n";
    assert_eq!(printed(&mut node), expected);
    assert_eq!(daemon.history("node")[0].1, "it's \"ж🚀\"\n");
}

#[test]
fn a_touch_arrives_in_the_pipe_of_the_same_name() {
    let daemon = Daemon::start(&port(""));
    let query = |query: &str| {
        let mut client = mariadb(
            &daemon,
            &["CometQL_v1", "--batch", "--skip-column-names", "-e", query],
        );
        printed(&mut client)
    };
    query("INSERT INTO pipes_settings (name, length) VALUES ('orders', 10)");
    std::fs::write(daemon.dir().join("orders.comet"), "by file").unwrap();
    wait_for("the file", || {
        (!daemon.history("orders").is_empty()).then_some(())
    });
    daemon.publish("orders", "by socket");
    let rows = query("SELECT event, message FROM pipes_messages WHERE name = 'orders'");
    assert_eq!(rows, "\tby file\n\tby socket\n");
}

#[test]
fn users_settings_and_queues_survive_a_crash() {
    let config = port("");
    let daemon = Daemon::start(&config);
    let query = |daemon: &Daemon, query: &str| {
        let mut client = mariadb(
            daemon,
            &["CometQL_v1", "--batch", "--skip-column-names", "-e", query],
        );
        printed(&mut client)
    };
    query(
        &daemon,
        "INSERT INTO users_auth VALUES (1, 'one'); INSERT INTO users_auth VALUES (2, 'two')",
    );
    query(
        &daemon,
        "INSERT INTO users_messages VALUES (1, '', 'e', 'waits')",
    );
    query(&daemon, "INSERT INTO pipes_settings VALUES ('orders', 7)");
    query(&daemon, "INSERT INTO revoked_tokens VALUES ('a.b.c')");
    query(&daemon, "DELETE FROM users_auth WHERE id = 2");
    let root = daemon.root();
    drop(daemon); // by SIGKILL
    let daemon = Daemon::start_in(root, &config, &[]);
    let all = query(
        &daemon,
        "SELECT * FROM users_auth WHERE id IN (1, 2); SELECT message FROM users_messages WHERE id = 1; \
         SELECT * FROM pipes_settings WHERE name = 'orders'; SELECT * FROM revoked_tokens",
    );
    assert_eq!(all, "1\tone\nwaits\norders\t7\na.b.c\n");
}
