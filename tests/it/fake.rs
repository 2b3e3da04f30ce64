//! A server whose answers differ from the daemon's. A client has to cope with them. Each connection gets one answer.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Serves comet.js, an empty page at any path outside `/ch/`, and the test's answers for `/ch/`.
pub struct Fake {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

/// An answer for `/ch/`: status, content type and body.
pub struct Reply(pub &'static str, pub &'static str, pub String);

impl Reply {
    pub fn json(body: impl Into<String>) -> Self {
        Self("200 OK", "application/json", body.into())
    }

    pub fn events(body: impl Into<String>) -> Self {
        Self("200 OK", "text/event-stream", body.into())
    }
}

impl Fake {
    /// Starts the server. `reply` gets the request target (path and query), and whether a stream is requested.
    pub fn start(reply: impl Fn(&str, bool) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Self {
            addr: listener.local_addr().unwrap(),
            asked: Arc::default(),
            ended: Arc::default(),
        };
        let (asked, ended, reply) = (fake.asked.clone(), fake.ended.clone(), Arc::new(reply));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (asked, reply) = (asked.clone(), reply.clone());
                thread::spawn(move || serve(&stream, &asked, &*reply));
            }
        });
        fake
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The request targets below `/ch/` so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr); // wakes the thread that accepts
    }
}

/// Serves one connection. A browser may open connections that it does not use, and close any at any time.
fn serve(stream: &TcpStream, asked: &Mutex<Vec<String>>, reply: &dyn Fn(&str, bool) -> Reply) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let Some(target) = head.first().and_then(|line| line.split(' ').nth(1)) else {
        return;
    };
    let Reply(status, content_type, body) = if target.starts_with("/ch/") {
        asked.lock().unwrap().push(target.to_owned());
        let stream = head.iter().any(|line| line.contains("text/event-stream"));
        reply(target, stream)
    } else if target == "/comet.js" {
        let script = include_str!("../../web/comet.js");
        Reply("200 OK", "text/javascript", script.to_owned())
    } else {
        let page = "<!doctype html><script src=/comet.js></script>";
        Reply("200 OK", "text/html", page.to_owned())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = (&mut &*stream).write_all((head + &body).as_bytes());
}
