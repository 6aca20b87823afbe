//! Compares paths as the inner server's router may read them.
//!
//! That router decodes percent-encoding, ignores repeated slashes, and may match everything below a path. A path that
//! is refused in one spelling must not be reachable in another.

/// How often a path is decoded at most. An honest path is not encoded more often.
const DECODED: usize = 3;

/// Whether a path may be read as the path `of` or as one below it.
pub(crate) fn is_within(path: &str, of: &str) -> bool {
    let of = of.trim_end_matches('/');
    if of.is_empty() {
        // Every path is below it.
        return path == "/";
    }
    let mut plain = path.as_bytes().to_ascii_lowercase();
    for _ in 0..DECODED {
        let decoded = decoded(&plain).to_ascii_lowercase();
        if decoded == plain {
            break;
        }
        plain = decoded;
    }
    if decoded(&plain) != plain {
        return true;
    }
    plain.dedup_by(|next, before| *next == b'/' && *before == b'/');
    let of = of.to_ascii_lowercase();
    plain.strip_prefix(of.as_bytes()).is_some_and(|rest| {
        rest.first()
            .is_none_or(|byte| !byte.is_ascii_alphanumeric())
    })
}

/// Whether a path leads elsewhere for a reader that resolves the segments `.` and `..` and treats a backslash as a
/// slash, as HTTP clients do (URL, section 4.4). The inner server may forward it to another service.
pub(crate) fn leads_elsewhere(path: &str) -> bool {
    let is_dots = |segment: &str| {
        segment.len() <= 6
            && segment.starts_with(['.', '%'])
            && matches!(
                segment.to_ascii_lowercase().replace("%2e", ".").as_str(),
                "." | ".."
            )
    };
    path.contains('\\') || path.split('/').any(is_dots)
}

/// Replaces each escape such as `%2f` by its byte (RFC 3986, section 2.1). Other text stays as it is.
fn decoded(text: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_however_it_is_written() {
        for within in [
            "/graphql",
            "/graphql/",
            "/graphql//",
            "//graphql",
            "/graphql/ws",
            "/graphql/ui/a.js",
            "/%67raphql",
            "/g%72aphql/",
            "/%47RAPHQL",
            "/%2567raphql",
            "/graphql%2Fx",
            "/graphql%00",
            "/graphql;x",
            "/Graphql",
            "/%2525252567raphql",
        ] {
            assert!(is_within(within, "/graphql"), "{within}");
        }
        for other in [
            "/",
            "/graph",
            "/graphqlx",
            "/graphql2/x",
            "/orders/list",
            "/orders/%67raphql",
            "/%zz%6",
            "/actuator/health",
            "/%C3%A9",
        ] {
            assert!(!is_within(other, "/graphql"), "{other}");
        }
        assert!(is_within("/", "/") && !is_within("/orders", "/"));
    }

    #[test]
    fn a_path_that_does_not_lead_where_it_says_is_known() {
        for elsewhere in [
            "/orders/order/..",
            "/orders/../graphql",
            "/orders/%2e%2E/graphql",
            "/orders/.%2e/graphql",
            "/./graphql",
            "/%2e",
            "/orders/order/..\\..\\graphql",
            "/orders\\list",
        ] {
            assert!(leads_elsewhere(elsewhere), "{elsewhere}");
        }
        for plain in [
            "/",
            "/a.b/..c/...",
            "/orders/order/%5C",
            "/%2e%2e%2e",
            "//",
            "*",
        ] {
            assert!(!leads_elsewhere(plain), "{plain}");
        }
    }

    #[test]
    fn what_is_encoded_over_and_over_is_not_decoded_to_its_end() {
        let path = format!("/{}", "%25".repeat(20_000));
        assert!(!is_within(&path.replace("%25", "%"), "/graphql"));
        let nested = format!("/%{}67raphql", "25".repeat(20_000));
        assert!(is_within(&nested, "/graphql"));
    }
}
