//! The consistency token of requests and answers.
//!
//! The token that a client sends is validated before it is forwarded. The tokens of the services are joined into one.
//! The answer carries it in the header, and also in its extensions for clients that cannot read headers.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tandem_runtime::consistency::{self, Consistency};

use super::bounded_answer::{Unread, whole, with_null};

/// The header that carries the token.
pub(super) const HEADER: HeaderName = HeaderName::from_static(consistency::HEADER);
/// The member of `extensions` that holds warnings.
const WARNINGS: &str = "warnings";

/// The client sent text that is not a token. It was not forwarded, and the client gets a warning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ignored;

impl Ignored {
    /// The value of the member `warnings` in the client's answer.
    fn warnings() -> Value {
        let warning = format!("`{}` {}", consistency::HEADER, consistency::Malformed);
        vec![warning].into()
    }
}

/// Joins the tokens in the headers into one, if there is a valid one.
///
/// # Errors
/// When some of the text is not a token. That text is removed, and the request goes on without it.
pub(super) fn read(headers: &mut HeaderMap) -> Result<(), Ignored> {
    let texts: Vec<&str> = headers
        .get_all(&HEADER)
        .iter()
        .map(|value| value.to_str().unwrap_or("?"))
        .collect();
    if texts.is_empty() {
        return Ok(());
    }
    let (token, is_read) = Consistency::brought(texts);
    headers.remove(&HEADER);
    if let Ok(value) = HeaderValue::from_str(&token.to_string())
        && !token.is_empty()
    {
        headers.insert(HEADER, value);
    }
    is_read.map_err(|_| Ignored)
}

/// Adds the warning to the extensions of a subscription's event. An event that is not a response stays as it is.
pub(super) fn warned(event: Bytes) -> Bytes {
    let mut extensions = Map::new();
    extensions.insert(WARNINGS.to_owned(), Ignored::warnings());
    with_extensions(&event, extensions).map_or(event, Bytes::from)
}

/// Joins the client's token and those of the services into one, and adds it to the answer's header and `extensions`.
/// Also adds the warning if the client's text was ignored.
pub(super) async fn told(
    answer: Response<Body>,
    brought: Option<&HeaderValue>,
    ignored: Option<Ignored>,
    most: usize,
) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    let written: Vec<String> = parts
        .headers
        .get_all(&HEADER)
        .iter()
        .filter_map(|value| Some(value.to_str().ok()?.to_owned()))
        .collect();
    if written.is_empty() && ignored.is_none() {
        return Response::from_parts(parts, body);
    }
    let before = brought.and_then(|value| value.to_str().ok());
    let token = Consistency::joined(before.into_iter().chain(written.iter().map(String::as_str)));
    let text = token.to_string();
    parts.headers.remove(&HEADER);
    let mut extensions = Map::new();
    if !written.is_empty()
        && let Ok(value) = HeaderValue::from_str(&text)
    {
        parts.headers.insert(HEADER, value);
        extensions.insert("consistency".to_owned(), text.into());
    }
    if ignored.is_some() {
        extensions.insert(WARNINGS.to_owned(), Ignored::warnings());
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    let bytes = match whole(body, most).await {
        Ok(bytes) => bytes,
        // The token is sent all the same: the write that it stands for has happened.
        Err(Unread::TooLarge(refused)) => with_null(&refused),
        Err(Unread::BrokenOff) => return Response::from_parts(parts, broken_off()),
    };
    let body = with_extensions(&bytes, extensions).map_or_else(|| Body::from(bytes), Body::from);
    Response::from_parts(parts, body)
}

/// A body that breaks off, so that its reader reports an error.
fn broken_off() -> Body {
    let end = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    Body::from_stream(futures::stream::iter([Err::<Bytes, _>(end)]))
}

