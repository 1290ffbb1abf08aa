//! The runtime's streaming server in the URL with which it answers an Exec.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where a streaming server listens, as its runtime says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The host: an address, or a name.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The form of the URL.
    pub form: UrlForm,
}

/// The form of the URL of a streaming server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlForm {
    /// With a scheme, as a URL has to be.
    Absolute,
    /// Without one, as cri-dockerd answers up to 0.4.3. A kubelet that is asked by WebSocket takes that
    /// for TLS (KEP-4006).
    SchemeLess,
}

impl UrlForm {
    /// The name in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absolute => "Absolute",
            Self::SchemeLess => "SchemeLess",
        }
    }
}

/// The host of an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A name that has to be looked up.
    Name(String),
}

/// Whether the URL is only a path, so that it leads to whoever is asked for the stream: the kubelet.
/// dockershim answers so while it redirects (`getStreamingConfig` of `pkg/kubelet/kubelet.go`).
pub fn is_relative(url: &str) -> bool {
    url.starts_with('/') && !url.starts_with("//")
}

/// Reads the URL; `None` where it is none. The path, in which the token is, is looked past.
///
/// Without a scheme, what is there is still where the runtime listens. An unspecified address is where Linux leads a connection to
/// it: the loopback.
pub fn read(url: &str) -> Option<Address> {
    let (form, scheme, rest) = match url.split_once("://") {
        // Behind a slash it is part of the path.
        Some((scheme, rest)) if !scheme.contains('/') => (UrlForm::Absolute, scheme, rest),
        _ => (UrlForm::SchemeLess, "http", url.strip_prefix("//").unwrap_or(url)),
    };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => false,
        "https" | "wss" => true,
        _ => return None,
    };
    let authority = rest.split(['/', '?']).next()?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if tls => 443,
        None => 80,
    };
    let host = match host.parse() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => Host::Ip(Ipv4Addr::LOCALHOST.into()),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => Host::Ip(Ipv6Addr::LOCALHOST.into()),
        Ok(ip) => Host::Ip(ip),
        Err(_) if authority.starts_with('[') || !is_name(host) => return None,
        Err(_) => Host::Name(host.to_owned()),
    };
    Some(Address { host, port, tls, form })
}

fn is_name(host: &str) -> bool {
    !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls() {
        use UrlForm::{Absolute, SchemeLess};
        let ip = |ip: &str, port, tls, form| {
            Some(Address { host: Host::Ip(ip.parse().unwrap()), port, tls, form })
        };
        for (url, expected) in [
            // containerd
            ("http://127.0.0.1:34567/exec/t0k3n", ip("127.0.0.1", 34567, false, Absolute)),
            ("https://10.99.0.12:10010/exec/t0k3n", ip("10.99.0.12", 10010, true, Absolute)),
            // CRI-O
            ("http://[::1]:41173/exec/t0k3n", ip("::1", 41173, false, Absolute)),
            // cri-dockerd
            ("127.0.0.1:39017/cri/exec/t0k3n", ip("127.0.0.1", 39017, false, SchemeLess)),
            ("//127.0.0.1:39017/cri/exec/t0k3n", ip("127.0.0.1", 39017, false, SchemeLess)),
            ("//[::]:10010/cri/exec/t0k3n", ip("::1", 10010, false, SchemeLess)),
            // A scheme in the path is none of the URL's.
            ("//127.0.0.1:1/http://x", ip("127.0.0.1", 1, false, SchemeLess)),
            ("http://0.0.0.0:1/exec/x", ip("127.0.0.1", 1, false, Absolute)),
            ("http://[::]:1/exec/x", ip("::1", 1, false, Absolute)),
            ("https://127.0.0.1/exec/x", ip("127.0.0.1", 443, true, Absolute)),
            (
                "http://localhost:8080/exec/x",
                Some(Address {
                    host: Host::Name("localhost".into()),
                    port: 8080,
                    tls: false,
                    form: Absolute,
                }),
            ),
            ("ftp://127.0.0.1:1/exec/x", None),
            ("http://127.0.0.1:0/exec/x", None),
            ("http://127.0.0.1:port/exec/x", None),
            ("http://[::1/exec/x", None),
            ("http:////127.0.0.1:1/exec/x", None),
            ("http://user@host:1/exec/x", None),
            ("http://:80/exec/x", None),
            ("/cri/exec/x", None),
            ("", None),
        ] {
            assert_eq!(read(url), expected, "{url}");
        }
    }

    #[test]
    fn paths() {
        for (url, expected) in [
            ("/cri/exec/t0k3n", true),
            ("//127.0.0.1:39017/cri/exec/t0k3n", false),
            ("127.0.0.1:39017/cri/exec/t0k3n", false),
            ("http://127.0.0.1:34567/exec/t0k3n", false),
            ("", false),
        ] {
            assert_eq!(is_relative(url), expected, "{url}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(url in ".{0,60}") {
            let _ = read(&url);
        }
    }
}
