//! Requests and replies as the other side reads them, and what is refused.

use super::*;

#[test]
fn a_plain_publish_borrows_its_data() {
    let line = br#"{"op":"publish","channel":"news","data":"hi","name":"n","key":"k"}"#;
    let Request::Publish(publish) = Request::parse(line).unwrap() else {
        panic!("a publish")
    };
    assert!(matches!(publish.data, Cow::Borrowed(b"hi")));
    assert_eq!(
        (publish.name.as_str(), publish.key.as_deref()),
        ("n", Some("k"))
    );
}

#[test]
fn what_a_client_writes_is_what_the_daemon_reads() {
    let cases = [
        (&b"hi \"there\"\n"[..], &["news"][..], &[][..]),
        (
            b"\xff\x00",
            &["news", "chat.7"],
            &[("topic", "a/b"), ("a", "\"")],
        ),
        (b"", &["news"], &[("k", "")]),
    ];
    for (data, names, pairs) in cases {
        let publish = Publish {
            channels: ChannelNames::parse(names.iter().copied()).unwrap(),
            name: EventName::default(),
            data: data.into(),
            attributes: Attributes::parse(pairs).unwrap(),
            key: Some("k1".into()),
        };
        let mut line = Vec::new();
        write_publish(&publish, &mut line);
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        assert_eq!(Request::parse(&line).unwrap(), Request::Publish(publish));
    }
}

#[test]
fn subscriptions_take_numbers_and_times() {
    let line = br#"{"op":"subscribe","channels":["a","b"],"since":"1970-01-01T00:00:01Z"}"#;
    let Request::Subscribe {
        channels, since, ..
    } = Request::parse(line).unwrap()
    else {
        panic!("a subscribe")
    };
    assert_eq!((channels.len(), since), (2, Some(Since::Time(1_000_000))));
    let line = br#"{"op":"subscribe","channels":["a"],"presence":true,"member":"7"}"#;
    let Request::Subscribe {
        presence: Some(presence),
        ..
    } = Request::parse(line).unwrap()
    else {
        panic!("a subscribe with presence")
    };
    assert_eq!(presence.member.as_deref(), Some("7"));
    assert!(matches!(
        Request::parse(br#"{"op":"subscribe","channels":["a"],"presence":false}"#),
        Ok(Request::Subscribe { presence: None, .. })
    ));
    assert!(matches!(
        Request::parse(br#"{"op":"unsubscribe","channels":["a","b"]}"#),
        Ok(Request::Unsubscribe { channels }) if channels.len() == 2
    ));
    assert!(matches!(
        Request::parse(br#"{"op":"history","channels":["a"],"since":7}"#),
        Ok(Request::History {
            since: Since::Id(Cursor(7)),
            ..
        })
    ));
}

#[test]
fn refusals_name_the_field() {
    let cases = [
        (
            r#"{"op":"publish"}"#,
            "channel",
            "op publish needs the field \"channel\"",
        ),
        (
            r#"{"op":"publish","channel":"a/b"}"#,
            "channel",
            "channel name may not contain '/'",
        ),
        (
            r#"{"op":"publish","channel":"a","data":1}"#,
            "line",
            "invalid type: integer `1`",
        ),
        (
            r#"{"op":"publish","chanel":"a"}"#,
            "line",
            "unknown field `chanel`",
        ),
        (
            r#"{"op":"publish","channel":"a","data_base64":"?"}"#,
            "data",
            "not base64",
        ),
        (
            r#"{"op":"publish","channel":"a","data":"","data_base64":""}"#,
            "data",
            "only one of data and data_base64 may be set",
        ),
        (
            r#"{"op":"publish","channel":"a","name":"\n"}"#,
            "name",
            "may not contain '\\n'",
        ),
        (
            r#"{"op":"publish","channel":"a","channels":["a"]}"#,
            "channels",
            "only one of channel and channels may be set",
        ),
        (
            r#"{"op":"publish","channels":[]}"#,
            "channels",
            "at least one",
        ),
        (
            r#"{"op":"publish","channel":"a","attributes":{"k":"1","k":"2"}}"#,
            "attributes",
            "attribute \"k\" is set twice",
        ),
        (
            r#"{"op":"publish","channel":"a","attributes":{"a b":""}}"#,
            "attributes",
            "1 to 64 bytes of A-Z a-z 0-9 _ . -",
        ),
        (
            r#"{"op":"publish","channel":"a","attributes":{"k":1}}"#,
            "line",
            "invalid type: integer `1`",
        ),
        (
            r#"{"op":"publish","channel":"a","attributes":["k"]}"#,
            "line",
            "expected an object of strings",
        ),
        (
            r#"{"op":"subscribe","channels":["a"],"attributes":{}}"#,
            "attributes",
            "op subscribe has no field",
        ),
        (r#"{"op":"subscribe"}"#, "channels", "needs the field"),
        (
            r#"{"op":"subscribe","channels":["a"],"member":"7"}"#,
            "member",
            "op subscribe has no field",
        ),
        (
            r#"{"op":"history","channels":["a"],"presence":true}"#,
            "presence",
            "op history has no field",
        ),
        (
            r#"{"op":"unsubscribe","channels":["a"],"since":1}"#,
            "since",
            "op unsubscribe has no field",
        ),
        (
            r#"{"op":"subscribe","channels":[]}"#,
            "channels",
            "at least one",
        ),
        (
            r#"{"op":"subscribe","channels":["a"],"since":-1}"#,
            "line",
            "invalid type",
        ),
        (
            r#"{"op":"subscribe","channels":["a"],"since":"x"}"#,
            "since",
            "RFC 3339",
        ),
        (
            r#"{"op":"ping","channel":"a"}"#,
            "channel",
            "op ping has no field \"channel\"",
        ),
        (r#"{"op":"dance"}"#, "op", "unknown op \"dance\""),
        ("hello", "line", "not a request"),
        ("", "line", "not a request"),
    ];
    for (line, code, text) in cases {
        let error = Request::parse(line.as_bytes()).expect_err(line);
        assert_eq!(error.code().as_str(), code, "{line}");
        assert!(error.to_string().contains(text), "{line}: {error}");
    }
}

#[test]
fn a_client_reads_what_the_daemon_replies() {
    let mut out = Vec::new();
    write_receipt(7, &mut out);
    assert_eq!(PublishReply::parse(&out).unwrap(), PublishReply::Id(7));
    out.clear();
    write_error(&ErrorCode::Channel, "a \"b\"", &mut out);
    let refused = PublishReply::Refused {
        code: ErrorCode::Channel,
        message: "a \"b\"".into(),
    };
    assert_eq!(PublishReply::parse(&out).unwrap(), refused);
}
