//! Reads the JSON body of a request. If it is invalid, a problem names the wrong fields.
//!
//! Values from the body never appear in a problem. So a log of problems cannot contain a card number.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;
use tandem_model::json::{JsonError, Misfit, lenient_misfit, misfits, read_object};

use super::problem::{FieldError, Problem};

/// Extracts a JSON body. A body that cannot be read is answered with a [`Problem`]:
///
/// | status | when |
/// |---|---|
/// | 400 | the body is empty or not well-formed JSON; the detail has line and column |
/// | 413 | the body is over the limit |
/// | 415 | a content type is given, and it is not JSON (none at all is accepted) |
/// | 422 | fields are missing, of the wrong type, or hold an unknown value; the problem has the path of each, and of each member that is not known |
///
/// An unknown member alone is no reason to refuse a body, because programs often send more than is required.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProblemJson<T>(pub T);

impl<T, S> FromRequest<S> for ProblemJson<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let instance = request.uri().path().to_owned();
        let read = async {
            expect_json(&request)?;
            let body = Bytes::from_request(request, state)
                .await
                .map_err(|rejection| unreadable_body(&rejection))?;
            parse_json(&body)
        };
        read.await
            .map(Self)
            .map_err(|problem: Problem| problem.with_instance(instance))
    }
}

/// Reads a JSON document, as [`ProblemJson`] does.
///
/// # Errors
///
/// A 400 if the text is not JSON. A 422 that names the fields if it does not fit `T`.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let read = read_object(body).and_then(|read| match lenient_misfit::<T>(body) {
        Some(misfit) => Err(JsonError::Misfit(misfit)),
        None => Ok(read),
    });
    read.map_err(|error| match error {
        JsonError::Syntax(syntax) => malformed(body, &syntax),
        JsonError::Encoding(encoding) => Problem::malformed_body(format!(
            "the body is not UTF-8, as JSON has to be: {encoding}"
        )),
        JsonError::Misfit(first) => {
            let mut all = misfits::<T>(body);
            if all.is_empty() {
                all.push(first);
            }
            Problem::invalid_fields(all.into_iter().map(field_error).collect())
        }
    })
}

fn expect_json(request: &Request) -> Result<(), Problem> {
    let Some(given) = request.headers().get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let given = given.to_str().unwrap_or("unreadable");
    let essence = given
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        Ok(())
    } else {
        Err(Problem::unsupported_media_type(given))
    }
}

fn unreadable_body(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::too_large(None)
    } else {
        Problem::malformed_body("the body could not be read to its end")
    }
}

fn malformed(body: &[u8], error: &serde_json::Error) -> Problem {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Problem::malformed_body("the body is empty; send a JSON document");
    }
    Problem::malformed_body(error.to_string())
}

