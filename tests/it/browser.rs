//! The demo pages in a real browser.

use std::{net::SocketAddr, process::Command, sync::Arc};

use socket2::{Domain, Socket, Type};

use super::{
    daemon::{Daemon, directory, wait_for},
    webdriver::Browser,
};

/// CSS selector of what the list of a page shows: data or `touched`.
pub const SHOWN: &str = "#messages [data-id] .data, #messages [data-id] .empty";
const CHAT: &str = "#messages [data-id] .text";
/// True when the page is connected, so that it gets messages from now on.
pub const OPEN: &str = "return document.getElementById('state').dataset.state === 'open'";
const AWAY: &str = "return !document.getElementById('away').hidden";

#[test]
fn a_touched_file_appears_in_the_first_page() {
    let (daemon, browser) = (demo(), Browser::start());
    browser.open(&url(&daemon, "/"));
    browser.wait_for(OPEN);
    let line = format!("touch {}/hello.comet", daemon.dir().display());
    browser.wait_for_texts("main section:first-of-type .shell", &[&line]); // the real directory
    shell(&line);
    browser.wait_for_texts(SHOWN, &["touched"]);
    shell(&line);
    browser.wait_for_texts(SHOWN, &["touched", "touched"]);
    assert_eq!(
        browser.console(),
        [""; 0],
        "no script failed, and nothing broke the pages' policy"
    );
}

