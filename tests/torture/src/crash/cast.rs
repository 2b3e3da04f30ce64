//! The participants of a crash test: publishers of all kinds, subscribers, and their records.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;
use tempfile::TempDir;

use super::wait_until;
use crate::{
    ledger::{Fate, Ledger, Promise},
    publish::{Files, Library, Post, Publish, Socket},
    publisher::{Gate, Publisher},
    random::Random,
    server::Comet,
    stage::{Habits, Stage},
    subscribe::Cursor,
    subscriber::{Subscriber, lock},
    target::{Target, Transport},
    transcript::Transcript,
};

/// The run number of all messages. Each directory has only one run.
const RUN: u64 = 1;
pub(super) const CHANNELS: [&str; 3] = ["one", "two", "files"];
const FIRST: Duration = Duration::from_secs(60);

pub(super) struct Cast {
    pub(super) target: Target,
    pub(super) ledger: Arc<Ledger>,
    pub(super) transcripts: Vec<Arc<Mutex<Transcript>>>,
    seed: u64,
    stage: Arc<Stage>,
    gate: Arc<Gate>,
    resting: Vec<Arc<AtomicBool>>,
    threads: Vec<JoinHandle<()>>,
    /// The directory of the compiled C program.
    _program: TempDir,
}

/// A subscriber that reads for a while.
pub(super) struct Reader {
    pub(super) transcript: Arc<Mutex<Transcript>>,
    stage: Arc<Stage>,
    thread: Option<JoinHandle<()>>,
}

/// A publisher that was not started yet.
struct Role {
    name: &'static str,
    channel: &'static str,
    promise: Promise,
    way: Box<dyn Publish>,
    /// Average time between two messages.
    pace: Duration,
}

impl Cast {
    /// Starts all publishers and subscribers.
    pub(super) fn assemble(comet: &Comet, library: &std::path::Path, seed: u64) -> Result<Self> {
        let program = tempfile::Builder::new()
            .prefix("comet-torture-")
            .tempdir()?;
        let compiled = Library::compile(program.path(), library)?;
        let stage = Arc::new(Stage::new(Habits::default()));
        let mut cast = Self {
            target: comet.target(),
            ledger: Arc::default(),
            transcripts: Vec::new(),
            seed,
            stage: stage.clone(),
            gate: Arc::default(),
            resting: Vec::new(),
            threads: Vec::new(),
            _program: program,
        };
        let post = |name| Post::new(comet.target(), stage.clone(), Random::new(seed, name));
        let socket = || Socket::new(comet.socket(), Duration::from_secs(5));
        let spooling = Socket::spooling(comet.socket(), Duration::from_secs(1));
        let dsn = format!("unix:{}?timeout_ms=5000", comet.socket().display());
        let each = |name, channel, way: Box<dyn Publish>| Role {
            name,
            channel,
            promise: Promise::Each,
            way,
            pace: Duration::from_millis(6),
        };
        cast.publish(vec![
            each("http a", "one", Box::new(post("http a"))),
            each("http b", "two", Box::new(post("http b"))),
            each("socket a", "one", Box::new(socket())),
            each("socket b", "two", Box::new(socket())),
            each("library", "one", Box::new(Library::start(&compiled, &dsn)?)),
            each("spool", "two", Box::new(spooling)),
            Role {
                name: "files",
                channel: "files",
                promise: Promise::Last,
                way: Box::new(Files::open(&comet.dir())?),
                pace: Duration::from_millis(20),
            },
        ]);
        cast.subscribe();
        Ok(cast)
    }

    fn publish(&mut self, roles: Vec<Role>) {
        let mut ledger = Ledger::default();
        for role in &roles {
            ledger.open(role.name.into(), role.channel, role.promise);
        }
        self.ledger = Arc::new(ledger);
        for (number, role) in roles.into_iter().enumerate() {
            let publisher = Publisher {
                number: number as u16,
                run: RUN,
                channel: role.channel.into(),
                random: Random::new(self.seed, role.name),
                way: role.way,
                ledger: self.ledger.clone(),
                stage: self.stage.clone(),
                gate: self.gate.clone(),
                resting: Arc::default(),
                pace: role.pace,
                size: 300,
            };
            self.resting.push(publisher.resting.clone());
            self.threads.push(thread::spawn(move || publisher.run()));
        }
    }

