//! The loop with a protocol of the tests: a server that sends each byte back.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd},
    thread,
};

use nix::sys::eventfd::EventFd;
use tokio::sync::oneshot;

use super::*;
use crate::hub::Workers;

/// A connection that sends back what it reads. The byte `!` makes it panic, and after `t` its time passes.
struct Echo {
    worker: Rc<Worker<Self>>,
    stream: TcpStream,
    place: Place,
}

impl Echo {
    fn send(&self, bytes: &[u8]) {
        (&self.stream).write_all(bytes).unwrap();
    }
}

impl Connection for Echo {
    type Context = ();

    fn ready(self: &Rc<Self>, ready: Ready) {
        let mut chunk = [0; 16];
        match (&self.stream).read(&mut chunk) {
            Ok(n @ 1..) => {
                assert_ne!(chunk[0], b'!', "the test asks for this panic");
                if chunk[0] == b't' {
                    let timers = &self.worker.timers;
                    timers.set(self.place, timers.after(std::time::Duration::ZERO));
                }
                self.send(&chunk[..n]);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && !ready.ended => {}
            _ => self.cut(),
        }
    }

    fn expire(self: &Rc<Self>) {
        self.worker.timers.set(self.place, Due::NEVER);
        self.send(b"expired");
    }

    fn farewell(self: &Rc<Self>) {
        self.send(b"farewell");
        self.cut();
    }

    fn cut(&self) {
        self.worker.forget(self.place);
    }
}

struct EchoDoor;

impl Door<Echo> for EchoDoor {
    fn open(&self, stream: TcpStream, _: IpAddr, worker: &Rc<Worker<Echo>>) -> io::Result<()> {
        worker.add(stream, None, |stream, place| {
            Rc::new(Echo {
                worker: worker.clone(),
                stream,
                place,
            })
        })
    }
}

/// An event handler without events.
struct Nothing(EventFd);

impl AsFd for Nothing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl EventHandler for Nothing {
    fn run(&self) -> Handled {
        Handled {
            more: false,
            woken: Workers::of(0),
        }
    }
}

/// The parts of a thread that accepts from this listener, and whose event handler has no events.
pub(crate) fn parts(socket: TcpListener, metrics: Arc<Metrics>) -> SharedParts {
    let nothing = Nothing(EventFd::new().unwrap());
    SharedParts {
        listeners: Arc::new([Listener { socket, door: 0 }]),
        balance: Balance::new(1).into(),
        handler: MigratingHandler::new(Arc::new(nothing), 1),
        metrics,
    }
}

/// Runs a thread with an echo server. `client` gets its address; when `client` returns, the thread stops.
fn serve(client: impl FnOnce(SocketAddr) -> Vec<TcpStream> + Send + 'static) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let (done, stop) = oneshot::channel();
    let clients = thread::spawn(move || {
        let left = client(address);
        done.send(()).unwrap();
        left.into_iter()
            .for_each(|mut client| assert_eq!(read(&mut client, 8), b"farewell"));
    });
    let shared = parts(socket, Arc::default());
    let (worker, events) = Worker::new(0, shared, vec![Box::new(EchoDoor)], ()).unwrap();
    let main = async {
        let _ = stop.await; // also when the client has failed
        worker.stop().await;
    };
    events.run(&worker, main, || worker.tick(|| ())).unwrap();
    clients.join().unwrap();
}

fn read(client: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    client.read_exact(&mut bytes).unwrap();
    bytes
}

fn is_alive(client: &mut TcpStream) -> bool {
    client.write_all(b"x").unwrap();
    read(client, 1) == b"x"
}

#[test]
fn a_panic_ends_the_connection_in_which_it_happens_and_no_other() {
    serve(|address| {
        let [mut good, mut bad] = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        assert!(is_alive(&mut good) && is_alive(&mut bad));
        bad.write_all(b"!").unwrap();
        assert_eq!(bad.read(&mut [0]).unwrap(), 0, "the connection is closed");
        let mut new = TcpStream::connect(address).unwrap();
        assert!(is_alive(&mut good) && is_alive(&mut new));
        vec![good, new]
    });
}

#[test]
fn the_time_of_one_connection_passes() {
    serve(|address| {
        let [mut timed, mut other] = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        assert!(is_alive(&mut other));
        timed.write_all(b"t").unwrap();
        assert_eq!(read(&mut timed, 8), b"texpired");
        assert!(is_alive(&mut other) && is_alive(&mut timed));
        vec![timed, other]
    });
}
