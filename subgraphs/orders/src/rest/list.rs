//! All customers with their orders, page by page. Each page needs one read of the customers and one of all their
//! orders.

use std::collections::VecDeque;

use axum::body::Body;
use tandem_event_path::store::{SpanRequest, StoreError};

use super::{
    Rest, document,
    sending::{self, Stop, Writer},
};
use crate::{domain::Order, replica::ReplicaCustomer};

/// The number of customers in the first page. It is small, because the client waits for it.
const FIRST_CUSTOMERS: usize = 20;
/// The number of customers in each later page.
const CUSTOMERS: usize = 500;
/// The number of orders in one read.
pub(super) const ORDERS: usize = 500;

/// The body of the list. The first page is read before the response begins, so that a store that is away gives a 503.
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
        // The next page is read from the database while this one is written.
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

/// Customers, with the orders that have been read of them.
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

    /// Writes the page. Returns the separator before the first customer of the next page.
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

/// The orders of a page of customers, ordered by customer. They are read when they are needed.
#[derive(Default)]
struct Orders {
    read: VecDeque<Order>,
    /// The request for the orders that have not been read yet.
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

    /// The next order of this customer. Callers must ask for the customers in order.
    async fn next_of(&mut self, rest: &Rest, customer: &str) -> Result<Option<Order>, StoreError> {
        loop {
            match self.read.front() {
                // The order of a customer who is not shown.
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
