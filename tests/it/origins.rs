//! Pages of other origins: what the headers of answers allow them, and to which page a request belongs.

use serde_json::json;

use crate::{
    daemon::{Answer, Daemon},
    http2,
    tokens::{assert_unauthorized, start_with, token, vectors},
    webdriver::Browser,
    wire::{WEBSOCKET, ask, get, parked, post, refusal},
};

const PAGE: &str = "https://page.example";

/// A daemon whose channels need a token to read and publish, and whose `origins` are these.
fn with_tokens(origins: &[&str]) -> Daemon {
    let secret = vectors()["keys"][0]["secret"].to_string();
    Daemon::start(&format!(
        "[[channel]]\nprefix = \"\"\nread = \"token\"\npublish = \"token\"\n[http]\norigins = {origins:?}\n\
         [compat]\nzeitoun_channel = \"chat\"\n[[auth.key]]\nkid = \"hs\"\nalg = \"HS256\"\nsecret = {secret}\n"
    ))
}

fn cookie(seconds: u64) -> String {
    let grant = json!({"s": ["*"], "p": ["*"], "h": 1});
    format!("Cookie: __Host-comet={}\r\n", token(&grant, seconds))
}

fn preflight(path: &str, headers: &str) -> String {
    format!(
        "OPTIONS {path} HTTP/1.1\r\nHost: comet.localhost\r\nAccess-Control-Request-Method: GET\r\n{headers}\r\n"
    )
}

#[track_caller]
fn assert_readable(answer: &Answer, origin: Option<&str>, credentials: bool, what: &str) {
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!(allowed, origin, "{what}: {}", answer.head);
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        credentials.then_some("true"),
        "{what}: {}",
        answer.head
    );
    assert_eq!(
        answer.header("access-control-expose-headers"),
        origin.map(|_| "ETag, Retry-After"),
        "{what}: {}",
        answer.head
    );
    let vary: Vec<&str> = answer.head.lines().filter_map(vary_of).collect();
    assert_eq!(vary, ["Origin"], "{what}: {}", answer.head);
}

fn vary_of(line: &str) -> Option<&str> {
    let (name, value) = line.split_once(": ")?;
    name.eq_ignore_ascii_case("vary").then_some(value)
}

/// Reads only the head, because a stream does not end.
fn head_of(daemon: &Daemon, request: impl AsRef<[u8]>) -> Answer {
    let mut client = crate::daemon::Http::connect(daemon.addr());
    client.send(request);
    let head = client.until("\r\n\r\n");
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        body: String::new(),
    }
}

/// Requests of all kinds, each with its expected status.
fn requests(headers: &str) -> Vec<(u16, Vec<u8>)> {
    let sse = format!("Accept: text/event-stream\r\n{headers}");
    let head = get("/ch/a", headers).replacen("GET", "HEAD", 1);
    let long = "x".repeat(9000);
    let texts = [
        (200, get("/ch/a?since=0", headers)),
        (200, get("/ch/%61?since=0", headers)),
        (200, get("/ch/a?wait=0", headers)),
        (200, get("/ch/a?since=0", &sse)),
        (200, get("/ch/a?as=iframe&callback=f", headers)),
        (200, get("/chat.php?timestamp=0", headers)),
        (200, get("/comet.php?subscribed[a]=1", headers)),
        (200, head),
        (200, get("/healthz", headers)),
        (200, get("/comet.js", headers)),
        (200, get("/metrics", headers)),
        (400, get("/ch/..", headers)),
        (400, get("/ch/a?as=nothing", headers)),
        (
            400,
            get("/ch/a", &format!("{headers}Transfer-Encoding: x\r\n")),
        ),
        (404, get("/nowhere", headers)),
        (405, get("/healthz", headers).replacen("GET", "PUT", 1)),
        (414, get(&format!("/ch/a?{long}"), headers)),
        (426, get("/ch/a?as=websocket", headers)),
        (431, get("/ch/a", &format!("{headers}X: {long}{long}\r\n"))),
        (204, preflight("/ch/a", headers)),
    ];
    let mut all: Vec<(u16, Vec<u8>)> = texts.map(|(status, text)| (status, text.into())).into();
    all.push((201, post("/ch/a", headers, b"x")));
    all.push((201, post("/ch/%61", headers, b"x")));
    let large = vec![b'x'; (1 << 20) + 1];
    all.push((413, post("/ch/a", headers, &large)));
    all
}

