//! The configurations of `docs/proxies.md`, exactly as they are printed there, with the real proxies.

use std::{
    fs::{self, File, Permissions},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use serde_json::Value;

use crate::{
    daemon::{Daemon, Http, signal, wait_for},
    webdriver::Browser,
};

const MANUAL: &str = include_str!("../../docs/proxies.md");

/// Lines around the manual's part that complete it to the configuration of a separate program.
const NGINX: &str = "daemon off;\nerror_log stderr;\npid ROOT/nginx.pid;\nevents {}\nhttp {\naccess_log off;\n\
    client_body_temp_path ROOT/body;\nproxy_temp_path ROOT/proxy;\nfastcgi_temp_path ROOT/fastcgi;\n\
    uwsgi_temp_path ROOT/uwsgi;\nscgi_temp_path ROOT/scgi;\nMANUAL\n}\n";
const APACHE: &str = "ServerName localhost\nPidFile ROOT/apache.pid\nErrorLog /dev/stderr\nDefaultRuntimeDir ROOT\n\
    User www-data\nGroup www-data\nListen PROXY\n<VirtualHost *>\nMANUAL\n</VirtualHost>\n";
/// Modules that Debian enables by default. `a2enmod` enables those that the manual names.
const MODULES: [&str; 10] = [
    "mpm_event",
    "authz_core",
    "alias",
    "setenvif",
    "filter",
    "deflate",
    "proxy",
    "proxy_http",
    "proxy_wstunnel",
    "asis",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Apache,
    Haproxy,
    Caddy,
}

const ALL: [Kind; 4] = [Kind::Nginx, Kind::Apache, Kind::Haproxy, Kind::Caddy];

impl Kind {
    /// The heading of its section in the manual, and the language of its code block.
    fn heading(self) -> (&'static str, &'static str) {
        match self {
            Self::Nginx => ("## nginx", "nginx"),
            Self::Apache => ("## Apache", "apache"),
            Self::Haproxy => ("## HAProxy", "haproxy"),
            Self::Caddy => ("## Caddy", "caddy"),
        }
    }

    /// The first code block of this language after its heading.
    fn block(self, language: &str) -> &'static str {
        let (heading, _) = self.heading();
        let part = &MANUAL[MANUAL.find(heading).unwrap()..];
        let (_, block) = part.split_once(&format!("```{language}\n")).unwrap();
        block.split_once("```").unwrap().0
    }

    /// The manual's configuration for this daemon and this address.
    fn configuration(self, root: &Path, proxy: SocketAddr, daemon: SocketAddr) -> String {
        let part = self.block(self.heading().1);
        let root = root.to_str().unwrap();
        let (proxy, daemon) = (proxy.to_string(), daemon.to_string());
        let part = part.replace("127.0.0.1:2061", &daemon);
        match self {
            Self::Nginx => {
                let part = part.replace("listen 80", &format!("listen {proxy}"));
                let part = part.replace("example.org", "localhost");
                NGINX.replace("ROOT", root).replace("MANUAL", &part)
            }
            Self::Apache => {
                let part = part.replace("/usr/local/share/comet", root);
                let module = |name: &str| {
                    format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
                };
                let modules: String = MODULES.into_iter().map(module).collect();
                let frame = APACHE.replace("ROOT", root).replace("PROXY", &proxy);
                modules + &frame.replace("MANUAL", &part)
            }
            Self::Haproxy => part
                .replace("/etc/haproxy/errors", root)
                .replace("bind :80", &format!("bind {proxy}")),
            Self::Caddy => {
                let (_, port) = proxy.rsplit_once(':').unwrap();
                let site = format!("http://localhost:{port}, http://127.0.0.1:{port}");
                let part = part.replace("example.org", &site);
                format!("{{\nadmin off\ngrace_period 1s\n}}\n{part}")
            }
        }
    }

    fn command(self, configuration: &Path) -> Command {
        let (program, arguments): (_, &[&str]) = match self {
            Self::Nginx => ("nginx", &["-e", "stderr", "-c"]),
            Self::Apache => ("apache2", &["-DFOREGROUND", "-f"]),
            Self::Haproxy => ("haproxy", &["-f"]),
            Self::Caddy => ("caddy", &["run", "--adapter", "caddyfile", "--config"]),
        };
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", path + ":/usr/sbin:/sbin"); // Debian's place for servers
        command.args(arguments).arg(configuration);
        command
    }
}

