//! Endpoints of older comet servers, so that their pages work unmodified.

pub(crate) mod novcomet;
pub(crate) mod zeitoun;