#[test]
fn a_listed_page_may_send_its_cookie_and_read_every_answer() {
    let listed = with_tokens(&["https://other.example", PAGE]);
    listed.publish("a", "x");
    listed.publish("chat", "x");
    let headers = format!(
        "Origin: {PAGE}\r\nSec-Fetch-Site: cross-site\r\n{}",
        cookie(600)
    );
    for (status, request) in requests(&headers) {
        let answer = head_of(&listed, &request);
        let what = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        assert_eq!(answer.status, status, "{what}: {}", answer.head);
        assert_readable(&answer, Some(PAGE), true, &what);
    }
    // An answer after a wait, and answers that say that a token is missing or has expired.
    let mut waiting = parked(&listed, get("/ch/a", &headers));
    listed.publish("a", "y");
    assert_readable(&waiting.answer(), Some(PAGE), true, "a poll that waited");
    let origin = format!("Origin: {PAGE}\r\n");
    let answer = ask(&listed, get("/ch/a", &origin));
    assert_unauthorized(&answer, "token", "needs a token");
    assert_readable(&answer, Some(PAGE), true, "401");
    let mut expiring = parked(&listed, get("/ch/a", &format!("{origin}{}", cookie(2))));
    let answer = expiring.answer();
    assert_unauthorized(&answer, "token_expired", "expired");
    assert_readable(&answer, Some(PAGE), true, "401 after a wait");
    expiring.send(get("/ch/a", &format!("{origin}{}", cookie(0))));
    let answer = expiring.answer();
    assert_unauthorized(&answer, "token_expired", "expired");
    assert_readable(&answer, Some(PAGE), true, "401 at once");
}

#[test]
fn no_other_page_may_send_a_cookie() {
    let listed = with_tokens(&[PAGE]);
    let any = with_tokens(&["*"]);
    let both = with_tokens(&["*", PAGE]);
    let cases = [
        (&listed, "https://evil.example", None),
        (&listed, "null", None),
        (&listed, "http://page.example", None),
        (&listed, "https://page.example:444", None),
        (&any, PAGE, Some("*")),
        (&any, "null", Some("*")),
        (&both, "https://evil.example", Some("*")),
        (&both, "null", Some("*")),
    ];
    for (daemon, origin, allowed) in cases {
        let headers = format!("Origin: {origin}\r\n{}", cookie(600));
        let requests = requests(&headers).into_iter();
        // NovComet's answer leaves out channels that may not be read, and waits.
        for (_, request) in requests.filter(|(_, it)| !it.starts_with(b"GET /comet.php")) {
            let answer = head_of(daemon, &request);
            let what = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
            assert_readable(&answer, allowed, false, &what);
        }
        let (status, code, message) = refusal(&ask(daemon, get("/ch/a", &headers)));
        assert_eq!((status, &*code), (403, "forbidden"), "{origin}");
        assert!(message.contains("the cookie __Host-comet"), "{message}");
    }
    // A listed name takes precedence over "*".
    let headers = format!("Origin: {PAGE}\r\n{}", cookie(600));
    let answer = ask(&both, get("/ch/a?wait=0", &headers));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_readable(&answer, Some(PAGE), true, "listed beside *");
}

