//! Origins of pages: scheme, host and port (RFC 6454, section 4; the HTML standard has the form that browsers send).

use std::{fmt, net::Ipv6Addr};

/// An origin, from a browser's header or from the configuration. Two origins are equal when scheme, host and port are
/// equal. Upper and lower case are the same in a scheme and in the host of a web page, but not in the host of an app. A
/// missing port is the default port of the scheme.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// Parses `scheme://host[:port]`. `None`: the text is not an origin that can be compared, such as `null`, which browsers
    /// send for pages without an origin.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = split_port(authority)?;
        let is_web = default_port(scheme).is_some();
        let is_host = match is_web {
            true => is_web_host(host),
            // An app, such as capacitor://localhost or chrome-extension://ID, or file:// without a host.
            false => host.bytes().all(is_opaque),
        };
        (is_scheme(scheme) && is_host).then_some(Self {
            scheme,
            host,
            port: port.or_else(|| default_port(scheme)),
        })
    }

    /// Whether the page was loaded over HTTP. Only the host of such a page can be compared with the `Host` of a request.
    pub(crate) fn is_web(&self) -> bool {
        ["http", "https"].iter().any(|it| self.has_scheme(it))
    }

    /// Whether the page was loaded from the server that the header `Host` names. The scheme of the request is not known,
    /// because a proxy may have ended TLS, so a `host` without a port gets the default port of the page's scheme.
    /// `ports_count`: the ports must be equal, too.
    pub(crate) fn is_at(&self, host: &str, ports_count: bool) -> bool {
        let Some((name, port)) = split_port(host) else {
            return false;
        };
        let is_name = !name.is_empty() && is_same_host(name, self.host);
        let same_port = port.or_else(|| default_port(self.scheme)) == self.port;
        self.is_web() && is_name && (same_port || !ports_count)
    }

    fn has_scheme(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }
}

impl PartialEq for Origin<'_> {
    fn eq(&self, other: &Self) -> bool {
        let same_host = match self.is_web() {
            true => is_same_host(self.host, other.host),
            false => self.host == other.host,
        };
        self.has_scheme(other.scheme) && same_host && self.port == other.port
    }
}

/// Writes the origin as a browser does.
impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.to_ascii_lowercase();
        match (self.is_web(), ipv6(self.host)) {
            (true, Some(address)) => write!(f, "{scheme}://[{}]", BrowserIpv6(address))?,
            (true, None) => write!(f, "{scheme}://{}", self.host.to_ascii_lowercase())?,
            (false, _) => write!(f, "{scheme}://{}", self.host)?,
        }
        match self.port.filter(|_| self.port != default_port(&scheme)) {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Splits `host[:port]`. A colon without digits after it counts as no port. The outer `None`: the port is malformed.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    match authority.rsplit_once(':') {
        // This colon is inside an IPv6 address.
        Some((_, after)) if after.ends_with(']') => Some((authority, None)),
        Some((host, "")) => Some((host, None)),
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            Some((host, Some(port.parse().ok()?)))
        }
        Some(_) => None,
        None => Some((authority, None)),
    }
}

/// Compares hosts without regard to case. An IPv6 address can be written in several ways, so addresses are parsed first.
fn is_same_host(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || ipv6(one).is_some_and(|address| ipv6(other) == Some(address))
}

/// The address in `[…]`.
fn ipv6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Displays an address as browsers write it (URL standard, "IPv6 serializer"): always in hexadecimal.
struct BrowserIpv6(Ipv6Addr);

impl fmt::Display for BrowserIpv6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [.., high, low] = self.0.segments();
        match self.0.to_ipv4_mapped() {
            Some(_) => write!(f, "::ffff:{high:x}:{low:x}"),
            None => self.0.fmt(f),
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    let is = |known: &str| scheme.eq_ignore_ascii_case(known);
    match () {
        () if is("http") => Some(80),
        () if is("https") => Some(443),
        () => None,
    }
}

/// Whether the text is a scheme (RFC 3986, section 3.1).
fn is_scheme(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(plain)
}

fn is_web_host(host: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    ipv6(host).is_some() || !host.is_empty() && host.bytes().all(plain)
}