/// A running proxy. It is stopped when this value is dropped.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) addr: SocketAddr,
    _root: tempfile::TempDir,
}

impl Proxy {
    /// Starts the proxy with the manual's configuration, altered by `change`.
    pub(crate) fn start(kind: Kind, daemon: &Daemon, change: impl Fn(String) -> String) -> Self {
        let root = tempfile::Builder::new()
            .prefix("comet-proxy-")
            .tempdir()
            .unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        for (kind_of_file, name) in [
            (Kind::Apache, "away.asis"),
            (Kind::Haproxy, "comet-away.http"),
        ] {
            if kind_of_file == kind {
                fs::write(root.path().join(name), kind.block("text")).unwrap();
            }
        }
        let addr = free_address();
        let configuration = change(kind.configuration(root.path(), addr, daemon.addr()));
        let path = root.path().join("proxy.conf");
        fs::write(&path, configuration).unwrap();
        let log = root.path().join("log");
        let mut command = kind.command(&path);
        for home in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
            command.env(home, root.path());
        }
        let output = File::create(&log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{kind:?}: {e}; `scripts/packages test` installs it"));
        wait_for("the proxy to listen", || {
            if child.try_wait().unwrap().is_some() {
                panic!("{kind:?} ended: {}", fs::read_to_string(&log).unwrap());
            }
            TcpStream::connect(addr).ok()
        });
        Self {
            child,
            addr,
            _root: root,
        }
    }

    fn client(&self) -> Http {
        Http::connect(self.addr)
    }

    fn request(&self, path: &str, headers: &str) -> Http {
        let mut client = self.client();
        let port = self.addr.port();
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n{headers}\r\n"
        ));
        client
    }

    /// Runs curl with these arguments. Returns the head and the body, decompressed if necessary.
    fn curl(&self, path: &str, arguments: &[&str]) -> String {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--compressed", "--include", "--max-time", "20"]);
        curl.args(arguments);
        let url = format!("http://localhost:{}{path}", self.addr.port());
        let output = curl.arg(url).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        signal(&self.child, "TERM");
        let _ = self.child.wait();
    }
}

/// An address on which no program listens. The proxies cannot report a port of their own choice.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn publishes() -> Daemon {
    Daemon::start("http.publish = true\n")
}

