//! A session without a connection, and a dialect of the tests over a real one.

use std::{
    cell::Cell,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use comet_proto::ChannelName;
use tokio::{sync::oneshot, task::spawn_local};

use super::{
    dialect::{Close, Dialect, DialectKind, Frames, Heard, SessionEnd, SessionForm},
    websocket::open_session,
    *,
};
use crate::{
    connection::{Conn, ConnectionLimits, Input, Protocol, Step, Worker},
    fuzz::http::site,
    http::{Ceiling, Site},
    hub::{
        HistoryConfig, Hub,
        subscriber::{AfterDelivery, Audience},
    },
    worker::{self, Door, Due},
};

struct Nobody;

impl Subscriber for Nobody {
    fn deliver(self: Rc<Self>, _: &mut Feed<'_>) -> AfterDelivery {
        AfterDelivery::Stay
    }
}

fn site_of(hub: &Arc<Hub>) -> Arc<Site> {
    Arc::new(site(hub).0)
}

fn session() -> Session {
    let hub = Hub::new(HistoryConfig::default(), 1);
    let http = Rc::new(Http::new(site_of(&hub), Audience::new(hub, 0)));
    Session::new(&http, Rc::new(Nobody), Credentials::default())
}

fn channels(names: &[&str]) -> ChannelNames {
    ChannelNames::parse(names.iter().copied()).unwrap()
}

fn subscribe(session: &mut Session, names: &[&str]) -> Result<(), ChannelNamesError> {
    let permission = session.may_read(channels(names)).unwrap();
    session.subscribe(&permission, None)
}

fn publish(session: &Session, channel: &str, data: &str) -> u64 {
    let permission = session.may_publish(channels(&[channel])).unwrap();
    let message = Publication {
        data: data.as_bytes(),
        ..Publication::default()
    };
    session.publish(permission, message).id().unwrap()
}

#[test]
fn a_withheld_message_does_not_come_back_to_its_publisher() {
    let mut session = session();
    subscribe(&mut session, &["a"]).unwrap();
    let own = publish(&session, "a", "own");
    session.withhold(own);
    let other = publish(&session, "a", "other");
    let news = session.take_news(usize::MAX).unwrap();
    let ids: Vec<u64> = news.messages.iter().map(|message| message.id).collect();
    assert_eq!(ids, [other]);
    assert!(session.withheld.is_empty(), "the id is forgotten");
}

#[test]
fn internal_channels_do_not_count_towards_the_limit() {
    let mut session = session();
    let names: Vec<String> = (0..MAX_CHANNELS).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    subscribe(&mut session, &names).unwrap();
    let internal = ChannelName::internal(".test.1").unwrap();
    let permission = ReadPermission::internal(internal.clone());
    session.subscribe(&permission, None).unwrap();
    let too_many = Err(ChannelNamesError::TooMany(MAX_CHANNELS + 1));
    assert_eq!(subscribe(&mut session, &["one-more"]), too_many);
    assert!(session.unsubscribe(&internal));
    assert!(!session.unsubscribe(&internal));
    assert!(session.unsubscribe(&session.channels()[7].clone()));
    assert_eq!(subscribe(&mut session, &["one-more"]), Ok(()));
    assert_eq!(session.seats.len(), session.channels().len());
}

#[test]
fn the_first_right_that_ends_is_that_of_the_session() {
    let mut session = session();
    subscribe(&mut session, &["a", "b", "c"]).unwrap();
    assert_eq!(session.ends(), RightEnds::Never);
    for (seat, second) in session.seats.iter_mut().zip([4_000_000_000, 7]) {
        seat.ends = NonZeroU32::new(second);
    }
    session.find_first_end();
    assert_eq!(session.ends(), RightEnds::At(7));
    assert!(session.has_ended());
    session.unsubscribe(&ChannelName::parse("b").unwrap());
    assert_eq!(session.ends(), RightEnds::At(4_000_000_000));
    assert!(!session.has_ended());
}

/// The number of times that [`Letters`] has rendered messages, and the sessions that have closed.
#[derive(Default)]
struct Counts {
    told: Cell<usize>,
    closed: Cell<usize>,
}

/// A dialect whose texts are letters. `s`: subscribes to `a`. `p`: publishes `p` to `a`. `x`: ends without a close frame. A
/// message `x` ends the connection.
struct Letters(Rc<Counts>);

impl Dialect for Letters {
    fn kind(&self) -> DialectKind {
        DialectKind {
            form: Some(SessionForm::Comet),
            sends_close: false,
        }
    }

    fn open(&mut self, _: &mut Session, out: &mut Frames) -> Result<(), Close> {
        out.text(b"hello");
        Ok(())
    }

    fn hear(
        &mut self,
        text: &str,
        session: &mut Session,
        out: &mut Frames,
    ) -> Result<Heard, Close> {
        match text {
            "s" => subscribe(session, &["a"]).unwrap(),
            "x" => return Err(Close::NoFrame),
            text => drop(publish(session, "a", text)),
        }
        out.text(b"ok");
        Ok(Heard::Done)
    }

    fn tell(&self, backlog: &Backlog, out: &mut Frames) {
        self.0.told.set(self.0.told.get() + 1);
        for message in &backlog.messages {
            out.text(&message.data);
        }
    }

    fn ends_at(&self, backlog: &Backlog) -> Option<Close> {
        let is_end = |message: &Arc<comet_proto::Message>| &*message.data == b"end";
        backlog
            .messages
            .iter()
            .any(is_end)
            .then_some(Close::NoFrame)
    }

    fn end(&self, _: SessionEnd, _: &Session, out: &mut Frames) -> Close {
        out.text(b"bye");
        Close::Frame(4000, "stop".into())
    }

    fn closed(&mut self, _: &Session) {
        self.0.closed.set(self.0.closed.get() + 1);
    }
}

/// Makes the sessions of [`Letters`], without a handshake.
struct LettersDoor(Rc<Http>, Rc<Counts>);

/// Becomes a session at the first byte.
struct Opener(Rc<Http>, Rc<Counts>);

impl Protocol for Opener {
    fn input(&mut self, conn: &Rc<Conn>, _: &mut Input<'_>) -> Step {
        let open = open_session(Credentials::default(), Letters(self.1.clone()));
        Step::Become(open(&self.0, conn))
    }

    fn news(&mut self, _: &Rc<Conn>, _: &mut Feed<'_>) -> Step {
        Step::Close
    }

    fn time(&mut self, _: &Rc<Conn>) -> Step {
        Step::Close
    }

    fn farewell(&mut self, _: &Rc<Conn>) -> Step {
        Step::Close
    }
}

impl Door<Conn> for LettersDoor {
    fn open(&self, stream: TcpStream, _: IpAddr, worker: &Rc<Worker>) -> io::Result<()> {
        let opener = Box::new(Opener(self.0.clone(), self.1.clone()));
        worker.add(stream, None, |stream, place| {
            Conn::new(worker, stream, place, true, opener, Due::NEVER)
        })
    }
}

/// Runs a thread with sessions of [`Letters`]. When `client` returns, the thread stops. Returns what was counted.
fn serve(client: impl FnOnce(SocketAddr) + Send + 'static) -> Rc<Counts> {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let (done, stop) = oneshot::channel();
    let clients = thread::spawn(move || {
        client(address);
        done.send(()).unwrap();
    });
    let hub = Hub::new(HistoryConfig::default(), 1);
    let site = site_of(&hub);
    let limits = ConnectionLimits::new(
        site.metrics.clone(),
        Duration::from_secs(60),
        Ceiling::new(None),
    );
    let shared = worker::tests::parts(socket, site.metrics.clone());
    let audience = Audience::new(hub, 0);
    let http = Rc::new(Http::new(site.clone(), audience.clone()));
    let counts = Rc::<Counts>::default();
    let door = Box::new(LettersDoor(http, counts.clone()));
    let (worker, events) = worker::Worker::new(0, shared, vec![door], limits).unwrap();
    let main = async {
        spawn_local(async move { audience.run().await });
        let _ = stop.await; // also when the client has failed
        worker.stop().await;
    };
    events.run(&worker, main, || worker.tick(|| ())).unwrap();
    clients.join().unwrap();
    assert_eq!(site.metrics.subscribers.get(), 0);
    counts
}

/// A client's frame with a mask of zeros.
fn frame(first: u8, payload: &str) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | length, 0, 0, 0, 0], payload.as_bytes()].concat()
}

