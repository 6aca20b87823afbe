//! Parses the configured host names and origins.
//!
//! A value that no browser could ever send is refused at the start. Otherwise it would silently allow nobody.

use std::net::IpAddr;

use axum::http::uri::Authority;

/// Parses a name by which the port may be addressed. An empty text stays empty.
pub(super) fn parse_host(text: &str) -> Result<String, String> {
    let host = text.trim().trim_end_matches('/');
    let fits =
        matches!(host, "" | "*") || host.parse::<IpAddr>().is_ok() || is_name_with_port(host);
    if fits {
        Ok(host.to_owned())
    } else {
        Err("write a name such as shop.example, with a port or without, in ASCII (xn--…), or * for any".to_owned())
    }
}

/// Parses an origin whose pages may call. An empty text stays empty.
pub(super) fn parse_origin(text: &str) -> Result<String, String> {
    let origin = text.trim().trim_end_matches('/');
    let fits = matches!(origin, "" | "*")
        || origin
            .split_once("://")
            .is_some_and(|(scheme, rest)| is_scheme(scheme) && is_name_with_port(rest));
    if fits {
        Ok(origin.to_owned())
    } else {
        Err("write an origin such as https://shop.example, with a port or without and no path, or * for any".to_owned())
    }
}

/// RFC 3986, section 3.1.
fn is_scheme(text: &str) -> bool {
    let rest = |any: char| any.is_ascii_alphanumeric() || matches!(any, '+' | '-' | '.');
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.chars().all(rest)
}

fn is_name_with_port(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let has_no_port = name.len() == text.len();
    // Names are compared literally, so a pattern would match nobody.
    !name.is_empty()
        && !text.contains(['@', '*'])
        && (has_no_port || authority.port_u16().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_and_what_is_none_is_told() {
        for host in [
            "shop.example",
            "shop.example:8443",
            "[::1]:80",
            "::1",
            "127.0.0.1",
            "*",
            "",
        ] {
            assert_eq!(parse_host(host), Ok(host.to_owned()));
        }
        for none in [
            "😀",
            "https://shop.example",
            "*.shop.example",
            "a@b",
            "a b",
            "a:b",
            "a/b",
            ":80",
        ] {
            assert!(parse_host(none).is_err(), "{none}");
        }
    }

    #[test]
    fn an_origin_is_taken_and_what_is_none_is_told() {
        for origin in [
            "https://shop.example",
            "http://localhost:3000",
            "capacitor://localhost",
            "*",
            "",
        ] {
            assert_eq!(parse_origin(origin), Ok(origin.to_owned()));
        }
        assert_eq!(
            parse_origin(" https://shop.example/ "),
            Ok("https://shop.example".to_owned())
        );
        for none in [
            "-1",
            "null",
            "shop.example",
            "https://",
            "https://a/b",
            "://a",
            "https://*.a",
            "1s://a",
        ] {
            assert!(parse_origin(none).is_err(), "{none}");
        }
    }
}
