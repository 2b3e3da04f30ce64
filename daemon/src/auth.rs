//! Who may: users and groups of this machine.

/// Users and groups that are let in, as `user:NAME`, `group:NAME` or `any`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow {}