struct Client(TcpStream);

impl Client {
    fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).unwrap())
    }

    fn say(&mut self, text: &str) {
        self.0.write_all(&frame(0x81, text)).unwrap();
    }

    fn hears(&mut self, texts: &[&str]) {
        for text in texts {
            let expected = [&[0x81, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
            let mut found = vec![0; expected.len()];
            self.0.read_exact(&mut found).unwrap();
            assert_eq!(
                found.escape_ascii().to_string(),
                expected.escape_ascii().to_string()
            );
        }
    }

    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        rest
    }
}

#[test]
fn equal_bytes_are_rendered_once_for_all_sessions() {
    let counts = serve(|address| {
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(address)).collect();
        for client in &mut clients {
            client.say("s");
            client.hears(&["hello", "ok"]);
        }
        let mut publisher = Client::connect(address);
        publisher.say("one");
        publisher.hears(&["hello", "ok"]);
        for client in &mut clients {
            client.hears(&["one"]);
        }
    });
    assert_eq!((counts.told.get(), counts.closed.get()), (1, 21));
}

#[test]
fn a_dialect_decides_how_a_connection_ends() {
    let counts = serve(|address| {
        let open = || {
            let mut client = Client::connect(address);
            client.say("s");
            client.hears(&["hello", "ok"]);
            client
        };
        // The client's close frame gets no answer.
        let mut client = open();
        client.0.write_all(&frame(0x88, "")).unwrap();
        assert_eq!(client.rest(), b"");
        let mut client = open();
        client.say("x");
        assert_eq!(client.rest(), b"");
        // A message ends the connection, also that of the publisher.
        let (mut client, mut other) = (open(), open());
        client.say("end");
        client.hears(&["ok", "end"]);
        other.hears(&["end"]);
        assert_eq!((client.rest(), other.rest()), (vec![], vec![]));
        let mut client = open();
        client.0.shutdown(std::net::Shutdown::Write).unwrap();
        client.hears(&["bye"]);
        assert_eq!(client.rest(), b"\x88\x06\x0f\xa0stop");
    });
    assert_eq!(counts.closed.get(), 5);
}
