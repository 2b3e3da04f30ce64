//! A subscriber: it reconnects with its cursor whenever its connection ends, and records what it receives.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use crate::{
    http::Trouble,
    random::Random,
    stage::Stage,
    subscribe::{Cursor, News, Session, listen},
    target::{Target, Transport},
    transcript::Transcript,
    wire::Wire,
};

pub struct Subscriber {
    pub target: Target,
    pub transport: Transport,
    pub channels: Vec<String>,
    pub stage: Arc<Stage>,
    pub random: Random,
    /// The cursor of the first request.
    pub cursor: Cursor,
    pub transcript: Arc<Mutex<Transcript>>,
}

pub fn lock(transcript: &Mutex<Transcript>) -> MutexGuard<'_, Transcript> {
    transcript.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Subscriber {
    /// Listens until the run ends.
    pub fn run(mut self) {
        let (mut cursor, mut connected) = (std::mem::take(&mut self.cursor), false);
        while !self.stage.stopped() {
            let random = Random::new(self.random.number(), "connection");
            let Ok(wire) = Wire::connect(self.target.addr, self.stage.clone(), random) else {
                let pause = self.random.millis(5, 30);
                self.stage.pause(pause);
                continue;
            };
            if std::mem::replace(&mut connected, true) {
                self.stage.reconnects.fetch_add(1, Relaxed);
            }
            let ended = self.listen(wire, &mut cursor);
            self.complain(ended);
            // Random pauses as in browsers, but shorter.
            let most = if self.random.once_in(4) { 200 } else { 5 };
            let pause = self.random.millis(0, most);
            self.stage.pause(pause);
        }
    }

    fn listen(&self, wire: Wire, cursor: &mut Cursor) -> Result<(), Trouble> {
        let mut session = Session {
            target: &self.target,
            channels: &self.channels,
            cursor,
            tell: &mut |news| lock(&self.transcript).note(news),
        };
        listen(self.transport, wire, &mut session)
    }

    fn complain(&self, ended: Result<(), Trouble>) {
        const MOST: usize = 5;
        let complaint = match ended {
            Ok(()) | Err(Trouble::Lost(_)) => return,
            // Statuses of servers that start or stop, and of proxies before such servers.
            Err(Trouble::Refused(502..=504, _)) => {
                return self.stage.pause(Duration::from_millis(50));
            }
            Err(Trouble::Refused(status, text)) => format!("refused: {status} {text}"),
            Err(Trouble::Nonsense(text)) => {
                return lock(&self.transcript).note(News::Damaged(text));
            }
        };
        let mut transcript = lock(&self.transcript);
        if transcript.complaints.len() < MOST {
            transcript.complaints.push(complaint);
        }
    }
}
