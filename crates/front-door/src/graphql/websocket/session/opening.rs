//! Opens an operation that a message asks for: checks it, counts it and starts its task.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{Open, Session};
use crate::graphql::answers::{is_event_stream, json_of};
use crate::graphql::consistency;
use crate::graphql::endpoint::TOO_MANY_SUBSCRIPTIONS;
use crate::graphql::error::{Code, Refused, RequestError};
use crate::graphql::forwarding::carry_out;
use crate::graphql::inner::{Inner, set_up};
use crate::graphql::negotiation::Format;
use crate::graphql::outgoing::What;
use crate::graphql::prepared_operation::Kind;
use crate::graphql::telemetry::Named;
use crate::graphql::websocket::close_code::{self, Close};
use crate::graphql::websocket::output::Output;
use crate::http::admission::{Share, TOO_FAST, whole_seconds};

const TOO_MANY_OPERATIONS: &str =
    "so many operations of one connection are not taken at once: end some first";

impl<I: Inner> Session<I> {
    pub(super) async fn open(
        &mut self,
        id: String,
        payload: &RawValue,
    ) -> Result<Option<Utf8Bytes>, Close> {
        if self.operations.contains_key(&id) {
            return Err(Close(
                close_code::ALREADY_EXISTS,
                "Subscriber for this id already exists",
            ));
        }
        let body = Bytes::copy_from_slice(payload.get().as_bytes());
        let trace = self.named().trace;
        let refuse = |refused: &Refused| {
            let named = Named {
                request_id: self.request_id.as_deref(),
                trace,
            };
            self.graphql.log_refusal(refused, named);
            let id = serde_json::Value::from(id.as_str());
            let errors = refused.errors();
            Ok(Some(Utf8Bytes::from(format!(
                r#"{{"id":{id},"type":"error","payload":{errors}}}"#
            ))))
        };
        if self.operations.len() >= self.limits.operations {
            return refuse(&RequestError::rate_limited(1, TOO_MANY_OPERATIONS).into());
        }
        let client = self.by.identity.client(self.by.address);
        if let Err(wait) = self.by.rate.take(client) {
            return refuse(&RequestError::rate_limited(whole_seconds(wait), TOO_FAST).into());
        }
        match self.by.identity.access() {
            Ok(access) => self.origin.allow(access),
            Err(rejection) => return refuse(&RequestError::token(&rejection).into()),
        }
        let share = Share::new(&self.by.rate, client);
        let call = match self.graphql.call(&body, &share).await {
            Ok(call) => call,
            Err(error) if error.code() == Code::RateLimited => return refuse(&error.into()),
            // A payload that is not a request violates the protocol.
            Err(_) => return Err(Close(close_code::BAD_REQUEST, "Invalid message received")),
        };
        let ready = match self.graphql.ready(call, Some(body), false, &share).await {
            Ok(ready) => ready,
            Err(refused) => return refuse(&refused),
        };
        let is_subscription = ready.operation.kind == Kind::Subscription;
        let counted = match is_subscription.then(|| self.graphql.subscriptions.admit(client)) {
            None => None,
            Some(Some(counted)) => Some(counted),
            Some(None) => {
                return refuse(&RequestError::rate_limited(1, TOO_MANY_SUBSCRIPTIONS).into());
            }
        };
        self.number += 1;
        let output = Output {
            client,
            ends: self.by.identity.ends(),
            id: id.as_str().into(),
            number: self.number,
            queue: self.queue.clone(),
        };
        let accept = if is_subscription {
            "text/event-stream"
        } else {
            json_of(Format::OwnJson)
        };
        let mut origin = self.origin.clone();
        // For queries and mutations `carry_out` does this.
        let ignored = match is_subscription {
            true => consistency::read(origin.headers_mut()).err(),
            false => None,
        };
        let (graphql, inner) = (Arc::clone(&self.graphql), self.inner.clone());
        let operation = ready.operation.clone();
        let request_id = self.request_id.clone();
        // A boxed future that ends before the events are delivered: a subscription does not hold its memory while it is
        // open.
        let beginning = Box::pin(async move {
            let (answer, counted) = match counted {
                Some(counted) => {
                    // A subscription that the client ends while it waits for its turn has cost nothing yet.
                    let turn = graphql.turn(client).await;
                    let request = origin.request(ready.body, accept, ready.operation.kind);
                    let begun = set_up(graphql.tasks, &inner, request, counted, turn).await;
                    let Some((answer, counted)) = begun else {
                        output.put(What::Complete);
                        return None;
                    };
                    (answer, Some(counted))
                }
                None => {
                    let answer = carry_out(&inner, &origin, &ready, accept, graphql.bounds());
                    (answer.await, None)
                }
            };
            if is_event_stream(&answer) {
                let (events, reads_ahead) =
                    graphql.events(answer.into_body(), operation, output.ends);
                return Some((output, events.warning(ignored), reads_ahead, counted));
            }
            let named = Named {
                request_id: request_id.as_deref(),
                trace,
            };
            Box::pin(output.answer(&graphql, &operation, answer, named)).await;
            None
        });
        let task = self.graphql.tasks.start(async move {
            let Some((output, events, _reads_ahead, _counted)) = beginning.await else {
                return;
            };
            output.follow(events).await;
        });
        self.operations.insert(
            id,
            Open {
                number: self.number,
                _task: task,
            },
        );
        Ok(None)
    }
}