#[test]
fn without_an_origin_answers_say_only_that_they_vary() {
    let daemon = Daemon::start(&format!("[http]\npublish = true\norigins = [{PAGE:?}]\n"));
    daemon.publish("a", "x");
    for path in ["/ch/a?since=0", "/ch/%61?since=0", "/comet.js", "/healthz"] {
        assert_readable(&ask(&daemon, get(path, "")), None, false, path);
    }
    let closed = Daemon::start("");
    let answer = ask(&closed, get("/ch/a?wait=0", &format!("Origin: {PAGE}\r\n")));
    assert_eq!(answer.header("vary"), None, "where none is listed");
}

#[test]
fn http2_says_the_same() {
    let daemon = with_tokens(&[PAGE]);
    daemon.publish("a", "x");
    let grant = json!({"s": ["*"], "p": ["*"], "h": 1});
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        let page = client.with_header("origin", PAGE);
        let with_cookie =
            page.with_header("cookie", &format!("__Host-comet={}", token(&grant, 600)));
        let answers = [
            (200, with_cookie.get("/ch/a?since=0").await),
            (200, with_cookie.get("/ch/a?since=0&as=sse").await),
            (201, with_cookie.post("/ch/a", "x").await),
            (401, page.get("/ch/a").await),
            (404, page.get("/nowhere").await),
        ];
        for (status, answer) in answers {
            assert_eq!(answer.status(), status);
            let headers = answer.headers();
            assert_eq!(headers["access-control-allow-origin"], PAGE);
            assert_eq!(headers["access-control-allow-credentials"], "true");
            assert_eq!(headers["vary"], "Origin");
        }
    });
}

#[test]
fn preflights_allow_what_is_asked_for() {
    let listed = Daemon::start(&format!("[http]\norigins = [{PAGE:?}]\n"));
    let any = Daemon::start("[http]\norigins = [\"*\"]\n");
    let allowed = |daemon: &Daemon, origin: &str, asked: &str| {
        let headers = format!("Origin: {origin}\r\nAccess-Control-Request-Headers: {asked}\r\n");
        let answer = ask(daemon, preflight("/ch/a", &headers));
        assert_eq!(answer.status, 204);
        answer
            .header("access-control-allow-headers")
            .unwrap()
            .to_ascii_lowercase()
    };
    for asked in [
        "cache-control",
        "cache-control,pragma",
        "authorization, last-event-id",
        "traceparent,tracestate,baggage,sentry-trace",
        "x-anything-else",
    ] {
        assert_eq!(allowed(&listed, PAGE, asked), asked);
        assert_eq!(allowed(&any, "https://any.example", asked), asked);
    }
    let many = vec!["x-header-of-a-library"; 100].join(",");
    for odd in ["a b", "a,,b", "", "é", "a:b", "<x>", &many] {
        let usual = allowed(&listed, PAGE, odd);
        for name in [
            "cache-control",
            "pragma",
            "traceparent",
            "tracestate",
            "baggage",
            "sentry-trace",
        ] {
            assert!(usual.contains(name), "{odd}: {usual}");
        }
    }
    // A page that is not listed learns nothing about the headers that it asks for.
    assert!(!allowed(&listed, "https://evil.example", "x-mine").contains("x-mine"));
}

#[test]
fn a_listed_page_may_ask_from_another_network() {
    let ask_for = |origins: &str, origin: &str| {
        let daemon = Daemon::start(&format!("[http]\norigins = [{origins}]\n"));
        let headers =
            format!("Origin: {origin}\r\nAccess-Control-Request-Private-Network: true\r\n");
        let answer = ask(&daemon, preflight("/ch/a", &headers));
        answer
            .header("access-control-allow-private-network")
            .map(str::to_owned)
    };
    assert_eq!(
        ask_for("\"https://page.example\"", PAGE).as_deref(),
        Some("true")
    );
    assert_eq!(
        ask_for("\"https://page.example\"", "https://evil.example"),
        None
    );
    assert_eq!(ask_for("\"*\"", PAGE), None);
}