/// Adds extensions to a response. The other members stay as they were written. `None` if it is not a response.
fn with_extensions(response: &[u8], more: Map<String, Value>) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, default, deserialize_with = "as_written")]
        data: Option<&'a RawValue>,
        #[serde(borrow, default)]
        errors: Option<&'a RawValue>,
        #[serde(default)]
        extensions: Option<Map<String, Value>>,
    }
    let answer: Answer<'_> = serde_json::from_slice(response).ok()?;
    let mut extensions = answer.extensions.unwrap_or_default();
    extensions.extend(more);
    let data = answer.data.map(|data| format!("\"data\":{data}"));
    let errors = answer.errors.map(|errors| format!("\"errors\":{errors}"));
    let extensions = format!("\"extensions\":{}", Value::from(extensions));
    let members: Vec<String> = data.into_iter().chain(errors).chain([extensions]).collect();
    Some(format!("{{{}}}", members.join(",")))
}

/// Keeps a member as it was written, including `null`. `"data": null` says that the operation was executed; a missing
/// `data` says that it was not.
fn as_written<'de, D: Deserializer<'de>>(member: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&'de RawValue>::deserialize(member).map(Some)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(texts: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(HEADER, HeaderValue::from_str(text).unwrap());
        }
        headers
    }

    #[test]
    fn what_is_no_token_does_not_go_on_and_is_told() {
        let mut good = headers(&["v1~c.1.2", "v1~o.3.1"]);
        assert!(read(&mut good).is_ok());
        assert_eq!(good[HEADER], "v1~c.1.2~o.3.1");
        let mut bad = headers(&["nonsense"]);
        assert!(read(&mut bad).is_err());
        assert!(!bad.contains_key(HEADER));
        let mut half = headers(&["v1~c.1.2, nonsense"]);
        assert!(read(&mut half).is_err());
        assert_eq!(half[HEADER], "v1~c.1.2");
        assert!(read(&mut HeaderMap::new()).is_ok());
    }

    #[tokio::test]
    async fn an_answer_has_one_token_of_all_services_and_of_what_was_brought() {
        let mut answer = Response::new(Body::from(r#"{"data":{"n":1.50},"extensions":{"a":1}}"#));
        *answer.headers_mut() = headers(&["v1~c.1.2, v1~o.3.1"]);
        let brought = HeaderValue::from_static("v1~c.1.1~c.9.9");
        let told = told(answer, Some(&brought), None, 1_000).await;
        assert_eq!(told.headers()[HEADER], "v1~c.9.9~c.1.2~o.3.1");
        let body = whole(told.into_body(), 1_000).await.ok().unwrap();
        assert_eq!(
            body,
            r#"{"data":{"n":1.50},"extensions":{"a":1,"consistency":"v1~c.9.9~c.1.2~o.3.1"}}"#
        );
    }

    #[tokio::test]
    async fn an_answer_with_a_token_that_is_too_large_or_breaks_off_is_told_to_be_so() {
        let with_token = |body: Body| {
            let mut answer = Response::new(body);
            *answer.headers_mut() = headers(&["v1~c.1.2"]);
            answer
        };
        let large = with_token(Body::from(vec![b'x'; 101]));
        let large = told(large, None, None, 100).await;
        assert_eq!(large.headers()[HEADER], "v1~c.1.2");
        let body = whole(large.into_body(), 1_000).await.ok().unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errors"][0]["extensions"]["code"], "TOO_EXPENSIVE");
        assert_eq!(body["extensions"]["consistency"], "v1~c.1.2");
        assert_eq!(body.get("data"), Some(&Value::Null));

        let broken = told(with_token(broken_off()), None, None, 100).await;
        assert!(matches!(
            whole(broken.into_body(), 100).await,
            Err(Unread::BrokenOff)
        ));
    }

    #[test]
    fn an_event_is_warned_in_and_stays_as_it_was_otherwise() {
        let event = warned(Bytes::from_static(br#"{"data":{"n":1.50}}"#));
        assert!(event.starts_with(br#"{"data":{"n":1.50},"extensions":"#));
        let event: Value = serde_json::from_slice(&event).unwrap();
        assert!(event["extensions"]["warnings"][0].is_string());
        assert_eq!(warned(Bytes::from_static(b"no json")), "no json");
    }

    #[tokio::test]
    async fn an_answer_without_a_token_stays_as_it_is() {
        let answer = Response::new(Body::from("{\"data\": null}"));
        let same = told(answer, None, None, 1_000).await;
        assert_eq!(
            whole(same.into_body(), 1_000).await.ok().unwrap(),
            "{\"data\": null}"
        );
    }
}
