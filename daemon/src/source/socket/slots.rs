//! Limits how much of the socket one user of the machine may use: slots for connections, and turns on the control
//! thread.
//!
//! Publishers are not trusted to leave room for each other. The system says which user has connected (`peer`). So each
//! user has a share of the slots, and all connections of one user share one turn at a time.

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

/// Slots that only root and the daemon's own user get, so that `comet status` works when all other slots are taken.
/// With a small limit an eighth of the slots is reserved.
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
pub(super) struct Slots {
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

/// Why a connection gets no slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
    /// All slots are taken that the user could get.
    Full(usize),
    /// The user's share of slots is used up.
    Share(usize),
}

/// The slot of one connection. Dropping it frees the slot.
pub(super) struct Slot {
    slots: Rc<Slots>,
    uid: u32,
    user: Rc<User>,
}

impl Slots {
    pub(super) fn new(config: &Config) -> Self {
        let slots = Self {
            users: RefCell::default(),
            open: Cell::default(),
            long_lines: Cell::default(),
        };
        slots.follow(config);
        slots
    }

    /// Applies changed limits.
    pub(super) fn follow(&self, config: &Config) {
        let memory = config.http.max_memory.map(|max| max as u64);
        let memory = memory.unwrap_or_else(|| machine::memory() / 2) / PART_FOR_LINES;
        let fit = usize::try_from(memory / config.socket.max_line as u64).unwrap_or(usize::MAX);
        let (least, most) = (*LONG_LINES.start(), *LONG_LINES.end());
        self.long_lines.set(fit.clamp(least, most));
    }

    pub(super) fn take(self: &Rc<Self>, uid: u32, config: &SocketConfig) -> Result<Slot, NoSlot> {
        let trusted = uid == 0 || uid == geteuid().as_raw();
        let mut users = self.users.borrow_mut();
        let of_user = users.get(&uid).map_or(0, |user| user.open.get());
        let most = config.max_connections;
        let reserved = if trusted { 0 } else { RESERVED.min(most / 8) };
        if self.open.get() >= most - reserved {
            return Err(NoSlot::Full(most - reserved));
        }
        if !trusted && of_user >= config.share() {
            return Err(NoSlot::Share(config.share()));
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
        Ok(Slot {
            slots: self.clone(),
            uid,
            user: user.clone(),
        })
    }
}

impl Slot {
    /// The turns of the user who has this slot.
    pub(super) fn turns(&self) -> UserTurns {
        UserTurns(self.user.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.open.set(self.slots.open.get() - 1);
        self.user.open.set(self.user.open.get() - 1);
        if self.user.open.get() == 0 {
            self.slots.users.borrow_mut().remove(&self.uid);
        }
    }
}

/// The turns of one user.
pub(super) struct UserTurns(Rc<User>);

impl UserTurns {
    pub(super) async fn next(&self) -> UserTurn<'_> {
        Self::of(&self.0.turn).await
    }

    /// Waits for a turn for requests of `bytes` bytes that have just arrived.
    pub(super) async fn first(&self, bytes: usize) -> UserTurn<'_> {
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

    async fn of(turn: &Semaphore) -> UserTurn<'_> {
        let permit = turn.acquire().await;
        UserTurn {
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
pub(super) struct UserTurn<'a> {
    _permit: SemaphorePermit<'a>,
    began: Instant,
    unchecked: usize,
}

impl UserTurn<'_> {
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

    fn slots() -> Rc<Slots> {
        Rc::new(Slots::new(&Config::default()))
    }

    fn config(max_connections: usize, max_per_user: Option<usize>) -> SocketConfig {
        SocketConfig {
            max_connections,
            max_per_user,
            ..SocketConfig::default()
        }
    }

    fn taken(slots: &Rc<Slots>, uid: u32, config: &SocketConfig) -> (Vec<Slot>, NoSlot) {
        let mut taken = Vec::new();
        loop {
            match slots.take(uid, config) {
                Ok(slot) => taken.push(slot),
                Err(why) => return (taken, why),
            }
        }
    }

    #[test]
    fn a_user_gets_its_share_and_root_the_last_places() {
        let (slots, config) = (slots(), config(64, None));
        let (of_a, why) = taken(&slots, A, &config);
        assert_eq!((of_a.len(), why), (32, NoSlot::Share(32)));
        let (of_b, why) = taken(&slots, B, &config);
        assert_eq!((of_b.len(), why), (24, NoSlot::Full(56)));
        let (of_root, why) = taken(&slots, 0, &config);
        assert_eq!((of_root.len(), why), (8, NoSlot::Full(64)));
        drop(of_a);
        assert_eq!(taken(&slots, B, &config).0.len(), 8);
        drop((of_b, of_root));
        assert!(slots.users.borrow().is_empty());
        assert_eq!(slots.open.get(), 0);
    }

    #[test]
    fn a_share_can_be_set_and_is_never_nothing() {
        let slots = slots();
        assert_eq!(taken(&slots, A, &config(64, Some(3))).0.len(), 3);
        assert_eq!(taken(&slots, A, &config(64, Some(1000))).0.len(), 56);
        assert_eq!(taken(&slots, A, &config(1, None)).0.len(), 1);
    }

    #[test]
    fn long_lines_follow_the_memory_and_the_longest_line() {
        let lines = |text: &str| {
            let slots = Slots::new(&Config::parse(text).unwrap());
            slots.long_lines.get()
        };
        assert_eq!(lines("[http]\nmax_memory = \"4GiB\""), 64);
        assert_eq!(lines("[http]\nmax_memory = \"64MiB\""), 8);
        assert_eq!(lines("[http]\nmax_memory = \"8MiB\""), 4);
        let long = "[socket]\nmax_line = \"64MiB\"\n[http]\nmax_memory = \"4GiB\"";
        assert_eq!(lines(long), 8);
    }
}
