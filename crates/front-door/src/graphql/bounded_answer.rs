//! Reads whole answers up to a size limit. A larger answer is refused and not buffered.

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;

use super::error::{Refused, RequestError};

/// Why there is no answer.
pub(super) enum Unread {
    /// It is larger than the limit. The refusal is for the client.
    TooLarge(Refused),
    /// It broke off before its end.
    BrokenOff,
}

/// Reads a whole answer of at most `most` bytes.
pub(super) async fn whole(body: Body, most: usize) -> Result<Bytes, Unread> {
    let announced = body.size_hint().lower();
    let too_large = |size: u64| {
        let limit = most as u64;
        Unread::TooLarge(
            RequestError::too_expensive(
                size,
                limit,
                format!("the answer has more than the {limit} bytes that are given: ask for smaller pages, with `first`, or for less of each; a mutation was carried out all the same"),
            )
            .into(),
        )
    };
    if announced > most as u64 {
        return Err(too_large(announced));
    }
    match http_body_util::Limited::new(body, most).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(too_large(most as u64 + 1))
        }
        Err(_) => Err(Unread::BrokenOff),
    }
}

/// The answer to an operation that produced no data.
pub(super) fn with_null(refused: &Refused) -> Bytes {
    serde_json::json!({ "data": null, "errors": refused.errors() })
        .to_string()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_larger_than_what_is_given_is_refused_whether_its_length_is_known_or_not() {
        let parts = |count: usize| {
            let part = || Ok::<_, std::io::Error>(Bytes::from_static(b"0123456789"));
            Body::from_stream(futures::stream::iter(
                std::iter::repeat_with(part).take(count),
            ))
        };
        for body in [Body::from(vec![b'x'; 101]), parts(11)] {
            let Err(Unread::TooLarge(refused)) = whole(body, 100).await else {
                panic!("it was taken");
            };
            let error = &refused.errors()[0];
            assert_eq!(error["extensions"]["code"], "TOO_EXPENSIVE");
            assert_eq!(error["extensions"]["limit"], 100);
        }
        for body in [Body::from(vec![b'x'; 100]), parts(10)] {
            let Ok(bytes) = whole(body, 100).await else {
                panic!("it was not taken");
            };
            assert_eq!(bytes.len(), 100);
        }
        let broken = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
        assert!(matches!(
            whole(Body::from_stream(broken), 100).await,
            Err(Unread::BrokenOff)
        ));
    }
}
