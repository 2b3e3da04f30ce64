//! Blocking publisher.
