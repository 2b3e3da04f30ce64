//! Limits how much of the socket one user of the machine may use: places for connections, and turns on the control
//! thread.
//!
//! Publishers are not trusted to leave room for each other. The system says which user has connected (`peer`). So each
//! user has a share of the places, and all connections of one user share one turn at a time.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    ops::RangeInclusive,
    rc::Rc,
    time::{Duration, Instant},
};

use nix::unistd::geteuid;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    config::{Config, SocketConfig},
    machine,
};

/// Places that only root and the daemon's own user get, so that `comet status` works when all other places are taken.
/// With a small limit an eighth of the places is reserved.
const RESERVED: usize = 16;

/// How long a connection works before connections of other users do: about 150 small publishes.
const TURN: Duration = Duration::from_micros(100);

/// Requests up to this size in bytes count as small.
const SMALL: usize = 4096;

/// The clock is read after this number of bytes of lines and replies, so that small lines need not read it each time.
const CHECK_BYTES: usize = 8192;

/// The fixed cost of a line, counted as bytes in addition to its length.
const LINE: usize = 256;

/// Bounds for the number of long lines that one user may have half read at the same time. The number depends on the
/// memory: a daemon with little memory must not end because many publishers send large messages at once.
const LONG_LINES: RangeInclusive<usize> = 4..=64;

/// The long lines of one user may take one eighth of `max_memory`, or more if the least number of lines needs more.
const PART_FOR_LINES: u64 = 8;

/// The connections of all users, counted by user.
pub(super) struct Places {
    users: RefCell<HashMap<u32, Rc<User>>>,
    open: Cell<usize>,
    /// Number of long lines that one user may have half read at the same time. A change applies to users who connect
    /// from now on.
    long_lines: Cell<usize>,
}

struct User {
    open: Cell<usize>,
    /// The turn: one permit. Connections get it in the order in which they ask.
    turn: Semaphore,
    /// A second turn for small requests: they do not wait for large requests of the same user.
    small_turn: Semaphore,
    /// One permit for each long line that may be half read.
    long_lines: Semaphore,
}

/// Why a connection gets no place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// All places are taken that the user could get.
    Full(usize),
    /// The user's share of places is used up.
    Share(usize),
}

/// The place of one connection. Dropping it frees the place.
pub(super) struct Place {
    places: Rc<Places>,
    uid: u32,
    user: Rc<User>,
}

impl Places {
    pub(super) fn new(config: &Config) -> Self {
        let places = Self {
            users: RefCell::default(),
            open: Cell::default(),
            long_lines: Cell::default(),
        };
        places.follow(config);
        places
    }

    /// Applies changed limits.
    pub(super) fn follow(&self, config: &Config) {
        let memory = config.http.max_memory.map(|max| max as u64);
        let memory = memory.unwrap_or_else(|| machine::memory() / 2) / PART_FOR_LINES;
        let fit = usize::try_from(memory / config.socket.max_line as u64).unwrap_or(usize::MAX);
        let (least, most) = (*LONG_LINES.start(), *LONG_LINES.end());
        self.long_lines.set(fit.clamp(least, most));
    }

    pub(super) fn take(self: &Rc<Self>, uid: u32, config: &SocketConfig) -> Result<Place, NoPlace> {
        let trusted = uid == 0 || uid == geteuid().as_raw();
        let mut users = self.users.borrow_mut();
        let of_user = users.get(&uid).map_or(0, |user| user.open.get());
        let most = config.max_connections;
        let reserved = if trusted { 0 } else { RESERVED.min(most / 8) };
        if self.open.get() >= most - reserved {
            return Err(NoPlace::Full(most - reserved));
        }
        if !trusted && of_user >= config.share() {
            return Err(NoPlace::Share(config.share()));
        }
        let user = users.entry(uid).or_insert_with(|| {
            Rc::new(User {
                open: Cell::new(0),
                turn: Semaphore::new(1),
                small_turn: Semaphore::new(1),
                long_lines: Semaphore::new(self.long_lines.get()),
            })
        });
        user.open.set(of_user + 1);
        self.open.set(self.open.get() + 1);
        Ok(Place {
            places: self.clone(),
            uid,
            user: user.clone(),
        })
    }
}

