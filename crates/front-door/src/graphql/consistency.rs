//! The consistency token on its way: what a client brings is read before it goes on, and what services answer becomes one token, in the
//! header and in the answer itself, for clients that see no headers.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tandem_runtime::consistency::{self, Consistency};

use super::bounded_answer::whole;

/// The header of the token.
pub(super) const HEADER: HeaderName = HeaderName::from_static(consistency::HEADER);

/// Why a token was not handed on: the warning that its bearer is told.
#[derive(Debug, Clone)]
pub(super) struct Ignored(String);

/// Leaves one token in the headers, if they have any that is one.
///
/// # Errors
/// When what they have is none: it is taken out, and the request goes on without it.
pub(super) fn read(headers: &mut HeaderMap) -> Result<(), Ignored> {
    let texts: Vec<&str> = headers
        .get_all(&HEADER)
        .iter()
        .map(|value| value.to_str().unwrap_or("?"))
        .collect();
    if texts.is_empty() {
        return Ok(());
    }
    let brought = texts.join(",");
    let parts = brought.split(',').map(str::trim);
    let is_read = parts
        .clone()
        .all(|part| part.parse::<Consistency>().is_ok());
    let token = Consistency::joined(parts);
    headers.remove(&HEADER);
    if let Ok(value) = HeaderValue::from_str(&token.to_string())
        && !token.is_empty()
    {
        headers.insert(HEADER, value);
    }
    if is_read {
        Ok(())
    } else {
        Err(Ignored(format!(
            "`{}` {}",
            consistency::HEADER,
            consistency::Malformed
        )))
    }
}

/// Makes one token of those that services answered, puts it into the answer's `extensions` too, and with it a warning.
pub(super) async fn told(
    answer: Response<Body>,
    brought: Option<&HeaderValue>,
    ignored: Option<&Ignored>,
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
    if let Some(Ignored(warning)) = ignored {
        extensions.insert("warnings".to_owned(), vec![warning.clone()].into());
    }
    let Ok(bytes) = whole(body, most).await else {
        // Whoever reads it further on says what is wrong with it.
        return Response::from_parts(parts, Body::empty());
    };
    let body = with_extensions(&bytes, extensions).map_or_else(|| Body::from(bytes), Body::from);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, body)
}

/// A response with more extensions; `None` if it is no response. What else it has stays as it was written.
fn with_extensions(response: &[u8], more: Map<String, Value>) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, default)]
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
    async fn an_answer_without_a_token_stays_as_it_is() {
        let answer = Response::new(Body::from("{\"data\": null}"));
        let same = told(answer, None, None, 1_000).await;
        assert_eq!(
            whole(same.into_body(), 1_000).await.ok().unwrap(),
            "{\"data\": null}"
        );
    }
}
