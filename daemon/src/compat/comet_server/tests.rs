use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use comet_proto::Cursor;
use ring::hmac;

use super::{
    connections::Visitor,
    inbox::{LastSeen, is_disconnect},
    records::text,
    *,
};
use crate::{broker::Local, config::Config, hub::Hub};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn hub() -> Arc<Hub> {
    Hub::new(Config::default().hub_history(), 1)
}

/// Calls `test` with the users of a new hub.
fn with_users(test: impl FnOnce(Users<'_>)) {
    let hub = hub();
    let broker = Local::new(hub.clone());
    test(Users::new(&hub, &*broker));
}

fn user(number: u32) -> UserId {
    UserId::parse(&number.to_string()).unwrap()
}

fn visitor(user: UserId) -> Visitor {
    Visitor {
        user: Some(user),
        ..Visitor::default()
    }
}

fn signed(secret: &str, claims: &str) -> String {
    let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
    let signed = format!(
        "{}.{}",
        encode(br#"{"typ":"JWT","alg":"HS256"}"#),
        encode(claims.as_bytes())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", encode(signature.as_ref()))
}

fn queued(users: Users<'_>, number: u32) -> Vec<String> {
    let messages = users.queued(user(number));
    messages.iter().map(|message| text(message)).collect()
}

#[test]
fn the_newest_key_of_a_user_is_good_until_it_is_removed() {
    with_users(|users| {
        let good = |key| users.authorize(user(1001), key, "15", SECRET, 0);
        assert_eq!(good("first"), None);
        users.set_hash(user(1001), "first");
        users.set_hash(user(1001), "second");
        assert_eq!(users.hash(user(1001)).as_deref(), Some("second"));
        assert_eq!(
            (good("first"), good("second")),
            (None, Some("second".into()))
        );
        users.remove_hash(user(1001));
        assert_eq!(
            (users.hash(user(1001)), good("second"), good("")),
            (None, None, None)
        );
    });
}

#[test]
fn a_token_is_good_for_its_user_and_site_until_it_expires_or_is_revoked() {
    with_users(|users| {
        let key = format!("{SECRET}15");
        let token = signed(&key, r#"{"user_id":1002,"exp":100}"#);
        let good = |site, now| users.authorize(user(1002), &token, site, SECRET, now);
        let stored = good("15", 99).unwrap();
        assert_eq!(stored.len(), 32);
        assert_eq!(good("15", 99), Some(stored));
        assert_eq!((good("15", 100), good("16", 99)), (None, None));
        assert_eq!(users.authorize(user(1003), &token, "15", SECRET, 99), None);
        users.revoke(&token);
        assert_eq!(
            (good("15", 99), users.revoked()),
            (None, vec![token.clone()])
        );
        users.unrevoke(&token);
        assert!(good("15", 99).is_some() && users.revoked().is_empty());
    });
}

#[test]
fn a_token_must_be_signed_and_complete() {
    let (key, claims) = (format!("{SECRET}15"), r#"{"user_id":7,"exp":100}"#);
    let good = |token: &str| token::user(token, "15", SECRET, 99);
    let token = signed(&key, claims);
    assert_eq!(good(&token), Some(user(7)));
    let unsigned = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(claims)
    );
    for wrong in [
        "",
        "..",
        "a.b.c",
        &unsigned,
        &token[..token.len() - 1],
        &signed(SECRET, claims),
        &signed(&key, r#"{"user_id":7}"#),
        &signed(&key, r#"{"user_id":"7","exp":100}"#),
        &signed(&key, r#"{"user_id":0,"exp":100}"#),
        &signed(&key, r#"{"user_id":7,"exp":"never"}"#),
        &signed(
            &key,
            &format!(r#"{{"user_id":7,"exp":100,"x":"{}"}}"#, "x".repeat(600)),
        ),
    ] {
        assert_eq!(good(wrong), None, "{wrong}");
    }
}

#[test]
fn private_messages_wait_while_the_user_has_no_connection() {
    with_users(|users| {
        assert_eq!(users.last_seen(user(1004)), LastSeen::Never);
        users.send(user(1004), "e", "before the first visit");
        assert_eq!(queued(users, 1004), ["before the first visit"]);
        let (seat, since) = users.enter(visitor(user(1004)));
        assert_eq!(since, Cursor(0));
        assert_eq!(users.last_seen(user(1004)), LastSeen::Online);
        let id = users.send(user(1004), "e", "live").id().unwrap();
        assert!(queued(users, 1004).is_empty());
        let unread = users.send(user(1004), "e", "unread").id().unwrap();
        users.leave(seat, Cursor(id));
        assert_eq!(queued(users, 1004), ["unread"]);
        let LastSeen::At(second) = users.last_seen(user(1004)) else {
            panic!("the user was there")
        };
        assert!(second.abs_diff(unread / 1_000_000) <= 1);
        users.send(user(1004), "e", "later");
        let (first, since) = users.enter(visitor(user(1004)));
        assert_eq!(since, Cursor(id));
        let (second, since) = users.enter(visitor(user(1004)));
        assert!(
            since > Cursor(unread),
            "only the first connection reads the queue"
        );
        users.leave(first, since);
        assert_eq!(users.last_seen(user(1004)), LastSeen::Online);
        users.leave(second, since);
        assert!(queued(users, 1004).is_empty());
    });
}

#[test]
fn a_queue_can_be_cleared_without_a_visit() {
    with_users(|users| {
        users.send(user(1005), "e", "one");
        users.clear_queue(user(1005));
        assert_eq!(users.last_seen(user(1005)), LastSeen::Never);
        users.send(user(1005), "e", "two");
        assert_eq!(queued(users, 1005), ["two"]);
    });
}

#[test]
fn a_disconnect_reaches_the_connections_and_is_no_message() {
    with_users(|users| {
        users.disconnect(user(1006));
        assert!(
            users.all(&Users::inbox(user(1006))).is_empty(),
            "nobody is there"
        );
        let (seat, _) = users.enter(visitor(user(1006)));
        users.disconnect(user(1006));
        let inbox = users.all(&Users::inbox(user(1006)));
        assert!(inbox.len() == 1 && is_disconnect(&inbox[0]));
        users.leave(seat, Cursor(0));
        assert!(queued(users, 1006).is_empty());
    });
}

#[test]
fn a_pipe_shows_the_connections_that_read_it() {
    with_users(|users| {
        let pipe = pipes::pipe("track_1008").unwrap();
        let (seat, _) = users.enter(visitor(user(1008)));
        let readers = || connections::CONNECTIONS.in_pipe(&pipe, 10);
        assert!(readers().is_empty());
        connections::CONNECTIONS.set_pipes(&seat, vec![pipe.clone()]);
        assert_eq!(readers().len(), 1);
        assert_eq!(readers()[0].user, Some(user(1008)));
        users.leave(seat, Cursor(0));
        assert!(readers().is_empty());
    });
}

#[test]
fn the_names_of_pipes_and_events_are_checked() {
    use pipes::NameError as E;
    assert!(pipes::pipe(&"x".repeat(64)).is_ok() && pipes::pipe("a-_").is_ok());
    for (name, error) in [
        ("ab", E::TooShort),
        (&*"x".repeat(65), E::TooLong),
        ("a.b", E::Character),
        ("чат", E::Character),
    ] {
        assert_eq!(pipes::pipe(name), Err(error), "{name}");
    }
    assert!(pipes::check_event("").is_ok());
    assert_eq!(pipes::check_event(&"x".repeat(65)), Err(E::TooLong));
}

#[test]
fn a_trusted_pipe_shows_two_minutes_and_a_pipe_with_a_length_all() {
    const SECOND: u64 = 1_000_000;
    static NOW: AtomicU64 = AtomicU64::new(1_000 * SECOND);
    let hub = Hub::with_clock(Config::default().hub_history(), 1, || {
        NOW.load(Ordering::Relaxed)
    });
    let broker = Local::new(hub.clone());
    let users = Users::new(&hub, &*broker);
    let (trusted, other) = (pipes::pipe("trust_a"), pipes::pipe("other"));
    let (trusted, other) = (trusted.unwrap(), other.unwrap());
    for text in ["old", "new"] {
        users.publish(trusted.clone(), "", text, None);
        users.publish(other.clone(), "", text, None);
        NOW.fetch_add(119 * SECOND, Ordering::Relaxed);
    }
    let shown = |pipe: &ChannelName| -> Vec<String> {
        users.pipe_log(pipe).iter().map(|m| text(m)).collect()
    };
    assert_eq!(shown(&trusted), ["new"]);
    assert!(shown(&other).is_empty());
    for pipe in [&trusted, &other] {
        hub.set_length(pipe, Some(10)).unwrap();
        assert_eq!(shown(pipe), ["old", "new"]);
    }
    hub.set_length(&other, Some(0)).unwrap();
    assert!(shown(&other).is_empty());
    NOW.fetch_add(2 * SECOND, Ordering::Relaxed);
    hub.set_length(&trusted, None).unwrap();
    assert!(shown(&trusted).is_empty());
}