    fn subscribe(&mut self) {
        let all: Vec<String> = CHANNELS.map(str::to_owned).into();
        for transport in [Transport::Poll, Transport::Sse] {
            for channels in [&all[..1], &all[1..2], &all[2..], &all] {
                let name = format!("{transport} of {}", channels.join(", "));
                let subscriber = self.subscriber(transport, name, channels, self.stage.clone());
                self.transcripts.push(subscriber.transcript.clone());
                self.threads.push(thread::spawn(move || subscriber.run()));
            }
        }
    }

    fn subscriber(
        &self,
        transport: Transport,
        name: String,
        channels: &[String],
        stage: Arc<Stage>,
    ) -> Subscriber {
        let random = Random::new(self.seed, &name);
        let transcript = Transcript::new(RUN, name, channels.into(), false);
        Subscriber {
            target: self.target.clone(),
            transport,
            channels: channels.into(),
            stage,
            random,
            cursor: Cursor::None,
            transcript: Arc::new(Mutex::new(transcript)),
        }
    }

    /// Starts a subscriber to all channels, with this cursor.
    pub(super) fn reader(&self, cursor: &str) -> Result<Reader> {
        let stage = Arc::new(Stage::new(Habits::default()));
        let all = CHANNELS.map(str::to_owned);
        let name = format!("reader from {cursor}");
        let mut subscriber = self.subscriber(Transport::Poll, name, &all, stage.clone());
        subscriber.cursor = Cursor::Id(cursor.into());
        let transcript = subscriber.transcript.clone();
        let thread = thread::Builder::new().spawn(move || subscriber.run())?;
        Ok(Reader {
            transcript,
            stage,
            thread: Some(thread),
        })
    }

    /// Waits until each subscriber has a message of each publisher. A subscriber is judged from the first message that
    /// it saw.
    pub(super) fn wait_for_first(&self) -> Result<()> {
        wait_until("the first messages", FIRST, || self.all_have(|_| Some(0)))
    }

    /// Waits until all subscribers have the last acknowledged messages.
    pub(super) fn wait_for_last(&self, patience: Duration) -> Result<()> {
        wait_until("the last messages", patience, || {
            self.all_have(|p| self.ledger.page(p).last_acknowledged())
        })
    }

    /// Whether every subscriber has received this number of each of its publishers.
    fn all_have(&self, number: impl Fn(u16) -> Option<u32>) -> bool {
        self.transcripts.iter().all(|transcript| {
            let transcript = lock(transcript);
            let publishers = self.ledger.on(&transcript.channels);
            let mut publishers = publishers.into_iter();
            publishers.all(|p| transcript.last(p) >= number(p))
        })
    }

    /// Stops publishing and waits until the fate of each publisher's last message is known.
    pub(super) fn rest(&self, patience: Duration) -> Result<()> {
        self.gate.close(true);
        wait_until("publishers to get an answer", patience, || {
            self.resting.iter().all(|resting| resting.load(Relaxed))
        })
    }

    /// Marks what was judged, so that it is not judged again, and lets publishers continue.
    pub(super) fn begin_again(&mut self) {
        for publisher in self.ledger.publishers() {
            let mut page = self.ledger.page(publisher);
            page.judged = page.fates.len();
        }
        for transcript in &self.transcripts {
            lock(transcript).begin_again();
        }
        self.go_on();
    }

    pub(super) fn go_on(&self) {
        for resting in &self.resting {
            resting.store(false, Relaxed);
        }
        self.gate.close(false);
    }

    /// Acknowledged messages of those publishers whose every message counts.
    pub(super) fn acknowledged(&self) -> u64 {
        let pages = self.ledger.publishers().map(|p| self.ledger.page(p));
        let counts = pages.filter(|page| page.promise == Promise::Each);
        let taken = |fate: &&Fate| matches!(fate, Fate::Acknowledged(_));
        counts
            .map(|page| page.fates.iter().filter(taken).count() as u64)
            .sum()
    }

    /// Messages that the daemon refused without a reason.
    pub(super) fn refusals(&self) -> Vec<String> {
        let pages = self.ledger.publishers().map(|p| self.ledger.page(p));
        pages
            .flat_map(|page| {
                page.refusals
                    .iter()
                    .map(|why| format!("{}: {why}", page.name))
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        self.stage.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Reader {
    pub(super) fn stop(&mut self) {
        self.stage.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop();
    }
}
