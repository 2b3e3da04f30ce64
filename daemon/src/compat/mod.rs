//! Endpoints of older comet servers, so that their pages work unmodified.

pub(crate) mod novcomet;
pub(crate) mod zeitoun;

use crate::{api::endpoint::Endpoint, config::CompatConfig};

/// The endpoints, each with its settings.
pub(crate) fn endpoints(config: &CompatConfig) -> Vec<Box<dyn Endpoint>> {
    vec![
        Box::new(novcomet::NovComet::new(config)),
        Box::new(zeitoun::ZeitounChat::new(config)),
        Box::new(zeitoun::ZeitounClock::new(config)),
    ]
}
