//! The form of an error's answer: the one that the clients of the path read, and never an empty body.

use axum::body::HttpBody;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::asked_request::Asked;
use crate::web::graphql_refusal::{self, PATH};
use crate::web::pages;
use crate::web::problem::Problem;

/// A refusal in the form that the clients of its path read: a GraphQL response for the GraphQL path, a problem for
/// others.
pub(super) fn in_form_of(asked: &Asked, problem: Problem) -> Response {
    if asked.path == PATH {
        graphql_refusal::refused(problem)
    } else {
        problem.with_instance(asked.path.as_str()).into_response()
    }
}

/// Gives errors that the framework answers with an empty body (no route, wrong method) the same form as all others.
pub(super) fn explained(response: Response, asked: &Asked) -> Response {
    let status = response.status();
    let bare = (status.is_client_error() || status.is_server_error())
        && !response.headers().contains_key(header::CONTENT_TYPE)
        && response.body().is_end_stream();
    if !bare {
        return response;
    }
    let Asked {
        path,
        method,
        by_person,
        ..
    } = asked;
    let problem = Problem::new(status).with_instance(path.as_str());
    let problem = match status {
        StatusCode::NOT_FOUND => problem.with_detail(format!("there is nothing at {path}")),
        // The router adds the header `Allow` outside of this middleware.
        StatusCode::METHOD_NOT_ALLOWED => problem.with_detail(format!(
            "{path} does not take {method}; the header Allow lists what it takes"
        )),
        _ => problem,
    };
    let mut explained = if *by_person {
        pages::explained(&problem)
    } else {
        problem.into_response()
    };
    explained
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("accept"));
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH {
            explained.headers_mut().insert(name, value.clone());
        }
    }
    explained
}
