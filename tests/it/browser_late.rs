//! comet.js detects a proxy that holds streams back, because messages arrive late.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    browser::demo,
    browser_client::subscribe,
    daemon::{Daemon, signal, wait_for},
    webdriver::Browser,
};

/// nginx in front of a daemon, with these lines in its location.
struct Nginx {
    child: Child,
    root: TempDir,
    addr: String,
}

impl Nginx {
    fn start(daemon: &Daemon, lines: &str) -> Self {
        // The port was free a moment ago. If another process takes it, which is rare, nginx reports an error.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap().to_string();
        drop(free);
        let root = tempfile::tempdir().unwrap();
        let at = root.path().display();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/log;\nevents {{}}\n\
             http {{\naccess_log off;\n{paths}server {{\nlisten {addr};\nlocation / {{\n\
             proxy_pass http://{};\nproxy_http_version 1.1;\nproxy_set_header Connection '';\n\
             proxy_set_header Host $http_host;\n{lines}\n}}\n}}\n}}\n",
            daemon.addr()
        );
        fs::write(root.path().join("nginx.conf"), config).unwrap();
        let child = Command::new("/usr/sbin/nginx")
            .args(["-p", &at.to_string(), "-c", "nginx.conf", "-e", "log"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs nginx; `make test` installs it");
        let nginx = Self { child, root, addr };
        wait_for("nginx", || std::net::TcpStream::connect(&nginx.addr).ok());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.root.path().join("log"));
            eprintln!("nginx: {}", log.unwrap_or_default());
        }
        signal(&self.child, "TERM");
        let _ = self.child.wait();
    }
}

/// nginx compresses the stream and waits for full buffers, although the daemon asks it not to.
const GZIP: &str = "gzip on; gzip_types text/event-stream; gzip_proxied any; gzip_min_length 0;
                    proxy_ignore_headers X-Accel-Buffering;";

const POLLS: &str =
    "return performance.getEntriesByType('resource').some((e) => /wait=(1|25)&/.test(e.name))";

#[test]
fn a_stream_that_a_proxy_holds_back_gives_way_to_polls() {
    let daemon = demo();
    let nginx = Nginx::start(&daemon, GZIP);
    let browser = Browser::start();
    browser.open(&format!("http://{}/demo.json", nginx.addr)); // a page without subscriptions of its own
    browser.run(include_str!("../../web/comet.js"));
    subscribe(&browser, "'news', HANDLERS");
    browser.wait_for("return subscription.cursor");
    let publisher = Publisher::start(daemon);
    browser.wait_for(POLLS);
    browser.wait_for("return heard.states.some(([state]) => state === 'open')");
    // A message after a quiet time arrives, although it does not fill a buffer.
    let daemon = publisher.stop();
    let id = daemon.publish("news", "the last one");
    browser.wait_for(&format!("return heard.messages.some((m) => m.id === {id})"));
    let ids = browser.run("return heard.messages.map((m) => m.id)");
    let ids: Vec<u64> = serde_json::from_value(ids).unwrap();
    assert!(ids.is_sorted_by(|a, b| a < b), "in order and once: {ids:?}");
    let first = ids[0] - 1;
    let kept = daemon.history("news");
    let kept: Vec<u64> = kept
        .into_iter()
        .map(|(id, _)| id)
        .filter(|id| *id > first)
        .collect();
    assert!(ids.ends_with(&kept), "{ids:?} {kept:?}");
    assert_eq!(browser.run("return heard.gaps"), 0);

    // The next page of the tab polls at once, because the tab remembers the proxy.
    browser.reload();
    browser.run(include_str!("../../web/comet.js"));
    subscribe(&browser, "'news', HANDLERS");
    browser.wait_for("return heard.states.some(([state]) => state === 'open')");
    let asked = "return performance.getEntriesByType('resource').map((e) => e.name).filter((name) => name.includes('/ch/'))";
    let asked: Vec<String> = serde_json::from_value(browser.run(asked)).unwrap();
    assert!(
        asked.iter().all(|url| url.contains("wait=")),
        "no stream: {asked:?}"
    );
}

#[test]
fn a_stream_of_which_nothing_comes_through_gives_way_to_polls() {
    let daemon = demo();
    let nginx = Nginx::start(&daemon, GZIP);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", nginx.addr));
    browser.wait_for(POLLS);
    let id = daemon.publish("hello", "polled");
    browser.wait_for(&format!(
        "return document.querySelector('[data-id=\"{id}\"]')"
    ));
}

#[test]
fn a_stream_that_nothing_holds_back_is_kept() {
    let daemon = demo();
    let nginx = Nginx::start(&daemon, "proxy_buffering off;");
    let browser = Browser::start();
    browser.open(&format!("http://{}/demo.json", nginx.addr));
    browser.run(include_str!("../../web/comet.js"));
    // The page does nothing for some seconds, as on a slow machine. Then messages seem to be late.
    subscribe(&browser, "'news', HANDLERS");
    browser.wait_for("return heard.states.some(([state]) => state === 'open')");
    let publisher = Publisher::start(daemon);
    browser.wait_for("return heard.messages.length > 20");
    browser.run("const end = Date.now() + 4000; while (Date.now() < end);");
    // The page tests the stream. The answer to the test is the second poll that does not wait.
    browser.wait_for("return performance.getEntriesByType('resource').filter((e) => e.name.includes('wait=0')).length > 1");
    browser.wait_for(
        "const n = heard.messages.length; window.seen = window.seen || n; return n > seen + 60",
    );
    assert_eq!(browser.run(POLLS), false);
    drop(publisher);
}

/// Publishes 15 messages a second, each with 160 bytes that cannot be compressed.
struct Publisher {
    ended: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Daemon>>,
}

impl Publisher {
    fn start(daemon: Daemon) -> Self {
        let ended: Arc<AtomicBool> = Arc::default();
        let end = ended.clone();
        let thread = thread::spawn(move || {
            let mut random = 1_u64;
            while !end.load(Ordering::SeqCst) {
                let bytes = (0..160).map(|_| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    char::from(b'!' + (random >> 33) as u8 % 90)
                });
                daemon.publish("news", &bytes.collect::<String>());
                thread::sleep(Duration::from_millis(66)); // the rate of the messages
            }
            daemon
        });
        Self {
            ended,
            thread: Some(thread),
        }
    }

    fn stop(mut self) -> Daemon {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
