//! Delivers the answers or events of one operation to its client, as messages in the queue of the connection.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::graphql::as_asked::as_asked;
use crate::graphql::chosen_operation::Chosen;
use crate::graphql::endpoint::GraphQl;
use crate::graphql::error::{Refused, RequestError};
use crate::graphql::events::{Event, Receiver};
use crate::graphql::outgoing::{Outgoing, Queue, What};
use crate::graphql::telemetry::Named;
use crate::http::admission::{Client, Counted};
use crate::http::unread::{TOO_MUCH_UNREAD, held};
use crate::refusals;

/// Delivers what one operation answers.
pub(super) struct Output {
    /// The client for whom it is counted.
    pub(super) client: Client,
    /// When the client's token expires.
    pub(super) ends: Option<Instant>,
    pub(super) id: Arc<str>,
    pub(super) number: u64,
    pub(super) queue: Queue,
}

impl Output {
    pub(super) async fn answer(
        &self,
        graphql: &GraphQl,
        operation: &Chosen,
        answer: Response<Body>,
        named: Named<'_>,
    ) {
        match graphql.read_answer(operation, answer, named).await {
            Some(bytes) => self.finish(graphql, as_asked(operation, bytes)),
            None => self.put(What::Complete),
        }
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` has room for what it is given twice"
    )]
    pub(super) fn follow(&self, mut events: Receiver) -> impl Future<Output = ()> + Send + '_ {
        async move {
            let mut is_first = true;
            while let Some(event) = events.next().await {
                match event {
                    Event::Next(payload) => {
                        if std::mem::take(&mut is_first)
                            && let Some(errors) = request_errors(&payload)
                        {
                            return self.put(What::Failed(errors));
                        }
                        if !self.queue.has_room(payload.len()) {
                            Box::pin(self.queue.room(payload.len())).await;
                        }
                        self.put(What::Next(payload));
                    }
                    Event::End(None) => self.put(What::Complete),
                    Event::Failed(errors) => self.put(What::Failed(errors)),
                    Event::End(Some(error)) => {
                        self.put(What::Failed(Refused::from(error).errors().to_string()));
                    }
                }
            }
        }
    }

    fn finish(&self, graphql: &GraphQl, answer: Bytes) {
        if let Some(errors) = request_errors(&answer) {
            return self.put(What::Failed(errors));
        }
        match held(&graphql.answers, self.client, answer.len()) {
            Ok(counted) => {
                self.put_counted(What::Next(answer), counted);
                self.put(What::Complete);
            }
            Err(_) => {
                let refused = Refused::from(RequestError::rate_limited(1, TOO_MUCH_UNREAD));
                refusals::count(refused.reason());
                self.put(What::Failed(refused.errors().to_string()));
            }
        }
    }

    pub(super) fn put(&self, what: What) {
        self.put_counted(what, None);
    }

    fn put_counted(&self, what: What, counted: Option<Counted>) {
        self.queue.put(Outgoing {
            id: Arc::clone(&self.id),
            number: self.number,
            what,
            _counted: counted.map(Box::new),
        });
    }
}

/// The errors of a response without data, which means that the operation was not executed (graphql-transport-ws,
/// `error`).
fn request_errors(response: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
        #[serde(borrow, default)]
        errors: Option<&'a RawValue>,
    }
    // Most answers begin with their data, so they need not be parsed.
    if response.starts_with(br#"{"data""#) {
        return None;
    }
    let answer: Answer<'_> = serde_json::from_slice(response).ok()?;
    answer
        .data
        .is_none()
        .then_some(answer.errors?.get().to_owned())
}
