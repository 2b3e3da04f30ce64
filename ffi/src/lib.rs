//! libcomet.
