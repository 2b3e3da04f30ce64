mod lines;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    thread,
};

use tokio::sync::oneshot;

use super::*;
use lines::Lines;

/// Settings for a daemon in this directory, on a free port.
fn config(root: &Path) -> Config {
    std::fs::create_dir(root.join("dir")).unwrap();
    let place = |name| root.join(name).display().to_string();
    let (dir, socket, store) = (place("dir"), place("comet.sock"), place("store"));
    let text = format!(
        "dir = {dir:?}\nlisten = \"127.0.0.1:0\"\nworkers = 2\n[socket]\npath = {socket:?}\n[store]\ndir = {store:?}"
    );
    Config::parse(&text).unwrap()
}

/// Runs the daemon until `client`, which gets the address, has ended on a thread of its own. Returns its result.
fn run_until<T: Send + 'static>(
    config: Config,
    client: impl FnOnce(SocketAddr) -> T + Send + 'static,
) -> T {
    let sockets = OpenSockets::bind(&config).unwrap();
    let addr = sockets.addr();
    run_on(sockets, config, move || client(addr))
}

/// Like `run_until`, on these sockets.
fn run_on<T: Send + 'static>(
    sockets: OpenSockets,
    config: Config,
    client: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, shutdown) = oneshot::channel::<()>();
    let client = thread::spawn(move || {
        let _done = done; // dropped at the end, also by a panic
        client()
    });
    let shutdown = async { _ = shutdown.await };
    let runtime = local_runtime().unwrap();
    runtime.block_on(run(sockets, config, shutdown)).unwrap();
    client.join().unwrap()
}

/// Publishes to `news` over the Unix socket.
fn publish(socket: &Path, data: &str) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let line = format!("{{\"op\":\"publish\",\"channel\":\"news\",\"data\":{data:?}}}\n");
    stream.write_all(line.as_bytes()).unwrap();
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).unwrap();
    assert!(reply.contains("\"ok\":true"), "{reply}");
}

fn send(addr: SocketAddr, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn every_part_runs_until_the_shutdown() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path());
    let (socket, file) = (root.path().join("comet.sock"), root.path().join("dir"));
    let answer = run_until(config, {
        let socket = socket.clone();
        move |addr| {
            publish(&socket, "by socket");
            std::fs::write(file.join("news.comet"), "by file").unwrap();
            loop {
                let answer = answer(send(addr, "/ch/news?since=0"));
                if answer.contains("by file") {
                    return answer;
                }
            }
        }
    });
    assert!(answer.contains("by socket"), "{answer}");
    assert!(!socket.exists(), "the socket's file is removed at the end");
}

#[test]
fn a_waiting_client_gets_its_last_answer_after_the_shutdown() {
    let root = tempfile::tempdir().unwrap();
    let waiting = run_until(config(root.path()), |addr| {
        let waiting = send(addr, "/ch/news");
        while !answer(send(addr, "/metrics")).contains("comet_subscribers 1\n") {}
        waiting
    });
    let answer = answer(waiting);
    assert!(answer.contains("\"retry\":"), "{answer}");
}

#[test]
fn messages_are_kept_for_the_next_run() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path());
    let socket = root.path().join("comet.sock");
    run_until(config.clone(), move |_| publish(&socket, "kept"));
    let answer = run_until(config, |addr| answer(send(addr, "/ch/news?since=0")));
    assert!(answer.contains("kept"), "{answer}");
}

#[test]
fn a_protocol_with_a_port_of_its_own_gets_the_messages_of_all_sources() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path());
    let socket = root.path().join("comet.sock");
    let port = Lines("127.0.0.1:0".parse().unwrap());
    let sockets =
        OpenSockets::open(PassedSockets::default(), &config, vec![Arc::new(port)]).unwrap();
    let addr = sockets.http.sockets.last().unwrap().socket.local_addr();
    let client = run_on(sockets, config, move || {
        let mut client = BufReader::new(TcpStream::connect(addr.unwrap()).unwrap());
        client.get_mut().write_all(b"SUB ").unwrap();
        client.get_mut().write_all(b"news\n").unwrap();
        assert_eq!(line(&mut client), "OK\n");
        for data in ["one", "two"] {
            publish(&socket, data);
            assert_eq!(line(&mut client), format!("{data}\n"));
        }
        client
    });
    let rest: Vec<String> = client.lines().map(Result::unwrap).collect();
    assert_eq!(rest, ["BYE"]);
}

fn line(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}