fn restarted(root: Arc<tempfile::TempDir>, listen: &str) -> Daemon {
    Daemon::start_in(root, "", &["--listen", listen])
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = answer.lines().filter_map(|line| line.split_once(": "));
    lines
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

#[test]
fn long_polls_streams_and_web_sockets_come_through_each_proxy() {
    for kind in ALL {
        let daemon = publishes();
        let proxy = Proxy::start(kind, &daemon, |configuration| configuration);
        let now = proxy.request("/ch/news?wait=0", "").answer().json();
        let cursor = now["cursor"].as_str().unwrap().to_owned();

        let mut poll = proxy.request(&format!("/ch/news?since={cursor}&wait=60"), "");
        let mut stream = proxy.request("/ch/news", "Accept: text/event-stream\r\n");
        stream.until("event: cursor");
        let mut socket = proxy.request(
            &format!("/ch/news?since={cursor}"),
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        );
        assert!(
            socket.until("\r\n\r\n").starts_with("HTTP/1.1 101"),
            "{kind:?}"
        );

        daemon.publish("news", "through");
        let answer = poll.answer();
        assert_eq!(answer.json()["messages"][0]["data"], "through", "{kind:?}");
        stream.until("\"data\":\"through\"");
        socket.until_bytes(b"\"data\":\"through\"");
        assert!(
            proxy.curl("/comet.js", &[]).contains("subscribe"),
            "{kind:?}"
        );
        drop(daemon); // first, so that no proxy waits for what it has sent
    }
}

#[test]
fn a_page_of_the_proxy_publishes_and_another_does_not() {
    for kind in ALL {
        let daemon = publishes();
        let proxy = Proxy::start(kind, &daemon, |configuration| configuration);
        let own = format!("Origin: http://localhost:{}", proxy.addr.port());
        let origins = [
            (own.as_str(), "201"),
            ("Origin: http://other.example", "403"),
        ];
        for (origin, status) in origins {
            let answer = proxy.curl("/ch/news", &["--data", "hi", "--header", origin]);
            let first = answer.lines().next().unwrap();
            assert!(first.contains(status), "{kind:?}, {origin}: {answer}");
        }
        assert_eq!(daemon.history("news").len(), 1, "{kind:?}");
        drop(daemon);
    }
}

/// Lets the proxy compress polls, as other parts of a site's configuration may do.
fn compressing(kind: Kind, configuration: String) -> String {
    let (off, on) = match kind {
        Kind::Nginx => (
            "gzip off;",
            "gzip on; gzip_types application/json; gzip_proxied any; gzip_min_length 1;",
        ),
        Kind::Apache => (
            "SetEnvIf Request_URI \"^/ch/\" no-gzip=1",
            "SetOutputFilter DEFLATE",
        ),
        Kind::Haproxy => (
            "    option httpchk\n",
            "    option httpchk\n    compression algo gzip\n    compression type application/json\n",
        ),
        Kind::Caddy => (
            "    handle @comet {\n",
            "    encode gzip\n    handle @comet {\n",
        ),
    };
    assert!(configuration.contains(off), "{kind:?}: {configuration}");
    configuration.replace(off, on)
}

#[test]
fn an_etag_is_a_cursor_also_when_the_proxy_compresses() {
    for kind in ALL {
        let daemon = publishes();
        let proxy = Proxy::start(kind, &daemon, |plain| compressing(kind, plain));
        let long = "x".repeat(4096);
        daemon.publish("news", &long);
        let first = proxy.curl("/ch/news?since=0&wait=0", &[]);
        assert!(first.contains(&long), "{kind:?}: {first}");
        let tag = header(&first, "etag").unwrap_or_else(|| panic!("{kind:?}: {first}"));
        daemon.publish("news", "next");
        let condition = format!("If-None-Match: {tag}");
        let second = proxy.curl("/ch/news?wait=10", &["--header", &condition]);
        let (_, body) = second.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {second}"));
        let data: Vec<&Value> = body["messages"].as_array().unwrap().iter().collect();
        assert_eq!(data.len(), 1, "{kind:?}, {tag}: {second}");
        assert_eq!(data[0]["data"], "next", "{kind:?}");
        drop(daemon);
    }
}

#[test]
fn while_the_daemon_is_away_event_streams_are_asked_to_come_back() {
    for kind in ALL {
        let daemon = publishes();
        let proxy = Proxy::start(kind, &daemon, |configuration| configuration);
        proxy.request("/ch/news?wait=0", "").answer();
        let (root, listen) = (daemon.root(), daemon.addr().to_string());
        assert!(daemon.stop().success());
        let away = proxy.curl("/ch/news", &["--header", "Accept: text/event-stream"]);
        let (head, body) = away.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200"), "{kind:?}: {away}");
        assert_eq!(
            header(head, "content-type"),
            Some("text/event-stream"),
            "{kind:?}"
        );
        assert_eq!(header(head, "cache-control"), Some("no-store"), "{kind:?}");
        assert_eq!(body, "retry: 2000\n\n", "{kind:?}");
        let poll = proxy.curl("/ch/news?wait=0", &[]);
        let status = poll.split(' ').nth(1).unwrap();
        assert!(["502", "503", "504"].contains(&status), "{kind:?}: {poll}");

        let _daemon = restarted(root, &listen);
        wait_for("the proxy to find the daemon again", || {
            let answer = proxy.curl("/ch/news?wait=0", &[]);
            answer.contains("\"cursor\"").then_some(())
        });
    }
}

/// The short configuration in `docs/operations.md`: two lines for `http { }`, the rest for the site's own `server { }`.
fn nginx_of_operations(configuration: &str, proxy: SocketAddr, daemon: SocketAddr) -> String {
    let manual = include_str!("../../docs/operations.md");
    let (_, part) = manual.split_once("## Behind nginx").unwrap();
    let (_, block) = part.split_once("```nginx\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let block = block.replace("127.0.0.1:2061", &daemon.to_string());
    let (maps, locations): (Vec<&str>, Vec<&str>) =
        block.lines().partition(|line| line.starts_with("map "));
    let (frame, _) = configuration.split_once("map $http_upgrade").unwrap();
    let (maps, locations) = (maps.join("\n"), locations.join("\n"));
    format!("{frame}{maps}\nserver {{\nlisten {proxy};\n{locations}\n}}\n}}\n")
}

#[test]
fn the_short_set_up_of_nginx_asks_event_streams_to_come_back_too() {
    let daemon = publishes();
    let target = daemon.addr();
    let proxy = Proxy::start(Kind::Nginx, &daemon, |configuration| {
        let (_, listen) = configuration.split_once("listen ").unwrap();
        let (proxy, _) = listen.split_once(';').unwrap();
        nginx_of_operations(&configuration, proxy.parse().unwrap(), target)
    });
    let mut stream = proxy.request("/ch/news", "Accept: text/event-stream\r\n");
    stream.until("event: cursor");
    daemon.publish("news", "through");
    stream.until("\"data\":\"through\"");
    assert!(daemon.stop().success());
    let away = proxy.curl("/ch/news", &["--header", "Accept: text/event-stream"]);
    assert!(away.starts_with("HTTP/1.1 200"), "{away}");
    assert!(away.ends_with("\r\n\r\nretry: 2000\n\n"), "{away}");
    let poll = proxy.curl("/ch/news?wait=0", &[]);
    assert!(poll.starts_with("HTTP/1.1 502"), "{poll}");
}

#[test]
fn an_event_source_survives_a_restart_behind_each_proxy() {
    let browser = Browser::start();
    for kind in ALL {
        let daemon = publishes();
        let proxy = Proxy::start(kind, &daemon, |configuration| configuration);
        browser.open(&format!("http://{}/ch/page?wait=0", proxy.addr));
        browser.run(
            "window.heard = []; window.opened = 0;
             window.source = new EventSource('/ch/news');
             source.onopen = () => { opened += 1; };
             source.onmessage = (event) => { heard.push(JSON.parse(event.data).data); };",
        );
        browser.wait_for("return opened === 1");
        daemon.publish("news", "before");
        browser.wait_for("return heard.length === 1");
        let (root, listen) = (daemon.root(), daemon.addr().to_string());
        assert!(daemon.stop().success());
        // The proxy itself answers the second opening, while the daemon is down.
        browser.wait_for("return opened >= 2");
        let daemon = restarted(root, &listen);
        daemon.publish("news", "while the page waited");
        browser.wait_for("return heard.length === 2 && heard[1] === 'while the page waited'");
        browser.run("source.close()");
    }
}

#[test]
fn pages_of_older_servers_come_through_nginx_and_outlive_the_daemon() {
    let (_, part) = MANUAL.split_once("## Pages of older servers").unwrap();
    let block = |language: &str| {
        let (_, block) = part.split_once(&format!("```{language}\n")).unwrap();
        block.split_once("```").unwrap().0
    };
    let daemon = Daemon::start(&format!("http.publish = true\n{}", block("toml")));
    let older = block("nginx").replace("127.0.0.1:2061", &daemon.addr().to_string());
    let proxy = Proxy::start(Kind::Nginx, &daemon, |configuration| {
        configuration.replacen("location ", &format!("{older}\nlocation "), 1)
    });
    let published = proxy.curl("/chat/backend.php?msg=hi", &[]);
    assert!(published.contains(" 200"), "{published}");
    let chat = proxy.curl("/chat/backend.php?timestamp=0", &[]);
    assert!(chat.contains("\"msg\":\"hi\""), "{chat}");
    let mut clock = proxy.request("/clock/backend.php", "");
    clock.until("printServerTime");
    let news = "/comet.php?subscribed[chat]=1";
    let changed = proxy.curl(news, &["--globoff"]);
    assert!(changed.contains("\"s\":1"), "{changed}");
    assert!(daemon.stop().success());
    let away = proxy.curl(news, &["--globoff"]);
    let (head, body) = away.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200"), "{away}");
    assert_eq!(body, "{\"s\":0}");
}

/// HAProxy requests `/healthz` by HTTP/1.0 without a host, and stops using the server if the answer is an error.
#[test]
fn haproxy_finds_the_daemon_well_and_notices_its_end() {
    let daemon = publishes();
    let monitor = |configuration: String| {
        configuration.replace(
            "    use_backend comet_streams",
            "    http-request return status 200 content-type text/plain lf-string %[nbsrv(comet)] if { path /up }\n    use_backend comet_streams",
        )
    };
    let proxy = Proxy::start(Kind::Haproxy, &daemon, monitor);
    let up = |count: &'static str| {
        let answer = proxy.curl("/up", &[]);
        answer.ends_with(count).then_some(())
    };
    let (root, listen) = (daemon.root(), daemon.addr().to_string());
    assert!(daemon.stop().success());
    wait_for("HAProxy to notice the end", || up("\r\n\r\n0"));
    let _daemon = restarted(root, &listen);
    wait_for("HAProxy to find the daemon well", || up("\r\n\r\n1"));
}
