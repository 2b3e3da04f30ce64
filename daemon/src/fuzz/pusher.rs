//! Pusher: the texts of pages, the names of channels, and the requests of applications.

use hyper::Method;
use serde_json::Value;

use crate::{
    compat::pusher::{
        api::Call,
        app::{App, name_in_app},
        channel::PusherChannel,
        events::{parse_batch, parse_event},
        request::{PageRequest, User},
        signature::SignedRequest,
    },
    config::Config,
    http::request::Request,
};

const CONFIG: &str = "[[compat.pusher.app]]\nid = \"1\"\nkey = \"a\"\nsecret = \"b\"\n\
    [[compat.pusher.app]]\nid = \"2\"\nkey = \"c\"\nsecret = \"d\"\n";

/// The input is a text of a page, a path with its query, and a body, each on a line of its own; the body may have several lines.
pub(super) fn check(bytes: &[u8]) {
    let config = Config::parse(CONFIG).expect("a valid configuration");
    let apps = App::all(&config.compat.pusher.expect("the table is there"));
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (text, url, body) = (next(), next(), next());
    if let Ok(text) = str::from_utf8(text) {
        check_page(&apps, text);
    }
    if let Ok(url) = str::from_utf8(url) {
        check_request(&apps[0], url, body);
    }
    let _ = parse_event(body).map(|event| event.channel_names().len());
    let _ = parse_batch(body).map(|batch| assert!((1..=10).contains(&batch.len())));
}

fn check_page(apps: &[App], text: &str) {
    match PageRequest::parse(text) {
        Ok(PageRequest::ClientEvent(event)) => {
            assert!(event.event.starts_with("client-"));
            serde_json::from_str::<Value>(event.data).expect("the data of a client event is JSON");
            check_name(apps, &event.channel);
        }
        Ok(PageRequest::Subscribe(ask)) => {
            check_name(apps, &ask.channel);
            let text = ask.channel_data.unwrap_or_default();
            if let Some(user) = User::of_channel_data(&text) {
                assert!(!user.id.is_empty());
            }
            assert!(
                !apps[0].has_authorized(&text, &ask.auth),
                "nobody has signed"
            );
        }
        Ok(PageRequest::Unsubscribe(name)) => check_name(apps, &name),
        Ok(PageRequest::Ping | PageRequest::Nothing | PageRequest::SignIn(_)) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The applications have different channels of a name, and each channel has its name again.
fn check_name(apps: &[App], name: &str) {
    let [Ok(first), Ok(second)] = [&apps[0], &apps[1]].map(|app| PusherChannel::parse(app, name))
    else {
        return;
    };
    assert_ne!(first.channel, second.channel);
    for (app, channel) in apps.iter().zip([first, second]) {
        assert_eq!(name_in_app(channel.channel.as_str()), name);
        assert!(app.owns(&channel.channel));
    }
}

fn check_request(app: &App, url: &str, body: &[u8]) {
    let request = Request::new(Method::POST, url, &[]);
    let signed = SignedRequest::of(&request);
    assert!(
        signed.check(app, body, 1_353_088_179).is_err(),
        "nobody has signed"
    );
    if let Some((_, call)) = request.path.strip_prefix("/apps/").and_then(Call::parse) {
        assert!(call.methods().ends_with("OPTIONS"));
    }
}
