//! Drops expired messages, and watches the clock by which they expire.

use std::{rc::Rc, time::Duration};

use tracing::{info, warn};

use crate::hub::{Hub, subscriber::Audience};

/// Interval in which expired messages are dropped.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// A smaller difference does not count as a step of the clock.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// Drops expired messages for ever. Logs when the clock steps back, and when it has caught up with the ids.
pub(super) async fn run(hub: &Hub, audience: &Rc<Audience>) {
    let mut seconds = tokio::time::interval(EXPIRE_EVERY);
    let mut was_ahead = Duration::ZERO;
    loop {
        seconds.tick().await;
        let ahead = hub.ahead();
        if ahead > was_ahead + CLOCK_STEP {
            warn!(
                ?ahead,
                "the clock has stepped back; ids go on from where it was"
            );
        } else if ahead < CLOCK_STEP && was_ahead >= CLOCK_STEP {
            info!("the clock has caught up with the ids");
        }
        was_ahead = ahead;
        // In parts, so that publishers need not wait until a hundred thousand channels have expired.
        while hub.expire_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        audience.tidy();
    }
}
