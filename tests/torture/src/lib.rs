//! Checks that a server delivers each acknowledged message once and in order, and that it reports messages that it
//! cannot deliver.
//!
//! Publishers record what was acknowledged (`ledger`), and subscribers record what arrived (`transcript`). `verdict`
//! compares the two. Meanwhile connections are cut or read slowly, and the server is restarted or killed (`scenario`).
//! The checker uses only what a server sends on its connections. Nothing here reads Comet's internal state.

pub mod crash;
pub mod http;
pub mod ledger;
pub mod publish;
pub mod publisher;
pub mod random;
pub mod report;
pub mod scenario;
pub mod server;
pub mod stage;
pub mod stamp;
pub mod subscribe;
pub mod subscriber;
pub mod target;
pub mod transcript;
pub mod verdict;
pub mod wire;
