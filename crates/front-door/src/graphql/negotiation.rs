//! Chooses the format of an answer: the one that the client prefers among those that can carry the operation.

use super::prepared_operation::Kind;
use crate::http::media::MediaRange;

/// A format of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `application/json`
    Json,
    /// `application/graphql-response+json` (GraphQL over HTTP)
    OwnJson,
    /// `text/event-stream` (graphql-sse, distinct connections mode)
    EventStream,
    /// `multipart/mixed; subscriptionSpec="1.0"` (Apollo's clients)
    MultipartSubscription,
    /// `multipart/mixed` (incremental delivery)
    Multipart,
}

impl Format {
    /// The value of the header `content-type`.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json; charset=utf-8",
            Self::OwnJson => "application/graphql-response+json; charset=utf-8",
            Self::EventStream => "text/event-stream",
            Self::MultipartSubscription => {
                "multipart/mixed;boundary=\"graphql\";subscriptionSpec=\"1.0\""
            }
            Self::Multipart => "multipart/mixed;boundary=\"-\"",
        }
    }

    fn of(range: &MediaRange, kind: Kind) -> Option<Self> {
        let is_subscription = kind == Kind::Subscription;
        Some(match range.essence.as_str() {
            "application/json" | "application/*" | "*/*" if !is_subscription => Self::Json,
            "application/graphql-response+json" if !is_subscription => Self::OwnJson,
            "text/event-stream" => Self::EventStream,
            "multipart/mixed"
                if is_subscription && range.parameter("subscriptionspec").is_some() =>
            {
                Self::MultipartSubscription
            }
            "multipart/mixed" if is_subscription => Self::Multipart,
            _ => return None,
        })
    }
}

/// Chooses a format; `None` if the client accepts no suitable one. For a subscription the client must name one: a
/// client that accepts anything does not expect an endless answer.
pub(super) fn choose(accepted: Option<&[MediaRange]>, kind: Kind) -> Option<Format> {
    let Some(ranges) = accepted else {
        return (kind != Kind::Subscription).then_some(Format::Json);
    };
    let mut best: Option<(u16, Format)> = None;
    for range in ranges {
        let Some(format) = Format::of(range, kind) else {
            continue;
        };
        // A query is streamed only if the client accepts nothing else.
        let quality = if kind != Kind::Subscription && format == Format::EventStream {
            range.quality.min(1)
        } else {
            range.quality
        };
        if quality > 0 && best.is_none_or(|(before, _)| quality > before) {
            best = Some((quality, format));
        }
    }
    best.map(|(_, format)| format)
}

/// Whether a client wants GraphQL's own media type, before the kind of its operation is known.
pub(super) fn wants_own_json(accepted: Option<&[MediaRange]>) -> bool {
    choose(accepted, Kind::Query) == Some(Format::OwnJson)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::{HeaderMap, header};

    use super::*;
    use crate::http::media::accepted;

    fn chosen(accept: Option<&str>, kind: Kind) -> Option<Format> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, accept.parse().unwrap());
        }
        choose(accepted(&headers).as_deref(), kind)
    }

    #[test]
    fn a_query_is_answered_in_the_form_that_is_liked_best() {
        for (accept, format) in [
            (None, Some(Format::Json)),
            (Some("*/*"), Some(Format::Json)),
            (
                Some("application/graphql-response+json, application/json;q=0.9"),
                Some(Format::OwnJson),
            ),
            (
                Some("application/json, application/graphql-response+json"),
                Some(Format::Json),
            ),
            (
                Some("application/json;q=0.1, application/graphql-response+json"),
                Some(Format::OwnJson),
            ),
            (Some("text/event-stream"), Some(Format::EventStream)),
            (
                Some("text/event-stream, application/json;q=0.5"),
                Some(Format::Json),
            ),
            (
                Some("multipart/mixed;deferSpec=20220824, application/json"),
                Some(Format::Json),
            ),
            (Some("APPLICATION/JSON"), Some(Format::Json)),
            (Some("text/html"), None),
            (Some("application/json;q=0"), None),
            (Some(""), None),
        ] {
            assert_eq!(chosen(accept, Kind::Query), format, "{accept:?}");
        }
    }

    #[test]
    fn a_subscription_is_answered_in_a_form_that_the_client_named() {
        for (accept, format) in [
            (Some("text/event-stream"), Some(Format::EventStream)),
            (
                Some("multipart/mixed;subscriptionSpec=\"1.0\", application/json"),
                Some(Format::MultipartSubscription),
            ),
            (Some("multipart/mixed"), Some(Format::Multipart)),
            (None, None),
            (Some("*/*"), None),
            (Some("application/json"), None),
            (Some("multipart/*"), None),
        ] {
            assert_eq!(chosen(accept, Kind::Subscription), format, "{accept:?}");
        }
    }
}