/// What a browser says about a page, and whether the page is of this site (`comet.localhost`), of a listed origin, or
/// of neither.
#[test]
fn whose_page_it_is() {
    let listed = [
        "https://page.example",
        "http://plain.example:8080",
        "capacitor://localhost",
    ];
    let daemon = with_tokens(&listed);
    let ours = "comet.localhost";
    // Columns: Host, Origin, Sec-Fetch-Site, allowed.
    let cases = [
        // Browsers without Sec-Fetch-Site: Origin is compared with Host, whatever the scheme.
        (ours, "http://comet.localhost", "", true),
        (ours, "https://comet.localhost", "", true),
        (ours, "https://comet.localhost:443", "", true),
        (ours, "http://comet.localhost:80", "", true),
        (ours, "HTTPS://Comet.LocalHost", "", true),
        ("COMET.localhost", "http://comet.localhost", "", true),
        ("comet.localhost:443", "https://comet.localhost", "", true),
        ("comet.localhost:80", "http://comet.localhost", "", true),
        (
            "comet.localhost:8443",
            "https://comet.localhost:8443",
            "",
            true,
        ),
        ("comet.localhost:443", "http://comet.localhost", "", false),
        ("comet.localhost:80", "https://comet.localhost", "", false),
        ("comet.localhost:8443", "https://comet.localhost", "", false),
        (ours, "https://comet.localhost:8443", "", false),
        (ours, "http://comet.localhost:443", "", false),
        (ours, "capacitor://comet.localhost", "", false),
        (ours, "chrome-extension://comet.localhost", "", false),
        (ours, "comet.localhost", "", false),
        (ours, "null", "", false),
        (ours, "file://", "", false),
        (ours, "*", "", false),
        // The browser's own comparison takes precedence over equal names.
        (ours, "http://comet.localhost", "same-origin", true),
        (ours, "http://comet.localhost", "cross-site", false),
        (ours, "http://comet.localhost", "same-site", false),
        (ours, "https://comet.localhost:443", "same-site", false),
        (ours, "https://comet.localhost:8443", "same-origin", true), // a proxy left the port out
        (ours, "null", "same-origin", true), // a form under Referrer-Policy: no-referrer
        (ours, "null", "cross-site", false),
        (ours, "https://evil.example", "same-origin", false), // Host is not what the browser asked
        (ours, "https://evil.example", "none", false),
        (ours, "http://comet.localhost", "nonsense", true), // to be ignored, as the standard says
        (ours, "https://evil.example", "nonsense", false),
        // Listed origins.
        (ours, "https://page.example", "", true),
        (ours, "https://page.example:443", "cross-site", true),
        (ours, "HTTPS://PAGE.example", "same-site", true),
        (ours, "http://plain.example:8080", "cross-site", true),
        (ours, "capacitor://localhost", "cross-site", true),
        (ours, "http://page.example", "cross-site", false),
        (ours, "https://page.example:8443", "cross-site", false),
        (ours, "http://plain.example", "cross-site", false),
        (ours, "ionic://localhost", "cross-site", false),
        ("localhost", "capacitor://localhost", "", true),
        ("localhost", "ionic://localhost", "", false),
    ];
    for (host, origin, site, allowed) in cases {
        let what = format!("{origin} at {host}, {site:?}");
        let site = match site {
            "" => String::new(),
            site => format!("Sec-Fetch-Site: {site}\r\n"),
        };
        let headers = format!("Origin: {origin}\r\n{site}{}", cookie(600));
        let asking = |request: String| request.replacen("comet.localhost", host, 1);
        for path in ["/ch/a?wait=0", "/ch/%61?wait=0"] {
            let answer = ask(&daemon, asking(get(path, &headers)));
            assert_eq!(answer.status == 200, allowed, "cookie: {what}");
        }
        for path in ["/ch/a", "/ch/%61"] {
            let request = String::from_utf8(post(path, &headers, b"x")).unwrap();
            let answer = ask(&daemon, asking(request));
            assert_eq!(answer.status == 201, allowed, "POST: {what}");
        }
        let answer = ask(&daemon, asking(get("/chat.php?msg=x", &headers)));
        assert_eq!(answer.status == 200, allowed, "GET that publishes: {what}");
        let answer = head_of(&daemon, asking(get("/ch/a", &(headers + WEBSOCKET))));
        assert_eq!(answer.status == 101, allowed, "WebSocket: {what}");
    }
}

