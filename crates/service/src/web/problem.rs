//! Problem details (RFC 9457): the form of every HTTP error, for programs and for people.
//!
//! A problem says what the caller can do about it. Internal causes go to the log, never into a problem.

use std::borrow::Cow;
use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// One error of an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// A URI that names the kind of problem; `about:blank` when the status says it all.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// What kind of problem this is; the same for every occurrence.
    pub title: Cow<'static, str>,
    /// The HTTP status, once more.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened this time, and what would be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub instance: Option<Box<str>>,
    /// The fields that were wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One field of a request that was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Its path, such as `addresses[0].type`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What would be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
}

impl Problem {
    /// A problem that the status explains completely.
    pub fn new(status: StatusCode) -> Self {
        Self {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or("Error").into(),
            status: status.as_u16(),
            detail: None,
            instance: None,
            errors: Vec::new(),
        }
    }

    /// A problem with its own type. `kind` is the last part of the type, `urn:tandem:problem:<kind>`.
    pub fn of_kind(status: StatusCode, kind: &str, title: &'static str) -> Self {
        Self {
            kind: format!("urn:tandem:problem:{kind}").into(),
            title: title.into(),
            ..Self::new(status)
        }
    }

    /// 400: the body is not JSON.
    pub fn malformed_body(detail: impl Into<String>) -> Self {
        Self::of_kind(
            StatusCode::BAD_REQUEST,
            "malformed-body",
            "The body is not well-formed JSON",
        )
        .with_detail(detail)
    }

    /// 422: the body is JSON, but one field is wrong.
    pub fn invalid_field(error: FieldError) -> Self {
        Self::invalid_fields(vec![error])
    }

    /// 422: the body is JSON, but these fields are wrong.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let mut problem = Self::of_kind(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid-field",
            "A field of the body is not acceptable",
        )
        .with_detail(told.join(" / "));
        problem.errors = errors;
        problem
    }

    /// 404, with a detail that says what was not found.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND).with_detail(detail)
    }

    /// 409: the request does not fit the current state.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT).with_detail(detail)
    }

    /// 413: the body is larger than the service accepts.
    pub fn too_large(limit_bytes: Option<usize>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE).with_detail(match limit_bytes {
            Some(limit) => format!("the body is larger than the {limit} bytes that are taken"),
            None => "the body is larger than what is taken".into(),
        })
    }

    /// 415: the declared content type is not JSON.
    pub fn unsupported_media_type(given: &str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE).with_detail(format!(
            "the content type is `{given}`; send application/json"
        ))
    }

    /// 503: a store or Kafka is unavailable, or the answer took too long. A later attempt may succeed.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE).with_detail(detail)
    }

    /// 500, without any internal details.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR)
            .with_detail("the service failed to answer; its log says why")
    }

    /// Says what happened this time.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Says which request the problem is about.
    #[must_use]
    pub fn with_instance(mut self, path: impl Into<Box<str>>) -> Self {
        self.instance = Some(path.into());
        self
    }

    /// The HTTP status; 500 if `status` is not a valid one.
    pub fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl FieldError {
    /// A wrong field, the reason, and what would be right.
    pub fn new(
        field: impl Into<String>,
        reason: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
            expected: Some(expected.into()),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}`: {}", self.field, self.reason)?;
        match &self.expected {
            Some(expected) => write!(formatter, "; expected {expected}"),
            None => Ok(()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status_code();
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[tokio::test]
    async fn a_problem_is_sent_with_its_status_and_media_type() {
        let problem = Problem::invalid_field(FieldError::new("name", "missing", "a name"))
            .with_instance("/accounts/customer/create");
        let response = problem.clone().into_response();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        let body = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["type"], "urn:tandem:problem:invalid-field");
        assert_eq!(json["status"], 422);
        assert_eq!(json["errors"][0]["field"], "name");
        assert_eq!(json["detail"], "`name`: missing; expected a name");
        assert_eq!(serde_json::from_slice::<Problem>(&body).unwrap(), problem);
    }

    #[test]
    fn an_internal_problem_says_nothing_of_the_inside() {
        let problem = Problem::internal();
        assert_eq!(problem.kind, "about:blank");
        assert_eq!(problem.status, 500);
    }
}
