//! Joining, over every order in which publishers, workers and clients can take the hub's lock. A step is one
//! critical section (or what follows it without another), so these orders are all there are.

use std::collections::VecDeque;

use super::*;

/// What a scenario consists of; channels are numbers into `NAMES`.
struct Scenario {
    /// Threads that publish, each to these channels in turn.
    publishers: &'static [&'static [usize]],
    workers: usize,
    clients: &'static [ClientKind],
}

#[derive(Clone, Copy)]
struct ClientKind {
    worker: usize,
    channels: &'static [usize],
    /// Leaves with every delivery and joins again, like a long-poll.
    leaves: bool,
    /// How often its worker may stop listening to a channel while it is away.
    tidies: usize,
}

const NAMES: [&str; 2] = ["a", "b"];

struct World {
    hub: Arc<Hub>,
    names: [ChannelName; 2],
    /// Id and channel, in the order of the lock.
    published: Vec<(u64, usize)>,
    publishers: Vec<Publisher>,
    workers: Vec<Worker>,
    clients: Vec<Client>,
}

struct Publisher {
    todo: VecDeque<usize>,
    /// Workers that the last publish has still to wake, a bit each.
    wake: u64,
}

/// The steps of `Audience::run`.
#[derive(Default)]
struct Worker {
    /// The permit of its waker.
    notified: bool,
    awake: bool,
    /// Clients to call, with the channel for which.
    calls: VecDeque<(usize, usize)>,
}

struct Client {
    kind: ClientKind,
    channels: Vec<ChannelName>,
    start: u64,
    cursor: Cursor,
    parked: bool,
    tidies: usize,
    seen: Vec<u64>,
}

#[derive(Clone, Copy)]
enum Step {
    Publish(usize),
    Wake(usize),
    Work(usize),
    Join(usize),
    Tidy(usize, usize),
}

impl World {
    fn new(scenario: &Scenario) -> Self {
        let config = HistoryConfig {
            default: roomy(),
            ..HistoryConfig::default()
        };
        let hub = hub(config, scenario.workers);
        let names = NAMES.map(channel);
        let (start, cursor) = (hub.last().0, hub.last());
        let publishers = scenario.publishers.iter();
        let clients = scenario.clients.iter();
        Self {
            publishers: publishers
                .map(|todo| Publisher {
                    todo: todo.iter().copied().collect(),
                    wake: 0,
                })
                .collect(),
            workers: (0..scenario.workers).map(|_| Worker::default()).collect(),
            clients: clients
                .map(|kind| Client {
                    kind: *kind,
                    channels: kind.channels.iter().map(|&c| names[c].clone()).collect(),
                    start,
                    cursor,
                    parked: false,
                    tidies: kind.tidies,
                    seen: Vec::new(),
                })
                .collect(),
            published: Vec::new(),
            hub,
            names,
        }
    }

    /// What can happen next.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (i, publisher) in self.publishers.iter().enumerate() {
            if publisher.wake != 0 {
                steps.push(Step::Wake(i));
            } else if !publisher.todo.is_empty() {
                steps.push(Step::Publish(i));
            }
        }
        for (i, worker) in self.workers.iter().enumerate() {
            if worker.awake || worker.notified {
                steps.push(Step::Work(i));
            }
        }
        for (i, client) in self.clients.iter().enumerate() {
            if !client.parked {
                steps.push(Step::Join(i));
            }
            for &channel in client.kind.channels {
                if client.tidies > 0 && !self.listens(client.kind.worker, channel) {
                    steps.push(Step::Tidy(i, channel));
                }
            }
        }
        steps
    }

    /// Some client of this worker is parked on the channel.
    fn listens(&self, worker: usize, channel: usize) -> bool {
        let mut here = self
            .clients
            .iter()
            .filter(|client| client.kind.worker == worker);
        here.any(|client| client.parked && client.kind.channels.contains(&channel))
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Publish(i) => {
                let to = self.publishers[i].todo.pop_front().unwrap();
                let new = message(&self.names[to], b"");
                // What `Hub::publish` does, cut where another thread can come in between.
                let (id, wake) = self.hub.lock().publish(new, clock());
                self.published.push((id, to));
                self.publishers[i].wake = wake.0;
            }
            Step::Wake(i) => {
                let publisher = &mut self.publishers[i];
                self.workers[publisher.wake.trailing_zeros() as usize].notified = true;
                publisher.wake &= publisher.wake - 1;
            }
            Step::Work(i) => self.work(i),
            Step::Join(i) => {
                let client = &mut self.clients[i];
                let cursor = Some(client.cursor);
                let backlog = self
                    .hub
                    .subscribe(client.kind.worker, &client.channels, cursor);
                client.parked = !client.receive(&backlog);
            }
            Step::Tidy(i, channel) => {
                self.clients[i].tidies -= 1;
                let worker = self.clients[i].kind.worker;
                self.hub.unsubscribe(worker, &self.names[channel]);
            }
        }
    }

    fn work(&mut self, i: usize) {
        let worker = &mut self.workers[i];
        if !worker.awake {
            worker.notified = false;
            worker.awake = true;
        }
        if let Some((c, channel)) = worker.calls.pop_front() {
            let client = &mut self.clients[c];
            // It may have left since.
            if client.parked && client.kind.channels.contains(&channel) {
                let got = client.receive(&self.hub.since(&client.channels, client.cursor));
                client.parked = !(got && client.kind.leaves);
            }
            return;
        }
        let dirty = self.hub.take_dirty(i, &[]).published;
        worker.awake = !dirty.is_empty();
        for name in dirty {
            let channel = self.names.iter().position(|known| *known == name).unwrap();
            for (c, client) in self.clients.iter().enumerate() {
                if client.kind.worker == i && client.kind.channels.contains(&channel) {
                    worker.calls.push_back((c, channel));
                }
            }
        }
    }

    fn check(&self) {
        for client in &self.clients {
            let due = |&&(id, to): &&(u64, usize)| {
                id > client.start && client.kind.channels.contains(&to)
            };
            let due: Vec<u64> = self
                .published
                .iter()
                .filter(due)
                .map(|(id, _)| *id)
                .collect();
            assert!(client.parked);
            assert_eq!(client.seen, due, "nothing lost, nothing twice, in order");
        }
    }
}

