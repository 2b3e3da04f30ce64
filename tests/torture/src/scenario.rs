//! One run of the checker: it starts publishers and subscribers, disturbs them for a while, lets them come to rest, and
//! judges.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::{
    ledger::{Ledger, Promise},
    publish::{Post, Publish, Socket},
    publisher::{Gate, Publisher},
    random::Random,
    server::Server,
    stage::{Habits, Stage},
    subscribe::Cursor,
    subscriber::{Subscriber, lock},
    target::{Target, Transport},
    transcript::Transcript,
    verdict::{Figures, judge},
};

/// What is done to a server and its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Disturbance {
    /// Nothing
    Calm,
    /// Connections end at random moments, by FIN or RST, in the middle of requests and answers
    Cuts,
    /// Clients read little at a time, and rest
    Slow,
    /// Subscribers come for a moment and go
    Churn,
    /// The server is restarted
    Restarts,
    /// All of them
    All,
}

impl Disturbance {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Cuts => "cuts",
            Self::Slow => "slow",
            Self::Churn => "churn",
            Self::Restarts => "restarts",
            Self::All => "all",
        }
    }

    fn is(self, other: Self) -> bool {
        self == other || self == Self::All
    }

    #[must_use]
    pub fn restarts(self) -> bool {
        self.is(Self::Restarts)
    }
}

/// The size of a run.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Length of the disturbance.
    pub time: Duration,
    /// Subscribers of each transport.
    pub subscribers: usize,
    pub publishers: usize,
    pub channels: usize,
    /// Messages a second of each publisher.
    pub rate: u32,
    /// Length of a message in bytes. Sixty times as long where clients are slow.
    pub size: usize,
    pub seed: u64,
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    pub disturbance: Disturbance,
    /// The figures of each transport.
    pub figures: Vec<(Transport, Figures)>,
    pub published: u64,
    pub acknowledged: u64,
    pub cuts: u64,
    pub reconnects: u64,
    pub restarts: u64,
    /// Descriptions of some faults and refusals.
    pub examples: Vec<String>,
}

/// Range in milliseconds of the pause before the first restart and between two restarts.
const RESTART: (u64, u64) = (300, 1500);
/// Time-out for the last messages after the disturbance has ended.
const PATIENCE: Duration = Duration::from_secs(20);

struct Run<'a> {
    target: &'a Target,
    scale: &'a Scale,
    disturbance: Disturbance,
    number: u64,
    stage: Arc<Stage>,
    ledger: Arc<Ledger>,
    gate: Arc<Gate>,
    random: Random,
    transcripts: Vec<(Transport, Arc<Mutex<Transcript>>)>,
    threads: Vec<thread::JoinHandle<()>>,
    resting: Vec<Arc<AtomicBool>>,
}

/// Runs one disturbance.
///
/// # Errors
/// When the server cannot be tested: it does not listen, delivers nothing, or does not start again.
pub fn run(
    target: &Target,
    transports: &[Transport],
    disturbance: Disturbance,
    scale: &Scale,
    mut server: Option<&mut dyn Server>,
) -> Result<Outcome> {
    let mut run = Run::new(target, disturbance, scale);
    let mut done = run.go(transports, &mut server);
    run.stage.stop();
    for thread in run.threads.drain(..) {
        if thread.join().is_err() {
            done = done.and_then(|_| bail!("a thread of the checker panicked"));
        }
    }
    let restarts = done?;
    Ok(run.outcome(restarts))
}

/// Returns a number for the channel names of this run, so that no earlier run has used these channels.
fn run_number() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    (now.as_micros() as u64).wrapping_add(COUNT.fetch_add(1, Relaxed))
}

impl<'a> Run<'a> {
    fn new(target: &'a Target, disturbance: Disturbance, scale: &'a Scale) -> Self {
        let habits = Habits {
            cuts: disturbance.is(Disturbance::Cuts),
            slow: disturbance.is(Disturbance::Slow),
        };
        Self {
            target,
            scale,
            disturbance,
            number: run_number(),
            stage: Arc::new(Stage::new(habits)),
            ledger: Arc::default(),
            gate: Arc::default(),
            random: Random::new(scale.seed, disturbance.name()),
            transcripts: Vec::new(),
            threads: Vec::new(),
            resting: Vec::new(),
        }
    }

