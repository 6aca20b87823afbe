//! GraphQL over HTTP: answers queries, mutations and subscriptions in a format that the client accepts.

mod refusals;

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
use http_body::Body as _;
use tokio::time::Instant;

use self::refusals::{
    is_of_single_connection, json, method_not_allowed, not_acceptable, single_connection_refused,
    unreadable_answer,
};
use super::answers::{is_event_stream, json_of};
use super::as_asked::as_asked;
use super::bounded_answer::{Unread, whole};
use super::call::Call;
use super::chosen_operation::Chosen;
use super::endpoint::{GraphQl, TOO_MANY_SUBSCRIPTIONS};
use super::error::{Code, Refused, RequestError};
use super::forwarding::carry_out;
use super::inner::{Inner, Origin, set_up};
use super::negotiation::{self, Format};
use super::operation_request::Ready;
use super::prepared_operation::Kind;
use super::telemetry::Named;
use super::{consistency, events, streams};
use crate::http::admission::Share;
use crate::http::body::{BodyRefused, read};
use crate::http::media::{accepted, content_type, is_json};
use crate::http::serving::About;
use crate::identity::{self, Identity};
use crate::shutdown::Stop;

/// Sets the headers for caches: the answer depends on `accept` and must not be stored. A `cache-control` that the
/// answer already has takes precedence.
fn for_this_request(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("accept"));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Who subscribes, and when the subscriber's token expires.
struct Subscriber {
    share: Share,
    ends: Option<Instant>,
    stop: Stop,
}

impl GraphQl {
    /// Answers a request that came over HTTP.
    pub(crate) async fn answer<I: Inner>(
        self: &Arc<Self>,
        inner: &I,
        share: Share,
        identity: &Identity,
        parts: Parts,
        body: impl http_body::Body<Data = Bytes> + Unpin,
        stop: &Stop,
    ) -> Response<Body> {
        let answered = self.answered(inner, share, identity, parts, body, stop);
        for_this_request(answered.await)
    }

    async fn answered<I: Inner>(
        self: &Arc<Self>,
        inner: &I,
        share: Share,
        identity: &Identity,
        mut parts: Parts,
        body: impl http_body::Body<Data = Bytes> + Unpin,
        stop: &Stop,
    ) -> Response<Body> {
        let accepted = accepted(&parts.headers);
        if is_of_single_connection(&parts) {
            return json(
                StatusCode::BAD_REQUEST,
                Format::Json,
                single_connection_refused(StatusCode::BAD_REQUEST)
                    .body()
                    .into(),
            );
        }
        let taken = match parts.method {
            Method::GET | Method::HEAD => {
                Call::from_address(parts.uri.query().unwrap_or_default(), self.json_depth)
                    .map(|call| (call, None))
                    .map_err(Refused::from)
            }
            Method::POST => self.read(&parts, body, &share).await,
            _ => return method_not_allowed(&parts.method),
        };
        match identity.access() {
            Ok(access) => {
                parts.extensions.insert(access);
            }
            Err(rejection) => {
                let refused = RequestError::token(&rejection).into();
                let response = self.refuse(&parts, accepted.as_deref(), &refused);
                return identity::challenge(response, &rejection);
            }
        }
        let is_get = parts.method != Method::POST;
        let ready = match taken {
            Ok((call, body)) => self.ready(call, body, is_get, &share).await,
            Err(refused) => Err(refused),
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(refused) => return self.refuse(&parts, accepted.as_deref(), &refused),
        };
        if let Some(about) = parts.extensions.remove::<About>()
            && let Some(name) = &ready.operation.sent_name
        {
            about.operation(name);
        }
        let origin = self.origin(&parts);
        let kind = ready.operation.kind;
        match negotiation::choose(accepted.as_deref(), kind) {
            None => not_acceptable(kind),
            Some(format @ (Format::Json | Format::OwnJson)) => {
                let accept = json_of(format);
                let answer = carry_out(inner, &origin, &ready, accept, self.bounds()).await;
                let named = Named::of(&parts.headers);
                self.single(&ready.operation, answer, format, named).await
            }
            Some(format) => {
                let subscriber = Subscriber {
                    share,
                    ends: identity.ends(),
                    stop: stop.clone(),
                };
                self.stream(inner, subscriber, &parts, &origin, ready, format)
                    .await
            }
        }
    }

