//! A real browser: headless Chromium, controlled through chromedriver with the few WebDriver commands (W3C) needed
//! here.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::daemon::Http;

/// Time-out for a browser. It starts slowly on a busy machine, and pages back off for up to 15 s.
const PATIENCE: Duration = Duration::from_secs(120);

/// Browsers that run at the same time. More of them would only slow each other down.
const MOST: usize = 2;

/// A browser with its own profile. The browser and all its processes are killed when this value is dropped.
pub struct Browser {
    driver: Child,
    addr: SocketAddr,
    session: String,
    profile: tempfile::TempDir,
    _stdout: BufReader<ChildStdout>,
    _turn: Turn,
}

impl Browser {
    pub fn start() -> Self {
        let turn = Turn::wait();
        let profile = tempfile::Builder::new()
            .prefix("comet-browser-")
            .tempdir()
            .unwrap();
        let (driver, stdout, port) = (0..5)
            .find_map(|_| start_driver(profile.path()))
            .unwrap_or_else(|| missing("chromedriver does not start"));
        let mut browser = Self {
            driver,
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            session: String::new(),
            profile,
            _stdout: stdout,
            _turn: turn,
        };
        // On a busy machine Chromium may fail to start, which says nothing about Comet.
        let begin = || {
            let capabilities = capabilities(browser.profile.path());
            browser.try_call("POST", "/session", Some(&capabilities))
        };
        let answer = begin().or_else(|_| begin()).or_else(|_| begin());
        let session = answer.unwrap_or_else(|e| missing(&format!("cannot start chromium: {e}")));
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    pub fn open(&self, url: &str) {
        self.post("/url", json!({"url": url}));
    }

    pub fn reload(&self) {
        self.post("/refresh", json!({}));
    }

    /// Goes back to the previous page, which the browser may have kept unchanged.
    pub fn back(&self) {
        self.post("/back", json!({}));
    }

    /// The current tab.
    pub fn tab(&self) -> String {
        self.call("GET", "/window", None)
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Opens an empty tab and switches to it.
    pub fn new_tab(&self) -> String {
        let tab = self.post("/window/new", json!({"type": "tab"}));
        let tab = tab["handle"].as_str().unwrap().to_owned();
        self.switch_to(&tab);
        tab
    }

    pub fn switch_to(&self, tab: &str) {
        self.post("/window", json!({"handle": tab}));
    }

    /// Runs this script before the scripts of each page that this tab opens from now on.
    pub fn before_pages(&self, script: &str) {
        let command = "Page.addScriptToEvaluateOnNewDocument";
        self.cdp(command, json!({"source": script}));
    }

    /// Runs a command of the Chrome DevTools Protocol.
    pub fn cdp(&self, command: &str, params: Value) {
        let call = json!({"cmd": command, "params": params});
        self.post("/goog/cdp/execute", call);
    }

    /// Runs a script in the page and returns its result.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": []}))
    }

    /// Clicks as a user does.
    pub fn click(&self, css: &str) {
        self.post(&format!("/element/{}/click", self.element(css)), json!({}));
    }

    /// Types as a user does.
    pub fn type_into(&self, css: &str, text: &str) {
        self.post(
            &format!("/element/{}/value", self.element(css)),
            json!({"text": text}),
        );
    }

    /// The texts of all elements that match, in the order of the page, hidden or not.
    pub fn texts(&self, css: &str) -> Vec<String> {
        let script =
            "return Array.from(document.querySelectorAll(arguments[0]), (e) => e.textContent)";
        let texts = self.post("/execute/sync", json!({"script": script, "args": [css]}));
        serde_json::from_value(texts).unwrap()
    }

    /// Waits until the elements that match have exactly these texts.
    pub fn wait_for_texts(&self, css: &str, expected: &[&str]) {
        let start = Instant::now();
        loop {
            let texts = self.texts(css);
            if texts == expected {
                return;
            }
            let page = || self.run("return document.body.innerText");
            assert!(
                start.elapsed() < PATIENCE,
                "{css} is {texts:?}, not {expected:?}, in: {}",
                page()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the script returns something other than `null` or `false`.
    pub fn wait_for(&self, script: &str) -> Value {
        let start = Instant::now();
        loop {
            let value = self.run(script);
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            let page = || self.run("return document.body.innerText");
            assert!(
                start.elapsed() < PATIENCE,
                "waited in vain for: {script}; in: {}",
                page()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The console's new entries since the last call: script errors, violated policies, failed requests.
    pub fn console(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"}));
        let texts = log.as_array().unwrap().iter();
        texts
            .map(|entry| entry["message"].as_str().unwrap().to_owned())
            .collect()
    }

    fn element(&self, css: &str) -> String {
        let element = self.post("/element", json!({"using": "css selector", "value": css}));
        let (_, id) = element.as_object().unwrap().iter().next().unwrap();
        id.as_str().unwrap().to_owned()
    }

    fn post(&self, command: &str, body: Value) -> Value {
        self.call("POST", command, Some(&body))
    }

    fn call(&self, method: &str, command: &str, body: Option<&Value>) -> Value {
        let path = format!("{}{command}", self.session);
        self.try_call(method, &path, body)
            .unwrap_or_else(|e| panic!("{method} {command}: {e}"))
    }

    fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut http = Http::connect(self.addr);
        http.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        http.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.addr,
            body.len()
        ));
        let answer = http.answer();
        let value = answer.json()["value"].take();
        if answer.status == 200 {
            Ok(value)
        } else {
            Err(value["message"].to_string())
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        // Chromium's processes outlive the driver, and one of them may start another before it ends.
        let start = Instant::now();
        loop {
            let left = processes_with(self.profile.path());
            if left.is_empty() {
                return;
            }
            for pid in &left {
                let _ = kill(*pid, Signal::SIGKILL);
            }
            if start.elapsed() > PATIENCE {
                assert!(thread::panicking(), "cannot end {left:?}");
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Waits for a free place among [`MOST`] browsers.
struct Turn;

static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Turn {
    fn wait() -> Self {
        let running = RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = RUNNING
            .1
            .wait_while(running, |n| *n >= MOST)
            .unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        RUNNING.1.notify_one();
    }
}

fn missing(what: &str) -> ! {
    panic!(
        "{what}\nthis test needs a browser; `make test` installs it, or: apt-get install chromium chromium-driver"
    )
}

/// The driver and its port. `None`: the driver found no port that was free for IPv4 and IPv6, and ended.
fn start_driver(profile: &Path) -> Option<(Child, BufReader<ChildStdout>, u16)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        // All processes that are started from here have the profile's path in their arguments or environment.
        .env("HOME", profile)
        .env("TMPDIR", profile)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| missing(&format!("cannot start chromedriver: {e}")));
    let mut stdout = BufReader::new(driver.stdout.take().unwrap());
    let mut output = String::new();
    while stdout.read_line(&mut output).unwrap() > 0 {
        // The line is `ChromeDriver was started successfully on port N.`
        if let Some((_, rest)) = output.split_once("successfully on port ") {
            let port = rest.trim().trim_end_matches('.').parse().unwrap();
            return Some((driver, stdout, port));
        }
    }
    driver.wait().unwrap();
    None
}

fn capabilities(profile: &Path) -> Value {
    let profile = format!("--user-data-dir={}", profile.display());
    let arguments = [
        "--headless=new",
        "--no-sandbox", // root
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", // stays on this machine
        &profile,
    ];
    json!({"capabilities": {"alwaysMatch": {
        "pageLoadStrategy": "eager", // the clock's frame never ends to load
        "goog:chromeOptions": {"args": arguments},
        "goog:loggingPrefs": {"browser": "ALL"},
    }}})
}

/// Processes that have this path in their arguments or environment.
fn processes_with(path: &Path) -> Vec<Pid> {
    let needle = path.as_os_str().as_bytes();
    let contains = |file: String| {
        let content = std::fs::read(file).unwrap_or_default(); // it may be gone by now
        content.windows(needle.len()).any(|window| window == needle)
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        contains(format!("/proc/{pid}/cmdline")) || contains(format!("/proc/{pid}/environ"))
    })
    .map(Pid::from_raw)
    .collect()
}