    fn channels(&self) -> Vec<String> {
        let name = |i| format!("check-{:x}-{i}", self.number);
        (0..self.scale.channels.max(1)).map(name).collect()
    }

    fn go(
        &mut self,
        transports: &[Transport],
        server: &mut Option<&mut dyn Server>,
    ) -> Result<u64> {
        self.subscribe(transports);
        self.publish();
        self.wait_for_first()?;
        self.stage.disturb(true);
        if self.disturbance.is(Disturbance::Churn) {
            self.churn(transports);
        }
        let restarts = self.hold(server)?;
        self.stage.disturb(false);
        self.settle();
        Ok(restarts)
    }

    /// Starts the permanent subscribers. Every second one listens to all channels, if the server supports several
    /// channels.
    fn subscribe(&mut self, transports: &[Transport]) {
        let channels = self.channels();
        for &transport in transports {
            for i in 0..self.scale.subscribers {
                let listens_to = match self.target.kind.many_channels() && i % 2 == 1 {
                    true => channels.clone(),
                    false => vec![channels[i / 2 % channels.len()].clone()],
                };
                let name = format!("{transport} {i}");
                let subscriber = self.subscriber(transport, name, listens_to, false);
                self.threads.push(thread::spawn(move || subscriber.run()));
            }
        }
    }

    fn subscriber(
        &mut self,
        transport: Transport,
        name: String,
        channels: Vec<String>,
        passing: bool,
    ) -> Subscriber {
        let random = Random::new(self.scale.seed, &name);
        let transcript = Transcript::new(self.number, name, channels.clone(), passing);
        let transcript = Arc::new(Mutex::new(transcript));
        self.transcripts.push((transport, transcript.clone()));
        Subscriber {
            target: self.target.clone(),
            transport,
            channels,
            stage: self.stage.clone(),
            random,
            cursor: Cursor::None,
            transcript,
        }
    }

    fn publish(&mut self) {
        let channels = self.channels();
        let mut ledger = Ledger::default();
        for i in 0..self.scale.publishers.max(channels.len()) {
            let name = format!("publisher {i}");
            ledger.open(name, &channels[i % channels.len()], Promise::Each);
        }
        self.ledger = Arc::new(ledger);
        for number in self.ledger.publishers() {
            let publisher = self.publisher(number);
            self.resting.push(publisher.resting.clone());
            self.threads.push(thread::spawn(move || publisher.run()));
        }
    }

    /// Creates a publisher. Every second one uses the Unix socket if there is one, the others HTTP.
    fn publisher(&self, number: u16) -> Publisher {
        let random = Random::new(self.scale.seed, &format!("publisher {number}"));
        let way: Box<dyn Publish> = match &self.target.socket {
            Some(path) if number % 2 == 1 => {
                Box::new(Socket::new(path.clone(), Duration::from_secs(5)))
            }
            _ => Box::new(Post::new(
                self.target.clone(),
                self.stage.clone(),
                random.clone(),
            )),
        };
        let size = match self.stage.habits.slow {
            true => self.scale.size * 60,
            false => self.scale.size,
        };
        Publisher {
            number,
            run: self.number,
            channel: self.ledger.page(number).channel.clone(),
            way,
            ledger: self.ledger.clone(),
            stage: self.stage.clone(),
            gate: self.gate.clone(),
            resting: Arc::default(),
            random,
            pace: Duration::from_secs(1) / self.scale.rate.max(1),
            size,
        }
    }

