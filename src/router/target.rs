//! The URL to which a request is passed on. Its path is built from the route's own words and, where the route has a
//! parameter, one checked segment. Nothing of the client's path is passed on as written. So no path can lead out of its
//! route, however the service interprets it.

use std::borrow::Cow;

use reqwest::Url;

/// A segment that can be decoded more often than this is not legitimate.
const DECODED: usize = 3;

/// A path of a service, with its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Decoded.
    segments: Vec<String>,
    query: Option<String>,
}

/// The path does not belong to this route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a segment of this path cannot be read, or leads elsewhere: it is UTF-8, encoded once, with no control characters and no `.` or `..` between slashes"
)]
pub(super) struct Elsewhere;

impl Target {
    /// A known path.
    pub(super) fn fixed(path: &str, query: Option<&str>) -> Self {
        Self {
            segments: parts(path).map(str::to_owned).collect(),
            query: query.map(str::to_owned),
        }
    }

    /// The target of a request for `path` on a route such as `/orders/order/{id}`.
    ///
    /// # Errors
    /// When the path does not belong to that route.
    pub(super) fn on_route(
        route: &str,
        path: &str,
        query: Option<&str>,
    ) -> Result<Self, Elsewhere> {
        let (mut own, mut asked) = (parts(route), parts(path));
        let mut segments = Vec::new();
        loop {
            match (own.next(), asked.next()) {
                (None, None) => break,
                (Some(own), Some(asked)) if own.starts_with('{') => {
                    segments.push(segment(asked)?);
                }
                // The same word: the route was chosen by it.
                (Some(own), Some(_)) => segments.push(own.to_owned()),
                _ => return Err(Elsewhere),
            }
        }
        Ok(Self {
            segments,
            query: query.map(str::to_owned),
        })
    }

    /// The URL of this target below a base URL. `None` if that URL cannot have a path.
    pub(super) fn below(&self, base: &Url) -> Option<Url> {
        let mut url = base.clone();
        url.path_segments_mut()
            .ok()?
            .pop_if_empty()
            .extend(&self.segments);
        url.set_query(self.query.as_deref());
        url.set_fragment(None);
        Some(url)
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// The decoded segment, if every reader would take it for a single segment.
fn segment(written: &str) -> Result<String, Elsewhere> {
    let plain = decoded(written)?;
    let mut read = plain.clone();
    for _ in 0..DECODED {
        let is_dots = |part: &str| matches!(part, "." | "..");
        if read.split(['/', '\\']).any(is_dots) || read.chars().any(char::is_control) {
            return Err(Elsewhere);
        }
        // If a text cannot be decoded once more, no reader will decode it further.
        read = decoded(&read).unwrap_or_default();
    }
    if plain.is_empty() || plain.contains('\\') {
        return Err(Elsewhere);
    }
    Ok(plain)
}

/// Decodes each percent escape such as `%2f` (RFC 3986, section 2.1). Anything that is not an escape stays unchanged.
fn decoded(text: &str) -> Result<String, Elsewhere> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| Elsewhere)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ROUTE: &str = "/orders/order/{customer_id}";

    fn below(base: &str, path: &str, query: Option<&str>) -> Result<String, Elsewhere> {
        let target = Target::on_route(ROUTE, path, query)?;
        let base = Url::parse(base).unwrap();
        Ok(target.below(&base).unwrap().to_string())
    }

    #[test]
    fn no_writing_of_a_path_leads_out_of_its_route() {
        for path in [
            "/orders/order/.",
            "/orders/order/..",
            "/orders/order/%2e%2E",
            "/orders/order/.%2e",
            "/orders/order/%252e%252e",
            "/orders/order/..%2fgraphql",
            "/orders/order/..%2F..%2Fgraphql",
            "/orders/order/a%2f..%2f..%2fgraphql",
            "/orders/order/%2e%2e%5cgraphql",
            "/orders/order/..\\..\\graphql",
            "/orders/order/a\\b",
            "/orders/order/a%5cb",
            "/orders/order/%00",
            "/orders/order/a%0d%0ab",
            "/orders/order/%09..",
            "/orders/order/%ff",
            "/orders/order/",
            "/orders/order",
            "/orders/order/1/",
            "/orders/order/1/../../graphql",
            "//elsewhere.example/orders/order/1",
            "http://elsewhere.example/orders/order/1",
            "http://user:secret@elsewhere.example/orders/order/1",
        ] {
            assert_eq!(
                below("http://orders:8085", path, None),
                Err(Elsewhere),
                "{path}"
            );
        }
    }

    #[test]
    fn what_is_one_segment_is_encoded_as_one_below_the_services_own_path() {
        for (base, prefix) in [
            ("http://orders:8085", "http://orders:8085/"),
            ("https://orders/base/", "https://orders/base/"),
            (
                "http://user:secret@orders/base",
                "http://user:secret@orders/base/",
            ),
        ] {
            for (id, encoded) in [
                ("1", "1"),
                ("a%20b", "a%20b"),
                ("a%2Fb", "a%2Fb"),
                ("@elsewhere.example", "@elsewhere.example"),
                (
                    "http:%2F%2Felsewhere.example",
                    "http:%2F%2Felsewhere.example",
                ),
                ("a%3Fb%23c", "a%3Fb%23c"),
                ("a%25b", "a%25b"),
                ("%zz", "%25zz"),
                ("...", "..."),
            ] {
                let path = format!("/orders/order/{id}");
                let url = below(base, &path, Some("x=1%2F2")).unwrap();
                assert_eq!(url, format!("{prefix}orders/order/{encoded}?x=1%2F2"));
            }
            // This holds however the client wrote the route's own words.
            let url = below(base, "/%6Frders/%6frder/1", None).unwrap();
            assert_eq!(url, format!("{prefix}orders/order/1"));
        }
    }

    #[test]
    fn a_known_path_goes_on_as_it_is() {
        let base = Url::parse("http://accounts:8080").unwrap();
        let target = Target::fixed("/admin/dead-letters/letter", Some("consumer=a&offset=1"));
        assert_eq!(
            target.below(&base).unwrap().as_str(),
            "http://accounts:8080/admin/dead-letters/letter?consumer=a&offset=1"
        );
    }
}
