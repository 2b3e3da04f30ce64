//! Whether a server delivers what it acknowledged: once, in order, and not without a word when it cannot.
//!
//! Publishers write down what was acknowledged (`ledger`), subscribers what came (`transcript`), and `verdict`
//! compares the two. Meanwhile connections are cut, read slowly, and the server is restarted or killed (`scenario`).
//! Everything a server is known by is what it says on its connections; nothing here looks into Comet.

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