    async fn read(
        &self,
        parts: &Parts,
        body: impl http_body::Body<Data = Bytes> + Unpin,
        share: &Share,
    ) -> Result<(Call, Option<Bytes>), Refused> {
        let is_right = content_type(&parts.headers).is_some_and(|range| is_json(&range, false));
        // The body is read in any case: some clients read no answer until they have written their whole request.
        let mut arriving = self.arriving(share.client());
        let body = read(&parts.headers, body, self.body, &mut arriving).await;
        let is_too_large = matches!(body, Err(BodyRefused::TooLarge(_) | BodyRefused::NoRoom));
        if !is_right && !is_too_large {
            return Err(RequestError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::BadUserInput,
                "media_type",
                "send JSON, with `content-type: application/json`",
            )
            .into());
        }
        let body = body.map_err(|error| match error {
            BodyRefused::NoRoom => RequestError::rate_limited(1, error.to_string()),
            error => RequestError::new(
                error.status(),
                Code::BadUserInput,
                "body",
                error.to_string(),
            ),
        })?;
        // The body counts as arriving until this is done, because reading it may wait for the client's turn.
        let call = self.call(&body, share).await?;
        drop(arriving);
        Ok((call, Some(body)))
    }

    async fn single(
        &self,
        operation: &Chosen,
        answer: Response<Body>,
        format: Format,
        named: Named<'_>,
    ) -> Response<Body> {
        let (mut parts, body) = answer.into_parts();
        parts.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(format.content_type()),
        );
        let length = body.size_hint().exact();
        let is_within = length.is_some_and(|length| length <= self.max_answer as u64);
        if !operation.is_altered() && !self.log_errors && is_within {
            return Response::from_parts(parts, body);
        }
        let bytes = match whole(body, self.max_answer).await {
            Ok(bytes) => bytes,
            Err(Unread::TooLarge(refused)) => {
                let trace = parts.extensions.get();
                let said = self.refuse_too_large(operation, refused, named, trace);
                return json(StatusCode::OK, format, said);
            }
            Err(Unread::BrokenOff) => return unreadable_answer(format),
        };
        self.log_errors_of(operation, named, parts.extensions.get(), &bytes);
        let bytes = as_asked(operation, bytes);
        parts.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(parts, Body::from(bytes))
    }

    async fn stream<I: Inner>(
        &self,
        inner: &I,
        subscriber: Subscriber,
        parts: &Parts,
        origin: &Origin,
        ready: Ready,
        format: Format,
    ) -> Response<Body> {
        if ready.operation.kind != Kind::Subscription {
            let accept = json_of(Format::OwnJson);
            let answer = carry_out(inner, origin, &ready, accept, self.bounds()).await;
            let operation = ready.operation;
            let named = Named::of(&parts.headers);
            let Some(bytes) = self.read_answer(&operation, answer, named).await else {
                return unreadable_answer(Format::OwnJson);
            };
            return streams::single_event(as_asked(&operation, bytes));
        }
        let client = subscriber.share.client();
        let Some(counted) = self.subscriptions.admit(client) else {
            let refused = RequestError::rate_limited(1, TOO_MANY_SUBSCRIPTIONS).into();
            return self.refuse(parts, None, &refused);
        };
        let Ready {
            operation, body, ..
        } = ready;
        let mut origin = origin.clone();
        let ignored = consistency::read(origin.headers_mut()).err();
        let request = origin.request(body, "text/event-stream", operation.kind);
        let turn = self.turn(client).await;
        let Some((answer, counted)) = set_up(self.tasks, inner, request, counted, turn).await
        else {
            return unreadable_answer(Format::OwnJson);
        };
        if is_event_stream(&answer) {
            let (receiver, task) = self.events(answer.into_body(), operation, subscriber.ends);
            let receiver = receiver.warning(ignored);
            return streams::response(receiver, format, task, counted, subscriber.stop);
        }
        let (sender, receiver) = events::queue(&self.held, operation, subscriber.ends);
        let named = Named::of(&parts.headers);
        // The subscription was refused: one event says why.
        if let Some(bytes) = self.read_answer(sender.operation(), answer, named).await {
            sender.put(bytes);
        }
        sender.complete();
        drop(sender);
        streams::response(receiver, format, None, counted, subscriber.stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cache_keeps_an_answer_or_takes_it_for_another_form() {
        let answers = [
            (json(StatusCode::OK, Format::Json, Bytes::new()), "no-store"),
            (streams::single_event(Bytes::new()), "no-cache"),
        ];
        for (answer, kept) in answers {
            let answer = for_this_request(answer);
            assert_eq!(answer.headers()[header::VARY], "accept");
            assert_eq!(answer.headers()[header::CACHE_CONTROL], kept);
        }
    }
}