#[test]
fn several_origins_are_none() {
    let daemon = with_tokens(&[PAGE]);
    let twice = format!("Origin: {PAGE}\r\nOrigin: {PAGE}\r\n{}", cookie(600));
    let mixed = format!(
        "Origin: {PAGE}\r\nOrigin: https://evil.example\r\n{}",
        cookie(600)
    );
    for headers in [twice, mixed] {
        for path in ["/ch/a?wait=0", "/ch/%61?wait=0"] {
            let answer = ask(&daemon, get(path, &headers));
            assert_eq!(answer.status, 403, "{}", answer.body);
            assert_readable(&answer, None, false, path);
        }
        assert_eq!(ask(&daemon, post("/ch/a", &headers, b"x")).status, 403);
    }
}

/// No browser sends `Sec-Fetch-Site` twice. A header that a proxy has merged or doubled gives no right.
#[test]
fn several_sites_of_the_page_are_none() {
    let daemon = with_tokens(&[]);
    for sites in [
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        for path in ["/ch/a", "/ch/%61"] {
            let headers = format!("{sites}{}", cookie(600));
            let answer = ask(&daemon, get(&format!("{path}?wait=0"), &headers));
            assert_eq!(answer.status, 403, "{sites}{path}");
            let answer = ask(&daemon, post(path, &headers, b"x"));
            assert_eq!(answer.status, 403, "{sites}{path}");
        }
    }
}

/// The browser enforces the headers, so only a browser can show their effect.
#[test]
fn a_browser_brings_the_cookie_to_a_listed_origin() {
    let pages = Daemon::start("");
    let page = format!("http://{}", pages.addr());
    let daemon = start_with("", "");
    let listed = with_tokens(&[&page]);
    let browser = Browser::start();
    browser.open(&format!("{page}/healthz"));
    let grant = json!({"s": ["*"], "p": ["*"], "h": 1});
    let good = token(&grant, 600);
    browser.run(&format!(
        "document.cookie = '__Host-comet={good}; Path=/; Secure';"
    ));
    listed.publish("a", "one");
    let url = format!("http://{}/ch/a?since=0", listed.addr());
    browser.run(&format!(
        "window.heard = [];\
         const source = new EventSource('{url}&as=sse', {{ withCredentials: true }});\
         source.onmessage = (e) => heard.push(JSON.parse(e.data).data);\
         const options = {{ credentials: 'include' }};\
         const headers = {{ 'Cache-Control': 'no-cache', Pragma: 'no-cache', traceparent: '00-1-2-01' }};\
         window.told = {{}};\
         const tell = (name, answer) => answer.then(\
           async (r) => {{ told[name] = r.status + ' ' + await r.text(); }},\
           (e) => {{ told[name] = String(e); }});\
         tell('poll', fetch('{url}', options));\
         tell('preflighted', fetch('{url}', {{ ...options, headers }}));\
         tell('published', fetch('{url}', {{ ...options, method: 'POST', body: 'two' }}));\
         tell('without', fetch('{url}'));\
         tell('other', fetch('http://{}/ch/chat.7?wait=0', options));",
        daemon.addr()
    ));
    browser.wait_for("return heard.join() === 'one,two'");
    browser.wait_for("return Object.keys(told).length === 5");
    let told = browser.run("return told");
    let starts = |name: &str, start: &str| {
        let text = told[name].as_str().unwrap();
        assert!(text.starts_with(start), "{name}: {text}");
    };
    starts("poll", "200 {\"cursor\"");
    starts("preflighted", "200 {\"cursor\"");
    starts("published", "201 {\"id\"");
    starts("without", "401 {\"error\":\"token\"");
    starts("other", "TypeError"); // of an origin that is not listed
}
