//! Drops expired messages, publishes which members of channels have left, and logs when the system's clock is set back.

use std::{rc::Rc, time::Duration};

use tracing::{info, warn};

use crate::{
    hub::{Hub, subscriber::Audience},
    presence::LocalPresence,
};

/// Interval in which expired messages are dropped.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// If the system's clock is set back by less than this, nothing is logged.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// Drops expired messages and members who have left until the daemon ends. Logs when the clock is set back, and when it has caught up with the ids.
pub(super) async fn run(hub: &Hub, presence: &LocalPresence, audience: &Rc<Audience>) {
    let mut seconds = tokio::time::interval(EXPIRE_EVERY);
    let mut was_ahead = Duration::ZERO;
    loop {
        seconds.tick().await;
        let ahead = hub.ahead();
        if ahead > was_ahead + CLOCK_STEP {
            warn!(
                ?ahead,
                "the clock was set back; ids continue from the old time"
            );
        } else if ahead < CLOCK_STEP && was_ahead >= CLOCK_STEP {
            info!("the clock has caught up with the ids");
        }
        was_ahead = ahead;
        // Works in parts, so that publishers need not wait until a hundred thousand channels have expired.
        while hub.expire_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        presence.tick();
        audience.tidy();
    }
}
