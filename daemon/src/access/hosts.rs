//! Checks the server name in a request. The owner of a page can let the page's host name point to the address of this daemon
//! (DNS rebinding). The browser then takes the daemon's answers for answers of the page's own site, and only the name in the
//! request shows the difference. So requests for names that are not listed are refused. Addresses and `localhost` are always
//! accepted, because nobody can let them point to another server.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::Version;

use crate::{
    config::is_host,
    http::{
        refusal::{Reason, Refusal},
        request::{Request, text},
    },
};

/// Checks that the request names this server: the `:authority` of HTTP/2, an absolute URL, or the Host header must name
/// an address, this machine, or one of `hosts` (RFC 9112, section 3.2).
pub(crate) fn is_meant(request: &Request<'_>, hosts: &[String]) -> Result<(), Refusal> {
    match of(request) {
        Some(host) if is_ours(host, hosts) => Ok(()),
        Some(host) => Err(Refusal::new(Reason::OtherHost, not_ours(name(host)))),
        None if request.version < Version::HTTP_11 => Ok(()), // HTTP/1.0 has no Host header, and browsers do not use it
        None => Err(Refusal::bad("host", "a request needs a Host header")),
    }
}

/// Why a request for `name` is refused, and the setting that would allow it, if there is one.
fn not_ours(name: &str) -> String {
    if name.is_empty() {
        return "the request names no host; ask this server by its address, by localhost, or by a name of hosts under [http]"
            .into();
    }
    if name == "*" || name.len() > MAX_NAME || !is_host(name) {
        let shown: String = name.chars().take(64).collect();
        return format!(
            "this server is not {shown:?}, and hosts under [http] cannot list that: names are of letters, digits, dots, \
             - and _; other letters are sent as xn--…"
        );
    }
    format!("this server is not {name:?}; if it is to be, write hosts = [{name:?}] under [http]")
}

/// Longest name of a host (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 255;

/// The host that the request names.
pub(super) fn of<'a>(request: &Request<'a>) -> Option<&'a str> {
    let header = || {
        let value = request.values("host").next()?;
        Some(text(value).unwrap_or("(no text)"))
    };
    request.authority.or_else(header)
}

/// Whether `host` is an address, this machine, or one of `hosts`; with a port or without.
pub(crate) fn is_ours(host: &str, hosts: &[String]) -> bool {
    let name = name(host);
    if let Some(address) = name.strip_prefix('[') {
        let address = address.strip_suffix(']').map(str::parse::<Ipv6Addr>);
        return matches!(address, Some(Ok(_)));
    }
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    name.parse::<Ipv4Addr>().is_ok()
        || is("localhost")
        || ends_with(name, ".localhost")
        || hosts.iter().any(|known| known == "*" || is(known))
}

/// The host without its port, and without the dot that a name may end with.
fn name(host: &str) -> &str {
    let port = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let name = port.map_or(host, |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name)
}

fn ends_with(name: &str, end: &str) -> bool {
    let at = name.len().checked_sub(end.len());
    let tail = at.and_then(|at| name.get(at..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_of_this_machine_are_always_accepted() {
        let ours = [
            "127.0.0.1",
            "127.0.0.1:2061",
            "192.0.2.7:80",
            "[::1]",
            "[::1]:2061",
            "[2001:db8::7]",
            "localhost",
            "LocalHost:80",
            "localhost.",
            "comet.localhost",
            "a.b.localhost.:80",
        ];
        for host in ours {
            assert!(is_ours(host, &[]), "{host}");
        }
        let others = [
            "",
            ":80",
            ".",
            "evil.example",
            "evil.example:2061",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "127.0.0.1.nip.io",
            "[::1].evil.example",
            "[::1",
            "::1",
            "[localhost]",
            "1.2.3",
            "1.2.3.4.5",
            "0x7f000001",
            "2130706433",
            "localhost:80:80",
            "localhost@evil.example",
            "evil.example#localhost",
            "localhost localhost",
            "lócalhost",
            "*",
        ];
        for host in others {
            assert!(!is_ours(host, &[]), "{host}");
        }
    }

    #[test]
    fn other_names_are_accepted_only_if_they_are_configured() {
        let hosts = ["example.org".to_owned()];
        for host in ["example.org", "EXAMPLE.org:443", "example.org."] {
            assert!(is_ours(host, &hosts), "{host}");
        }
        for host in [
            "www.example.org",
            "example.org.evil.example",
            "xexample.org",
            "example",
        ] {
            assert!(!is_ours(host, &hosts), "{host}");
        }
        assert!(is_ours("evil.example", &["*".to_owned()]));
    }
}
