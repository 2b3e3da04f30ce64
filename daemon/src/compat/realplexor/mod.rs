//! The protocol of dklab_realplexor: publishers send blocks to ids on the IN line, and clients wait for blocks of their ids
//! on the WAIT line. An id is the channel of the same name.
//!
//! A client has a cursor for each of its ids, a decimal number of any length. Normally the cursor of a block is its message's
//! id in seconds. A publisher may choose another cursor, or limit a block to clients that listen to further ids. The message
//! has both as attributes, so both survive a restart.

pub(crate) mod block;
mod command;
pub(crate) mod decimal;
pub(crate) mod identifier;
mod in_port;
pub(crate) mod json;
mod listening;
mod logins;
mod online;
mod pages;
pub(crate) mod publish_request;
mod request;
mod request_buffer;
pub(crate) mod selection;
mod wait_port;
pub(crate) mod wait_request;

use std::{sync::Arc, time::Duration};

use super::port::Port;
use crate::config::RealplexorConfig;
use in_port::InPort;
use logins::Logins;
pub(crate) use logins::LoginsError;
use online::Online;
use wait_port::WaitPort;

/// A request must be complete after this time, as in the original server.
const REQUEST_TIME: Duration = Duration::from_secs(20);

/// What a client is told when connections use all their memory.
const NO_MEMORY: &str = "no memory left for requests, see http.max_memory";

/// What both lines share.
struct Realplexor {
    logins: Arc<Logins>,
    online: Online,
    /// The longest wait of a client.
    wait: Duration,
}

/// The two lines.
///
/// # Errors
/// The file with the logins cannot be used.
pub(super) fn ports(config: &RealplexorConfig) -> Result<[Arc<dyn Port>; 2], LoginsError> {
    let logins = match &config.logins {
        Some(file) => Logins::load(file)?,
        None => Logins::guests(),
    };
    let shared = Arc::new(Realplexor {
        logins: Arc::new(logins),
        online: Online::new(config.offline),
        wait: config.wait,
    });
    Ok([
        Arc::new(InPort {
            listen: config.listen_in,
            shared: shared.clone(),
        }),
        Arc::new(WaitPort {
            listen: config.listen_wait,
            shared,
        }),
    ])
}
