//! All customers with their orders, page by page: one read of the customers, and one of all their orders.

use std::collections::VecDeque;

use axum::body::Body;
use tandem_event_path::store::{SpanRequest, StoreError};

use super::{
    Rest, document,
    sending::{self, Stop, Writer},
};
use crate::{domain::Order, replica::ReplicaCustomer};

/// Customers read before the first bytes go out: few, for it is what a client waits for.
const FIRST_CUSTOMERS: usize = 20;
/// Customers read at once after that.
const CUSTOMERS: usize = 500;
/// Orders read at once.
pub(super) const ORDERS: usize = 500;

/// The list. Its first page is read before the answer begins, so that a store that is away is a 503.
pub(super) async fn body(rest: Rest) -> Result<Body, StoreError> {
    let first = Page::read(&rest, None, FIRST_CUSTOMERS).await?;
    Ok(sending::body(b"[".to_vec(), |writer| {
        write(rest, first, writer)
    }))
}

async fn write(rest: Rest, first: Page, mut writer: Writer) -> Result<(), Stop> {
    let mut separator: &[u8] = b"";
    let mut page = first;
    while let Some(last) = page.customers.last() {
        let after = last.id.clone();
        // While the database reads the next page, this one is written.
        let (next, written) = tokio::join!(
            Page::read(&rest, Some(&after), CUSTOMERS),
            page.write(&rest, separator, &mut writer),
        );
        separator = written?;
        page = next?;
    }
    writer.text.push(b']');
    writer.end().await
}

/// Customers with what has been read of their orders.
struct Page {
    customers: Vec<ReplicaCustomer>,
    orders: Orders,
}

impl Page {
    async fn read(rest: &Rest, after: Option<&str>, limit: usize) -> Result<Self, StoreError> {
        let customers = rest.replica.store().page(after, limit).await?;
        let mut orders = Orders::default();
        if let (Some(first), Some(last)) = (customers.first(), customers.last()) {
            orders.next = Some(SpanRequest {
                field: "customerId",
                first: first.id.clone(),
                last: last.id.clone(),
                after: None,
                limit: ORDERS,
            });
            orders.read(rest).await?;
        }
        Ok(Self { customers, orders })
    }

    /// Writes the page; answers what goes before the first customer of the next one.
    async fn write(
        mut self,
        rest: &Rest,
        mut separator: &'static [u8],
        writer: &mut Writer,
    ) -> Result<&'static [u8], Stop> {
        let is_first_page = separator.is_empty();
        for customer in &self.customers {
            if customer.erased {
                continue;
            }
            writer.text.extend_from_slice(separator);
            separator = b",";
            document::begin(&mut writer.text, customer)?;
            let mut between: &[u8] = b"";
            while let Some(order) = self.orders.next_of(rest, &customer.id).await? {
                writer.text.extend_from_slice(between);
                between = b",";
                document::order(&mut writer.text, &order)?;
                writer.flush_if_full().await?;
            }
            document::end(&mut writer.text);
            writer.flush_if_full().await?;
        }
        if is_first_page {
            writer.flush().await?;
        }
        Ok(separator)
    }
}

/// The orders of a page of customers, in order of customer, read as they are needed.
#[derive(Default)]
struct Orders {
    read: VecDeque<Order>,
    /// What is still to be read.
    next: Option<SpanRequest>,
}

impl Orders {
    async fn read(&mut self, rest: &Rest) -> Result<(), StoreError> {
        let Some(mut request) = self.next.take() else {
            return Ok(());
        };
        let span = rest.orders.span(&request).await?;
        if span.more {
            let last = span.found.last();
            request.after = last.map(|order| (order.customer_id.clone(), order.id.clone()));
            self.next = Some(request);
        }
        self.read.extend(span.found);
        Ok(())
    }

    /// The next order of this customer. Customers are asked for in their order.
    async fn next_of(&mut self, rest: &Rest, customer: &str) -> Result<Option<Order>, StoreError> {
        loop {
            match self.read.front() {
                // Of somebody who is not shown.
                Some(order) if order.customer_id.as_str() < customer => {
                    self.read.pop_front();
                }
                Some(order) if order.customer_id == customer => return Ok(self.read.pop_front()),
                Some(_) => return Ok(None),
                None if self.next.is_some() => self.read(rest).await?,
                None => return Ok(None),
            }
        }
    }
}
