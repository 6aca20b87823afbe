//! Parses media types of requests exactly: a type that a browser sends without a preflight must not pass for JSON.

use axum::http::{HeaderMap, HeaderName, header};

/// One element of a header such as `Accept`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MediaRange {
    /// In lower case, such as `application/json`.
    pub(crate) essence: String,
    /// The names are in lower case, the values have no quotes.
    pub(crate) parameters: Vec<(String, String)>,
    /// In thousandths; 1,000 if it is absent.
    pub(crate) quality: u16,
}

impl MediaRange {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        let essence = parts.next()?.trim().to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/')?;
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let mut range = Self {
            essence,
            parameters: Vec::new(),
            quality: 1_000,
        };
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let name = name.trim().to_ascii_lowercase();
            let value = value.trim().trim_matches('"');
            if name == "q" {
                range.quality = quality(value)?;
            } else if !name.is_empty() {
                range.parameters.push((name, value.to_owned()));
            }
        }
        Some(range)
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn quality(text: &str) -> Option<u16> {
    let value: f32 = text
        .parse()
        .ok()
        .filter(|value| (0.0..=1.0).contains(value))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 1,000"
    )]
    Some((value * 1_000.0).round() as u16)
}

/// What a client accepts, in its order; `None` if the header is absent.
pub(crate) fn accepted(headers: &HeaderMap) -> Option<Vec<MediaRange>> {
    let mut ranges = Vec::new();
    let mut is_said = false;
    for value in headers.get_all(header::ACCEPT) {
        is_said = true;
        let text = value.to_str().unwrap_or_default();
        ranges.extend(text.split(',').filter_map(MediaRange::parse));
    }
    is_said.then_some(ranges)
}

/// The declared type of the body.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<MediaRange> {
    only(headers, &header::CONTENT_TYPE).and_then(MediaRange::parse)
}

/// The only value of a header; `None` if there are several.
pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whether the declared type is JSON in UTF-8.
pub(crate) fn is_json(range: &MediaRange, with_suffix: bool) -> bool {
    let is_json = range.essence == "application/json"
        || (with_suffix
            && range.essence.starts_with("application/")
            && range.essence.ends_with("+json"));
    is_json
        && range.parameter("charset").is_none_or(|charset| {
            charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn declared(text: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, text.parse().unwrap());
        content_type(&headers).is_some_and(|range| is_json(&range, false))
    }

    #[test]
    fn json_is_json_in_any_case_and_nothing_else_is() {
        for json in [
            "application/json",
            "APPLICATION/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert!(declared(json), "{json}");
        }
        for other in [
            "text/plain; application/json",
            "text/plain",
            "application/jsonx",
            "application/json, text/plain",
            "multipart/form-data; boundary=application/json",
            "application/json; charset=utf-16",
            "json",
            "",
            "application/x-www-form-urlencoded",
            "application/graphql",
        ] {
            assert!(!declared(other), "{other}");
        }
    }

    #[test]
    fn two_content_types_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONTENT_TYPE, "application/json".parse().unwrap());
        headers.append(header::CONTENT_TYPE, "text/plain".parse().unwrap());
        assert!(content_type(&headers).is_none());
    }

    #[test]
    fn what_is_accepted_is_read_with_its_quality_and_parameters() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT,
            "multipart/mixed;subscriptionSpec=\"1.0\", Text/Event-Stream;q=0.5, x"
                .parse()
                .unwrap(),
        );
        let ranges = accepted(&headers).unwrap();
        assert_eq!(ranges.len(), 2);
        assert_eq!(ranges[0].parameter("subscriptionspec"), Some("1.0"));
        assert_eq!(
            (ranges[1].essence.as_str(), ranges[1].quality),
            ("text/event-stream", 500)
        );
        assert!(accepted(&HeaderMap::new()).is_none());
    }
}
