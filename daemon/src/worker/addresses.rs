//! How many connections each address has, where that has a limit.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{LazyLock, Mutex, PoisonError},
};

/// Who has how many, in this process: the kernel deals one client's connections out among its threads.
pub(crate) static OPEN: LazyLock<Addresses> = LazyLock::new(Addresses::default);

/// Connections by address.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<Address, usize>>);

/// One client, as far as it can be told: an IPv4 address, or the network of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Address(IpAddr);

impl Address {
    /// `None`: loopback, which is a proxy's address, or that of a user of this machine.
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
    /// Counts one more, of `max`. False: it has its share, and nothing is counted.
    pub(crate) fn enter(&self, who: Address, max: usize) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(who).or_default();
        let enters = *count < max;
        *count += usize::from(enters);
        enters
    }

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
    fn each_address_has_its_share_and_gives_it_back() {
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
    fn loopback_is_nobody_and_a_network_is_one() {
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(address(loopback), None, "{loopback}");
        }
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:0:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
    }
}
