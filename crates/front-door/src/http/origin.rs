//! Decides which host names this port answers to, and whose pages may call it.
//!
//! A browser says in `Origin` (RFC 6454) and `Sec-Fetch-Site` where a request comes from. In `Host` it says which host
//! it believes to be talking to.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::media::only;
use crate::settings::FrontDoorSettings;

/// How long a browser may cache the answer to a preflight, in seconds.
const PREFLIGHT_SECONDS: &str = "600";
/// Headers that a page may send and read, in addition to those that it always may.
const SENT: &str = "content-type, authorization, x-request-id, traceparent, tracestate, tandem-consistency, idempotency-key, apollographql-client-name, apollographql-client-version";
const READ: &str = "x-request-id, retry-after, tandem-consistency, warning";

/// The host names and origins that are accepted.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    hosts: Vec<String>,
    origins: Vec<String>,
}

/// Where a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum From {
    /// Not from a page, or from a page of this port.
    Here,
    /// From a page of an origin that may call this port.
    Allowed(HeaderValue),
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreign {
    pub(crate) status: StatusCode,
    pub(crate) detail: &'static str,
    /// The label of the metric.
    pub(crate) reason: &'static str,
}

const NO_HOST: Foreign = Foreign {
    status: StatusCode::BAD_REQUEST,
    detail: "a request has one header `host`, the name by which this port is addressed",
    reason: "host",
};
const OTHER_HOST: Foreign = Foreign {
    status: StatusCode::MISDIRECTED_REQUEST,
    detail: "this port does not answer to that name: address it as localhost, or allow the name with --allowed-hosts",
    reason: "host",
};
const OTHER_ORIGIN: Foreign = Foreign {
    status: StatusCode::FORBIDDEN,
    detail: "pages of this origin may not call this port: allow it with --allowed-origins",
    reason: "origin",
};

impl Rules {
    pub(crate) fn new(settings: &FrontDoorSettings) -> Self {
        let lower = |list: &[String]| {
            list.iter()
                .map(|one| one.trim().trim_end_matches('/').to_ascii_lowercase())
                .filter(|one| !one.is_empty())
                .collect()
        };
        Self {
            hosts: lower(&settings.allowed_hosts),
            origins: lower(&settings.allowed_origins),
        }
    }

    /// Judges a request that arrived at the address `local`.
    pub(crate) fn judge(
        &self,
        method: &Method,
        headers: &HeaderMap,
        authority: Option<&str>,
        local: IpAddr,
    ) -> Result<From, Foreign> {
        let host = authority
            .or_else(|| only(headers, &header::HOST))
            .map(str::to_ascii_lowercase)
            .ok_or(NO_HOST)?;
        if !self.answers_to(name_of(&host), local) {
            return Err(OTHER_HOST);
        }
        let Some(value) = headers.get(header::ORIGIN) else {
            return self.judge_site(method, headers);
        };
        let origin = only(headers, &header::ORIGIN)
            .map(str::to_ascii_lowercase)
            .ok_or(OTHER_ORIGIN)?;
        let is_own = origin
            .split_once("://")
            .is_some_and(|(scheme, authority)| same(scheme, authority, &host));
        if is_own {
            Ok(From::Here)
        } else if origin != "null" && self.allows(&origin) {
            Ok(From::Allowed(value.clone()))
        } else {
            Err(OTHER_ORIGIN)
        }
    }

    /// Without an `Origin`, a browser still says whether a page of another site sends the request. Following a link is
    /// permitted.
    fn judge_site(&self, method: &Method, headers: &HeaderMap) -> Result<From, Foreign> {
        let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let is_foreign = matches!(said("sec-fetch-site"), Some("cross-site"));
        let is_link = said("sec-fetch-mode") == Some("navigate")
            && (method == Method::GET || method == Method::HEAD);
        if is_foreign && !is_link && !self.origins.iter().any(|origin| origin == "*") {
            Err(OTHER_ORIGIN)
        } else {
            Ok(From::Here)
        }
    }

    fn allows(&self, origin: &str) -> bool {
        self.origins
            .iter()
            .any(|known| known == "*" || known == origin)
    }

    fn answers_to(&self, name: &str, local: IpAddr) -> bool {
        let is_listed = self
            .hosts
            .iter()
            .any(|known| known == "*" || name_of(known) == name);
        if is_listed {
            return true;
        }
        let address = name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        match address {
            // Nobody's name server can make a literal address point to this port, so it is safe.
            Ok(address) => self.hosts.is_empty() || address.is_loopback() || address == local,
            Err(_) if is_loopback_name(name) => true,
            Err(_) => self.hosts.is_empty() && !local.to_canonical().is_loopback(),
        }
    }
}

fn is_loopback_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    if host.starts_with('[') {
        return host.split_inclusive(']').next().unwrap_or(host);
    }
    host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) {
            name
        } else {
            host
        }
    })
}

/// Whether an origin's authority is this host. Either side may omit the scheme's default port.
fn same(scheme: &str, authority: &str, host: &str) -> bool {
    let own_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let plain = |text: &str| text.strip_suffix(own_port).unwrap_or(text).to_owned();
    plain(authority) == plain(host)
}

