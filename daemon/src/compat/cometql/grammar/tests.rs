use super::*;
use crate::compat::cometql::statement::{Condition, Fact, FactKind, Show};

fn error(query: &str) -> (u16, String) {
    let error = parse(query.as_bytes()).unwrap_err();
    (error.code(), error.to_string())
}

fn insert(table: &str, columns: Option<&[&str]>, values: &[&str]) -> Statement {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Statement::Insert {
        table: table.into(),
        columns: columns.map(owned),
        values: owned(values),
    }
}

fn condition(column: &str, values: &[&str]) -> Condition {
    Condition {
        column: column.into(),
        values: values.iter().map(|text| (*text).to_owned()).collect(),
    }
}

#[test]
fn the_insert_of_the_articles_is_understood() {
    let columns: &[&str] = &["name", "event", "message"];
    let expected = insert(
        "pipes_messages",
        Some(columns),
        &["SimplePhpChat", "", "it's"],
    );
    for query in [
        r"INSERT INTO pipes_messages (name, event, message)VALUES('SimplePhpChat', '', 'it\'s' );",
        r#"insert into `pipes_messages`(`name`,"event",'message') values ("SimplePhpChat","","it's")"#,
        "INSERT\tINTO\npipes_messages( name , event , message )VALUES ('SimplePhpChat','','it''s')  ; ",
    ] {
        assert_eq!(parse(query.as_bytes()), Ok(expected.clone()), "{query}");
    }
    let all = parse(b"INSERT INTO users_auth VALUES (5, 'abc')");
    assert_eq!(all, Ok(insert("users_auth", None, &["5", "abc"])));
    let keyword = parse(b"insert into users_data (id, data) values ('7', 'status')");
    let columns: &[&str] = &["id", "data"];
    assert_eq!(
        keyword,
        Ok(insert("users_data", Some(columns), &["7", "status"]))
    );
}

#[test]
fn a_select_has_columns_conditions_and_a_limit() {
    let query = b"SELECT id, `time` FROM users_time WHERE id IN (2, '3') AND time = 0 LIMIT 5";
    let expected = Statement::Select {
        table: "users_time".into(),
        columns: Some(vec!["id".into(), "time".into()]),
        conditions: vec![condition("id", &["2", "3"]), condition("time", &["0"])],
        limit: Some(5),
    };
    assert_eq!(parse(query), Ok(expected));
    let all = Statement::Select {
        table: "pipes".into(),
        columns: None,
        conditions: vec![condition("name", &["a_b"])],
        limit: None,
    };
    assert_eq!(
        parse(b"select * from pipes where 'name' = \"a_b\""),
        Ok(all)
    );
    let delete = Statement::Delete {
        table: "users_auth".into(),
        conditions: vec![condition("id", &["5"])],
    };
    assert_eq!(parse(b"DELETE FROM users_auth WHERE id=5;"), Ok(delete));
}

#[test]
fn what_clients_send_on_their_own_is_understood() {
    let fact = |name: &str, kind| Statement::Facts(vec![fact(name, kind)], true);
    fn fact(name: &str, kind: FactKind) -> Fact {
        let name = name.into();
        Fact { name, kind }
    }
    let like = |pattern: &str| Statement::Show(Show::Variables(Some(pattern.into())));
    for (query, expected) in [
        (
            "select @@version_comment limit 1",
            fact("@@version_comment", FactKind::Version),
        ),
        (
            "SELECT @@session.tx_isolation",
            fact("@@session.tx_isolation", FactKind::Version),
        ),
        ("SELECT DATABASE()", fact("DATABASE()", FactKind::Database)),
        ("SELECT VERSION() AS v", fact("v", FactKind::Version)),
        ("SELECT 1", fact("1", FactKind::Constant("1".into()))),
        ("SET NAMES utf8mb4", Statement::Nothing),
        ("SET autocommit=0", Statement::Nothing),
        (
            "SET @@session.sql_mode = 'a', x = NULL;",
            Statement::Nothing,
        ),
        ("SET character_set_results = NULL", Statement::Nothing),
        ("START TRANSACTION", Statement::Transaction(true)),
        ("COMMIT", Statement::Transaction(false)),
        ("use CometQL_v1", Statement::Use("CometQL_v1".into())),
        ("show tables", Statement::Show(Show::Tables)),
        ("SHOW DATABASES", Statement::Show(Show::Databases)),
        ("SHOW STATUS", Statement::Show(Show::Status)),
        ("SHOW SESSION STATUS", Statement::Show(Show::Status)),
        ("SHOW TABLE STATUS", Statement::Show(Show::TableStatus)),
        ("SHOW FULL PROCESSLIST", Statement::Show(Show::Processes)),
        ("SHOW GLOBAL VARIABLES LIKE 'wait%'", like("wait%")),
        ("SHOW VARIABLES", Statement::Show(Show::Variables(None))),
        (
            "SHOW FULL COLUMNS FROM pipes",
            Statement::Describe("pipes".into()),
        ),
        ("DESCRIBE pipes", Statement::Describe("pipes".into())),
    ] {
        assert_eq!(parse(query.as_bytes()), Ok(expected), "{query}");
    }
}