impl Client {
    /// Whether there was anything.
    fn receive(&mut self, backlog: &Backlog) -> bool {
        assert!(!backlog.gap);
        assert!(backlog.cursor >= self.cursor);
        self.seen.extend(ids(backlog));
        self.cursor = backlog.cursor;
        !backlog.messages.is_empty()
    }
}

/// Every order, each until nothing more can happen. At least `expected` orders there must be: less would say
/// that the scenario has lost what it is about.
fn explore(scenario: &Scenario, expected: usize) {
    let orders = Choices::explore(|choices| {
        let mut world = World::new(scenario);
        loop {
            let steps = world.steps();
            if steps.is_empty() {
                break;
            }
            let step = steps[choices.pick(steps.len())];
            world.take(step);
        }
        world.check();
    });
    assert!(orders >= expected, "{orders} orders");
}

const STAYS: ClientKind = ClientKind {
    worker: 0,
    channels: &[0],
    leaves: false,
    tidies: 0,
};

const POLLS: ClientKind = ClientKind {
    leaves: true,
    tidies: 1,
    ..STAYS
};

#[test]
fn a_subscriber_that_stays_gets_each_message_once() {
    let scenario = Scenario {
        publishers: &[&[0, 0], &[0]],
        workers: 1,
        clients: &[STAYS],
    };
    explore(&scenario, 1_000);
}

#[test]
fn a_poll_that_leaves_and_comes_back_gets_each_message_once() {
    let scenario = Scenario {
        publishers: &[&[0, 0, 0]],
        workers: 1,
        clients: &[POLLS],
    };
    explore(&scenario, 100_000);
}

#[test]
fn two_channels_keep_one_order() {
    let scenario = Scenario {
        publishers: &[&[0], &[1]],
        workers: 1,
        clients: &[ClientKind {
            channels: &[0, 1],
            ..POLLS
        }],
    };
    explore(&scenario, 1_000);
}

#[test]
fn two_workers_are_both_told() {
    let scenario = Scenario {
        publishers: &[&[0]],
        workers: 2,
        clients: &[STAYS, ClientKind { worker: 1, ..POLLS }],
    };
    explore(&scenario, 1_000);
}

#[test]
fn a_poll_of_another_worker_is_told() {
    let scenario = Scenario {
        publishers: &[&[0], &[0]],
        workers: 2,
        clients: &[ClientKind { worker: 1, ..POLLS }],
    };
    explore(&scenario, 1_000);
}

#[test]
fn two_workers_with_two_channels_are_both_told() {
    let scenario = Scenario {
        publishers: &[&[0, 1]],
        workers: 2,
        clients: &[
            ClientKind {
                channels: &[0, 1],
                ..STAYS
            },
            ClientKind {
                worker: 1,
                channels: &[1],
                ..STAYS
            },
        ],
    };
    explore(&scenario, 1_000);
}

#[test]
fn one_that_stays_and_one_that_polls_share_a_worker() {
    let scenario = Scenario {
        publishers: &[&[0, 0]],
        workers: 1,
        clients: &[STAYS, ClientKind { tidies: 0, ..POLLS }],
    };
    explore(&scenario, 10_000);
}

#[test]
fn a_worker_is_woken_once_until_it_looks() {
    let hub = hub(HistoryConfig::default(), 2);
    let names = NAMES.map(channel);
    hub.subscribe(0, &names, None);
    let publish = |name| hub.lock().publish(message(name, b""), clock()).1.0;
    let woken = [&names[0], &names[0], &names[1]].map(publish);
    assert_eq!(woken, [1, 0, 1], "a bit for each worker to wake");
    assert_eq!(hub.take_dirty(0, &[]).published, names);
    assert_eq!(publish(&names[0]), 1);
    assert!(
        hub.take_dirty(1, &[]).published.is_empty(),
        "it listens to nothing"
    );
}

#[test]
fn a_forgotten_channel_is_not_looked_at() {
    let (hub, a) = (hub(HistoryConfig::default(), 1), channel("a"));
    hub.subscribe(0, std::slice::from_ref(&a), None);
    hub.publish(message(&a, b""));
    hub.unsubscribe(0, &a);
    NOW.set(NOW.get() + 3600 * SECOND);
    hub.expire();
    assert_eq!(hub.status().channels, 0);
    assert!(hub.take_dirty(0, &[]).published.is_empty());
}