fn field_error(misfit: Misfit) -> FieldError {
    let whole = misfit.field.is_empty();
    FieldError {
        field: if whole {
            "(body)".to_owned()
        } else {
            misfit.field
        },
        reason: misfit.reason,
        expected: misfit.expected,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]
    use axum::Router;
    use axum::body::Body;
    use axum::extract::DefaultBodyLimit;
    use axum::routing::post;
    use serde::Deserialize;
    use tower::ServiceExt;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Customer {
        id: u64,
        name: Name,
        #[serde(default)]
        addresses: Vec<Address>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Name {
        first_name: String,
        last_name: String,
    }

    #[derive(Debug, Deserialize)]
    struct Address {
        #[serde(rename = "type")]
        kind: Kind,
        city: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    enum Kind {
        Billing,
        Shipping,
    }

    const GOOD: &str = r#"{"id":1,"name":{"firstName":"A","lastName":"B"},"addresses":[{"type":"BILLING","city":"C"}]}"#;

    async fn send(content_type: Option<&str>, body: impl Into<Body>) -> (u16, Option<Problem>) {
        let app = Router::new()
            .route(
                "/customers",
                post(|ProblemJson(_): ProblemJson<Customer>| async {}),
            )
            .layer(DefaultBodyLimit::max(1_000));
        let mut request = Request::post("/customers");
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let response = app
            .oneshot(request.body(body.into()).unwrap())
            .await
            .unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        (status, serde_json::from_slice(&body).ok())
    }

    async fn refused(body: &str) -> (u16, Problem) {
        let (status, problem) = send(Some("application/json"), body.to_owned()).await;
        (status, problem.expect("a problem"))
    }

    /// Sends a body that is valid JSON but wrong. Returns the fields that the answer names.
    async fn misfits(body: &str) -> Vec<FieldError> {
        let (status, problem) = refused(body).await;
        assert_eq!(status, 422, "{problem:?}");
        assert_eq!(problem.instance.as_deref(), Some("/customers"));
        let detail = problem.detail.unwrap();
        assert!(
            problem
                .errors
                .iter()
                .all(|error| detail.contains(&error.field)),
            "{detail}"
        );
        problem.errors
    }

    /// The first of these fields.
    async fn misfit(body: &str) -> FieldError {
        misfits(body).await.remove(0)
    }

    #[tokio::test]
    async fn a_good_body_is_read_whatever_kind_of_json_it_is_declared_to_be() {
        for content_type in [
            Some("application/json"),
            Some("Application/JSON; charset=utf-8"),
            Some("application/vnd.api+json"),
            None,
        ] {
            assert_eq!(send(content_type, GOOD).await.0, 200, "{content_type:?}");
        }
    }

    #[tokio::test]
    async fn a_body_declared_to_be_something_else_is_refused() {
        let (status, problem) = send(Some("text/plain"), GOOD).await;
        assert_eq!(status, 415);
        assert!(problem.unwrap().detail.unwrap().contains("text/plain"));
    }

    #[tokio::test]
    async fn malformed_json_is_refused_with_line_and_column() {
        let (status, problem) = refused("{\n  \"id\": 1,,\n}").await;
        assert_eq!(status, 400);
        let detail = problem.detail.unwrap();
        assert!(detail.contains("line 2 column"), "{detail}");
    }

    #[tokio::test]
    async fn malformed_json_is_told_before_a_wrong_field() {
        let (status, _) = refused(r#"{"id": "x", "name": "#).await;
        assert_eq!(status, 400);
    }

    #[tokio::test]
    async fn what_follows_the_document_is_refused() {
        let (status, _) = refused(&format!("{GOOD} {GOOD}")).await;
        assert_eq!(status, 400);
    }

    #[tokio::test]
    async fn an_empty_body_is_refused() {
        let (status, problem) = refused(" ").await;
        assert_eq!(status, 400);
        assert!(problem.detail.unwrap().contains("empty"));
    }

    #[tokio::test]
    async fn an_oversized_body_is_refused() {
        let (status, problem) = send(None, "x".repeat(1_001)).await;
        assert_eq!((status, problem.unwrap().status), (413, 413));
    }

    #[tokio::test]
    async fn an_empty_object_is_refused_with_every_missing_field() {
        let errors = misfits("{}").await;
        let told = errors
            .iter()
            .map(|error| (error.field.as_str(), error.reason.as_str()));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [("id", "missing"), ("name", "missing")]
        );
    }

    #[tokio::test]
    async fn a_misspelt_name_is_named_before_what_is_missing_and_the_right_one_proposed() {
        let errors = misfits(r#"{"nmae":{"firstName":"A","lastName":"B"},"adresses":[]}"#).await;
        let mut told: Vec<_> = errors
            .iter()
            .map(|error| (error.field.as_str(), error.reason.as_str()))
            .collect();
        // Depending on the build, members are in the order of the document or of their names.
        told[..2].sort_unstable();
        assert_eq!(
            told,
            [
                ("adresses", "unknown field; did you mean `addresses`?"),
                ("nmae", "unknown field; did you mean `name`?"),
                ("id", "missing"),
                ("name", "missing"),
            ]
        );
    }

    #[tokio::test]
    async fn a_member_that_is_not_known_is_no_reason_to_refuse() {
        let body = GOOD.replacen('{', r#"{"loyalty":"gold","#, 1);
        assert_eq!(send(None, body).await.0, 200);
    }

    #[tokio::test]
    async fn an_array_is_no_object_though_it_has_as_many_items() {
        let error = misfit(r#"{"id":1,"name":["A","B"]}"#).await;
        assert_eq!(error.field, "name");
        assert_eq!(error.reason, "wrong type: an array");
    }

    #[tokio::test]
    async fn a_missing_field_is_named_by_its_own_path() {
        let error = misfit(r#"{"id":1,"name":{"lastName":"B"}}"#).await;
        assert_eq!(error.field, "name.firstName");
        assert_eq!(error.reason, "missing");
    }

    #[tokio::test]
    async fn a_missing_field_within_a_list_is_named_by_its_own_path() {
        let error = misfit(
            r#"{"id":1,"name":{"firstName":"A","lastName":"B"},"addresses":[{"type":"BILLING"}]}"#,
        )
        .await;
        assert_eq!(error.field, "addresses[0].city");
    }

    #[tokio::test]
    async fn a_wrong_type_is_named_without_the_value() {
        let error = misfit(r#"{"id":"4111-1111","name":{}}"#).await;
        assert_eq!(error.field, "id");
        assert_eq!(error.reason, "wrong type: a string");
        assert_eq!(
            error.expected.as_deref(),
            Some("a whole number that is not negative")
        );
        let error = misfit(r#"{"id":1,"name":[5]}"#).await;
        assert_eq!(error.field, "name[0]");
        let error = misfit(r#"{"id":1,"name":"Ada"}"#).await;
        assert_eq!(error.field, "name");
        assert_eq!(error.expected.as_deref(), Some("an object"));
        let error = misfit(r#"{"id":1,"name":{"firstName":null,"lastName":"B"}}"#).await;
        assert_eq!(error.field, "name.firstName");
        assert_eq!(error.reason, "wrong type: null");
    }

    #[tokio::test]
    async fn a_value_that_reads_like_an_expectation_fools_nobody() {
        let error = misfit(r#"{"id":"x, expected y","name":{}}"#).await;
        assert_eq!(
            error.expected.as_deref(),
            Some("a whole number that is not negative")
        );
    }

    #[tokio::test]
    async fn an_unknown_enum_value_is_answered_with_the_known_ones() {
        let error = misfit(
            r#"{"id":1,"name":{"firstName":"A","lastName":"B"},"addresses":[{"type":"HOME","city":"C"}]}"#,
        )
        .await;
        assert_eq!(error.field, "addresses[0].type");
        assert_eq!(error.reason, "unknown value");
        let expected = error.expected.unwrap();
        assert!(
            expected.contains("BILLING") && expected.contains("SHIPPING"),
            "{expected}"
        );
    }

    #[tokio::test]
    async fn an_unknown_field_is_named_by_its_own_path() {
        let error = misfit(r#"{"id":1,"name":{"firstName":"A","lastname":"B"}}"#).await;
        assert_eq!(error.field, "name.lastname");
        assert_eq!(error.reason, "unknown field; did you mean `lastName`?");
    }

    #[tokio::test]
    async fn a_document_of_another_kind_is_refused_as_a_whole() {
        let error = misfit("\"text\"").await;
        assert_eq!(error.field, "(body)");
        assert_eq!(error.reason, "wrong type: a string");
    }
}
