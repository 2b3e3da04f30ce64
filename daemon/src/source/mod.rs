//! Where messages come from.

pub mod files;
pub mod socket;
pub mod spool;
