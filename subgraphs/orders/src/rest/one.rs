//! One customer with all orders: one document with a content length, unless it is very large.

use axum::body::Body;
use tandem_event_path::store::{Span, SpanRequest, StoreError};

use super::{
    Rest, document,
    list::ORDERS,
    sending::{self, Stop, Writer},
};
use crate::domain::Order;

/// The maximum number of bytes of orders in a document that is written as a whole. The rest of a larger document is
/// sent while it is read.
const WHOLE: usize = 8 * 1024 * 1024;
/// The initial capacity for a document, which fits the usual one.
const USUAL: usize = 2 * 1024;

/// The document of a customer. `None` if there is no such customer. The customer and the orders are read at the same
/// time.
pub(super) async fn body(rest: Rest, id: &str) -> Result<Option<Body>, StoreError> {
    let mut reading = Reading::of(id);
    let (customer, span) = tokio::try_join!(rest.replica.get(id), rest.orders.span(&reading.0))?;
    let Some(customer) = customer.filter(|customer| !customer.erased) else {
        return Ok(None);
    };
    let mut text = Vec::with_capacity(USUAL);
    document::begin(&mut text, &customer).map_err(unwritable)?;
    let mut is_first = true;
    let mut more = reading.take(&mut text, span, &mut is_first)?;
    while more {
        if text.len() > WHOLE {
            return Ok(Some(sending::body(text, |writer| {
                reading.send(rest, writer)
            })));
        }
        let span = rest.orders.span(&reading.0).await?;
        more = reading.take(&mut text, span, &mut is_first)?;
    }
    document::end(&mut text);
    Ok(Some(Body::from(text)))
}

fn unwritable(error: serde_json::Error) -> StoreError {
    StoreError::Corrupt(format!("a document cannot be written: {error}"))
}

/// The request for the next orders.
struct Reading(SpanRequest);

impl Reading {
    fn of(customer: &str) -> Self {
        Self(SpanRequest {
            field: "customerId",
            first: customer.to_owned(),
            last: customer.to_owned(),
            after: None,
            limit: ORDERS,
        })
    }

    /// Writes the orders that were read. Returns whether there are more.
    fn take(
        &mut self,
        text: &mut Vec<u8>,
        span: Span<Order>,
        is_first: &mut bool,
    ) -> Result<bool, StoreError> {
        for order in &span.found {
            if !std::mem::take(is_first) {
                text.push(b',');
            }
            document::order(text, order).map_err(unwritable)?;
        }
        let last = span.found.last();
        self.0.after = last.map(|order| (order.customer_id.clone(), order.id.clone()));
        Ok(span.more)
    }

    /// Sends the remaining orders, after those that were written.
    async fn send(mut self, rest: Rest, mut writer: Writer) -> Result<(), Stop> {
        let mut more = true;
        while more {
            writer.flush().await?;
            let span = rest.orders.span(&self.0).await?;
            more = self.take(&mut writer.text, span, &mut false)?;
        }
        document::end(&mut writer.text);
        writer.end().await
    }
}