impl Place {
    /// The turns of the user who has this place.
    pub(super) fn turns(&self) -> Turns {
        Turns(self.user.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open.set(self.places.open.get() - 1);
        self.user.open.set(self.user.open.get() - 1);
        if self.user.open.get() == 0 {
            self.places.users.borrow_mut().remove(&self.uid);
        }
    }
}

/// The turns of one user.
pub(super) struct Turns(Rc<User>);

impl Turns {
    pub(super) async fn next(&self) -> Turn<'_> {
        Self::of(&self.0.turn).await
    }

    /// Waits for a turn for requests of `bytes` bytes that have just arrived.
    pub(super) async fn first(&self, bytes: usize) -> Turn<'_> {
        match bytes <= SMALL {
            true => Self::of(&self.0.small_turn).await,
            false => self.next().await,
        }
    }

    /// Waits for the room to read one long line, while other connections of the user use all of the room.
    pub(super) async fn long_line(&self) -> LongLine<'_> {
        let permit = self.0.long_lines.acquire().await;
        LongLine(permit.expect("the semaphore is never closed"))
    }

    async fn of(turn: &Semaphore) -> Turn<'_> {
        let permit = turn.acquire().await;
        Turn {
            _permit: permit.expect("the semaphore is never closed"),
            began: Instant::now(),
            unchecked: 0,
        }
    }
}

/// The room to read one long line.
pub(super) struct LongLine<'a>(#[expect(dead_code, reason = "held, not read")] SemaphorePermit<'a>);

/// The right of one connection of a user to work. It must be given back before waiting for anything that the peer
/// decides.
pub(super) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    began: Instant,
    unchecked: usize,
}

impl Turn<'_> {
    /// Starts the time of the turn again, after connections of other users have worked.
    pub(super) fn begin_again(&mut self) {
        self.began = Instant::now();
    }

    /// Counts an answered line with its reply. True: the time is over, and other users' connections work next.
    pub(super) fn is_over_after(&mut self, bytes: usize) -> bool {
        self.unchecked += bytes + LINE;
        if self.unchecked < CHECK_BYTES {
            return false;
        }
        self.unchecked = 0;
        self.began.elapsed() >= TURN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u32 = 4_000_000_001;
    const B: u32 = 4_000_000_002;

    fn places() -> Rc<Places> {
        Rc::new(Places::new(&Config::default()))
    }

    fn config(max_connections: usize, max_per_user: Option<usize>) -> SocketConfig {
        SocketConfig {
            max_connections,
            max_per_user,
            ..SocketConfig::default()
        }
    }

    fn taken(places: &Rc<Places>, uid: u32, config: &SocketConfig) -> (Vec<Place>, NoPlace) {
        let mut taken = Vec::new();
        loop {
            match places.take(uid, config) {
                Ok(place) => taken.push(place),
                Err(why) => return (taken, why),
            }
        }
    }

    #[test]
    fn a_user_gets_its_share_and_root_the_last_places() {
        let (places, config) = (places(), config(64, None));
        let (of_a, why) = taken(&places, A, &config);
        assert_eq!((of_a.len(), why), (32, NoPlace::Share(32)));
        let (of_b, why) = taken(&places, B, &config);
        assert_eq!((of_b.len(), why), (24, NoPlace::Full(56)));
        let (of_root, why) = taken(&places, 0, &config);
        assert_eq!((of_root.len(), why), (8, NoPlace::Full(64)));
        drop(of_a);
        assert_eq!(taken(&places, B, &config).0.len(), 8);
        drop((of_b, of_root));
        assert!(places.users.borrow().is_empty());
        assert_eq!(places.open.get(), 0);
    }

    #[test]
    fn a_share_can_be_set_and_is_never_nothing() {
        let places = places();
        assert_eq!(taken(&places, A, &config(64, Some(3))).0.len(), 3);
        assert_eq!(taken(&places, A, &config(64, Some(1000))).0.len(), 56);
        assert_eq!(taken(&places, A, &config(1, None)).0.len(), 1);
    }

    #[test]
    fn long_lines_follow_the_memory_and_the_longest_line() {
        let lines = |text: &str| {
            let places = Places::new(&Config::parse(text).unwrap());
            places.long_lines.get()
        };
        assert_eq!(lines("[http]\nmax_memory = \"4GiB\""), 64);
        assert_eq!(lines("[http]\nmax_memory = \"64MiB\""), 8);
        assert_eq!(lines("[http]\nmax_memory = \"8MiB\""), 4);
        let long = "[socket]\nmax_line = \"64MiB\"\n[http]\nmax_memory = \"4GiB\"";
        assert_eq!(lines(long), 8);
    }
}
