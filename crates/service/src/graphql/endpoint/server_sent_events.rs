//! A subscription's responses as server-sent events.

use async_graphql::{Executor, Request};
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;

use crate::graphql::written::{self, Handover};
use tandem_runtime::shutdown::Shutdown;

/// The responses of a subscription as server-sent events, one at a time, until the subscription or the service ends.
pub(super) fn events<E: Executor>(executor: &E, request: Request, shutdown: Shutdown) -> Response {
    let handover = Handover::of(&request.query);
    let mut resolved = executor.execute_stream(request.data(handover.clone()), None);
    let events = futures::stream::once(async move {
        let Some(first) = resolved.next().await else {
            // The resolver has finished. Keeping it would hold its memory for as long as the subscription lasts.
            drop(resolved);
            return handover
                .take()
                .unwrap_or_else(|| futures::stream::empty().boxed());
        };
        let all = futures::stream::once(std::future::ready(first)).chain(resolved);
        all.map(|response| written::event(&written::response(&response)))
            .boxed()
    });
    let events = events
        .flatten()
        .chain(futures::stream::once(async {
            Bytes::from_static(b"event: complete\ndata: \n\n")
        }))
        .map(Ok::<_, std::convert::Infallible>)
        // This future owns only the token. A future that holds all of `shutdown` while it waits makes each subscription
        // twice as large.
        .take_until(shutdown.token().cancelled_owned());
    let kind = (
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    ([kind], Body::from_stream(events)).into_response()
}