#[test]
fn other_statements_are_syntax_errors() {
    for query in [
        "UPDATE users_auth SET hash = 'a' WHERE id = 1",
        "REPLACE INTO users_auth VALUES (1, 'a')",
        "INSERT IGNORE INTO users_auth VALUES (1, 'a')",
        "INSERT INTO users_auth VALUES (1, 'a'), (2, 'b')",
        "INSERT INTO users_auth VALUES (1, NULL)",
        "INSERT INTO users_auth VALUES (-1, 'a')",
        "INSERT INTO users_auth VALUES ()",
        "INSERT INTO users_auth",
        "SELECT COUNT(*) FROM pipes WHERE name = 'abc'",
        "SELECT name AS n FROM pipes WHERE name = 'abc'",
        "SELECT name",
        "SELECT *",
        "SELECT",
        "SELECT * FROM pipes WHERE name = 'abc' GROUP BY name",
        "SELECT * FROM pipes WHERE name = 'abc' LIMIT 'x'",
        "SELECT 1; SELECT 2",
        "SELECT 1;;",
        "SELECT name, * FROM pipes WHERE name = 'abc'",
        "DROP TABLE pipes",
        "SHOW ENGINES",
        "SHOW FULL STATUS",
        "SET;",
        "5 = 5",
        "'SELECT'",
        ";   ",
        "    ",
    ] {
        let (code, text) = error(query);
        assert_eq!(code, 3, "{query}: {text}");
        assert!(text.starts_with("Syntax error in query"), "{text}");
    }
}

#[test]
fn what_is_not_implemented_is_named() {
    let select = |rest: &str| error(&format!("SELECT * FROM pipes WHERE name {rest}"));
    for (rest, text) in [
        (
            "= 'abc' ORDER  BY name",
            "Token ORDER BY is not yet implemented",
        ),
        ("= 'abc' OR users = 1", "Operator OR is not yet implemented"),
        ("!= 'abc'", "Operator ! is not yet implemented"),
        ("< 'abc'", "Operator < is not yet implemented"),
        ("like 'abc'", "Operator LIKE is not yet implemented"),
        (
            "= 'abc' LIMIT 1, 2",
            "LIMIT with two numbers is not yet implemented",
        ),
        (
            "= 'abc' LIMIT 1 OFFSET 2",
            "LIMIT with two numbers is not yet implemented",
        ),
    ] {
        assert_eq!(select(rest), (2, text.into()), "{rest}");
    }
    assert_eq!(
        select("= 'abc' OR name = 'def'").0,
        13,
        "before the operator"
    );
    assert_eq!(error("ROLLBACK").0, 2);
    for query in ["SHOW GLOBAL STATUS", "SHOW RAM", "SHOW UPTIME"] {
        assert_eq!(error(query).0, 403, "{query}");
    }
}

#[test]
fn the_limits_are_those_of_the_documents() {
    assert_eq!(error("abc").0, 17);
    let long = format!("SELECT '{}'", "x".repeat(8991));
    assert_eq!(error(&long), (11, "Data is too long".into()));
    assert!(parse(&long.as_bytes()[1..]).is_err_and(|error| error.code() == 3));
    let names = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("c{n}")).collect();
        names.join(", ")
    };
    let select = |count| format!("SELECT {} FROM pipes", names(count));
    assert!(parse(select(20).as_bytes()).is_ok());
    assert_eq!(error(&select(21)).0, 20);
    let conditions = |count: usize| {
        let conditions: Vec<String> = (0..count).map(|n| format!("c{n} = 1")).collect();
        format!("SELECT * FROM pipes WHERE {}", conditions.join(" AND "))
    };
    assert!(parse(conditions(10).as_bytes()).is_ok());
    assert_eq!(error(&conditions(11)).0, 18);
    let values = |count| {
        let values = vec!["1"; count].join(",");
        format!("SELECT * FROM pipes WHERE name IN ({values})")
    };
    assert!(parse(values(4000).as_bytes()).is_ok());
    assert_eq!(error(&values(4001)).0, 19);
    assert_eq!(parse(b"SELECT '\xff'").unwrap_err().code(), 12);
}
