//! The chat of comet-server.ru's articles, with our own script, in Chromium.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use crate::{
    comet_server::{KEY, settings, sql},
    daemon::{Daemon, directory, wait_for},
    webdriver::Browser,
};

/// What a page shows of the messages.
const SHOWN: &str = "#chat .text";

/// PHP's own web server with the chat's pages. It ends when this value is dropped.
struct Php {
    child: Child,
    address: SocketAddr,
    /// Without a reader, PHP would end at its next line.
    _log: BufReader<std::process::ChildStderr>,
}

impl Php {
    fn start() -> Self {
        // Another program may take the port before PHP does.
        (0..5).find_map(|_| Self::try_start()).expect("PHP starts")
    }

    fn try_start() -> Option<Self> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/php/comet_server_chat");
        let mut child = Command::new("php")
            .args(["-S", &address.to_string(), "-t"])
            .arg(pages)
            .env("COMET_KEY", KEY)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        if !line.contains("started") {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        Some(Self {
            child,
            address,
            _log: log,
        })
    }

    fn daemon(&self, root: &Arc<tempfile::TempDir>, listen: &str) -> Daemon {
        let origin = format!("[http]\norigins = [\"http://{}\"]\n", self.address);
        let flags = ["--listen", listen];
        Daemon::start_in(root.clone(), &format!("{origin}{}", settings("")), &flags)
    }

    /// The URL of the chat's page.
    fn url(&self, daemon: &Daemon) -> String {
        let sql = daemon.port("cometql").port();
        format!("http://{}/?comet={}&sql={sql}", self.address, daemon.addr())
    }
}

impl Drop for Php {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until this number of pages reads the pipe.
fn wait_for_readers(daemon: &Daemon, pipe: &str, count: usize) {
    let question = format!("SELECT users FROM pipes WHERE name = '{pipe}'");
    wait_for("the pages have subscribed", || {
        (sql(daemon, &question) == format!("{count}\n")).then_some(())
    });
}

#[test]
fn the_chat_of_the_articles_works_in_two_tabs_and_after_a_crash() {
    let (php, browser, root) = (Php::start(), Browser::start(), Arc::new(directory()));
    let daemon = php.daemon(&root, "127.0.0.1:0");
    let tabs = [browser.tab(), browser.new_tab()];
    for tab in &tabs {
        browser.switch_to(tab);
        browser.open(&php.url(&daemon));
    }
    wait_for_readers(&daemon, "SimplePhpChat", 2);
    browser.type_into("#name", "O'Hara");
    browser.type_into("#text", "it's <b>\"C:\\new\"</b>");
    browser.click("#send");
    for tab in &tabs {
        browser.switch_to(tab);
        browser.wait_for_texts(SHOWN, &["it's <b>\"C:\\new\"</b>"]);
        assert_eq!(browser.texts("#chat b"), ["O'Hara"]);
    }
    daemon.publish(
        "SimplePhpChat",
        r#"{"name":"shell","text":"from the socket"}"#,
    );
    browser.wait_for_texts(SHOWN, &["it's <b>\"C:\\new\"</b>", "from the socket"]);

    let listen = daemon.addr().to_string();
    daemon.signal("KILL");
    drop(daemon);
    let daemon = php.daemon(&root, &listen);
    wait_for_readers(&daemon, "SimplePhpChat", 2);
    daemon.publish(
        "SimplePhpChat",
        r#"{"name":"shell","text":"after the crash"}"#,
    );
    for tab in &tabs {
        browser.switch_to(tab);
        let shown = [
            "it's <b>\"C:\\new\"</b>",
            "from the socket",
            "after the crash",
        ];
        browser.wait_for_texts(SHOWN, &shown);
    }
}

#[test]
fn every_function_of_our_script_works() {
    let (php, browser, root) = (Php::start(), Browser::start(), Arc::new(directory()));
    let daemon = php.daemon(&root, "127.0.0.1:0");
    sql(
        &daemon,
        "INSERT INTO users_auth (id, hash) VALUES (5, 'hash5');\
         INSERT INTO users_data (id, data) VALUES (5, 'Ann');\
         INSERT INTO users_messages (id, event, message) VALUES (5, 'e', 'has waited');\
         INSERT INTO pipes_settings (name, length) VALUES ('web_x', 10);",
    );
    let tabs = [browser.tab(), browser.new_tab()];
    for tab in &tabs {
        browser.switch_to(tab);
        browser.open(&php.url(&daemon));
        browser.run(
            "window.got = []; window.auth = [];\
             const note = (what) => (m) => got.push([what, m.data, m.server_info.user_id, m.server_info.history]);\
             cometApi.onAuthSuccess(() => auth.push('yes')); cometApi.onAuthFalill(() => auth.push('no'));\
             cometApi.subscription('web_x.evt', note('evt')); cometApi.subscription('#web_x', note('report'));\
             cometApi.subscription('msg.e', note('private'));\
             window.last = cometApi.subscription('other', note('other'));",
        );
    }
    wait_for_readers(&daemon, "web_x", 2);
    browser.wait_for("return auth.join() === 'no' && cometApi.isAuthorized() === false");
    browser.run("cometApi.restart({user_id: 5, user_key: 'hash5'})");
    browser.wait_for("return auth.join() === 'no,yes' && cometApi.isAuthorized() === true");
    browser.wait_for("return JSON.stringify(got) === '[[\"private\",\"has waited\",0,false]]'");
    wait_for_readers(&daemon, "web_x", 2);
    browser.run("got = []; cometApi.web_pipe_send('web_x', 'evt', {a: \"it's\"})");
    browser.wait_for(
        "return got.length === 1 && got[0][0] === 'report' && got[0][1].number_messages === 1",
    );
    browser.run(
        "got = []; cometApi.get_pipe_log('web_x');\
         cometApi.count_users_in_pipe('web_x', (m) => { window.count = m.data.user_in_pipe; });\
         cometApi.getUserData(5, (m) => { window.data = m.data.user_data; });",
    );
    browser.wait_for("return JSON.stringify(got) === '[[\"evt\",{\"a\":\"it\\'s\"},5,true]]'");
    browser.wait_for("return count === 2 && data === 'Ann'");
    browser.run("cometApi.unsubscription(last)");
    wait_for_readers(&daemon, "other", 1);
    assert_eq!(
        browser.run(
            "return [cometApi.getUserId(), cometApi.getDevId(), cometApi.getUUID().length].join()"
        ),
        "5,15,32"
    );
    browser.run("cometApi.unsubscriptionAll()");
    wait_for_readers(&daemon, "web_x", 1);
    browser.run("cometApi.stop()");
    browser.switch_to(&tabs[0]);
    browser.wait_for("return JSON.stringify(got) === '[[\"evt\",{\"a\":\"it\\'s\"},5,false]]'");
    assert_eq!(browser.run("return auth.join()"), "no");
    assert_eq!(browser.run("return cometApi.isMaster()"), true);
}
