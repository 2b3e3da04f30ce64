//! Connections with a protocol of the tests: each byte from the client is a command.

use std::{
    future::ready,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener},
    thread,
};

use tokio::{sync::oneshot, task::yield_now};

use super::*;
use crate::worker::{Door, tests::parts};

/// More bytes than fit into the buffers of both sockets.
const MUCH: usize = 64 << 20;

/// `x`: is sent back. `l`: much is written. `e`: ends. `b`: becomes a protocol that answers in capitals. `t`: a task that
/// waits. `n`: a future that is done at once. `!`: panics.
struct Commands {
    capitals: bool,
}

impl Commands {
    fn answer(&self, byte: u8) -> Bytes {
        let byte = if self.capitals {
            byte.to_ascii_uppercase()
        } else {
            byte
        };
        vec![byte].into()
    }
}

impl Protocol for Commands {
    fn input(&mut self, _: &Rc<Conn>, input: &mut Input<'_>) -> Step {
        match input.read() {
            Ok(1..) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Step::Wait(Due::NEVER),
            Ok(0) | Err(_) => return Step::Close,
        }
        let byte = input.bytes()[0];
        input.consume(1);
        let answer = self.answer(byte);
        let writes = || Step::Write(answer.clone(), Then::Again);
        match byte {
            b'x' => writes(),
            b'l' => Step::Write(vec![b'.'; MUCH].into(), Then::Wait(Due::NEVER)),
            b'e' => Step::Write(answer, Then::End),
            b'b' => Step::Become(Box::new(Self { capitals: true })),
            b'n' => Step::Task(Box::pin(ready(writes()))),
            b't' => Step::Task(Box::pin(async move {
                yield_now().await;
                Step::Write(answer, Then::Again)
            })),
            _ => panic!("the test asks for this panic"),
        }
    }

    fn news(&mut self, _: &Rc<Conn>, _: &mut Feed<'_>) -> Step {
        Step::Wait(Due::NEVER)
    }

    fn time(&mut self, _: &Rc<Conn>) -> Step {
        Step::Close
    }

    fn farewell(&mut self, _: &Rc<Conn>) -> Step {
        Step::Write(Bytes::from_static(b"farewell"), Then::End)
    }
}

struct CommandDoor;

impl Door<Conn> for CommandDoor {
    fn open(&self, stream: TcpStream, _: IpAddr, worker: &Rc<Worker>) -> io::Result<()> {
        worker.add(stream, None, |stream, place| {
            let protocol = Box::new(Commands { capitals: false });
            Conn::new(worker, stream, place, true, protocol, Due::NEVER)
        })
    }
}

/// Runs a thread with this protocol. `client` gets its address; when `client` returns, the thread stops. Afterwards no
/// connection counts any more.
fn serve(write_time: Duration, client: impl FnOnce(SocketAddr) + Send + 'static) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let (done, stop) = oneshot::channel();
    let clients = thread::spawn(move || {
        client(address);
        done.send(()).unwrap();
    });
    let metrics: Arc<Metrics> = Arc::default();
    let shared = parts(socket, metrics.clone());
    let limits = ConnectionLimits::new(metrics.clone(), write_time, Ceiling::new(None));
    let (worker, events) = Worker::new(0, shared, vec![Box::new(CommandDoor)], limits).unwrap();
    let main = async {
        let _ = stop.await; // also when the client has failed
        worker.stop().await;
    };
    events.run(&worker, main, || worker.tick(|| ())).unwrap();
    clients.join().unwrap();
    assert_eq!(metrics.http_connections.get(), 0);
}

const LONG: Duration = Duration::from_secs(60);

fn connect(address: SocketAddr, commands: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(commands.as_bytes()).unwrap();
    client
}

fn read(client: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    client.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn steps_follow_each_other_in_the_order_of_the_input() {
    serve(LONG, |address| {
        let mut client = connect(address, "xtxnxbxntx");
        assert_eq!(read(&mut client, 9), "xtxnxXNTX");
        // More steps than a connection may do at once, with tasks in between.
        client.write_all(&b"xt".repeat(100)).unwrap();
        assert_eq!(read(&mut client, 200), "XT".repeat(100));
    });
}

#[test]
fn what_does_not_fit_is_written_when_the_client_reads() {
    serve(LONG, |address| {
        let mut client = connect(address, "xlx");
        assert_eq!(read(&mut client, 1), "x");
        assert_eq!(read(&mut client, MUCH), ".".repeat(MUCH));
        assert_eq!(read(&mut client, 1), "x", "the input that came before");
    });
}

#[test]
fn a_client_that_reads_nothing_is_cut_and_no_other() {
    serve(Duration::from_millis(200), |address| {
        let mut other = connect(address, "x");
        let mut client = connect(address, "l");
        // The end is seen without reading: writing fails once the connection is gone.
        while client.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(read(&mut other, 1), "x");
    });
}

#[test]
fn the_last_bytes_arrive_although_the_client_still_sends() {
    serve(LONG, |address| {
        let mut client = connect(address, "e");
        let _ = client.write_all(&[b'x'; 100_000]);
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert_eq!(got, "e");
    });
}

#[test]
fn a_panic_ends_one_connection_also_in_a_task() {
    serve(LONG, |address| {
        let mut good = connect(address, "x");
        for commands in ["!", "t!"] {
            let mut bad = connect(address, commands);
            let mut got = String::new();
            let _ = bad.read_to_string(&mut got);
            assert!("t".starts_with(&got), "{got}");
        }
        assert_eq!(read(&mut good, 1), "x");
        good.write_all(b"t").unwrap();
        assert_eq!(read(&mut good, 1), "t");
    });
}

#[test]
fn a_client_that_leaves_leaves_nothing_behind() {
    serve(LONG, |address| {
        drop(connect(address, "l"));
        drop(connect(address, "t"));
        let client = connect(address, "xxx");
        client.shutdown(Shutdown::Write).unwrap();
    });
}

#[test]
fn a_waiting_connection_is_small() {
    // With the two counts of its Rc, a block of 80 bytes.
    assert!(size_of::<Conn>() <= 56, "{} bytes", size_of::<Conn>());
}