/// Whether the byte may stand in the host of an app's origin: visible ASCII, but no character that ends a host, quotes a
/// text, separates a list, or means a pattern.
fn is_opaque(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"/?#@\\\"',*:".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Origin<'_> {
        Origin::parse(text).unwrap_or_else(|| panic!("{text} is none"))
    }

    #[test]
    fn default_ports_and_case_make_no_difference() {
        let same = [
            ["https://a.example", "https://a.example:443"],
            ["http://a.example", "http://a.example:80"],
            ["http://a.example:", "http://a.example:0080"],
            ["HTTPS://A.Example:8443", "https://a.example:8443"],
            ["https://[::1]", "https://[::1]:443"],
            ["http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080"],
            ["http://[2001:DB8::0:1]", "http://[2001:db8::1]"],
            ["http://[::FFFF:1.2.3.4]", "http://[::ffff:102:304]"],
            ["Capacitor://localhost", "capacitor://localhost"],
            ["file://", "file://"],
        ];
        for [a, b] in same {
            assert_eq!(parse(a), parse(b));
        }
        let different = [
            ["https://a.example", "http://a.example"],
            ["https://a.example", "https://a.example:80"],
            ["http://a.example", "http://a.example:443"],
            ["https://a.example", "https://a.example.:443"],
            ["https://a.example", "https://b.example"],
            ["capacitor://localhost", "ionic://localhost"],
            ["capacitor://LocalHost", "capacitor://localhost"],
            ["capacitor://localhost", "capacitor://localhost:443"],
            ["http://localhost", "capacitor://localhost"],
            ["http://[::1]", "http://[::2]"],
            ["http://[::ffff:102:304]", "http://1.2.3.4"],
        ];
        for [a, b] in different {
            assert_ne!(parse(a), parse(b));
        }
    }

    #[test]
    fn is_written_as_browsers_write_it() {
        for (given, written) in [
            ("HTTPS://A.Example:443", "https://a.example"),
            ("http://a.example:8080", "http://a.example:8080"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080"),
            ("http://[::FFFF:1.2.3.4]", "http://[::ffff:102:304]"),
            (
                "http://[2001:DB8:0:0:1:0:0:1]",
                "http://[2001:db8::1:0:0:1]",
            ),
            ("File://", "file://"),
            ("app://obsidian.md", "app://obsidian.md"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("x-app://Some.Host:70", "x-app://Some.Host:70"),
        ] {
            assert_eq!(parse(given).to_string(), written);
        }
    }

    #[test]
    fn what_is_no_origin_is_none() {
        for text in [
            "",
            "*",
            "null",
            "a.example",
            "://a.example",
            "1http://a.example",
            "https://",
            "https://a.example/",
            "https://a.example/x",
            "https://a.example?",
            "https://a@b",
            "https://*.example",
            "https://a.example:x",
            "https://a.example:+80",
            "https://a.example:65536",
            "https://a.example:1:2",
            "https://[::1",
            "https://[localhost]",
            "https://bücher.example",
            "https://a.example https://b.example",
            "https://a.example,https://b.example",
            "app://a\"b",
            "app://a b",
            "app://*",
        ] {
            assert!(Origin::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_page_is_at_the_host_that_the_request_asks() {
        let cases = [
            ("http://a.example", "a.example", true),
            ("http://a.example", "A.Example:80", true),
            ("http://a.example:80", "a.example", true),
            ("https://a.example", "a.example", true),
            ("https://a.example:443", "a.example", true),
            ("https://a.example", "a.example:443", true),
            ("http://[::1]:2061", "[::1]:2061", true),
            ("http://[::1]:2061", "[0:0::1]:2061", true),
            ("http://[::1]:2061", "[::2]:2061", false),
            ("http://a.example", "a.example:443", false),
            ("https://a.example", "a.example:80", false),
            ("https://a.example:8443", "a.example", false),
            ("http://a.example", "b.example", false),
            ("capacitor://localhost", "localhost", false),
            ("file://", "", false),
            ("http://a.example", "a.example:x", false),
        ];
        for (origin, host, expected) in cases {
            assert_eq!(
                parse(origin).is_at(host, true),
                expected,
                "{origin} at {host}"
            );
        }
        assert!(parse("https://a.example:8443").is_at("a.example", false));
        assert!(!parse("https://a.example:8443").is_at("b.example", false));
    }
}