    /// Waits until each subscriber has a message of each publisher. A subscriber is judged from the first message that
    /// it saw.
    fn wait_for_first(&self) -> Result<()> {
        let start = Instant::now();
        while let Some((name, complaints)) = self.lags(|_| 0) {
            if start.elapsed() > PATIENCE {
                bail!(
                    "{name} gets nothing after {PATIENCE:?}: {complaints:?} ({:?} published, acknowledged)",
                    self.ledger.counts()
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Finds a subscriber that has not received this number of a publisher.
    fn lags(&self, number: impl Fn(u16) -> u32) -> Option<(String, Vec<String>)> {
        self.transcripts.iter().find_map(|(_, transcript)| {
            let transcript = lock(transcript);
            let mut publishers = self.ledger.on(&transcript.channels).into_iter();
            let behind = |p: u16| transcript.last(p).is_none_or(|last| last < number(p));
            let lags = !transcript.passing && publishers.any(behind);
            lags.then(|| (transcript.name.clone(), transcript.complaints.clone()))
        })
    }

    /// Starts short-lived subscribers. Each has a thread that starts a new subscriber when the last one has left.
    fn churn(&mut self, transports: &[Transport]) {
        let channels = self.channels();
        let lives = (self.scale.time.as_millis() / 400).max(1) as usize;
        for &transport in transports {
            let mut row = Vec::new();
            for i in 0..lives {
                let name = format!("{transport}, passing {i}");
                let one = vec![channels[i % channels.len()].clone()];
                row.push(self.subscriber(transport, name, one, true));
            }
            let (stage, mut random) = (self.stage.clone(), self.random.clone());
            random.number();
            self.threads.push(thread::spawn(move || {
                for subscriber in row {
                    pass(subscriber, &stage, random.millis(50, 700));
                }
            }));
        }
    }

    /// Waits while the disturbance lasts. Returns the number of restarts of the server.
    fn hold(&mut self, server: &mut Option<&mut dyn Server>) -> Result<u64> {
        let (end, mut restarts) = (Instant::now() + self.scale.time, 0);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(restarts);
            }
            match server {
                Some(server) if self.disturbance.restarts() => {
                    let pause = self.random.millis(RESTART.0, RESTART.1);
                    self.stage.pause(pause.min(left));
                    server.restart(&mut self.random)?;
                    restarts += 1;
                }
                _ => self.stage.pause(left),
            }
        }
    }

    /// Publishes for a while without a disturbance, then stops publishing and waits until the subscribers have received
    /// everything, or until the time-out.
    fn settle(&self) {
        self.stage.pause(Duration::from_millis(1000));
        self.gate.close(true);
        let start = Instant::now();
        let all_rest = || self.resting.iter().all(|resting| resting.load(Relaxed));
        while !all_rest() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
        }
        let last = |p| self.ledger.page(p).last_acknowledged().unwrap_or(0);
        while self.lags(last).is_some() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
        }
        // A message that must not arrive could arrive after the last expected one.
        thread::sleep(Duration::from_millis(200));
    }

    fn outcome(self, restarts: u64) -> Outcome {
        let (published, acknowledged) = self.ledger.counts();
        let mut outcome = Outcome {
            disturbance: self.disturbance,
            figures: Vec::new(),
            published,
            acknowledged,
            cuts: self.stage.cuts.load(Relaxed),
            reconnects: self.stage.reconnects.load(Relaxed),
            restarts,
            examples: Vec::new(),
        };
        for publisher in self.ledger.publishers() {
            let page = self.ledger.page(publisher);
            let refusals = page.refusals.iter();
            let refusals = refusals.map(|why| format!("{}: refused: {why}", page.name));
            outcome.examples.extend(refusals);
        }
        for (transport, transcript) in &self.transcripts {
            let transcript = lock(transcript);
            let judgement = judge(&self.ledger, &transcript);
            outcome.examples.extend(judgement.examples);
            let name = &transcript.name;
            let complaints = transcript.complaints.iter();
            outcome
                .examples
                .extend(complaints.map(|text| format!("{name}: {text}")));
            match outcome.figures.iter_mut().find(|(t, _)| t == transport) {
                Some((_, figures)) => *figures += judgement.figures,
                None => outcome.figures.push((*transport, judgement.figures)),
            }
        }
        outcome
    }
}

/// Runs a subscriber that leaves after `time`.
fn pass(subscriber: Subscriber, run: &Stage, time: Duration) {
    if run.stopped() {
        return;
    }
    // The subscriber has its own stage, so that ending the stage ends only this subscriber.
    let stage = Arc::new(Stage::new(run.habits));
    stage.disturb(true);
    let own = Subscriber {
        stage: stage.clone(),
        ..subscriber
    };
    let thread = thread::spawn(move || own.run());
    run.pause(time);
    stage.stop();
    let _ = thread.join();
    run.cuts.fetch_add(stage.cuts.load(Relaxed), Relaxed);
}