/// Whether this is a browser's preflight (Fetch, section CORS-preflight).
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Tells a browser what the page may do.
pub(crate) fn answer(from: &From, is_preflight: bool, headers: &mut HeaderMap) {
    // The inner server does not know this setting, so its headers are removed.
    for name in [
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        header::ACCESS_CONTROL_ALLOW_METHODS,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
    ] {
        headers.remove(name);
    }
    let From::Allowed(origin) = from else {
        return;
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if is_preflight {
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST");
        set(header::ACCESS_CONTROL_ALLOW_HEADERS, SENT);
        set(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    } else {
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(READ),
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

    fn judge(
        hosts: &[&str],
        origins: &[&str],
        local: IpAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<From, StatusCode> {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let rules = Rules::new(&FrontDoorSettings {
            allowed_hosts: own(hosts),
            allowed_origins: own(origins),
            ..FrontDoorSettings::default()
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        rules
            .judge(&Method::POST, &map, None, local)
            .map_err(|foreign| foreign.status)
    }

    #[test]
    fn loopback_answers_to_names_of_loopback_alone() {
        for host in [
            "localhost",
            "LOCALHOST:9090",
            "127.0.0.1:9090",
            "[::1]:9090",
            "a.localhost",
            "127.0.0.2",
        ] {
            assert!(
                judge(&[], &[], LOOPBACK, &[("host", host)]).is_ok(),
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "localhost.evil.example:9090",
            "127.0.0.1.nip.io",
            "xlocalhost",
            "",
        ] {
            assert_eq!(
                judge(&[], &[], LOOPBACK, &[("host", host)]),
                Err(StatusCode::MISDIRECTED_REQUEST),
                "{host}"
            );
        }
        assert_eq!(judge(&[], &[], LOOPBACK, &[]), Err(StatusCode::BAD_REQUEST));
        assert!(
            judge(
                &["shop.example"],
                &[],
                LOOPBACK,
                &[("host", "shop.example:1")]
            )
            .is_ok()
        );
    }

    #[test]
    fn outside_any_name_is_taken_until_names_are_listed() {
        assert!(judge(&[], &[], OUTSIDE, &[("host", "accounts:8080")]).is_ok());
        assert!(
            judge(
                &["shop.example"],
                &[],
                OUTSIDE,
                &[("host", "accounts:8080")]
            )
            .is_err()
        );
        assert!(judge(&["shop.example"], &[], OUTSIDE, &[("host", "10.0.0.7:80")]).is_ok());
        assert!(judge(&["*"], &[], OUTSIDE, &[("host", "any")]).is_ok());
    }

    #[test]
    fn pages_of_this_port_may_call_it_and_others_only_if_they_are_listed() {
        let host = ("host", "localhost:9090");
        let origin = |value| {
            judge(
                &[],
                &["https://shop.example"],
                LOOPBACK,
                &[host, ("origin", value)],
            )
        };
        assert_eq!(origin("http://localhost:9090"), Ok(From::Here));
        assert!(matches!(
            origin("https://shop.example"),
            Ok(From::Allowed(_))
        ));
        for foreign in [
            "https://evil.example",
            "null",
            "http://localhost:3000",
            "https://shop.example.evil.example",
            "http://shop.example",
            "file://",
            "",
            "http://localhost",
            "https://localhost:9090.evil.example",
        ] {
            assert_eq!(origin(foreign), Err(StatusCode::FORBIDDEN), "{foreign}");
        }
        let two = [
            host,
            ("origin", "http://localhost:9090"),
            ("origin", "https://evil.example"),
        ];
        assert!(judge(&[], &[], LOOPBACK, &two).is_err());
        assert_eq!(
            judge(&[], &["*"], LOOPBACK, &[host, ("origin", "null")]),
            Err(StatusCode::FORBIDDEN)
        );
        let tls = [("host", "shop.example"), ("origin", "https://shop.example")];
        assert_eq!(judge(&[], &[], OUTSIDE, &tls), Ok(From::Here));
    }

    #[test]
    fn another_sites_call_without_an_origin_is_refused_and_a_link_is_not() {
        let host = ("host", "localhost");
        let site = ("sec-fetch-site", "cross-site");
        assert!(
            judge(
                &[],
                &[],
                LOOPBACK,
                &[host, site, ("sec-fetch-mode", "no-cors")]
            )
            .is_err()
        );
        assert!(
            judge(
                &[],
                &[],
                LOOPBACK,
                &[host, ("sec-fetch-site", "same-origin")]
            )
            .is_ok()
        );
        let rules = Rules::new(&FrontDoorSettings::default());
        let mut headers = HeaderMap::new();
        for (name, value) in [host, site, ("sec-fetch-mode", "navigate")] {
            headers.insert(name, value.parse().unwrap());
        }
        assert!(rules.judge(&Method::GET, &headers, None, LOOPBACK).is_ok());
        assert!(
            rules
                .judge(&Method::POST, &headers, None, LOOPBACK)
                .is_err()
        );
    }

    #[test]
    fn a_page_may_read_all_that_an_answer_says_in_headers() {
        let mut headers = HeaderMap::new();
        let from = From::Allowed(HeaderValue::from_static("https://page.example"));
        answer(&from, false, &mut headers);
        let exposed = headers.get(header::ACCESS_CONTROL_EXPOSE_HEADERS);
        let exposed = exposed.and_then(|names| names.to_str().ok()).unwrap();
        for name in ["warning", "retry-after", "tandem-consistency"] {
            assert!(exposed.split(", ").any(|one| one == name), "{exposed}");
        }
    }
}