#[test]
fn every_line_of_the_touch_page_works() {
    let (daemon, browser) = (demo(), Browser::start());
    browser.open(&url(&daemon, "/touch"));
    browser.wait_for(OPEN);
    browser.wait_for("return document.querySelector('[data-info=socket]').textContent !== '/run/comet/comet.sock'");
    let lines =
        browser.run("return Array.from(document.querySelectorAll('.shell'), (e) => e.textContent)");
    let lines: Vec<String> = serde_json::from_value(lines).unwrap();
    let mut expected: Vec<&str> = Vec::new();
    for line in &lines {
        shell(line);
        let shown = match line.split(' ').next().unwrap() {
            "echo" => "some text\n",
            "touch" => "touched",
            "php" => "some text\n", // the file still has what echo wrote
            _ => "some text",
        };
        expected.insert(0, shown);
        browser.wait_for_texts(SHOWN, &expected);
    }
    assert_eq!(lines.len(), 5, "touch, echo, comet, curl, php: {lines:?}");
    browser.click("#publish");
    expected.insert(0, "from a browser");
    browser.wait_for_texts(SHOWN, &expected);
    assert_eq!(browser.texts("#failed"), [""]);
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn lines_for_a_terminal_are_whole_before_the_daemon_has_answered() {
    let (daemon, browser) = (demo(), Browser::start());
    browser.before_pages("window.fetch = () => new Promise(() => {});");
    for path in ["/touch", "/clock", "/chat"] {
        browser.open(&url(&daemon, path));
        let origin = url(&daemon, "");
        let lines =
            "return Array.from(document.querySelectorAll('.shell'), (e) => e.textContent).join()";
        browser.wait_for(&format!("{lines}.includes('{origin}/c')"));
    }
}

#[test]
fn a_reloaded_page_shows_each_message_once() {
    let (daemon, browser) = (demo(), Browser::start());
    browser.open(&url(&daemon, "/touch"));
    browser.wait_for(OPEN);
    daemon.publish("hello", "one");
    daemon.publish("hello", "two");
    browser.wait_for_texts(SHOWN, &["two", "one"]);
    browser.reload();
    browser.wait_for_texts(SHOWN, &["two", "one"]);
    daemon.publish("hello", "three");
    browser.wait_for_texts(SHOWN, &["three", "two", "one"]);
    browser.open(&url(&daemon, "/chat"));
    browser.wait_for(OPEN);
    daemon.publish("hello", "four");
    browser.back();
    browser.wait_for_texts(SHOWN, &["four", "three", "two", "one"]);
}

#[test]
fn two_tabs_see_the_same() {
    let (daemon, browser) = (demo(), Browser::start());
    let tabs = [browser.tab(), browser.new_tab()];
    for tab in &tabs {
        browser.switch_to(tab);
        browser.open(&url(&daemon, "/touch"));
        browser.wait_for(OPEN);
    }
    std::fs::write(daemon.dir().join("hello.comet"), "for both").unwrap();
    for tab in &tabs {
        browser.switch_to(tab);
        browser.wait_for_texts(SHOWN, &["for both"]);
    }
    browser.click("#publish");
    for tab in &tabs {
        browser.switch_to(tab);
        browser.wait_for_texts(SHOWN, &["from a browser", "for both"]);
    }
}

#[test]
fn the_touch_page_survives_a_restart() {
    survives_a_restart("/touch", "hello", SHOWN, "TERM", |texts| texts.reverse());
}

#[test]
fn the_chat_page_survives_a_crash() {
    survives_a_restart("/chat", "chat", CHAT, "KILL", |_| {});
}

/// Checks that no message before, during or after a restart is lost or shown twice. `order` sorts texts as the page
/// does.
fn survives_a_restart(path: &str, channel: &str, css: &str, signal: &str, order: fn(&mut [&str])) {
    let (port, root, browser) = (Port::reserve(), Arc::new(directory()), Browser::start());
    let mut shown = Vec::new();
    let mut shows = |texts: &[&'static str]| {
        shown.extend(texts);
        let mut expected = shown.clone();
        order(&mut expected);
        browser.wait_for_texts(css, &expected);
    };

    let daemon = port.daemon(&root);
    browser.open(&url(&daemon, path));
    browser.wait_for(OPEN);
    for text in ["one", "two"] {
        daemon.publish(channel, text);
        shows(&[text]);
    }
    daemon.signal(signal);
    browser.wait_for(AWAY);
    drop(daemon);
    let file = root.path().join(format!("dir/{channel}.comet"));
    std::fs::write(file, "while it was away").unwrap();

    let daemon = port.daemon(&root);
    let found = |(_, data): &(u64, String)| data == "while it was away";
    wait_for("the file", || {
        daemon.history(channel).iter().any(found).then_some(())
    });
    daemon.publish(channel, "before the page is back"); // most likely: the page backs off
    shows(&["while it was away", "before the page is back"]);
    browser.wait_for(OPEN);
    for text in ["three", "four"] {
        daemon.publish(channel, text);
        shows(&[text]);
    }
}

#[test]
fn tabs_chat_with_each_other() {
    let (daemon, browser) = (demo(), Browser::start());
    let (ann, bob) = (browser.tab(), browser.new_tab());
    for (tab, name) in [(&ann, "Ann"), (&bob, "Bob")] {
        browser.switch_to(tab);
        browser.open(&url(&daemon, "/chat"));
        browser.wait_for(OPEN);
        browser.type_into("[name=name]", name);
    }
    let said = |tab: &str, text: &str| {
        browser.switch_to(tab);
        browser.wait_for("return !document.querySelector('[name=send]').disabled");
        browser.type_into("[name=text]", text);
        browser.click("[name=send]");
    };
    said(&bob, "Is anybody here?");
    browser.switch_to(&ann);
    browser.wait_for_texts(CHAT, &["Is anybody here?"]);
    said(&ann, "Yes, 100 % & more");
    browser.wait_for("return document.querySelector('[data-info=origin]').textContent");
    shell(&browser.texts(".shell")[0]);
    for tab in [&ann, &bob] {
        browser.switch_to(tab);
        browser.wait_for_texts(
            CHAT,
            &[
                "Is anybody here?",
                "Yes, 100 % & more",
                "hello from the shell",
            ],
        );
        assert_eq!(browser.texts("#messages .from"), ["Bob", "Ann", "Shell"]);
        assert_eq!(
            browser.run("return document.querySelector('[name=text]').value"),
            "",
            "sent texts are taken out"
        );
        assert_eq!(browser.console(), [""; 0]);
    }
}

#[test]
fn the_clock_ticks_and_recovers() {
    let (port, root, browser) = (Port::reserve(), Arc::new(directory()), Browser::start());
    let daemon = port.daemon(&root);
    browser.open(&url(&daemon, "/clock"));
    let ticks =
        |n: u64| format!("return Number(document.getElementById('ticks').textContent) >= {n}");
    browser.wait_for(&ticks(2));
    browser.wait_for(OPEN);
    let shown = browser.texts("#clock").remove(0);
    assert!(
        shown.len() == 8 && shown.split(':').all(|n| n.parse::<u8>().is_ok()),
        "{shown}"
    );
    daemon.stop();
    browser.wait_for(AWAY);
    let before: u64 = browser.texts("#ticks")[0].parse().unwrap();
    let _daemon = port.daemon(&root);
    browser.wait_for(&ticks(before + 2));
    browser.wait_for(OPEN);
}

#[test]
fn markup_in_a_message_is_shown_as_text() {
    let (daemon, browser) = (demo(), Browser::start());
    let hostile =
        "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">";
    daemon.publish("hello", hostile);
    assert!(
        daemon
            .comet(&["publish", "chat", hostile, "--name", hostile])
            .output()
            .unwrap()
            .status
            .success()
    );
    for (path, css) in [
        ("/", SHOWN),
        ("/touch", SHOWN),
        ("/chat", CHAT),
        ("/chat", "#messages .from"),
    ] {
        browser.open(&url(&daemon, path));
        browser.wait_for_texts(css, &[hostile]);
        assert_eq!(browser.texts("#messages script, #messages img"), [""; 0]);
        assert_ne!(browser.run("return document.title"), "owned");
    }
}

pub fn demo() -> Daemon {
    Daemon::start_in(Arc::new(directory()), "", &["--demo"])
}

pub fn url(daemon: &Daemon, path: &str) -> String {
    format!("http://{}{path}", daemon.addr())
}

/// Runs a command line that a page shows, as a user would. `comet` is the program under test.
pub fn shell(line: &str) {
    let comet = std::path::Path::new(env!("CARGO_BIN_EXE_comet"))
        .parent()
        .unwrap();
    let path = format!("{}:{}", comet.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", line])
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}

/// A port that stays reserved while no daemon listens on it. The socket is bound and never listens.
struct Port(
    SocketAddr,
    #[expect(dead_code, reason = "holds the port")] Socket,
);

impl Port {
    fn reserve() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Both options let the daemon bind to the same port. The kernel gives such a port to no client that asks for
        // any port.
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        Self(socket.local_addr().unwrap().as_socket().unwrap(), socket)
    }

    fn daemon(&self, root: &Arc<tempfile::TempDir>) -> Daemon {
        Daemon::start_in(
            root.clone(),
            "",
            &["--demo", "--listen", &self.0.to_string()],
        )
    }
}
