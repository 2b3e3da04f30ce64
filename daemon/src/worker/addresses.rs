//! Counts the connections of each client address, if their number is limited.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{LazyLock, Mutex, PoisonError},
};

/// The counts of the whole process, because different workers can accept connections of the same client.
pub(crate) static OPEN: LazyLock<Addresses> = LazyLock::new(Addresses::default);

/// Connections by address.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<Address, usize>>);

/// The address by which a client is counted: an IPv4 address, or the /64 network of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Address(IpAddr);

impl Address {
    /// `None` for loopback addresses, which belong to a proxy or to users of this machine. They are not counted.
    pub(crate) fn of(ip: IpAddr) -> Option<Self> {
        let ip = ip.to_canonical();
        let network = match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        };
        (!ip.is_loopback()).then_some(Self(network))
    }
}

impl Addresses {
    /// Counts one more connection. Returns false, and counts nothing, if the address already has `max` connections.
    pub(crate) fn enter(&self, who: Address, max: usize) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(who).or_default();
        let enters = *count < max;
        *count += usize::from(enters);
        enters
    }

    /// Counts one connection less.
    pub(crate) fn leave(&self, who: Address) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&who) {
            *count -= 1;
            if *count == 0 {
                open.remove(&who);
            }
        }
        if open.len() < open.capacity() / 8 {
            open.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<Address> {
        Address::of(text.parse().unwrap())
    }

    #[test]
    fn each_address_can_open_up_to_the_limit_and_again_after_a_close() {
        let addresses = Addresses::default();
        let (a, b) = (address("192.0.2.1").unwrap(), address("192.0.2.2").unwrap());
        assert!(addresses.enter(a, 2) && addresses.enter(a, 2) && !addresses.enter(a, 2));
        assert!(addresses.enter(b, 2));
        addresses.leave(a);
        assert!(addresses.enter(a, 2) && !addresses.enter(a, 2));
        for who in [a, a, b] {
            addresses.leave(who);
        }
        assert!(addresses.0.lock().unwrap().is_empty());
    }

    #[test]
    fn loopback_is_not_counted_and_a_network_counts_as_one() {
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(address(loopback), None, "{loopback}");
        }
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:0:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
    }
}
